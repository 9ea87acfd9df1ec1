"""Protocol HTTP, bulk lane: threads that stream ranges of large files into their partials.

One stream leads each file and hashes what it has just received. Further streams join a file only
while its streams wait for the network, so that a slow link is filled and a fast one costs no second
pass over the bytes. What a slow stream has in hand others fetch, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping

from aim_downloader.errors import (
    AccessDeniedError,
    DownloadError,
    RangeNotHonouredError,
    SnapshotChangedError,
    ThrottledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.events import RetryScheduled
from aim_downloader.governor import Visit
from aim_downloader.http_client.bulk import BulkAnswer, BulkClient
from aim_downloader.http_client.rules import ration
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.protocols.answers import check_identity, check_range, plain_etag
from aim_downloader.protocols.base import Run
from aim_downloader.protocols.schedule import Schedule, StoppedError, Stream, Transfer
from aim_downloader.retry import OnRetry
from aim_downloader.snapshot import ByteRange, RemoteFile
from aim_downloader.urls import origin

_TICK = 0.25
_JOIN_GRACE = 1.0
_IGNORED_RANGES = 3
_PIECE = BLOCK // 16


class HttpProtocol:
    """Plain HTTP range requests to the URL of each file."""

    name = "HTTP"

    def supports(self, file: RemoteFile) -> bool:
        """Every file that has a URL."""
        return bool(file.url)

    @contextlib.asynccontextmanager
    async def open(self, run: Run) -> AsyncIterator[HttpLane]:
        """Open the bulk lane."""
        lane = HttpLane(run)
        tending = asyncio.create_task(lane.tend())
        try:
            yield lane
        finally:
            tending.cancel()
            lane.close()


class HttpLane:
    """The bulk lane of one run. Its threads are daemons: none of them outlives a decision to go."""

    def __init__(self, run: Run) -> None:
        self._run = run
        buffer = run.limit.receive_buffer if run.limit else None
        self._client = BulkClient(run.network, run.connections, buffer)
        self._schedule = Schedule(run.connections)
        self._schedule.allowed = run.allowed
        self._changed = threading.Condition()
        self._threads = 0
        self._closed = False
        self._received = 0

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

    async def locate(self, file: RemoteFile, partial: Partial) -> str:
        """The URL that serves a file's bytes for now: redirects are followed, for a single byte.

        Nothing is asked again here: ``fetch`` does that.

        Raises:
            TransferError: its server cannot be asked now, or knows no ranges.
            DownloadError: the file is refused, or is another one than was listed.
        """
        done = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        stream = Stream(Transfer(file, partial, [], done), 0, 1)
        threading.Thread(target=self._locate, args=(stream,), name="aim-ask", daemon=True).start()
        try:
            await done
        finally:
            # Nobody waits for a thread that still connects; elsewhere it leaves at once.
            stream.end()
        return stream.transfer.location or file.url

    def _locate(self, stream: Stream) -> None:
        error: BaseException | None = None
        try:
            self._ask_for_a_byte(stream)
        except BaseException as caught:  # noqa: BLE001  # handed to whoever awaits it
            error = caught
        _tell(stream.transfer.done, error)

    def _ask_for_a_byte(self, stream: Stream) -> None:
        asked = stream.wanted
        with (
            self._run.governor.visit() as visit,
            contextlib.closing(self._ask(stream, asked, visit)) as answer,
        ):
            path = stream.transfer.file.path
            if answer.status != 206:
                raise RangeNotHonouredError(f"{path}: 200 came for {asked.header}")
            check_range(answer.headers, asked, stream.transfer.file.size)
            # So that its connection can be used again.
            answer.read(1)

    async def _leave(self, transfer: Transfer) -> None:
        with self._changed:
            self._fail(transfer, TransferInterruptedError("ended"))
        # Who hangs in the disk is not waited for.
        await asyncio.wait([transfer.done], timeout=_JOIN_GRACE)

    async def tend(self) -> None:
        """Relieve slow streams, and add some for as long as the ones there are wait."""
        while True:
            await asyncio.sleep(_TICK)
            with self._changed:
                self._obey()
                self._schedule.relieve()
                self._schedule.widen()
                # A file whose streams starve may now take one that is idle.
                self._wake()

    def _obey(self) -> None:
        """Run no more streams than are allowed by now."""
        received, self._received = self._received, self._run.traffic.received
        if self._received > received:
            self._run.governor.goes_well()
        self._schedule.allowed = self._run.allowed

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
                self._enter(stream)
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

    def _enter(self, stream: Stream) -> None:
        """Go into the partial. Who was told to end cannot any more, so nobody has to wait for it.

        Raises:
            StoppedError: the stream was told to end.
        """
        with self._changed:
            if stream.stopped.is_set():
                raise StoppedError
            stream.writing = True

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
        _tell(transfer.done, transfer.error)

    def _fill(self, stream: Stream) -> None:
        """Fetch a stream's bytes, by as many requests as it takes."""
        on_retry = self._teller(stream)
        while stream.rest:
            self._try(stream, lambda: self._request(stream, on_retry))

    def _try(self, stream: Stream, ask: Callable[[], None]) -> None:
        """Ask, and ask again as the run's policy says."""
        try:
            for attempt in self._run.policy.retrying(stream.sleep, self._teller(stream)):
                with attempt:
                    ask()
        except ThrottledError as error:
            self._run.governor.give_up(error, self._run.policy.attempts)
            raise

    def _teller(self, stream: Stream) -> OnRetry:
        """Who tells of retries."""

        def on_retry(error: BaseException, attempt: int, delay: float) -> None:
            path = stream.transfer.file.path
            if self._run.governor.is_news(error, delay):
                kind = type(error).__name__
                self._run.emit(RetryScheduled(path, str(error), attempt, delay, kind))

        return on_retry

    def _request(self, stream: Stream, on_retry: OnRetry) -> None:
        """One request. An error after progress is none: the next request goes on from there."""
        asked = stream.wanted
        stream.asking, stream.waiting_since = True, time.monotonic()
        try:
            with (
                self._run.governor.visit() as visit,
                contextlib.closing(self._ask(stream, asked, visit)) as answer,
            ):
                self._note_head(stream)
                self._receive(stream, answer, asked)
        except TransferError as error:
            if stream.stopped.is_set() or stream.relieved:
                # Others have or fetch what it had in hand.
                raise StoppedError from error
            if not isinstance(error, ThrottledError):
                stream.transfer.location = None
            elif self._is_too_many(stream):
                on_retry(error, 1, self._run.policy.delay(1, error))
                raise StoppedError from error
            if stream.wanted.start - asked.start < _PIECE or not error.retryable:
                # Next time in small pieces, of which each counts.
                stream.piece = _PIECE
                raise
            on_retry(error, 1, 0.0)
        finally:
            stream.waiting_since = 0.0

    def _is_too_many(self, stream: Stream) -> bool:
        """Whether a stream that was refused leaves its segment to the others."""
        with self._changed:
            self._schedule.allowed = self._run.allowed
            return self._schedule.refuse(stream, self._run.policy.attempts)

    def _note_head(self, stream: Stream) -> None:
        with self._changed:
            self._schedule.heads.note(time.monotonic() - stream.waiting_since)
            stream.asking = False

    def _ask(self, stream: Stream, asked: ByteRange, visit: Visit) -> BulkAnswer:
        """Send the request and check the answer's head."""
        transfer = stream.transfer
        answer = self._get(stream, asked, visit)
        visit.answered(ration(answer.headers))
        transfer.refusals = 0
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

    def _get(self, stream: Stream, asked: ByteRange, visit: Visit) -> BulkAnswer:
        def turn(url: str, led_here: Mapping[str, str]) -> None:
            for pause in visit.pauses(url, ration(led_here)):
                if pause.reason:
                    path = stream.transfer.file.path
                    self._run.emit(RetryScheduled(path, pause.reason, 1, pause.seconds))
                stream.pause(pause.nap)

        location = stream.transfer.location
        try:
            return self._client.get(location or stream.transfer.file.url, asked, stream.call, turn)
        except AccessDeniedError as error:
            if location is None:
                raise
            raise TransferInterruptedError(f"{error}: the link to it may have expired") from error

    def _receive(self, stream: Stream, answer: BulkAnswer, asked: ByteRange) -> None:
        """Move the body of an answer into the partial, block by block."""
        if answer.status == 206:
            stop = check_range(answer.headers, asked, stream.transfer.file.size)
        else:
            self._take_whole(stream, answer)
            stop = stream.stop
        # The rest may have become others' meanwhile.
        while stream.wanted.start < min(stop, stream.stop):
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
            alone = transfer.working == [stream]
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
            data = answer.read(self._paid(stream, min(BLOCK, count)))
            if not data or stream.stopped.is_set():
                raise TransferInterruptedError("the body ended too early")
            self._run.traffic.add(len(data))
            count -= len(data)

    def _receive_block(self, stream: Stream, answer: BulkAnswer, stop: int) -> None:
        """Receive a block whole, and only then write it. ``stop``: where the answer's bytes end."""
        transfer = stream.transfer
        whole = min(BLOCK, transfer.file.size - stream.position)
        begun = stream.waiting_since = time.monotonic()
        stream.braked = 0.0
        data = self._read(
            stream, answer, min(whole - len(stream.begun), stop - stream.wanted.start)
        )
        stream.waiting_since = 0.0
        if len(data) < whole:
            stream.begun = data
            return
        received = time.monotonic()
        self._enter(stream)
        first = transfer.partial.write_at(stream.position, data)
        reading = received - begun - stream.braked
        self._wrote(stream, first, reading, time.monotonic() - received)

    def _wrote(self, stream: Stream, first: bool, reading: float, working: float) -> None:
        stream.note(reading, working)
        with self._changed:
            self._schedule.blocks.note(reading)
            self._schedule.wrote(stream, first)

    def _read(self, stream: Stream, answer: BulkAnswer, size: int) -> bytes:
        """Read ``size`` bytes more of a block; returns all of the block that is there now."""
        while size > 0:
            data = answer.read(self._paid(stream, min(size, stream.piece)))
            if stream.stopped.is_set():
                raise StoppedError
            self._run.traffic.add(len(data))
            size -= len(data)
            # Nothing is copied in the common case: one read, one block.
            stream.begun = stream.begun + data if stream.begun else data
            if not data:
                raise TransferInterruptedError("the body ended too early")
        return stream.begun

    def _paid(self, stream: Stream, size: int) -> int:
        """How many of ``size`` bytes may be read now, after the wait that the speed limit asks."""
        limit = self._run.limit
        if limit is None:
            return size
        size = min(size, limit.piece)
        stream.braked += stream.pause(limit.take(size))
        return size


def _tell(done: asyncio.Future[None], error: BaseException | None) -> None:
    """End a future of the event loop's from a thread."""

    def tell() -> None:
        # Whoever awaited it may have been cancelled, and it too.
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    # The loop is gone only when the whole run is.
    with contextlib.suppress(RuntimeError):
        done.get_loop().call_soon_threadsafe(tell)


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
