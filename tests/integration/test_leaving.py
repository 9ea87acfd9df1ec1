"""Whoever leaves, in whatever way, leaves nobody at work behind and nothing half done."""

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import random
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aim_downloader import adownload, clean, download, plan
from aim_downloader.config import Config
from aim_downloader.errors import LeaseLostError
from aim_downloader.events import Event, FileStarted, LeaseWaiting
from aim_downloader.fetching import Fetching
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from aim_downloader.lease import STALE, Holder
from aim_downloader.partial import Partial
from aim_downloader.progress import Progress
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import Digest, RemoteFile
from aim_downloader.storage import write_whole
from tests.fair_time import fair_time
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    LATE,
    MIB,
    SUMS,
    TOKEN,
    URI,
    Command,
    Downloader,
    Files,
    assert_right,
    assert_snapshot,
    content_requests,
    digest,
    most_at_once,
    names_below,
    wait_until,
)

LARGE, OTHER, GIT = "model.safetensors", "other.safetensors", "config.json"
SMALL = ("tokenizer.bin", GIT, "empty.txt")
BLOCKS_OF_OTHER = 4
# A guard is asked once for a partial to be opened, and then for each of its blocks.
TO_OPEN = 1
WAIT_S = 60.0


# --- what is left ---------------------------------------------------------------------------------


