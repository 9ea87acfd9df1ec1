"""A plan before anything is done: a table for a person, aligned text for a pipe, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aim_downloader.reporters.base import one_line
from aim_downloader.units import format_bytes, format_count, format_names

Action = Literal["fetch", "there", "left out", "kept", "remove"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One file and what happens to it; ``reason`` says why, where that needs saying."""

    path: str
    size: int
    action: Action
    reason: str = ""
    digest: str | None = None

    @property
    def told(self) -> str:
        """What happens, in words."""
        return f"{self.action}: {self.reason}" if self.reason else self.action


@dataclass(frozen=True, slots=True)
class PlanTable:
    """A plan to show. ``fetch_bytes`` come over the network: ``resumed_bytes`` are on disk.

    ``needed_bytes`` is what they take of the target's disk, ``free_bytes`` what that has left;
    ``shortage`` says what it lacks, if anything. ``hint`` says what else could be left out;
    ``changed`` are files of an earlier revision that --prune spares.
    """

    uri: str
    commit: str
    target: str
    rows: Sequence[PlanRow]
    fetch_bytes: int
    resumed_bytes: int
    needed_bytes: int
    free_bytes: int
    shortage: str = ""
    hint: str = ""
    changed: Sequence[str] = ()

    def as_json(self) -> str:
        """The plan as one JSON object on one line."""
        return json.dumps(
            {
                "uri": self.uri,
                "commit": self.commit,
                "files": [_as_dict(row) for row in self.rows],
                "bytes": self._size("fetch") + self._size("there"),
                "fetchBytes": self.fetch_bytes,
                "heldBytes": self._size("there"),
                "leftOutBytes": self._size("left out"),
                "keptBytes": self._size("kept"),
                "removeBytes": self._size("remove"),
                "changed": list(self.changed),
                "neededBytes": self.needed_bytes,
                "freeBytes": self.free_bytes,
                "shortage": self.shortage,
                "hint": self.hint,
            }
        )

    def as_text(self) -> str:
        """The plan as aligned lines."""
        longest = max((len(one_line(row.path)) for row in self.rows), default=0)
        lines = [
            f"{one_line(row.path):<{longest}}  {format_bytes(row.size):>8}  {one_line(row.told)}"
            for row in self.rows
        ]
        return "\n".join([self.title, *lines, *self.totals])

    def print(self) -> None:
        """Show the plan as a table on the terminal that is standard output."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("file", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("what happens")
        for row in self.rows:
            told = Text(one_line(row.told), style=_STYLES[row.action])
            table.add_row(Text(one_line(row.path), overflow="fold"), format_bytes(row.size), told)
        console = Console(highlight=False)
        console.print(Text(self.title, style="bold"), table, *map(Text, self.totals), sep="\n")

    @property
    def title(self) -> str:
        """What is planned."""
        return one_line(f"{self.uri} at commit {self.commit} into {self.target}")

    @property
    def totals(self) -> list[str]:
        """How much is fetched, there and so on, and what else there is to say."""
        fetch = self._total("fetch", self.fetch_bytes)
        if self.resumed_bytes:
            them = "it" if len(self._of("fetch")) == 1 else "them"
            fetch += f" ({format_bytes(self.resumed_bytes)} more of {them} is on disk already)"
        rest: tuple[Action, ...] = ("there", "left out", "kept", "remove")
        totals = [fetch, *(self._total(what, self._size(what)) for what in rest if self._of(what))]
        if self.shortage:
            totals.append(f"does not fit: {self.target} has {self.shortage}")
        if self.changed:
            changed = format_names(self.changed)
            totals.append(f"kept, as changed since they were downloaded: {changed}")
        if self.hint:
            totals.append(self.hint)
        return [one_line(total) for total in totals]

    def _total(self, action: Action, size: int) -> str:
        count = len(self._of(action))
        what_else = (
            f"; --prune removes {'it' if count == 1 else 'them'}" if action == "kept" else ""
        )
        return f"{action}: {format_count(count, 'file')}, {format_bytes(size)}{what_else}"

    def _of(self, action: Action) -> list[PlanRow]:
        return [row for row in self.rows if row.action == action]

    def _size(self, action: Action) -> int:
        return sum(row.size for row in self._of(action))


_STYLES = {"fetch": "cyan", "there": "green", "left out": "dim", "kept": "dim", "remove": "red"}
_JSON_ACTIONS = {"fetch": "fetch", "there": "held", "left out": "leftOut"}


def _as_dict(row: PlanRow) -> dict[str, str | int | None]:
    reason = {"reason": row.reason} if row.reason else {}
    action = _JSON_ACTIONS.get(row.action, row.action)
    return {"path": row.path, "size": row.size, "action": action, **reason, "digest": row.digest}
