"""For programs: one event per line, as JSON, at most one sample of the progress per second."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Self, TextIO

from aim_downloader.events import Event, RunCancelled, RunFailed, RunProgressed, SnapshotPublished
from aim_downloader.reporters.base import Throttle, Writer


class JsonLinesReporter:
    """Writes events to ``stream``. The last sample of a run is always among them."""

    def __init__(
        self,
        stream: TextIO,
        *,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = Writer(stream)
        self._clock = clock
        self._throttle = Throttle(interval)
        self._held_back: RunProgressed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._catch_up()

    def __call__(self, event: Event, /) -> None:
        """Write the event, or hold back a sample that comes too soon."""
        if isinstance(event, RunProgressed):
            self._sample(event)
            return
        if isinstance(event, SnapshotPublished | RunFailed | RunCancelled):
            self._catch_up()
        self._tell(event)

    def _sample(self, event: RunProgressed) -> None:
        self._held_back = event
        if self._throttle.due(self._clock()):
            self._catch_up()

    def _catch_up(self) -> None:
        held_back, self._held_back = self._held_back, None
        if held_back:
            self._tell(held_back)

    def _tell(self, event: Event) -> None:
        self._write(f"{json.dumps(event.as_dict())}\n")
