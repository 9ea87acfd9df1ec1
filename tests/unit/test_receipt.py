"""The receipt: what it says is read back as it was, and what is damaged says nothing."""

import dataclasses
import hashlib
import json
import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_downloader.content_hash import STRETCH
from aim_downloader.journal import sealed
from aim_downloader.receipt import (
    COMMITTED,
    ORIGIN,
    SUMS,
    CommitLog,
    Origin,
    Record,
    parse_record,
    read_origin,
    write_origin,
    write_sums,
)
from aim_downloader.snapshot import MIB, Digest

SHA256 = "a" * 64
RECORD = Record("model.safetensors", 5, 1_700_000_000_123_456_789, f"sha256:{SHA256}", SHA256, (7,))
GIT_RECORD = Record("onnx/config.json", 0, 0, f"git-sha1:{'b' * 40}", "c" * 64, ())
OLD_RECORD = dataclasses.replace(RECORD, path="old.bin")
LEFT_RECORD = dataclasses.replace(RECORD, path="left.bin", found=True)
ORIGIN_OF_TWO = Origin(
    uri="hf://org/model@v1",
    repository="org/model",
    revision="v1",
    commit="0" * 40,
    subpath="",
    include=("*.json",),
    exclude=(),
    files={record.path: record for record in (RECORD, GIT_RECORD)},
    weight_format="safetensors",
    earlier={"old.bin": OLD_RECORD},
    outdated={"left.bin": LEFT_RECORD},
)

words = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
paths = st.lists(st.text("abcXYZ 0-_.%ü漢😀", min_size=1, max_size=8), min_size=1, max_size=3).map(
    lambda parts: "/".join(f"x{part}" for part in parts)
)
digests = st.just("") | hexes.map("sha256:{}".format) | hexes.map(lambda h: f"git-sha1:{h[:40]}")


@st.composite
def a_record(draw: st.DrawFn) -> Record:
    size = draw(st.integers(0, 4 * STRETCH))
    stretches = -(-size // STRETCH)
    numbers = st.lists(st.integers(0, 2**32 - 1), min_size=stretches, max_size=stretches)
    return Record(
        path=draw(paths),
        size=size,
        mtime_ns=draw(st.integers(0, 2**62)),
        digest=draw(digests),
        sha256=draw(hexes),
        crc32s=tuple(draw(numbers)),
        found=draw(st.booleans()),
    )


records = a_record()
some_records = st.lists(records, max_size=5, unique_by=lambda record: record.path)
origins = st.builds(
    Origin,
    uri=words,
    repository=words,
    revision=st.none() | words,
    commit=st.text("0123456789abcdef", min_size=40, max_size=40),
    subpath=words,
    include=st.lists(words, max_size=2).map(tuple),
    exclude=st.lists(words, max_size=2).map(tuple),
    files=some_records.map(lambda found: {record.path: record for record in found}),
    weight_format=st.none() | words,
    earlier=some_records.map(lambda found: {record.path: record for record in found}),
    outdated=some_records.map(lambda found: {record.path: record for record in found}),
)
rounds = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# -- origin.json -----------------------------------------------------------------------------------


@given(origin=origins)
@rounds
def test_an_origin_is_read_as_it_was_written(tmp_path: Path, origin: Origin) -> None:
    write_origin(tmp_path, origin)
    assert read_origin(tmp_path) == origin
    assert [path.name for path in tmp_path.iterdir()] == [ORIGIN]


def test_an_origin_of_before_formats_and_pruning_is_read(tmp_path: Path) -> None:
    write_origin(tmp_path, ORIGIN_OF_TWO)
    content = json.loads((tmp_path / ORIGIN).read_bytes())
    for name in ("crc32", "weight_format", "earlier", "outdated"):
        del content[name]
    check = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    (tmp_path / ORIGIN).write_text(json.dumps(content | {"crc32": f"{check:08x}"}))
    assert read_origin(tmp_path) == dataclasses.replace(
        ORIGIN_OF_TWO, weight_format=None, earlier={}, outdated={}
    )


def test_no_origin(tmp_path: Path) -> None:
    assert read_origin(tmp_path) is None
    assert read_origin(tmp_path / "none") is None


def test_a_folder_in_the_origins_place_is_none(tmp_path: Path) -> None:
    (tmp_path / ORIGIN).mkdir()
    assert read_origin(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b'"text"', b"\xff\xfe", bytes(100), b"[" * 100_000, b"9" * 5000],
    ids=lambda content: repr(content[:8]),
)
def test_what_is_no_origin_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ORIGIN).write_bytes(content)
    assert read_origin(tmp_path) is None


