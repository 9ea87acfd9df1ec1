"""The work queue: one pass per key at a time, later where asked, and slower after failures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0


class Queue(Generic[K]):
    """Keys that are to be worked on, each of them once however often it is put.

    A key that is put while it is worked on is worked on again. Time is the event loop's.
    """

    def __init__(self, on_failure: Callable[[K, Exception, float], None]) -> None:
        """``on_failure`` hears of the key, the error, and the seconds until the next pass."""
        self._on_failure = on_failure
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()  # what is in `_ready`
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._running: set[K] = set()
        self._again: dict[K, float] = {}  # put while running, and when to begin
        self._failures: dict[K, int] = {}  # in a row

    def __len__(self) -> int:
        """How many keys wait, though their time has come."""
        return len(self._waiting)

    def put(self, key: K, delay: float = 0.0) -> None:
        """Ask for a pass in so many seconds; of several wishes the earliest counts."""
        due = _now() + max(delay, 0.0)
        if key in self._running:
            self._again[key] = min(due, self._again.get(key, due))
        elif key not in self._waiting:
            self._schedule(key, due)

    async def run(self, work: Callable[[K], Awaitable[float | None]], workers: int) -> None:
        """Work until cancelled.

        ``work`` returns after how many seconds it wants to look again, None for not at all. After
        an exception it is called again, later each time, and not before its ``wait`` if it has
        one; a key that is put does not wait for that.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work_on(work))

    async def _work_on(self, work: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            try:
                delay = await work(key)
                self._failures.pop(key, None)
            except Exception as error:  # noqa: BLE001  # one key's trouble is not the others'
                delay = self._failed(key, error)
            self._running.discard(key)
            again = self._again.pop(key, None)
            if again is not None:
                self._schedule(key, again)
            if delay is not None:
                self.put(key, delay)

    def _failed(self, key: K, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
        # Those that failed together shall not come back together.
        delay *= random.uniform(0.5, 1.0)
        delay = max(delay, min(LONGEST_DELAY, float(getattr(error, "wait", 0.0))))
        self._on_failure(key, error, delay)
        return delay

    def _schedule(self, key: K, due: float) -> None:
        if timer := self._timers.get(key):
            if timer.when() <= due:
                return
            timer.cancel()
        if due <= _now():
            self._begin(key)
        else:
            self._timers[key] = asyncio.get_running_loop().call_at(due, self._begin, key)

    def _begin(self, key: K) -> None:
        self._timers.pop(key, None)
        self._waiting.add(key)
        self._ready.put_nowait(key)


def _now() -> float:
    return asyncio.get_running_loop().time()
