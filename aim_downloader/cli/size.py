"""``size``: how many bytes a download would bring."""

from __future__ import annotations

import json
from typing import Any

import click

from aim_downloader.cli.desk import Desk, delays, say
from aim_downloader.cli.flags import as_json, asking, selecting
from aim_downloader.signals import run_until_signalled


@click.command("size")
@click.argument("uri")
@selecting
@asking
@as_json
@click.pass_obj
def size(desk: Desk, /, uri: str, *, as_json: bool, **flags: Any) -> int:  # noqa: ARG001  # it always is
    """Print how many bytes the files are, as JSON."""
    config = desk.config(**flags)
    count = run_until_signalled(
        desk.load_core().snapshot_size(uri, config=config, on_event=delays())
    )
    say(json.dumps({"url": uri, "sizeBytes": count}))
    return 0
