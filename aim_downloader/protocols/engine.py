"""Files through native engines: each in a child process of its own, which is watched and ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from aim_downloader.errors import (
    DownloadError,
    ProtocolUnavailableError,
    StalledError,
    TransferError,
)
from aim_downloader.http_client.certificates import engine_certificates
from aim_downloader.partial import Partial
from aim_downloader.protocols.base import Run
from aim_downloader.protocols.following import Follower, Written
from aim_downloader.snapshot import MIB
from aim_downloader.storage import storage_errors
from aim_downloader.tasks import in_thread, to_the_end
from aim_downloader.units import format_duration
from aim_downloader.worker import Message, Worker

Told: TypeAlias = Mapping[str, Any]
"""The last that an engine has told of each thing, by name."""

SMALLEST_BUDGET = 8 * MIB
"""With fewer bytes in flight engines bring hardly anything."""

_TICK = 0.25
_LONGEST_HOLD = 3.0
# A longer time between two looks was this program's, and no stall: it was suspended.
_SUSPENDED = 5.0
_LARGEST_BUDGET = 128 * MIB
# What a system says of a disk, and hardly of anything else.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_SYSTEM_ERROR = re.compile(r"os error ([0-9]{1,4})")
# Engines take large buffers anew for all that they receive: where the allocator keeps them, the
# kernel need not clear their pages each time (a fifth of hf_xet's CPU time, more of hf_transfer's).
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def budget_of(memory: int | None) -> int:
    """Bytes that engines may have in flight, where a cgroup leaves so much memory to the run."""
    if memory is None:
        return _LARGEST_BUDGET
    return max(SMALLEST_BUDGET, min(_LARGEST_BUDGET, memory // 8))


def disk_trouble(words: str, path: str) -> DownloadError | None:
    """The error of a disk that an engine speaks of; None when it is something else."""
    for number in map(int, _SYSTEM_ERROR.findall(words)):
        if number in _OF_THE_DISK:
            try:
                with storage_errors(Path(path)):
                    raise OSError(number, os.strerror(number))
            except DownloadError as error:
                return error
    return None


class Engines:
    """Children that run ``module``, ``count`` at most; each brings one file at a time.

    ``judge`` makes an error of what an engine says when it fails. What an engine tells are numbers
    by name; these have a meaning here: ``received`` (bytes over the network, in all), ``done`` (it
    has ended well), ``error`` (it has not), ``want`` (bytes that it may receive only after it was
    told ``may``). None may be more than ``lead`` bytes ahead of its record.
    """

    def __init__(
        self,
        run: Run,
        module: str,
        count: int,
        lead: int,
        environ: Mapping[str, str],
        judge: Callable[[Told, str], DownloadError],
    ) -> None:
        self._run = run
        self._lead = lead
        self._module = module
        self._additions = {**_ALLOCATOR, **environ}
        self._judge = judge
        self._unavailable: ProtocolUnavailableError | None = None
        self._idle: asyncio.LifoQueue[_Seat] = asyncio.LifoQueue()
        self._seats = [_Seat() for _ in range(count)]
        for seat in reversed(self._seats):
            self._idle.put_nowait(seat)
        self._threads = ThreadPoolExecutor(2 * count, thread_name_prefix="aim-follow")

    @functools.cached_property
    def _environ(self) -> Mapping[str, str]:
        certificates = engine_certificates(self._run.network, self._run.scratch)
        return {**self._additions, **certificates}

    @property
    def busy(self) -> int:
        """Engines that bring a file now."""
        return len(self._seats) - self._idle.qsize()

    async def bring(
        self, order: Told, partial: Partial, written: Callable[[Told], Written]
    ) -> None:
        """Have an engine carry out an order, and put on record what it writes into ``partial``.

        ``written`` is given what the engine tells as it goes, and tells what can be taken in.
        When this returns or raises the engine writes no more.

        Raises:
            StalledError: nothing came for too long.
            ProtocolUnavailableError: there is no engine here.
            EngineEndedError: its process has ended.
            DownloadError: what the engine says, or the disk.
        """
        seat = await self._idle.get()
        try:
            if self._unavailable is not None:
                # Who waited for a seat need not find out once more.
                raise self._unavailable
            await self._bring(seat, order, partial, written)
        except ProtocolUnavailableError as error:
            self._unavailable = error
            raise
        finally:
            self._idle.put_nowait(seat)

    async def _bring(
        self, seat: _Seat, order: Told, partial: Partial, written: Callable[[Told], Written]
    ) -> None:
        worker = await seat.take(self._module, self._environ)
        job = seat.job = _Job(self._run, self._judge, partial, worker)
        follower = Follower(partial, written(job.told), self._lead, job.brake)
        following = asyncio.create_task(in_thread(self._threads, follower.run))
        try:
            worker.send(order)
            await self._end_of(job, worker, following)
            follower.end()
            await following
        except BaseException as error:
            if not isinstance(error, TransferError):
                # Who leaves does not wait for what has come until now; else it is as good as any.
                follower.abandon()
            await to_the_end(self._wind_up(seat, follower, following, partial))
            raise
        partial.take_back()

    async def _wind_up(
        self, seat: _Seat, follower: Follower, following: asyncio.Task[None], partial: Partial
    ) -> None:
        """Leave nobody at work on a partial."""
        gone = await seat.end()
        follower.end()
        await asyncio.wait([following])
        following.exception()  # there is an error before it
        if gone:
            partial.take_back()
        else:
            # It hangs in the disk, and may yet write: go on in another file.
            await in_thread(self._threads, partial.reset)

    async def _end_of(self, job: _Job, worker: Worker, following: asyncio.Task[None]) -> None:
        """Wait until the engine has ended, well or not, or there is no more sense in waiting."""
        signs: list[asyncio.Future[Any]] = [job.done, worker.ended, following]
        while not job.done.done():
            await asyncio.wait(signs, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            elif worker.ended.done() and not job.done.done():
                raise worker.ended.result()
            job.check_pulse(self._run.network.stall_timeout)
        job.done.result()

    async def close(self) -> None:
        """End all children."""
        await asyncio.gather(*(seat.end() for seat in self._seats))
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Seat:
    """A place for one child, which stays from file to file until it has to be ended."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self.job: _Job | None = None

    async def take(self, module: str, environ: Mapping[str, str]) -> Worker:
        """The child, which is started where there is none."""
        if self._worker is None or self._worker.ended.done():
            await self.end()
            self._worker = await Worker.start(module, environ=environ, on_message=self._hear)
        return self._worker

    async def end(self) -> bool:
        """End the child; whether it is gone."""
        worker, self._worker, self.job = self._worker, None, None
        return worker is None or await worker.end()

    def _hear(self, message: Message) -> None:
        if self.job is not None:
            self.job.hear(message)


