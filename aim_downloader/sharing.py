"""One of several pods that bring one model into one folder; the first of them publishes it.

Below the hidden folder each shard has a folder of its own. There are its lease, while it is at
work, and at last its ``SHA256SUMS``: by these the first shard knows of it (see ``leading``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aim_downloader import linux
from aim_downloader.config import Config
from aim_downloader.connection import Connection, connected
from aim_downloader.errors import ShardMissingError, SnapshotChangedError, SnapshotNotFoundError
from aim_downloader.events import Emit, ShardProgress, ShardsAwaited, ShareBrought, ShareTaken
from aim_downloader.leading import Leading
from aim_downloader.others import prove_share
from aim_downloader.pin import Pin
from aim_downloader.planner import Selection, select
from aim_downloader.receipt import SUMS
from aim_downloader.road import Road
from aim_downloader.sharding import Shard, shares
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.choice import layout_for
from aim_downloader.sinks.clearing import clear_shard, clear_shards
from aim_downloader.sinks.layout import hidden_of
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.sinks.shard_dir import ShardDir
from aim_downloader.snapshot import ModelURI, RemoteFile, Snapshot
from aim_downloader.storage import storage_errors
from aim_downloader.tasks import in_thread
from aim_downloader.twins import refuse_twins

_GLANCE = 0.5
_TELL = 10.0

_Parts = Sequence[Sequence[RemoteFile]]


class _PinMovedError(SnapshotChangedError):
    """Others have pinned another commit meanwhile."""


class Sharing:
    """The way of one ``shard``: its share of a model into the folder of all."""

    def __init__(
        self,
        uri: ModelURI,
        directory: str | os.PathLike[str] | None,
        config: Config,
        emit: Emit,
        shard: Shard,
    ) -> None:
        self._uri = uri
        # For a shard's own papers, which go in the end.
        self._config = replace(config, origin=True)
        self._emit = emit
        self._shard = shard
        self._layout = LocalDir(layout_for("plain", uri, directory).base)
        self._hidden = hidden_of(self._layout)
        self._place = ShardDir(self._layout.base, shard)
        filters = (list(config.include), list(config.exclude), config.weight_format)
        self._pin = Pin(self._hidden, shard.count, str(uri), *filters)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="aim-share")
        self._road: Road | None = None
        self._leading: Leading | None = None

    def bytes(self) -> tuple[int, int]:
        """Bytes on disk, and in all: of the share; for the first shard, of the whole model."""
        way = self._leading or self._road
        return way.bytes() if way else (0, 0)

    async def walk(self) -> Path:
        """Bring the share into the folder; the first shard then waits for all (see ``adownload``).

        Raises:
            ShardMissingError: another shard gives no sign of life.
        """
        sink = Sink(self._layout)
        sink.prepare()
        try:
            async with connected(self._config, self._emit) as connection:
                while True:
                    with contextlib.suppress(_PinMovedError):
                        return await self._walk(connection)
        finally:
            sink.leave()

    async def _walk(self, connection: Connection) -> Path:
        snapshot, pinned = await self._resolve(connection)
        selection, parts = self._parted(snapshot)
        self._tell_share(parts)
        # The road looks at its own share alone, and a twin may be in another one.
        paths = [file.path for part in parts for file in part]
        await in_thread(self._reader, refuse_twins, self._hidden, paths, threading.Event())
        if not self._shard.leads:
            await self._bring(connection, snapshot, selection, self._emit, pinned=pinned)
            base = await self._leave(snapshot)
            self._emit(ShareBrought(self._shard.index, self._shard.count))
            return base
        self._leading = Leading(self._place, self._uri, self._config, self._emit, parts)
        await clear_shards(self._layout, self._emit, self._pin)
        if (self._hidden / SUMS).exists() and not await self._is_published(snapshot):
            # Another version is published: this shard alone would only spoil it.
            await self._leading.gather()
        async with self._leading.watching():
            await self._bring(connection, snapshot, selection, self._leading.emit, pinned=True)
        return await self._leading.finish(snapshot, self._pin)

    def _parted(self, snapshot: Snapshot) -> tuple[Selection, _Parts]:
        """What this shard brings, and the files of each shard."""
        config = self._config
        selection = select(snapshot, config.include, config.exclude, config.weight_format)
        parts = shares(selection.wanted, self._shard.count)
        return replace(selection, wanted=parts[self._shard.index]), parts

    def _tell_share(self, parts: _Parts) -> None:
        sizes = [sum(file.size for file in part) for part in parts]
        index, count = self._shard.index, self._shard.count
        files = list(map(len, parts))
        self._emit(ShareTaken(index, count, files[index], sizes[index], sum(files), sum(sizes)))

    # -- which commit ------------------------------------------------------------------------------

    async def _resolve(self, connection: Connection) -> tuple[Snapshot, bool]:
        """The snapshot whose files this shard brings, and whether all are bound to it."""
        while True:
            if commit := await self._pin.read():
                try:
                    return await connection.resolve(self._uri, commit), True
                except SnapshotNotFoundError:
                    self._pin.remove()  # the branch's history was written anew
            snapshot = await connection.resolve(self._uri)
            if self._shard.leads or not (self._hidden / SUMS).exists():
                if await self._pin.set(snapshot.commit) == snapshot.commit:
                    return snapshot, True
            elif await self._is_published(snapshot):
                return snapshot, False
            else:
                # Other files are published. Whether all come again to replace them, or this shard
                # alone comes late, the first one knows.
                await self._await_pin()

    async def _is_published(self, snapshot: Snapshot) -> bool:
        """Whether this share is there already, as far as one can tell without reading it all."""
        selection, _ = self._parted(snapshot)
        base, enough = self._layout.base, threading.Event()
        found = await in_thread(
            self._reader, prove_share, base, selection.wanted, self._hidden, enough
        )
        return found is not None

    async def _await_pin(self) -> None:
        begun, told = linux.clock(), 0.0
        patience = self._config.shard_patience
        while await self._pin.read() is None:
            now = linux.clock()
            if now - begun >= patience:
                raise ShardMissingError(
                    f"{self._layout.base} holds another version, and shard 0 of "
                    f"{self._shard.count} did not come within {patience:g} s to replace it",
                    hint="look at the pod with completion index 0, and run all shards again",
                )
            if now - told >= _TELL:
                told = now
                first = ShardProgress(0, 0, 0, round(now - begun, 1), came=False)
                self._emit(ShardsAwaited(self._shard.count, (first,), patience))
            await asyncio.sleep(_GLANCE)

    # -- the share ---------------------------------------------------------------------------------

    async def _bring(
        self,
        connection: Connection,
        snapshot: Snapshot,
        selection: Selection,
        emit: Emit,
        *,
        pinned: bool,
    ) -> None:
        self._road = Road(self._uri, self._layout.base, self._config, emit)

        def make_ready(sink: Sink) -> None:
            # From here on the lease is held, and no pin is removed beside a shard that is alive.
            # Where it is gone, others have cleared up while this one waited or slept: it may be
            # published, and the branch may have moved.
            if pinned and not self._pin.names(snapshot.commit):
                raise _PinMovedError("this commit is not pinned any more")
            with storage_errors(sink.hidden):
                # Nobody takes an earlier run's word for what is looked at anew.
                (sink.hidden / SUMS).unlink(missing_ok=True)

        await self._road.bring(connection, snapshot, selection, self._place, make_ready)

    async def _leave(self, snapshot: Snapshot) -> Path:
        """Leave nothing behind where nobody waits for it, as all is published."""
        pinned = await self._pin.read()
        if pinned and pinned != snapshot.commit:
            raise _PinMovedError("another commit is pinned")
        if not pinned and await self._is_published(snapshot):
            await clear_shard(self._place, self._emit)
        return self._layout.base
