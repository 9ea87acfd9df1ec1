"""Protocol HF_TRANSFER: files that begin empty by the hf_transfer engine, from their signed URL.

It names a transport, parallel ranges of one URL: what the engine does not do (gaps, a speed limit,
the rest after it has failed) the range engine of protocol HTTP does in its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import itertools
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aim_downloader.errors import (
    DownloadError,
    EngineOutOfMemoryError,
    ProtocolUnavailableError,
    RangeNotHonouredError,
    StalledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.events import RetryScheduled
from aim_downloader.http_client.rules import refusal
from aim_downloader.partial import Partial
from aim_downloader.protocols.base import Lane, Run
from aim_downloader.protocols.engine import Engines, Told, budget_of, disk_trouble
from aim_downloader.protocols.http import HttpLane
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile
from aim_downloader.tasks import in_thread
from aim_downloader.urls import origin, without_secrets

CHUNK = 2 * MIB
"""Bytes of one request. They are in memory until the last of them has come."""

_MODULE = "aim_downloader.engines.hf_transfer"
_CHILDREN = 2
_LEAD = 2 * CHUNK
# With more threads chunks begin in less of an order, and memory of one is freed in another.
_ENVIRON = {"TOKIO_WORKER_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
# It knows neither Retry-After nor a fresh URL: a lone break it may heal, the rest is for ours.
_RETRIES = 2
_RETRIED_AT_ONCE = 2
# Of one child: a kill may cost 8 MiB in all, beside what was on its way.
_HELD_BACK = 4 * MIB
_WORDS = 300
_STATUS = re.compile(r"HTTP status \w+ error \(([0-9]{3})")
_URL = re.compile(r"for url \((\S+)\)")
_TOO_LARGE = re.compile(rf"\b(os error|Errno) {errno.EFBIG}\b")


class HfTransferProtocol:
    """The engine hf_transfer, completed by ``ranges``, the open lane of protocol HTTP."""

    name = "HF_TRANSFER"

    def __init__(self, ranges: HttpLane) -> None:
        self._ranges = ranges

    def supports(self, file: RemoteFile) -> bool:
        """Every file that has a URL, and bytes."""
        return bool(file.url) and file.size > 0

    @contextlib.asynccontextmanager
    async def open(self, run: Run) -> AsyncIterator[Lane]:
        """Open the lane; its children start with the first files."""
        lane = HfTransferLane(run, self._ranges)
        try:
            yield lane
        finally:
            await lane.close()


class HfTransferLane:
    """The lane of one run: a few children, each with its share of the connections."""

    def __init__(self, run: Run, ranges: HttpLane) -> None:
        self._run = run
        self._ranges = ranges
        self._budget = min(run.connections * CHUNK, budget_of(run.memory))
        self._children = max(1, min(_CHILDREN, run.connections // 2))
        judged = functools.partial(judge, run.network.endpoint)
        self._engines = Engines(run, _MODULE, self._children, _LEAD, _ENVIRON, judged)
        # A signed URL must not grow old while its file waits for a child.
        self._turns = asyncio.Semaphore(self._children)
        self._threads = ThreadPoolExecutor(self._children, thread_name_prefix="aim-check")
        self._numbers = itertools.count()
        self._left = False
        self._had: set[str] = set()

    @property
    def connections(self) -> int:
        """Connections that the engine keeps busy."""
        return self._engines.busy * self._share

    @property
    def _share(self) -> int:
        """Connections of one child, by what servers and memory leave."""
        return max(1, min(self._run.allowed, self._budget // CHUNK) // self._children)

    async def fetch(self, file: RemoteFile, partial: Partial) -> None:
        """Fill what the partial misses; see ``Lane``."""
        if self._is_for_engine(file, partial):
            async with self._turns:
                await self._fetch_new(file, partial)
            if partial.present:
                # A body longer than asked for goes over the next chunk, which may be hashed.
                await in_thread(self._threads, partial.check_again, threading.Event())
        if partial.missing():
            await self._ranges.fetch(file, partial)

    def _is_for_engine(self, file: RemoteFile, partial: Partial) -> bool:
        """Whether the engine may bring a file, which it begins anew and checks nothing of."""
        if self._left or self._run.limit or partial.present:
            return False
        # Without a digest nobody would check it; and once it may have brought wrong bytes.
        return file.digest is not None and file.path not in self._had

    async def _fetch_new(self, file: RemoteFile, partial: Partial) -> None:
        """Let the engine bring a file; one that it leaves unfinished goes on by ranges."""
        if self._left or not await asyncio.to_thread(_shows_holes, partial):
            return
        url = await self._locate(file, partial)
        if url is None:
            return
        self._had.add(file.path)
        try:
            await self._bring(url, partial)
        except ProtocolUnavailableError as error:
            if not self._left:
                words = f"{error}; files come by the range engine"
                self._run.emit(RetryScheduled(file.path, words, 1, 0.0, type(error).__name__))
            self._left = True
        except TransferError as error:
            if isinstance(error, EngineOutOfMemoryError):
                self._budget //= 2
            # It tells of whole chunks alone: over a slow link that may be too seldom.
            self._left |= isinstance(error, StalledError) and not partial.present
            self._run.emit(RetryScheduled(file.path, str(error), 1, 0.0, type(error).__name__))

    async def _locate(self, file: RemoteFile, partial: Partial) -> str | None:
        """The file's URL for the engine; None when only the range engine may or can go there."""
        try:
            url = await self._ranges.locate(file, partial)
        except TransferError as error:
            if not error.retryable:
                raise
            # It waits as long as it is asked to, and needs no ranges; it tells what it meets.
            return None
        network = self._run.network
        # When it is redirected the engine would hand the token on to any port of the Hub's host.
        if network.token and origin(url) == origin(network.endpoint):
            return None
        return url

    async def _bring(self, url: str, partial: Partial) -> None:
        with self._linked(partial.path) as link:
            if link is None:
                return
            order = {
                "size": partial.file.size,
                "call": {
                    "url": url,
                    "filename": str(link),
                    "max_files": self._share,
                    "chunk_size": CHUNK,
                    "parallel_failures": min(_RETRIED_AT_ONCE, self._share),
                    "max_retries": _RETRIES,
                    "headers": self._run.network.headers(url),
                },
            }
            partial.share()
            await self._engines.bring(order, partial, functools.partial(Chunks.of, partial))

    @contextlib.contextmanager
    def _linked(self, path: Path) -> Iterator[Path | None]:
        """Another name for a file, as the engine deletes what it was told when it fails.

        None where there are no symlinks.
        """
        link = (self._run.scratch / f"hf_transfer-{next(self._numbers)}").absolute()
        try:
            link.symlink_to(path.absolute())
        except OSError:
            yield None
            return
        try:
            yield link
        finally:
            # The engine may have put a file there, after it had removed the link.
            link.unlink(missing_ok=True)

    async def close(self) -> None:
        """End the children."""
        await self._engines.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _shows_holes(partial: Partial) -> bool:
    """Whether it can be seen what of an empty file was written; see ``Chunks``."""
    if partial.data_from(0):
        # Nothing of it is proven, and it would look like chunks that have come.
        partial.reset()
    return partial.data_from(0) is None


