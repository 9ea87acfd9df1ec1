"""``clean``: remove what dead runs left unfinished."""

from __future__ import annotations

from pathlib import Path

import click

from aim_downloader.cli.desk import BUSY, Desk, delays, say, tell_error
from aim_downloader.reporters.base import one_line
from aim_downloader.units import format_bytes, format_count


@click.command("clean")
@click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.pass_obj
def clean(desk: Desk, /, directory: Path) -> int:
    """Remove what dead runs left unfinished.

    Finished files stay, and so does everything while a run is at work in DIR.
    """
    report = desk.load_core().clean(directory, on_event=delays())
    if report.busy:
        hint = "wait for it, or end it, and try again"
        tell_error(f"nothing removed: {directory} is in use by {report.busy}", hint)
        return BUSY
    if report.removed:
        files = format_count(len(report.removed), "file")
        say(one_line(f"removed {files}, {format_bytes(report.bytes)}, from {directory}"))
    else:
        say(one_line(f"nothing to remove in {directory}"))
    return 0
