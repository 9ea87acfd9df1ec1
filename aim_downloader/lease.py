"""Who works in a folder: a file with a heartbeat, as locks on NFS and Lustre are granted twice.

A second run waits while the heartbeat moves. It takes over when the beat has stood still for
``STALE`` seconds, at once when the holder is known to be dead. A holder whose last beat is older
than ``SILENT`` seconds stops writing. The lease saves work, it proves nothing: digest and rename
decide what is right.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from aim_downloader import linux
from aim_downloader.errors import LeaseLostError, StorageError
from aim_downloader.events import Emit, LeaseWaiting
from aim_downloader.storage import read_whole, storage_errors, write_whole

BEAT = 2.0
SILENT = 10.0
STALE = 15.0
_GLANCE = 0.5
_LAST_BEAT = 0.5


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease, and how far it is (bytes)."""

    host: str
    pid: int
    machine: str | None
    boot: str | None
    pid_namespace: str | None
    process_start: str | None
    nonce: str
    beat: int = 0
    bytes_done: int = 0
    bytes_total: int = 0

    @classmethod
    def this_process(cls) -> Holder:
        """A new holder: this run."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            pid=pid,
            machine=linux.machine_id(),
            boot=linux.boot_id(),
            pid_namespace=linux.pid_namespace(),
            process_start=linux.process_start(pid),
            nonce=uuid.uuid4().hex,
        )

    @classmethod
    def parse(cls, content: bytes | None) -> Holder | None:
        """Read a lease file; None when there is none, or it is something else."""
        try:
            holder = cls(**json.loads(content or b""))
        except (ValueError, TypeError, RecursionError):
            return None
        return holder if holder._is_sound() else None

    def _is_sound(self) -> bool:
        # What a file says may be of any type.
        numbers: tuple[object, ...] = (self.pid, self.beat, self.bytes_done, self.bytes_total)
        words: tuple[object, ...] = (
            self.machine,
            self.boot,
            self.pid_namespace,
            self.process_start,
        )
        names: tuple[object, ...] = (self.host, self.nonce)
        return (
            all(type(number) is int and number >= 0 for number in numbers)
            and all(isinstance(word, str | None) for word in words)
            and all(isinstance(name, str) for name in names)
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def is_dead(holder: Holder, us: Holder) -> bool:
    """Whether a holder is known to be dead. Where its pid means nothing to us nothing is known."""
    if holder.host != us.host or holder.boot is None or us.boot is None:
        return False
    if holder.boot != us.boot:
        # Two machines may bear one name.
        return holder.machine is not None and holder.machine == us.machine
    if holder.pid_namespace is None or holder.pid_namespace != us.pid_namespace:
        return False
    return linux.process_start(holder.pid) != holder.process_start


OnWait: TypeAlias = Callable[["Holder | None", float], None]
"""Hears of who is waited for, and of the seconds since its last sign of life."""


def waiting(holder: Holder | None, silent: float) -> LeaseWaiting:
    """What is told of the holder that is waited for."""
    return LeaseWaiting(
        holder=str(holder) if holder else "an unknown process",
        bytes_done=holder.bytes_done if holder else 0,
        bytes_total=holder.bytes_total if holder else 0,
        silent=round(silent, 1),
        patience=STALE,
    )


class BusyError(Exception):
    """A run that is alive holds the folder; the text names it."""


def unless_alive(emit: Emit) -> OnWait:
    """Waits for a holder that may be dead, and no longer than until its heartbeat moves.

    What is returned raises BusyError then.
    """
    first: list[Holder | None] = []

    def on_wait(holder: Holder | None, silent: float) -> None:
        emit(waiting(holder, silent))
        first.append(holder)
        if holder != first[0]:
            raise BusyError(str(holder or "an unknown process"))

    return on_wait


class Lease:
    """This run's hold on the folder whose lease file is ``path``.

    ``progress`` tells bytes done and in all, for those who wait.
    """

    def __init__(self, path: Path, progress: Callable[[], tuple[int, int]]) -> None:
        self._path = path
        self._progress = progress
        self._us = Holder.this_process()
        self._beaten = 0.0
        self._lost = False
        self._released = threading.Event()
        self._touching = threading.Lock()

    def guard(self) -> None:
        """Allow a write.

        Raises:
            LeaseLostError: another run took over, or could have: the last beat is too old, or this
                run has let go.
        """
        gone = self._lost or self._released.is_set()
        if gone or linux.clock() - self._beaten > SILENT:
            raise LeaseLostError(f"another run took over {self._path.parent.parent}")

    @contextlib.asynccontextmanager
    async def held(self, on_wait: OnWait) -> AsyncIterator[None]:
        """Wait for the folder, hold it, and let go.

        ``on_wait`` hears now and then of the holder, and for how long its heartbeat stands still.

        Raises:
            StorageError: the lease file cannot be written.
        """
        ended = threading.Event()
        try:
            await self._acquire(on_wait)
            # A thread: neither a busy event loop nor a file server that hangs may stop the beat
            # of one or the work of the other.
            threading.Thread(target=self._keep_beating, args=(ended,), daemon=True).start()
            yield
        finally:
            ended.set()
            self._release()

    async def _acquire(self, on_wait: OnWait) -> None:
        seen, since, told = read(self._path), linux.clock(), 0.0
        while True:
            content = read(self._path)
            now = linux.clock()
            if content != seen:
                seen, since = content, now
            holder = Holder.parse(content)
            dead = holder is not None and is_dead(holder, self._us)
            free = content is None or dead or now - since >= STALE
            if free and await self._take(new=content is None):
                return
            if not free and now - told >= BEAT:
                told = now
                on_wait(holder, now - since)
            await asyncio.sleep(_GLANCE)

    async def _take(self, *, new: bool) -> bool:
        with storage_errors(self._path):
            # Another run that ends removes the folder when nothing is in it.
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if new:
                try:
                    fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
                except (FileExistsError, FileNotFoundError):
                    return False  # another run was quicker, to come or to remove the folder
                os.close(fd)
            self._released.clear()
            self._beat()
        self._lost = False
        # Of two that take over in the same moment, the later one's file is left to be seen.
        await asyncio.sleep(0.0 if new else 0.1)
        return self._is_ours()

    def _beat(self) -> None:
        now = linux.clock()
        done, total = self._progress()
        self._us = dataclasses.replace(
            self._us, beat=self._us.beat + 1, bytes_done=done, bytes_total=total
        )
        content = json.dumps(dataclasses.asdict(self._us)).encode()
        write_whole(self._path, content, sync=False)
        self._beaten = now

    def _keep_beating(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            self._beat_if_ours()

    def _beat_if_ours(self) -> None:
        # No beat is no error here: ``guard`` stops the writers in time.
        with self._touching, contextlib.suppress(OSError, StorageError):
            if self._released.is_set():
                return
            if self._is_ours():
                self._beat()
            else:
                self._lost = True
            if self._released.is_set():
                # Let go while the beat was on its way: it has written the file anew.
                self._remove()

    def _is_ours(self) -> bool:
        holder = Holder.parse(read(self._path))
        return holder is not None and holder.nonce == self._us.nonce

    def _release(self) -> None:
        """Let go; a beat that hangs in the disk is not waited for, it removes the file itself."""
        self._released.set()
        # On a busy machine a beat takes its time, and must not be found after the end of the run.
        if self._touching.acquire(timeout=_LAST_BEAT):
            try:
                self._remove()
            finally:
                self._touching.release()

    def _remove(self) -> None:
        with contextlib.suppress(OSError, StorageError):
            if self._is_ours():
                self._path.unlink()


def read(path: Path) -> bytes | None:
    """The content of a lease file; None when there is no file.

    Raises:
        StorageError: something else stands in its place, or it cannot be read.
    """
    try:
        with storage_errors(path):
            return read_whole(path)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
