"""Pure: a snapshot, the filters and what the sink holds become a Plan, which needs so much disk."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from aim_downloader.errors import InsufficientSpaceError, SnapshotNotFoundError
from aim_downloader.receipt import Record
from aim_downloader.snapshot import MIB, RemoteFile, Snapshot
from aim_downloader.storage import Space
from aim_downloader.units import format_bytes
from aim_downloader.weights import Choice, choose, formats_in, saving_hint

SMALL_FILE = 1 * MIB
"""Files up to this many bytes are fetched whole, without partial and journal."""
_REPLACES = "replaces a file that differs"
_OUTDATED = "what is there is of an earlier revision"


@dataclass(frozen=True, slots=True)
class Holding:
    """What the sink has of one file: all of it, verified, or ``partial_bytes`` to go on with.

    ``differs``: something else stands under its name. ``allocated`` bytes of disk are its own
    already: those of a partial, whatever is in them.
    """

    complete: bool = False
    partial_bytes: int = 0
    differs: bool = False
    allocated: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that will not be fetched, and why."""

    file: RemoteFile
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Files of a snapshot that are wanted, and those left out.

    ``reasons`` say by path why a file is wanted, where it needs saying; ``hint`` says what else
    could be left out, or what could not.
    """

    wanted: tuple[RemoteFile, ...]
    left_out: tuple[LeftOut, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Earlier:
    """Files of an earlier revision that are still there, and whose paths this one lacks.

    ``changed`` are paths of files that somebody has changed since: they are never removed; nor are
    those that are ``outdated``: this revision has them in another version, which filters leave out.
    """

    untouched: tuple[Record, ...] = ()
    changed: tuple[str, ...] = ()
    prune: bool = False
    outdated: tuple[Record, ...] = ()

    @property
    def kept(self) -> tuple[Record, ...]:
        """What stays."""
        return () if self.prune else self.untouched

    @property
    def pruned(self) -> tuple[Record, ...]:
        """What is removed once the new revision is published."""
        return self.untouched if self.prune else ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. ``fetch`` is ordered: big files first. ``resumed_bytes`` are on disk.

    ``reasons`` and ``hint`` are those of ``Selection``.
    """

    snapshot: Snapshot
    fetch: tuple[RemoteFile, ...]
    held: tuple[RemoteFile, ...]
    left_out: tuple[LeftOut, ...]
    resumed_bytes: int = 0
    allocated_bytes: int = 0
    earlier: Earlier = field(default_factory=Earlier)
    reasons: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""

    @property
    def wanted(self) -> tuple[RemoteFile, ...]:
        """All files that the finished folder has to hold, by path."""
        return tuple(sorted((*self.fetch, *self.held), key=lambda file: file.path))

    @property
    def size(self) -> int:
        """Bytes of all wanted files."""
        return sum(file.size for file in (*self.fetch, *self.held))

    @property
    def needed_bytes(self) -> int:
        """Bytes of disk that the files to fetch still need."""
        return sum(file.size for file in self.fetch) - self.allocated_bytes

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

    @property
    def kept(self) -> tuple[Record, ...]:
        """Files of an earlier revision that stay."""
        return self.earlier.kept

    @property
    def kept_bytes(self) -> int:
        """Bytes of the files of an earlier revision that stay."""
        return sum(record.size for record in self.kept)


