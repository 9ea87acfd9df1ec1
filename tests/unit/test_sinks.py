"""What every sink promises, whatever its layout: resuming, proving, publishing, tidying up."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from zlib_ng.zlib_ng import crc32

from aim_downloader.content_hash import prove
from aim_downloader.errors import DigestMismatchError, LeaseLostError, StorageError
from aim_downloader.journal import Block
from aim_downloader.names import HIDDEN
from aim_downloader.partial import BLOCK
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.choice import layouts_in
from aim_downloader.sinks.hf_cache import HfCache
from aim_downloader.sinks.layout import Layout
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import ByteRange, Digest, RemoteFile
from aim_downloader.storage import write_whole
from tests.unit.sinks import (
    COMMIT,
    HELLO,
    begun,
    bring,
    examine,
    git_file,
    lfs_file,
    origin_of,
    place_of,
    put,
    small,
    tree,
)

ODD_NAMES = [
    "with space.bin",
    " leading and trailing ",
    "ünïcode/漢字/😀.bin",
    "percent%20and%2F.bin",
    "-dash",
    "quote'\".bin",
    "*?[star].bin",
    "...",
    "..hidden",
    "~",
    "$HOME",
    "aim-downloader",
    "x" * 255,
    "/".join(["deep"] * 50),
]


@pytest.fixture(params=["plain", "hf-cache"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    """A model in a target that is not there yet."""
    target = tmp_path / "target"
    if request.param == "plain":
        return LocalDir(target)
    return HfCache(target / "models--org--model", COMMIT, "main")


@pytest.fixture
def sink(layout: Layout) -> Sink:
    return begun(layout)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of our business."""
    folder = tmp_path / "outside"
    (folder / "partial").mkdir(parents=True)
    (folder / "partial" / "mine").write_bytes(b"mine")
    (folder / "small").mkdir()
    (folder / "file.bin").write_bytes(b"mine")
    return folder


# -- a run from its begin to its end ---------------------------------------------------------------


def test_a_published_model_is_all_there_and_only_the_receipt_beside_it(sink: Sink) -> None:
    content = os.urandom(2 * BLOCK + 1)
    bring(sink, "model.safetensors", content)
    sink.commit_small([small("config.json"), small("onnx/config.json", b"{}"), small("e", b"")])
    sink.publish(origin_of(sink))
    expected = {"model.safetensors": content, "config.json": HELLO, "onnx/config.json": b"{}"}
    for path, right in {**expected, "e": b""}.items():
        assert (sink.root / path).read_bytes() == right
    assert set(tree(sink.hidden)) == {"SHA256SUMS", "origin.json"}
    sums = sink.hidden / "SHA256SUMS"
    command = ["sha256sum", "-c", "--strict", str(sums)]
    checked = subprocess.run(command, cwd=sink.root, check=False, capture_output=True, text=True)
    assert checked.stdout.count(": OK\n") == 4, checked.stderr


def test_nothing_has_a_final_name_before_it_is_committed(sink: Sink) -> None:
    file = lfs_file("model.safetensors", HELLO)
    partial = sink.open_partial(file, COMMIT)
    partial.write_at(0, HELLO)
    assert not place_of(sink, file).exists()
    assert not (sink.root / "model.safetensors").exists()
    sink.commit(partial)
    assert place_of(sink, file).read_bytes() == HELLO


def test_wrong_bytes_get_no_name(sink: Sink) -> None:
    file = lfs_file("onnx/model.bin", HELLO)
    partial = sink.open_partial(file, COMMIT)
    partial.write_at(0, HELLO.upper())
    with pytest.raises(DigestMismatchError):
        sink.commit(partial)
    assert not place_of(sink, file).exists()
    assert sink.known == {}
    partial.discard()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(sink: Sink, layout: Layout, name: str) -> None:
    file = bring(sink, name)
    sink.commit_small([small(f"second/{name}")])
    assert sink.record_of(file)
    sink.publish(origin_of(sink))
    assert (sink.root / name).read_bytes() == HELLO
    assert (sink.root / "second" / name).read_bytes() == HELLO
    later = Sink(layout)
    later.look()
    assert later.record_of(file)
    assert later.shows(file)


