"""Nothing unverified gets a final name, and no damage to a partial or its journal changes that."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from zlib_ng.zlib_ng import crc32

from aim_downloader.errors import (
    DigestMismatchError,
    InsufficientSpaceError,
    IntegrityError,
    LeaseLostError,
    SizeMismatchError,
    StorageError,
)
from aim_downloader.journal import Block, Journal
from aim_downloader.memory import SETTLE_EVERY
from aim_downloader.partial import BLOCK, Partial, journal_path, resumable_bytes
from aim_downloader.snapshot import ByteRange, Digest, RemoteFile
from tests.kernel_memory import cached_bytes, why_no_cache

IDENTITY = "the bytes of this file"
SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 17]


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def lfs_file(content: bytes) -> RemoteFile:
    digest = Digest("sha256", hashlib.sha256(content).hexdigest())
    return RemoteFile("model.safetensors", len(content), digest)


def git_file(content: bytes) -> RemoteFile:
    blob = hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False)
    return RemoteFile("config.json", len(content), Digest("git-sha1", blob.hexdigest()))


def blocks_of(ranges: list[ByteRange]) -> list[ByteRange]:
    return [
        ByteRange(start, min(start + BLOCK, part.stop))
        for part in ranges
        for start in range(part.start, part.stop, BLOCK)
    ]


def write(partial: Partial, content: bytes, block: ByteRange) -> bool:
    return partial.write_at(block.start, content[block.start : block.stop])


def fill(partial: Partial, content: bytes) -> int:
    """What a protocol and its chain do; returns the bytes that had to be brought."""
    brought = 0
    while (missing := partial.missing()) or partial.behind:
        for block in blocks_of(missing):
            brought += len(block) * write(partial, content, block)
        partial.catch_up()
    return brought


class Place:
    """A partial's place on disk: opened, looked at, damaged and copied."""

    def __init__(self, folder: Path, content: bytes, file: RemoteFile | None = None) -> None:
        self.content = content
        self.file = file or lfs_file(content)
        self.path = folder / "abc.partial"
        self.journal = journal_path(self.path)
        self.final = folder / "final"

    def open(self, guard: Callable[[], None] = lambda: None) -> Partial:
        return Partial(self.path, self.file, IDENTITY, guard)

    def leave(self, *blocks: int) -> None:
        """What a run leaves that was ended after some blocks."""
        with closing(self.open()) as partial:
            grid = blocks_of([ByteRange(0, self.file.size)])
            for number in blocks:
                write(partial, self.content, grid[number])

    def damage(self, offset: int) -> None:
        with self.path.open("r+b") as opened:
            opened.seek(offset)
            byte = opened.read(1)
            opened.seek(offset)
            opened.write(bytes([byte[0] ^ 0xFF]))

    def recorded(self) -> list[Block]:
        return Journal(self.journal, IDENTITY).read()


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
def seed() -> int:
    number = random.randrange(2**32)
    print(f"seed {number}")
    return number


# -- a whole life ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [lfs_file, git_file])
def test_in_order(tmp_path: Path, size: int, kind: Callable[[bytes], RemoteFile]) -> None:
    content = content_of(size)
    place = Place(tmp_path, content, kind(content))
    partial = place.open()
    assert partial.present == partial.verified == 0
    assert sum(map(len, partial.missing())) == size
    assert fill(partial, content) == size
    assert partial.present == partial.verified == size
    assert not place.final.exists()

    proof = partial.commit(place.final)
    assert place.final.read_bytes() == content
    assert proof.digest == place.file.digest
    assert proof.sha256 == hashlib.sha256(content).hexdigest()
    assert list(tmp_path.iterdir()) == [place.final]


