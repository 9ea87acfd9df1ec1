"""``download``: bring models into their folders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from aim_downloader.cli.desk import Core, Desk, complain
from aim_downloader.cli.flags import as_json, asking, moving, placing, selecting
from aim_downloader.cli.plan import show_plans
from aim_downloader.cli.words import Order, pair
from aim_downloader.config import Config
from aim_downloader.errors import DownloadCancelledError, DownloadError
from aim_downloader.events import Emit
from aim_downloader.reporters import choose
from aim_downloader.signals import run_until_signalled


@click.command("download")
@click.argument("words", nargs=-1, metavar="URI [DIR] [URI DIR]...")
@selecting
@placing
@asking
@moving
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `plan` does.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@click.option("--clean", is_flag=True, help="Should it end early, leave nothing to resume.")
@as_json
@click.pass_obj
def download(
    desk: Desk, /, words: Sequence[str], *, as_json: bool, dry_run: bool, quiet: bool, **flags: Any
) -> int:
    """Download models. DIR left out: TARGET_DIR, else ./<name>.

    What is already there and right is not fetched again, and what a run has left unfinished is
    gone on with. Flags beat environment variables.
    """
    config = desk.config(**flags)
    orders = pair(words, desk.environ, config.layout)
    if dry_run:
        return show_plans(desk, orders, config, as_json=as_json)
    core = desk.load_core()
    with choose(json=as_json, quiet=quiet, terminal=desk.terminal) as reporter:
        try:
            told = run_until_signalled(_download_all(core, orders, config, reporter))
        except DownloadError as error:
            told = [error]
    codes = [complain(error) for error in told]  # the core has told of each as an event
    return codes[0] if codes else 0


async def _download_all(
    core: Core, orders: Sequence[Order], config: Config, on_event: Emit
) -> list[DownloadError]:
    """Bring one model after the other; one that cannot be had does not stop the others."""
    failures: list[DownloadError] = []
    for order in orders:
        try:
            await core.adownload(order.uri, order.directory, config=config, on_event=on_event)
        except DownloadCancelledError:
            raise
        except DownloadError as error:
            failures.append(error)
    return failures
