"""What the memory of a run has room for: connections, small files, pages of large ones."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from aim_downloader.snapshot import MIB

# Python, libraries and the listing: 42 MiB of a usual model.
_PROCESS = 48 * MIB
# A block on its way, and what its thread, TLS and the allocator hold beside it: 1.0 to 1.7 MiB.
_CONNECTION = 2 * MIB
_MOST_OF_SMALL_FILES = 8 * MIB

SETTLE_EVERY = 64 * MIB
"""Bytes of a file, written or read, after which they are synced and need not stay in memory."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a run may use: connections, and bytes of small files that wait for the disk."""

    connections: int
    small_files: int


def allowance(limit: int | None, connections: int) -> Allowance:
    """Share out what ``limit`` bytes of memory leave for buffers.

    ``connections`` are those asked for. There is always room for one, and for one small file.
    """
    if limit is None:
        return Allowance(connections, _MOST_OF_SMALL_FILES)
    room = _half(limit)
    small_files = min(max(room // 4, MIB), _MOST_OF_SMALL_FILES)
    fitting = (room - small_files) // _CONNECTION
    return Allowance(min(max(fitting, 1), connections), small_files)


class OpenFiles:
    """The large files of a run that are being written, in ``limit`` bytes of memory."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._count = 0

    def add(self, count: int) -> None:
        """So many more are open; fewer when it is below 0."""
        with self._lock:
            self._count += count

    @property
    def settle_every(self) -> int:
        """``SETTLE_EVERY``, or less where so much of each file is too much for the memory."""
        if self._limit is None:
            return SETTLE_EVERY
        return min(max(_half(self._limit) // max(1, self._count), MIB), SETTLE_EVERY)


def _half(limit: int) -> int:
    """What buffers may take, and the page cache too: without it each write waits for the disk."""
    return max(0, limit - _PROCESS) // 2
