"""What is there of a model: by the records of earlier runs, or by reading it. Writes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from aim_downloader.content_hash import ContentHash, ContentProof
from aim_downloader.errors import StorageError
from aim_downloader.partial import resumable_bytes
from aim_downloader.receipt import ORIGIN, SUMS, CommitLog, Origin, Record, read_origin, sums
from aim_downloader.sinks.layout import Content, Layout, hidden_of
from aim_downloader.snapshot import RemoteFile
from aim_downloader.storage import open_plain, read_through, read_whole, storage_errors


class Held:
    """The files of one model in a ``layout``, as they are. ``repository`` says whose log counts.

    ``keep_origin``: whether ``origin.json`` is part of the receipt.
    """

    def __init__(self, layout: Layout, repository: str = "", *, keep_origin: bool = True) -> None:
        self.layout = layout
        self.root = layout.root
        self.hidden = hidden_of(layout)
        self.lease_path = self.hidden / "lease"
        self._partials = self.hidden / "partial"
        self.scratch = self.hidden / "scratch"
        self._repository = repository
        self._keep_origin = keep_origin
        self.origin: Origin | None = None
        self.known: dict[str, Record] = {}
        self._by_content: dict[tuple[str, int], Record] = {}

    def look(self) -> None:
        """Read what earlier runs have put on record. Writes nothing."""
        self.origin = read_origin(self.hidden)
        self.known = self._records(self.hidden, self.origin)
        siblings = self.layout.siblings()
        of_siblings = (self._records(folder, read_origin(folder)) for folder in siblings)
        self._by_content = {
            (record.digest, record.mtime_ns): record
            for known in (*of_siblings, self.known)
            for record in known.values()
        }

    def _records(self, hidden: Path, origin: Origin | None) -> dict[str, Record]:
        """All records below a hidden folder, by path; what is committed later comes first."""
        known = {**origin.earlier, **origin.outdated, **origin.files} if origin else {}
        return {**known, **CommitLog(hidden, self._repository).read()}

    def record_of(self, file: RemoteFile) -> Record | None:
        """The record of a file that is there, untouched since it was verified, and this one."""
        if not self.known and not self._by_content:
            return None
        found = self._content(file)
        if found is None:
            return None
        for record in self._speaking_of(file, found):
            if record.proves(file.digest) and record.still(found.stat):
                if record is not self.known.get(file.path):
                    # The same content came under another name, or for another commit.
                    self.known[file.path] = replace(record, path=file.path)
                return self.known[file.path]
        return None

    def _speaking_of(self, file: RemoteFile, found: Content) -> Iterator[Record]:
        if own := self.known.get(file.path):
            yield own
        twin = self._by_content.get((str(file.digest), found.stat.st_mtime_ns))
        if twin and self.layout.place(twin.path, twin.digest) == self.same_content(file):
            yield twin

    def untouched(self, record: Record) -> bool:
        """Whether the content of a record is there, with the size and mtime it had."""
        found = self.layout.content(record.path, record.digest)
        return found is not None and record.still(found.stat)

    def was_changed(self, record: Record) -> bool:
        """Whether a file still stands where that of a record was, and is not the same any more."""
        found = self.layout.content(record.path, record.digest)
        return found is not None and not record.still(found.stat)

    def are_one(self, path: str, other: str | None) -> bool:
        """Whether another name is of the same file, as where case makes no difference."""
        if other is None or other == path:
            return False
        with contextlib.suppress(OSError):
            return (self.root / path).samefile(self.root / other)
        return False

    def would_replace(self, file: RemoteFile, *, there: bool) -> bool:
        """Whether something else stands where this one goes; ``there``: where it has its name.

        Raises:
            StorageError: that cannot be looked at.
        """
        name = self.root / file.path
        if not self.shows(file):
            return os.path.lexists(name)
        if there:
            return False
        place = self.layout.base / self.same_content(file)
        with storage_errors(place):
            return place.is_symlink() or place.is_file() or _is_plain(name)

    def shows(self, file: RemoteFile) -> bool:
        """Whether a file that is there also has its name in the model."""
        return self.layout.shows(file.path, str(file.digest or ""))

    def same_content(self, file: RemoteFile) -> str:
        """What two files have in common that one fetch brings both of."""
        return self.layout.place(file.path, str(file.digest or ""))

    def of_right_size(self, file: RemoteFile) -> bool:
        """Whether a regular file of the right size holds, or claims to hold, the content."""
        found = self._content(file)
        return found is not None and found.stat.st_size == file.size

    def examine(
        self, file: RemoteFile, on_read: Callable[[int], None], enough: threading.Event
    ) -> Record | None:
        """Read a file that no record speaks of; its record when it is right. Writes nothing.

        ``on_read`` hears of the bytes as they are read; ``enough`` ends it, without a result.

        Raises:
            StorageError: the file is gone, or cannot be read.
        """
        found = self._content(file)
        if found is None:
            raise StorageError(f"{self.root / file.path} is gone, or no plain file any more")
        with storage_errors(found.path):
            # What was put in its place since the look is refused: a link, or a pipe to wait for.
            fd = open_plain(found.path, os.O_RDONLY)
            try:
                before = os.fstat(fd)
                proof = _read_through(fd, file, on_read, enough)
            finally:
                os.close(fd)
        if proof is None or proof.digest is None or proof.digest != file.digest:
            return None
        return record_as_found(file, proof, before)

    def partial_bytes(self, file: RemoteFile, commit: str) -> int:
        """Bytes of a file that an earlier run has left, as its journal tells. Writes nothing."""
        return resumable_bytes(self._partial_path(file, commit), file, identity_of(file, commit))

    def is_tidy(self) -> bool:
        """Whether the receipt is all that runs have left, or nothing can be done about the rest."""
        if not os.access(self.hidden, os.W_OK):
            return True
        right = sums(self.origin.files.values()) if self.origin else b""
        try:
            names = {path.name for path in self.hidden.iterdir()}
            papers = {SUMS, ORIGIN} if self._keep_origin else {SUMS}
            return names == papers and read_whole(self.hidden / SUMS) == right
        except OSError:
            return False

    def allocated_bytes(self, files: Iterable[RemoteFile]) -> dict[str, int]:
        """Bytes of disk by path that files have already: their partials are used, or removed."""
        sizes: dict[str, int] = {}
        for path in self._left_in_partials():
            key = path.name.partition(".")[0]
            sizes[key] = sizes.get(key, 0) + _allocated(path)
        keys = {file.path: key_of(file.path) for file in files} if sizes else {}
        return {path: sizes[key] for path, key in keys.items() if key in sizes}

    def _content(self, file: RemoteFile) -> Content | None:
        return self.layout.content(file.path, str(file.digest or ""))

    def _partial_path(self, file: RemoteFile, commit: str) -> Path:
        return self._partials / f"{partial_name(file, commit)}.partial"

    def _left_in_partials(self) -> list[Path]:
        try:
            return list(self._partials.iterdir())
        except OSError:
            return []


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _allocated(path: Path) -> int:
    """Bytes of disk that a file has; none when it is gone."""
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def partial_name(file: RemoteFile, commit: str) -> str:
    """The name of a partial, without its suffix. Another content has another one.

    So a run that wakes late, and still writes to what it was bringing, spoils no other.
    """
    return f"{key_of(file.path)}.{key_of(identity_of(file, commit))}"


def key_of(text: str) -> str:
    """A name of ours: the file's own may be too long, or hostile."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def identity_of(file: RemoteFile, commit: str) -> str:
    """What the bytes of a partial belong to. A digest says it, whatever the revision's name."""
    return f"{file.size} {file.digest or f'{commit} {file.etag}'}"


def record_as_found(file: RemoteFile, proof: ContentProof, found: os.stat_result) -> Record:
    """The record of a file that was verified, and then was as ``found``."""
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
    position = 0
    with contextlib.closing(read_through(fd)) as blocks:
        for data in blocks:
            if enough.is_set():
                return None
            content.add(data)
            position += len(data)
            on_read(len(data))
    return content.result() if position == file.size else None