def test_small_files_in_batches(sink: Sink) -> None:
    sink.commit_small([])
    sink.commit_small([small(f"a/{n}.json", b"%d" % n) for n in range(40)])
    more = [small(f"b/{n}.json", b"%d" % n) for n in range(20, 60)]
    sink.commit_small([*more, small("empty", b"")])
    sink.publish(origin_of(sink))
    for folder, numbers in (("a", range(40)), ("b", range(20, 60))):
        found = {path.name: path.read_bytes() for path in (sink.root / folder).iterdir()}
        assert found == {f"{n}.json": b"%d" % n for n in numbers}
    assert (sink.root / "empty").read_bytes() == b""
    assert len(sink.known) == 81


def test_publishing_again_changes_nothing(sink: Sink, layout: Layout) -> None:
    bring(sink, "model.bin")
    sink.commit_small([small("onnx/config.json")])
    sink.publish(origin_of(sink))
    before = tree(layout.base)
    again = begun(layout)
    again.publish(origin_of(again))
    assert tree(layout.base) == before


# -- what counts as there --------------------------------------------------------------------------


def leave_alone(path: Path) -> None:
    pass


def remove(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    os.truncate(path, len(HELLO) + 1)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def folder_becomes_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "on_record", "right_size"),
    [
        (leave_alone, True, True),
        (remove, False, False),
        (grow, False, False),
        (touch, False, True),
        (become_folder, False, False),
        (become_link, False, False),
        (folder_becomes_link, False, False),
    ],
)
def test_a_record_counts_while_the_content_is_untouched(
    sink: Sink, change: Callable[[Path], None], on_record: bool, right_size: bool
) -> None:
    file = bring(sink, "onnx/model.bin")
    change(place_of(sink, file))
    assert bool(sink.record_of(file)) is on_record
    assert sink.untouched(sink.known[file.path]) is on_record
    assert sink.of_right_size(file) is right_size


@pytest.mark.parametrize("published", [True, False], ids=["published", "killed before"])
def test_a_later_run_finds_the_records(sink: Sink, layout: Layout, published: bool) -> None:
    large = bring(sink, "model.bin", bytes(20 * BLOCK))
    sink.commit_small([small("config.json")])
    if published:
        sink.publish(origin_of(sink))
    later = Sink(layout)
    later.look()
    assert later.known == sink.known
    assert later.record_of(large)
    assert later.record_of(git_file("config.json", HELLO))
    assert later.shows(large) or not published


def test_a_record_of_other_bytes_does_not_count(sink: Sink) -> None:
    bring(sink, "model.bin")
    assert not sink.record_of(lfs_file("model.bin", HELLO.upper()))
    assert not sink.record_of(git_file("other.bin", HELLO))
    assert not sink.record_of(RemoteFile("model.bin", len(HELLO), None))


@pytest.mark.parametrize(
    ("content", "kind", "right"),
    [
        (HELLO, lfs_file, True),
        (HELLO, git_file, True),
        (b"", lfs_file, True),
        (b"", git_file, True),
        (bytes(2 * BLOCK + 3), lfs_file, True),
        (bytes(16 * BLOCK), git_file, True),
        (HELLO.upper(), lambda path, content: lfs_file(path, HELLO), False),
        (HELLO * 2, lambda path, content: lfs_file(path, HELLO), False),
        (b"", lambda path, content: lfs_file(path, HELLO), False),
    ],
)
def test_a_file_that_no_record_speaks_of_is_read_through(
    layout: Layout, content: bytes, kind: Callable[[str, bytes], RemoteFile], right: bool
) -> None:
    sink, file = Sink(layout), kind("model.bin", content)
    put(sink, file, content)
    before = tree(layout.base)
    record = examine(sink, file)
    assert bool(record) is right
    assert tree(layout.base) == before
    if record:
        sink = begun(layout)
        sink.remember([record])
        assert sink.record_of(file) == replace(record, found=True)
        assert record.crc32s == prove(content, file.digest).crc32s


