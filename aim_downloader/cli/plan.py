"""``plan``: say what a download would do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from aim_downloader.cli.desk import Desk, delays, say
from aim_downloader.cli.flags import as_json, asking, placing, selecting
from aim_downloader.cli.words import Order, pair
from aim_downloader.config import Config
from aim_downloader.reporters.plan_table import Action, PlanRow, PlanTable
from aim_downloader.signals import run_until_signalled
from aim_downloader.snapshot import RemoteFile
from aim_downloader.storage import free_space

if TYPE_CHECKING:
    from aim_downloader.planner import Plan
    from aim_downloader.receipt import Record


@click.command("plan")
@click.argument("uri")
@click.argument("directory", required=False, metavar="[DIR]", default="")
@selecting
@placing
@asking
@as_json
@click.pass_obj
def plan(desk: Desk, /, uri: str, directory: str, *, as_json: bool, **flags: Any) -> int:
    """Say what would be fetched.

    Files that are there already and those left out are listed too. Nothing is written.
    """
    config = desk.config(**flags)
    words = [uri, directory] if directory else [uri]
    return show_plans(desk, pair(words, desk.environ, config.layout), config, as_json=as_json)


def show_plans(desk: Desk, orders: Sequence[Order], config: Config, *, as_json: bool) -> int:
    """Show what a download of each would do."""
    core = desk.load_core()
    for order in orders:
        plan = run_until_signalled(
            core.plan(order.uri, order.directory, config=config, on_event=delays())
        )
        table = _table(plan, order)
        if as_json:
            say(table.as_json())
        elif sys.stdout.isatty():
            table.print()
        else:
            say(table.as_text())
    return 0


def _table(plan: Plan, order: Order) -> PlanTable:
    from aim_downloader.planner import shortage

    space = free_space(order.directory)
    rows = [_row(file, "fetch", plan.reasons.get(file.path, "")) for file in plan.fetch]
    rows += [_row(file, "there", plan.reasons.get(file.path, "")) for file in plan.held]
    rows += [_row(item.file, "left out", item.reason) for item in plan.left_out]
    rows += [_of_earlier(record, "kept") for record in plan.earlier.kept]
    rows += [_of_earlier(record, "remove") for record in plan.earlier.pruned]
    return PlanTable(
        uri=str(plan.snapshot.uri),
        commit=plan.snapshot.commit,
        target=str(order.directory),
        rows=sorted(rows, key=lambda row: row.path),
        fetch_bytes=plan.fetch_bytes,
        resumed_bytes=plan.resumed_bytes,
        needed_bytes=plan.needed_bytes,
        free_bytes=space.bytes,
        shortage=shortage(plan, space),
        hint=plan.hint,
        changed=plan.earlier.changed,
    )


def _row(file: RemoteFile, action: Action, reason: str = "") -> PlanRow:
    digest = str(file.digest) if file.digest else None
    return PlanRow(file.path, file.size, action, reason, digest)


def _of_earlier(record: Record, action: Action) -> PlanRow:
    return PlanRow(record.path, record.size, action, "of an earlier revision", record.digest)