def open_below(target: Path) -> set[str]:
    """The files below a folder that this process has open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            path = str(link.readlink())
            if path.startswith(f"{target}/"):
                found.add(path)
    return found


def state_of(target: Path) -> dict[str, tuple[int, int, int]]:
    """All that a writer would change."""
    found = {}
    for path in target.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


async def assert_nobody_is_left(target: Path) -> None:
    assert open_below(target) == set()
    before = state_of(target)
    await asyncio.sleep(0.1)
    assert state_of(target) == before


def partials_of(target: Path) -> list[Path]:
    return list(target.rglob("*.partial"))


def is_folder(path: Path) -> bool:
    return path.is_dir()


def assert_only_right_names(target: Path, files: Files) -> None:
    """Nothing has a final name that is not what it should be."""
    for name in names_below(target):
        if not name.startswith(f"{HIDDEN}/"):
            assert_right(target / name, files[name])


linux_only = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


# --- a run that a test can hold up ----------------------------------------------------------------


class Gate:
    """A guard that lets some writers through, and holds up the next until it is opened."""

    def __init__(self, skip: int) -> None:
        self._left = skip
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._reached = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left >= 0:
                return
        self._reached.set()
        assert self._open.wait(WAIT_S)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, WAIT_S)

    def open(self) -> None:
        self._open.set()


class SlowToOpen(Sink):
    """A folder on a disk that takes its time to open a partial."""

    def __init__(self, root: Path, gate: Gate) -> None:
        super().__init__(LocalDir(root))
        self._gate = gate

    def open_partial(self, file: RemoteFile, commit: str) -> Partial:
        self._gate()
        return super().open_partial(file, commit)


Hold = Callable[[Sink, str], contextlib.AbstractAsyncContextManager[asyncio.Task[None]]]


@pytest.fixture
def hold(hub: HubServer, downloader: Downloader) -> Hold:
    """Begins to fetch what a glob matches, into a sink of the test."""

    @contextlib.asynccontextmanager
    async def begin(sink: Sink, include: str) -> AsyncIterator[asyncio.Task[None]]:
        todo = await plan(URI, sink.root, config=downloader.config(include=(include,)))
        network = Network(hub.endpoint, TOKEN, 5.0)
        config = Config(connections=4, protocols=("HTTP",))
        sink.prepare()
        sink.begin()

        async def run() -> None:
            async with AsyncClient(network, 4) as client:
                fetching = Fetching(todo, network, config, sink, Progress(), lambda _: None)
                await fetching.run(client)

        task = asyncio.create_task(run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return begin


async def next_run(downloader: Downloader, target: Path, files: Files) -> None:
    await downloader(target)
    assert_snapshot(target, files)


# --- cancelled in the middle of a commit ----------------------------------------------------------


@linux_only
@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_cancelled_while_small_files_get_their_names(
    downloader: Downloader, target: Path, files: Files, hold: Hold, cancels: int
) -> None:
    gate = Gate(skip=0)
    async with hold(Sink(LocalDir(target), gate), "[!mo]*") as task:
        await gate.until_reached()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done(), "somebody still writes"
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
    # What was under way is finished, and not torn.
    assert set(SMALL) & names_below(target)
    assert_only_right_names(target, files)
    await assert_nobody_is_left(target)
    await next_run(downloader, target, files)


@linux_only
@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_cancelled_while_a_large_file_gets_its_name(
    downloader: Downloader, target: Path, files: Files, hold: Hold, cancels: int
) -> None:
    gate = Gate(skip=TO_OPEN + BLOCKS_OF_OTHER)
    async with hold(Sink(LocalDir(target), gate), OTHER) as task:
        await gate.until_reached()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done(), "somebody still writes"
        assert not (target / OTHER).exists()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert_right(target / OTHER, files[OTHER])
    await assert_nobody_is_left(target)
    await next_run(downloader, target, files)


@linux_only
@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_cancelled_while_a_partial_is_opened(
    downloader: Downloader, target: Path, files: Files, hold: Hold, cancels: int
) -> None:
    gate = Gate(skip=0)
    async with hold(SlowToOpen(target, gate), OTHER) as task:
        await gate.until_reached()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done(), "somebody still opens it"
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
    await assert_nobody_is_left(target)
    # There is nothing in it to go on with.
    assert partials_of(target) == []
    await next_run(downloader, target, files)


@linux_only
@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_writer_that_hangs_in_the_disk_is_left_behind_with_its_partial_alone(
    downloader: Downloader, target: Path, files: Files, hold: Hold, cancels: int
) -> None:
    """The documented exception: nobody can wait for a disk that does not answer."""
    gate = Gate(skip=TO_OPEN + 2)
    async with hold(Sink(LocalDir(target), gate), OTHER) as task:
        await gate.until_reached()
        begun = fair_time()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fair_time() - begun < 2
    left = {Path(path).suffix for path in open_below(target)}
    assert left == {".partial", ".journal"}
    assert not (target / OTHER).exists()
    gate.open()
    # The last one to leave closes it.
    await until(lambda: not open_below(target))
    await next_run(downloader, target, files)


@linux_only
async def test_who_waits_for_an_answer_leaves_at_once(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    scripted = hub.fault(faults.LateFirstByte(60.0), path=LARGE, times=None)
    task = asyncio.create_task(downloader(target, include=(LARGE,), stall_timeout=60.0))
    await until(lambda: scripted.fired)
    begun = fair_time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fair_time() - begun < 0.9, "somebody was waited for"
    await assert_nobody_is_left(target)
    await until(lambda: not [one for one in threading.enumerate() if one.name == "aim-http"])


@linux_only
async def test_cancelled_at_many_moments(
    downloader: Downloader, target: Path, files: Files, hub: HubServer
) -> None:
    hub.pace(150e6)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for number in range(15):
        task = asyncio.create_task(downloader(target))
        # Most moments early in the run, when partials are opened.
        await asyncio.sleep(moments.uniform(0, 0.05 if number % 2 else 0.3))
        for _ in range(moments.randint(1, 3)):
            task.cancel()
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        left = {path for path in open_below(target) if not path.endswith((".partial", ".journal"))}
        assert left == set()
        assert_only_right_names(target, files)
        # A beat that was being written removes the file itself.
        await until(lambda: not (target / HIDDEN / "lease").exists())
    hub.pace(None)
    await next_run(downloader, target, files)


@linux_only
async def test_once_cancelled_in_the_middle_nothing_is_open(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(30e6)
    for _ in range(2):
        sent = hub.bytes_sent()
        task = asyncio.create_task(downloader(target))
        await asyncio.to_thread(hub.wait_for_bytes, sent + 5 * MIB)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_nobody_is_left(target)
        assert partials_of(target)
    hub.pace(None)
    await next_run(downloader, target, files)


async def test_cancelled_in_the_moment_in_which_the_lease_is_taken(
    downloader: Downloader, target: Path, files: Files
) -> None:
    """The next run would wait for a holder that is alive, and holds nothing."""
    lease = target / HIDDEN / "lease"
    task = asyncio.create_task(downloader(target))
    async with asyncio.timeout(WAIT_S):
        while not lease.exists():  # noqa: ASYNC110  # each turn of the loop counts
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not lease.exists())
    begun = fair_time()
    await next_run(downloader, target, files)
    assert fair_time() - begun < 5


# --- another run has taken over -------------------------------------------------------------------


class Elsewhere:
    """A run on a machine that nothing is known of: a lease file that a test writes."""

    def __init__(self, target: Path) -> None:
        self._path = target / HIDDEN / "lease"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._holder = dataclasses.replace(
            Holder.this_process(), host="pod-elsewhere", boot="another", machine="another", pid=7
        )

    def beat(self) -> None:
        self._holder = dataclasses.replace(self._holder, beat=self._holder.beat + 1)
        content = json.dumps(dataclasses.asdict(self._holder)).encode()
        write_whole(self._path, content, sync=False)

    def let_go(self) -> None:
        self._path.unlink()

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Its heart beats during the block."""
        ended = threading.Event()

        def keep_beating() -> None:
            while not ended.wait(0.1):
                self.beat()

        self.beat()
        heart = threading.Thread(target=keep_beating)
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()