def test_reading_through_tells_of_its_bytes_and_can_be_ended(layout: Layout) -> None:
    content = bytes(3 * BLOCK + 1)
    sink, file = Sink(layout), lfs_file("model.bin", content)
    put(sink, file, content)
    told, enough = list[int](), threading.Event()
    assert sink.examine(file, told.append, enough)
    assert sum(told) == len(content)
    enough.set()
    assert sink.examine(file, told.append, enough) is None
    assert sum(told) == len(content)


@pytest.mark.parametrize("brought", [True, False])
def test_who_has_brought_a_file_is_known_when_its_time_changes(
    sink: Sink, layout: Layout, brought: bool
) -> None:
    """As in a copy of the folder: what a run has brought stays its own, what was there does not."""
    file = lfs_file("model.bin", HELLO)
    if brought:
        bring(sink, "model.bin")
    else:
        put(sink, file, HELLO)
    for when in (1, 2):
        os.utime(place_of(sink, file), (when, when))
        record = examine(sink, file)
        assert record
        sink.remember([record])
    later = Sink(layout)
    later.look()
    found = later.record_of(file)
    assert found
    assert found.found is not brought


def test_what_is_brought_in_the_place_of_somebodys_file_is_ours(sink: Sink) -> None:
    file = lfs_file("model.bin", HELLO)
    put(sink, file, HELLO)
    record = examine(sink, file)
    assert record
    sink.remember([record])
    place_of(sink, file).unlink()
    bring(sink, "model.bin")
    assert not sink.known["model.bin"].found


def test_a_file_that_is_gone_is_told(sink: Sink) -> None:
    with pytest.raises(StorageError):
        examine(sink, lfs_file("none.bin", HELLO))


# -- partials --------------------------------------------------------------------------------------


def test_a_later_run_goes_on_with_a_partial(sink: Sink, layout: Layout) -> None:
    content = os.urandom(3 * BLOCK)
    file = lfs_file("model.bin", content)
    partial = sink.open_partial(file, COMMIT)
    partial.write_at(BLOCK, content[BLOCK : 2 * BLOCK])
    partial.close()
    later = Sink(layout)
    assert later.partial_bytes(file, COMMIT) == BLOCK
    partial = later.open_partial(file, COMMIT)
    assert partial.present == BLOCK
    for start in (0, 2 * BLOCK):
        partial.write_at(start, content[start : start + BLOCK])
    later.commit(partial)
    assert place_of(later, file).read_bytes() == content


SHA256 = Digest("sha256", "a" * 64)


@pytest.mark.parametrize(
    ("before", "commit", "after", "same"),
    [
        (RemoteFile("m", 3, SHA256), COMMIT, RemoteFile("m", 3, SHA256), True),
        # A digest says what the bytes are, whatever the revision is called.
        (RemoteFile("m", 3, SHA256), "d" * 40, RemoteFile("m", 3, SHA256), True),
        (RemoteFile("m", 3, SHA256, "e1"), COMMIT, RemoteFile("m", 3, SHA256, "e2"), True),
        (RemoteFile("m", 3, SHA256), COMMIT, RemoteFile("n", 3, SHA256), False),
        (RemoteFile("m", 3, SHA256), COMMIT, RemoteFile("m", 4, SHA256), False),
        (
            RemoteFile("m", 3, SHA256),
            COMMIT,
            RemoteFile("m", 3, Digest("sha256", "b" * 64)),
            False,
        ),
        (RemoteFile("m", 3, None, "e"), COMMIT, RemoteFile("m", 3, None, "e"), True),
        (RemoteFile("m", 3, None, "e"), "d" * 40, RemoteFile("m", 3, None, "e"), False),
        (RemoteFile("m", 3, None, "e"), COMMIT, RemoteFile("m", 3, None, "other"), False),
    ],
)
def test_whose_bytes_a_partial_holds(
    sink: Sink, before: RemoteFile, commit: str, after: RemoteFile, same: bool
) -> None:
    partial = sink.open_partial(before, COMMIT)
    partial.write_at(0, b"123")
    partial.close()
    assert sink.partial_bytes(after, commit) == (3 if same else 0)
    partial = sink.open_partial(after, commit)
    assert partial.present == (3 if same else 0)
    partial.discard()


