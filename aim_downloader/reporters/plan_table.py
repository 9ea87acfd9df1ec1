"""A plan before anything is done: a table for a person, aligned text for a pipe, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aim_downloader.reporters.base import one_line
from aim_downloader.units import format_bytes, format_count

Action = Literal["fetch", "there", "left out"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One file and what happens to it; ``reason`` says why it is left out."""

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

    ``free_bytes`` is what the disk of the target has left.
    """

    uri: str
    commit: str
    target: str
    rows: Sequence[PlanRow]
    fetch_bytes: int
    resumed_bytes: int
    free_bytes: int

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
                "freeBytes": self.free_bytes,
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
        """How much is fetched, there and left out."""
        fetch = self._total("fetch", self.fetch_bytes)
        if self.resumed_bytes:
            fetch += f"; another {format_bytes(self.resumed_bytes)} of it is on disk"
        rest: tuple[Action, ...] = ("there", "left out")
        totals = [fetch, *(self._total(what, self._size(what)) for what in rest if self._of(what))]
        if (missing := self.fetch_bytes - self.free_bytes) > 0:
            free = f"{format_bytes(self.free_bytes)} are free in {self.target}"
            totals.append(f"does not fit: {free}, {format_bytes(missing)} are missing")
        return totals

    def _total(self, action: Action, size: int) -> str:
        return f"{action}: {format_count(len(self._of(action)), 'file')}, {format_bytes(size)}"

    def _of(self, action: Action) -> list[PlanRow]:
        return [row for row in self.rows if row.action == action]

    def _size(self, action: Action) -> int:
        return sum(row.size for row in self._of(action))


_STYLES = {"fetch": "cyan", "there": "green", "left out": "dim"}
_JSON_ACTIONS = {"fetch": "fetch", "there": "held", "left out": "leftOut"}


def _as_dict(row: PlanRow) -> dict[str, str | int | None]:
    reason = {"reason": row.reason} if row.reason else {}
    action = _JSON_ACTIONS[row.action]
    return {"path": row.path, "size": row.size, "action": action, **reason, "digest": row.digest}
