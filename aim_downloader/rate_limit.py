"""The speed limit of a run: whoever receives bytes takes them from here first, and waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST = 0.25
_SLOWEST_STREAM = 256 * 1024
_SMALLEST_PIECE = 4 * 1024
_LARGEST_PIECE = 1024 * 1024
_SMALLEST_BUFFER = 64 * 1024
_LARGEST_BUFFER = 256 * 1024
_NEEDS_LARGE_BUFFERS = 32 * 1024 * 1024


class RateLimit:
    """So many bytes per second, shared by all threads and the event loop.

    Bytes are reserved in the order in which they are taken (GCRA), so everybody gets a turn.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until = clock()

    def take(self, count: int) -> float:
        """Reserve ``count`` bytes; returns the seconds to wait until they may be received."""
        with self._lock:
            now = self._clock()
            # Whoever was idle, or woke up late, catches up with little.
            begin = max(self._paid_until, now - _BURST)
            self._paid_until = begin + count / self._rate
            return max(0.0, self._paid_until - now)

    @property
    def piece(self) -> int:
        """Bytes to receive at a time: few enough for a steady pace, enough to be cheap."""
        even = max(self._rate // 64, min(self._rate // 4, 64 * 1024))
        return max(_SMALLEST_PIECE, min(_LARGEST_PIECE, even))

    def streams(self, connections: int) -> int:
        """How many of these connections there is a use for: each should move along."""
        return max(1, min(connections, self._rate // _SLOWEST_STREAM))

    @property
    def receive_buffer(self) -> int | None:
        """Bytes that the kernel may hold of a connection; None: as it likes.

        By itself it takes megabytes from each connection before anybody has read one.
        """
        if self._rate > _NEEDS_LARGE_BUFFERS:
            return None
        return max(_SMALLEST_BUFFER, min(_LARGEST_BUFFER, self._rate // 32))
