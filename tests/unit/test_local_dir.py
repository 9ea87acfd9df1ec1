"""The target folder: what counts as there, what a run leaves, and what it may never touch."""

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_downloader.content_hash import SmallFile, prove
from aim_downloader.errors import DigestMismatchError, LeaseLostError, StorageError
from aim_downloader.partial import BLOCK, no_guard
from aim_downloader.receipt import Origin, Record, write_origin
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import Digest, RemoteFile

COMMIT = "c" * 40
HELLO = b"hello\n"

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


def git_file(path: str, content: bytes) -> RemoteFile:
    blob = hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False)
    return RemoteFile(path, len(content), Digest("git-sha1", blob.hexdigest()))


def lfs_file(path: str, content: bytes) -> RemoteFile:
    return RemoteFile(path, len(content), Digest("sha256", hashlib.sha256(content).hexdigest()))


def small(path: str, content: bytes = HELLO) -> SmallFile:
    file = git_file(path, content)
    return SmallFile(file, content, prove(content, file.digest))


def examine(sink: LocalDir, file: RemoteFile) -> Record | None:
    return sink.examine(file, lambda count: None, threading.Event())


def origin_of(sink: LocalDir) -> Origin:
    return Origin(
        uri="hf://org/model",
        repository="org/model",
        revision="main",
        commit=COMMIT,
        subpath="",
        include=(),
        exclude=(),
        files=dict(sink.known),
    )


def bring(sink: LocalDir, path: str, content: bytes = HELLO) -> RemoteFile:
    """A file that takes the way of the large ones."""
    file = lfs_file(path, content)
    partial = sink.open_partial(file, COMMIT)
    for start in range(0, len(content), BLOCK):
        partial.write_at(start, content[start : start + BLOCK])
    sink.commit(partial)
    return file


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder; a folder's content is None."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model"


def begun(root: Path, guard: Callable[[], None] = no_guard) -> LocalDir:
    """The sink of a run that holds the lease."""
    sink = LocalDir(root, guard)
    sink.prepare()
    sink.begin()
    return sink


@pytest.fixture
def sink(root: Path) -> LocalDir:
    return begun(root)


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


def test_only_the_receipt_is_left_beside_the_model(sink: LocalDir, root: Path) -> None:
    bring(sink, "model.safetensors", bytes(2 * BLOCK + 1))
    sink.commit_small([small("config.json"), small("onnx/config.json")])
    sink.publish(origin_of(sink))
    assert sorted(tree(root)) == [
        ".aim-downloader",
        ".aim-downloader/SHA256SUMS",
        ".aim-downloader/origin.json",
        "config.json",
        "model.safetensors",
        "onnx",
        "onnx/config.json",
    ]
    command = ["sha256sum", "-c", "--strict", ".aim-downloader/SHA256SUMS"]
    checked = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    assert checked.stdout.count(": OK\n") == 3, checked.stderr


def test_nothing_has_a_final_name_before_it_is_committed(sink: LocalDir, root: Path) -> None:
    file = lfs_file("model.safetensors", HELLO)
    partial = sink.open_partial(file, COMMIT)
    partial.write_at(0, HELLO)
    assert [path.name for path in root.iterdir()] == [".aim-downloader"]
    sink.commit(partial)
    assert (root / "model.safetensors").read_bytes() == HELLO


def test_wrong_bytes_get_no_name(sink: LocalDir, root: Path) -> None:
    partial = sink.open_partial(lfs_file("onnx/model.bin", HELLO), COMMIT)
    partial.write_at(0, HELLO.upper())
    with pytest.raises(DigestMismatchError):
        sink.commit(partial)
    assert not (root / "onnx" / "model.bin").exists()
    assert sink.known == {}
    partial.discard()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(sink: LocalDir, root: Path, name: str) -> None:
    file = bring(sink, name)
    assert (root / name).read_bytes() == HELLO
    assert sink.record_of(file)

    sink.commit_small([small(f"second/{name}")])
    assert (root / "second" / name).read_bytes() == HELLO

    sink.publish(origin_of(sink))
    later = LocalDir(root)
    later.look()
    assert later.record_of(file)


def test_a_later_run_replaces_what_changed(sink: LocalDir, root: Path) -> None:
    bring(sink, "model.bin", b"first")
    sink.commit_small([small("config.json", b"first")])
    bring(sink, "model.bin", b"second")
    sink.commit_small([small("config.json", b"second")])
    assert (root / "model.bin").read_bytes() == b"second"
    assert (root / "config.json").read_bytes() == b"second"


