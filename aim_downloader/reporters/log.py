"""Plain lines for a log: what begins and ends, what goes wrong, and how far it is, now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self, TextIO

from aim_downloader.events import Event, LeaseWaiting, PlanMade, RunProgressed, SnapshotPublished
from aim_downloader.reporters.base import Throttle, Writer, one_line
from aim_downloader.reporters.sentences import sentence


class LogReporter:
    """Writes lines to ``stream``, those that repeat every ``interval`` seconds."""

    def __init__(
        self,
        stream: TextIO,
        *,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = Writer(stream)
        self._clock = clock
        self._throttle = Throttle(interval)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, event: Event, /) -> None:
        """Write the event's line, if it has one and it is time for it."""
        if isinstance(event, RunProgressed | LeaseWaiting):
            if not self._throttle.due(self._clock()):
                return
        elif isinstance(event, PlanMade):
            self._throttle.reset()
        if text := sentence(event):
            done = "Done: " if isinstance(event, SnapshotPublished) else ""
            self._write(f"{one_line(done + text)}\n")
