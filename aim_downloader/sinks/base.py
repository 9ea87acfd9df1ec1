"""Where a model goes: written to, published, tidied up. What layouts share; a layout says the rest.

While a run is under way the hidden folder holds the lease, partials with their journals, drafts of
small files, and the log of what is committed; afterwards it holds the receipt alone, and partials
of files of the same commit that were not asked for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aim_downloader.content_hash import ContentProof, SmallFile
from aim_downloader.errors import LeaseLostError
from aim_downloader.journal import Block, Journal
from aim_downloader.linux import memory_limit
from aim_downloader.memory import OpenFiles
from aim_downloader.partial import Partial, journal_path, no_guard
from aim_downloader.receipt import (
    COMMITTED,
    CommitLog,
    Origin,
    Record,
    remove_origin,
    write_origin,
    write_sums,
)
from aim_downloader.sinks.below import folders_to, make_folder, refuse_symlink
from aim_downloader.sinks.held import Held, identity_of, key_of, partial_name, record_as_found
from aim_downloader.sinks.layout import Content, Layout
from aim_downloader.snapshot import RemoteFile
from aim_downloader.storage import DRAFT, open_plain, storage_errors, sync_folder, write_new

_SYNC_THREADS = 4
_BY_OWNER = stat.S_IRUSR | stat.S_IWUSR


class Sink(Held):
    """The files of one model in a ``layout``. ``guard`` is asked before writes (see ``lease``).

    ``repository`` says whose files are put on record while a run is under way; ``keep_origin``
    whether the receipt also says where they came from.
    """

    def __init__(
        self,
        layout: Layout,
        guard: Callable[[], None] = no_guard,
        repository: str = "",
        *,
        keep_origin: bool = True,
    ) -> None:
        super().__init__(layout, repository, keep_origin=keep_origin)
        self._drafts = self.hidden / "small"
        self._guard = guard
        self._log = CommitLog(self.hidden, repository)
        self._folders: set[Path] = set()
        self._writers = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="aim-small")
        self._base_is_ours = False

    def prepare(self) -> None:
        """Make the base and our own folders, so that a lease can be waited for.

        Raises:
            StorageError: the folder cannot be written to.
        """
        base = self.layout.base
        with storage_errors(base):
            self._base_is_ours = not base.exists()
            base.mkdir(parents=True, exist_ok=True)
            for folder in self.layout.folders:
                make_folder(folder)

    def begin(self) -> None:
        """Make the folders of a run, once the lease is held, and read what earlier runs knew.

        Raises:
            StorageError: the folder cannot be written to.
        """
        with storage_errors(self.layout.base):
            for folder in (*self.layout.folders, self._partials, self._drafts):
                make_folder(folder)
            # What engines of dead runs have left is of no use to anybody.
            self._empty(self.scratch)
        self.look()

    def remember(self, records: Iterable[Record]) -> None:
        """Put files on record that were only found to be there and right.

        Unless an earlier run has brought them, they are somebody's own.
        """
        self._note(replace(record, found=not self._brought(record)) for record in records)

    def _brought(self, record: Record) -> bool:
        known = self.known.get(record.path)
        return known is not None and known.sha256 == record.sha256 and not known.found

    def _note(self, records: Iterable[Record]) -> None:
        records = list(records)
        if not records:
            return
        self.known.update({record.path: record for record in records})
        self._by_content.update({(each.digest, each.mtime_ns): each for each in records})
        with storage_errors(self.hidden):
            self._log.append(records)

    def adopt(self, files: Iterable[RemoteFile]) -> None:
        """Know also those whose content has come under another name."""
        lacking = [f for f in files if f.path not in self.known and not self.record_of(f)]
        by_digest = {record.digest: record for record in self.known.values()} if lacking else {}
        for file in lacking:
            twin = by_digest.get(str(file.digest))
            # Another program may have put the same content there since: the next run will read it.
            if twin and self.layout.place(twin.path, twin.digest) == self.same_content(file):
                self.known[file.path] = replace(twin, path=file.path)

    def open_partial(self, file: RemoteFile, commit: str) -> Partial:
        """Begin a file, or go on with what an earlier run has left of this very content.

        Raises:
            StorageError: the disk refuses.
        """
        ours, of_file = self._partial_path(file, commit), f"{key_of(file.path)}."
        with storage_errors(ours):
            self._guard()
            for path in self._left_in_partials():
                if path.name.startswith(of_file) and path not in (ours, journal_path(ours)):
                    _remove(path)
        return Partial(ours, file, identity_of(file, commit), self._guard, self._open_files)

    @functools.cached_property
    def memory(self) -> int | None:
        """Bytes of memory that a cgroup leaves to this run; None where none limits it."""
        return memory_limit()

    @functools.cached_property
    def _open_files(self) -> OpenFiles:
        return OpenFiles(self.memory)

    def set_aside(self, file: RemoteFile, commit: str, sound: Iterable[Block]) -> None:
        """Take its name from a damaged file: it becomes a partial that knows its ``sound`` blocks.

        Raises:
            StorageError: the disk refuses.
        """
        found = self._content(file)
        self.forget(file)
        # What other models share, or stands for a link, is not ours to move.
        if found is None or found.path != self.layout.base / self.same_content(file):
            return
        with storage_errors(found.path):
            self._guard()
            if found.stat.st_nlink > 1 or not _make_writable(found):
                # It cannot be mended, or would change under its other name too.
                found.path.unlink()
            else:
                partial = self._partial_path(file, commit)
                _become_partial(found, file, partial, identity_of(file, commit), sound)
            sync_folder(found.path.parent)

    def forget(self, file: RemoteFile) -> None:
        """Know nothing of a file any more."""
        found = self._content(file)
        self.known.pop(file.path, None)
        if found is not None:
            self._by_content.pop((str(file.digest), found.stat.st_mtime_ns), None)

    def commit(self, partial: Partial) -> ContentProof:
        """Verify a file and give it its final name.

        Raises:
            IntegrityError: the bytes are not right.
            StorageError: the disk refuses.
        """
        file = partial.file
        with storage_errors(self.root / file.path):
            final = self._final(file)
            proof = partial.commit(final)
            sync_folder(final.parent)
            self._note([record_as_found(file, proof, final.stat())])
        return proof

    def commit_small(self, batch: Sequence[SmallFile]) -> None:
        """Write verified small files: all contents first, then all names, then the folders.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self.root):
            finals = [self._final(small.file) for small in batch]
            # A name of its own for each: nobody else's draft can end under a final name.
            drafts = [self._drafts / secrets.token_hex(8) for _ in batch]
            list(self._writers.map(write_new, drafts, (small.content for small in batch)))
            self._guard()
            for draft, final in zip(drafts, finals, strict=True):
                draft.replace(final)
            for folder in {final.parent for final in finals}:
                sync_folder(folder)
            self._note(
                record_as_found(small.file, small.proof, final.stat())
                for small, final in zip(batch, finals, strict=True)
            )

    def _final(self, file: RemoteFile) -> Path:
        """The place of a file; its folders are made, and none of them may lead elsewhere."""
        base = self.layout.base
        place = self.layout.place(file.path, str(file.digest or ""))
        for folder in folders_to(base, place):
            if folder not in self._folders:
                make_folder(folder)
                # A file survives a power cut only where its folders do.
                sync_folder(folder.parent)
                self._folders.add(folder)
        return base / place

    def publish(self, origin: Origin, listing: Sequence[RemoteFile] = ()) -> None:
        """Write the receipt, make the snapshot visible, remove what only a run needs.

        ``listing`` has all files of the commit, as far as the source was asked for them. What an
        earlier run has left of those that were not asked for stays.

        Raises:
            StorageError: the disk refuses.
        """
        self.write_receipt(origin)
        with storage_errors(self.hidden):
            self.layout.show(origin, listing, self._drafts)
            self._log.remove()
        others = (file for file in listing if file.path not in origin.files)
        self.remove_unfinished(self._resumable(others, origin.commit))

    def write_receipt(self, origin: Origin) -> None:
        """Write the receipt, and leave all else as it is.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self.hidden):
            self._guard()
            write_sums(self.hidden, origin.files.values())
            if self._keep_origin:
                write_origin(self.hidden, origin)
            else:
                remove_origin(self.hidden)
            sync_folder(self.hidden)
        self.origin = origin

    def _resumable(self, files: Iterable[RemoteFile], commit: str) -> set[str]:
        """The names of partials that a later run can go on with, without their suffix."""
        there = {path.stem for path in self._partials.glob("*.partial")}
        named = {partial_name(file, commit): file for file in files} if there else {}
        return {name for name in there & named.keys() if self.partial_bytes(named[name], commit)}

    # -- tidying -----------------------------------------------------------------------------------

    def prune(self, records: Iterable[Record]) -> Iterator[Record]:
        """Remove files that are what their records say, and folders that this leaves empty.

        Yields:
            The record of each file that was removed, at once.

        Raises:
            StorageError: the disk refuses.
        """
        touched: set[Path] = set()
        with storage_errors(self.root):
            for record in records:
                self._guard()
                found = self.layout.content(record.path, record.digest)
                if found and record.still(found.stat):
                    found.path.unlink()
                    folders = [*folders_to(self.root, record.path)]
                    _remove_empty(*reversed(folders))
                    touched.update((self.root, *folders))
                    yield record
            # Or a power cut brings files back that no receipt knows any more.
            for folder in touched:
                if folder.is_dir():
                    sync_folder(folder)

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

    def remove_unfinished(self, resumable: Collection[str] = ()) -> tuple[tuple[Path, ...], int]:
        """Remove partials, journals and drafts. Call it with the lease held.

        Partials whose names are ``resumable`` stay, with their journals.

        Returns:
            The files that were removed, and the bytes on disk they held.

        Raises:
            StorageError: the disk refuses, or a symlink leads out of the target.
        """
        removed: list[Path] = []
        freed = 0
        with storage_errors(self.hidden):
            for folder in (*self.layout.folders, self._partials, self._drafts, self.scratch):
                refuse_symlink(folder)
            for folder in (self.hidden, self._partials, self._drafts, self.scratch):
                pattern = f"*{DRAFT}" if folder == self.hidden else "*"
                for path in sorted(folder.glob(pattern)):
                    if folder == self._partials and path.stem in resumable:
                        continue
                    # The draft of a heartbeat gets its name just now.
                    with contextlib.suppress(FileNotFoundError):
                        blocks = path.lstat().st_blocks
                        _remove(path)
                        freed += blocks * 512
                        removed.append(path)
        self.tidy()
        return tuple(removed), freed

    def _empty(self, folder: Path) -> None:
        refuse_symlink(folder)
        for path in folder.glob("*"):
            _remove(path)
        _remove_empty(folder)

    def tidy(self) -> None:
        """Remove the folders of a run when they are empty, and not another run's by now."""
        with contextlib.suppress(LeaseLostError):
            self._guard()
            for folder in (self._partials, self._drafts, self.scratch):
                _remove_empty(folder)

    def leave(self) -> None:
        """Remove our own folders, and a base that this run made, as far as they are empty."""
        ours = (self.layout.base,) if self._base_is_ours else ()
        _remove_empty(*reversed((*ours, *self.layout.folders)))


def _make_writable(found: Content) -> bool:
    """Let its owner write to a file; returns whether we may then."""
    mode = stat.S_IMODE(found.stat.st_mode)
    if mode & _BY_OWNER != _BY_OWNER:
        with contextlib.suppress(PermissionError):
            found.path.chmod(mode | _BY_OWNER)
    try:
        os.close(open_plain(found.path, os.O_RDWR))
    except PermissionError:
        return False
    return True


def _become_partial(
    found: Content, file: RemoteFile, partial: Path, identity: str, sound: Iterable[Block]
) -> None:
    # First: a journal without its bytes is void, but bytes without a journal are thrown away.
    journal = Journal(journal_path(partial), identity)
    journal.begin()
    for block in sound:
        journal.append(block)
    journal.close()
    if found.stat.st_size != file.size:
        os.truncate(found.path, file.size)
    found.path.replace(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_empty(*folders: Path) -> None:
    """Remove folders, the innermost first, until one is not empty: that is why it stays."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
