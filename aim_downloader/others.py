"""What the first shard sees of the others: how far they are, since when, and what is proven."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aim_downloader import lease, linux
from aim_downloader.errors import StorageError
from aim_downloader.lease import STALE, Holder, is_dead
from aim_downloader.receipt import SUMS, Origin, Record, read_origin, read_sums
from aim_downloader.sharding import Shard
from aim_downloader.sinks.held import Held
from aim_downloader.sinks.layout import hidden_of
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.sinks.shard_dir import ShardDir
from aim_downloader.snapshot import RemoteFile

Proven = Mapping[str, Record]
_Stamp = tuple[int, int, int] | None
_JUDGE_AGAIN = 10.0


def prove_share(
    base: Path, share: Iterable[RemoteFile], hidden: Path, enough: threading.Event
) -> Proven | None:
    """The records of files that the ``SHA256SUMS`` in ``hidden`` speaks for; None if not for all.

    Its lines must be what the source vouches for, and the sizes those on disk. Files that were
    touched since are read, and so are those that the source knows by git's digest alone, unless a
    receipt speaks of them. Writes nothing; ``enough`` ends it early, without a result.
    """
    held, sums, origin = Held(LocalDir(base)), read_sums(hidden)[0], read_origin(hidden)
    records: dict[str, Record] = {}
    to_read: list[RemoteFile] = []
    for file in share:
        sha256 = sums.get(file.path, "")
        differs = not _known_by_git(file) and file.digest and file.digest.hex != sha256
        if not sha256 or differs or not held.of_right_size(file):
            return None
        record = Record(file.path, file.size, 0, str(file.digest or ""), sha256, ())
        records[file.path] = record
        if not _is_settled(file, record, held, origin):
            to_read.append(file)
    for file in to_read:
        with contextlib.suppress(StorageError):
            found = held.examine(file, lambda _count: None, enough)
            if found and found.sha256 == sums[file.path]:
                continue
        return None
    return records


def _is_settled(file: RemoteFile, record: Record, held: Held, origin: Origin | None) -> bool:
    """Whether sums are believed unread: by a receipt, where there is one, nothing was touched."""
    if origin is None:
        return not _known_by_git(file)
    noted = origin.files.get(file.path)
    if noted is None or noted.sha256 != record.sha256 or not held.untouched(noted):
        return False
    return file.digest is None or noted.proves(file.digest)


def _known_by_git(file: RemoteFile) -> bool:
    return file.digest is not None and file.digest.algorithm != "sha256"


@dataclass
class Other:
    """One shard, as it was seen last. ``changed`` is when its lease or sums last did.

    It ``came`` when it has a folder, be it at work, done or dead.
    """

    shard: Shard
    share: Sequence[RemoteFile]
    changed: float
    beaten: float
    came: bool = False
    lease: bytes | None = None
    stamp: _Stamp = None
    proven: Proven | None = None
    bytes_done: int = 0
    size: int = field(init=False)
    judged: tuple[str, _Stamp] | None = None
    judged_at: float = 0.0

    def __post_init__(self) -> None:
        self.size = sum(file.size for file in self.share)


class Others:
    """The shards beside ``own`` of a run in ``base``."""

    def __init__(self, base: Path, own: Shard, shares: Sequence[Sequence[RemoteFile]]) -> None:
        self._base = base
        self._us = Holder.this_process()
        now = linux.clock()
        self.all = [
            Other(Shard(index, own.count), share, now, now)
            for index, share in enumerate(shares)
            if index != own.index
        ]

    @property
    def missing(self) -> list[Other]:
        """Those whose share is not proven yet."""
        return [one for one in self.all if one.proven is None]

    @property
    def absent(self) -> list[Other]:
        """Those of them that have not come yet."""
        return [one for one in self.missing if not one.came]

    @property
    def bytes_done(self) -> int:
        """Bytes that they have on disk."""
        return sum(one.size if one.proven is not None else one.bytes_done for one in self.all)

    @property
    def files_done(self) -> int:
        """Files of those that are done."""
        return sum(len(one.share) for one in self.all if one.proven is not None)

    def look(self, enough: threading.Event) -> None:
        """Look at each of them. For a thread: it reads; ``enough`` ends that early."""
        for one in self.all:
            with contextlib.suppress(StorageError):  # as it was, then: the next look may see more
                self._look_at(one, enough)

    def prove_again(self, enough: threading.Event) -> dict[str, Record] | None:
        """The records of all files, as they are now; None when one of the shards lacks some."""
        records: dict[str, Record] = {}
        for one in self.all:
            one.proven = prove_share(self._base, one.share, self._judge(one), enough)
            records |= one.proven or {}
        return None if self.missing else records

    def _judge(self, one: Other) -> Path:
        """Where the sums are that speak for a shard."""
        hidden = hidden_of(ShardDir(self._base, one.shard))
        # One that has left nothing may have come before: then all is published.
        return hidden if hidden.exists() else hidden_of(LocalDir(self._base))

    def _look_at(self, one: Other, enough: threading.Event) -> None:
        hidden = hidden_of(ShardDir(self._base, one.shard))
        content, stamp, now = lease.read(hidden / "lease"), _stamp(hidden / SUMS), linux.clock()
        one.came = hidden.exists()
        if content != one.lease:
            one.beaten = now
        if (content, stamp) != (one.lease, one.stamp):
            one.changed = now
        one.lease, one.stamp = content, stamp
        holder = Holder.parse(content)
        if holder and holder.bytes_total:
            one.bytes_done = min(holder.bytes_done, one.size)
        dead = holder is not None and is_dead(holder, self._us)
        if content is not None and not dead and now - one.beaten < STALE:
            one.proven = one.judged = None  # it is at work: what it had proven it proves anew
            return
        judge = self._judge(one)
        judged = (str(judge), _stamp(judge / SUMS))
        # On a network file system a file may be seen later than the sums that speak of it.
        again = judged != one.judged or now - one.judged_at >= _JUDGE_AGAIN
        if one.proven is None and again:
            one.judged, one.judged_at = judged, now
            one.proven = prove_share(self._base, one.share, judge, enough)


def _stamp(path: Path) -> _Stamp:
    """What changes when a file is written anew; None when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
