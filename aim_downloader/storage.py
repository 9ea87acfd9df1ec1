"""The disk: what it says becomes our errors; whole files written, synced, and folders synced."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aim_downloader.errors import InsufficientSpaceError, StorageError
from aim_downloader.linux import drop_cached
from aim_downloader.memory import SETTLE_EVERY
from aim_downloader.snapshot import MIB, ByteRange

# macOS has no fdatasync.
fdatasync = getattr(os, "fdatasync", os.fsync)

DRAFT = ".new"

_HINTS = {
    errno.EACCES: "look at who owns the folder and which user this runs as",
    errno.EPERM: "look at who owns the folder and which user this runs as",
    errno.EROFS: "the file system is read-only: choose another folder, or mount a volume there",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away",
    errno.EEXIST: "a file stands where a folder is needed: move it away",
    errno.EISDIR: "a folder stands where a file is needed: move it away",
    errno.ENXIO: "a pipe or the like stands where a file of ours is needed: move it away",
    errno.EMLINK: "a file with another name stands where one of ours is needed: move it away",
    errno.ELOOP: "a symlink stands where a file of ours is needed: move it away",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower --connections",
    errno.EIO: "the disk or its network failed: look at the kernel's log",
}


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has free. ``inodes`` is None where it does not count them."""

    bytes: int
    inodes: int | None


def free_space(folder: Path) -> Space:
    """What the file system of a folder, which need not exist yet, has free for this user.

    Raises:
        StorageError: the folder may not be looked at.
    """
    with storage_errors(folder):
        while not folder.exists():
            folder = folder.absolute().parent
        found = os.statvfs(folder)
    inodes = found.f_favail if found.f_files else None
    return Space(found.f_bavail * found.f_frsize, inodes)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says about ``path`` into a StorageError.

    Raises:
        InsufficientSpaceError: no space, inodes or quota are left.
        StorageError: anything else that the system refuses.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise StorageError(
            f"{path}: its name cannot be written in this locale's encoding ({error.encoding})",
            hint="set PYTHONUTF8=1, or choose a UTF-8 locale",
        ) from error
    except OSError as error:
        # Of a rename that fails it is the new name that says something.
        where = error.filename2 or error.filename or path
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InsufficientSpaceError(
                f"the disk is full: {where}: {reason}",
                hint="free some space, and run the same command again",
            ) from error
        raise StorageError(f"{where}: {reason}", hint=_HINTS.get(error.errno or 0, "")) from error


def pwrite_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``; one pwrite may write less."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def preadv_all(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset``; returns how much of it, less only at the file's end."""
    filled = 0
    while filled < len(buffer) and (read := os.preadv(fd, [buffer[filled:]], offset + filled)):
        filled += read
    return filled


def data_from(fd: int, offset: int) -> ByteRange | None:
    """The first stretch without holes that ends behind ``offset``, from there on; None: no data.

    A file system without holes says that all is data.
    """
    try:
        start = os.lseek(fd, offset, os.SEEK_DATA)
        return ByteRange(start, os.lseek(fd, start, os.SEEK_HOLE))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None  # nothing but a hole up to the end


def read_through(fd: int) -> Generator[memoryview, None, None]:
    """All bytes of a file in turn, in a buffer that is used again; they do not stay in memory."""
    buffer = memoryview(bytearray(MIB))
    position = dropped = 0
    try:
        while read := preadv_all(fd, buffer, position):
            yield buffer[:read]
            position += read
            if position - dropped >= SETTLE_EVERY:
                drop_cached(fd, dropped, position - dropped)
                dropped = position
    finally:
        drop_cached(fd, dropped)


def open_plain(path: Path, flags: int) -> int:
    """Open a file of ours; what was planted in its place is refused.

    Raises:
        OSError: there is no such file; or it is a link, a pipe or the like; or it is to be written
            to, and has another name elsewhere.
    """
    # Without O_NONBLOCK a pipe would be waited for, for ever.
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        _check_plain(os.fstat(fd), path, to_write=bool(flags & (os.O_WRONLY | os.O_RDWR)))
    except OSError:
        os.close(fd)
        raise
    return fd


def _check_plain(found: os.stat_result, path: Path, *, to_write: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.ENXIO
        raise OSError(code, "not a plain file", str(path))
    if to_write and found.st_nlink > 1:
        raise OSError(errno.EMLINK, "the file has another name too", str(path))


def open_to_append(path: Path) -> int:
    """Open a file of ours, or make it, so that each write goes behind its end.

    Raises:
        OSError: see ``open_plain``.
    """
    return open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def read_whole(path: Path) -> bytes:
    """Read a file of ours; a link or a pipe that was planted in its place is refused.

    Raises:
        OSError: there is no such file, or it is no plain one.
    """
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as opened:
        return opened.read()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that its name never shows half of it. Its folder is not synced.

    A writer that dies leaves a draft, whose name ends in ``DRAFT``.
    """
    # Two may write the same file at once, and a planted link must not be written through.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}{DRAFT}")
    write_new(draft, content, sync=sync)
    draft.replace(path)


def write_new(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file that is not there yet. Its folder is not synced.

    Raises:
        OSError: there is something, or the disk refuses.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        pwrite_all(fd, content, 0)
        if sync:
            fdatasync(fd)
    finally:
        os.close(fd)