class Pausing:
    """A guard whose run is suspended behind it, once, until it is told to go on."""

    def __init__(self) -> None:
        self.is_waiting, self.go_on = threading.Event(), threading.Event()
        self.armed = False

    def __call__(self) -> None:
        if self.armed:
            self.armed = False
            self.is_waiting.set()
            assert self.go_on.wait(30)


def late(guard: Pausing, act: Callable[[], object]) -> threading.Thread:
    """A run that was allowed to write, and does so when another one has the folder."""
    guard.armed = True
    thread = threading.Thread(target=act)
    thread.start()
    assert guard.is_waiting.wait(30)
    return thread


def test_who_writes_late_does_not_write_to_another_revision(layout: Layout) -> None:
    old, new = os.urandom(2 * BLOCK), os.urandom(2 * BLOCK)
    guard = Pausing()
    partial = begun(layout, guard).open_partial(lfs_file("model.bin", old), COMMIT)
    partial.write_at(0, old[:BLOCK])
    thread = late(guard, lambda: partial.write_at(BLOCK, old[BLOCK:]))
    sink = begun(layout)
    file = bring(sink, "model.bin", new)
    guard.go_on.set()
    thread.join()
    assert place_of(sink, file).read_bytes() == new


def test_what_was_brought_of_another_revision_is_removed(sink: Sink) -> None:
    old, new = lfs_file("model.bin", bytes(2 * BLOCK)), lfs_file("model.bin", HELLO)
    partial = sink.open_partial(old, COMMIT)
    partial.write_at(0, bytes(BLOCK))
    partial.close()
    beside = sink.open_partial(lfs_file("beside.bin", HELLO), COMMIT)
    # Its disk is to be had, for whichever content.
    allocated = sink.allocated_bytes([new, lfs_file("none.bin", HELLO)])
    assert allocated.keys() == {new.path}
    assert allocated[new.path] >= BLOCK
    partial = sink.open_partial(new, COMMIT)
    left = {path for path in (sink.hidden / "partial").iterdir() if path.suffix == ".partial"}
    assert left == {partial.path, beside.path}
    assert sink.partial_bytes(old, COMMIT) == 0
    assert sink.allocated_bytes([old])[old.path] < BLOCK
    partial.close()
    beside.close()


def test_who_has_lost_the_lease_removes_nothing(layout: Layout) -> None:
    partial = begun(layout).open_partial(lfs_file("model.bin", HELLO), COMMIT)
    with pytest.raises(LeaseLostError):
        begun(layout, lost).open_partial(lfs_file("model.bin", b"other"), COMMIT)
    assert partial.path.exists()
    partial.close()


def test_files_do_not_share_a_partial(sink: Sink) -> None:
    names = ["a/b", "a-b", "a", "A", "ä", "a/b.partial", "a/b.journal"]
    partials = [sink.open_partial(lfs_file(name, HELLO), COMMIT) for name in names]
    assert len({partial.path for partial in partials}) == len(names)
    for partial in partials:
        partial.close()


# -- what may not be written -----------------------------------------------------------------------


def lost() -> None:
    raise LeaseLostError("lost")


@pytest.mark.parametrize(
    "act",
    [
        lambda sink: sink.commit_small([small("config.json")]),
        lambda sink: sink.publish(origin_of(sink)),
        lambda sink: sink.write_receipt(origin_of(sink)),
        lambda sink: bring(sink, "model.bin"),
    ],
    ids=["small files", "publish", "receipt", "partial"],
)
def test_who_lost_the_lease_gives_nothing_a_name(
    layout: Layout, act: Callable[[Sink], object]
) -> None:
    sink = begun(layout, lost)
    with pytest.raises(LeaseLostError):
        act(sink)
    found = {name for name, content in tree(layout.base).items() if content is not None}
    ours = sink.hidden.relative_to(layout.base).as_posix()
    assert not {name for name in found if not name.startswith((f"{ours}/small/", f"{ours}/part"))}