class _Job:
    """One order of an engine, and what was heard of it. ``done`` ends with what it says at last."""

    def __init__(
        self,
        run: Run,
        judge: Callable[[Told, str], DownloadError],
        partial: Partial,
        worker: Worker,
    ) -> None:
        self._run = run
        self._judge = judge
        self._partial = partial
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._present = partial.present
        self._moved = self._awake = self._loop.time()
        self._letting_go: asyncio.TimerHandle | None = None
        self.told: dict[str, Any] = {}
        self.done: asyncio.Future[None] = self._loop.create_future()

    def hear(self, message: Message) -> None:
        """Take in what the engine tells."""
        if (more := message.get("received", 0) - self.told.get("received", 0)) > 0:
            self._run.traffic.add(more)
            self._moved = self._loop.time()
        self.told.update(message)
        if "want" in message:
            self._let_wait(message["want"])
        if self.done.done():
            return
        if "error" in message:
            self.done.set_exception(self._judge(message, self._partial.file.path))
        elif "done" in message:
            self.done.set_result(None)

    def brake(self, held: bool) -> None:
        """Hold the engine up, or let it go on; called by the thread that follows it."""
        # The loop is gone only when the whole run is.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._hold, held)

    def _hold(self, held: bool) -> None:
        self._moved = self._loop.time()
        self._worker.hold(held)
        if self._letting_go is not None:
            self._letting_go.cancel()
        # A disk may hold us up for longer than a child lives without a sign of life.
        self._letting_go = self._loop.call_later(_LONGEST_HOLD, self._hold, False) if held else None

    def _let_wait(self, count: int) -> None:
        """Let the engine receive more as soon as the speed limit has room for it."""
        seconds = self._run.limit.take(count) if self._run.limit else 0.0
        # Our own brake is no stall.
        self._moved = self._loop.time() + seconds
        self._loop.call_later(seconds, self._worker.send, {"may": count})

    def check_pulse(self, patience: float) -> None:
        """Notice that nothing was received or written for so many seconds.

        Raises:
            StalledError: that is so.
        """
        now, present = self._loop.time(), self._partial.present
        if present != self._present or now - self._awake > _SUSPENDED:
            self._present, self._moved = present, now
        self._awake = now
        if now - self._moved > patience:
            path = self._partial.file.path
            raise StalledError(f"{path}: nothing came for {format_duration(patience)}")
