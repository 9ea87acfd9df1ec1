"""What `verify` finds: each kind of damage by its name, at no request and without a trace."""

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from zlib_ng.zlib_ng import crc32

from aim_downloader import Config, averify
from aim_downloader.content_hash import STRETCH, prove
from aim_downloader.errors import SnapshotNotFoundError
from aim_downloader.events import Event, RunProgressed
from aim_downloader.findings import Damaged, Expected, Findings, Reading, State, compare
from aim_downloader.names import HIDDEN
from aim_downloader.partial import BLOCK
from aim_downloader.receipt import COMMITTED, ORIGIN, SUMS, Origin, Record, write_origin, write_sums
from aim_downloader.reporters import findings_text
from aim_downloader.snapshot import MIB, ByteRange, Digest
from tests.damage import flip, swap

LARGE, SMALL, DEEP, EMPTY = "model.safetensors", "config.json", "onnx/model.onnx", "empty.txt"
SIZE = 2 * STRETCH + 3 * MIB + 5
COMMIT = "0" * 40
# No two blocks alike, and quickly made.
CONTENT = b"".join(index.to_bytes(8, "big") * (BLOCK // 8) for index in range(36))[:SIZE]
FILES = {LARGE: CONTENT, SMALL: b'{"a": 1}', DEEP: CONTENT[BLOCK : 3 * BLOCK], EMPTY: b""}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder as a download leaves it."""
    root = tmp_path / "target"
    for path, content in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    hidden = root / HIDDEN
    hidden.mkdir()
    records = {path: record(root, path) for path in FILES}
    write_sums(hidden, records.values())
    write_origin(hidden, Origin("hf://org/model", "org/model", "main", COMMIT, "", (), (), records))
    return root


PROOFS = {path: prove(content, None) for path, content in FILES.items()}


def record(root: Path, path: str) -> Record:
    found, proof = (root / path).stat(), PROOFS[path]
    return Record(path, found.st_size, found.st_mtime_ns, "", proof.sha256, proof.crc32s)


def verify(root: Path, on_event: Callable[[Event], None] | None = None) -> Findings:
    # Offline: a request would be refused.
    return asyncio.run(averify(root, config=Config(offline=True), on_event=on_event))


def trace(root: Path) -> dict[str, tuple[int, int, int]]:
    """Each file and folder, with what a write would change."""
    found = {path: path.lstat() for path in (root, *root.rglob("*"))}
    return {str(p): (s.st_size, s.st_mtime_ns, s.st_ino) for p, s in found.items()}


# --- damage ---------------------------------------------------------------------------------------


def become_link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def become(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def move_folder_behind_link(folder: Path) -> None:
    elsewhere = folder.parent.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


LAST = ByteRange(2 * STRETCH, SIZE)
MIDDLE = ByteRange(STRETCH, 2 * STRETCH)

DAMAGES: dict[str, tuple[Callable[[Path], object], str, str, list[ByteRange]]] = {
    "a bit in the middle": (
        lambda root: flip(root / LARGE, STRETCH + 7),
        LARGE,
        "1 of 3 stretches of 16 MiB is damaged, the first at 16 MiB",
        [MIDDLE],
    ),
    "neighbours": (
        lambda root: flip(root / LARGE, STRETCH, SIZE - 1),
        LARGE,
        "2 of 3 stretches of 16 MiB are damaged, the first at 16 MiB",
        [ByteRange(STRETCH, SIZE)],
    ),
    "two places": (
        lambda root: flip(root / LARGE, 0, SIZE - 1),
        LARGE,
        "2 of 3 stretches of 16 MiB are damaged, the first at 0 B",
        [ByteRange(0, STRETCH), LAST],
    ),
    "cut off": (
        lambda root: os.truncate(root / LARGE, 2 * STRETCH + 1),
        LARGE,
        (
            f"it has {2 * STRETCH + 1} bytes instead of {SIZE}; "
            "1 of 3 stretches of 16 MiB is damaged, the first at 32 MiB"
        ),
        [LAST],
    ),
    "emptied": (
        lambda root: os.truncate(root / LARGE, 0),
        LARGE,
        (
            f"it has 0 bytes instead of {SIZE}; "
            "3 of 3 stretches of 16 MiB are damaged, the first at 0 B"
        ),
        [ByteRange(0, SIZE)],
    ),
    "grown": (
        lambda root: os.truncate(root / LARGE, SIZE + 9),
        LARGE,
        f"it has {SIZE + 9} bytes instead of {SIZE}",
        [],
    ),
    "a small file": (
        lambda root: flip(root / SMALL, 1),
        SMALL,
        "its bytes are not those that were verified",
        [ByteRange(0, len(FILES[SMALL]))],
    ),
    "no longer empty": (
        lambda root: (root / EMPTY).write_bytes(b"x"),
        EMPTY,
        "it has 1 bytes instead of 0",
        [],
    ),
    "a symlink": (
        lambda root: become_link(root / SMALL),
        SMALL,
        "a symlink stands in its place",
        [],
    ),
    "a link to nowhere": (
        lambda root: become(root / SMALL, lambda path: path.symlink_to("nowhere")),
        SMALL,
        "a symlink stands in its place",
        [],
    ),
    "a pipe": (
        lambda root: become(root / SMALL, os.mkfifo),
        SMALL,
        "a pipe stands in its place",
        [],
    ),
    "a folder": (
        lambda root: become(root / SMALL, os.mkdir),
        SMALL,
        "a folder stands in its place",
        [],
    ),
    "behind a link": (
        lambda root: move_folder_behind_link(root / "onnx"),
        DEEP,
        "onnx, a symlink, stands in its place",
        [],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(root: Path, damage: str) -> None:
    harm, path, reason, ranges = DAMAGES[damage]
    harm(root)
    before = trace(root)
    findings = verify(root)
    assert [(one.path, one.reason, list(one.ranges)) for one in findings.damaged] == [
        (path, reason, ranges)
    ]
    assert not findings.all_right
    assert findings.missing == ()
    assert trace(root) == before


def test_what_is_right_has_no_findings(root: Path) -> None:
    before = trace(root)
    findings = verify(root)
    assert findings.all_right
    assert (findings.files, findings.bytes) == (4, sum(map(len, FILES.values())))
    assert (findings.damaged, findings.missing, findings.unknown, findings.notes) == ((),) * 4
    assert trace(root) == before


def test_every_fault_is_listed(root: Path) -> None:
    flip(root / LARGE, 5)
    (root / SMALL).unlink()
    swap(root / EMPTY, root / DEEP)
    findings = verify(root)
    assert [one.path for one in findings.damaged] == [EMPTY, LARGE, DEEP]
    assert findings.missing == (SMALL,)


def test_a_folder_that_is_gone_lacks_its_files(root: Path) -> None:
    (root / DEEP).unlink()
    (root / "onnx").rmdir()
    assert verify(root).missing == (DEEP,)
    (root / "onnx").write_bytes(b"")
    assert verify(root).missing == (DEEP,)


def test_other_times_are_no_damage(root: Path) -> None:
    for path in FILES:
        os.utime(root / path, (1, 1))
    assert verify(root).all_right


def test_other_files_are_told_and_no_fault(root: Path) -> None:
    (root / "mine.txt").write_bytes(b"x")
    (root / "onnx/link").symlink_to("nowhere")
    (root / "folder-link").symlink_to("onnx")
    findings = verify(root)
    assert findings.all_right
    assert findings.unknown == ("folder-link", "mine.txt", "onnx/link")


# --- which papers there are -----------------------------------------------------------------------


def spoil_receipt(hidden: Path) -> None:
    flip(hidden / ORIGIN, 40)


def remove_receipt(hidden: Path) -> None:
    (hidden / ORIGIN).unlink()


def spoil_sums(hidden: Path) -> None:
    (hidden / SUMS).write_bytes(b"\xff\x00 nonsense")


def remove_sums(hidden: Path) -> None:
    (hidden / SUMS).unlink()


def lie_in_sums(hidden: Path) -> None:
    content = (hidden / SUMS).read_text()
    (hidden / SUMS).write_text("0" * 64 + content[64:])


Spoil = Callable[[Path], None]
DAMAGED_RECEIPT = "is damaged and was not used: a download writes it anew"


@pytest.mark.parametrize(
    ("spoils", "against", "note"),
    [
        ([], "receipt", ""),
        ([remove_receipt], "SHA256SUMS", ""),
        (
            [spoil_receipt],
            "SHA256SUMS",
            f"{ORIGIN} is damaged and was not used: a download writes it anew",
        ),
        ([remove_sums], "receipt", f"{SUMS} is not what the receipt says"),
        ([lie_in_sums], "receipt", f"{SUMS} is not what the receipt says"),
        ([spoil_sums], "receipt", f"1 line of {SUMS} cannot be used"),
    ],
)
def test_which_paper_is_used(root: Path, spoils: list[Spoil], against: str, note: str) -> None:
    for spoil in spoils:
        spoil(root / HIDDEN)
    findings = verify(root)
    assert findings.all_right
    assert (findings.against, findings.files) == (against, 4)
    hidden = f"{root / HIDDEN}/"
    assert [one.replace(hidden, "") for one in findings.notes] == ([note] if note else [])


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: flip(path, 9),
        lambda path: os.truncate(path, 9),
        lambda path: os.truncate(path, SIZE + 1),
    ],
)
def test_sums_alone_tell_damage_but_not_where(root: Path, harm: Callable[[Path], None]) -> None:
    remove_receipt(root / HIDDEN)
    harm(root / LARGE)
    (root / SMALL).unlink()
    findings = verify(root)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert findings.damaged == (
        replace(findings.damaged[0], path=LARGE, reason=f"its sha256 is not {sha256}", ranges=()),
    )
    assert findings.missing == (SMALL,)


@pytest.mark.parametrize(
    "spoils",
    [[remove_receipt, remove_sums], [spoil_receipt, spoil_sums], [spoil_receipt, remove_sums]],
)
def test_a_folder_without_papers(root: Path, spoils: list[Spoil]) -> None:
    for spoil in spoils:
        spoil(root / HIDDEN)
    with pytest.raises(SnapshotNotFoundError, match="has no receipt") as raised:
        verify(root)
    assert "verify DIR hf://" in raised.value.hint
    assert ("damaged" in str(raised.value)) == (spoil_receipt in spoils)


def test_a_folder_whose_download_has_not_ended(root: Path) -> None:
    remove_receipt(root / HIDDEN)
    (root / HIDDEN / SUMS).rename(root / HIDDEN / COMMITTED)
    with pytest.raises(SnapshotNotFoundError, match="a download has not ended there: run it again"):
        verify(root)


def test_sums_cannot_speak_of_what_is_outside(root: Path) -> None:
    remove_receipt(root / HIDDEN)
    (root.parent / "outside").write_bytes(b"")
    sums = root / HIDDEN / SUMS
    sums.write_text(f"{sums.read_text()}{hashlib.sha256().hexdigest()}  ../outside\n")
    findings = verify(root)
    assert (findings.files, findings.all_right) == (4, True)
    assert findings.notes == (f"1 line of {sums} cannot be used",)


def test_a_pipe_for_a_receipt_is_not_waited_for(root: Path) -> None:
    remove_receipt(root / HIDDEN)
    os.mkfifo(root / HIDDEN / ORIGIN)
    assert verify(root).against == "SHA256SUMS"


# --- while it reads -------------------------------------------------------------------------------


def test_progress_is_told_as_verifying(root: Path) -> None:
    samples: list[RunProgressed] = []
    verify(root, lambda event: samples.append(event) if isinstance(event, RunProgressed) else None)
    size = sum(map(len, FILES.values()))
    last = samples[-1]
    assert (last.bytes_done, last.bytes_total, last.bytes_received) == (size, size, 0)
    assert (last.files_done, last.files_total, last.verifying) == (4, 4, True)


async def test_a_cancel_ends_it_soon(root: Path) -> None:
    # Sparse: much to read and nothing on the disk.
    huge = root / "huge"
    huge.write_bytes(b"")
    os.truncate(huge, 1 << 40)
    remove_receipt(root / HIDDEN)
    sums = root / HIDDEN / SUMS
    sums.write_text("".join(f"{'0' * 64}  {name}\n" for name in (huge.name, LARGE)))
    begun = asyncio.Event()
    task = asyncio.create_task(
        averify(root, config=Config(offline=True), on_event=lambda _: begun.set())
    )
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    assert done, "it reads on"
    assert task.cancelled()
    assert not [one for one in threading.enumerate() if one.name.startswith("aim-verify")]


# --- the comparison -------------------------------------------------------------------------------


def reading_of(content: bytes, digest: Digest | None, listed: int | None = None) -> Reading:
    part = content[:listed]
    blocks = [int(crc32(part[at : at + BLOCK])) for at in range(0, len(part), BLOCK)]
    return Reading(State(1, len(content), 1), prove(part, digest), blocks)


def expected_of(content: bytes) -> Expected:
    proof = prove(content, None)
    return Expected("x", len(content), Digest("sha256", proof.sha256), proof.crc32s)


def damaged_of(expected: Expected, content: bytes) -> Damaged:
    damaged = compare(expected, reading_of(content, expected.digest, expected.size))
    assert damaged is not None
    return damaged


@pytest.mark.parametrize(
    ("content", "sound"),
    [
        (CONTENT[:STRETCH] + b"x" + CONTENT[STRETCH + 1 :], [0, 2]),
        (CONTENT[: 2 * STRETCH + 1], [0, 1]),
        (CONTENT[: 2 * STRETCH], [0, 1]),
        (CONTENT + b"x", [0, 1, 2]),
        (b"x" * SIZE, []),
        (b"", []),
    ],
)
def test_blocks_of_sound_stretches_are_kept(content: bytes, sound: list[int]) -> None:
    damaged = damaged_of(expected_of(CONTENT), content)
    starts = [start for start in range(0, SIZE, BLOCK) if start // STRETCH in sound]
    assert [block.range for block in damaged.sound] == [
        ByteRange(start, min(start + BLOCK, SIZE)) for start in starts
    ]
    assert all(
        block.crc32 == crc32(CONTENT[block.range.start : block.range.stop])
        for block in damaged.sound
    )


def test_crc32s_that_contradict_the_digest_are_not_trusted() -> None:
    wrong = b"x" + CONTENT[1:]
    expected = replace(expected_of(CONTENT), crc32s=prove(wrong, None).crc32s)
    damaged = damaged_of(expected, wrong)
    assert (damaged.ranges, damaged.sound) == ((), ())
    right = reading_of(CONTENT, expected.digest)
    assert compare(expected, right) is None


def test_git_digest() -> None:
    content = b"hello"
    git = hashlib.sha1(b"blob 5\0hello").hexdigest()
    expected = Expected("x", 5, Digest("git-sha1", git))
    assert compare(expected, reading_of(content, expected.digest)) is None
    assert damaged_of(expected, b"hellO").reason == f"its git-sha1 is not {git}"


# --- how it is told -------------------------------------------------------------------------------

FOUND = Findings("receipt", COMMIT, 3, 3 * MIB)
TORN = Damaged("a\x1b[2Jb", "why", (ByteRange(0, 5),))


@pytest.mark.parametrize(
    ("findings", "text"),
    [
        (FOUND, "3 files, 3 MiB, all right"),
        (
            replace(FOUND, damaged=(TORN,)),
            "damaged: a\N{REPLACEMENT CHARACTER}[2Jb: why\n1 of 3 files in dir is not right",
        ),
        (
            replace(FOUND, missing=("x", "y")),
            "missing: x\nmissing: y\n2 of 3 files in dir are not right",
        ),
        (
            replace(FOUND, mended=("x",), bytes_received=MIB),
            "mended: x\n1 MiB fetched\n3 files, 3 MiB, all right",
        ),
    ],
)
def test_findings_as_text(findings: Findings, text: str) -> None:
    assert findings_text.as_text(findings, Path("dir")) == text


def test_asides() -> None:
    found = replace(
        FOUND, notes=("a note",), moved_to="1" * 40, unknown=tuple(f"file{n}" for n in range(9))
    )
    assert findings_text.asides(found) == [
        "a note",
        "the branch has moved: it is at commit 111111111111 now, and this is 000000000000",
        "9 files that the receipt does not know: file0, file1, file2, …",
    ]


def test_findings_as_json() -> None:
    found = replace(FOUND, damaged=(TORN,), missing=("x",), unknown=("y",), moved_to="1" * 40)
    text = findings_text.as_json(found, Path("dir"))
    assert "\n" not in text
    assert json.loads(text) == {
        "directory": "dir",
        "against": "receipt",
        "commit": COMMIT,
        "movedTo": "1" * 40,
        "allRight": False,
        "files": 3,
        "bytes": 3 * MIB,
        "damaged": [
            {"path": TORN.path, "reason": "why", "ranges": [{"start": 0, "stop": 5}]},
        ],
        "missing": ["x"],
        "unknown": ["y"],
        "mended": [],
        "bytesReceived": 0,
        "notes": [],
    }
