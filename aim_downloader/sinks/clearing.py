"""Removes what shards have left in a folder, as far as none of their run is alive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from aim_downloader.events import Emit
from aim_downloader.lease import BusyError, Lease, unless_alive
from aim_downloader.pin import Pin, pins_in
from aim_downloader.receipt import ORIGIN, SUMS
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.layout import Layout, hidden_of
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.sinks.shard_dir import ShardDir, shards_in
from aim_downloader.storage import storage_errors


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was removed (``bytes`` on disk), or a shard that is at work (``busy``)."""

    removed: tuple[Path, ...] = ()
    bytes: int = 0
    busy: str | None = None


async def clear_shards(layout: Layout, emit: Emit, keep: Pin | None = None) -> Cleared:
    """Remove the folders of dead shards, and the pins once no shard is left. Only plain folders.

    Where one shard is alive, all that have the same count are left alone: they belong together.
    Those of ``keep`` are left alone, too. It takes some seconds where a shard may be alive.

    Raises:
        StorageError: the disk refuses.
    """
    if type(layout) is not LocalDir:  # nor for a shard, which is one of several
        return Cleared()
    runs = [list(run) for _, run in groupby(shards_in(layout.base), lambda one: one.shard.count)]
    others = [run for run in runs if keep is None or run[0].shard.count != keep.count]
    cleared = _all_of(await asyncio.gather(*(_clear_run(run, emit) for run in others)))
    if cleared.busy is None:
        with storage_errors(layout.base):
            for path in pins_in(hidden_of(layout)):
                if keep is None or path != keep.path:
                    path.unlink(missing_ok=True)
    return cleared


async def _clear_run(run: Iterable[ShardDir], emit: Emit) -> Cleared:
    for busy in await asyncio.gather(*(_alive(one, emit) for one in run)):
        if busy:
            return Cleared(busy=busy)
    return _all_of([await clear_shard(one, emit) for one in run])


def _all_of(parts: Iterable[Cleared]) -> Cleared:
    parts = list(parts)
    return Cleared(
        tuple(path for part in parts for path in part.removed),
        sum(part.bytes for part in parts),
        next((part.busy for part in parts if part.busy), None),
    )


async def _alive(one: ShardDir, emit: Emit) -> str | None:
    """Who works there; None when it is dead, or nobody does."""
    try:
        async with Lease(Sink(one).lease_path, lambda: (0, 0)).held(unless_alive(emit)):
            return None
    except BusyError as busy:
        return str(busy)


async def clear_shard(one: ShardDir, emit: Emit) -> Cleared:
    """Remove the folder of a shard, unless it is at work there.

    Raises:
        StorageError: the disk refuses.
    """
    sink = Sink(one)
    sink.prepare()
    try:
        async with Lease(sink.lease_path, lambda: (0, 0)).held(unless_alive(emit)):
            removed, freed = sink.forget_unfinished()
            with storage_errors(sink.hidden):
                papers = [path for name in (SUMS, ORIGIN) if (path := sink.hidden / name).exists()]
                for path in papers:
                    path.unlink()
    except BusyError as busy:
        return Cleared(busy=str(busy))
    sink.leave()
    return Cleared((*removed, *papers), freed)
