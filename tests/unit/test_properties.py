"""What holds for any input: text that people and servers send, bytes that a disk may show."""

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aim_downloader.errors import ConfigError, RangeNotHonouredError
from aim_downloader.journal import Block, Journal
from aim_downloader.names import HIDDEN, clash, fault_of, folded
from aim_downloader.protocols.answers import check_range
from aim_downloader.receipt import Origin, Record, parse_record, read_origin, write_origin
from aim_downloader.snapshot import ByteRange, ModelURI
from aim_downloader.twins import alike, refuse_twins
from aim_downloader.units import parse_bytes

# A failure prints what makes it happen again; a machine that is slow is no failure.
rounds: Callable[[Any], Any] = settings(deadline=None, max_examples=150, print_blob=True)


@contextmanager
def a_folder() -> Iterator[Path]:
    """One for each round: what an earlier one has left must not help."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


def spliced(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Some stretches replaced by other bytes."""
    for anywhere, length, other in edits:
        at = anywhere % (len(content) + 1)
        content = content[:at] + other + content[at + length :]
    return content


edits = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 80), st.binary(max_size=80)), max_size=4
)


# -- model URIs ------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        *("hf://", "org", "/", "model", "@", "main", "refs/pr/1", "%2F", "%00", "%", "..", "."),
        *("\n", "#", "?", ":", "\\", " ", "ü", "\ud800", "a" * 40, "datasets", "-"),
    ]
)


@given(st.lists(pieces, max_size=9).map("".join))
@rounds
def test_any_text_is_a_uri_that_is_read_as_it_is_written_or_a_config_error(text: str) -> None:
    try:
        uri = ModelURI.parse(text)
    except ConfigError:
        return
    assert ModelURI.parse(str(uri)) == uri
    assert ".." not in uri.repository.split("/")
    assert uri.name not in ("", ".", "..")


# -- paths -----------------------------------------------------------------------------------------

names = st.sampled_from(
    [
        *("a", "b", "..", ".", "...", "", " ", "\\", "\0", "\n", "~", HIDDEN, HIDDEN.upper(), "C:"),
        *("a" * 255, "ü" * 128, "\u202e", "\u2024\u2024", "\uff0f", "\uff0e\uff0e", "%2e%2e"),
    ]
)
hostile = st.text(max_size=30) | st.lists(names, max_size=5).map("/".join)


@given(hostile)
@rounds
def test_a_path_without_a_fault_is_a_file_below_the_target(path: str) -> None:
    """On this file system, as it is."""
    if fault_of(path):
        return
    with a_folder() as folder:
        target = folder / "target"
        (target / HIDDEN).mkdir(parents=True)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(b"x")
        found = (target / path).resolve(strict=True)
        assert found.relative_to(target).as_posix() == path
        assert found.read_bytes() == b"x"
        assert [path.name for path in folder.iterdir()] == ["target"]
        assert not list((target / HIDDEN).iterdir())


@given(st.text(max_size=20))
@rounds
@example("a/.")
def test_a_spelling_for_all_is_a_spelling_of_its_own(name: str) -> None:
    assert folded(folded(name)) == folded(name)


@given(st.lists(st.text("aAbü./", min_size=1, max_size=5), unique=True, max_size=8))
@rounds
def test_paths_clash_when_one_would_be_in_the_other(paths: list[str]) -> None:
    found = clash(paths)
    pairs = [(one, other) for one in paths for other in paths if other.startswith(f"{one}/")]
    assert found in pairs if pairs else found is None


@given(st.lists(st.text("aAuü\u0301\u0308", min_size=1, max_size=3), unique=True, max_size=8))
@rounds
def test_what_this_file_system_tells_apart_is_not_refused(names: list[str]) -> None:
    with a_folder() as folder:
        for name in names:
            (folder / name).touch()
        assume(len(list(folder.iterdir())) == len(names))
    with a_folder() as hidden:
        refuse_twins(hidden, names)
        assert not list(hidden.iterdir()), "nothing is left of the question"
    assert all(len(set(map(folded, group))) == 1 for group in alike(names))


# -- ranges ----------------------------------------------------------------------------------------

SIZE = 1000
numbers = st.integers(-5, 1100).map(str) | st.sampled_from(["", "*", "x", "9" * 30, "٣", "1_0"])
spans = st.tuples(numbers, numbers, numbers).map(lambda three: "bytes {}-{}/{}".format(*three))


