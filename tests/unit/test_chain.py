"""The chain of protocols: who is asked for a file, in which order, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from aim_downloader.chain import Chain, OpenProtocol, Protocols
from aim_downloader.content_hash import ContentProof
from aim_downloader.errors import (
    AccessDeniedError,
    AllProtocolsFailedError,
    DownloadError,
    EngineEndedError,
    EngineOutOfMemoryError,
    EngineSuspendedError,
    InsufficientSpaceError,
    LeaseLostError,
    ProtocolUnavailableError,
    SnapshotNotFoundError,
    StalledError,
    TransferInterruptedError,
)
from aim_downloader.events import (
    Event,
    FileCommitted,
    FileRejected,
    FileStarted,
    ProtocolLeft,
    ProtocolSwitched,
    RetryScheduled,
)
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.protocols.base import Lane, Run
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import ByteRange, RemoteFile
from tests.unit.sinks import COMMIT, begun, lfs_file

E = TypeVar("E", bound=Event)

CONTENT = bytes(range(256)) * (BLOCK // 128) + b"end"
WRONG = CONTENT[:-1] + b"?"
SIZE = len(CONTENT)
DEADLINE_S = 20.0

GONE = ProtocolUnavailableError("the store cannot be reached", hint="see to it")
CUT = TransferInterruptedError("cut off")
KILLED = EngineOutOfMemoryError("killed for memory")
SUSPENDED = EngineSuspendedError("heard nothing")
ALL, DAMAGED = "all", "damaged"
Step = DownloadError | str | int
"""What a call of ``fetch`` does: raise, bring all, bring wrong bytes, or so many blocks and CUT."""


def write(partial: Partial, content: bytes, blocks: int | None = None) -> None:
    missing = (start for one in partial.missing() for start in range(one.start, one.stop, BLOCK))
    for start in itertools.islice(missing, blocks):
        partial.write_at(start, content[start : start + BLOCK])


@dataclass
class Fake:
    """A protocol, and its lane, that follows a script; after its end it brings all."""

    name: str
    script: Sequence[Step] = ()
    only: str = ""
    asked: list[tuple[str, list[ByteRange]]] = field(default_factory=list)
    before: Callable[[RemoteFile], contextlib.AbstractAsyncContextManager[None]] | None = None
    connections: int = 0

    def __post_init__(self) -> None:
        self._steps = iter(self.script)

    def supports(self, file: RemoteFile) -> bool:
        return self.only in file.path

    @contextlib.asynccontextmanager
    async def open(self, run: Run) -> AsyncIterator[Lane]:
        yield self

    async def fetch(self, file: RemoteFile, partial: Partial) -> None:
        self.asked.append((file.path, partial.missing()))
        async with self.before(file) if self.before else contextlib.nullcontext():
            self._follow(next(self._steps, ALL), partial)

    def _follow(self, step: Step, partial: Partial) -> None:
        if isinstance(step, DownloadError):
            raise step
        if isinstance(step, int):
            write(partial, CONTENT, step)
            raise CUT
        write(partial, CONTENT if step == ALL else WRONG)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class Bench:
    """A chain into a folder, with what it tells."""

    def __init__(
        self, sink: Sink, *sequence: Fake | None, otherwise: Fake | None = None, width: int = 4
    ) -> None:
        self.sink = sink
        self.events: list[Event] = []
        self.kept: list[int] = []
        self.done: list[str] = []
        self.failed: list[AllProtocolsFailedError] = []
        self.chain = Chain(
            Protocols(
                [OpenProtocol(one, one) if one else None for one in sequence],
                OpenProtocol(*2 * [otherwise or Fake("HTTP")]),
            ),
            sink,
            COMMIT,
            self.events.append,
            width,
            self.kept.append,
        )

    async def bring(self, path: str = "model.bin") -> bool:
        """Brings one file; tells whether it is there and right."""
        async with asyncio.timeout(DEADLINE_S):
            await self.chain.bring(lfs_file(path, CONTENT))
        return (self.sink.root / path).read_bytes() == CONTENT

    async def bring_all(self, *paths: str) -> None:
        files = [lfs_file(path, CONTENT) for path in paths]
        async with asyncio.timeout(DEADLINE_S):
            await self.chain.bring_all(
                files, lambda file: self.done.append(file.path), self.failed.append
            )

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def who(self) -> list[str]:
        return [event.protocol for event in self.told(FileStarted)]

    @property
    def switches(self) -> list[tuple[str, str]]:
        return [(event.failed, event.to) for event in self.told(ProtocolSwitched)]


@pytest.fixture
def sink(tmp_path: Path) -> Sink:
    return begun(LocalDir(tmp_path / "target"))


# -- one file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "who", "switches", "rejected", "retried"),
    [
        ([], "XET", [], 0, 0),
        ([CUT], "XET HF_TRANSFER", [("XET", "HF_TRANSFER")], 0, 0),
        ([EngineEndedError("-11")], "XET HF_TRANSFER", [("XET", "HF_TRANSFER")], 0, 0),
        ([1], "XET HF_TRANSFER", [("XET", "HF_TRANSFER")], 0, 0),
        ([DAMAGED], "XET XET", [], 1, 0),
        ([DAMAGED, DAMAGED], "XET XET HF_TRANSFER", [("XET", "HF_TRANSFER")], 2, 0),
        ([KILLED], "XET XET", [], 0, 1),
        ([KILLED, KILLED], "XET XET HF_TRANSFER", [("XET", "HF_TRANSFER")], 0, 1),
        ([SUSPENDED], "XET XET", [], 0, 1),
        ([SUSPENDED, KILLED], "XET XET XET", [], 0, 2),
        ([SUSPENDED, SUSPENDED], "XET XET HF_TRANSFER", [("XET", "HF_TRANSFER")], 0, 1),
        ([KILLED, DAMAGED], "XET XET XET", [], 1, 1),
        ([DAMAGED, CUT], "XET XET HF_TRANSFER", [("XET", "HF_TRANSFER")], 1, 0),
        ([GONE], "XET HF_TRANSFER", [], 0, 0),
    ],
    ids=str,
)
async def test_the_next_protocol_brings_what_one_cannot(
    sink: Sink,
    steps: Sequence[Step],
    who: str,
    switches: list[tuple[str, str]],
    rejected: int,
    retried: int,
) -> None:
    bench = Bench(sink, Fake("XET", steps), Fake("HF_TRANSFER"))
    assert await bench.bring()
    assert bench.who == who.split()
    assert bench.switches == switches
    assert len(bench.told(FileRejected)) == rejected
    assert len(bench.told(RetryScheduled)) == retried
    assert len(bench.told(FileCommitted)) == 1


async def test_a_switch_is_told_with_its_reason(sink: Sink) -> None:
    bench = Bench(sink, Fake("XET", [StalledError("no byte for 120 s")]), Fake("HTTP"))
    await bench.bring()
    assert bench.told(ProtocolSwitched) == [
        ProtocolSwitched("model.bin", "XET", "HTTP", "no byte for 120 s", "StalledError")
    ]


async def test_a_retry_is_told_with_its_reason(sink: Sink) -> None:
    bench = Bench(sink, Fake("XET", [KILLED]))
    await bench.bring()
    assert bench.told(RetryScheduled) == [
        RetryScheduled("model.bin", str(KILLED), 1, 0.0, "EngineOutOfMemoryError")
    ]


async def test_what_is_proven_stays_for_the_next_protocol(sink: Sink) -> None:
    following = Fake("HTTP")
    bench = Bench(sink, Fake("XET", [2]), following)
    assert await bench.bring()
    assert following.asked == [("model.bin", [ByteRange(2 * BLOCK, SIZE)])]
    assert [event.resumed for event in bench.told(FileStarted)] == [0, 2 * BLOCK]


async def test_wrong_bytes_do_not_stay(sink: Sink) -> None:
    following = Fake("HTTP")
    bench = Bench(sink, Fake("XET", [DAMAGED, DAMAGED]), following)
    assert await bench.bring()
    assert following.asked == [("model.bin", [ByteRange(0, SIZE)])]


async def test_a_protocol_that_is_killed_for_memory_goes_on_with_what_is_proven(
    sink: Sink,
) -> None:
    class Dying(Fake):
        def _follow(self, step: Step, partial: Partial) -> None:
            with contextlib.suppress(TransferInterruptedError):
                super()._follow(step, partial)
            if step == 1:
                raise KILLED

    dying = Dying("XET", [1])
    assert await Bench(sink, dying).bring()
    assert [missing[0].start for _, missing in dying.asked] == [0, BLOCK]


@pytest.mark.parametrize(
    "error",
    [
        AccessDeniedError("401"),
        SnapshotNotFoundError("404"),
        InsufficientSpaceError("full"),
        LeaseLostError("taken over"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_no_protocol_can_cure_ends_it_at_once(sink: Sink, error: DownloadError) -> None:
    following = Fake("HTTP")
    bench = Bench(sink, Fake("XET", [error]), following)
    with pytest.raises(type(error)):
        await bench.bring()
    assert not following.asked
    assert not bench.switches


async def test_who_is_not_for_a_file_is_passed_by(sink: Sink) -> None:
    xet = Fake("XET", only=".xet")
    bench = Bench(sink, xet, Fake("HF_TRANSFER"))
    assert await bench.bring()
    assert bench.who == ["HF_TRANSFER"]
    assert not bench.told(ProtocolSwitched) + bench.told(ProtocolLeft)
    assert not xet.asked


async def test_a_file_that_nobody_in_the_sequence_is_for_is_no_attempt(sink: Sink) -> None:
    bench = Bench(sink, Fake("XET", only=".xet"), otherwise=Fake("HTTP"))
    assert await bench.bring()
    assert [(one.protocol, one.attempt) for one in bench.told(FileStarted)] == [("HTTP", 0)]
    assert not bench.told(ProtocolSwitched)


async def test_who_is_not_in_the_sequence_does_not_help_out(sink: Sink) -> None:
    otherwise = Fake("HTTP")
    bench = Bench(sink, Fake("XET", [CUT]), otherwise=otherwise)
    with pytest.raises(AllProtocolsFailedError):
        await bench.bring()
    assert not otherwise.asked


async def test_a_file_that_nobody_at_all_is_for_cannot_be_had(sink: Sink) -> None:
    bench = Bench(sink, Fake("XET", only="x"), otherwise=Fake("HTTP", only="x"))
    with pytest.raises(AllProtocolsFailedError, match="none was for it"):
        await bench.bring("model.bin")


async def test_a_protocol_that_is_named_twice_is_tried_twice(sink: Sink) -> None:
    xet = Fake("XET", [CUT])
    bench = Bench(sink, xet, xet, Fake("HTTP"))
    assert await bench.bring()
    assert bench.who == ["XET", "XET"]
    assert bench.switches == [("XET", "XET")]


async def test_all_attempts_are_told_when_none_succeeds(sink: Sink) -> None:
    xet, http = Fake("XET", [1, StalledError("no byte")]), Fake("HTTP", [DAMAGED, DAMAGED])
    bench = Bench(sink, xet, xet, http)
    with pytest.raises(AllProtocolsFailedError) as caught:
        await bench.bring()
    assert [name for name, _ in caught.value.attempts] == ["XET", "XET", "HTTP"]
    assert all(str(error) in str(caught.value) for _, error in caught.value.attempts)
    assert "cut off" in str(caught.value)
    # One event for each attempt, also for the last.
    assert bench.switches == [("XET", "XET"), ("XET", "HTTP"), ("HTTP", "")]
    assert not (sink.root / "model.bin").exists()


async def test_what_a_failed_file_has_is_kept(sink: Sink) -> None:
    with pytest.raises(AllProtocolsFailedError):
        await (first := Bench(sink, Fake("XET", [2]))).bring()
    assert first.kept == [2 * BLOCK]
    again = Fake("XET")
    assert await Bench(sink, again).bring()
    assert again.asked[0] == ("model.bin", [ByteRange(2 * BLOCK, SIZE)])


async def test_a_file_that_is_there_already_is_only_read(sink: Sink) -> None:
    file = lfs_file("model.bin", CONTENT)
    partial = sink.open_partial(file, COMMIT)
    write(partial, CONTENT)
    partial.close()
    xet = Fake("XET")
    assert await Bench(sink, xet).bring()
    assert not xet.asked


# -- which attempt ---------------------------------------------------------------------------------


async def attempts_of(bench: Bench, *paths: str) -> list[str]:
    for path in paths:
        await bench.bring(path)
    return [f"{one.attempt}/{one.attempts} {one.protocol}" for one in bench.told(FileStarted)]


async def test_places_count_from_one_with_unknown_names_and_repeats(sink: Sink) -> None:
    xet = Fake("XET", [CUT, CUT])
    bench = Bench(sink, None, xet, xet, None, Fake("HTTP"))
    assert await attempts_of(bench, "a") == ["2/5 XET", "3/5 XET", "5/5 HTTP"]


async def test_the_attempt_of_a_run_never_goes_back(sink: Sink) -> None:
    bench = Bench(sink, Fake("XET", [CUT], only="x"), Fake("HTTP"))
    assert await attempts_of(bench, "x1", "x2", "other") == [
        "1/2 XET",
        "2/2 HTTP",
        "2/2 XET",
        "2/2 HTTP",
    ]


@pytest.mark.parametrize(
    ("scripts", "paths", "later", "told"),
    [
        # XET is not for `git`: that is no failure of it, whichever file comes first.
        ({}, "x git", "", ["1/3 XET x", "1/3 HF_TRANSFER git"]),
        ({}, "git x", "git2", ["0/3 HF_TRANSFER git", "1/3 XET x", "1/3 HF_TRANSFER git2"]),
        # Nothing is for XET: the sequence begins with the second.
        ({}, "git git2", "", ["2/3 HF_TRANSFER git", "2/3 HF_TRANSFER git2"]),
        (
            {"XET": [CUT]},
            "git x",
            "git2",
            ["0/3 HF_TRANSFER git", "1/3 XET x", "2/3 HF_TRANSFER x", "2/3 HF_TRANSFER git2"],
        ),
        (
            {"XET": [GONE]},
            "x",
            "git",
            ["1/3 XET x", "2/3 HF_TRANSFER x", "2/3 HF_TRANSFER git"],
        ),
        (
            {"HF_TRANSFER": [CUT]},
            "x git",
            "x2",
            ["1/3 XET x", "1/3 HF_TRANSFER git", "3/3 HTTP git", "3/3 XET x2"],
        ),
    ],
    ids=str,
)
async def test_who_is_passed_by_has_not_failed(
    sink: Sink, scripts: dict[str, Sequence[Step]], paths: str, later: str, told: list[str]
) -> None:
    fakes = [
        Fake(name, scripts.get(name, ()), "x" if name == "XET" else "")
        for name in ("XET", "HF_TRANSFER", "HTTP")
    ]
    bench = Bench(sink, *fakes, width=1)
    await bench.bring_all(*paths.split())
    for path in later.split():
        await bench.bring(path)
    started = bench.told(FileStarted)
    assert [f"{one.attempt}/{one.attempts} {one.protocol} {one.path}" for one in started] == told


# -- left for the rest of the run ------------------------------------------------------------------


async def test_a_protocol_that_is_of_no_use_is_left_for_the_run(sink: Sink) -> None:
    xet = Fake("XET", [GONE])
    bench = Bench(sink, xet, Fake("HTTP", [CUT]), xet, Fake("HF_TRANSFER"))
    assert await bench.bring("a")
    assert await bench.bring("b")
    assert xet.paths == ["a"]
    assert bench.who == ["XET", "HTTP", "HF_TRANSFER", "HTTP"]
    assert bench.told(ProtocolLeft) == [ProtocolLeft("XET", "the store cannot be reached")]
    # Of the one that is left, nobody is told that it takes a file over.
    assert bench.switches == [("HTTP", "HF_TRANSFER")]


FOUR = ("a.bin", "b.bin", "c.bin", "d.bin")


@pytest.mark.parametrize(
    ("steps", "tries"),
    [
        ([CUT, CUT, CUT], 3),
        ([CUT, CUT, ALL, CUT], 4),
        ([CUT, DAMAGED, DAMAGED, CUT, CUT], 5),  # wrong bytes are a file's own affair
    ],
)
async def test_a_protocol_that_fails_file_after_file_is_left(
    sink: Sink, steps: Sequence[Step], tries: int
) -> None:
    xet = Fake("XET", steps)
    bench = Bench(sink, xet, Fake("HTTP"), width=1)
    for path in FOUR:
        assert await bench.bring(path)
    assert bench.who.count("XET") == tries
    left = bench.told(ProtocolLeft)
    assert [event.protocol for event in left] == ["XET"] * (tries != 4)
    assert all(str(CUT) in event.reason for event in left)


async def test_the_last_protocol_is_never_given_up(sink: Sink) -> None:
    bench = Bench(sink, Fake("HTTP", [CUT] * 4), width=1)
    await bench.bring_all(*FOUR, "e.bin")
    assert bench.done == ["e.bin"]


async def test_files_under_way_together_tell_of_it_once(sink: Sink) -> None:
    meeting = asyncio.Barrier(3)

    @contextlib.asynccontextmanager
    async def all_there(file: RemoteFile) -> AsyncIterator[None]:
        await meeting.wait()
        yield

    xet = Fake("XET", [GONE, GONE, GONE], before=all_there)
    bench = Bench(sink, xet, Fake("HTTP"), width=3)
    await bench.bring_all("a", "b", "c", "d")
    assert len(bench.told(ProtocolLeft)) == 1
    assert sorted(xet.paths) == ["a", "b", "c"]
    assert sorted(bench.done) == ["a", "b", "c", "d"]


async def test_when_all_are_left_every_file_says_why(sink: Sink) -> None:
    absent = ProtocolUnavailableError("not installed")
    xet, hf_transfer = Fake("XET", [GONE]), Fake("HF_TRANSFER", [absent])
    bench = Bench(sink, xet, hf_transfer, xet, width=1)
    await bench.bring_all("a", "b")
    assert [error.path for error in bench.failed] == ["a", "b"]
    for error in bench.failed:
        assert error.exit_code == 69
        assert error.attempts == [("XET", GONE), ("HF_TRANSFER", absent)]
        assert error.hint == "see to it"
    assert (xet.paths, hf_transfer.paths) == (["a"], ["a"])
    assert [event.protocol for event in bench.told(ProtocolLeft)] == ["XET", "HF_TRANSFER"]


# -- several files ---------------------------------------------------------------------------------


class SlowToCommit(Sink):
    """A sink on a disk that takes its time with one file, until so many others are committed."""

    def __init__(self, layout: LocalDir, slow: str, others: int) -> None:
        super().__init__(layout)
        self.prepare()
        self.begin()
        self._slow, self._others = slow, others
        self._committed = threading.Semaphore(0)

    def commit(self, partial: Partial) -> ContentProof:
        if partial.file.path == self._slow:
            for _ in range(self._others):
                assert self._committed.acquire(timeout=DEADLINE_S)
        proof = super().commit(partial)
        self._committed.release()
        return proof


@pytest.mark.parametrize("width", [1, 3])
async def test_a_file_that_is_being_committed_does_not_hold_up_the_next(
    tmp_path: Path, width: int
) -> None:
    sink = SlowToCommit(LocalDir(tmp_path / "target"), "a", others=3)
    bench = Bench(sink, Fake("XET"), width=width)
    await bench.bring_all("a", "b", "c", "d")
    assert sorted(bench.done) == ["a", "b", "c", "d"]
    assert bench.done[-1] == "a"


@pytest.mark.parametrize("width", [1, 2, 5])
async def test_no_more_files_receive_at_once_than_may(sink: Sink, width: int) -> None:
    receiving = most = 0

    @contextlib.asynccontextmanager
    async def counted(file: RemoteFile) -> AsyncIterator[None]:
        nonlocal receiving, most
        receiving += 1
        most = max(most, receiving)
        await asyncio.sleep(0.02)
        yield
        receiving -= 1

    bench = Bench(sink, Fake("XET", before=counted), width=width)
    await bench.bring_all(*map(str, range(3 * width)))
    assert len(bench.done) == 3 * width
    assert most == width


async def test_a_file_that_cannot_be_had_does_not_stop_the_others(sink: Sink) -> None:
    bench = Bench(sink, Fake("XET", [CUT]), width=1)
    await bench.bring_all("a", "b", "c")
    assert [error.path for error in bench.failed] == ["a"]
    assert sorted(bench.done) == ["b", "c"]


async def test_an_error_that_ends_the_run_leaves_no_partial_open(sink: Sink) -> None:
    waiting = asyncio.Event()

    @contextlib.asynccontextmanager
    async def b_waits(file: RemoteFile) -> AsyncIterator[None]:
        if file.path == "b":
            await asyncio.sleep(0)
            waiting.set()
            await asyncio.Event().wait()
        await waiting.wait()
        yield

    bench = Bench(sink, Fake("XET", [InsufficientSpaceError("full")], before=b_waits), width=2)
    with pytest.raises(InsufficientSpaceError):
        await bench.bring_all("a", "b")
    assert not bench.chain.active
    assert bench.kept == [0, 0]
