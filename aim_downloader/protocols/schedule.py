"""Which thread fetches what: files under way, their segments, and how many streams there are.

No I/O and no locks in here: the lane asks under its own lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field

from aim_downloader.http_client.bulk import BulkAnswer
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile

LARGEST_SEGMENT = 64 * MIB
SMALLEST_SEGMENT = 8 * MIB
FIRST_STREAMS = 4
LONG_WAIT = 0.25


class StoppedError(Exception):
    """A stream was told to end; what it has not fetched goes back to its file."""


def segment_size(waiting: int, connections: int) -> int:
    """Bytes of the next segment of a file with ``waiting`` bytes that nobody fetches yet.

    Large ones at first, for few requests; smaller ones towards the end, so that all streams of a
    file finish together.
    """
    fair = -(-waiting // connections // BLOCK) * BLOCK
    return max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, fair))


@dataclass(eq=False, slots=True)
class Transfer:
    """A file under way: what nobody fetches yet, who fetches, and how it ended.

    ``location`` is the signed URL that serves it for now, ``etags`` what each host calls it.
    ``sequential``: its server knows no ranges, so one stream reads it from the front.
    """

    file: RemoteFile
    partial: Partial
    waiting: list[ByteRange]
    done: asyncio.Future[None]
    streams: set[Stream] = field(default_factory=set)
    error: BaseException | None = None
    location: str | None = None
    etags: dict[str, str] = field(default_factory=dict)
    ignored_ranges: int = 0
    sequential: bool = False

    @property
    def waiting_bytes(self) -> int:
        """Bytes that nobody fetches yet."""
        return sum(len(part) for part in self.waiting)

    @property
    def starved(self) -> bool:
        """Whether all its streams wait for the network."""
        return all(stream.starved for stream in self.streams)

    def take(self, size: int) -> ByteRange:
        """The next ``size`` bytes that nobody fetches yet, or fewer."""
        first = self.waiting[0]
        taken = ByteRange(first.start, min(first.stop, first.start + size))
        if taken.stop == first.stop:
            del self.waiting[0]
        else:
            self.waiting[0] = ByteRange(taken.stop, first.stop)
        return taken

    def give_back(self, part: ByteRange) -> None:
        """Let others fetch these bytes."""
        if part:
            self.waiting.append(part)
            self.waiting.sort()


@dataclass(eq=False, slots=True)
class Stream:
    """One connection's share of a file: the bytes from ``position`` to ``stop``.

    ``begun`` are the first bytes of the block at ``position``, from a connection that broke in it;
    ``piece`` is how many are read at a time.
    ``reading`` and ``working`` are the seconds that a block takes to come, and to be written and
    hashed; ``waiting_since`` is when it began to wait for the network, 0 while it does not.
    """

    transfer: Transfer
    position: int
    stop: int
    begun: bytes = b""
    piece: int = BLOCK
    answer: BulkAnswer | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    waiting_since: float = 0.0
    reading: float = 0.0
    working: float = 0.0

    @property
    def rest(self) -> ByteRange:
        """What it has yet to write."""
        return ByteRange(self.position, self.stop)

    @property
    def wanted(self) -> ByteRange:
        """What it has yet to ask for."""
        return ByteRange(self.position + len(self.begun), self.stop)

    @property
    def starved(self) -> bool:
        """Whether the connection is slower than hashing and writing what it brings."""
        since = self.waiting_since
        waits_long = since > 0 and time.monotonic() - since > LONG_WAIT
        return waits_long or self.reading > 2 * self.working

    def note(self, reading: float, working: float) -> None:
        """Take in the seconds that one block took; old blocks count less and less."""
        self.reading += (reading - self.reading) / 4
        self.working += (working - self.working) / 4

    def attach(self, answer: BulkAnswer) -> None:
        """Read from this answer from now on.

        Raises:
            StoppedError: the stream was told to end before it had one.
        """
        self.answer = answer
        if self.stopped.is_set():
            raise StoppedError

    def end(self) -> None:
        """Make the thread leave, from another thread; one that waits for an answer leaves then."""
        self.stopped.set()
        answer = self.answer
        if answer is not None:
            answer.shutdown()

    def sleep(self, seconds: float) -> None:
        """Wait, unless told to end.

        Raises:
            StoppedError: the stream was told to end.
        """
        if self.stopped.wait(seconds):
            raise StoppedError


class Schedule:
    """Files under way and the streams that serve them, at most ``connections``.

    ``width`` is how many streams there may be now: it grows while all of them starve.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self.width = min(FIRST_STREAMS, connections)
        self.transfers: list[Transfer] = []
        self.streams: set[Stream] = set()

    @property
    def useful_streams(self) -> int:
        """How many streams there is work for, those that have some included."""
        more = sum(-(-one.waiting_bytes // SMALLEST_SEGMENT) for one in self.transfers)
        return min(self.width, len(self.streams) + more)

    def widen(self) -> None:
        """Allow more streams when all that are allowed wait for the network."""
        if len(self.streams) >= self.width and all(stream.starved for stream in self.streams):
            self.width = min(self._connections, self.width * 3 // 2 + 1)

    def next_stream(self) -> Stream | None:
        """A new stream with the next segment; None when there is nothing for one to do."""
        transfer = self._neediest() if len(self.streams) < self.width else None
        if transfer is None:
            return None
        part = transfer.take(segment_size(transfer.waiting_bytes, self._connections))
        stream = Stream(transfer, part.start, part.stop)
        transfer.streams.add(stream)
        self.streams.add(stream)
        return stream

    def _neediest(self) -> Transfer | None:
        """The file that the next stream is for: one that nobody leads, else the most starved."""
        able = [one for one in self.transfers if one.waiting and one.error is None]
        for transfer in able:
            if not transfer.streams:
                return transfer
        joinable = (one for one in able if one.starved and not one.sequential)
        return max(joinable, key=lambda one: one.waiting_bytes, default=None)

    def end(self, stream: Stream) -> None:
        """The stream is over; what it has not fetched is for others."""
        self.streams.discard(stream)
        stream.transfer.streams.discard(stream)
        stream.transfer.give_back(stream.rest)

    def fail(self, transfer: Transfer, error: BaseException) -> None:
        """No more of this file; its first error counts."""
        transfer.error = transfer.error or error
        for stream in transfer.streams:
            stream.end()

    def settle(self, transfer: Transfer) -> bool:
        """Whether nobody works on the file any more, for good; said once."""
        if transfer.streams or (transfer.waiting and transfer.error is None):
            return False
        if transfer not in self.transfers:
            return False
        self.transfers.remove(transfer)
        return True