async def until(happened: Callable[[], object], seconds: float = WAIT_S) -> None:
    await asyncio.to_thread(wait_until, happened, seconds)


@pytest.mark.parametrize("clean_up", [True, False], ids=["--clean", "plain"])
async def test_who_has_lost_the_lease_leaves_alone_what_the_new_holder_has(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, clean_up: bool
) -> None:
    hub.pace(4e6)
    task = asyncio.create_task(downloader(target, clean=clean_up, connections=2))
    await asyncio.to_thread(hub.wait_for_bytes, 3 * MIB)
    partials = target / HIDDEN / "partial"
    other = Elsewhere(target)
    with other.alive():
        theirs = {partials / "theirs.partial", target / HIDDEN / "small" / "theirs"}
        for path in theirs:
            path.write_bytes(b"of the new holder")
        # The large files have the same names with both.
        theirs |= set(partials.iterdir())
        assert len(theirs) > 3
        await until(lambda: downloader.told(LeaseWaiting))
        assert {path for path in theirs if path.exists()} == theirs
    other.let_go()
    hub.pace(None)
    await task
    assert_snapshot(target, files)


async def test_who_is_cancelled_while_waiting_leaves_the_holder_alone(
    downloader: Downloader, target: Path
) -> None:
    other = Elsewhere(target)
    with other.alive():
        task = asyncio.create_task(downloader(target, clean=True))
        await until(lambda: downloader.told(LeaseWaiting))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert names_below(target) == {f"{HIDDEN}/lease"}


class Guard:
    """What a lease says to its writers."""

    lost = False

    def __call__(self) -> None:
        if self.lost:
            raise LeaseLostError("another run took over")


def file_of(content: bytes) -> RemoteFile:
    return RemoteFile("model.bin", len(content), Digest("sha256", digest(content)))


def both_have_it_open(target: Path, file: RemoteFile) -> tuple[Partial, Partial]:
    """A run's partial, whose lease is lost, and that of the run which has taken over."""
    guard = Guard()
    first, second = Sink(LocalDir(target), guard), Sink(LocalDir(target))
    first.prepare()
    first.begin()
    ours = first.open_partial(file, "c" * 40)
    guard.lost = True
    second.begin()
    theirs = second.open_partial(file, "c" * 40)
    return ours, theirs