@pytest.mark.parametrize("size", SIZES)
def test_in_any_order_by_many_threads(tmp_path: Path, size: int, seed: int) -> None:
    content = content_of(size)
    place = Place(tmp_path, content)
    partial = place.open()
    # Each block is written by two threads: only one of them may win.
    work = blocks_of(partial.missing()) * 2
    random.Random(seed).shuffle(work)
    wins: list[int] = []

    def some(share: list[ByteRange]) -> None:
        for block in share:
            wins.append(len(block) * write(partial, content, block))
            partial.catch_up()

    threads = [threading.Thread(target=some, args=(work[n::6],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == size
    assert partial.missing() == []
    assert partial.commit(place.final).sha256 == hashlib.sha256(content).hexdigest()
    assert place.final.read_bytes() == content


def test_what_comes_in_order_is_hashed_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(3 * BLOCK + 1))
    with closing(place.open()) as partial:
        for number, block in enumerate(blocks_of(partial.missing()), start=1):
            write(partial, place.content, block)
            assert partial.verified == min(number * BLOCK, place.file.size)
            assert not partial.behind


def test_what_comes_early_is_hashed_by_catching_up(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(4 * BLOCK))
    with closing(place.open()) as partial:
        first, second, third, fourth = blocks_of(partial.missing())
        for block in (fourth, second, third):
            write(partial, place.content, block)
            assert (partial.verified, partial.behind) == (0, False)
        write(partial, place.content, first)
        assert (partial.verified, partial.behind) == (BLOCK, True)
        enough = threading.Event()
        enough.set()
        partial.catch_up(enough)
        assert (partial.verified, partial.behind) == (BLOCK, True)
        partial.catch_up()
        assert (partial.verified, partial.behind) == (4 * BLOCK, False)


def test_catching_up_stops_at_a_gap(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(4 * BLOCK))
    with closing(place.open()) as partial:
        for number in (1, 0, 3):
            write(partial, place.content, blocks_of([ByteRange(0, 4 * BLOCK)])[number])
        partial.catch_up()
        assert (partial.verified, partial.present) == (2 * BLOCK, 3 * BLOCK)
        assert partial.missing() == [ByteRange(2 * BLOCK, 3 * BLOCK)]


def test_a_file_of_many_stretches(tmp_path: Path, seed: int) -> None:
    content = content_of(33 * BLOCK + 5)
    place = Place(tmp_path, content)
    partial = place.open()
    work = blocks_of(partial.missing())
    random.Random(seed).shuffle(work)
    for block in work:
        write(partial, content, block)
    stretches = (
        content[start : start + 16 * BLOCK] for start in range(0, len(content), 16 * BLOCK)
    )
    assert partial.commit(place.final).crc32s == tuple(crc32(part) for part in stretches)


# -- writes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "offset", "length"),
    [
        (3 * BLOCK, 1, BLOCK),
        (3 * BLOCK, 0, BLOCK - 1),
        (3 * BLOCK, 0, BLOCK + 1),
        (3 * BLOCK, 0, 2 * BLOCK),
        (3 * BLOCK, 0, 0),
        (3 * BLOCK, 2 * BLOCK, 1),
        (3 * BLOCK, 3 * BLOCK, BLOCK),
        (3 * BLOCK, 3 * BLOCK, 0),
        (3 * BLOCK, 4 * BLOCK, 0),
        (3 * BLOCK, -BLOCK, BLOCK),
        (BLOCK + 7, BLOCK, BLOCK),
        (BLOCK + 7, BLOCK, 6),
        (BLOCK + 7, BLOCK, 8),
        (0, 0, 1),
        (0, 0, 0),
    ],
)
def test_what_is_no_block_is_refused(tmp_path: Path, size: int, offset: int, length: int) -> None:
    place = Place(tmp_path, content_of(size))
    with closing(place.open()) as partial:
        with pytest.raises(ValueError, match=r"no (block|byte range)"):
            partial.write_at(offset, bytes(length))
        assert partial.present == 0
        assert place.path.read_bytes() == bytes(size)
        assert place.recorded() == []


def test_the_loser_of_a_race_drops_its_buffer(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(BLOCK))
    partial = place.open()
    assert partial.write_at(0, place.content)
    assert not partial.write_at(0, bytes(BLOCK))
    assert partial.present == BLOCK
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(tmp_path: Path, kind: Callable[[bytes], bytes]) -> None:
    place = Place(tmp_path, content_of(BLOCK))
    partial = place.open()
    partial.write_at(0, kind(place.content))
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


class Guard:
    """A lease that can be lost."""

    def __init__(self) -> None:
        self.lost = False

    def __call__(self) -> None:
        if self.lost:
            raise LeaseLostError("lost")


def test_who_lost_the_lease_writes_nothing(tmp_path: Path) -> None:
    place, guard = Place(tmp_path, content_of(2 * BLOCK)), Guard()
    with closing(place.open(guard)) as partial:
        first, second = blocks_of(partial.missing())
        write(partial, place.content, first)
        guard.lost = True
        with pytest.raises(LeaseLostError):
            write(partial, place.content, second)
        assert partial.missing() == [second]
        guard.lost = False
        assert write(partial, place.content, second)


def test_who_lost_the_lease_commits_nothing(tmp_path: Path) -> None:
    place, guard = Place(tmp_path, content_of(BLOCK)), Guard()
    with closing(place.open(guard)) as partial:
        fill(partial, place.content)
        guard.lost = True
        with pytest.raises(LeaseLostError):
            partial.commit(place.final)
    assert not place.final.exists()
    with closing(place.open()) as partial:
        assert fill(partial, place.content) == 0


# -- the journal -----------------------------------------------------------------------------------


def test_the_journal_never_speaks_of_what_is_not_in_the_file(tmp_path: Path, seed: int) -> None:
    """Looked at from outside while threads write: what is on record is in the file already."""
    place = Place(tmp_path, content_of(24 * BLOCK))
    partial = place.open()
    work = blocks_of(partial.missing())
    random.Random(seed).shuffle(work)

    def some(share: list[ByteRange]) -> None:
        for block in share:
            write(partial, place.content, block)

    threads = [threading.Thread(target=some, args=(work[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    looks = 0
    with place.path.open("rb", buffering=0) as opened:
        while any(thread.is_alive() for thread in threads) or not looks:
            for block in place.recorded():
                data = os.pread(opened.fileno(), len(block.range), block.range.start)
                assert crc32(data) == block.crc32
                assert data == place.content[block.range.start : block.range.stop]
            looks += 1
    for thread in threads:
        thread.join()
    assert {block.range for block in place.recorded()} == set(work)
    partial.close()


def test_the_journal_lies_beside_the_partial(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(2 * BLOCK))
    place.leave(1)
    assert {path.name for path in tmp_path.iterdir()} == {"abc.partial", "abc.journal"}
    assert place.recorded() == [
        Block(ByteRange(BLOCK, 2 * BLOCK), crc32(place.content[BLOCK:])),
    ]


# -- going on --------------------------------------------------------------------------------------


def test_a_later_run_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(5 * BLOCK + 17))
    place.leave(0, 2, 5)
    assert resumable_bytes(place.path, place.file, IDENTITY) == 2 * BLOCK + 17
    partial = place.open()
    assert partial.present == 2 * BLOCK + 17
    assert partial.verified == 0
    assert partial.missing() == [ByteRange(BLOCK, 2 * BLOCK), ByteRange(3 * BLOCK, 5 * BLOCK)]
    assert fill(partial, place.content) == 3 * BLOCK
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_many_runs_one_block_each(tmp_path: Path, seed: int) -> None:
    place = Place(tmp_path, content_of(6 * BLOCK + 1))
    rng = random.Random(seed)
    for left in range(7, 0, -1):
        with closing(place.open()) as partial:
            blocks = blocks_of(partial.missing())
            assert len(blocks) == left
            write(partial, place.content, rng.choice(blocks))
    partial = place.open()
    assert fill(partial, place.content) == 0
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


KILLED = """
import os, signal, sys
from pathlib import Path
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.snapshot import RemoteFile
content = Path(sys.argv[2]).read_bytes()
partial = Partial(Path(sys.argv[1]), RemoteFile("m", len(content), None), sys.argv[3])
for start in (3 * BLOCK, 0, BLOCK):
    partial.write_at(start, content[start:start + BLOCK])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_wrote_is_not_fetched_again(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(4 * BLOCK))
    source = tmp_path / "source"
    source.write_bytes(place.content)
    command = [sys.executable, "-c", KILLED, str(place.path), str(source), IDENTITY]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    partial = place.open()
    assert fill(partial, place.content) == BLOCK
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def no_journal(place: Place) -> None:
    place.journal.unlink()


def empty_journal(place: Place) -> None:
    place.journal.write_bytes(b"")


def foreign_journal(place: Place) -> None:
    other = Journal(place.journal, "other bytes")
    other.begin()
    other.append(Block(ByteRange(0, BLOCK), crc32(place.content[:BLOCK])))
    other.close()


def journal_of_another_grid(place: Place) -> None:
    journal = Journal(place.journal, IDENTITY)
    journal.begin()
    for start, stop in ((0, BLOCK // 2), (0, 2 * BLOCK), (1, BLOCK + 1), (9 * BLOCK, 10 * BLOCK)):
        journal.append(Block(ByteRange(start, stop), crc32(place.content[start:stop])))
    journal.close()


def no_partial(place: Place) -> None:
    place.path.unlink()


def empty_partial(place: Place) -> None:
    place.path.write_bytes(b"")


def shorter_partial(place: Place) -> None:
    os.truncate(place.path, place.file.size - 1)


def longer_partial(place: Place) -> None:
    os.truncate(place.path, place.file.size + 1)


def zeroed_partial(place: Place) -> None:
    """The length survived a power cut, the bytes did not."""
    place.path.write_bytes(bytes(place.file.size))


def other_partial(place: Place) -> None:
    place.path.write_bytes(content_of(place.file.size + 1)[1:])


@pytest.mark.parametrize(
    ("harm", "fetched"),
    [
        (no_journal, 4),
        (empty_journal, 4),
        (foreign_journal, 4),
        (journal_of_another_grid, 4),
        (no_partial, 4),
        (empty_partial, 4),
        (shorter_partial, 2),  # the block that is cut, too
        (longer_partial, 4),
        (zeroed_partial, 4),
        (other_partial, 4),
        (lambda place: place.damage(0), 2),
        (lambda place: place.damage(BLOCK - 1), 2),
        (lambda place: place.damage(3 * BLOCK + 5), 2),
        (lambda place: place.damage(BLOCK + 5), 1),  # a block that was missing anyway
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("<>") or None,
)
def test_harm_between_runs_costs_bytes_alone(
    tmp_path: Path, harm: Callable[[Place], None], fetched: int
) -> None:
    place = Place(tmp_path, content_of(4 * BLOCK))
    place.leave(0, 2, 3)
    harm(place)
    partial = place.open()
    assert fill(partial, place.content) == fetched * BLOCK
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_a_block_damaged_between_runs_becomes_missing(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(3 * BLOCK))
    place.leave(0, 1, 2)
    place.damage(BLOCK + 100)
    with closing(place.open()) as partial:
        assert partial.missing() == []
        with pytest.raises(SizeMismatchError):
            partial.commit(place.final)
        assert partial.missing() == [ByteRange(BLOCK, 2 * BLOCK)]
        assert (partial.verified, partial.present) == (BLOCK, 2 * BLOCK)
        fill(partial, place.content)
        partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_a_block_that_was_mended_counts_by_its_latest_line(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(2 * BLOCK))
    place.leave(0)
    place.damage(5)
    with closing(place.open()) as partial:
        partial.catch_up()
        fill(partial, place.content)
    with closing(place.open()) as partial:
        assert fill(partial, place.content) == 0


def test_a_stale_journal_is_not_believed(tmp_path: Path) -> None:
    """A journal that was saved before the partial was thrown away and begun anew."""
    place = Place(tmp_path, content_of(3 * BLOCK))
    place.leave(0, 1)
    stale = place.journal.read_bytes()
    with closing(place.open()) as partial:
        partial.reset()
        write(partial, place.content, ByteRange(2 * BLOCK, 3 * BLOCK))
    place.journal.write_bytes(stale)
    partial = place.open()
    assert fill(partial, place.content) == 3 * BLOCK
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def every_cut(journal: bytes) -> Iterator[bytes]:
    for at in range(len(journal)):
        yield journal[:at]


def every_flip(journal: bytes) -> Iterator[bytes]:
    for at in range(len(journal)):
        yield journal[:at] + bytes([journal[at] ^ 1]) + journal[at + 1 :]


def every_drop(journal: bytes) -> Iterator[bytes]:
    for at in range(len(journal)):
        yield journal[:at] + journal[at + 1 :]


def every_insertion(journal: bytes) -> Iterator[bytes]:
    for at in range(len(journal) + 1):
        yield journal[:at] + b"\n" + journal[at:]


@pytest.mark.parametrize("harm", [every_cut, every_flip, every_drop, every_insertion])
def test_a_journal_harmed_at_any_byte_costs_bytes_alone(
    tmp_path: Path, harm: Callable[[bytes], Iterator[bytes]]
) -> None:
    place = Place(tmp_path, content_of(BLOCK + 1))
    place.leave(1, 0)
    kept = place.path.read_bytes()
    for harmed in harm(place.journal.read_bytes()):
        place.path.write_bytes(kept)
        place.journal.write_bytes(harmed)
        partial = place.open()
        fill(partial, place.content)
        partial.commit(place.final)
        assert place.final.read_bytes() == place.content


def test_a_run_cut_off_after_any_call_goes_on(tmp_path: Path, seed: int) -> None:
    """Rounds of random writes, harm and new starts end with the right bytes or with none."""
    rng = random.Random(seed)
    for _ in range(12):
        place = Place(tmp_path, content_of(rng.choice(SIZES[1:])))
        for _ in range(3):
            with closing(place.open()) as partial:
                lacking = blocks_of(partial.missing())
                for block in rng.sample(lacking, rng.randint(0, len(lacking))):
                    write(partial, place.content, block)
                if rng.random() < 0.5:
                    partial.catch_up()
            if place.journal.exists():
                journal = place.journal.read_bytes()
                place.journal.write_bytes(journal[: rng.randint(0, len(journal))])
                place.damage(rng.randrange(place.file.size))
        partial = place.open()
        with suppress(IntegrityError):
            partial.commit(place.final)
        if not place.final.exists():
            fill(partial, place.content)
            partial.commit(place.final)
        assert place.final.read_bytes() == place.content
        place.final.unlink()


# -- the wrong bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, BLOCK, 2 * BLOCK + 6])
@pytest.mark.parametrize("kind", [lfs_file, git_file])
def test_wrong_bytes_get_no_name(
    tmp_path: Path, at: int, kind: Callable[[bytes], RemoteFile]
) -> None:
    content = content_of(2 * BLOCK + 7)
    place = Place(tmp_path, content, kind(content))
    wrong = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    with closing(place.open()) as partial:
        fill(partial, wrong)
        with pytest.raises(DigestMismatchError, match=place.file.path):
            partial.commit(place.final)
        assert not place.final.exists()
        partial.reset()
        assert partial.present == partial.verified == 0
        assert fill(partial, content) == len(content)
        partial.commit(place.final)
    assert place.final.read_bytes() == content


def test_wrong_bytes_do_not_replace_a_file_that_is_there(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(BLOCK))
    place.final.write_bytes(b"an earlier revision")
    with closing(place.open()) as partial:
        fill(partial, bytes(BLOCK))
        with pytest.raises(DigestMismatchError):
            partial.commit(place.final)
    assert place.final.read_bytes() == b"an earlier revision"


@pytest.mark.parametrize("blocks", [(), (0,), (1, 2), (0, 2), (0, 1)])
def test_missing_bytes_get_no_name(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    place = Place(tmp_path, content_of(3 * BLOCK))
    place.leave(*blocks)
    with closing(place.open()) as partial:
        with pytest.raises(SizeMismatchError, match=f"{(3 - len(blocks)) * BLOCK} of {3 * BLOCK}"):
            partial.commit(place.final)
        assert not place.final.exists()
        assert sum(map(len, partial.missing())) == (3 - len(blocks)) * BLOCK


@pytest.mark.parametrize("listed", [BLOCK - 1, BLOCK + 1])
def test_a_listed_size_that_lies_gets_no_name(tmp_path: Path, listed: int) -> None:
    content = content_of(BLOCK)
    lying = RemoteFile("m", listed, lfs_file(content).digest)
    place = Place(tmp_path, content, lying)
    with closing(place.open()) as partial:
        for block in blocks_of(partial.missing()):
            with suppress(ValueError):
                write(partial, content, block)
        with pytest.raises(IntegrityError):
            partial.commit(place.final)
    assert not place.final.exists()


@pytest.mark.parametrize("digest", [Digest("sha512", "0" * 128), Digest("md5", "0" * 32)])
def test_a_digest_that_nobody_can_check_is_not_met(tmp_path: Path, digest: Digest) -> None:
    content = content_of(10)
    place = Place(tmp_path, content, RemoteFile("m", 10, digest))
    with closing(place.open()) as partial:
        fill(partial, content)
        with pytest.raises(DigestMismatchError):
            partial.commit(place.final)
    assert not place.final.exists()


# -- its ways out ----------------------------------------------------------------------------------


def test_commit_replaces_an_earlier_revision(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(10))
    place.final.write_bytes(b"an earlier revision")
    partial = place.open()
    fill(partial, place.content)
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_commit_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(10))
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    place.final.symlink_to(outside)
    partial = place.open()
    fill(partial, place.content)
    partial.commit(place.final)
    assert not place.final.is_symlink()
    assert place.final.read_bytes() == place.content
    assert outside.read_bytes() == b"mine"


def test_a_folder_in_the_way_is_told_and_nothing_lost(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(BLOCK + 1))
    place.final.mkdir()
    with closing(place.open()) as partial:
        fill(partial, place.content)
        with pytest.raises(StorageError) as caught:
            partial.commit(place.final)
        assert caught.value.hint
    place.final.rmdir()
    partial = place.open()
    assert fill(partial, place.content) == 0
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(2 * BLOCK))
    partial = place.open()
    fill(partial, place.content)
    partial.discard()
    assert list(tmp_path.iterdir()) == []


def test_close_keeps_no_partial_that_has_nothing(tmp_path: Path) -> None:
    Place(tmp_path, content_of(2 * BLOCK)).open().close()
    assert list(tmp_path.iterdir()) == []


def test_reset_forgets_on_disk_too(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(2 * BLOCK))
    with closing(place.open()) as partial:
        fill(partial, place.content)
        partial.reset()
        assert partial.missing() == [ByteRange(0, 2 * BLOCK)]
        assert place.path.read_bytes() == bytes(2 * BLOCK)
    assert resumable_bytes(place.path, place.file, IDENTITY) == 0


def test_who_writes_late_does_not_write_to_what_was_begun_anew(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(2 * BLOCK))
    with closing(place.open()) as late, closing(place.open()) as partial:
        fill(partial, bytes(2 * BLOCK))
        partial.reset()
        fill(partial, place.content)
        late.write_at(0, bytes(BLOCK))
        partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_what_another_run_has_begun_under_its_name_gets_no_final_name(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(2 * BLOCK))
    with closing(place.open()) as partial:
        fill(partial, place.content)
        with closing(place.open()) as other:
            other.reset()
            with pytest.raises(StorageError, match="replaced by another run"):
                partial.commit(place.final)
            assert not place.final.exists()
            fill(other, place.content)
            other.commit(place.final)
    assert place.final.read_bytes() == place.content


@pytest.mark.parametrize("way", ["commit", "close", "discard"])
def test_no_descriptor_stays_open(tmp_path: Path, way: str) -> None:
    place = Place(tmp_path, content_of(BLOCK))
    before = open_descriptors()
    partial = place.open()
    fill(partial, place.content)
    getattr(partial, way)(*[place.final] if way == "commit" else [])
    assert open_descriptors() == before


# -- what stays in memory --------------------------------------------------------------------------

SETTLED = SETTLE_EVERY // BLOCK
# The kernel reads ahead, by some blocks.
LITTLE = 16 * BLOCK


@pytest.fixture
def large(tmp_path: Path) -> Place:
    """A file of two times the bytes after which pages are let go, and a little more."""
    if reason := why_no_cache(tmp_path):
        pytest.skip(reason)
    return Place(tmp_path, bytes(2 * SETTLE_EVERY + 20 * BLOCK))


def test_what_is_hashed_is_let_go(large: Place) -> None:
    partial = large.open()
    most = 0
    for block in blocks_of(partial.missing()):
        write(partial, large.content, block)
        most = max(most, cached_bytes(large.path))
    assert most <= SETTLE_EVERY + LITTLE
    partial.commit(large.final)
    assert cached_bytes(large.final) <= LITTLE


def test_what_is_yet_to_be_read_back_stays(large: Place) -> None:
    partial = large.open()
    first, *others = blocks_of(partial.missing())
    for block in others:
        write(partial, large.content, block)
    assert cached_bytes(large.path) >= large.file.size - BLOCK - LITTLE
    write(partial, large.content, first)
    partial.catch_up()
    assert cached_bytes(large.path) <= SETTLE_EVERY + LITTLE
    partial.commit(large.final)


def test_what_an_earlier_run_left_is_let_go_as_it_is_read_back(large: Place) -> None:
    large.leave(*range(2 * SETTLED))
    with closing(large.open()) as partial:
        partial.catch_up()
        assert partial.verified == 2 * SETTLE_EVERY
        assert cached_bytes(large.path) <= LITTLE


def test_bytes_that_are_begun_anew_are_let_go_too(large: Place) -> None:
    with closing(large.open()) as partial:
        fill(partial, large.content)
        partial.reset()
        for block in blocks_of(partial.missing())[:SETTLED]:
            write(partial, large.content, block)
        assert cached_bytes(large.path) <= LITTLE


# -- the disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["partial", "journal"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_symlink_planted_in_its_place_is_refused(
    tmp_path: Path, suffix: str, exists: bool
) -> None:
    place = Place(tmp_path, content_of(10))
    outside = tmp_path / "outside"
    if exists:
        outside.write_bytes(b"mine")
    (tmp_path / f"abc.{suffix}").symlink_to(outside)
    with pytest.raises(StorageError) as caught:
        place.open()
    assert caught.value.hint
    assert outside.exists() == exists
    if exists:
        assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", ["partial", "journal"])
def test_a_folder_planted_in_its_place_is_refused(tmp_path: Path, suffix: str) -> None:
    place = Place(tmp_path, content_of(10))
    (tmp_path / f"abc.{suffix}").mkdir()
    before = open_descriptors()
    with pytest.raises(StorageError):
        place.open()
    assert open_descriptors() == before


def test_what_a_planted_folder_holds_counts_for_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, content_of(10))
    place.leave(0)
    place.journal.unlink()
    place.journal.mkdir()
    assert resumable_bytes(place.path, place.file, IDENTITY) == 0


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Place(tmp_path / "none", content_of(10)).open()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for three blocks and a little more."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    options = f"size={3 * BLOCK + 64 * 1024}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_what_is_there_can_be_gone_on_with(small_disk: Path) -> None:
    place = Place(small_disk, content_of(5 * BLOCK))
    with closing(place.open()) as partial:
        with pytest.raises(InsufficientSpaceError) as caught:
            fill(partial, place.content)
        assert caught.value.exit_code == 73
        assert "free some space" in caught.value.hint
        assert partial.present == 3 * BLOCK
        assert partial.missing() == [ByteRange(3 * BLOCK, 5 * BLOCK)]
    assert resumable_bytes(place.path, place.file, IDENTITY) == 3 * BLOCK

    subprocess.run(["mount", "-o", f"remount,size={16 * BLOCK}", str(small_disk)], check=True)
    partial = place.open()
    assert fill(partial, place.content) == 2 * BLOCK
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_a_full_disk_frees_the_block_for_another_try(small_disk: Path) -> None:
    place = Place(small_disk, content_of(3 * BLOCK))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 * BLOCK))
    with closing(place.open()) as partial:
        with pytest.raises(InsufficientSpaceError):
            fill(partial, place.content)
        ballast.unlink()
        fill(partial, place.content)
        partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_no_room_for_the_journal_is_told(small_disk: Path) -> None:
    place = Place(small_disk, content_of(BLOCK))
    with closing(place.open()) as partial:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(free - BLOCK))
        with suppress(InsufficientSpaceError):
            fill(partial, place.content)
        # Whether or not the line found room, the journal may not know more than the file.
        data = place.path.read_bytes()
        for block in place.recorded():
            assert crc32(data[block.range.start : block.range.stop]) == block.crc32
        ballast.unlink()
        fill(partial, place.content)
        partial.commit(place.final)
    assert place.final.read_bytes() == place.content
