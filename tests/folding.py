"""A file system that tells no case and no Unicode forms apart, as those of macOS and Windows do.

It passes all to a plain folder, over the kernel's FUSE protocol (linux/fuse.h); for root on Linux.
"""

import contextlib
import ctypes
import errno
import os
import stat
import struct
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

_BUFFER = 1024 * 1024
_HEADER = struct.Struct("<IIQQIIIHH")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_BY_SIZE, _BY_MODE = 8, 1

Answer = bytes | None


class Folding:
    """`with Folding(store, folder):` mounts it at ``folder``; its files lie in ``store``."""

    def __init__(self, store: Path, folder: Path) -> None:
        self._folder = folder
        self._paths = {1: str(store)}
        self._numbers = {str(store): 1}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._answers: dict[int, Callable[[int, bytes], Answer]] = {
            1: self._lookup,
            3: self._attributes,
            4: self._change,
            9: self._make_folder,
            10: self._unlink,
            11: self._remove_folder,
            12: lambda node, said: self._rename(node, said, 8),
            14: self._open,
            15: self._read,
            16: self._write,
            17: self._space,
            18: self._close,
            20: self._sync,
            25: _agree,
            26: _begin,
            27: lambda node, said: bytes(16),
            28: self._list,
            29: _agree,
            30: _agree,
            35: self._create,
            45: lambda node, said: self._rename(node, said, 16),
        }

    def __enter__(self) -> Self:
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        words = (b"folding", os.fsencode(self._folder), b"fuse", 0, options.encode())
        if libc.mount(*words):
            os.close(self._device)
            raise OSError(ctypes.get_errno(), "no file system can be mounted by FUSE")
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # At once for everybody, also where a process still looks into it.
        ctypes.CDLL(None).umount2(os.fsencode(self._folder), 2)
        self._thread.join(10)
        os.close(self._device)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _BUFFER + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # unmounted
            _, kind, unique, node, *_ = _HEADER.unpack_from(request)
            if kind in (2, 36, 42):  # forgetting and interrupting want no answer
                continue
            code, answer = self._answer(kind, node, request[_HEADER.size :])
            head = struct.pack("<IiQ", 16 + len(answer), -code, unique)
            try:
                os.write(self._device, head + answer)
            except OSError as error:
                if error.errno != errno.ENOENT:  # nobody waits for it any longer
                    return

    def _answer(self, kind: int, node: int, said: bytes) -> tuple[int, bytes]:
        if kind not in self._answers:
            return errno.ENOSYS, b""
        try:
            return 0, self._answers[kind](node, said) or b""
        except OSError as error:
            return error.errno or errno.EIO, b""

    # -- names ---------------------------------------------------------------------------------

    def _path(self, node: int, name: bytes) -> str:
        """The file of this name in a folder: under the spelling that it was made with."""
        folder, asked = self._paths[node], os.fsdecode(name)
        for there in Path(folder).iterdir():
            if _folded(there.name) == _folded(asked):
                return str(there)
        return f"{folder}/{asked}"

    def _entry(self, path: str) -> bytes:
        found = os.lstat(path)
        number = self._numbers.setdefault(path, len(self._numbers) + 1)
        self._paths[number] = path
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + _attributes(number, found)

    def _lookup(self, node: int, said: bytes) -> bytes:
        return self._entry(self._path(node, said.rstrip(b"\0")))

    def _make_folder(self, node: int, said: bytes) -> bytes:
        path = self._path(node, said[8:].rstrip(b"\0"))
        Path(path).mkdir(struct.unpack_from("<I", said)[0])
        return self._entry(path)

    def _unlink(self, node: int, said: bytes) -> None:
        Path(self._path(node, said.rstrip(b"\0"))).unlink()

    def _remove_folder(self, node: int, said: bytes) -> None:
        Path(self._path(node, said.rstrip(b"\0"))).rmdir()

    def _rename(self, node: int, said: bytes, begin: int) -> None:
        old, new = said[begin:].rstrip(b"\0").split(b"\0")
        before = self._path(node, old)
        after = self._path(struct.unpack_from("<Q", said)[0], new)
        Path(before).rename(after)
        for number, path in list(self._paths.items()):
            if path == before or path.startswith(f"{before}/"):
                moved = after + path[len(before) :]
                self._numbers.pop(path, None)
                self._paths[number], self._numbers[moved] = moved, number

    # -- files ---------------------------------------------------------------------------------

    def _create(self, node: int, said: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", said)
        path = self._path(node, said[16:].rstrip(b"\0"))
        fd = os.open(path, flags & ~os.O_APPEND | os.O_CREAT, mode)
        return self._entry(path) + struct.pack("<QII", fd, 0, 0)

    def _open(self, node: int, said: bytes) -> bytes:
        flags = struct.unpack_from("<I", said)[0] & ~os.O_APPEND & ~os.O_NOFOLLOW
        return struct.pack("<QII", os.open(self._paths[node], flags), 0, 0)

    def _read(self, node: int, said: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", said)
        return os.pread(fd, size, offset)

    def _write(self, node: int, said: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", said)
        return struct.pack("<II", os.pwrite(fd, said[40 : 40 + size], offset), 0)

    def _sync(self, node: int, said: bytes) -> None:
        os.fsync(struct.unpack_from("<Q", said)[0])

    def _close(self, node: int, said: bytes) -> None:
        os.close(struct.unpack_from("<Q", said)[0])

    def _attributes(self, node: int, said: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + _attributes(node, os.lstat(self._paths[node]))

    def _change(self, node: int, said: bytes) -> bytes:
        valid, size = struct.unpack_from("<I", said)[0], struct.unpack_from("<Q", said, 16)[0]
        if valid & _BY_SIZE:
            os.truncate(self._paths[node], size)
        if valid & _BY_MODE:
            mode = stat.S_IMODE(struct.unpack_from("<I", said, 68)[0])
            Path(self._paths[node]).chmod(mode)
        return self._attributes(node, b"")

    def _list(self, node: int, said: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", said)
        listing = b""
        names = sorted(path.name for path in Path(self._paths[node]).iterdir())
        for number, name in enumerate(names[offset:], offset + 1):
            encoded = os.fsencode(name)
            entry = struct.pack("<QQII", 1 + number, number, len(encoded), 0) + encoded
            entry += bytes(-len(entry) % 8)
            if len(listing) + len(entry) > size:
                break
            listing += entry
        return listing

    def _space(self, node: int, said: bytes) -> bytes:
        found = os.statvfs(self._paths[1])
        numbers = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("<QQQQQIIII24x", *numbers, found.f_bsize, 255, found.f_frsize, 0)


def _begin(node: int, said: bytes) -> bytes:
    return struct.pack("<IIIIHHIIHHI28x", 7, 31, _BUFFER, 0, 16, 12, 128 * 1024, 1, 0, 0, 0)


def _agree(node: int, said: bytes) -> None:
    """Nothing has to be done."""


def _attributes(number: int, found: os.stat_result) -> bytes:
    return _ATTRIBUTES.pack(
        number,
        found.st_size,
        found.st_blocks,
        *(int(moment) for moment in (found.st_atime, found.st_mtime, found.st_ctime)),
        *(ns % 10**9 for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)),
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        0,
        found.st_blksize,
        0,
    )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


@contextlib.contextmanager
def folding_folder(place: Path) -> Iterator[Path]:
    """An empty folder on such a file system; a test that cannot have it is left out."""
    store, folder = place / "store", place / "folding"
    store.mkdir()
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(Folding(store, folder))
        except (OSError, AttributeError) as error:
            reason = f"only root on Linux, where /dev/fuse is: {error}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        yield folder
