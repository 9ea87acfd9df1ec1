"""A plain folder: files under their own names, beside whatever else is there."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_downloader.errors import DigestMismatchError, StorageError
from aim_downloader.receipt import Record, write_origin
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.layout import Content
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import Digest, RemoteFile
from tests.unit.sinks import COMMIT, HELLO, begun, bring, examine, lfs_file, origin_of, small, tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def sink(root: Path) -> Sink:
    return begun(LocalDir(root))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of our business."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file.bin").write_bytes(b"mine")
    return folder


def test_only_the_receipt_is_left_beside_the_model(sink: Sink, root: Path) -> None:
    bring(sink, "model.safetensors")
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


def test_a_file_has_its_name_as_soon_as_it_is_verified(sink: Sink, root: Path) -> None:
    bring(sink, "onnx/model.bin")
    sink.commit_small([small("config.json")])
    assert (root / "onnx" / "model.bin").read_bytes() == HELLO
    assert (root / "config.json").read_bytes() == HELLO


def test_a_later_run_replaces_what_changed(sink: Sink, root: Path) -> None:
    bring(sink, "model.bin", b"first")
    sink.commit_small([small("config.json", b"first")])
    bring(sink, "model.bin", b"second")
    sink.commit_small([small("config.json", b"second")])
    assert (root / "model.bin").read_bytes() == b"second"
    assert (root / "config.json").read_bytes() == b"second"


@pytest.mark.parametrize("becomes", ["link", "pipe"])
def test_what_another_has_put_there_at_the_last_moment_is_not_read(
    root: Path, outside: Path, becomes: str
) -> None:
    class Racing(LocalDir):
        def content(self, path: str, digest: str) -> Content | None:
            found = super().content(path, digest)
            (root / path).unlink()
            if becomes == "link":
                (root / path).symlink_to(outside / "file.bin")
            else:
                os.mkfifo(root / path)
            return found

    root.mkdir()
    (root / "model.bin").write_bytes(b"mine")
    with pytest.raises(StorageError) as caught:
        examine(Sink(Racing(root)), lfs_file("model.bin", b"mine"))
    assert caught.value.hint


def test_a_place_that_cannot_be_looked_at_is_told(root: Path) -> None:
    path = "/".join(["d" * 100] * 29)
    sink = Sink(LocalDir(root.joinpath(*["deep" * 50] * 10)))
    with pytest.raises(StorageError, match="too long"):
        sink.would_replace(lfs_file(path, HELLO), there=False)


def test_an_earlier_file_stays_until_the_new_one_is_verified(sink: Sink, root: Path) -> None:
    bring(sink, "model.bin", b"first")
    partial = sink.open_partial(lfs_file("model.bin", b"second"), COMMIT)
    partial.write_at(0, b"wrong!")
    with pytest.raises(DigestMismatchError):
        sink.commit(partial)
    assert (root / "model.bin").read_bytes() == b"first"
    partial.discard()


def test_a_file_known_by_one_digest_is_known_by_the_other(sink: Sink) -> None:
    """A file of git may move to LFS in a later commit."""
    sink.commit_small([small("config.json")])
    assert sink.record_of(lfs_file("config.json", HELLO))


def test_a_record_says_nothing_of_another_file(sink: Sink, root: Path) -> None:
    """Not even of one that was copied with its time: who copied it may have changed it."""
    bring(sink, "model.bin")
    found = (root / "model.bin").stat()
    (root / "other.bin").write_bytes(HELLO.upper())
    os.utime(root / "other.bin", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert not sink.record_of(lfs_file("other.bin", HELLO))


def test_a_file_without_a_digest_is_never_known(root: Path) -> None:
    root.mkdir()
    (root / "model.bin").write_bytes(HELLO)
    assert examine(Sink(LocalDir(root)), RemoteFile("model.bin", len(HELLO), None)) is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("path", ["/etc/passwd", "../outside/file.bin", "x/../../outside/file.bin"])
def test_a_receipt_cannot_speak_of_what_is_outside(sink: Sink, outside: Path, path: str) -> None:
    found = (sink.root / path).stat() if (sink.root / path).exists() else os.stat_result([0] * 10)
    file = RemoteFile(path, found.st_size, Digest("sha256", "a" * 64))
    record = Record(path, found.st_size, found.st_mtime_ns, str(file.digest), "a" * 64, (1,))
    sink.known = {path: record}
    write_origin(sink.hidden, origin_of(sink))
    later = Sink(LocalDir(sink.root))
    later.look()
    assert later.known == {}
    assert not later.record_of(file)


# -- what stands in the way ------------------------------------------------------------------------


@pytest.mark.parametrize("act", [bring, lambda sink, path: sink.commit_small([small(path)])])
class TestInTheWay:
    """For large files and small ones alike."""

    Act = Callable[[Sink, str], object]

    def test_a_link_for_a_folder_is_refused(self, sink: Sink, outside: Path, act: Act) -> None:
        before = tree(outside)
        (sink.root / "onnx").symlink_to(outside)
        for path in ("onnx/file.bin", "onnx/new.bin", "onnx/deep/new.bin"):
            with pytest.raises(StorageError, match="symlink") as caught:
                act(sink, path)
            assert caught.value.hint
        assert tree(outside) == before

    def test_a_link_that_leads_nowhere_is_refused(
        self, sink: Sink, tmp_path: Path, act: Act
    ) -> None:
        (sink.root / "onnx").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StorageError):
            act(sink, "onnx/model.bin")
        assert not (tmp_path / "nowhere").exists()

    def test_a_file_for_a_folder_is_told(self, sink: Sink, act: Act) -> None:
        (sink.root / "onnx").write_bytes(b"a file of somebody's")
        with pytest.raises(StorageError) as caught:
            act(sink, "onnx/model.bin")
        assert caught.value.hint == "a file stands where a folder is needed: move it away"
        assert (sink.root / "onnx").read_bytes() == b"a file of somebody's"

    def test_a_folder_for_a_file_is_told(self, sink: Sink, act: Act) -> None:
        (sink.root / "model.bin").mkdir()
        with pytest.raises(StorageError) as caught:
            act(sink, "model.bin")
        assert caught.value.hint == "a folder stands where a file is needed: move it away"
