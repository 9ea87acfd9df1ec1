"""Writes docs/reference.md: every flag, variable, exit code and event, as the code has them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from aim_downloader.cli import commands
from aim_downloader.environment import VARIABLES
from aim_downloader.errors import EXIT_CODES
from aim_downloader.events import Event
from aim_downloader.findings import Findings
from aim_downloader.reporters import findings_text
from aim_downloader.reporters.plan_table import PlanTable

PAGE = Path(__file__).with_suffix(".md")
_ABOUT = """Made from the code by `make docs`. How to use it: [at a terminal](terminal.md),
[from Python](python.md), [offline and in air gaps](offline.md), [behind proxies](proxies.md)."""
_ANSWERS = """One object on the last line of standard output, its fields named as in Kubernetes.
Sizes are in bytes. `size` answers with `url` and `sizeBytes`."""
_OF_PLAN = {
    "uri": "the model that was asked for",
    "commit": "the commit that its revision means now",
    "files": "each with `path`, `size`, `digest`, what happens to it (`action`: `fetch`, `held`, "
    "`leftOut`, `kept`, `remove`) and why (`reason`)",
    "bytes": "of the files that the finished folder holds",
    "fetchBytes": "still to come over the network",
    "heldBytes": "there and right",
    "leftOutBytes": "left out by filters",
    "keptBytes": "of an earlier revision, kept",
    "removeBytes": "of an earlier revision, removed by `--prune`",
    "changed": "files of an earlier revision that `--prune` spares, as somebody has changed them",
    "neededBytes": "of disk that are needed",
    "freeBytes": "of disk that are free",
    "shortage": "what the disk lacks, in words; empty when all fits",
    "hint": "what else could be left out, or ought to be known",
}
_OF_VERIFY = {
    "directory": "the folder",
    "against": "who says what its files should be: `receipt`, `SHA256SUMS` or `source`",
    "commit": "the commit that it was compared with",
    "movedTo": "the commit where the branch is now, when that is another one (`--remote`)",
    "allRight": "whether nothing is damaged or missing",
    "files": "how many files were compared",
    "bytes": "that were read",
    "damaged": "each with `path`, `reason`, and which bytes: `ranges` of `start` and `stop`, none "
    "where nobody can tell",
    "missing": "paths",
    "unknown": "paths of other files in the folder",
    "mended": "paths of what `--repair` has made right",
    "bytesReceived": "by `--repair`",
    "notes": "what else is good to know",
}
_EVENTS = """What `--json` writes, one object per line, and what `on_event` hears. Their fields are
named as in Python. Sizes are in bytes, times in seconds."""


def reference() -> str:
    """The page."""
    context = click.Context(commands, info_name="aim-downloader")
    parts = [
        "# Reference",
        _ABOUT,
        "## Commands and flags",
        "A flag beats an environment variable, which beats the default.",
    ]
    for name in commands.list_commands(context):
        parts += _command(commands.commands[name], context)
    parts += [
        "## Environment variables",
        _table(("Variable", "Meaning"), [(_code(one.name), one.meaning) for one in VARIABLES]),
        "## Exit codes",
        _table(
            ("Code", "Meaning", "Try again?"),
            [(str(code), told.meaning, told.again) for code, told in EXIT_CODES.items()],
        ),
        "## Answers in JSON",
        _ANSWERS,
        "### plan --json",
        _fields(PlanTable("", "", "", (), 0, 0, 0, 0).as_json(), _OF_PLAN),
        "### verify --json",
        _fields(findings_text.as_json(Findings("receipt", "", 0, 0), Path()), _OF_VERIFY),
        "## Events",
        _EVENTS,
        _table(("Event", "Fields", "Meaning"), [_event(kind) for kind in _kinds()]),
    ]
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"### {command.name}"
    yield f"`aim-downloader {command.name} {usage}`"
    yield " ".join((command.help or "").split())
    options = [one for one in command.params if isinstance(one, click.Option)]
    records = filter(None, (option.get_help_record(context) for option in options))
    rows = [(_code(flag), meaning) for flag, meaning in records]
    if rows:
        yield _table(("Flag", "Meaning"), rows)


def _fields(answer: str, meanings: Mapping[str, str]) -> str:
    """A row for each field; one without a meaning is an error."""
    rows = [(_code(name), meanings[name]) for name in json.loads(answer)]
    return _table(("Field", "Meaning"), rows)


def _kinds() -> list[type[Event]]:
    # A dataclass with slots is a second class beside the one that was written.
    return list({kind.name: kind for kind in Event.__subclasses__()}.values())


def _event(kind: type[Event]) -> tuple[str, str, str]:
    fields = ", ".join(field.name for field in dataclasses.fields(kind))
    return (
        _code(kind.name),
        _code(fields),
        " ".join((kind.__doc__ or "").replace("``", "`").split()),
    )


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
    sys.stdout.write(f"{PAGE.name} is written\n")