def test_an_earlier_file_stays_until_the_new_one_is_verified(sink: LocalDir, root: Path) -> None:
    bring(sink, "model.bin", b"first")
    partial = sink.open_partial(lfs_file("model.bin", b"second"), COMMIT)
    partial.write_at(0, b"wrong!")
    with pytest.raises(DigestMismatchError):
        sink.commit(partial)
    assert (root / "model.bin").read_bytes() == b"first"
    partial.discard()


def test_small_files_in_batches(sink: LocalDir, root: Path) -> None:
    sink.commit_small([])
    sink.commit_small([small(f"a/{n}.json", b"%d" % n) for n in range(40)])
    sink.commit_small([small(f"b/{n}.json", b"%d" % n) for n in range(40)] + [small("empty", b"")])
    for folder in ("a", "b"):
        found = {path.name: path.read_bytes() for path in (root / folder).iterdir()}
        assert found == {f"{n}.json": b"%d" % n for n in range(40)}
    assert (root / "empty").read_bytes() == b""
    assert len(sink.known) == 81


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
def test_a_record_counts_while_the_file_is_untouched(
    sink: LocalDir, root: Path, change: Callable[[Path], None], on_record: bool, right_size: bool
) -> None:
    file = bring(sink, "onnx/model.bin")
    change(root / "onnx" / "model.bin")
    assert bool(sink.record_of(file)) is on_record
    assert sink.of_right_size(file) is right_size


@pytest.mark.parametrize("published", [True, False], ids=["published", "killed before"])
def test_a_later_run_finds_the_records(sink: LocalDir, root: Path, published: bool) -> None:
    large = bring(sink, "model.bin", bytes(20 * BLOCK))
    sink.commit_small([small("config.json")])
    if published:
        sink.publish(origin_of(sink))
    later = LocalDir(root)
    later.look()
    assert later.known == sink.known
    assert later.record_of(large)
    assert later.record_of(git_file("config.json", HELLO))


def test_a_record_of_other_bytes_does_not_count(sink: LocalDir) -> None:
    bring(sink, "model.bin")
    assert not sink.record_of(lfs_file("model.bin", HELLO.upper()))
    assert not sink.record_of(lfs_file("other.bin", HELLO))
    assert not sink.record_of(RemoteFile("model.bin", len(HELLO), None))


def test_a_file_known_by_one_digest_is_known_by_the_other(sink: LocalDir) -> None:
    """A file of git may move to LFS in a later commit."""
    sink.commit_small([small("config.json")])
    assert sink.record_of(lfs_file("config.json", HELLO))


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
        (HELLO, lambda path, content: RemoteFile(path, len(content), None), False),
    ],
)
def test_a_file_that_no_record_speaks_of_is_read_through(
    root: Path, content: bytes, kind: Callable[[str, bytes], RemoteFile], right: bool
) -> None:
    root.mkdir()
    (root / "model.bin").write_bytes(content)
    sink, file = LocalDir(root), kind("model.bin", content)
    record = examine(sink, file)
    assert bool(record) is right
    assert list(root.iterdir()) == [root / "model.bin"]
    if record:
        sink = begun(root)
        sink.remember([record])
        assert sink.record_of(file) == record
        brought = bring(sink, "copy.bin", content)
        assert record.crc32s == prove(content, brought.digest).crc32s


def test_reading_through_tells_of_its_bytes_and_can_be_ended(root: Path) -> None:
    root.mkdir()
    content = bytes(3 * BLOCK + 1)
    (root / "model.bin").write_bytes(content)
    file, told, enough = lfs_file("model.bin", content), list[int](), threading.Event()
    assert LocalDir(root).examine(file, told.append, enough)
    assert sum(told) == len(content)
    enough.set()
    assert LocalDir(root).examine(file, told.append, enough) is None
    assert sum(told) == len(content)


def test_a_file_that_is_gone_is_told(sink: LocalDir) -> None:
    with pytest.raises(StorageError):
        examine(sink, lfs_file("none.bin", HELLO))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("path", ["/etc/passwd", "../outside/file.bin", "x/../../outside/file.bin"])
def test_a_receipt_cannot_speak_of_what_is_outside(
    sink: LocalDir, outside: Path, path: str
) -> None:
    found = (sink.root / path).stat() if (sink.root / path).exists() else os.stat_result([0] * 10)
    file = RemoteFile(path, found.st_size, Digest("sha256", "a" * 64))
    record = Record(path, found.st_size, found.st_mtime_ns, str(file.digest), "a" * 64, (1,))
    sink.known = {path: record}
    write_origin(sink.hidden, origin_of(sink))
    later = LocalDir(sink.root)
    later.look()
    assert later.known == {}
    assert not later.record_of(file)


