"""A plain folder: the model's files, and a hidden folder with the receipt.

While a run is under way the hidden folder also holds the lease, partials with their journals, small
files on their way, and the log of what is committed; afterwards it holds the receipt alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

from aim_downloader.content_hash import ContentHash, ContentProof, SmallFile
from aim_downloader.errors import LeaseLostError, StorageError
from aim_downloader.names import HIDDEN
from aim_downloader.partial import BLOCK, Partial, no_guard, resumable_bytes
from aim_downloader.receipt import (
    COMMITTED,
    CommitLog,
    Origin,
    Record,
    read_origin,
    write_origin,
    write_sums,
)
from aim_downloader.snapshot import RemoteFile
from aim_downloader.storage import (
    DRAFT,
    fdatasync,
    preadv_all,
    pwrite_all,
    storage_errors,
    sync_folder,
)

_SYNC_THREADS = 4


class LocalDir:
    """The target folder ``root``. ``guard`` is asked before every write (see ``lease``)."""

    def __init__(self, root: Path, guard: Callable[[], None] = no_guard) -> None:
        self.root = root
        self.hidden = root / HIDDEN
        self.lease_path = self.hidden / "lease"
        self._partials = self.hidden / "partial"
        self._drafts = self.hidden / "small"
        self._guard = guard
        self._log = CommitLog(self.hidden)
        self._folders: set[Path] = {root}
        self._writers = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="aim-small")
        self._root_is_ours = False
        self.origin: Origin | None = None
        self.known: dict[str, Record] = {}

    def look(self) -> None:
        """Read what earlier runs have put on record. Writes nothing."""
        self.origin = read_origin(self.hidden)
        self.known = {**(self.origin.files if self.origin else {}), **self._log.read()}

    def prepare(self) -> None:
        """Make the target and the hidden folder, in which a lease can be waited for.

        Raises:
            StorageError: the folder cannot be written to.
        """
        with storage_errors(self.root):
            self._root_is_ours = not self.root.exists()
            self.root.mkdir(parents=True, exist_ok=True)
            self._make(self.hidden)

    def begin(self) -> None:
        """Make the folders of a run, once the lease is held, and read what earlier runs knew.

        Raises:
            StorageError: the folder cannot be written to.
        """
        with storage_errors(self.root):
            for folder in (self.hidden, self._partials, self._drafts):
                self._make(folder)
        self.look()

    def _make(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        _refuse_symlink(folder)

    def record_of(self, file: RemoteFile) -> Record | None:
        """The record of a file that is there, untouched since it was verified, and this one."""
        record = self.known.get(file.path)
        if record is None or not record.proves(file.digest):
            return None
        return record if self.untouched(record) else None

    def untouched(self, record: Record) -> bool:
        """Whether the file of a record is there, with the size and mtime it had."""
        found = self._regular(record.path)
        return found is not None and record.still(found)

    def of_right_size(self, file: RemoteFile) -> bool:
        """Whether a regular file of the right size stands under the name."""
        found = self._regular(file.path)
        return found is not None and found.st_size == file.size

    def examine(
        self, file: RemoteFile, on_read: Callable[[int], None], enough: threading.Event
    ) -> Record | None:
        """Read a file that no record speaks of; its record when it is right. Writes nothing.

        ``on_read`` hears of the bytes as they are read; ``enough`` ends it, without a result.

        Raises:
            StorageError: the file cannot be read.
        """
        path = self.root / file.path
        with storage_errors(path), path.open("rb", buffering=0) as opened:
            before = os.fstat(opened.fileno())
            proof = _read_through(opened.fileno(), file, on_read, enough)
        if proof is None or proof.digest is None or proof.digest != file.digest:
            return None
        return _record(file, proof, before)

    def remember(self, records: Iterable[Record]) -> None:
        """Put files that are there and right on record."""
        records = list(records)
        if not records:
            return
        self.known.update({record.path: record for record in records})
        with storage_errors(self.hidden):
            self._log.append(records)

    def partial_bytes(self, file: RemoteFile, commit: str) -> int:
        """Bytes of a file that an earlier run has left, as its journal tells. Writes nothing."""
        return resumable_bytes(self._partial_path(file), file, _identity(file, commit))

    def open_partial(self, file: RemoteFile, commit: str) -> Partial:
        """Begin a file, or go on with what an earlier run has left.

        Raises:
            StorageError: the disk refuses.
        """
        return Partial(self._partial_path(file), file, _identity(file, commit), self._guard)

    def _partial_path(self, file: RemoteFile) -> Path:
        # A name of ours: the file's own may be too long, or hostile.
        key = hashlib.sha256(file.path.encode()).hexdigest()[:24]
        return self._partials / f"{key}.partial"

    def commit(self, partial: Partial) -> ContentProof:
        """Verify a file and give it its final name.

        Raises:
            IntegrityError: the bytes are not right.
            StorageError: the disk refuses.
        """
        file = partial.file
        with storage_errors(self.root / file.path):
            final = self._final(file.path)
            proof = partial.commit(final)
            sync_folder(final.parent)
            self.remember([_record(file, proof, final.stat())])
        return proof

    def commit_small(self, batch: Sequence[SmallFile]) -> None:
        """Write verified small files: all contents first, then all names, then the folders.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self.root):
            finals = [self._final(small.file.path) for small in batch]
            # A name of its own for each: nobody else's draft can end under a final name.
            drafts = [self._drafts / secrets.token_hex(8) for _ in batch]
            list(self._writers.map(_write_synced, drafts, (small.content for small in batch)))
            self._guard()
            for draft, final in zip(drafts, finals, strict=True):
                draft.replace(final)
            for folder in {final.parent for final in finals}:
                sync_folder(folder)
            self.remember(
                _record(small.file, small.proof, final.stat())
                for small, final in zip(batch, finals, strict=True)
            )

    def publish(self, origin: Origin) -> None:
        """Write the receipt, and remove what only a run under way needs.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self.hidden):
            self._guard()
            write_sums(self.hidden, origin.files.values())
            write_origin(self.hidden, origin)
            sync_folder(self.hidden)
            self._log.remove()
        self.origin = origin
        self.remove_unfinished()

    def forget_unfinished(self) -> tuple[tuple[Path, ...], int]:
        """Remove all that dead runs have left, also the log of what they had committed.

        Returns:
            The files that were removed, and the bytes on disk they held.

        Raises:
            StorageError: the disk refuses.
        """
        removed, freed = self.remove_unfinished()
        with storage_errors(self.hidden):
            committed = self.hidden / COMMITTED
            if committed.exists():
                committed.unlink()
                removed += (committed,)
        return removed, freed

    def remove_unfinished(self) -> tuple[tuple[Path, ...], int]:
        """Remove partials, journals and drafts. Call it with the lease held.

        Returns:
            The files that were removed, and the bytes on disk they held.

        Raises:
            StorageError: the disk refuses, or a symlink leads out of the target.
        """
        removed: list[Path] = []
        freed = 0
        with storage_errors(self.hidden):
            for folder in (self.hidden, self._partials, self._drafts):
                _refuse_symlink(folder)
                pattern = f"*{DRAFT}" if folder == self.hidden else "*"
                for path in sorted(folder.glob(pattern)):
                    freed += path.lstat().st_blocks * 512
                    _remove(path)
                    removed.append(path)
        self.tidy()
        return tuple(removed), freed

    def tidy(self) -> None:
        """Remove the folders of a run when they are empty, and not another run's by now."""
        with contextlib.suppress(LeaseLostError):
            self._guard()
            _remove_empty(self._partials, self._drafts)

    def leave(self) -> None:
        """Remove the hidden folder, and a target that this run made, when they are empty."""
        _remove_empty(self.hidden, *((self.root,) if self._root_is_ours else ()))

    def _regular(self, path: str) -> os.stat_result | None:
        """The status of a regular file below the target; None for anything else, links included."""
        try:
            found = (self.root / path).lstat()
        except (OSError, ValueError):
            return None
        return found if stat.S_ISREG(found.st_mode) and not self._behind_link(path) else None

    def _behind_link(self, path: str) -> bool:
        """Whether a folder on the way to a file is a symlink."""
        folders = accumulate(path.split("/")[:-1], "{}/{}".format)
        return any((self.root / folder).is_symlink() for folder in folders)

    def _final(self, path: str) -> Path:
        """The place of a file; its folders are made, and none of them may lead elsewhere."""
        folder = self.root
        for part in path.split("/")[:-1]:
            folder /= part
            if folder not in self._folders:
                self._make(folder)
                # A file survives a power cut only where its folders do.
                sync_folder(folder.parent)
                self._folders.add(folder)
        return self.root / path


