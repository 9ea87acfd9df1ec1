"""Reads every byte of a folder's files, and says which are not what they should be."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from zlib_ng.zlib_ng import crc32

from aim_downloader.content_hash import ContentHash
from aim_downloader.events import Emit
from aim_downloader.findings import Damaged, Expected, Reading, State, compare, record_of
from aim_downloader.names import HIDDEN
from aim_downloader.progress import Progress, sampling
from aim_downloader.receipt import Record
from aim_downloader.sinks.below import folders_to
from aim_downloader.sinks.layout import Layout
from aim_downloader.storage import open_plain, read_through, storage_errors
from aim_downloader.tasks import in_thread, together

_AT_ONCE = 2

_KINDS = (
    (stat.S_ISLNK, "a symlink"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
)


@dataclass(slots=True)
class Outcome:
    """What came of reading: each file is in one of these, and ``bytes`` were read."""

    right: list[Record] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    bytes: int = 0


async def read_files(layout: Layout, files: Sequence[Expected], emit: Emit) -> Outcome:
    """Compare the files of a place with what they should be. Nothing is written.

    Raises:
        StorageError: a file may not be read.
    """
    progress = Progress()
    places = {file.path: _place(layout, file) for file in files}
    sizes = {path: _size(layout.base / place) for path, place in places.items()}
    progress.begin_examining(len(files), sum(sizes.values()))
    reader = _Reader(layout, places, progress)
    # The largest first, so that two threads end together.
    waiting = iter(sorted(files, key=lambda file: -sizes[file.path]))
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="aim-verify") as pool:

        async def read() -> None:
            for file in waiting:
                await in_thread(pool, reader.examine, file, threading.Event())
                progress.settle(0)

        async with sampling(progress, emit):
            await together(read() for _ in range(_AT_ONCE))
    reader.outcome.damaged.sort(key=lambda one: one.path)
    reader.outcome.missing.sort()
    return reader.outcome


class _Reader:
    """Examines single files, from several threads."""

    def __init__(self, layout: Layout, places: Mapping[str, str], progress: Progress) -> None:
        self._layout = layout
        self._places = places
        self._progress = progress
        self._counting = threading.Lock()
        self.outcome = Outcome()

    def examine(self, file: Expected, enough: threading.Event) -> None:
        """Read one file and note what came of it; ``enough`` ends it early, without a note."""
        with storage_errors(self._layout.root / file.path):
            try:
                reading = self._open_and_read(file, enough)
            except (FileNotFoundError, NotADirectoryError):
                self.outcome.missing.append(file.path)
            except OSError as error:
                # A bad sector is damage; a lack of rights or of descriptors says nothing.
                if error.errno != errno.EIO:
                    raise
                self.outcome.damaged.append(self._unreadable(file))
            else:
                if reading is not None:
                    self._note(file, reading)

    def _unreadable(self, file: Expected) -> Damaged:
        found = self._layout.content(file.path, file.vouched)
        state = State.of(found.stat) if found else None
        return Damaged(file.path, "the disk cannot read it", state=state)

    def _note(self, file: Expected, reading: Reading | str) -> None:
        damaged = (
            Damaged(file.path, f"{reading} stands in its place")
            if isinstance(reading, str)
            else compare(file, reading)
        )
        if damaged is not None:
            self.outcome.damaged.append(damaged)
        elif not self._layout.shows(file.path, file.vouched):
            self._note_lack(file)
        elif isinstance(reading, Reading):
            self.outcome.right.append(record_of(file, reading))

    def _note_lack(self, file: Expected) -> None:
        """Note a file whose bytes are there, and which has not its name in the model."""
        try:
            kind = _odd_kind((self._layout.root / file.path).lstat().st_mode) or "another file"
        except (FileNotFoundError, NotADirectoryError):
            self.outcome.missing.append(file.path)
        else:
            self.outcome.damaged.append(Damaged(file.path, f"{kind} stands in its place"))

    def _open_and_read(self, file: Expected, enough: threading.Event) -> Reading | str | None:
        """What the file is; in words, when it is no plain file; None when it was enough."""
        place = self._places[file.path]
        if folder := _link_on_the_way(self._layout.base, place):
            return f"{folder}, a symlink,"
        path = self._layout.base / place
        if kind := _odd_kind(path.lstat().st_mode):
            return kind
        fd = open_plain(path, os.O_RDONLY)
        try:
            return _read(fd, file, self._count, enough)
        finally:
            os.close(fd)

    def _count(self, size: int) -> None:
        with self._counting:
            self._progress.add(size)
            self.outcome.bytes += size


def _read(
    fd: int, file: Expected, on_read: Callable[[int], None], enough: threading.Event
) -> Reading | None:
    found = os.fstat(fd)
    size = found.st_size if file.size is None else file.size
    content = ContentHash(size, file.digest)
    crc32s = array("I")
    left = size
    with contextlib.closing(read_through(fd)) as blocks:
        for data in blocks:
            if enough.is_set():
                return None
            block = data[:left]
            crc = int(crc32(block))
            content.update(block, crc)
            crc32s.append(crc)
            on_read(len(block))
            left -= len(block)
            if not left:
                break
    return Reading(State.of(found), content.result(), crc32s)


def other_files(root: Path, known: set[str]) -> tuple[str, ...]:
    """The files below ``root`` that are not ``known``, without what is ours; links count."""
    return tuple(sorted(path for path in _names_below(root) if path not in known))


def _names_below(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        if here == root:
            folders[:] = [name for name in folders if name not in (HIDDEN, ".git")]
        if here == root / ".cache":
            # What huggingface_hub notes beside a model.
            folders[:] = [name for name in folders if name != "huggingface"]
        links = [name for name in folders if (here / name).is_symlink()]
        yield from ((here / name).relative_to(root).as_posix() for name in (*files, *links))


def _place(layout: Layout, file: Expected) -> str:
    """Where the content of a file lies, from the base; where it should, when it is not there."""
    found = layout.content(file.path, file.vouched)
    if found is not None:
        return found.path.relative_to(layout.base).as_posix()
    return layout.place(file.path, file.vouched)


def _size(path: Path) -> int:
    """Bytes to read; 0 for what is no plain file."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _odd_kind(mode: int) -> str:
    """What stands there instead of a plain file; empty for a plain file."""
    if stat.S_ISREG(mode):
        return ""
    return next((name for is_one, name in _KINDS if is_one(mode)), "a device or the like")


def _link_on_the_way(base: Path, place: str) -> str:
    """The first folder on the way to a file that is a symlink; empty when none is."""
    links = (folder for folder in folders_to(base, place) if folder.is_symlink())
    return next((folder.relative_to(base).as_posix() for folder in links), "")
