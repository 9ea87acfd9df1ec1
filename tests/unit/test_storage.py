"""The disk: files that are read and written whole, and what its errors become."""

import errno
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aim_downloader.errors import InsufficientSpaceError, StorageError
from aim_downloader.memory import SETTLE_EVERY
from aim_downloader.snapshot import MIB
from aim_downloader.storage import (
    DRAFT,
    fdatasync,
    preadv_all,
    pwrite_all,
    read_through,
    read_whole,
    storage_errors,
    sync_folder,
    write_whole,
)
from tests.fair_time import fair_time
from tests.kernel_memory import cached_bytes, why_no_cache


def open_descriptors() -> set[str]:
    """What this process has open."""
    return {link.name for link in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def no_leak() -> Iterator[None]:
    """After the test as many files are open as before."""
    if not Path("/proc/self/fd").is_dir():
        yield
        return
    before = len(open_descriptors())
    yield
    assert len(open_descriptors()) == before


# -- read_whole ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("content", [b"", b"x", os.urandom(300_000)], ids=len)
def test_a_file_is_read_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read_whole(path) == content


def link_to_a_file(path: Path) -> None:
    path.with_name("elsewhere").write_bytes(b"secret")
    path.symlink_to(path.with_name("elsewhere"))


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


def nothing(path: Path) -> None:
    assert not path.exists()


PLANTED = [link_to_a_file, link_to_nothing, link_to_itself, pipe, folder, listening_socket, nothing]


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_what_is_no_plain_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    plant(path)
    begun = fair_time()
    for _ in range(20):
        with pytest.raises(OSError, match=r"\[Errno"):
            read_whole(path)
    assert fair_time() - begun < 1


@pytest.mark.usefixtures("no_leak")
def test_a_pipe_that_somebody_writes_into_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        os.write(writer, b"planted")
        with pytest.raises(OSError, match="not a plain file"):
            read_whole(path)
    finally:
        os.close(writer)


# -- write_whole -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leak")
def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"", os.urandom(300_000)):
        write_whole(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_its_place_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    path = tmp_path / "file"
    link_to_a_file(path)
    write_whole(path, b"new")
    assert not path.is_symlink()
    assert path.read_bytes() == b"new"
    assert (tmp_path / "elsewhere").read_bytes() == b"secret"


@pytest.mark.usefixtures("no_leak")
def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match=r"\[Errno"):
        write_whole(path, b"new")
    assert path.is_dir()


@pytest.mark.usefixtures("no_leak")
def test_two_write_the_same_file_at_once_and_nobody_sees_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([letter]) * size for letter, size in ((65, 5000), (66, 70_000))}
    write_whole(path, min(contents), sync=False)
    errors: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(200):
                write_whole(path, content, sync=False)
        except BaseException as error:  # noqa: BLE001  # told by the test below
            errors.append(error)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen.add(path.read_bytes())
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen <= contents
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_is_known_by_its_name(tmp_path: Path) -> None:
    """What a killed writer leaves is found by ``clean``."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.update(path.name for path in tmp_path.iterdir())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        write_whole(tmp_path / "file", b"x" * 100_000, sync=False)
    ended.set()
    watcher.join()
    assert all(name == "file" or name.endswith(DRAFT) for name in seen)


# -- parts of files --------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leak")
def test_bytes_come_back_from_where_they_were_put(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = os.urandom(100_000)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        pwrite_all(fd, memoryview(content), 50)
        buffer = bytearray(100_000)
        assert preadv_all(fd, memoryview(buffer), 50) == 100_000
        assert buffer == content
        assert preadv_all(fd, memoryview(buffer), 99_050) == 1000
        assert buffer[:1000] == content[-1000:]
        assert preadv_all(fd, memoryview(buffer), 200_000) == 0
    finally:
        os.close(fd)


@pytest.mark.usefixtures("no_leak")
def test_a_folder_is_synced(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")


# -- reading through -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, 3 * MIB + 5])
def test_a_file_is_read_through(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    content = os.urandom(size)
    path.write_bytes(content)
    with path.open("rb") as opened:
        parts = [bytes(part) for part in read_through(opened.fileno())]
    assert b"".join(parts) == content
    assert max(map(len, parts), default=0) <= MIB


@pytest.mark.parametrize("parts", [None, 10], ids=["to its end", "given up"])
def test_what_is_read_through_does_not_stay_in_memory(tmp_path: Path, parts: int | None) -> None:
    if reason := why_no_cache(tmp_path):
        pytest.skip(reason)
    path, size = tmp_path / "file", 2 * SETTLE_EVERY + 20 * MIB
    most = 0
    with path.open("w+b") as opened:
        opened.truncate(size)
        fdatasync(opened.fileno())
        for part in itertools.islice(reading := read_through(opened.fileno()), parts):
            assert len(part) == MIB
            most = max(most, cached_bytes(path))
        reading.close()
    # The kernel reads ahead, by some MiB at most.
    assert most < SETTLE_EVERY + 16 * MIB
    assert cached_bytes(path) < 4 * MIB


# -- what errors become ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (errno.ENOSPC, InsufficientSpaceError, "free some space"),
        (errno.EDQUOT, InsufficientSpaceError, "free some space"),
        (errno.EACCES, StorageError, "who owns the folder"),
        (errno.EPERM, StorageError, "who owns the folder"),
        (errno.EROFS, StorageError, "read-only"),
        (errno.ENOTDIR, StorageError, "a file stands where a folder is needed"),
        (errno.EEXIST, StorageError, "a file stands where a folder is needed"),
        (errno.EISDIR, StorageError, "where a file is needed"),
        (errno.ELOOP, StorageError, "a symlink"),
        (errno.EMFILE, StorageError, "ulimit -n"),
        (errno.EIO, StorageError, "kernel's log"),
        (errno.ENOENT, StorageError, ""),
        (errno.ESTALE, StorageError, ""),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else "",
)
def test_what_the_disk_says_becomes_ours(number: int, kind: type[StorageError], hint: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(Path("/target")):
        raise OSError(number, os.strerror(number))
    error = caught.value
    assert type(error) is kind
    assert error.exit_code == 73
    assert "/target" in str(error)
    assert os.strerror(number) in str(error)
    assert (hint in error.hint) if hint else (error.hint == "")
    assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.EIO, "failed"), "/target: failed"),
        (OSError(errno.EIO, "failed", "/target/a"), "/target/a: failed"),
        (OSError(errno.EISDIR, "failed", "/target/draft", None, "/target/name"), "/target/name"),
        (OSError("words alone"), "/target: words alone"),
    ],
)
def test_the_path_that_says_most_is_named(error: OSError, named: str) -> None:
    with pytest.raises(StorageError, match=named), storage_errors(Path("/target")):
        raise error


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="ours"), storage_errors(tmp_path):
        raise LookupError("ours")
    with storage_errors(tmp_path):
        pass