@pytest.mark.parametrize(
    "changed", [{"more": 1}, {"uri": "hf://org/other"}, {"files": []}], ids=str
)
def test_an_origin_that_somebody_edited_is_none(tmp_path: Path, changed: dict[str, object]) -> None:
    write_origin(tmp_path, ORIGIN_OF_TWO)
    content = json.loads((tmp_path / ORIGIN).read_bytes())
    (tmp_path / ORIGIN).write_text(json.dumps(content | changed))
    assert read_origin(tmp_path) is None


def test_an_origin_cut_anywhere_is_none(tmp_path: Path) -> None:
    write_origin(tmp_path, ORIGIN_OF_TWO)
    content = (tmp_path / ORIGIN).read_bytes()
    for at in range(len(content)):
        (tmp_path / ORIGIN).write_bytes(content[:at])
        assert read_origin(tmp_path) is None, content[:at]


def test_an_origin_damaged_anywhere_tells_no_lie_of_a_file(tmp_path: Path) -> None:
    """A record that is wrong would go on into SHA256SUMS with the next run."""
    write_origin(tmp_path, ORIGIN_OF_TWO)
    content = (tmp_path / ORIGIN).read_bytes()
    lies = []
    for at in range(len(content)):
        (tmp_path / ORIGIN).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        origin = read_origin(tmp_path)
        told = (origin.files, origin.earlier, origin.outdated) if origin else ()
        found = [record for records in told for record in records.values()]
        truth = (RECORD, GIT_RECORD, OLD_RECORD, LEFT_RECORD)
        lies += [at for record in found if record not in truth]
    assert lies == []


# -- records ---------------------------------------------------------------------------------------

AS_JSON = json.loads(json.dumps(RECORD.as_dict()))


@pytest.mark.parametrize("found", [True, False])
def test_a_record_is_read_from_its_json(found: bool) -> None:
    record = dataclasses.replace(RECORD, found=found)
    assert parse_record(json.loads(json.dumps(record.as_dict()))) == record


def test_of_a_file_that_old_receipts_know_a_run_is_said_to_have_brought_it() -> None:
    assert "found" not in AS_JSON
    assert parse_record(AS_JSON | {"found": True}) == dataclasses.replace(RECORD, found=True)


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, [AS_JSON]], ids=str)
def test_what_is_no_object_of_a_record_is_none(value: object) -> None:
    assert parse_record(value) is None


@pytest.mark.parametrize("missing", AS_JSON)
def test_a_record_lacks_nothing(missing: str) -> None:
    assert parse_record({name: AS_JSON[name] for name in AS_JSON if name != missing}) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"more": 1},
        {"path": None},
        {"path": 7},
        {"size": "5"},
        {"size": 5.0},
        {"size": -1},
        {"size": True},
        {"size": 16 * MIB + 1},
        {"mtime_ns": None},
        {"digest": None},
        {"digest": "no colon"},
        {"digest": "md5:abc"},
        {"sha256": 1},
        {"sha256": "abc"},
        {"sha256": SHA256.upper()},
        {"crc32s": None},
        {"crc32s": 7},
        {"crc32s": "abc"},
        {"crc32s": [None]},
        {"crc32s": []},
        {"crc32s": [1, 2]},
        {"found": 1},
        {"found": None},
    ],
    ids=str,
)
def test_a_record_with_another_value_is_none(changed: dict[str, object]) -> None:
    assert parse_record(AS_JSON | changed) is None


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside", "a/../../b", "", ".", "a//b", ".aim-downloader/lease"]
)
def test_a_record_of_a_path_that_leads_out_is_none(path: str) -> None:
    """A receipt may have come with the folder from somebody else."""
    assert parse_record(AS_JSON | {"path": path}) is None


