"""Who works in a folder: real second processes hold the lease, die, and stand still."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from aim_downloader.errors import LeaseLostError, StorageError
from aim_downloader.lease import BEAT, STALE, Holder, Lease, OnWait, is_dead

SOON = 3.0
"""Seconds in which a lease that is free is taken, on a busy machine."""

HOLDING = """
import asyncio, sys
from pathlib import Path
from aim_downloader.errors import DownloadError
from aim_downloader.lease import Lease

async def main():
    lease = Lease(Path(sys.argv[1]), lambda: (3, 7))
    async with lease.held(lambda holder, silent: None):
        print("held", flush=True)
        while (word := await asyncio.to_thread(sys.stdin.readline)).strip() == "guard":
            try:
                lease.guard()
                print("allowed", flush=True)
            except DownloadError as error:
                print(type(error).__name__, flush=True)

asyncio.run(main())
"""


class OtherRun:
    """A process that holds a lease until it is told to end."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", HOLDING, str(path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        assert self._answer() == "held"

    def guard(self) -> str:
        """What the other run's guard says to a write."""
        self._tell("guard")
        return self._answer()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            # A zombie still counts as there.
            self._process.wait()

    def end(self) -> int:
        self._tell("end")
        return self._process.wait()

    def clear_away(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _pipe(pipe).close()

    def _tell(self, word: str) -> None:
        pipe = _pipe(self._process.stdin)
        pipe.write(f"{word}\n")
        pipe.flush()

    def _answer(self) -> str:
        return _pipe(self._process.stdout).readline().strip()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextlib.contextmanager
def other_run(path: Path) -> Iterator[OtherRun]:
    run = OtherRun(path)
    try:
        yield run
    finally:
        run.clear_away()


def put(path: Path, content: bytes | Holder) -> None:
    """Leave a lease file."""
    if isinstance(content, Holder):
        content = json.dumps(dataclasses.asdict(content)).encode()
    path.write_bytes(content)


def in_file(path: Path) -> Holder:
    holder = Holder.parse(path.read_bytes())
    assert holder is not None
    return holder


def names_beside(path: Path) -> list[str]:
    return [each.name for each in path.parent.iterdir()]


def lease_at(path: Path) -> Lease:
    return Lease(path, lambda: (0, 0))


@contextlib.asynccontextmanager
async def taken(
    path: Path,
    within: float = SOON,
    not_before: float = 0.0,
    on_wait: OnWait = lambda holder, silent: None,
) -> AsyncIterator[Lease]:
    """Hold a lease that must be had neither later nor earlier than so many seconds from now."""
    lease, begun = lease_at(path), time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(within):
            await stack.enter_async_context(lease.held(on_wait))
        assert time.monotonic() - begun >= not_before
        yield lease


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease"


# -- alone -----------------------------------------------------------------------------------------


async def test_a_free_folder_is_had_at_once(path: Path) -> None:
    async with taken(path, within=0.4) as lease:
        lease.guard()
        assert in_file(path).pid == os.getpid()
    assert names_beside(path) == []


async def test_the_lease_is_let_go_after_an_error(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with taken(path):
            raise ZeroDivisionError
    assert names_beside(path) == []


async def test_the_lease_is_let_go_when_cancelled(path: Path) -> None:
    holds = asyncio.Event()

    async def hold() -> None:
        async with taken(path):
            holds.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await holds.wait()
    task.cancel()
    await asyncio.wait([task])
    assert names_beside(path) == []


async def test_a_beat_under_way_leaves_nothing_behind(path: Path) -> None:
    beating, going_on = threading.Event(), threading.Event()

    def progress() -> tuple[int, int]:
        if threading.current_thread() is not threading.main_thread():
            beating.set()
            going_on.wait(10)
        return 0, 0

    async with Lease(path, progress).held(lambda holder, silent: None):
        assert await asyncio.to_thread(beating.wait, 10)
        threading.Timer(0.1, going_on.set).start()
    assert left_beside(path) == []


async def test_who_holds_nothing_may_not_write(path: Path) -> None:
    with pytest.raises(LeaseLostError):
        lease_at(path).guard()


@pytest.fixture(params=["folder", "link", "link to a lease", "link to nowhere"])
def in_its_place(request: pytest.FixtureRequest, path: Path) -> Path:
    """Something that is no lease file; what a link leads to must stay as it is."""
    outside = path.parent / "outside"
    match request.param:
        case "folder":
            path.mkdir()
        case "link":
            put(outside, b"mine")
        case "link to a lease":
            put(outside, dead_holder())
    if request.param != "folder":
        path.symlink_to(outside)
    return outside


async def test_what_stands_in_its_place_is_refused(path: Path, in_its_place: Path) -> None:
    before = content_of(in_its_place)
    with pytest.raises(StorageError) as caught:
        async with taken(path):
            pass
    assert caught.value.hint
    assert content_of(in_its_place) == before


def content_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


async def test_a_folder_that_an_ended_run_removed_is_made_anew(path: Path) -> None:
    async with taken(path.parent / "hidden" / "lease") as lease:
        lease.guard()
    assert names_beside(path) == ["hidden"]


# -- beside a process that dies --------------------------------------------------------------------


async def test_a_killed_holder_is_followed_at_once(path: Path) -> None:
    with other_run(path) as other:
        other.signal(signal.SIGKILL)
        assert names_beside(path) == ["lease"]
        async with taken(path) as lease:
            lease.guard()
    assert names_beside(path) == []


async def test_a_holder_that_ends_is_followed_at_once(path: Path) -> None:
    with other_run(path) as other:
        told: list[Holder | None] = []
        waiting = asyncio.create_task(hold_for_a_moment(path, into(told)))
        await asyncio.sleep(0.6)
        assert not waiting.done()
        assert {holder.pid for holder in told if holder} == {other.pid}
        assert {holder.bytes_done for holder in told if holder} == {3}
        assert other.end() == 0
        async with asyncio.timeout(SOON):
            await waiting


def into(told: list[Holder | None]) -> OnWait:
    return lambda holder, _silent: told.append(holder)


async def hold_for_a_moment(path: Path, on_wait: OnWait = lambda holder, silent: None) -> None:
    async with lease_at(path).held(on_wait):
        await asyncio.sleep(0.01)


async def test_of_two_who_wait_both_get_their_turn(path: Path) -> None:
    with other_run(path) as other:
        inside: list[int] = []

        async def work(number: int) -> None:
            async with lease_at(path).held(lambda holder, silent: None):
                inside.append(number)
                assert inside == [number]
                await asyncio.sleep(0.3)
                inside.remove(number)

        waiting = [asyncio.create_task(work(number)) for number in (1, 2)]
        await asyncio.sleep(0.6)
        other.signal(signal.SIGKILL)
        async with asyncio.timeout(2 * SOON):
            await asyncio.gather(*waiting)
    assert names_beside(path) == []


def test_takers_in_the_same_moment_do_not_break_one_another(tmp_path: Path) -> None:
    """Each in a thread with a loop of its own: their writes meet as those of processes do."""
    failed: list[BaseException] = []
    for number in range(2):
        path = tmp_path / str(number)
        put(path, dead_holder())
        together = threading.Barrier(4)

        def take(path: Path = path, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                asyncio.run(hold_for_a_moment(path))
            except BaseException as error:  # noqa: BLE001  # told below
                failed.append(error)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert list(tmp_path.iterdir()) == []


# -- what takes patience ---------------------------------------------------------------------------
#
# The scenarios share one wait: all of them run side by side, each in a folder of its own.


async def the_beat_moves_and_tells_how_far_the_run_is(path: Path) -> None:
    done = [10, 100]
    async with Lease(path, lambda: (done[0], done[1])).held(lambda holder, silent: None):
        before = in_file(path)
        done[0] = 60
        await asyncio.sleep(BEAT + 0.5)
        after = in_file(path)
    assert (before.bytes_done, before.bytes_total) == (10, 100)
    assert (after.bytes_done, after.bytes_total) == (60, 100)
    assert after.beat > before.beat
    assert after.nonce == before.nonce


async def who_finds_another_in_its_place_stops(path: Path) -> None:
    other = dataclasses.replace(Holder.this_process(), nonce="another")
    async with taken(path) as lease:
        put(path, other)
        await asyncio.sleep(BEAT + 0.5)
        with pytest.raises(LeaseLostError):
            lease.guard()
    assert in_file(path) == other


async def who_finds_the_folder_swept_stops(path: Path) -> None:
    async with taken(path) as lease:
        await asyncio.to_thread(path.unlink)
        await asyncio.sleep(BEAT + 0.5)
        with pytest.raises(LeaseLostError):
            lease.guard()
    assert names_beside(path) == []


async def who_lost_it_may_hold_it_again(path: Path) -> None:
    lease = lease_at(path)
    async with lease.held(lambda holder, silent: None):
        await asyncio.to_thread(path.unlink)
        await asyncio.sleep(BEAT + 0.5)
        with pytest.raises(LeaseLostError):
            lease.guard()
    async with lease.held(lambda holder, silent: None):
        lease.guard()
        await asyncio.sleep(BEAT + 0.5)
        lease.guard()


async def a_beat_that_is_slow_leaves_no_lease_behind(path: Path) -> None:
    """The run ends while a beat is on its way to a slow disk."""
    on_its_way, arrived = threading.Event(), threading.Event()
    beats = 0

    def progress() -> tuple[int, int]:
        nonlocal beats
        beats += 1
        if beats == 2:
            on_its_way.set()
            arrived.wait(5)
        return 0, 0

    async with Lease(path, progress).held(lambda holder, silent: None):
        await asyncio.to_thread(on_its_way.wait, 5)
        threading.Timer(0.5, arrived.set).start()
    await asyncio.to_thread(arrived.wait)
    await asyncio.sleep(0.5)
    assert names_beside(path) == []


async def who_has_let_go_may_not_write_any_more(path: Path) -> None:
    """The next run may hold the folder by now."""
    lease = lease_at(path)
    async with lease.held(lambda holder, silent: None):
        lease.guard()
    with pytest.raises(LeaseLostError):
        lease.guard()


async def garbage_is_taken_over_when_it_has_stood_still(path: Path) -> None:
    put(path, b"\0\xffgarbage")
    told: list[Holder | None] = []
    async with taken(path, STALE + SOON, STALE, into(told)) as lease:
        lease.guard()
    assert told
    assert set(told) == {None}


async def an_empty_file_is_taken_over_when_it_has_stood_still(path: Path) -> None:
    """What is left when a process is killed, or the disk is full, as it makes the file."""
    put(path, b"")
    async with taken(path, STALE + SOON) as lease:
        lease.guard()


async def a_holder_on_another_host_is_taken_over_when_it_has_stood_still(path: Path) -> None:
    """Its pid means nothing here, even when a process of ours has the same one."""
    other = dataclasses.replace(dead_holder(), host="elsewhere")
    put(path, other)
    told: list[tuple[Holder | None, float]] = []
    async with taken(path, STALE + SOON, STALE, lambda *now: told.append(now)):
        pass
    assert {holder for holder, _ in told} == {other}
    silences = [silent for _, silent in told]
    assert silences == sorted(silences), "it is told how long nothing was heard of the holder"
    assert silences[-1] > STALE - 2 * BEAT - SOON


async def a_holder_that_lives_is_waited_for(path: Path) -> None:
    with other_run(path) as other:
        told: list[Holder | None] = []
        waiting = asyncio.create_task(hold_for_a_moment(path, into(told)))
        await asyncio.sleep(STALE + 2)
        assert not waiting.done()
        assert other.guard() == "allowed"
        assert len({holder.beat for holder in told if holder}) > 3
        other.signal(signal.SIGKILL)
        async with asyncio.timeout(SOON):
            await waiting


async def a_holder_that_was_stopped_is_taken_over_and_stops_writing(path: Path) -> None:
    with other_run(path) as other:
        other.signal(signal.SIGSTOP)
        # The last beat is up to a glance younger than this moment.
        async with taken(path, STALE + SOON, STALE - 1) as lease:
            ours = in_file(path)
            other.signal(signal.SIGCONT)
            assert other.guard() == "LeaseLostError"
            await asyncio.sleep(2.5)
            assert other.guard() == "LeaseLostError"
            lease.guard()
            assert in_file(path).nonce == ours.nonce
            assert other.end() == 0
            assert in_file(path).nonce == ours.nonce


Scenario = Callable[[Path], Awaitable[None]]
SCENARIOS: list[Scenario] = [
    the_beat_moves_and_tells_how_far_the_run_is,
    who_finds_another_in_its_place_stops,
    who_finds_the_folder_swept_stops,
    who_lost_it_may_hold_it_again,
    a_beat_that_is_slow_leaves_no_lease_behind,
    garbage_is_taken_over_when_it_has_stood_still,
    an_empty_file_is_taken_over_when_it_has_stood_still,
    a_holder_on_another_host_is_taken_over_when_it_has_stood_still,
    a_holder_that_lives_is_waited_for,
    who_has_let_go_may_not_write_any_more,
    a_holder_that_was_stopped_is_taken_over_and_stops_writing,
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Scenario, BaseException | None]:
    async def all_of_them() -> list[BaseException | None]:
        paths = (tmp_path_factory.mktemp("patience") / "lease" for _ in SCENARIOS)
        work = (scenario(path) for scenario, path in zip(SCENARIOS, paths, strict=True))
        return await asyncio.gather(*work, return_exceptions=True)

    return dict(zip(SCENARIOS, asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_patience(scenario: Scenario, outcomes: dict[Scenario, BaseException | None]) -> None:
    if outcome := outcomes[scenario]:
        raise outcome


# -- who is dead -----------------------------------------------------------------------------------

US = Holder("node", 10, "machine", "boot", "pid:[1]", "100", "us")


def dead_holder() -> Holder:
    """A holder on this machine, whose process is not there."""
    return dataclasses.replace(Holder.this_process(), process_start="1", nonce="dead")


@pytest.mark.parametrize(
    ("changed", "dead"),
    [
        ({"boot": "an earlier boot"}, True),
        ({"boot": "an earlier boot", "machine": "a namesake"}, False),
        ({"boot": "an earlier boot", "machine": None}, False),
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "boot": "another boot"}, False),
        ({"boot": None}, False),
        ({"pid_namespace": "pid:[2]"}, False),
        ({"pid_namespace": None}, False),
        ({"pid": 2**22 + 1}, True),
        ({}, True),  # the pid is in use again, by a process that was started later
    ],
    ids=str,
)
def test_who_is_known_to_be_dead(changed: dict[str, str | int | None], dead: bool) -> None:
    holder = Holder(**{**dataclasses.asdict(US), "process_start": "never", **changed})
    assert is_dead(holder, US) is dead


def test_this_process_is_alive() -> None:
    assert not is_dead(Holder.this_process(), Holder.this_process())


async def test_a_holder_says_who_it_is(path: Path) -> None:
    async with taken(path):
        holder = in_file(path)
        assert str(holder) == f"process {os.getpid()} on {holder.host}"


def left_beside(path: Path) -> list[Path]:
    return list(path.parent.iterdir())


def as_json(**changed: object) -> bytes:
    return json.dumps(dataclasses.asdict(US) | changed).encode()


def test_a_lease_is_read_as_it_was_written() -> None:
    assert Holder.parse(as_json()) == US


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"7", b"\xff", b"[" * 100_000, as_json()[:-1]],
    ids=lambda content: repr(content[-8:]),
)
def test_what_is_no_lease_is_none(content: bytes) -> None:
    assert Holder.parse(content) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"more": 1},
        {"host": 7},
        {"pid": "self"},
        {"pid": None},
        {"boot": 7},
        {"nonce": None},
        {"beat": "x"},
        {"bytes_done": "x"},
        {"bytes_total": None},
    ],
    ids=str,
)
def test_a_lease_with_another_value_is_none(changed: dict[str, object]) -> None:
    assert Holder.parse(as_json(**changed)) is None