def test_an_empty_partial_is_not_taken_away_from_the_new_holder(target: Path) -> None:
    content = os.urandom(2 * MIB)
    ours, theirs = both_have_it_open(target, file_of(content))
    theirs.write_at(0, content[:MIB])
    with pytest.raises(LeaseLostError):
        ours.write_at(0, content[:MIB])
    ours.close()
    theirs.write_at(MIB, content[MIB:])
    theirs.commit(target / "model.bin")
    assert (target / "model.bin").read_bytes() == content


def test_the_new_holders_bytes_are_not_thrown_away(target: Path) -> None:
    content = os.urandom(2 * MIB)
    ours, theirs = both_have_it_open(target, file_of(content))
    theirs.write_at(0, content[:MIB])
    theirs.write_at(MIB, content[MIB:])
    with contextlib.suppress(LeaseLostError):
        ours.reset()
    theirs.commit(target / "model.bin")
    ours.close()
    assert (target / "model.bin").read_bytes() == content


async def test_the_new_holders_folders_stay_when_they_are_empty(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    """It has made them, and is about to put something in."""
    hub.pace(4e6)
    task = asyncio.create_task(downloader(target, include=[LARGE]))
    await asyncio.to_thread(hub.wait_for_bytes, MIB)
    drafts = target / HIDDEN / "small"
    other = Elsewhere(target)
    with other.alive():
        await until(lambda: downloader.told(LeaseWaiting))
        assert names_below(target) >= {f"{HIDDEN}/lease"}
        assert is_folder(drafts)
    other.let_go()
    hub.pace(None)
    await task
    assert_snapshot(target, {LARGE: files[LARGE]})


# --- what dead runs left beside a right receipt ---------------------------------------------------


def a_lease(target: Path) -> None:
    Elsewhere(target).beat()


def a_partial(target: Path) -> None:
    (target / HIDDEN / "partial").mkdir()
    (target / HIDDEN / "partial" / "of-nobody.partial").write_bytes(b"unfinished")


def a_log(target: Path) -> None:
    (target / HIDDEN / "committed").write_bytes(b"")


def no_sums(target: Path) -> None:
    (target / SUMS).unlink()


@pytest.mark.parametrize("left", [a_lease, a_partial, a_log, no_sums], ids=lambda it: it.__name__)
@pytest.mark.parametrize("by", ["branch", "commit"])
async def test_the_next_run_tidies_up_although_it_has_nothing_to_fetch(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    files: Files,
    by: str,
    left: Callable[[Path], None],
) -> None:
    uri = f"{URI}@{hub.repo('org/model').head}" if by == "commit" else URI
    await downloader(target, uri)
    left(target)
    hub.clear_log()
    await downloader(target, uri)
    assert_snapshot(target, files)
    assert not content_requests(hub.log)


# --- clean ----------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(target: Path) -> Path:
    partial = target / HIDDEN / "partial" / "of-a-dead-run.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(100_000))
    return partial


def test_clean_leaves_a_folder_alone_in_which_another_machine_works(
    target: Path, unfinished: Path
) -> None:
    with Elsewhere(target).alive():
        begun = fair_time()
        report = clean(target)
        assert fair_time() - begun < 6
    assert report.busy
    assert "pod-elsewhere" in report.busy
    assert report.removed == ()
    assert unfinished.exists()
    assert (target / HIDDEN / "lease").exists()


def test_clean_waits_out_the_lease_of_a_pod_that_died(
    command: Command, target: Path, unfinished: Path
) -> None:
    Elsewhere(target).beat()
    done = command.run("clean", target)
    assert done.code == 0, done.said
    assert done.seconds > STALE - 1
    assert done.fair_seconds < STALE + 6
    assert "takes over" in done.stderr
    assert "removed 1 file" in done.stdout
    assert not (target / HIDDEN).exists()


def test_clean_takes_the_lease_of_a_process_that_died_here(target: Path, unfinished: Path) -> None:
    here = dataclasses.replace(Holder.this_process(), process_start="1")
    (target / HIDDEN / "lease").write_text(json.dumps(dataclasses.asdict(here)))
    begun = fair_time()
    assert clean(target).removed == (unfinished,)
    assert fair_time() - begun < 3


# --- who listens and fails ------------------------------------------------------------------------


class OwnError(Exception):
    """The listener's own mistake."""


Prepare = Callable[[HubServer, Path], None]


def nothing(hub: HubServer, target: Path) -> None:
    """Nothing goes wrong."""


def large_file_breaks_off(hub: HubServer, target: Path) -> None:
    hub.fault(faults.Reset(), path=LARGE, at=5 * MIB)


def small_file_fails_once(hub: HubServer, target: Path) -> None:
    hub.fault(faults.Status(500), path=GIT, where="hub")


def listing_fails_once(hub: HubServer, target: Path) -> None:
    hub.fault(faults.Status(500), where="api", path="/tree/")


def large_file_is_damaged(hub: HubServer, target: Path) -> None:
    hub.fault(faults.DamagedByte(7), path=OTHER)


def small_file_is_damaged(hub: HubServer, target: Path) -> None:
    hub.fault(faults.DamagedByte(7), path="tokenizer.bin")


def one_is_there(hub: HubServer, target: Path) -> None:
    Downloader(hub).run(target, include=(GIT,))


def another_run_works(hub: HubServer, target: Path) -> None:
    Elsewhere(target).beat()


def slow(hub: HubServer, target: Path) -> None:
    hub.pace(20e6)


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("snapshot.resolved", nothing),
        ("plan.made", nothing),
        ("file.skipped", one_is_there),
        ("file.started", nothing),
        ("file.received", nothing),
        ("file.committed", nothing),
        ("run.progressed", slow),
        ("snapshot.published", nothing),
        ("lease.waiting", another_run_works),
        ("retry.scheduled", listing_fails_once),
        ("retry.scheduled", small_file_fails_once),
        ("retry.scheduled", large_file_breaks_off),
        ("file.rejected", large_file_is_damaged),
        ("file.rejected", small_file_is_damaged),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_listener_that_raises_is_heard(
    hub: HubServer, downloader: Downloader, target: Path, name: str, prepare: Prepare
) -> None:
    prepare(hub, target)

    def listen(event: Event) -> None:
        if event.name == name:
            raise OwnError(name)

    begun = fair_time()
    with pytest.raises(OwnError, match=name):
        download(URI, target, config=downloader.config(), on_event=listen)
    assert fair_time() - begun < 5
    if Path("/proc/self/fd").is_dir():
        # A thread that is inside the disk just now closes the file when it leaves.
        wait_until(lambda: not open_below(target))


@pytest.mark.parametrize(
    ("name", "prepare"),
    [("plan.made", nothing), ("retry.scheduled", large_file_breaks_off), ("run.progressed", slow)],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_listener_that_raised_does_not_leave_its_caller_cancelled(
    hub: HubServer, downloader: Downloader, target: Path, name: str, prepare: Prepare
) -> None:
    """A task that counts as cancelled would make later timeouts and task groups go astray."""
    prepare(hub, target)

    def listen(event: Event) -> None:
        if event.name == name:
            raise OwnError(name)

    with pytest.raises(OwnError, match=name):
        await adownload(URI, target, config=downloader.config(), on_event=listen)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


# --- from a program that has a loop already -------------------------------------------------------


async def test_in_a_running_loop_it_is_said_what_to_do(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"await adownload"):
        download(URI, target, config=downloader.config())
    gc.collect()  # a coroutine that is never awaited would complain now
    assert hub.log == []
    assert not is_folder(target)


# --- offline --------------------------------------------------------------------------------------


@pytest.fixture
def offline(command: Command) -> Command:
    command.environment["HF_HUB_OFFLINE"] = "1"
    return command


@pytest.mark.parametrize("words", [["plan", URI], ["size", URI], ["download", URI]], ids=str)
def test_offline_nothing_is_asked(
    hub: HubServer, offline: Command, target: Path, words: list[str]
) -> None:
    folder: list[str | Path] = [] if words[0] == "size" else [target]
    done = offline.run(*words, *folder)
    assert done.code == 66, done.said
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert hub.log == []
    assert not target.exists()


@pytest.mark.parametrize(
    ("words", "there"),
    [
        ([], True),
        (["--include", "*.json"], True),
        (["--include", GIT, "--include", LARGE], True),
        (["--exclude", "*.safetensors"], True),
        (["--include", "*.md"], False),
        (["--revision", "v2"], False),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["download", "plan"])
def test_offline_a_complete_folder_answers_for_its_parts(
    hub: HubServer,
    offline: Command,
    downloader: Downloader,
    target: Path,
    files: Files,
    words: list[str],
    there: bool,
    verb: str,
) -> None:
    downloader.run(target)
    hub.clear_log()
    done = offline.run(verb, URI, target, *words)
    assert done.code == (0 if there else 66), done.said
    assert hub.log == []
    # The receipt still speaks of all.
    assert_snapshot(target, files)


def test_offline_a_part_does_not_answer_for_the_whole(
    hub: HubServer, offline: Command, downloader: Downloader, target: Path
) -> None:
    downloader.run(target, include=("*.json",))
    hub.clear_log()
    assert offline.run(URI, target).code == 66
    assert offline.run(URI, target, "--include", OTHER).code == 66
    assert offline.run(URI, target, "--include", "*.json").code == 0
    assert hub.log == []


def test_offline_a_folder_that_does_not_say_where_it_came_from_is_unknown(
    hub: HubServer, offline: Command, downloader: Downloader, target: Path, files: Files
) -> None:
    """As a container leaves it; it becomes known once the Hub is asked."""
    downloader.run(target, origin=False)
    hub.clear_log()
    done = offline.run(URI, target)
    assert done.code == 66, done.said
    assert "does not say where its files came from" in done.stderr
    assert "does not hold" not in done.stderr
    [words] = re.findall(r"`(verify .* --repair)`", done.stderr)
    assert offline.run("job", URI, target).code == 66
    assert hub.log == []
    known = offline.run(*words.split(), HF_HUB_OFFLINE="0")
    assert known.code == 0, known.said
    assert hub.bytes_sent() == 0
    hub.clear_log()
    assert offline.run(URI, target).code == 0
    assert hub.log == []
    assert_snapshot(target, files)


# --- connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 2, 3])
def test_never_more_connections_than_allowed(
    hub: HubServer, command: Command, target: Path, files: Files, connections: int
) -> None:
    many = {f"small/{number}.json": os.urandom(20_000) for number in range(20)}
    hub.add_repo("org/many", {**files, **many})
    hub.pace(60e6)
    # A pause before each answer: what is at once can be seen.
    hub.fault(LATE, where=None, times=None)
    done = command.run("hf://org/many", target, "--connections", str(connections))
    assert done.code == 0, done.said
    assert_snapshot(target, {**files, **many})
    assert most_at_once(hub.log) == connections


# --- the same names by two ways ------------------------------------------------------------------


async def test_a_run_after_a_cancelled_one_in_the_same_program_goes_on(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.Stall(), path=LARGE, at=5 * MIB)
    settings: dict[str, Any] = {"stall_timeout": 30.0}
    config = downloader.config(**settings)
    task = asyncio.create_task(
        adownload(URI, target, config=config, on_event=downloader.events.append)
    )
    await asyncio.to_thread(hub.wait_for_bytes, 5 * MIB, LARGE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hub.clear_faults()
    await next_run(downloader, target, files)
    resumed = [one.resumed for one in downloader.told(FileStarted) if one.path == LARGE]
    assert resumed[-1] > 0