def test_who_lost_the_lease_prunes_nothing(sink: Sink, layout: Layout) -> None:
    file = bring(sink, "model.bin")
    with pytest.raises(LeaseLostError):
        list(Sink(layout, lost).prune(sink.known.values()))
    assert place_of(sink, file).read_bytes() == HELLO


# -- what stands in the way ------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["large", "small"])
def test_a_link_for_a_content_is_replaced_and_not_followed(
    sink: Sink, outside: Path, way: str
) -> None:
    before = tree(outside)
    file = lfs_file("model.bin", HELLO) if way == "large" else git_file("model.bin", HELLO)
    place = place_of(sink, file)
    place.symlink_to(outside / "file.bin")
    assert not sink.of_right_size(file)
    if way == "large":
        bring(sink, "model.bin")
    else:
        sink.commit_small([small("model.bin")])
    assert not place.is_symlink()
    assert place.read_bytes() == HELLO
    assert tree(outside) == before


def test_a_folder_for_a_content_is_told(sink: Sink) -> None:
    place_of(sink, lfs_file("model.bin", HELLO)).mkdir()
    with pytest.raises(StorageError) as caught:
        bring(sink, "model.bin")
    assert caught.value.hint == "a folder stands where a file is needed: move it away"


def test_a_link_for_any_of_our_own_folders_is_refused(layout: Layout, outside: Path) -> None:
    before = tree(outside)
    layout.base.mkdir()
    hidden = layout.folders[-1]
    for folder in (*layout.folders, hidden / "partial", hidden / "small", hidden / "scratch"):
        folder.symlink_to(outside)
        with pytest.raises(StorageError, match="symlink"):
            begun(layout)
        with pytest.raises(StorageError, match="symlink"):
            Sink(layout).remove_unfinished()
        assert tree(outside) == before
        folder.unlink()
        folder.mkdir()


def test_a_link_for_a_folder_of_the_model_is_refused(sink: Sink, outside: Path) -> None:
    """At the latest when the snapshot is to be shown."""
    before = tree(outside)
    sink.root.mkdir(exist_ok=True)
    (sink.root / "onnx").symlink_to(outside)
    for path in ("onnx/file.bin", "onnx/new.bin", "onnx/partial/mine", "onnx/deep/new.bin"):
        with pytest.raises(StorageError, match="symlink") as caught:  # noqa: PT012
            bring(sink, path)
            sink.publish(origin_of(sink))
        assert caught.value.hint
    assert tree(outside) == before


def test_a_link_for_a_draft_is_not_written_through(sink: Sink, outside: Path) -> None:
    before = tree(outside)
    (sink.hidden / "small" / "0").symlink_to(outside / "file.bin")
    sink.commit_small([small("config.json")])
    assert tree(outside) == before


