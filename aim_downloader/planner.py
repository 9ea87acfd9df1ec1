"""Pure: a snapshot, the filters and what the sink holds become a Plan, which needs so much disk."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aim_downloader.errors import InsufficientSpaceError, SnapshotNotFoundError
from aim_downloader.snapshot import MIB, RemoteFile, Snapshot
from aim_downloader.storage import Space
from aim_downloader.units import format_bytes

SMALL_FILE = 1 * MIB
"""Files up to this many bytes are fetched whole, without partial and journal."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the sink has of one file: all of it, verified, or ``partial_bytes`` to go on with."""

    complete: bool = False
    partial_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that will not be fetched, and why."""

    file: RemoteFile
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. ``fetch`` is ordered: big files first. ``resumed_bytes`` are on disk."""

    snapshot: Snapshot
    fetch: tuple[RemoteFile, ...]
    held: tuple[RemoteFile, ...]
    left_out: tuple[LeftOut, ...]
    resumed_bytes: int = 0

    @property
    def wanted(self) -> tuple[RemoteFile, ...]:
        """All files that the finished folder has to hold, by path."""
        return tuple(sorted((*self.fetch, *self.held), key=lambda file: file.path))

    @property
    def size(self) -> int:
        """Bytes of all wanted files."""
        return sum(file.size for file in (*self.fetch, *self.held))

    @property
    def fetch_bytes(self) -> int:
        """Bytes still to come over the network."""
        return sum(file.size for file in self.fetch) - self.resumed_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes of the files that are there and right."""
        return sum(file.size for file in self.held)

    @property
    def left_out_bytes(self) -> int:
        """Bytes of the files that are left out."""
        return sum(item.file.size for item in self.left_out)


def select(
    snapshot: Snapshot, include: Sequence[str], exclude: Sequence[str]
) -> tuple[tuple[RemoteFile, ...], tuple[LeftOut, ...]]:
    """Part the files of a snapshot into those wanted and those left out.

    A glob is matched against the whole path and ``*`` crosses folders, as in ``hf download``;
    a glob that ends in ``/`` means all that is below.

    Raises:
        SnapshotNotFoundError: nothing is left to download.
    """
    taken: list[RemoteFile] = []
    left_out: list[LeftOut] = []
    for file in snapshot.files:
        reason = _reason_to_leave_out(snapshot.uri.subpath, file.path, include, exclude)
        if reason:
            left_out.append(LeftOut(file, reason))
        else:
            taken.append(file)
    if not taken:
        asked = [f"below {snapshot.uri.subpath}"] if snapshot.uri.subpath else []
        asked += [f"--include {glob!r}" for glob in include]
        asked += [f"--exclude {glob!r}" for glob in exclude]
        raise SnapshotNotFoundError(
            f"nothing to download: {snapshot.uri} has {len(snapshot.files)} files at commit "
            f"{snapshot.commit[:12]}, and none fits {', '.join(asked)}",
            hint="a glob is matched against the whole path; `plan` without it lists the paths",
        )
    return tuple(taken), tuple(left_out)


def _reason_to_leave_out(
    subpath: str, path: str, include: Sequence[str], exclude: Sequence[str]
) -> str:
    if subpath and path != subpath and not path.startswith(f"{subpath}/"):
        return f"not below {subpath}"
    if include and not any(_matches(path, glob) for glob in include):
        return "no --include matches"
    return next((f"--exclude {glob}" for glob in exclude if _matches(path, glob)), "")


def _matches(path: str, glob: str) -> bool:
    return fnmatch.fnmatchcase(path, f"{glob}*" if glob.endswith("/") else glob)


def make_plan(
    snapshot: Snapshot,
    wanted: Sequence[RemoteFile],
    left_out: Sequence[LeftOut],
    holdings: Mapping[str, Holding],
) -> Plan:
    """Decide what is fetched: what is not there and right, big files first."""
    held = tuple(file for file in wanted if holdings[file.path].complete)
    fetch = [file for file in wanted if not holdings[file.path].complete]
    return Plan(
        snapshot=snapshot,
        fetch=tuple(sorted(fetch, key=lambda file: (-file.size, file.path))),
        held=held,
        left_out=tuple(left_out),
        resumed_bytes=sum(holdings[file.path].partial_bytes for file in fetch),
    )


def check_space(plan: Plan, space: Space, target: str) -> None:
    """Refuse a plan that cannot fit, before its first byte.

    Raises:
        InsufficientSpaceError: bytes or inodes are missing; the message says how many.
    """
    if (missing := plan.fetch_bytes - space.bytes) > 0:
        raise InsufficientSpaceError(
            f"{target} has {format_bytes(space.bytes)} free and {format_bytes(plan.fetch_bytes)} "
            f"are needed: {format_bytes(missing)} ({missing} bytes) are missing",
            hint="free some space, take a larger volume, or leave files out with --exclude",
        )
    # Each file, its folder and the few of our own below the hidden folder.
    folders = {file.path.rpartition("/")[0] for file in plan.fetch}
    needed = len(plan.fetch) + len(folders) + 8 if plan.fetch else 0
    if space.inodes is not None and space.inodes < needed:
        raise InsufficientSpaceError(
            f"{target} has {space.inodes} inodes free and {needed} are needed: "
            f"{needed - space.inodes} are missing",
            hint="remove files, or take a file system with more inodes",
        )
