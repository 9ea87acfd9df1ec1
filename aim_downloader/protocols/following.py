"""Reading behind an engine that writes a file by itself: what it has written becomes proven."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from aim_downloader.partial import BLOCK, Partial
from aim_downloader.snapshot import ByteRange

_GLANCE = 0.02


class Written(Protocol):
    """Tells what an engine has written. ``fresh`` is asked again and again, by one thread."""

    def fresh(self) -> Sequence[ByteRange]:
        """Ranges of whole blocks that are written for good and were not told before."""
        ...


class InOrder:
    """Written from the start of ``part`` on, without gaps, as far as ``frontier`` tells."""

    def __init__(self, part: ByteRange, frontier: Callable[[], int]) -> None:
        self._position, self._stop = part.start, part.stop
        self._frontier = frontier

    def fresh(self) -> Sequence[ByteRange]:
        """Whole blocks since the last time."""
        start, stop = self._position, min(self._frontier(), self._stop)
        if stop < self._stop:
            stop -= stop % BLOCK
        self._position = max(start, stop)
        return [ByteRange(start, stop)] if stop > start else []


class Follower:
    """Puts on record, and hashes, what an engine writes into ``partial``; ``run`` is for a thread.

    An engine that is more than ``lead`` bytes ahead is held up by ``brake(True)`` until
    ``brake(False)``: so a kill costs little, and what is read is still in memory. No time is lost
    by that, as hashing ends last anyway.
    """

    def __init__(
        self, partial: Partial, written: Written, lead: int, brake: Callable[[bool], object]
    ) -> None:
        self._partial = partial
        self._written = written
        self._lead = lead
        self._brake = brake
        self._buffer = memoryview(bytearray(BLOCK))
        self._ended = threading.Event()
        self._abandoned = threading.Event()

    def run(self) -> None:
        """Follow until ``end`` or ``abandon`` is called.

        Raises:
            DownloadError: the disk refuses, or another run took over.
        """
        while not self._abandoned.is_set():
            # Before the look: what was written until then is seen by it.
            ended = self._ended.is_set()
            fresh = self._written.fresh()
            self._take_in(fresh)
            # A file may be taken in out of order, or be resumed.
            if self._partial.behind:
                self._partial.catch_up(self._abandoned)
            if ended and not fresh:
                return
            if not fresh:
                self._ended.wait(_GLANCE)

    def end(self) -> None:
        """The engine writes no more: take in what is left, then stop."""
        self._ended.set()

    def abandon(self) -> None:
        """Stop as soon as possible."""
        self._abandoned.set()
        self._ended.set()

    def _take_in(self, parts: Sequence[ByteRange]) -> None:
        braking = sum(map(len, parts)) > self._lead
        if braking:
            self._brake(True)
        try:
            for part in parts:
                for offset in range(part.start, part.stop, BLOCK):
                    if self._abandoned.is_set():
                        return
                    self._partial.take_in(offset, self._buffer)
        finally:
            if braking:
                self._brake(False)