class Chunks:
    """Tells which chunks an engine has written that writes them in any order, each at once.

    Written is a chunk that had no hole at the last look: the engine tells of one when its end may
    yet be on the way to the disk, and of which it does not tell at all. There is something to look
    for while more bytes were ``received`` than are in such chunks, and when it is ``over``.
    ``data_from`` tells of an offset which stretch without holes comes next.
    """

    def __init__(
        self,
        size: int,
        data_from: Callable[[int], ByteRange | None],
        received: Callable[[], int],
        over: Callable[[], bool],
    ) -> None:
        self._size = size
        self._data_from = data_from
        self._received = received
        self._over = over
        # In file order: chunks that have holes yet, and those without that were not told of.
        self._begun: list[ByteRange] = []
        self._whole: list[ByteRange] = []
        self._ahead = self._seen = 0

    @classmethod
    def of(cls, partial: Partial, told: Told) -> Chunks:
        """The chunks of a partial that is still empty."""
        size = partial.file.size
        return cls(size, partial.data_from, lambda: told.get("received", 0), lambda: "done" in told)

    def fresh(self) -> Sequence[ByteRange]:
        """What has become known as written since the last time, in file order."""
        # Before the look: what was written until then is seen by it.
        over = self._over()
        ready, new = self._whole, self._look() if over or self._received() > self._seen else []
        self._seen += sum(map(len, new))
        self._whole = sorted([*ready, *new])
        # What is told in order is hashed without a second reading.
        gap = min((*self._begun, *new), default=ByteRange(self._ahead, self._size))
        in_order = [chunk for chunk in ready if chunk < gap]
        if over:
            ready = self._whole
        elif CHUNK * (len(ready) - len(in_order)) <= _HELD_BACK:
            ready = in_order
        told = set(ready)
        self._whole = [chunk for chunk in self._whole if chunk not in told]
        return _joined(ready)

    def _look(self) -> list[ByteRange]:
        """Chunks that had no hole for the first time."""
        looked, self._begun = itertools.chain(self._begun, self._new()), []
        whole: list[ByteRange] = []
        data: ByteRange | None = ByteRange(0, 0)
        for chunk in looked:
            if data is not None and data.stop <= chunk.start:
                data = self._data_from(chunk.start)
            if data is None and chunk.start >= self._ahead:
                break
            self._ahead = max(self._ahead, chunk.stop)
            has_hole = data is None or chunk.start < data.start or data.stop < chunk.stop
            (self._begun if has_hole else whole).append(chunk)
        return whole

    def _new(self) -> Iterator[ByteRange]:
        """Chunks that nothing was known of."""
        for start in range(self._ahead, self._size, CHUNK):
            yield ByteRange(start, min(start + CHUNK, self._size))


def _joined(chunks: Sequence[ByteRange]) -> list[ByteRange]:
    """Chunks in file order, with those that touch each other made one."""
    parts: list[ByteRange] = []
    for chunk in chunks:
        if parts and parts[-1].stop == chunk.start:
            parts[-1] = ByteRange(parts[-1].start, chunk.stop)
        else:
            parts.append(chunk)
    return parts


def judge(endpoint: str, told: Told, path: str) -> DownloadError:
    """What it means that hf_transfer failed with these words, by which alone it tells."""
    words = str(told["error"])
    found = _URL.search(words)
    url, status = found[1] if found else "", _STATUS.search(words)
    # Of the disk this is no word: the whole file has its place there already.
    if _TOO_LARGE.search(words):
        return TransferError(f"{path}: its server sent more than is listed")
    if trouble := disk_trouble(words, path):
        return trouble
    if status:
        return refusal(int(status[1]), {}, url, endpoint)
    if "No content length" in words:
        return RangeNotHonouredError(f"{path}: its server knows no ranges")
    shown = without_secrets(words)[:_WORDS]
    return TransferInterruptedError(f"{path}: the hf_transfer engine failed: {shown}")