# -- partials --------------------------------------------------------------------------------------


def test_a_later_run_goes_on_with_a_partial(sink: LocalDir, root: Path) -> None:
    file = lfs_file("model.bin", bytes(3 * BLOCK))
    partial = sink.open_partial(file, COMMIT)
    partial.write_at(BLOCK, bytes(BLOCK))
    partial.close()
    later = LocalDir(root)
    assert later.partial_bytes(file, COMMIT) == BLOCK
    partial = later.open_partial(file, COMMIT)
    assert partial.present == BLOCK
    partial.close()


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
    sink: LocalDir, before: RemoteFile, commit: str, after: RemoteFile, same: bool
) -> None:
    partial = sink.open_partial(before, COMMIT)
    partial.write_at(0, b"123")
    partial.close()
    assert sink.partial_bytes(after, commit) == (3 if same else 0)
    partial = sink.open_partial(after, commit)
    assert partial.present == (3 if same else 0)
    partial.discard()


def test_files_do_not_share_a_partial(sink: LocalDir) -> None:
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
        lambda sink: bring(sink, "model.bin"),
    ],
    ids=["small files", "publish", "partial"],
)
def test_who_lost_the_lease_gives_nothing_a_name(
    root: Path, act: Callable[[LocalDir], object]
) -> None:
    sink = begun(root, lost)
    with pytest.raises(LeaseLostError):
        act(sink)
    assert [path.name for path in root.iterdir()] == [".aim-downloader"]
    assert not [path for path in sink.hidden.iterdir() if path.is_file()]


# -- what stands in the way ------------------------------------------------------------------------


@pytest.mark.parametrize("act", [bring, lambda sink, path: sink.commit_small([small(path)])])
class TestInTheWay:
    """For large files and small ones alike."""

    Act = Callable[[LocalDir, str], object]

    def test_a_link_for_a_folder_is_refused(self, sink: LocalDir, outside: Path, act: Act) -> None:
        before = tree(outside)
        (sink.root / "onnx").symlink_to(outside)
        for path in ("onnx/file.bin", "onnx/new.bin", "onnx/partial/mine", "onnx/deep/new.bin"):
            with pytest.raises(StorageError, match="symlink") as caught:
                act(sink, path)
            assert caught.value.hint
        assert tree(outside) == before

    def test_a_link_that_leads_nowhere_is_refused(
        self, sink: LocalDir, tmp_path: Path, act: Act
    ) -> None:
        (sink.root / "onnx").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StorageError):
            act(sink, "onnx/model.bin")
        assert not (tmp_path / "nowhere").exists()

    def test_a_link_for_a_file_is_replaced_and_not_followed(
        self, sink: LocalDir, outside: Path, act: Act
    ) -> None:
        before = tree(outside)
        (sink.root / "model.bin").symlink_to(outside / "file.bin")
        act(sink, "model.bin")
        assert not (sink.root / "model.bin").is_symlink()
        assert (sink.root / "model.bin").read_bytes() == HELLO
        assert tree(outside) == before

    def test_a_file_for_a_folder_is_told(self, sink: LocalDir, act: Act) -> None:
        (sink.root / "onnx").write_bytes(b"a file of somebody's")
        with pytest.raises(StorageError) as caught:
            act(sink, "onnx/model.bin")
        assert caught.value.hint == "a file stands where a folder is needed: move it away"
        assert (sink.root / "onnx").read_bytes() == b"a file of somebody's"

    def test_a_folder_for_a_file_is_told(self, sink: LocalDir, act: Act) -> None:
        (sink.root / "model.bin").mkdir()
        with pytest.raises(StorageError) as caught:
            act(sink, "model.bin")
        assert caught.value.hint == "a folder stands where a file is needed: move it away"


@pytest.mark.parametrize("name", [".aim-downloader", ".aim-downloader/partial"])
def test_a_link_for_our_own_folder_is_refused(root: Path, outside: Path, name: str) -> None:
    before = tree(outside)
    (root / name).parent.mkdir(parents=True)
    (root / name).symlink_to(outside)
    with pytest.raises(StorageError, match="symlink"):
        begun(root)
    with pytest.raises(StorageError, match="symlink"):
        LocalDir(root).remove_unfinished()
    assert tree(outside) == before


