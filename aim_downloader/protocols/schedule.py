"""Which thread fetches what: files under way, their segments, and how many streams there are.

Also what is done about a slow one: others fetch what it has in hand, or a part of its rest. No I/O
and no locks in here: the lane asks under its own lock.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from aim_downloader.http_client.bulk import Call
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile

LARGEST_SEGMENT = 64 * MIB
SMALLEST_SEGMENT = 8 * MIB
SMALLEST_PART = 4 * MIB
FIRST_STREAMS = 4
LONG_WAIT = 0.25

PATIENCE = 4.0
FIRST_PATIENCE = 5.0
# A loaded machine lets a thread wait for tenths of a second, whatever the network does.
SHORTEST_BLOCK = 0.5
# A new connection takes some ways to and fro that a kept one does without.
SHORTEST_HEAD = 1.0
LONG_REST = 1.0


class StoppedError(Exception):
    """A stream was told to end; what it has not fetched goes back to its file."""


def segment_size(waiting: int, connections: int) -> int:
    """Bytes of the next segment of a file with ``waiting`` bytes that nobody fetches yet.

    Large ones at first, for few requests; smaller ones towards the end, so that all streams of a
    file finish together.
    """
    fair = -(-waiting // connections // BLOCK) * BLOCK
    return max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, fair))


class Usual:
    """How long a step usually takes: the median of the last ones, whichever stream took them."""

    def __init__(self, shortest: float) -> None:
        self._shortest = shortest
        self._last: deque[float] = deque(maxlen=64)

    def note(self, seconds: float) -> None:
        """Take in how long one took."""
        self._last.append(seconds)

    @property
    def longest(self) -> float:
        """Seconds after which a step takes long."""
        if not self._last:
            return FIRST_PATIENCE
        return max(self._shortest, PATIENCE * statistics.median(self._last))


@dataclass(eq=False, slots=True)
class Transfer:
    """A file under way: what nobody fetches yet, who fetches, and how it ended.

    ``location`` is the signed URL that serves it for now, ``etags`` what each host calls it.
    ``sequential``: its server knows no ranges, so one stream reads it from the front.
    ``patience``: how many times as long as elsewhere a step may take here. ``refusals``: how often
    in a row its server was too busy.
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
    patience: float = 1.0
    refusals: int = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes that nobody fetches yet."""
        return sum(len(part) for part in self.waiting)

    @property
    def working(self) -> list[Stream]:
        """Its streams, without those that are relieved."""
        return [stream for stream in self.streams if not stream.relieved]

    @property
    def divisible(self) -> bool:
        """Whether others can take over from a stream: its server has heeded all ranges so far."""
        return not self.ignored_ranges

    @property
    def starved(self) -> bool:
        """Whether all its streams wait for the network, as far as they have shown.

        As many may be new as have shown it, so that it takes neither long nor one by mistake.
        """
        shown = [stream for stream in self.working if not stream.new]
        new = len(self.working) - len(shown)
        return new < max(1, len(shown)) and all(stream.starved for stream in shown)

    def rivals(self, stream: Stream) -> list[Stream]:
        """The other streams that fetch the same block now."""
        return [
            other
            for other in self.streams
            if other is not stream and other.rest and other.position == stream.position
        ]

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

    def withdraw(self, block: ByteRange) -> None:
        """Nobody needs to fetch this block any more, which others were to fetch, too."""
        for number, part in enumerate(self.waiting):
            if part.start == block.start:
                rest = ByteRange(block.stop, part.stop)
                self.waiting[number : number + 1] = [rest] if rest else []
                return


@dataclass(eq=False, slots=True)
class Stream:
    """One connection's share of a file: the bytes from ``position`` to ``stop``.

    ``begun`` are the first bytes of the block at ``position``, from a connection that broke in it;
    ``piece`` is how many are read at a time.
    ``reading`` and ``working`` are the seconds that a block takes to come, and to be written and
    hashed; ``waiting_since`` is when it began to wait for the network, 0 while it does not, and
    ``asking`` tells that it waits for an answer's head.
    ``braked`` are the seconds that the speed limit has taken of the present block.
    ``writing``: it is inside the partial. ``relieved``: it was slow, so that its block is for
    others, too: the first one to have it writes it. All behind that block is for others alone.
    """

    transfer: Transfer
    position: int
    stop: int
    begun: bytes = b""
    piece: int = BLOCK
    call: Call = field(default_factory=Call)
    stopped: threading.Event = field(default_factory=threading.Event)
    waiting_since: float = 0.0
    asking: bool = False
    writing: bool = False
    relieved: bool = False
    reading: float = 0.0
    working: float = 0.0
    braked: float = 0.0

    @property
    def rest(self) -> ByteRange:
        """What it has yet to write."""
        return ByteRange(self.position, self.stop)

    @property
    def wanted(self) -> ByteRange:
        """What it has yet to ask for."""
        return ByteRange(self.position + len(self.begun), self.stop)

    @property
    def block(self) -> ByteRange:
        """The block that it has in hand."""
        return ByteRange(self.position, min(self.position + BLOCK, self.transfer.file.size))

    @property
    def starved(self) -> bool:
        """Whether the connection is slower than hashing and writing what it brings."""
        return self._waited > LONG_WAIT or self.reading > 2 * self.working

    @property
    def new(self) -> bool:
        """Whether it has not shown yet if it starves."""
        return not self.reading and self._waited <= LONG_WAIT

    @property
    def _waited(self) -> float:
        """Seconds that it has waited for the network now."""
        since = self.waiting_since
        return time.monotonic() - since if since > 0 else 0.0

    @property
    def slowness(self) -> float:
        """Seconds that its present step takes, or that a block takes it on average if longer."""
        waited = self._waited
        return max(waited, self.reading) if waited and not self.asking else waited

    @property
    def seconds_left(self) -> float:
        """How long its rest will take; 0 when nobody knows, or nobody could take a part of it."""
        whole = len(self.rest) < 2 * SMALLEST_PART or not self.transfer.divisible
        return 0.0 if whole else len(self.rest) / BLOCK * self.reading

    @property
    def gone(self) -> bool:
        """Whether it was told to end and is not inside the partial, where it cannot go then."""
        return self.stopped.is_set() and not self.writing

    def note(self, reading: float, working: float) -> None:
        """Take in the seconds that one block took; old blocks count less and less."""
        share = 4 if self.reading else 1
        self.reading += (reading - self.reading) / share
        self.working += (working - self.working) / share

    def relieve(self) -> None:
        """Let others fetch all it has, the block in hand included; it ends behind that block."""
        self.transfer.give_back(self.rest)
        self.stop = self.block.stop
        self.relieved = True
        self.call.reusable = False

    def halve(self) -> None:
        """Let others fetch the back half of its rest."""
        middle = self.position + -(-len(self.rest) // 2 // BLOCK) * BLOCK
        self.transfer.give_back(ByteRange(middle, self.stop))
        self.stop = middle

    def end(self) -> None:
        """Make the thread leave, from another thread, also when it waits for the network."""
        self.stopped.set()
        self.call.hang_up()

    def sleep(self, seconds: float) -> None:
        """Wait, unless told to end.

        Raises:
            StoppedError: the stream was told to end.
        """
        if self.stopped.wait(seconds):
            raise StoppedError

    def pause(self, seconds: float) -> float:
        """Wait because we are asked to: no wait for the network. Returns how long it took.

        Raises:
            StoppedError: the stream was told to end.
        """
        if seconds <= 0:
            return 0.0
        waited, begun = self._waited, time.monotonic()
        self.waiting_since = 0.0
        self.sleep(seconds)
        ended = time.monotonic()
        self.waiting_since = ended - waited
        return ended - begun


class Schedule:
    """Files under way and the streams that serve them, at most ``connections``.

    ``width`` is how many streams there may be now, without those that are relieved: it grows while
    all of them starve. ``allowed`` is how many servers and limits leave in all. ``heads`` and
    ``blocks`` are what the heads of answers and blocks usually take to come.
    """

    def __init__(self, connections: int) -> None:
        self._connections = self.allowed = connections
        self.width = min(FIRST_STREAMS, connections)
        self.transfers: list[Transfer] = []
        self.streams: set[Stream] = set()
        self.heads = Usual(SHORTEST_HEAD)
        self.blocks = Usual(SHORTEST_BLOCK)

    @property
    def _working(self) -> list[Stream]:
        return [stream for stream in self.streams if not stream.relieved]

    @property
    def _most(self) -> int:
        """How many streams there may be now, those that are relieved included."""
        return min(self.allowed, self.width + sum(one.relieved for one in self.streams))

    @property
    def useful_streams(self) -> int:
        """How many streams there is work for, those that have some included."""
        more = sum(-(-one.waiting_bytes // SMALLEST_SEGMENT) for one in self.transfers)
        more = more or int(self._longest() is not None)
        return min(self._most, len(self.streams) + more)

    def widen(self) -> None:
        """Allow more streams when all that are allowed wait for the network."""
        working = self._working
        if len(working) >= self.width and all(stream.starved for stream in working):
            self.width = min(self._connections, self.width * 3 // 2 + 1)

    def relieve(self) -> None:
        """Let others fetch what the slowest straggler has in hand, if there is one.

        One at a time: when all become slow it is the network, and others would be no quicker. When
        only such are left that are relieved, nobody has taken over, and the slowest makes room.
        """
        # Somebody must be able to take it.
        if self._connections < 2:
            return
        slowest = max(self._working or self.streams, key=self._straggling, default=None)
        if slowest is None or self._straggling(slowest) <= 1:
            return
        if slowest.relieved:
            # With nobody to race against, it may be the host that is slow.
            slowest.transfer.patience *= 2.0
            slowest.end()
        else:
            slowest.relieve()

    def _straggling(self, stream: Stream) -> float:
        """How slow a stream is by what is allowed: above 1 it is a straggler.

        A block that several have in hand already is given to one more only after twice the time.
        """
        transfer = stream.transfer
        if not transfer.divisible or stream.stopped.is_set() or not stream.rest:
            return 0.0
        usual = self.heads if stream.asking else self.blocks
        longest = usual.longest * transfer.patience * 2.0 ** len(transfer.rivals(stream))
        return stream.slowness / longest

    def wrote(self, stream: Stream, first: bool) -> None:
        """The stream is through with its block. ``first``: it has written it, nobody else had."""
        transfer, block = stream.transfer, stream.block
        rivals = transfer.rivals(stream)
        stream.position, stream.begun, stream.writing = block.stop, b"", False
        if not first:
            return
        for rival in rivals:
            if not rival.relieved:
                rival.relieve()
            rival.end()
        transfer.withdraw(block)
        if rivals:
            # Who was quicker tells whether it was the connection, or all of the host is slow.
            transfer.patience = max(1.0, transfer.patience * (2.0 if stream.relieved else 0.5))

    def next_stream(self) -> Stream | None:
        """A new stream with the next segment; None when there is nothing for one to do."""
        transfer = (self._neediest() or self._split()) if len(self.streams) < self._most else None
        if transfer is None:
            return None
        part = transfer.take(segment_size(transfer.waiting_bytes, self._connections))
        stream = Stream(transfer, part.start, part.stop)
        transfer.streams.add(stream)
        self.streams.add(stream)
        return stream

    def _neediest(self) -> Transfer | None:
        """The file that the next stream is for: one that nobody leads, else a starved one.

        Of these the one with the fewest streams, so that all get their share.
        """
        able = [one for one in self.transfers if one.waiting and one.error is None]
        for transfer in able:
            if not transfer.working:
                return transfer
        joinable = (one for one in able if one.starved and not one.sequential)
        return min(joinable, key=lambda one: (len(one.working), -one.waiting_bytes), default=None)

    def _split(self) -> Transfer | None:
        """Have a stream give back a part of its rest when nothing else is left to do."""
        longest = self._longest()
        if longest is None:
            return None
        longest.halve()
        return longest.transfer

    def _longest(self) -> Stream | None:
        """The stream that would be busy longest, where a second connection would help."""
        able = (
            stream
            for transfer in self.transfers
            if transfer.error is None and transfer.starved
            for stream in transfer.working
            if stream.seconds_left > LONG_REST
        )
        return max(able, key=lambda stream: stream.seconds_left, default=None)

    def refuse(self, stream: Stream, tries: int) -> bool:
        """The server is too busy for the stream. Whether it ends, as one more than is allowed.

        A file that is refused all the time does not go from hand to hand for ever.
        """
        stream.transfer.refusals += 1
        staying = sum(not one.stopped.is_set() for one in self.streams)
        if staying <= self.allowed or stream.transfer.refusals > tries:
            return False
        stream.end()
        return True

    def end(self, stream: Stream) -> None:
        """The stream is over; what it has not fetched is for others."""
        self.streams.discard(stream)
        stream.transfer.streams.discard(stream)
        if not stream.relieved:
            stream.transfer.give_back(stream.rest)

    def fail(self, transfer: Transfer, error: BaseException) -> None:
        """No more of this file; its first error counts."""
        transfer.error = transfer.error or error
        for stream in transfer.streams:
            stream.end()

    def settle(self, transfer: Transfer) -> bool:
        """Whether nobody writes to the file any more, for good; said once.

        A stream that was told to end and still waits for the network is not waited for.
        """
        if transfer.error is None and (transfer.waiting or transfer.working):
            return False
        if transfer not in self.transfers or not all(one.gone for one in transfer.streams):
            return False
        self.transfers.remove(transfer)
        return True
