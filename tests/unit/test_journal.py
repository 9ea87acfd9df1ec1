"""The journal knows what was written or less of it, never more: whatever happens to its bytes."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader.errors import StorageError
from aim_downloader.journal import Block, Journal, parse, sealed, unsealed
from aim_downloader.snapshot import ByteRange
from aim_downloader.storage import storage_errors

IDENTITY = "2048 sha256:abc"
BLOCKS = (
    Block(ByteRange(0, 1024), 0x0),
    Block(ByteRange(2048, 3072), 0xDEADBEEF),
    Block(ByteRange(1024, 2048), 0x12345678),
)


def written(folder: Path, blocks: tuple[Block, ...] = BLOCKS) -> Path:
    path = folder / "model.journal"
    journal = Journal(path, IDENTITY)
    journal.begin()
    for block in blocks:
        journal.append(block)
    journal.close()
    return path


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("journal")).read_bytes()


def known(content: bytes) -> list[Block]:
    return list(parse(content, IDENTITY))


# -- its format ------------------------------------------------------------------------------------


def test_format(content: bytes) -> None:
    *lines, end = content.split(b"\n")
    assert [unsealed(line, IDENTITY) for line in lines] == [
        "0 1024 00000000",
        "2048 3072 deadbeef",
        "1024 2048 12345678",
    ]
    assert end == b""


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    assert Journal(written(tmp_path), IDENTITY).read() == list(BLOCKS)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n")))
@settings(deadline=None)
def test_a_sealed_line_gives_its_text_back(text: str) -> None:
    line = sealed(text)
    assert line.count(b"\n") == 1
    assert unsealed(line[:-1]) == text


# -- whose it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identity", ["", "2048", f"{IDENTITY} ", f" {IDENTITY}", IDENTITY.upper(), "2049 sha256:abc"]
)
def test_a_journal_of_other_bytes_is_void(tmp_path: Path, identity: str) -> None:
    assert Journal(written(tmp_path), identity).read() == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\n\n\n",
        b"\0" * 200,
        bytes(range(64)),
        sealed("0 1024 00000000"),
        sealed("0 1024 00000000", "2048 sha256:abd"),
    ],
    ids=["empty", "newline", "newlines", "zeros", "noise", "nobody's", "another's"],
)
def test_what_is_no_journal_is_void(content: bytes) -> None:
    assert known(content) == []


def test_a_missing_journal_is_void(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none", IDENTITY).read() == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0 1024",
        "0 1024 00000000 0",
        "x 1024 00000000",
        "0 1024 zzzz",
        "1024 0 00000000",
        "-1 1024 00000000",
        f"0 {'9' * 5000} 00000000",
    ],
)
def test_a_sound_line_that_is_no_block_is_left_out(line: str) -> None:
    good = sealed("0 1024 00000000", IDENTITY)
    assert known(sealed(line, IDENTITY) + good) == [BLOCKS[0]]


# -- damage ----------------------------------------------------------------------------------------

Damage = Callable[[bytes], Iterator[bytes]]


def flips(content: bytes) -> Iterator[bytes]:
    for at in range(len(content)):
        for bit in range(8):
            yield content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def drops(content: bytes) -> Iterator[bytes]:
    for at in range(len(content)):
        yield content[:at] + content[at + 1 :]


def insertions(content: bytes) -> Iterator[bytes]:
    for at in range(len(content) + 1):
        for extra in (b"\0", b"\n", b" ", b"0", b"f", b"\xff"):
            yield content[:at] + extra + content[at:]


def cuts(content: bytes) -> Iterator[bytes]:
    for at in range(len(content)):
        yield content[:at]


def zeroed_tails(content: bytes) -> Iterator[bytes]:
    """What a file system may show after a power cut: the length is there, the bytes are not."""
    for at in range(len(content)):
        yield content[:at] + bytes(len(content) - at)


@pytest.mark.parametrize("damage", [flips, drops, insertions, cuts, zeroed_tails])
def test_a_damaged_journal_knows_only_what_was_written(content: bytes, damage: Damage) -> None:
    for damaged in damage(content):
        assert set(known(damaged)) <= set(BLOCKS), damaged


@pytest.mark.parametrize("damage", [flips, drops, insertions])
def test_damage_costs_two_blocks_at_most(content: bytes, damage: Damage) -> None:
    """One byte spoils its line; a newline that is lost spoils the next one too."""
    for damaged in damage(content):
        assert len(known(damaged)) >= len(BLOCKS) - 2, damaged


def test_a_cut_costs_what_was_behind_it(content: bytes) -> None:
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for at in range(len(content)):
        whole = sum(end <= at for end in ends)
        assert known(content[:at]) == list(BLOCKS[:whole])


def test_lines_may_be_lost_repeated_and_shuffled(content: bytes) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    lines = content.splitlines(keepends=True)
    for _ in range(200):
        found = known(b"".join(rng.choices(lines, k=rng.randrange(8))))
        assert set(found) <= set(BLOCKS)


# -- going on --------------------------------------------------------------------------------------


def test_a_journal_torn_anywhere_can_be_gone_on_with(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.journal"
    later = Block(ByteRange(3072, 4096), 7)
    for at in range(len(content)):
        path.write_bytes(content[:at])
        journal = Journal(path, IDENTITY)
        before = journal.read()
        journal.resume()
        journal.append(later)
        journal.close()
        # A line of which only the newline was missing becomes whole again.
        assert [block for block in journal.read() if block in before] == before
        assert journal.read()[-1] == later
        assert set(journal.read()) <= {*BLOCKS, later}


def test_begin_forgets_what_was_there(tmp_path: Path) -> None:
    journal = Journal(written(tmp_path), IDENTITY)
    journal.begin()
    journal.close()
    assert journal.read() == []


def test_lines_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "model.journal", IDENTITY)
    journal.begin()
    blocks = [Block(ByteRange(start, start + 1), start) for start in range(800)]

    def append(share: list[Block]) -> None:
        for block in share:
            journal.append(block)

    threads = [threading.Thread(target=append, args=(blocks[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert sorted(block.range.start for block in journal.read()) == list(range(800))


@pytest.mark.parametrize("how", ["begin", "resume"])
def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path, how: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (tmp_path / "model.journal").symlink_to(outside)
    journal = Journal(tmp_path / "model.journal", IDENTITY)
    with pytest.raises(StorageError), storage_errors(tmp_path):
        getattr(journal, how)()
    assert outside.read_bytes() == b"mine"


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(written(tmp_path), IDENTITY)
    journal.resume()
    journal.remove()
    journal.remove()
    assert list(tmp_path.iterdir()) == []
