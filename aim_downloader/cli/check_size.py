"""``check-size``: how many bytes a ``job`` would bring, for who reads a container's log."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from aim_downloader.cli.container import exit_code_of, log_of, run_to_an_end, settings
from aim_downloader.cli.desk import Desk, say
from aim_downloader.errors import ConfigError
from aim_downloader.events import Event, SnapshotResolved
from aim_downloader.reporters.termination import TerminationMessage, termination_path
from aim_downloader.snapshot import shown


@click.command("check-size", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="URI", type=click.UNPROCESSED)
@click.pass_obj
def check_size(desk: Desk, /, words: Sequence[str]) -> int:
    """Print in a container how many bytes the files are.

    It has no flags: environment variables say all else. The last line of standard output is JSON.
    What goes wrong is told as `job` tells it: on standard error, and in the termination message.
    """
    config, refused = settings(desk)
    log = log_of(config)
    message = TerminationMessage(termination_path(desk.environ), tell=log.say)

    async def work() -> int:
        if refused:
            raise refused
        if len(words) != 1:
            raise ConfigError(f"{len(words)} words where one model URI is wanted")
        message.about(shown(words[0]))
        return await desk.load_core().snapshot_size(words[0], config=config, on_event=hear)

    def hear(event: Event) -> None:
        message(event)
        # A container's log has its two streams in any order, and the answer has to be its last
        # line: while all is well nothing else is said.
        if not isinstance(event, SnapshotResolved):
            log(event)

    size = run_to_an_end(work, log)
    error = size if isinstance(size, Exception) else None
    message.write(exit_code_of(error), error)
    if error:
        log.conclude(exit_code_of(error), error)
        return exit_code_of(error)
    say(json.dumps({"url": words[0], "sizeBytes": size}))
    return 0
