"""How far a run is: counters that its workers move, and samples of them for reporters."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from aim_downloader.events import Emit, FileProgress, RunProgressed
from aim_downloader.snapshot import RemoteFile

_SAMPLE = 0.2
_RATE_WINDOW = 5.0


class UnderWay(Protocol):
    """What a sample reads of a file on its way: bytes on disk, and bytes that are hashed."""

    file: RemoteFile

    @property
    def present(self) -> int: ...  # noqa: D102
    @property
    def verified(self) -> int: ...  # noqa: D102
    @property
    def reading_back(self) -> bool: ...  # noqa: D102


class Traffic:
    """Counts the bytes of content that came over the network, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = 0

    def add(self, count: int) -> None:
        """Count ``count`` bytes more."""
        with self._lock:
            self.received += count


class Pace:
    """How many bytes per second, over the last ``window`` seconds."""

    def __init__(self, window: float = _RATE_WINDOW) -> None:
        self._window = window
        self._moved: deque[tuple[float, int]] = deque()

    def restart(self) -> None:
        """Other bytes are counted from now on."""
        self._moved.clear()

    def after(self, moved: int) -> float:
        """The pace, now that so many bytes are moved in all."""
        now = time.monotonic()
        self._moved.append((now, moved))
        while now - self._moved[0][0] > self._window:
            self._moved.popleft()
        since, before = self._moved[0]
        return (moved - before) / (now - since) if now > since else 0.0


class Progress:
    """The counters of one run. First what is there is verified, then the rest is fetched."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.active: Mapping[str, UnderWay] = {}
        self.connections: Callable[[], int] = int
        self._examining = False
        self._total = self._settled = self._kept = 0
        self._files = self._files_done = 0
        self._pace = Pace()

    @property
    def begun(self) -> bool:
        """Whether there is anything to tell yet."""
        return self._files > 0

    def begin_examining(self, files: int, size: int) -> None:
        """``files`` of ``size`` bytes in all are there, and have to be read through."""
        self._examining = True
        self._files, self._total = files, size
        self._files_done = self._settled = 0

    def begin_fetching(self, files: int, size: int, files_held: int, bytes_held: int) -> None:
        """The plan is made; of its ``files`` and ``size`` so much is there and right."""
        self._examining = False
        self._files, self._total = files, size
        self._files_done, self._settled = files_held, bytes_held
        self._pace.restart()

    def settle(self, size: int) -> None:
        """One file is done with, and ``size`` more bytes are."""
        self._files_done += 1
        self._settled += size

    def add(self, size: int) -> None:
        """So many more bytes are read through."""
        self._settled += size

    def keep(self, size: int) -> None:
        """So many bytes are kept of a file that is not complete."""
        self._kept += size

    def forget_kept(self) -> None:
        """Files that are not complete are thrown away."""
        self._kept = 0

    def bytes(self) -> tuple[int, int]:
        """Bytes on disk, and in all."""
        present = sum(one.present for one in list(self.active.values()))
        return self._settled + self._kept + present, self._total

    def sample(self) -> RunProgressed:
        """How far the run is now."""
        active = list(self.active.values())
        done, total = self.bytes()
        reading_back = self._examining or any(one.reading_back for one in active)
        rate = self._pace.after(self._settled if self._examining else self.traffic.received)
        return RunProgressed(
            bytes_done=done,
            bytes_total=total,
            bytes_received=self.traffic.received,
            files_done=self._files_done,
            files_total=self._files,
            rate=rate,
            eta=(total - done) / rate if rate else None,
            connections=self.connections(),
            verifying=reading_back,
            active=tuple(
                FileProgress(one.file.path, one.file.size, one.present, one.verified)
                for one in active
            ),
        )


@contextlib.asynccontextmanager
async def sampling(progress: Progress, emit: Emit) -> AsyncIterator[None]:
    """Emit a sample several times a second, and one at the end."""

    async def sample() -> None:
        while True:
            await asyncio.sleep(_SAMPLE)
            if progress.begun:
                emit(progress.sample())

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        if progress.begun:
            emit(progress.sample())
        if isinstance(ended, Exception):
            raise ended  # whoever listens has failed