def test_the_target_itself_may_be_a_link(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    layout.base.symlink_to("real")
    sink = begun(layout)
    bring(sink, "onnx/model.bin")
    sink.publish(origin_of(sink))
    real = tmp_path / "real" / sink.root.relative_to(layout.base)
    assert (real / "onnx" / "model.bin").read_bytes() == HELLO


def test_a_file_for_the_target_is_told(layout: Layout) -> None:
    layout.base.write_bytes(b"mine")
    with pytest.raises(StorageError) as caught:
        begun(layout)
    assert caught.value.hint
    assert layout.base.read_bytes() == b"mine"


# -- cleaning up -----------------------------------------------------------------------------------


def test_what_is_unfinished_is_removed_and_told(sink: Sink, layout: Layout) -> None:
    done = bring(sink, "done.bin")
    partial = sink.open_partial(lfs_file("model.bin", bytes(2 * BLOCK)), COMMIT)
    partial.write_at(0, os.urandom(BLOCK))
    partial.close()
    (sink.hidden / "small" / "0").write_bytes(HELLO)
    removed, freed = sink.remove_unfinished()
    assert {path.suffix for path in removed} == {".partial", ".journal", ""}
    assert freed >= BLOCK
    assert not any(path.exists() for path in removed)
    assert place_of(sink, done).read_bytes() == HELLO
    later = Sink(layout)
    later.look()
    assert later.record_of(done)


def test_a_heartbeat_meanwhile_is_no_failure(sink: Sink) -> None:
    ended = threading.Event()

    def beat() -> None:
        while not ended.is_set():
            with contextlib.suppress(FileNotFoundError):  # its draft was taken away
                write_whole(sink.hidden / "lease", HELLO, sync=False)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        for _ in range(500):
            sink.remove_unfinished()
    finally:
        ended.set()
        beating.join()


def left(sink: Sink, file: RemoteFile, commit: str = COMMIT) -> None:
    """What a run that was killed leaves of a file."""
    partial = sink.open_partial(file, commit)
    partial.write_at(0, bytes(BLOCK))
    partial.close()


def test_publishing_keeps_what_can_be_gone_on_with(sink: Sink, layout: Layout) -> None:
    """Of files of the commit that were not asked for; of no others."""
    others = [lfs_file(name, bytes(2 * BLOCK)) for name in ("wider.bin", "more/wider.bin")]
    changed, gone = (
        lfs_file("changed.bin", bytes(2 * BLOCK)),
        lfs_file("gone.bin", bytes(2 * BLOCK)),
    )
    for file in (*others, changed, gone):
        left(sink, file)
    asked = bring(sink, "model.bin")
    listing = [asked, *others, lfs_file("changed.bin", bytes(BLOCK))]
    listing = [replace(file, blob_id="b" * 40) for file in listing]
    sink.publish(origin_of(sink), listing)
    later = Sink(layout)
    resumable = {file.path: later.partial_bytes(file, COMMIT) for file in (*others, changed, gone)}
    assert resumable == {
        **{file.path: BLOCK for file in others},
        "changed.bin": 0,
        "gone.bin": 0,
    }
    assert len(list((sink.hidden / "partial").iterdir())) == 2 * len(others)
    later.forget_unfinished()
    assert set(tree(sink.hidden)) == {"SHA256SUMS", "origin.json"}


def test_a_receipt_written_anew_leaves_all_else(sink: Sink, layout: Layout) -> None:
    bring(sink, "model.bin")
    left(sink, lfs_file("wider.bin", bytes(2 * BLOCK)))
    before = tree(sink.hidden)
    sink.write_receipt(origin_of(sink))
    written = tree(sink.hidden)
    assert set(written) == {*before, "SHA256SUMS", "origin.json"}
    assert {name: written[name] for name in before} == before
    later = Sink(layout)
    later.look()
    assert later.origin == origin_of(sink)


def test_what_is_pruned_is_told_before_the_disk_refuses_the_next(tmp_path: Path) -> None:
    sink = begun(LocalDir(tmp_path / "target"))
    for path in ("one/a.bin", "two/b.bin"):
        bring(sink, path)
    records = sink.prune(sink.known.values())
    assert next(records).path == "one/a.bin"
    assert not (sink.root / "one").exists()
    assert (sink.root / "two/b.bin").exists()
    assert [record.path for record in records] == ["two/b.bin"]


def test_a_link_among_the_partials_is_removed_and_not_followed(sink: Sink, outside: Path) -> None:
    before = tree(outside)
    (sink.hidden / "partial" / "x.partial").symlink_to(outside / "file.bin")
    sink.remove_unfinished()
    assert not (sink.hidden / "partial" / "x.partial").is_symlink()
    assert tree(outside) == before


def scratch_of_a_dead_run(sink: Sink) -> Path:
    left = sink.scratch / "aim-downloader-7-abc" / "xet"
    left.mkdir(parents=True)
    (left / "log").write_bytes(HELLO)
    return left


def test_a_run_begins_without_what_engines_of_a_dead_one_have_left(layout: Layout) -> None:
    scratch_of_a_dead_run(begun(layout))
    sink = begun(layout)
    assert not sink.scratch.exists()


def test_what_engines_of_a_dead_run_have_left_is_no_complete_model(
    sink: Sink, layout: Layout
) -> None:
    bring(sink, "model.bin")
    sink.publish(origin_of(sink))
    assert sink.is_tidy()
    scratch_of_a_dead_run(sink)
    assert not sink.is_tidy()
    removed, _ = Sink(layout).remove_unfinished()
    assert [path.name for path in removed] == ["aim-downloader-7-abc"]
    assert sink.is_tidy()


def test_all_that_is_unfinished_is_forgotten(sink: Sink, layout: Layout) -> None:
    done = bring(sink, "done.bin")
    sink.forget_unfinished()
    sink.leave()
    files = {name for name, content in tree(layout.base).items() if content is not None}
    assert files == {sink.same_content(done)}
    assert not sink.hidden.exists()


@pytest.mark.parametrize("forget", [Sink.remove_unfinished, Sink.forget_unfinished])
@pytest.mark.parametrize("exists", [True, False])
def test_where_nothing_is_unfinished_nothing_happens(
    layout: Layout, forget: Callable[[Sink], object], exists: bool
) -> None:
    if exists:
        layout.base.mkdir()
        (layout.base / "mine").write_bytes(b"mine")
    assert forget(Sink(layout)) == ((), 0)
    target = {"target": None, "target/mine": b"mine"} if exists else {}
    assert tree(layout.base.parent) == target


def test_a_published_model_stays_published(sink: Sink, layout: Layout) -> None:
    bring(sink, "model.bin")
    sink.publish(origin_of(sink))
    before = tree(layout.base)
    later = Sink(layout)
    later.forget_unfinished()
    later.leave()
    assert tree(layout.base) == before


@pytest.mark.parametrize("there_before", [True, False])
def test_a_run_that_brought_nothing_leaves_nothing(layout: Layout, there_before: bool) -> None:
    if there_before:
        layout.base.mkdir()
    sink = begun(layout)
    sink.tidy()
    sink.leave()
    assert layout.base.exists() is there_before
    assert tree(layout.base) == {}


def test_a_folder_with_something_in_it_stays(sink: Sink, layout: Layout) -> None:
    (layout.base / "mine").write_bytes(b"mine")
    sink.tidy()
    sink.leave()
    assert tree(layout.base) == {"mine": b"mine"}


def test_who_waits_for_the_lease_finds_the_folder_of_the_lease_alone(layout: Layout) -> None:
    sink = Sink(layout)
    sink.prepare()
    assert sink.lease_path.parent.is_dir()
    assert list(sink.hidden.iterdir()) == []


def test_a_run_knows_what_the_one_before_it_brought_while_it_waited(layout: Layout) -> None:
    waiting = Sink(layout)
    waiting.prepare()
    file = bring(begun(layout), "model.bin")
    waiting.begin()
    assert waiting.record_of(file)


def test_looking_writes_nothing(layout: Layout) -> None:
    sink = Sink(layout)
    sink.look()
    assert (sink.origin, sink.known) == (None, {})
    assert sink.partial_bytes(lfs_file("model.bin", HELLO), COMMIT) == 0
    assert not layout.base.exists()


# -- repair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o400])
def test_of_a_damaged_file_what_is_right_is_gone_on_with(sink: Sink, mode: int) -> None:
    """Also where its owner has taken the right to write to it from everybody."""
    content = os.urandom(2 * BLOCK)
    file = bring(sink, "model.bin", content)
    place_of(sink, file).chmod(mode)
    sink.set_aside(file, COMMIT, [Block(ByteRange(0, BLOCK), crc32(content[:BLOCK]))])
    assert not place_of(sink, file).exists()
    assert sink.record_of(file) is None
    assert sink.partial_bytes(file, COMMIT) == BLOCK
    partial = sink.open_partial(file, COMMIT)
    assert partial.missing() == [ByteRange(BLOCK, 2 * BLOCK)]
    assert partial.path.stat().st_mode & 0o600 == 0o600
    partial.close()


# -- names and links in a cache --------------------------------------------------------------------

XET = "ab" + "0" * 62


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:../../../x", f"sha256:{'A' * 64}", f"sha256:{'a' * 40}/../x", "a" * 64],
)
def test_what_is_no_digest_names_no_blob(tmp_path: Path, digest: str) -> None:
    cache = HfCache(tmp_path / "models--org--model", COMMIT)
    with pytest.raises(StorageError):
        cache.place("model.bin", digest)
    assert cache.content("model.bin", digest) is None