def test_one_bad_record_does_not_spoil_the_others(tmp_path: Path) -> None:
    bad = dataclasses.replace(RECORD, path="/etc/passwd")
    files = {bad.path: bad, GIT_RECORD.path: GIT_RECORD}
    write_origin(tmp_path, dataclasses.replace(ORIGIN_OF_TWO, files=files))
    origin = read_origin(tmp_path)
    assert origin is not None
    assert origin.files == {GIT_RECORD.path: GIT_RECORD}


@pytest.mark.parametrize(
    ("record", "digest", "proven"),
    [
        (RECORD, Digest("sha256", SHA256), True),
        (RECORD, Digest("sha256", "b" * 64), False),
        (RECORD, Digest("git-sha1", "b" * 40), False),
        (RECORD, None, False),
        (GIT_RECORD, Digest("git-sha1", "b" * 40), True),
        (GIT_RECORD, Digest("sha256", "c" * 64), True),
        (GIT_RECORD, Digest("git-sha1", "c" * 40), False),
        (dataclasses.replace(RECORD, digest=""), None, False),
        (dataclasses.replace(RECORD, digest=""), Digest("sha256", SHA256), True),
    ],
)
def test_a_record_proves_what_was_verified(
    record: Record, digest: Digest | None, proven: bool
) -> None:
    assert record.proves(digest) is proven