def select(
    snapshot: Snapshot,
    include: Sequence[str],
    exclude: Sequence[str],
    weight_format: str | None = None,
) -> Selection:
    """Part the files of a snapshot into those wanted and those left out.

    A glob is matched against the whole path and ``*`` crosses folders, as in ``hf download``;
    a glob that ends in ``/`` means all that is below. Of the files that the globs let in, weights
    of another format than ``weight_format`` are left out (see ``weights``).

    Raises:
        SnapshotNotFoundError: nothing is left to download, or no weights of that format.
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
        asked = ", ".join(_asked(snapshot, include, exclude))
        raise SnapshotNotFoundError(
            f"nothing to download: {snapshot.uri} has {len(snapshot.files)} files at commit "
            f"{snapshot.commit[:12]}, and none fits {asked}",
            hint=_hint_of_nothing(snapshot),
        )
    if weight_format:
        if weight_format not in formats_in(taken):
            raise _no_weights(snapshot, taken, weight_format, bool(left_out))
        return _of_one_format(taken, left_out, choose(taken, weight_format))
    hint = "" if include or exclude else saving_hint(taken)
    return Selection(tuple(taken), tuple(left_out), hint=hint)


def _asked(snapshot: Snapshot, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    asked = [f"below {snapshot.uri.subpath}"] if snapshot.uri.subpath else []
    asked += [f"--include {glob!r}" for glob in include]
    return asked + [f"--exclude {glob!r}" for glob in exclude]


def _hint_of_nothing(snapshot: Snapshot) -> str:
    """What to do where nothing is left to download."""
    uri, subpath = snapshot.uri, snapshot.uri.subpath
    if subpath and all(_is_outside(subpath, file.path) for file in snapshot.files):
        whole = replace(uri, subpath="")
        return f"it has neither a folder nor a file {subpath!r}: `plan {whole}` lists the paths"
    return "a glob is matched against the whole path; `plan` without it lists the paths"


def _of_one_format(
    taken: Sequence[RemoteFile], left_out: Sequence[LeftOut], choice: Choice
) -> Selection:
    others = [
        LeftOut(file, choice.left_out[file.path]) for file in taken if file.path in choice.left_out
    ]
    stand_ins = [file for file in taken if file.path in choice.stand_ins]
    hint = ""
    if stand_ins:
        first = stand_ins[0].path
        more = f" and {len(stand_ins) - 1} more" if len(stand_ins) > 1 else ""
        size = format_bytes(sum(file.size for file in stand_ins))
        hint = f"taken too, {size}: {first}{more} ({choice.stand_ins[first]})"
    return Selection(
        wanted=tuple(file for file in taken if file.path not in choice.left_out),
        left_out=(*left_out, *others),
        reasons=choice.stand_ins,
        hint=hint,
    )


def _no_weights(
    snapshot: Snapshot, taken: Sequence[RemoteFile], wished: str, filtered: bool
) -> SnapshotNotFoundError:
    sizes = formats_in(taken)
    there = ", ".join(f"{name} ({format_bytes(size)})" for name, size in sizes.items())
    among = " among the files that are asked for" if filtered else ""
    return SnapshotNotFoundError(
        f"{snapshot.uri} has no {wished} weights{among} at commit {snapshot.commit[:12]}: "
        f"it has {there or 'none of any format that is known'}",
        hint="name one of these with --format, or leave it out" if sizes else "leave --format out",
    )


def _reason_to_leave_out(
    subpath: str, path: str, include: Sequence[str], exclude: Sequence[str]
) -> str:
    if subpath and _is_outside(subpath, path):
        return f"not below {subpath}"
    if include and not any(_matches(path, glob) for glob in include):
        return "no --include matches"
    return next((f"--exclude {glob}" for glob in exclude if _matches(path, glob)), "")


def _is_outside(subpath: str, path: str) -> bool:
    return path != subpath and not path.startswith(f"{subpath}/")


def _matches(path: str, glob: str) -> bool:
    return fnmatch.fnmatchcase(path, f"{glob}*" if glob.endswith("/") else glob)


def of_earlier_revisions(
    known: Mapping[str, Record], snapshot: Snapshot, wanted: Sequence[RemoteFile]
) -> list[Record]:
    """The records of files that were brought for another revision and are not replaced by this one.

    Files of this revision that filters leave out are none of them, nor is what was there before.
    """
    listed = {file.path: file.digest for file in snapshot.files}
    of_now = {file.path for file in wanted}
    return [
        record
        for path, record in sorted(known.items())
        if path not in of_now
        and not record.found
        and (path not in listed or (listed[path] and not record.proves(listed[path])))
    ]


def make_plan(
    snapshot: Snapshot,
    selection: Selection,
    holdings: Mapping[str, Holding],
    earlier: Earlier | None = None,
    resident: str = "",
) -> Plan:
    """Decide what is fetched: what is not there and right, big files first.

    ``resident`` is another repository that the target holds files of.
    """
    held = tuple(file for file in selection.wanted if holdings[file.path].complete)
    fetch = [file for file in selection.wanted if not holdings[file.path].complete]
    # Also of what is held: it may be there, and another file under its name.
    replaced = {f.path: _REPLACES for f in selection.wanted if holdings[f.path].differs}
    earlier = earlier or Earlier()
    # Said once: where files are held, an earlier run has said it.
    hint = "" if held else selection.hint
    hints = (_of_resident(resident, bool(replaced)) if fetch else "", hint)
    return Plan(
        snapshot=snapshot,
        fetch=tuple(sorted(fetch, key=lambda file: (-file.size, file.path))),
        held=held,
        left_out=_with_outdated(selection.left_out, earlier.outdated),
        resumed_bytes=sum(holdings[file.path].partial_bytes for file in fetch),
        allocated_bytes=sum(min(file.size, holdings[file.path].allocated) for file in fetch),
        earlier=earlier,
        reasons={**selection.reasons, **replaced},
        hint="; ".join(filter(None, hints)),
    )


def _with_outdated(left_out: Sequence[LeftOut], outdated: Sequence[Record]) -> tuple[LeftOut, ...]:
    """Say of a file that is left out that its place is not empty."""
    paths = {record.path for record in outdated}
    return tuple(
        replace(item, reason=f"{item.reason}; {_OUTDATED}") if item.file.path in paths else item
        for item in left_out
    )


def _of_resident(resident: str, replaced: bool) -> str:
    if not resident:
        return ""
    fate = "files of the same name are replaced, the others stay" if replaced else "its files stay"
    return f"the folder holds {resident}: {fate}"


def check_space(plan: Plan, space: Space, target: str) -> None:
    """Refuse a plan that cannot fit, before its first byte.

    Raises:
        InsufficientSpaceError: bytes or inodes are missing; the message says how many.
    """
    if missing := shortage(plan, space):
        raise InsufficientSpaceError(
            f"{target} has {missing}",
            hint="remove other files, take a larger volume, or leave files out with --exclude",
            model_bytes=plan.size,
        )


def shortage(plan: Plan, space: Space) -> str:
    """What a plan lacks: how much is free, how much is needed; empty when it fits."""
    if (missing := plan.needed_bytes - space.bytes) > 0:
        return (
            f"{format_bytes(space.bytes)} free and {format_bytes(plan.needed_bytes)} are needed: "
            f"{format_bytes(missing)} ({missing} bytes) are missing"
        )
    # Each file, its folder and the few of our own below the hidden folder.
    folders = {file.path.rpartition("/")[0] for file in plan.fetch}
    needed = len(plan.fetch) + len(folders) + 8 if plan.fetch else 0
    if space.inodes is not None and space.inodes < needed:
        return (
            f"{space.inodes} inodes free and {needed} are needed: "
            f"{needed - space.inodes} are missing"
        )
    return ""