@pytest.mark.parametrize(
    ("link", "counts"),
    [
        (f"../../blobs/ab/{XET}", True),
        (f"../../blobs/00/{XET}", False),
        (f"../../blobs/ab/../ab/{XET}", False),
        (f"../../../target/blobs/ab/{XET}", False),
        ("../../blobs/ab/link", False),
        (f"../../blobs/ab/{XET[:-1]}1", False),
        (f"../../blobs/cd/cd{XET[2:]}", False),
        (f"{{base}}/blobs/ab/{XET}", False),
        ("../../../outside/file.bin", False),
    ],
)
def test_which_links_of_a_blob_are_followed(
    tmp_path: Path, outside: Path, link: str, counts: bool
) -> None:
    """Only as huggingface_hub writes them, to plain files in its own store in the same cache."""
    cache = HfCache(tmp_path / "target" / "models--org--model", COMMIT)
    sink, file = begun(cache), lfs_file("model.bin", b"mine")
    store = cache.base / "blobs" / "ab"
    store.mkdir(parents=True)
    (store / XET).write_bytes(b"mine")
    (store / f"{XET[:-1]}1").symlink_to(outside / "file.bin")
    (store / "link").symlink_to(outside / "file.bin")
    (cache.base / "blobs" / "cd").symlink_to(store)
    (store / f"cd{XET[2:]}").write_bytes(b"mine")
    place_of(sink, file).symlink_to(link.format(base=cache.base))
    assert sink.of_right_size(file) is counts