def _refuse_symlink(folder: Path) -> None:
    if folder.is_symlink():
        raise StorageError(
            f"{folder} is a symlink: files would leave the target folder",
            hint="move it away, or download to the folder it points to",
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty: that is why it stays
            folder.rmdir()


def _identity(file: RemoteFile, commit: str) -> str:
    """What the bytes of a partial belong to. A digest says it, whatever the revision's name."""
    return f"{file.size} {file.digest or f'{commit} {file.etag}'}"


def _record(file: RemoteFile, proof: ContentProof, found: os.stat_result) -> Record:
    return Record(
        path=file.path,
        size=file.size,
        mtime_ns=found.st_mtime_ns,
        digest=str(file.digest or ""),
        sha256=proof.sha256,
        crc32s=proof.crc32s,
    )


def _read_through(
    fd: int, file: RemoteFile, on_read: Callable[[int], None], enough: threading.Event
) -> ContentProof | None:
    """The proof of an open file; None when its size is not the listed one, or it was enough."""
    content = ContentHash(file.size, file.digest)
    buffer = memoryview(bytearray(BLOCK))
    position = 0
    while not enough.is_set() and (read := preadv_all(fd, buffer, position)):
        content.add(buffer[:read])
        position += read
        on_read(read)
    return content.result() if position == file.size else None


def _write_synced(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        pwrite_all(fd, content, 0)
        fdatasync(fd)
    finally:
        os.close(fd)