@pytest.mark.parametrize(
    ("change", "untouched"),
    [
        (lambda path: None, True),
        (lambda path: path.write_bytes(b"longer than before"), False),
        (lambda path: os.truncate(path, 0), False),
        (lambda path: os.utime(path, ns=(0, 1)), False),
    ],
    ids=["nothing", "longer", "shorter", "touched"],
)
def test_a_record_tells_an_untouched_file(
    tmp_path: Path, change: Callable[[Path], object], untouched: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    record = dataclasses.replace(RECORD, size=5, mtime_ns=path.stat().st_mtime_ns)
    change(path)
    assert record.still(path.stat()) is untouched


# -- SHA256SUMS ------------------------------------------------------------------------------------


@given(found=some_records, data=st.data())
@rounds
def test_the_sums_depend_on_the_content_alone(found: list[Record], data: st.DataObject) -> None:
    """Neither the order of arrival, nor times, nor who vouched for what, may show."""
    others = [
        dataclasses.replace(record, mtime_ns=0, digest="", crc32s=())
        for record in data.draw(st.permutations(found))
    ]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        write_sums(Path(one), found)
        write_sums(Path(other), others)
        sums = (Path(one) / SUMS).read_bytes()
        assert sums == (Path(other) / SUMS).read_bytes()
    assert sums.count(b"\n") == len(found)


def test_the_sums_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["b", "a/b", "a", "a b", "ü", "Z", "a-b", "漢"]
    write_sums(tmp_path, [dataclasses.replace(RECORD, path=name) for name in names])
    lines = (tmp_path / SUMS).read_bytes().splitlines()
    found = [line.removeprefix(f"{SHA256}  ".encode()) for line in lines]
    assert found == sorted(name.encode() for name in names)


FILES = {
    "config.json": b"{}",
    "empty": b"",
    "with space  two": b"1",
    " leading": b"2",
    "trailing ": b"3",
    "percent%20.bin": b"4",
    "ünïcode/漢字.bin": b"5",
    "-dash": b"6",
    "*star": b"7",
    "quote'\".txt": b"8",
    "deep/er/file": b"9",
}


def test_sha256sum_accepts_the_sums(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    hidden = tmp_path / ".aim-downloader"
    hidden.mkdir()
    write_sums(
        hidden,
        [
            dataclasses.replace(RECORD, path=name, sha256=hashlib.sha256(content).hexdigest())
            for name, content in FILES.items()
        ],
    )
    command = ["sha256sum", "--check", "--strict", f"{hidden.name}/{SUMS}"]
    checked = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK\n") == len(FILES)

    (tmp_path / "-dash").write_bytes(b"damaged")
    checked = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert checked.returncode == 1


# -- committed -------------------------------------------------------------------------------------


@given(found=some_records)
@rounds
def test_the_log_is_read_as_it_was_written(found: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = CommitLog(Path(folder), "org/model")
        for record in found:
            log.append([record])
        assert log.read() == {record.path: record for record in found}


def test_the_latest_of_several_counts(tmp_path: Path) -> None:
    log = CommitLog(tmp_path, "org/model")
    later = dataclasses.replace(RECORD, mtime_ns=1)
    log.append([RECORD, GIT_RECORD])
    log.append([later])
    assert log.read() == {RECORD.path: later, GIT_RECORD.path: GIT_RECORD}


def test_what_was_committed_of_another_repository_does_not_count(tmp_path: Path) -> None:
    CommitLog(tmp_path, "org/other").append([RECORD])
    CommitLog(tmp_path, "org/model").append([GIT_RECORD])
    assert CommitLog(tmp_path, "org/model").read() == {GIT_RECORD.path: GIT_RECORD}


def test_no_log(tmp_path: Path) -> None:
    assert CommitLog(tmp_path, "org/model").read() == {}
    assert CommitLog(tmp_path / "none", "org/model").read() == {}


def test_a_folder_in_the_logs_place_says_nothing(tmp_path: Path) -> None:
    (tmp_path / COMMITTED).mkdir()
    assert CommitLog(tmp_path, "org/model").read() == {}


def test_a_log_harmed_at_any_byte_tells_no_lie(tmp_path: Path) -> None:
    log, path = CommitLog(tmp_path, "org/model"), tmp_path / COMMITTED
    log.append([RECORD])
    log.append([GIT_RECORD])
    content = path.read_bytes()
    for at in range(len(content)):
        head, byte, tail = content[:at], content[at], content[at + 1 :]
        for harmed in (head, head + tail, head + bytes([byte ^ 1]) + tail, head + b"\n" + tail):
            path.write_bytes(harmed)
            assert set(log.read().values()) <= {RECORD, GIT_RECORD}, harmed


def test_a_torn_log_can_be_gone_on_with(tmp_path: Path) -> None:
    log, path = CommitLog(tmp_path, "org/model"), tmp_path / COMMITTED
    log.append([RECORD])
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at])
        log.append([GIT_RECORD])
        assert log.read()[GIT_RECORD.path] == GIT_RECORD


@pytest.mark.parametrize(
    "text", ["", "not json", "null", "[]", "{}", "[" * 100_000], ids=lambda text: text[:8]
)
def test_a_sound_line_that_is_no_record_is_left_out(tmp_path: Path, text: str) -> None:
    log = CommitLog(tmp_path, "org/model")
    log.append([RECORD])
    with (tmp_path / COMMITTED).open("ab") as opened:
        opened.write(sealed(text, "org/model"))
    log.append([GIT_RECORD])
    assert set(log.read().values()) == {RECORD, GIT_RECORD}


def test_a_link_in_the_logs_place_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (tmp_path / COMMITTED).symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        CommitLog(tmp_path, "org/model").append([RECORD])
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("draft", [f"{SUMS}.new", f"{ORIGIN}.new"])
def test_a_link_in_a_drafts_place_is_not_written_through(tmp_path: Path, draft: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / draft).symlink_to(outside)
    write_sums(hidden, [RECORD])
    write_origin(hidden, ORIGIN_OF_TWO)
    assert outside.read_bytes() == b"mine"
    assert read_origin(hidden) == ORIGIN_OF_TWO


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    log = CommitLog(tmp_path, "org/model")
    log.append([RECORD])
    log.remove()
    log.remove()
    assert list(tmp_path.iterdir()) == []