@pytest.mark.parametrize("last", [0, 1], ids=["the earlier bytes stay", "the later bytes stay"])
def test_a_blob_that_two_commits_brought_is_known_to_both(tmp_path: Path, last: int) -> None:
    model = tmp_path / "models--org--model"
    layouts = [HfCache(model, "a" * 40), HfCache(model, "b" * 40)]
    sinks = [begun(layout) for layout in layouts]
    file = lfs_file("model.bin", HELLO)
    partials = [sink.open_partial(file, COMMIT) for sink in sinks]
    for when, partial in enumerate(partials):
        partial.write_at(0, HELLO)
        os.utime(partial.path, ns=(when, when))
    for number in (1 - last, last):
        sinks[number].commit(partials[number])
    for layout in layouts:
        later = Sink(layout)
        later.look()
        assert later.record_of(file)


def test_a_content_that_another_program_brings_too_is_known_under_both_names(
    tmp_path: Path,
) -> None:
    sink = begun(HfCache(tmp_path / "models--org--model", COMMIT))
    file = bring(sink, "a.bin")
    twin = replace(file, path="b.bin")
    blob = place_of(sink, file)
    blob.with_name("theirs").write_bytes(HELLO)
    blob.with_name("theirs").replace(blob)
    sink.adopt([twin])
    sink.publish(origin_of(sink))
    assert (sink.root / "b.bin").read_bytes() == HELLO


# -- finding what runs have left -------------------------------------------------------------------


def test_a_layout_is_found_in_what_it_has_left(sink: Sink, layout: Layout) -> None:
    [found] = layouts_in(layout.base)
    assert found.folders == layout.folders
    bring(sink, "model.bin")
    sink.publish(origin_of(sink))
    # The folder that a run has returned.
    [found] = layouts_in(layout.root)
    assert (found.root, found.folders) == (layout.root, layout.folders)


def test_all_commits_of_all_models_of_a_cache_are_found(tmp_path: Path) -> None:
    model, other = tmp_path / "models--org--model", tmp_path / "models--bare"
    expected = [HfCache(other, "d" * 40), HfCache(model, "a" * 40), HfCache(model, COMMIT)]
    for one in expected:
        begun(one)
    (model / HIDDEN / "no commit").mkdir()
    (tmp_path / "models--a--file").write_bytes(b"")
    assert layouts_in(tmp_path) == expected
    assert layouts_in(model) == expected[1:]
    assert layouts_in(tmp_path / "none") == []
