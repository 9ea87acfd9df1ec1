"""Files of an earlier revision: found, kept on record, and removed only where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aim_downloader.events import EarlierSettled, Emit, FilePruned
from aim_downloader.names import folded_path
from aim_downloader.planner import Earlier, of_earlier_revisions
from aim_downloader.receipt import Record
from aim_downloader.sinks.base import Sink
from aim_downloader.snapshot import RemoteFile, Snapshot


def find_earlier(
    sink: Sink,
    known: Mapping[str, Record],
    snapshot: Snapshot,
    wanted: Sequence[RemoteFile],
    *,
    prune: bool,
) -> Earlier:
    """The files in a target that are on record, and that are not of the new snapshot.

    What stands there of another repository is none of them: somebody wants it beside this one.
    """
    before = sink.origin
    if before is None or before.repository != snapshot.uri.repository or sink.layout.commit:
        return Earlier()
    found = of_earlier_revisions(known, snapshot, wanted)
    new = _by_folded(snapshot.files) if found else {}
    records = [
        one
        for one in found
        if not any(sink.are_one(one.path, path) for path in new.get(folded_path(one.path), ()))
    ]
    listed = {file.path for file in snapshot.files}
    lacked = [record for record in records if record.path not in listed]
    untouched = (record for record in lacked if sink.untouched(record))
    changed = (record.path for record in lacked if prune and sink.was_changed(record))
    outdated = (one for one in records if one.path in listed and sink.untouched(one))
    return Earlier(tuple(untouched), tuple(changed), prune, tuple(outdated))


def _by_folded(files: Sequence[RemoteFile]) -> Mapping[str, Sequence[str]]:
    """All spellings of each path, by what they have in common."""
    paths: dict[str, list[str]] = {}
    for file in files:
        paths.setdefault(folded_path(file.path), []).append(file.path)
    return paths


def settle_earlier(sink: Sink, earlier: Earlier, emit: Emit) -> Sequence[Record]:
    """Remove what is to be removed, tell what became of it all, and return what is left.

    Call it when the new snapshot is published, with the lease held.

    Raises:
        StorageError: the disk refuses.
        LeaseLostError: another run has the folder now.
    """
    pruned: dict[str, int] = {}
    for record in sink.prune(earlier.pruned):
        pruned[record.path] = record.size
        emit(FilePruned(record.path, record.size))
    # Somebody may have been at work since the plan was made.
    rest = (record for record in earlier.pruned if record.path not in pruned)
    changed = (*earlier.changed, *(record.path for record in rest if sink.was_changed(record)))
    if earlier.untouched or earlier.changed:
        emit(
            EarlierSettled(
                kept_files=len(earlier.kept),
                kept_bytes=sum(record.size for record in earlier.kept),
                pruned_files=len(pruned),
                pruned_bytes=sum(pruned.values()),
                changed=changed,
            )
        )
    return earlier.kept
