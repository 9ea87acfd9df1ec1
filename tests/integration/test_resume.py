"""Killed at any instant, the next run continues; what is there is not fetched again."""

import functools
import hashlib
import os
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_downloader.events import FileRejected, FileSkipped, FileStarted
from aim_downloader.journal import sealed
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    MIB,
    TOKEN,
    URI,
    Command,
    Downloader,
    Files,
    Running,
    assert_polite,
    assert_right,
    assert_snapshot,
    content_requests,
    names_below,
    size_of,
    total_size,
    wait_until,
    write_random,
)

LARGE, OTHER, GIT = "model.safetensors", "other.safetensors", "config.json"


@pytest.fixture
def seed() -> int:
    """Where a test's accidents come from: name it in AIM_TEST_SEED to see them again."""
    seed = int(os.environ.get("AIM_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"AIM_TEST_SEED={seed}")
    return seed


# --- killed ---------------------------------------------------------------------------------------

KILLS = 10
CONNECTIONS = 8
PER_KILL = CONNECTIONS * 2 * MIB + 8 * MIB


@pytest.fixture
def big_model(roomy: Path, pool: bytes) -> Files:
    """2 GiB in four files, and a small one."""
    parts = {
        f"model-0000{number}-of-00004.safetensors": write_random(
            roomy / f"origin/{number}", 512 * MIB, pool, number
        )
        for number in range(1, 5)
    }
    return {**parts, GIT: b"{}"}


def test_killed_at_ten_random_moments(
    hub: HubServer, command: Command, roomy: Path, big_model: Files, seed: int
) -> None:
    accidents = random.Random(seed)
    hub.add_repo("org/big", big_model)
    hub.pace(200e6)
    target = roomy / "target"
    words = ("hf://org/big", target, "--connections", str(CONNECTIONS))
    size = total_size(big_model)
    for point in sorted(accidents.randrange(size) for _ in range(KILLS)):
        running = command.start(*words, AIM_DOWNLOADER_STALL_TIMEOUT="20")
        if accidents.random() < 0.3:
            # While it starts, lists, or reads back what is there.
            time.sleep(accidents.uniform(0, 1))
        else:
            wait_for_bytes_or_its_end(hub, point, running)
        running.kill()
        assert_named_files_are_whole(target, big_model)
    done = command.run(*words, AIM_DOWNLOADER_STALL_TIMEOUT="20")
    assert done.code == 0, done.said
    assert_snapshot(target, big_model)
    wasted = hub.bytes_sent() - size
    print(f"fetched twice: {wasted / MIB:.1f} MiB in {KILLS} kills")
    assert wasted <= KILLS * PER_KILL


def wait_for_bytes_or_its_end(hub: HubServer, count: int, running: Running) -> None:
    wait_until(lambda: hub.bytes_sent() >= count or running.ended, 60)


def assert_named_files_are_whole(target: Path, files: Files) -> None:
    """Nothing unverified ever bears a final name. (All bytes are compared at the end.)"""
    for name in names_below(target):
        if not name.startswith(HIDDEN):
            assert size_of(target / name) == size_of(files[name])


def test_killed_among_many_small_files(
    hub: HubServer, command: Command, target: Path, seed: int
) -> None:
    accidents = random.Random(seed)
    files = {f"part/{number:03}.json": accidents.randbytes(20_000) for number in range(400)}
    hub.add_repo("org/many", files)
    for _ in range(6):
        running = command.start("hf://org/many", target)
        wait_for_bytes_or_its_end(hub, hub.bytes_sent() + accidents.randrange(3_000_000), running)
        running.kill()
        for name in names_below(target):
            if not name.startswith(HIDDEN):
                assert_right(target / name, files[name])
    done = command.run("hf://org/many", target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)


def test_what_is_committed_is_not_fetched_again_after_a_kill(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    hub.pace(20e6)
    running = command.start(URI, target)
    names = [OTHER, "tokenizer.bin", GIT, "empty.txt"]
    wait_until(lambda: all((target / name).exists() for name in names))
    running.kill()
    assert not (target / LARGE).exists()
    hub.clear_log()
    done = command.run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert {each.file for each in content_requests(hub.log)} == {LARGE}


# --- what a dead run has left is damaged ----------------------------------------------------------

PARTS = {"part-1.safetensors": 32 * MIB, "part-2.safetensors": 32 * MIB + 77}
SLACK = 2 * MIB


@functools.cache
def _digest(content: bytes | Path) -> str:
    return hashlib.sha256(
        content if isinstance(content, bytes) else content.read_bytes()
    ).hexdigest()


def owners(files: Files) -> list[str]:
    """Who a journal's lines may belong to: the size and digest of each file."""
    return [f"{size_of(content)} sha256:{_digest(content)}" for content in files.values()]


def journaled(journal: Path, files: Files) -> dict[int, int]:
    """Start and length of each block that a journal knows, as its format is described."""
    blocks = {}
    for line in journal.read_bytes().split(b"\n")[:-1]:
        text, _, check = line.rpartition(b" ")
        words = text.split(b" ")
        checks = [b"%08x" % zlib.crc32(text, zlib.crc32(one.encode())) for one in owners(files)]
        if check in checks and len(words) == 3:
            blocks[int(words[0])] = int(words[1]) - int(words[0])
    return blocks


def held(target: Path, files: Files) -> int:
    """Bytes that the journals speak for and the partials can have."""
    journals = (target / HIDDEN / "partial").glob("*.journal")
    return sum(
        sum(journaled(journal, files).values())
        for journal in journals
        if journal.with_suffix(".partial").exists()
    )


class Remains:
    """What a killed run has left of two files, and ways to spoil it."""

    def __init__(self, target: Path, seed: int, files: Files) -> None:
        self._accidents = random.Random(seed)
        self._files = files
        partials = sorted((target / HIDDEN / "partial").glob("*.partial"))
        self.partial = max(partials, key=lambda path: path.with_suffix(".journal").stat().st_size)
        self.journal = self.partial.with_suffix(".journal")

    def cut_journal(self) -> None:
        content = self.journal.read_bytes()
        self.journal.write_bytes(content[: self._accidents.randrange(len(content))])

    def damage_journal(self) -> None:
        self._damage(self.journal, self._accidents.randrange(self.journal.stat().st_size))

    def garble_journal(self) -> None:
        self.journal.write_bytes(self._accidents.randbytes(2000))

    def lose_journal(self) -> None:
        self.journal.unlink()

    def empty_journal(self) -> None:
        self.journal.write_bytes(b"")

    def lie_in_journal(self) -> None:
        """Every block is on record, although most are not there."""
        size = self.partial.stat().st_size
        lines = [f"{start} {min(start + MIB, size)} 00000000" for start in range(0, size, MIB)]
        # Which of the two files it is, only its digest tells: the other's lines are void.
        lies = (sealed(line, owner) for owner in owners(self._files) for line in lines)
        self.journal.write_bytes(b"".join(lies))

    def lose_partial(self) -> None:
        self.partial.unlink()

    def cut_partial(self) -> None:
        os.truncate(self.partial, self._accidents.randrange(self.partial.stat().st_size))

    def damage_partial(self) -> None:
        """One byte of one block that is on record."""
        start, length = self._accidents.choice(list(journaled(self.journal, self._files).items()))
        self._damage(self.partial, start + self._accidents.randrange(length))

    def zero_partial(self) -> None:
        """What a file system may leave after a crash: the size, and no data."""
        size = self.partial.stat().st_size
        os.truncate(self.partial, 0)
        os.truncate(self.partial, size)

    def _damage(self, path: Path, offset: int) -> None:
        with path.open("r+b") as opened:
            opened.seek(offset)
            byte = opened.read(1)
            opened.seek(offset)
            opened.write(bytes([byte[0] ^ 0xFF]))


WHAT_THE_JOURNAL_CANNOT_KNOW = {
    Remains.cut_partial,
    Remains.damage_partial,
    Remains.lie_in_journal,
    Remains.zero_partial,
}


@pytest.mark.parametrize(
    "spoil",
    [
        Remains.cut_journal,
        Remains.damage_journal,
        Remains.garble_journal,
        Remains.lose_journal,
        Remains.empty_journal,
        Remains.lie_in_journal,
        Remains.lose_partial,
        Remains.cut_partial,
        Remains.damage_partial,
        Remains.zero_partial,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_damage_between_runs_costs_bytes_and_never_correctness(
    hub: HubServer,
    command: Command,
    downloader: Downloader,
    target: Path,
    seed: int,
    spoil: Callable[[Remains], None],
) -> None:
    files = {name: random.Random(seed).randbytes(size) for name, size in PARTS.items()}
    hub.add_repo("org/parts", files)
    killed_halfway(hub, command, "hf://org/parts", target, sum(PARTS.values()) // 2)
    before = held(target, files)
    spoil(Remains(target, seed, files))
    kept = 0 if spoil in WHAT_THE_JOURNAL_CANNOT_KNOW else min(before, held(target, files))
    hub.clear_log()
    hub.pace(None)
    downloader.run(target, "hf://org/parts")
    assert_snapshot(target, files)
    assert hub.bytes_sent() <= total_size(files) - kept + SLACK


def killed_halfway(hub: HubServer, command: Command, uri: str, target: Path, count: int) -> None:
    """A run that dies when about ``count`` bytes have come."""
    hub.pace(60e6)
    running = command.start(uri, target, "--connections", "4")
    hub.wait_for_bytes(count)
    running.kill()


def test_one_damaged_byte_costs_one_block(
    hub: HubServer, command: Command, downloader: Downloader, target: Path, seed: int
) -> None:
    files = {name: random.Random(seed).randbytes(size) for name, size in PARTS.items()}
    hub.add_repo("org/parts", files)
    killed_halfway(hub, command, "hf://org/parts", target, sum(PARTS.values()) // 2)
    missing = total_size(files) - held(target, files)
    Remains(target, seed, files).damage_partial()
    hub.clear_log()
    hub.pace(None)
    downloader.run(target, "hf://org/parts")
    assert_snapshot(target, files)
    assert missing <= hub.bytes_sent() <= missing + MIB


def test_a_server_that_forgets_how_to_resume_costs_bytes_only(
    hub: HubServer, command: Command, downloader: Downloader, target: Path, files: Files
) -> None:
    killed_halfway(hub, command, URI, target, 12 * MIB)
    hub.fault(faults.IgnoredRange(), times=None)
    hub.clear_log()
    hub.pace(None)
    downloader.run(target)
    assert_snapshot(target, files)
    assert hub.bytes_sent(LARGE) <= 3 * 24 * MIB


def test_bytes_that_came_damaged_before_the_kill_are_found_at_the_end(
    hub: HubServer, command: Command, downloader: Downloader, target: Path, files: Files
) -> None:
    damaged = hub.fault(faults.DamagedByte(5), path=LARGE)
    killed_halfway(hub, command, URI, target, 12 * MIB)
    assert damaged.fired == 1
    hub.pace(None)
    downloader.run(target)
    assert [event.path for event in downloader.told(FileRejected)] == [LARGE]
    assert_snapshot(target, files)


def test_a_partial_of_an_older_revision_is_not_mixed_with_the_newer_one(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    killed_halfway(hub, command, URI, target, 12 * MIB)
    newer = os.urandom(24 * MIB)
    hub.repo("org/model").commit({LARGE: newer})
    done = command.run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, {**files, LARGE: newer})


@pytest.mark.parametrize("what", ["lost", "cut", "garbage"])
async def test_without_the_log_of_commits_files_are_read_and_not_fetched(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, what: str
) -> None:
    hub.fault(faults.Status(404), path=OTHER, where="hub", times=None)
    with pytest.raises(Exception, match="404"):
        await downloader(target, connections=1)
    there = {name for name in names_below(target) if not name.startswith(HIDDEN)}
    assert LARGE in there
    log = target / HIDDEN / "committed"
    left = {"lost": None, "cut": log.read_bytes()[:-20], "garbage": os.urandom(500)}[what]
    log.write_bytes(left) if left is not None else log.unlink()
    hub.clear_faults()
    hub.clear_log()
    await downloader(target)
    assert_snapshot(target, files)
    assert not there & {each.file for each in content_requests(hub.log)}


# --- a second run ---------------------------------------------------------------------------------


async def test_a_second_run_asks_for_the_listing_alone(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    await downloader(target)
    before = {name: (target / name).stat().st_mtime_ns for name in files}
    hub.clear_log()
    downloader.events.clear()
    await downloader(target)
    assert {each.where for each in hub.log} == {"api"}
    assert_polite(hub.log)
    assert_snapshot(target, files)
    assert before == {name: (target / name).stat().st_mtime_ns for name in files}
    assert {event.path for event in downloader.told(FileSkipped)} == set(files)
    assert not downloader.told(FileStarted)


@pytest.mark.parametrize("first", ["main", "commit"])
async def test_a_second_run_of_a_pinned_commit_asks_for_nothing(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, first: str
) -> None:
    commit = hub.repo("org/model").head
    await downloader(target, URI if first == "main" else f"{URI}@{commit}")
    hub.clear_log()
    await downloader(target, f"{URI}@{commit}")
    assert hub.log == []
    assert_snapshot(target, files)


async def test_a_second_run_of_a_pinned_commit_mends_what_is_lost_or_changed(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    pinned = f"{URI}@{hub.repo('org/model').head}"
    await downloader(target, pinned)
    (target / GIT).unlink()
    (target / OTHER).write_bytes(bytes(size_of(files[OTHER])))
    hub.clear_log()
    await downloader(target, pinned)
    assert_snapshot(target, files)
    assert {each.file for each in content_requests(hub.log)} == {GIT, OTHER}


async def test_a_file_that_was_only_touched_is_read_and_not_fetched(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    await downloader(target)
    os.utime(target / LARGE)
    hub.clear_log()
    await downloader(target)
    assert not content_requests(hub.log)
    assert_snapshot(target, files)


async def test_a_damaged_receipt_costs_reading_and_no_bytes(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    await downloader(target)
    (target / HIDDEN / "origin.json").write_bytes(b"{")
    (target / HIDDEN / "SHA256SUMS").unlink()
    hub.clear_log()
    await downloader(target)
    assert not content_requests(hub.log)
    assert_snapshot(target, files)


async def test_a_moved_branch_brings_what_has_changed(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    await downloader(target)
    hub.repo("org/model").commit({GIT: b'{"newer": true}', "extra.json": b"[]", "empty.txt": None})
    hub.clear_log()
    await downloader(target)
    assert {each.file for each in content_requests(hub.log)} == {GIT, "extra.json"}
    assert (target / GIT).read_bytes() == b'{"newer": true}'
    assert (target / "empty.txt").exists(), "files that the new revision lacks are kept"


# --- without a network ----------------------------------------------------------------------------


@pytest.fixture
def complete(hub: HubServer, command: Command, target: Path) -> Path:
    done = command.run(URI, target, HF_TOKEN=TOKEN)
    assert done.code == 0, done.said
    hub.clear_log()
    return target


@pytest.mark.parametrize("pinned", [False, True])
def test_offline_a_complete_folder_is_enough(
    hub: HubServer, command: Command, complete: Path, files: Files, pinned: bool
) -> None:
    uri = f"{URI}@{hub.repo('org/model').head}" if pinned else URI
    done = command.run(uri, complete, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.code == 0, done.said
    assert hub.log == []
    assert_snapshot(complete, files)


@pytest.mark.parametrize("lacking", ["one file", "the folder", "other files", "another revision"])
def test_offline_an_incomplete_folder_is_66(
    hub: HubServer, command: Command, complete: Path, tmp_path: Path, lacking: str
) -> None:
    words: list[str | Path] = [URI, complete]
    if lacking == "one file":
        (complete / GIT).unlink()
    elif lacking == "the folder":
        words = [URI, tmp_path / "nowhere"]
    elif lacking == "other files":
        words = ["hf://org/other", complete]
    else:
        words = [f"{URI}@{'0' * 40}", complete]
    done = command.run(*words, HF_HUB_OFFLINE="1")
    assert done.code == 66, done.said
    assert hub.log == []
    assert not (tmp_path / "nowhere").exists()
    assert "Traceback" not in done.stderr


def test_a_plan_writes_nothing_and_asks_for_the_listing_alone(
    hub: HubServer, command: Command, target: Path
) -> None:
    done = command.run("plan", URI, target)
    assert done.code == 0, done.said
    assert not target.exists()
    assert {each.where for each in hub.log} == {"api"}
