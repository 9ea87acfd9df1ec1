"""What a reporter is, and what reporters share: writing that never ends a run."""

from __future__ import annotations

from typing import IO, Protocol, Self

from aim_downloader.events import Event


class Reporter(Protocol):
    """Renders events. It is called on the event loop's thread alone and must not block it."""

    def __enter__(self) -> Self:
        """Begin to report."""

    def __exit__(self, *error: object) -> None:
        """Leave the screen as it was found."""

    def __call__(self, event: Event, /) -> None:
        """Render one event."""


class Writer:
    """Text for a terminal, a pipe or a log, flushed at once, until the other end is gone."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream: IO[str] | None = stream

    def __call__(self, text: str) -> None:
        """Write the text. A reader that is gone must not end a download of hours."""
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._stream = None


def one_line(text: str) -> str:
    """The text without what could move a cursor or forge a line: names come from elsewhere."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class Throttle:
    """Says when it is time again: at once, then every ``interval`` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: float | None = None

    def due(self, now: float) -> bool:
        """Whether it is time at ``now``; if so, the next time is an interval away."""
        if self._next is not None and now < self._next:
            return False
        self._next = now + self._interval
        return True

    def reset(self) -> None:
        """Let the next time be at once."""
        self._next = None
