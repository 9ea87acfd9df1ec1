"""For a person at a terminal: bars that stay below, and what is worth a line above them."""

from __future__ import annotations

from typing import Self

from rich.text import Text

from aim_downloader.events import (
    EarlierSettled,
    Event,
    FileRejected,
    LeaseWaiting,
    PlanMade,
    ProtocolLeft,
    ProtocolsSkipped,
    ProtocolSwitched,
    RetryScheduled,
    RunCancelled,
    RunFailed,
    RunProgressed,
    SnapshotPublished,
    SnapshotResolved,
)
from aim_downloader.reporters.bars import Bars
from aim_downloader.reporters.base import one_line
from aim_downloader.reporters.screen import Screen, Terminal
from aim_downloader.reporters.sentences import how_far, plan_details, sentence
from aim_downloader.units import format_bytes, format_count


class TerminalReporter:
    """Draws on ``console``, which is standard error unless given.

    It draws when an event comes and has no thread of its own: a program that ends in a hurry
    never waits for it.
    """

    def __init__(self, console: Terminal | None = None) -> None:
        self._console = console or Terminal()
        self._screen = Screen(self._console)
        self._what = ""
        self._last: RunProgressed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._screen.keep_below(None)

    def __call__(self, event: Event, /) -> None:
        """Draw the event."""
        match event:
            case SnapshotResolved():
                self._what = f"{event.uri} at commit {event.commit[:12]}"
            case PlanMade():
                self._begin(event)
            case RunProgressed():
                self._last = event
                self._screen.keep_below(Bars(event))
            case LeaseWaiting():
                self._screen.keep_below(Text(one_line(sentence(event)), style="yellow"))
            case RetryScheduled() | FileRejected():
                self._print(sentence(event), "yellow")
            case ProtocolSwitched() | ProtocolLeft() | ProtocolsSkipped():
                self._print(sentence(event), "yellow")
            case EarlierSettled():
                self._print(sentence(event), "dim")
            case SnapshotPublished() | RunFailed() | RunCancelled():
                self._end(event)

    def _begin(self, event: PlanMade) -> None:
        what = f"{format_count(event.files, 'file')}, {format_bytes(event.bytes)}"
        self._print(f"{self._what}: {what}", "bold")
        self._print("; ".join([f"into {event.target}", *plan_details(event)]), "dim")
        if event.hint:
            self._print(event.hint, "cyan")

    def _end(self, event: SnapshotPublished | RunFailed | RunCancelled) -> None:
        self._screen.keep_below(None)
        last, self._last = self._last, None
        if isinstance(event, SnapshotPublished):
            mark = "✓ " if self._console.encoding.startswith("utf") else ""
            self._print(mark + sentence(event), "green")
        elif isinstance(event, RunCancelled):
            self._print(sentence(event), "yellow")
        elif last:
            self._print(f"Stopped at {how_far(last.bytes_done, last.bytes_total)}", "yellow")

    def _print(self, text: str, style: str) -> None:
        self._screen.print(Text(one_line(text), style=style))
