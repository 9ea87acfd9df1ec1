"""What the tests of sinks share: files that they bring, and what is on the disk afterwards."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from aim_downloader.content_hash import SmallFile, prove
from aim_downloader.partial import BLOCK, no_guard
from aim_downloader.receipt import Origin, Record
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.layout import Layout
from aim_downloader.snapshot import Digest, RemoteFile

COMMIT = "c" * 40
HELLO = b"hello\n"


def git_file(path: str, content: bytes) -> RemoteFile:
    blob = hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False)
    return RemoteFile(path, len(content), Digest("git-sha1", blob.hexdigest()))


def lfs_file(path: str, content: bytes) -> RemoteFile:
    return RemoteFile(path, len(content), Digest("sha256", hashlib.sha256(content).hexdigest()))


def small(path: str, content: bytes = HELLO) -> SmallFile:
    file = git_file(path, content)
    return SmallFile(file, content, prove(content, file.digest))


def examine(sink: Sink, file: RemoteFile) -> Record | None:
    return sink.examine(file, lambda count: None, threading.Event())


def origin_of(sink: Sink) -> Origin:
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


def bring(sink: Sink, path: str, content: bytes = HELLO) -> RemoteFile:
    """A file that takes the way of the large ones."""
    file = lfs_file(path, content)
    partial = sink.open_partial(file, COMMIT)
    for start in range(0, len(content), BLOCK):
        partial.write_at(start, content[start : start + BLOCK])
    sink.commit(partial)
    return file


def place_of(sink: Sink, file: RemoteFile) -> Path:
    """Where a file's content goes."""
    return sink.layout.base / sink.same_content(file)


def put(sink: Sink, file: RemoteFile, content: bytes) -> Path:
    """Somebody else's file in the place of a content."""
    place = place_of(sink, file)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder; a folder's content is None."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def begun(layout: Layout, guard: Callable[[], None] = no_guard) -> Sink:
    """The sink of a run that holds the lease."""
    sink = Sink(layout, guard)
    sink.prepare()
    sink.begin()
    return sink