def test_a_link_for_a_draft_is_not_written_through(sink: LocalDir, outside: Path) -> None:
    before = tree(outside)
    (sink.hidden / "small" / "0").symlink_to(outside / "file.bin")
    sink.commit_small([small("config.json")])
    assert (sink.root / "config.json").read_bytes() == HELLO
    assert tree(outside) == before


def test_the_target_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "model").symlink_to("real")
    sink = begun(tmp_path / "model")
    bring(sink, "onnx/model.bin")
    assert (tmp_path / "real" / "onnx" / "model.bin").read_bytes() == HELLO


def test_a_file_for_the_target_is_told(root: Path) -> None:
    root.write_bytes(b"mine")
    with pytest.raises(StorageError) as caught:
        begun(root)
    assert caught.value.hint
    assert root.read_bytes() == b"mine"


# -- cleaning up -----------------------------------------------------------------------------------


def test_what_is_unfinished_is_removed_and_told(sink: LocalDir, root: Path) -> None:
    bring(sink, "done.bin")
    partial = sink.open_partial(lfs_file("model.bin", bytes(2 * BLOCK)), COMMIT)
    partial.write_at(0, os.urandom(BLOCK))
    partial.close()
    (sink.hidden / "small" / "0").write_bytes(HELLO)
    removed, freed = sink.remove_unfinished()
    assert {path.suffix for path in removed} == {".partial", ".journal", ""}
    assert freed >= BLOCK
    assert not any(path.exists() for path in removed)
    assert (root / "done.bin").read_bytes() == HELLO
    later = LocalDir(root)
    later.look()
    assert later.record_of(lfs_file("done.bin", HELLO))


def test_a_link_among_the_partials_is_removed_and_not_followed(
    sink: LocalDir, outside: Path
) -> None:
    before = tree(outside)
    (sink.hidden / "partial" / "x.partial").symlink_to(outside / "file.bin")
    sink.remove_unfinished()
    assert not (sink.hidden / "partial" / "x.partial").is_symlink()
    assert tree(outside) == before


def test_all_that_is_unfinished_is_forgotten(sink: LocalDir, root: Path) -> None:
    bring(sink, "done.bin")
    sink.forget_unfinished()
    sink.leave()
    assert list(root.iterdir()) == [root / "done.bin"]


@pytest.mark.parametrize("forget", [LocalDir.remove_unfinished, LocalDir.forget_unfinished])
@pytest.mark.parametrize("exists", [True, False])
def test_where_nothing_is_unfinished_nothing_happens(
    root: Path, forget: Callable[[LocalDir], object], exists: bool
) -> None:
    if exists:
        root.mkdir()
        (root / "mine").write_bytes(b"mine")
    assert forget(LocalDir(root)) == ((), 0)
    assert tree(root.parent) == ({"model": None, "model/mine": b"mine"} if exists else {})


def test_a_published_model_stays_published(sink: LocalDir, root: Path) -> None:
    bring(sink, "model.bin")
    sink.publish(origin_of(sink))
    before = tree(root)
    LocalDir(root).forget_unfinished()
    assert tree(root) == before


@pytest.mark.parametrize("there_before", [True, False])
def test_a_run_that_brought_nothing_leaves_nothing(root: Path, there_before: bool) -> None:
    if there_before:
        root.mkdir()
    sink = begun(root)
    sink.tidy()
    sink.leave()
    assert root.exists() is there_before
    assert not sink.hidden.exists()


def test_a_folder_with_something_in_it_stays(sink: LocalDir, root: Path) -> None:
    (root / "mine").write_bytes(b"mine")
    sink.tidy()
    sink.leave()
    assert tree(root) == {"mine": b"mine"}


def test_who_waits_for_the_lease_finds_the_folder_of_the_lease_alone(root: Path) -> None:
    sink = LocalDir(root)
    sink.prepare()
    assert sink.lease_path.parent.is_dir()
    assert list(sink.hidden.iterdir()) == []


def test_a_run_knows_what_the_one_before_it_brought_while_it_waited(root: Path) -> None:
    waiting = LocalDir(root)
    waiting.prepare()
    file = bring(begun(root), "model.bin")
    waiting.begin()
    assert waiting.record_of(file)


def test_looking_writes_nothing(root: Path) -> None:
    sink = LocalDir(root)
    sink.look()
    assert (sink.origin, sink.known) == (None, {})
    assert sink.partial_bytes(lfs_file("model.bin", HELLO), COMMIT) == 0
    assert not root.exists()
