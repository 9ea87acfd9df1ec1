"""Protocol HTTP, bulk lane: threads that stream ranges of large files into their partials.

One stream leads each file and hashes what it has just received. Further streams join a file only
while its streams wait for the network, so that a slow link is filled and a fast one costs no second
pass over the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

from aim_downloader.errors import (
    AccessDeniedError,
    DownloadError,
    RangeNotHonouredError,
    SnapshotChangedError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.events import RetryScheduled
from aim_downloader.http_client.bulk import BulkAnswer, BulkClient
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.protocols.answers import check_identity, check_range, plain_etag
from aim_downloader.protocols.base import Lane, Run
from aim_downloader.protocols.schedule import Schedule, StoppedError, Stream, Transfer
from aim_downloader.retry import OnRetry
from aim_downloader.snapshot import RemoteFile
from aim_downloader.urls import origin

_TICK = 0.25
_JOIN_GRACE = 1.0
_IGNORED_RANGES = 3
_PIECE = BLOCK // 16


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


class HttpLane:
    """The bulk lane of one run. Its threads are daemons: none of them outlives a decision to go."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._client = BulkClient(run.network, run.connections)
        self._schedule = Schedule(run.connections)
        self._changed = threading.Condition()
        self._threads = 0
        self._closed = False

    @property
    def connections(self) -> int:
        """Streams under way."""
        return len(self._schedule.streams)

    async def fetch(self, file: RemoteFile, partial: Partial) -> None:
        """Fill what the partial misses; see ``Lane``."""
        missing = partial.missing()
        if not missing:
            return
        done = asyncio.get_running_loop().create_future()
        # Whoever was cancelled does not come back for the error.
        done.add_done_callback(lambda ended: ended.exception())
        transfer = Transfer(file, partial, missing, done)
        with self._changed:
            self._schedule.transfers.append(transfer)
            self._wake()
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await self._leave(transfer)
            raise

    async def _leave(self, transfer: Transfer) -> None:
        # First the worst: a second cancel may end the wait for the streams.
        transfer.partial.orphaned = True
        with self._changed:
            self._fail(transfer, TransferInterruptedError("ended"))
        await asyncio.wait([transfer.done], timeout=_JOIN_GRACE)
        transfer.partial.orphaned = not transfer.done.done()

    async def widen(self) -> None:
        """Add streams for as long as the ones there are wait for the network."""
        while True:
            await asyncio.sleep(_TICK)
            with self._changed:
                self._schedule.widen()
                # A file whose streams starve may now take one that is idle.
                self._wake()

    def close(self) -> None:
        """End all threads and connections."""
        with self._changed:
            self._closed = True
            for stream in self._schedule.streams:
                stream.end()
            self._changed.notify_all()
        self._client.close()

    def _wake(self) -> None:
        """Let idle threads look for work, and start as many as may be needed."""
        while self._threads < self._schedule.useful_streams and self._start_thread():
            self._threads += 1
        self._changed.notify_all()

    def _start_thread(self) -> bool:
        try:
            threading.Thread(target=self._work, name="aim-http", daemon=True).start()
        except RuntimeError as error:
            # A limit of the system: the threads that there are do the work, if there are any.
            if self._threads == 0:
                refused = DownloadError("no thread can be started", hint="raise ulimit -u")
                refused.__cause__ = error
                for transfer in list(self._schedule.transfers):
                    self._fail(transfer, refused)
            return False
        return True

    def _work(self) -> None:
        """A thread's life: take a segment, fill it, report, again."""
        while (stream := self._next()) is not None:
            error: BaseException | None = None
            try:
                self._fill(stream)
                stream.transfer.partial.catch_up(stream.stopped)
            except StoppedError:
                error = None
            except BaseException as caught:  # noqa: BLE001  # handed to whoever awaits the file
                error = caught
            self._end(stream, error)

    def _next(self) -> Stream | None:
        with self._changed:
            while not self._closed:
                if (stream := self._schedule.next_stream()) is not None:
                    return stream
                self._changed.wait()
            self._threads -= 1
            return None

    def _end(self, stream: Stream, error: BaseException | None) -> None:
        with self._changed:
            self._schedule.end(stream)
            if error is not None:
                self._fail(stream.transfer, error)
            self._settle(stream.transfer)
            self._changed.notify_all()

    def _fail(self, transfer: Transfer, error: BaseException) -> None:
        self._schedule.fail(transfer, error)
        self._settle(transfer)

    def _settle(self, transfer: Transfer) -> None:
        """Tell the waiting coroutine once nobody works on the file any more."""
        if not self._schedule.settle(transfer):
            return
        done, error = transfer.done, transfer.error

        def tell() -> None:
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        # The loop is gone only when the whole run is.
        with contextlib.suppress(RuntimeError):
            done.get_loop().call_soon_threadsafe(tell)

    def _fill(self, stream: Stream) -> None:
        """Fetch a stream's bytes, by as many requests as it takes."""

        def on_retry(error: BaseException, attempt: int, delay: float) -> None:
            path = stream.transfer.file.path
            self._run.emit(RetryScheduled(path, str(error), attempt, delay))

        while stream.rest:
            for attempt in self._run.policy.retrying(stream.sleep, on_retry):
                with attempt:
                    self._request(stream, on_retry)

    def _request(self, stream: Stream, on_retry: OnRetry) -> None:
        """One request. An error after progress is none: the next request goes on from there."""
        before = stream.wanted
        stream.waiting_since = time.monotonic()
        try:
            with contextlib.closing(self._ask(stream)) as answer:
                stream.attach(answer)
                self._receive(stream, answer)
        except TransferError as error:
            stream.transfer.location = None
            if stream.stopped.is_set():
                raise StoppedError from error
            if len(before) - len(stream.wanted) < _PIECE or not error.retryable:
                # Next time in small pieces, of which each counts.
                stream.piece = _PIECE
                raise
            on_retry(error, 1, 0.0)
        finally:
            stream.answer = None
            stream.waiting_since = 0.0

    def _ask(self, stream: Stream) -> BulkAnswer:
        """Send the request and check the answer's head."""
        transfer = stream.transfer
        answer = self._get(stream)
        try:
            check_identity(answer.first_headers, transfer.file)
            _check_etag(transfer, answer)
        except BaseException:
            answer.close()
            raise
        if answer.url != transfer.file.url:
            # The signed URL serves the file's other ranges too, until it is refused.
            transfer.location = answer.url
        return answer

    def _get(self, stream: Stream) -> BulkAnswer:
        location = stream.transfer.location
        try:
            return self._client.get(location or stream.transfer.file.url, stream.wanted)
        except AccessDeniedError as error:
            if location is None:
                raise
            raise TransferInterruptedError(f"{error}: the link to it may have expired") from error

    def _receive(self, stream: Stream, answer: BulkAnswer) -> None:
        """Move the body of an answer into the partial, block by block."""
        if answer.status == 206:
            stop = check_range(answer.headers, stream.wanted, stream.transfer.file.size)
        else:
            self._take_whole(stream, answer)
            stop = stream.stop
        while stream.wanted.start < stop:
            self._receive_block(stream, answer, stop)

    def _take_whole(self, stream: Stream, answer: BulkAnswer) -> None:
        """Use an answer that holds the whole file although a range was asked for.

        A server that knows no ranges is read from the start by one stream; one that forgets
        them now and then is asked again.
        """
        transfer, size = stream.transfer, stream.transfer.file.size
        fits = answer.headers.get("Content-Length", str(size)) == str(size)
        with self._changed:
            transfer.ignored_ranges += fits
            transfer.sequential = transfer.ignored_ranges > _IGNORED_RANGES
            alone = transfer.streams == {stream}
            useful = fits and alone and (transfer.sequential or stream.wanted.start == 0)
            if useful:
                transfer.waiting.clear()
                stream.stop = size
        if fits and not alone:
            raise StoppedError
        if not useful:
            raise RangeNotHonouredError(
                f"{transfer.file.path}: 200 came for {stream.wanted.header}"
            )
        self._skip(stream, answer, stream.wanted.start)

    def _skip(self, stream: Stream, answer: BulkAnswer, count: int) -> None:
        while count > 0:
            data = answer.read(min(BLOCK, count))
            if not data or stream.stopped.is_set():
                raise TransferInterruptedError("the body ended too early")
            self._run.traffic.add(len(data))
            count -= len(data)

    def _receive_block(self, stream: Stream, answer: BulkAnswer, stop: int) -> None:
        """Receive a block whole, and only then write it. ``stop``: where the answer's bytes end."""
        transfer = stream.transfer
        whole = min(BLOCK, transfer.file.size - stream.position)
        begun = stream.waiting_since = time.monotonic()
        data = self._read(
            stream, answer, min(whole - len(stream.begun), stop - stream.wanted.start)
        )
        stream.waiting_since = 0.0
        if len(data) < whole:
            stream.begun = data
            return
        received = time.monotonic()
        transfer.partial.write_at(stream.position, data)
        stream.position, stream.begun = stream.position + whole, b""
        stream.note(received - begun, time.monotonic() - received)

    def _read(self, stream: Stream, answer: BulkAnswer, size: int) -> bytes:
        """Read ``size`` bytes more of a block; returns all of the block that is there now."""
        while size > 0:
            data = answer.read(min(size, stream.piece))
            if stream.stopped.is_set():
                raise StoppedError
            self._run.traffic.add(len(data))
            size -= len(data)
            # Nothing is copied in the common case: one read, one block.
            stream.begun = stream.begun + data if stream.begun else data
            if not data:
                raise TransferInterruptedError("the body ended too early")
        return stream.begun


def _check_etag(transfer: Transfer, answer: BulkAnswer) -> None:
    """Notice that a host serves another file than before.

    Each host has its own etags, and of two machines behind one name each may have its own too: a
    change is asked about once, and then believed, where a digest will prove the bytes. Without one
    nothing fetched so far can be trusted.

    Raises:
        SnapshotChangedError: the etag changed, and nothing else would tell.
        TransferInterruptedError: the etag changed.
    """
    etag = plain_etag(answer.headers.get("ETag", ""))
    host = origin(answer.url)[1]
    known = transfer.etags.get(host)
    if etag:
        transfer.etags[host] = etag
    if etag and known not in (None, etag):
        said = f"the etag of {transfer.file.path} was {known} and is {etag}"
        if transfer.file.digest is None:
            raise SnapshotChangedError(said)
        raise TransferInterruptedError(said)
