"""Protocol HTTP, bulk lane: threads that stream ranges of large files into their partials.

One stream leads each file and hashes what it has just received. Further streams join a file only
while its streams wait for the network, so that a slow link is filled and a fast one costs no second
pass over the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from aim_downloader.errors import (
    RangeNotHonouredError,
    SnapshotChangedError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.events import RetryScheduled
from aim_downloader.http_client import BulkAnswer, BulkClient, origin
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.protocols.base import Lane, Run
from aim_downloader.retry import OnRetry
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile

_LARGEST_SEGMENT = 64 * MIB
_SMALLEST_SEGMENT = 8 * MIB
_FIRST_STREAMS = 4
_TICK = 0.25
_JOIN_GRACE = 1.0
_IGNORED_RANGES = 3
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class HttpProtocol:
    """Plain HTTP range requests to the URL of each file."""

    name = "HTTP"
    ranged = True

    def supports(self, file: RemoteFile) -> bool:
        """Every file that has a URL."""
        return bool(file.url)

    @contextlib.asynccontextmanager
    async def open(self, run: Run) -> AsyncIterator[Lane]:
        """Open the bulk lane."""
        lane = HttpLane(run)
        widening = asyncio.create_task(lane.widen())
        try:
            yield lane
        finally:
            widening.cancel()
            lane.close()


def segment_size(waiting: int, connections: int) -> int:
    """Bytes of the next segment of a file with ``waiting`` bytes that nobody fetches yet.

    Large ones at first, for few requests; smaller ones towards the end, so that all streams of a
    file finish together.
    """
    fair = -(-waiting // connections // BLOCK) * BLOCK
    return max(_SMALLEST_SEGMENT, min(_LARGEST_SEGMENT, fair))


def check_range(headers: Mapping[str, str], asked: ByteRange, size: int) -> int:
    """Check the Content-Range of a 206 (RFC 9110 section 14.4). A server may answer with less.

    Returns:
        Where the answer's bytes stop.

    Raises:
        RangeNotHonouredError: these are other bytes.
        SnapshotChangedError: the file has another size than was listed.
    """
    value = headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(value.strip())
    if found is None:
        raise RangeNotHonouredError(f"the answer to {asked.header} has Content-Range {value!r}")
    start, stop, total = int(found[1]), int(found[2]) + 1, found[3]
    if total not in ("*", str(size)):
        raise SnapshotChangedError(f"the file has {total} bytes, but {size} were listed")
    length = headers.get("Content-Length")
    if (
        start != asked.start
        or not start < stop <= asked.stop
        or length not in (None, str(stop - start))
    ):
        raise RangeNotHonouredError(
            f"asked for {asked.header}, the answer has {value!r} in {length} bytes"
        )
    return stop


def check_identity(first_headers: Mapping[str, str], file: RemoteFile) -> None:
    """Check what the Hub says of the file on its first answer.

    Raises:
        SnapshotChangedError: it is another file than the one that was listed.
    """
    etag = _plain(first_headers.get("X-Linked-ETag", ""))
    size = first_headers.get("X-Linked-Size", "")
    if (etag and etag != file.etag) or (size and size != str(file.size)):
        raise SnapshotChangedError(
            f"{file.path} was listed with etag {file.etag} and {file.size} bytes, "
            f"and is served with etag {etag} and {size} bytes"
        )


def _plain(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


class _StoppedError(Exception):
    """A stream was told to end; what it has not fetched goes back to its file."""


@dataclass(eq=False, slots=True)
class _Transfer:
    """A file under way: what nobody fetches yet, who fetches, and how it ended."""

    file: RemoteFile
    partial: Partial
    waiting: list[ByteRange]
    done: asyncio.Future[None]
    streams: set[_Stream] = field(default_factory=set)
    error: BaseException | None = None
    location: str | None = None
    etags: dict[str, str] = field(default_factory=dict)
    ignored_ranges: int = 0

    @property
    def waiting_bytes(self) -> int:
        return sum(len(part) for part in self.waiting)

    @property
    def starved(self) -> bool:
        return all(stream.starved for stream in self.streams)

    def take(self, size: int) -> ByteRange:
        """The next ``size`` bytes that nobody fetches yet."""
        first = self.waiting[0]
        taken = ByteRange(first.start, min(first.stop, first.start + size))
        if taken.stop == first.stop:
            del self.waiting[0]
        else:
            self.waiting[0] = ByteRange(taken.stop, first.stop)
        return taken

    def give_back(self, part: ByteRange) -> None:
        if part:
            self.waiting.append(part)
            self.waiting.sort()


@dataclass(eq=False, slots=True)
class _Stream:
    """One connection's share of a file: the bytes from ``position`` to ``stop``."""

    transfer: _Transfer
    position: int
    stop: int
    answer: BulkAnswer | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    reading_since: float = 0.0
    reading: float = 0.0
    working: float = 0.0

    @property
    def rest(self) -> ByteRange:
        return ByteRange(self.position, self.stop)

    @property
    def starved(self) -> bool:
        """Whether the connection is slower than hashing and writing what it brings."""
        waits_long = self.reading_since and time.monotonic() - self.reading_since > _TICK
        return bool(waits_long or self.reading > 2 * self.working)

    def note(self, reading: float, working: float) -> None:
        """Take in the seconds that one block took; old blocks count less and less."""
        self.reading += (reading - self.reading) / 4
        self.working += (working - self.working) / 4

    def end(self) -> None:
        """Make the thread leave, from another thread."""
        self.stopped.set()
        if self.answer is not None:
            self.answer.shutdown()

    def sleep(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise _StoppedError


class HttpLane:
    """The bulk lane of one run. Its threads are daemons: none of them outlives a decision to go."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._client = BulkClient(run.network, run.connections)
        self._changed = threading.Condition()
        self._transfers: list[_Transfer] = []
        self._width = min(_FIRST_STREAMS, run.connections)
        self._streams: set[_Stream] = set()
        self._threads = 0
        self._closed = False

    @property
    def connections(self) -> int:
        """Streams under way."""
        return len(self._streams)

    async def fetch(self, file: RemoteFile, partial: Partial) -> None:
        """Fill what the partial misses; see ``Lane``."""
        missing = partial.missing()
        if not missing:
            return
        done = asyncio.get_running_loop().create_future()
        transfer = _Transfer(file, partial, missing, done)
        with self._changed:
            self._transfers.append(transfer)
            self._wake()
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await self._leave(transfer)
            raise

    async def _leave(self, transfer: _Transfer) -> None:
        with self._changed:
            self._fail(transfer, TransferInterruptedError("ended"))
        await asyncio.wait([transfer.done], timeout=_JOIN_GRACE)
        transfer.partial.orphaned = not transfer.done.done()
        if transfer.done.done():
            transfer.done.exception()

    async def widen(self) -> None:
        """Add streams for as long as the ones there are wait for the network."""
        while True:
            await asyncio.sleep(_TICK)
            with self._changed:
                if len(self._streams) >= self._width and all(s.starved for s in self._streams):
                    self._width = min(self._run.connections, self._width * 3 // 2 + 1)
                # A file whose streams starve may now take one that is idle.
                self._wake()

    def close(self) -> None:
        """End all threads and connections."""
        with self._changed:
            self._closed = True
            for stream in self._streams:
                stream.end()
            self._changed.notify_all()
        self._client.close()

    def _wake(self) -> None:
        """Let idle threads look for work, and start as many as may be needed."""
        wanted = min(self._width, len(self._streams) + self._useful_streams())
        while self._threads < wanted:
            self._threads += 1
            threading.Thread(target=self._work, name="aim-http", daemon=True).start()
        self._changed.notify_all()

    def _useful_streams(self) -> int:
        return sum(-(-t.waiting_bytes // _SMALLEST_SEGMENT) for t in self._transfers)

    def _work(self) -> None:
        """A thread's life: take a segment, fill it, report, again."""
        while (stream := self._next()) is not None:
            error: BaseException | None = None
            try:
                self._fill(stream)
                if stream.transfer.partial.behind:
                    stream.transfer.partial.catch_up(stream.stopped)
            except _StoppedError:
                error = None
            except BaseException as caught:  # noqa: BLE001  # handed to whoever awaits the file
                error = caught
            self._end(stream, error)

    def _next(self) -> _Stream | None:
        with self._changed:
            while not self._closed:
                if len(self._streams) < self._width and (transfer := self._neediest()):
                    size = segment_size(transfer.waiting_bytes, self._run.connections)
                    part = transfer.take(size)
                    stream = _Stream(transfer, part.start, part.stop)
                    transfer.streams.add(stream)
                    self._streams.add(stream)
                    return stream
                self._changed.wait()
            self._threads -= 1
            return None

    def _neediest(self) -> _Transfer | None:
        """The file that the next stream is for: one that nobody leads, else the most starved."""
        able = [t for t in self._transfers if t.waiting and t.error is None]
        for transfer in able:
            if not transfer.streams:
                return transfer
        joinable = (t for t in able if t.starved and t.ignored_ranges < _IGNORED_RANGES)
        return max(joinable, key=lambda t: t.waiting_bytes, default=None)

    def _end(self, stream: _Stream, error: BaseException | None) -> None:
        transfer = stream.transfer
        with self._changed:
            self._streams.discard(stream)
            transfer.streams.discard(stream)
            transfer.give_back(stream.rest)
            if error is not None:
                self._fail(transfer, error)
            self._settle(transfer)
            self._changed.notify_all()

    def _fail(self, transfer: _Transfer, error: BaseException) -> None:
        transfer.error = transfer.error or error
        for stream in transfer.streams:
            stream.end()
        self._settle(transfer)

    def _settle(self, transfer: _Transfer) -> None:
        """Tell the waiting coroutine once nobody works on the file any more."""
        if transfer.streams or (transfer.waiting and transfer.error is None):
            return
        if transfer not in self._transfers:
            return
        self._transfers.remove(transfer)
        done, error = transfer.done, transfer.error

        def tell() -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        # The loop is gone only when the whole run is.
        with contextlib.suppress(RuntimeError):
            done.get_loop().call_soon_threadsafe(tell)

    def _fill(self, stream: _Stream) -> None:
        """Fetch a stream's bytes, by as many requests as it takes."""

        def on_retry(error: BaseException, attempt: int, delay: float) -> None:
            path = stream.transfer.file.path
            self._run.emit(RetryScheduled(path, str(error), attempt, delay))

        while stream.rest:
            for attempt in self._run.policy.retrying(stream.sleep, on_retry):
                with attempt:
                    self._request(stream, on_retry)

    def _request(self, stream: _Stream, on_retry: OnRetry) -> None:
        """One request. An error after progress is none: the next request goes on from there."""
        before = stream.position
        try:
            with contextlib.closing(self._ask(stream)) as answer:
                stream.answer = answer
                self._receive(stream, answer)
        except TransferError as error:
            stream.transfer.location = None
            if stream.stopped.is_set():
                raise _StoppedError from error
            if stream.position == before or not error.retryable:
                raise
            on_retry(error, 1, 0.0)
        finally:
            stream.answer = None

    def _ask(self, stream: _Stream) -> BulkAnswer:
        """Send the request and check the answer's head."""
        transfer = stream.transfer
        answer = self._client.get(transfer.location or transfer.file.url, stream.rest)
        try:
            self._check(stream, answer)
        except BaseException:
            answer.close()
            raise
        if answer.url != transfer.file.url:
            # The signed URL serves the file's other ranges too, until it is refused.
            transfer.location = answer.url
        return answer

    def _check(self, stream: _Stream, answer: BulkAnswer) -> None:
        transfer = stream.transfer
        check_identity(answer.first_headers, transfer.file)
        # Each host names its files in its own way; one that changes the name has changed the file.
        etag = _plain(answer.headers.get("ETag", ""))
        known = transfer.etags.setdefault(origin(answer.url)[1], etag)
        if etag != known:
            raise SnapshotChangedError(
                f"{transfer.file.path} changed while it was fetched: "
                f"its etag was {known} and is {etag}"
            )

    def _receive(self, stream: _Stream, answer: BulkAnswer) -> None:
        """Move the body of an answer into the partial, block by block."""
        if answer.status == 206:
            stop = check_range(answer.headers, stream.rest, stream.transfer.file.size)
        else:
            self._take_whole(stream, answer)
            stop = stream.stop
        while stream.position < stop:
            self._receive_block(stream, answer)

    def _take_whole(self, stream: _Stream, answer: BulkAnswer) -> None:
        """Use an answer that holds the whole file although a range was asked for.

        A server that knows no ranges is read from the start by one stream; one that forgets
        them now and then is asked again.
        """
        transfer, size = stream.transfer, stream.transfer.file.size
        if answer.headers.get("Content-Length", str(size)) != str(size):
            raise SnapshotChangedError(f"{transfer.file.path} is not served with {size} bytes")
        with self._changed:
            alone = transfer.streams == {stream}
            useful = alone and (stream.position == 0 or transfer.ignored_ranges >= _IGNORED_RANGES)
            transfer.ignored_ranges += 1
            if useful:
                transfer.waiting.clear()
                stream.stop = size
        if not alone:
            raise _StoppedError
        if not useful:
            raise RangeNotHonouredError(f"{transfer.file.path}: 200 came for {stream.rest.header}")
        self._skip(stream, answer, stream.position)

    def _skip(self, stream: _Stream, answer: BulkAnswer, count: int) -> None:
        while count > 0:
            data = answer.read(min(BLOCK, count))
            if not data or stream.stopped.is_set():
                raise TransferInterruptedError("the body ended too early")
            self._run.traffic.add(len(data))
            count -= len(data)

    def _receive_block(self, stream: _Stream, answer: BulkAnswer) -> None:
        transfer = stream.transfer
        wanted = min(BLOCK, transfer.file.size - stream.position)
        begun = stream.reading_since = time.monotonic()
        data = answer.read(wanted)
        stream.reading_since = 0.0
        if stream.stopped.is_set():
            raise _StoppedError
        self._run.traffic.add(len(data))
        if len(data) != wanted:
            raise TransferInterruptedError(f"{transfer.file.path}: the body ended too early")
        received = time.monotonic()
        transfer.partial.write_at(stream.position, data)
        stream.position += wanted
        stream.note(received - begun, time.monotonic() - received)