@given(
    spans | st.text(max_size=30),
    st.none() | numbers,
    st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)),
)
@rounds
def test_any_content_range_is_a_part_of_what_was_asked_or_refused(
    content_range: str, length: str | None, asked: tuple[int, int]
) -> None:
    asked_for = ByteRange(*sorted(asked))
    headers = {"Content-Range": content_range}
    if length is not None:
        headers["Content-Length"] = length
    try:
        stop = check_range(headers, asked_for, SIZE)
    except RangeNotHonouredError:
        return
    assert asked_for.start < stop <= asked_for.stop
    assert content_range.strip().startswith(f"bytes {asked_for.start}-{stop - 1}/")


@given(st.integers(-3, 20), st.integers(-3, 20))
@rounds
def test_a_byte_range_never_runs_backwards(start: int, stop: int) -> None:
    try:
        piece = ByteRange(start, stop)
    except ValueError:
        assert start < 0 or stop < start
    else:
        assert list(range(start, stop)) == list(range(20 + len(piece)))[start:stop]


# -- the journal -----------------------------------------------------------------------------------

blocks = st.lists(
    st.builds(
        lambda start, length, crc32: Block(ByteRange(start, start + length), crc32),
        st.integers(0, 2**45),
        st.integers(1, 2**20),
        st.integers(0, 2**32 - 1),
    ),
    max_size=6,
)


@given(blocks, edits, st.booleans())
@rounds
def test_whatever_happens_to_a_journal_it_knows_nothing_but_what_was_written(
    written: list[Block], edits: list[tuple[int, int, bytes]], foreign: bool
) -> None:
    with a_folder() as folder:
        journal = Journal(folder / "journal", "1 sha256:ab")
        journal.begin()
        for block in written:
            journal.append(block)
        journal.close()
        content = (folder / "journal").read_bytes()
        (folder / "journal").write_bytes(spliced(content, edits))
        identity = "1 sha256:ac" if foreign else "1 sha256:ab"
        found = Journal(folder / "journal", identity).read()
    assert set(found) <= (set() if foreign else set(written))
    assert edits or foreign or found == written


@given(st.binary(max_size=400))
@rounds
def test_bytes_that_are_no_journal_know_nothing(content: bytes) -> None:
    with a_folder() as folder:
        (folder / "journal").write_bytes(content)
        assert Journal(folder / "journal", "1 sha256:ab").read() == []


# -- the receipt -----------------------------------------------------------------------------------

ORIGIN = Origin(
    uri="hf://org/model",
    repository="org/model",
    revision="main",
    commit="c" * 40,
    subpath="",
    include=("*.json",),
    exclude=(),
    files={
        "a/b.json": Record(
            path="a/b.json",
            size=5,
            mtime_ns=1_700_000_000_000_000_007,
            digest=f"sha256:{'a' * 64}",
            sha256="a" * 64,
            crc32s=(7,),
        )
    },
)


@functools.cache
def receipt() -> bytes:
    with a_folder() as folder:
        write_origin(folder, ORIGIN)
        return (folder / "origin.json").read_bytes()


@given(st.integers(0, 5000), st.binary(max_size=3), st.integers(0, 3))
@rounds
def test_a_damaged_receipt_is_none_or_as_it_was(at: int, other: bytes, length: int) -> None:
    content = spliced(receipt(), [(at, length, other)])
    with a_folder() as folder:
        (folder / "origin.json").write_bytes(content)
        assert read_origin(folder) in (None, ORIGIN)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile, inner, max_size=3),
    max_leaves=5,
)
RIGHT = json.loads(json.dumps(ORIGIN.files["a/b.json"].as_dict()))


@given(st.dictionaries(st.sampled_from(sorted(RIGHT)), values, max_size=3), values)
@rounds
def test_a_record_of_any_json_leads_nowhere_else(changed: dict[str, object], other: object) -> None:
    assert parse_record(other) is None or isinstance(other, dict)
    record = parse_record(RIGHT | changed)
    if record is not None:
        assert fault_of(record.path) == ""
        assert type(record.size) is int
        assert record.size >= 0


# -- numbers of bytes ------------------------------------------------------------------------------


@given(st.text("0123456789.kKmMgGtTiIbB -+e_٣", max_size=12) | st.text(max_size=8))
@rounds
def test_any_text_is_a_number_of_bytes_or_refused(text: str) -> None:
    try:
        count = parse_bytes(text)
    except ValueError:
        return
    assert count >= 0
    assert text.strip()[0].isascii()
    assert text.strip()[0].isdigit()


@given(st.integers(0, 10**6), st.sampled_from(["", "K", "M", "G", "T"]), st.booleans())
@rounds
def test_a_number_with_a_unit_is_that_many_bytes(count: int, unit: str, small: bool) -> None:
    text = f"{count}{unit.lower() if small else unit}"
    assert parse_bytes(text) == count * 1024 ** ["", "K", "M", "G", "T"].index(unit)
