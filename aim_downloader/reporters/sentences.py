"""Each event in plain words, the same on a terminal and in a log. No words: nothing to tell."""

from __future__ import annotations

from functools import singledispatch

from aim_downloader.events import (
    ConnectionsReduced,
    EarlierSettled,
    Event,
    FileRejected,
    LeaseWaiting,
    PlanMade,
    ProtocolLeft,
    ProtocolsSkipped,
    ProtocolSwitched,
    RetryScheduled,
    RunCancelled,
    RunProgressed,
    RunSimulated,
    ShardProgress,
    ShardsAwaited,
    ShareBrought,
    ShareTaken,
    SnapshotPublished,
    SnapshotResolved,
)
from aim_downloader.units import (
    format_bytes,
    format_clock,
    format_count,
    format_duration,
    format_names,
    format_percent,
    format_rate,
    format_share,
)

# A living run is heard of more often than that.
_SILENT = 5.0


@singledispatch
def sentence(_event: Event) -> str:
    """The event in one line; empty when a person need not hear of it."""
    return ""


@sentence.register
def _(event: SnapshotResolved) -> str:
    files = format_count(event.files, "file")
    return f"{event.uri} at commit {event.commit[:12]}: {files}, {format_bytes(event.bytes)}"


@sentence.register
def _(event: PlanMade) -> str:
    what = _files(event.fetch_files, event.fetch_bytes) if event.fetch_files else "nothing"
    hint = [event.hint] if event.hint else []
    return "; ".join([f"To fetch into {event.target}: {what}", *plan_details(event), *hint])


@sentence.register
def _(event: ShareTaken) -> str:
    own, whole = _files(event.files, event.bytes), _files(event.all_files, event.all_bytes)
    return f"Shard {event.index} of {event.count} (from 0) takes {own} of {whole}"


@sentence.register
def _(event: ShardsAwaited) -> str:
    missing = "; ".join(map(_shard, event.missing))
    waiting = f"Waiting for {len(event.missing)} of {event.count} shards: {missing}"
    if all(one.silent <= _SILENT for one in event.missing):
        return waiting
    return f"{waiting}; this one gives up when none is heard of for {event.patience:g} s"


def _shard(one: ShardProgress) -> str:
    name, silent = f"shard {one.index}", format_duration(one.silent)
    if not one.came:
        return f"{name} has not come" + (f" for {silent}" if one.silent > _SILENT else "")
    far = f" at {how_far(one.bytes_done, one.bytes_total)}" if one.bytes_total else ""
    return f"{name}{far}" + (f", silent for {silent}" if one.silent > _SILENT else "")


@sentence.register
def _(event: ShareBrought) -> str:
    return (
        f"The share of shard {event.index} of {event.count} is there; "
        "it is shard 0 that publishes the model"
    )


@sentence.register
def _(event: ConnectionsReduced) -> str:
    used = f"{event.allowed} of {format_count(event.asked, 'connection')}"
    return f"Memory is limited to {format_bytes(event.limit)} here: {used} are used"


@sentence.register
def _(event: RetryScheduled) -> str:
    when = f"in {format_duration(event.delay)}" if event.delay >= 0.05 else "now"
    return f"Retry {event.attempt} {when} of {_why(event.path, event.reason)}"


@sentence.register
def _(event: FileRejected) -> str:
    reason = event.reason.removeprefix(f"{event.path}: ")
    return f"Rejected {event.path} as {event.protocol} brought it: {reason}"


@sentence.register
def _(event: ProtocolSwitched) -> str:
    why = _why(event.path, event.reason)
    if not event.to:
        return f"{event.failed} gives up {why}"
    if event.to == event.failed:
        return f"{event.failed} begins again with {why}"
    return f"{event.failed} gives up, {event.to} takes over {why}"


@sentence.register
def _(event: ProtocolLeft) -> str:
    return f"{event.protocol} is left for the rest of this run: {event.reason}"


