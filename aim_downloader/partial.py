"""A file on its way: blocks land in any order, a hash follows, and only the right bytes commit.

A partial has three ways out: ``commit`` (verified, and renamed to its final name), ``close``
(kept for the next run) and ``discard``. Blocks lie on a grid of ``BLOCK`` bytes; each is received
whole, claimed, written once, put on record in the journal and then hashed: at once while it is
hot in the core's cache when all before it is hashed, else by reading it back later.
"""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from zlib_ng.zlib_ng import crc32

from aim_downloader.content_hash import Bytes, ContentHash, ContentProof
from aim_downloader.errors import DownloadError, IntegrityError, SizeMismatchError, StorageError
from aim_downloader.journal import Block, Journal
from aim_downloader.linux import drop_cached
from aim_downloader.memory import OpenFiles
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile
from aim_downloader.storage import (
    data_from,
    fdatasync,
    open_plain,
    preadv_all,
    pwrite_all,
    storage_errors,
)

BLOCK = 1 * MIB
"""The unit of writing, recording and resuming: what one connection has in flight at most."""

_MISSING, _CLAIMED, _PRESENT = range(3)


def no_guard() -> None:
    """Allow every write: for partials that no lease protects."""


class Partial:
    """The bytes of ``file`` at ``path``, with a journal beside them. Safe to use from threads.

    ``guard`` is called before each write and raises when this run may not write any more.
    ``others`` are the files that are open with it, and share the memory for their pages.
    """

    def __init__(
        self,
        path: Path,
        file: RemoteFile,
        identity: str,
        guard: Callable[[], None] = no_guard,
        others: OpenFiles | None = None,
    ) -> None:
        self.path = path
        self.file = file
        self._guard = guard
        self._journal = Journal(journal_path(path), identity)
        self._lock = threading.Lock()
        self._inside = 0
        self._closed = self._shared = False
        self._count = -(-file.size // BLOCK)
        self._state = bytearray(self._count)
        self._crc32s = array("I", bytes(4 * self._count))
        self._present = 0
        self._others = others or OpenFiles()
        self._forget_hash()
        with storage_errors(path):
            self._fd = open_plain(path, os.O_RDWR | os.O_CREAT)
            self._others.add(1)
            try:
                self._resume()
            except BaseException:
                self._let_go()
                raise

    def _resume(self) -> None:
        """Take over what the journal knows. That it is true is checked when it is read back."""
        known = _known(self._journal, os.fstat(self._fd).st_size, self.file.size)
        if not known:
            self._empty()
            return
        self.take_back()
        for index, block in known.items():
            self._state[index] = _PRESENT
            self._crc32s[index] = block.crc32
            self._present += len(block.range)
        self._journal.resume()

    def _empty(self) -> None:
        """Begin anew, and in another file: a writer that hangs in the old one spoils nothing."""
        self.path.unlink(missing_ok=True)
        fd = open_plain(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.dup2(fd, self._fd, inheritable=False)
        finally:
            os.close(fd)
        os.ftruncate(self._fd, self.file.size)
        self._journal.begin()

    def _forget_hash(self) -> None:
        self._hash = ContentHash(self.file.size, self.file.digest)
        self._hashed = self._dropped = self._unsettled = 0
        self._hashing = self._reading_back = False

    def _range_of(self, index: int) -> ByteRange:
        return _block_range(index, self.file.size)

    @property
    def present(self) -> int:
        """Bytes on disk."""
        return self._present

    @property
    def verified(self) -> int:
        """Bytes of the prefix that is hashed."""
        return min(self._hashed * BLOCK, self.file.size)

    @property
    def reading_back(self) -> bool:
        """Whether a thread is reading what lies on disk, to hash it."""
        return self._reading_back

    @property
    def behind(self) -> bool:
        """Whether the next bytes to hash have to be read back from the disk."""
        with self._lock:
            return self._hashed < self._count and self._state[self._hashed] == _PRESENT

    def missing(self) -> list[ByteRange]:
        """The ranges that are not on disk, in order; each begins and ends on the grid."""
        with self._lock:
            ranges: list[ByteRange] = []
            index = self._state.find(_MISSING)
            while index >= 0:
                stop = index + 1
                while stop < self._count and self._state[stop] == _MISSING:
                    stop += 1
                ranges.append(ByteRange(index * BLOCK, min(stop * BLOCK, self.file.size)))
                index = self._state.find(_MISSING, stop)
            return ranges

    def write_at(self, offset: int, data: Bytes) -> bool:
        """Write the whole block that begins at ``offset``, unless somebody else has.

        Returns:
            Whether these bytes were written: False tells the loser of a race to drop its buffer.

        Raises:
            StorageError: the disk is full, or refuses the write.
            ValueError: ``data`` is not the block on the grid.
        """
        index = offset // BLOCK
        whole = 0 <= index < self._count and self._range_of(index)
        if whole != ByteRange(offset, offset + len(data)):
            raise ValueError(f"{len(data)} bytes at {offset} are no block of {self.file.path}")
        with self._entered() as open_:
            return open_ and self._write_block(index, offset, data)

    def _write_block(self, index: int, offset: int, data: Bytes) -> bool:
        self._guard()
        with self._lock:
            if self._state[index] != _MISSING:
                return False
            self._state[index] = _CLAIMED
        try:
            with storage_errors(Path(self.file.path)):
                crc = self._put_down(offset, data)
        except BaseException:
            self._state[index] = _MISSING
            raise
        self._follow(index, data, crc)
        self._settle_pages(len(data))
        return True

    def _put_down(self, offset: int, data: Bytes) -> int:
        pwrite_all(self._fd, data, offset)
        crc = int(crc32(data))
        # Only now: a line in the journal speaks of bytes that the kernel has.
        self._journal.append(Block(ByteRange(offset, offset + len(data)), crc))
        return crc

    def _follow(self, index: int, data: Bytes, crc: int) -> None:
        """Note that a block is on disk, and hash it from memory when it is the next one."""
        with self._lock:
            self._state[index] = _PRESENT
            self._crc32s[index] = crc
            self._present += len(data)
            if self._hashing or index != self._hashed:
                return
            self._hashing = True
        self._hash.update(data, crc)
        with self._lock:
            self._hashed += 1
            self._hashing = False

    # -- what another process writes ---------------------------------------------------------------

    def hand_over(self) -> None:
        """Let an engine write the file from its start: its size tells how far that is.

        Raises:
            StorageError: this run may not write any more, or the disk refuses.
        """
        self._guard()
        with storage_errors(self.path):
            os.ftruncate(self._fd, 0)

    def take_back(self) -> None:
        """Go on with a file that an engine has left, whatever size it has.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self.path):
            os.ftruncate(self._fd, self.file.size)

    @property
    def size_on_disk(self) -> int:
        """Where the file ends now, in bytes."""
        with self._entered() as open_:
            return os.fstat(self._fd).st_size if open_ else 0

    def data_from(self, offset: int) -> ByteRange | None:
        """The first stretch of what is written behind ``offset`` (see ``storage``).

        Raises:
            StorageError: the disk cannot be asked.
        """
        with self._entered() as open_, storage_errors(self.path):
            return data_from(self._fd, offset) if open_ else None

    def take_in(self, offset: int, buffer: memoryview) -> None:
        """Put the block at ``offset`` on record, which an engine has written.

        It is hashed too when it is the next one, else it is read again later. ``buffer`` has room
        for a block.

        Raises:
            StorageError: the disk cannot be read.
        """
        with self._entered() as open_:
            if open_:
                self._guard()
                self._take_in_block(offset // BLOCK, buffer)

    def _take_in_block(self, index: int, buffer: memoryview) -> None:
        with self._lock:
            if self._state[index] != _MISSING:
                return
            self._state[index] = _CLAIMED
        part = self._range_of(index)
        data = buffer[: len(part)]
        try:
            with storage_errors(self.path):
                self._read_all(data, part.start)
                crc = int(crc32(data))
                self._journal.append(Block(part, crc))
        except BaseException:
            self._state[index] = _MISSING
            raise
        self._follow(index, data, crc)
        self._settle_pages(len(part))

    def share(self) -> None:
        """An engine may write anywhere in the file from now on, until ``check_again``."""
        self._shared = True

    def check_again(self, enough: threading.Event) -> None:
        """Compare all that is on record with the disk, once an engine writes no more.

        It may have written over what was taken in before: a body that is longer than its part of
        the file. ``enough`` ends it earlier.

        Raises:
            IntegrityError: it has.
            StorageError: the disk cannot be read.
        """
        buffer = memoryview(bytearray(BLOCK))
        with self._entered() as open_, storage_errors(self.path):
            for index in range(self._count if open_ else 0):
                if enough.is_set():
                    return
                if self._state[index] == _PRESENT:
                    part = self._range_of(index)
                    data = buffer[: len(part)]
                    self._read_all(data, part.start)
                    if crc32(data) != self._crc32s[index]:
                        raise IntegrityError(
                            f"{self.file.path}: what was there at {part.start} was written over"
                        )
        self._shared = False

    def _read_all(self, data: memoryview, offset: int) -> None:
        if preadv_all(self._fd, data, offset) < len(data):
            # Else what is hashed would not be what is there.
            raise StorageError(f"{self.path} is shorter than the engine that writes it has said")

    def catch_up(self, enough: threading.Event | None = None) -> None:
        """Hash what lies on disk behind the hashed prefix, until a gap or another thread's turn.

        ``enough`` ends it earlier.

        A block that is not what was written (lost in a crash, damaged since) becomes missing.

        Raises:
            StorageError: the disk cannot be read.
        """
        with self._entered() as open_:
            if open_:
                self._read_back(enough)

    def _read_back(self, enough: threading.Event | None) -> None:
        buffer = memoryview(bytearray(BLOCK))
        while (index := self._next_to_read_back()) is not None:
            if enough is not None and enough.is_set():
                self._hashing = self._reading_back = False
                return
            wanted = self._range_of(index)
            data = buffer[: len(wanted)]
            try:
                with storage_errors(self.path):
                    read = preadv_all(self._fd, data, wanted.start)
                right = read == len(data) and crc32(data) == self._crc32s[index]
                if right:
                    self._hash.update(data, self._crc32s[index])
            except BaseException:
                self._hashing = self._reading_back = False
                raise
            self._settle(index, right)
            self._settle_pages(len(data))

    def _next_to_read_back(self) -> int | None:
        with self._lock:
            index = self._hashed
            if self._hashing or index >= self._count or self._state[index] != _PRESENT:
                return None
            self._hashing = self._reading_back = True
            return index

    def _settle(self, index: int, right: bool) -> None:
        with self._lock:
            if right:
                self._hashed += 1
            else:
                self._state[index] = _MISSING
                self._present -= len(self._range_of(index))
            self._hashing = self._reading_back = False

    def _settle_pages(self, touched: int) -> None:
        """Now and then, sync what is written and let go of what is hashed, too.

        The first keeps the end of a large file from being a long silence, the second makes do with
        little memory. What is yet to be read back stays.
        """
        with self._lock:
            self._unsettled += touched
            if self._unsettled < self._others.settle_every:
                return
            self._unsettled = 0
            start, self._dropped = self._dropped, self.verified
            hashed = self._dropped - start
        with storage_errors(self.path):
            fdatasync(self._fd)
        if hashed and not self._shared:
            drop_cached(self._fd, start, hashed)

    def commit(self, final: Path) -> ContentProof:
        """Verify the file, sync it and give it its final name. No writer may be left.

        The folder is not synced: the caller does so, once for several files.

        Raises:
            SizeMismatchError: bytes are missing.
            DigestMismatchError: the bytes are not those the source vouches for.
            StorageError: the disk refuses.
        """
        self.catch_up()
        if self._hashed != self._count:
            lacking = self.file.size - self._present
            raise SizeMismatchError(f"{self.file.path}: {lacking} of {self.file.size} bytes lack")
        proof = self._hash.result()
        proof.check(self.file)
        with storage_errors(final):
            fdatasync(self._fd)
            drop_cached(self._fd)
            # After the sync, which may take long: the lease may have been lost meanwhile.
            self._guard()
            self._check_name()
            self.path.replace(final)
            self._journal.remove()
        self._let_go()
        return proof

    def _check_name(self) -> None:
        """Refuse to rename what another run has put there, when both believe to hold the folder."""
        ours, named = os.fstat(self._fd), self.path.lstat()
        # By time: not every network's file system has numbers that stay.
        is_ours = (ours.st_size, ours.st_mtime_ns) == (named.st_size, named.st_mtime_ns)
        if not is_ours or ours.st_size != self.file.size:
            raise StorageError(
                f"{self.path} was replaced by another run", hint="run the same command again"
            )

    def reset(self) -> None:
        """Throw away all bytes and begin anew. No writer may be left.

        Raises:
            StorageError: the disk refuses.
        """
        self._guard()
        with self._lock, storage_errors(self.path):
            self._state[:] = bytes(self._count)
            self._present = 0
            self._forget_hash()
            self._empty()

    def close(self) -> None:
        """Let go of the file; it stays for the next run when there is anything in it.

        A writer that hangs in the disk is not waited for: the last one to leave closes the file.
        """
        with self._lock:
            self._closed = True
            if self._inside:
                return
        self._leave()

    @contextlib.contextmanager
    def _entered(self) -> Iterator[bool]:
        """Keep the file open for the block; tells whether it still was."""
        with self._lock:
            open_ = not self._closed
            self._inside += open_
        try:
            yield open_
        finally:
            with self._lock:
                self._inside -= open_
                last = open_ and self._closed and not self._inside
            if last:
                self._leave()

    def _leave(self) -> None:
        if self._present == 0:
            # Not when another run has it now, and what cannot be removed is in nobody's way.
            with contextlib.suppress(DownloadError):
                self.discard()
        self._journal.close()
        self._let_go()

    def discard(self) -> None:
        """Let go of the file and delete it.

        Raises:
            StorageError: the disk refuses.
        """
        self._let_go()
        self._guard()
        with storage_errors(self.path):
            self._journal.remove()
            self.path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._others.add(-1)


def _block_range(index: int, size: int) -> ByteRange:
    return ByteRange(index * BLOCK, min((index + 1) * BLOCK, size))


def _known(journal: Journal, on_disk: int, size: int) -> dict[int, Block]:
    """The blocks of a journal that a file of ``on_disk`` bytes can have, by their place.

    One that an engine was writing when it died is shorter than it will be; none is longer.
    """
    if on_disk > size:
        return {}
    known = _on_grid(journal.read(), size)
    return {index: block for index, block in known.items() if block.range.stop <= on_disk}


def _on_grid(blocks: Iterable[Block], size: int) -> dict[int, Block]:
    """Blocks by their place on the grid, the latest of several; what lies elsewhere is left out."""
    return {
        block.range.start // BLOCK: block
        for block in blocks
        if block.range.start < size
        and block.range == _block_range(block.range.start // BLOCK, size)
    }


def resumable_bytes(path: Path, file: RemoteFile, identity: str) -> int:
    """Bytes that a partial at ``path`` would go on with, as its journal tells. Writes nothing."""
    try:
        on_disk = path.stat().st_size
    except OSError:
        return 0
    known = _known(Journal(journal_path(path), identity), on_disk, file.size)
    return sum(len(block.range) for block in known.values())


def journal_path(partial: Path) -> Path:
    """Where the journal of a partial lies."""
    return partial.with_suffix(".journal")
