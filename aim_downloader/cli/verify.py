"""``verify``: read every byte of a folder again, say what is not right, and mend it if asked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aim_downloader.cli.desk import Core, Desk, say, tell
from aim_downloader.cli.flags import as_json, asking, moving, selecting
from aim_downloader.config import Config
from aim_downloader.errors import ConfigError, IntegrityError
from aim_downloader.reporters import choose, findings_text
from aim_downloader.signals import run_until_signalled

if TYPE_CHECKING:
    from aim_downloader.findings import Findings


_ABOUT_A_URI = ("include", "exclude", "weight_format", "revision")


@click.command("verify")
@click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.argument("uri", metavar="[URI]", required=False)
@click.option("--remote", is_flag=True, help="Compare with what the source lists, too.")
@click.option("--repair", is_flag=True, help="Fetch what is damaged or missing, and no more.")
@selecting
@asking
@moving
@as_json
@click.pass_obj
def verify(
    desk: Desk,
    /,
    directory: Path,
    uri: str | None,
    *,
    remote: bool,
    repair: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Read every byte in DIR again, and compare it with the receipt.

    No request is made and nothing is written, but for --remote and --repair. With URI the source
    is asked what should be there: for a folder that has no receipt. Exit code 65: something is not
    right.
    """
    config = desk.config(**flags)
    if uri is None and any(flags[name] for name in _ABOUT_A_URI):
        raise ConfigError("the receipt says which files are meant: filters go with a URI")
    core = desk.load_core()
    with choose(json=as_json, quiet=False, terminal=desk.terminal) as reporter:
        findings = run_until_signalled(
            core.averify(directory, uri, remote=remote, config=config, on_event=reporter)
        )
    if repair:
        findings = _repair(desk, core, directory, uri, config, findings, as_json=as_json)
    return _tell(findings, directory, uri, as_json=as_json)


def _repair(
    desk: Desk,
    core: Core,
    directory: Path,
    uri: str | None,
    config: Config,
    findings: Findings,
    *,
    as_json: bool,
) -> Findings:
    tell(*findings_text.wrong(findings))
    with choose(json=as_json, quiet=False, terminal=desk.terminal) as reporter:
        return run_until_signalled(
            core.arepair(directory, uri, findings=findings, config=config, on_event=reporter)
        )


def _tell(findings: Findings, directory: Path, uri: str | None, *, as_json: bool) -> int:
    tell(*findings_text.asides(findings))
    if as_json:
        say(findings_text.as_json(findings, directory))
    else:
        say(findings_text.as_text(findings, directory))
    if findings.all_right:
        return 0
    if not as_json:
        source = uri or ("hf://owner/name" if findings.against == "SHA256SUMS" else "")
        words = shlex.join(filter(None, ("verify", str(directory), source, "--repair")))
        tell(f"hint: {words} fetches what is damaged or missing")
    return IntegrityError.exit_code