@sentence.register
def _(event: ProtocolsSkipped) -> str:
    names = format_names(event.protocols)
    return f"Passed over, as no protocol has the name: {names}"


@sentence.register
def _(event: LeaseWaiting) -> str:
    if event.silent > _SILENT:
        silent, patience = format_duration(event.silent), format_duration(event.patience)
        state = f"silent for {silent}; at {patience} this run takes over"
    elif event.bytes_total:
        state = how_far(event.bytes_done, event.bytes_total)
    else:
        state = "it begins"
    return f"Waiting for another run ({event.holder}): {state}"


@sentence.register
def _(event: RunProgressed) -> str:
    parts = [f"Progress: {how_far(event.bytes_done, event.bytes_total)} {pace(event)}"]
    if event.eta is not None and not event.waiting:
        parts.append(f"{format_clock(event.eta)} left")
    parts.append(f"{event.files_done:,}/{event.files_total:,} files")
    return ", ".join(parts)


@sentence.register
def _(event: EarlierSettled) -> str:
    parts = []
    if event.kept_files:
        verb, them = ("is", "it") if event.kept_files == 1 else ("are", "them")
        kept = _files(event.kept_files, event.kept_bytes)
        parts.append(f"{kept}, of an earlier revision {verb} kept; --prune removes {them}")
    if event.pruned_files:
        pruned = _files(event.pruned_files, event.pruned_bytes)
        parts.append(f"Removed, of an earlier revision: {pruned}")
    if event.changed:
        changed = format_names(event.changed)
        parts.append(f"Kept, as changed since they were downloaded: {changed}")
    return ". ".join(parts)


@sentence.register
def _(event: SnapshotPublished) -> str:
    there = max(0, event.bytes - event.bytes_received)
    parts = [f"{format_bytes(event.bytes_received)} received in {format_duration(event.seconds)}"]
    if event.bytes_received and event.seconds > 0:
        parts[0] += f" ({format_rate(event.bytes_received / event.seconds)})"
    if there:
        parts.append(f"{format_bytes(there)} already there")
    files = format_count(event.files, "file")
    # What was there before may have been compared by size and mtime alone.
    state = "verified" if event.bytes_received else "complete"
    state = state if event.commit else "simulated"
    done = f"{files}, {format_bytes(event.bytes)}, {state}, in {event.target}"
    return f"{done}; {', '.join(parts)}"


@sentence.register
def _(event: RunCancelled) -> str:
    if not event.bytes_total:
        return "Stopped before anything was fetched"
    done = how_far(event.bytes_done, event.bytes_total)
    return f"Stopped at {done}; the same command goes on from there"


@sentence.register
def _(event: RunSimulated) -> str:
    return f"[SIMULATE] {event.what}"


def pace(event: RunProgressed) -> str:
    """How fast it goes, or what is done instead."""
    if event.waiting:
        return "waiting for others"
    return "verifying" if event.verifying else format_rate(event.rate)


def plan_details(event: PlanMade) -> list[str]:
    """What a plan spares the network."""
    details = []
    if event.resumed_bytes:
        size = format_bytes(event.resumed_bytes)
        details.append(f"{size} more of unfinished files are on disk already")
    if event.held_files:
        details.append(f"already there: {_files(event.held_files, event.held_bytes)}")
    if event.left_out_files:
        details.append(f"left out: {_files(event.left_out_files, event.left_out_bytes)}")
    if event.kept_files:
        kept = _files(event.kept_files, event.kept_bytes)
        details.append(f"kept, of an earlier revision: {kept}")
    return details


def how_far(done: int, total: int) -> str:
    """Bytes done as a share: ``43 % (1.20/2.80 GiB)``."""
    return f"{format_percent(done, total)} ({format_share(done, total)})"


def _why(path: str, reason: str) -> str:
    """What happened to a file, which the reason may name, too."""
    return f"{path}: {reason.removeprefix(f'{path}: ')}"


def _files(count: int, size: int) -> str:
    return f"{format_count(count, 'file')}, {format_bytes(size)}"
