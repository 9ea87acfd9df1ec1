"""What the first of several shards does for all: tells how far they are, waits, and publishes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aim_downloader import linux
from aim_downloader.config import Config
from aim_downloader.errors import LeaseLostError, ShardMissingError, SnapshotChangedError
from aim_downloader.events import (
    Emit,
    Event,
    PlanMade,
    RunProgressed,
    ShardProgress,
    ShardsAwaited,
    SnapshotPublished,
)
from aim_downloader.lease import Holder, Lease, waiting
from aim_downloader.others import Other, Others, prove_share
from aim_downloader.pin import Pin
from aim_downloader.progress import Pace
from aim_downloader.receipt import Origin, Record
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.clearing import clear_shard, clear_shards
from aim_downloader.sinks.held import Held
from aim_downloader.sinks.layout import hidden_of
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.sinks.shard_dir import ShardDir, shards_in
from aim_downloader.snapshot import ModelURI, RemoteFile, Snapshot
from aim_downloader.tasks import in_thread

_GLANCE = 0.5
_LOOK = 2.0
_TELL = 10.0
_PACE_WINDOW = 15.0  # others tell of theirs every two seconds


class Leading:
    """The first shard at ``place``, and ``parts``: the files of each. Emits for all of them.

    What its own part emits goes through ``emit``, where the numbers become those of the whole.
    """

    def __init__(
        self,
        place: ShardDir,
        uri: ModelURI,
        config: Config,
        emit: Emit,
        parts: Sequence[Sequence[RemoteFile]],
    ) -> None:
        self._place = place
        self._layout = LocalDir(place.base)
        self._uri = uri
        self._config = config
        self._emit = emit
        self._parts = parts
        self._others = Others(place.base, place.shard, parts)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="aim-shards")
        self._files = sum(map(len, parts))
        self._size = sum(file.size for part in parts for file in part)
        self._pace = Pace(_PACE_WINDOW)
        self._last: RunProgressed | None = None
        self._own: SnapshotPublished | None = None

    def emit(self, event: Event) -> None:
        """Tell what is told of the own part, as it is for the whole model."""
        match event:
            case PlanMade():
                event = replace(event, files=self._files, bytes=self._size)
            case RunProgressed():
                self._last = event
                event = self._whole(event)
            case SnapshotPublished():
                self._own = event
                return  # not before the others are done
        self._emit(event)

    def bytes(self) -> tuple[int, int]:
        """Bytes on disk, and in all; never all of them before they are published."""
        own = self._last.bytes_done if self._last else 0
        return min(own + self._others.bytes_done, max(0, self._size - 1)), self._size

    def _whole(self, own: RunProgressed) -> RunProgressed:
        done, total = self.bytes()
        rate = max(0.0, self._pace.after(done))
        return replace(
            own,
            bytes_done=done,
            bytes_total=total,
            files_done=own.files_done + self._others.files_done,
            files_total=self._files,
            rate=rate,
            eta=(total - done) / rate if rate else None,
        )

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look at the others now and then."""

        async def watch() -> None:
            while True:
                await in_thread(self._reader, self._others.look, threading.Event())
                await asyncio.sleep(_LOOK)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def gather(self) -> None:
        """Wait until all shards have come.

        Raises:
            ShardMissingError: nothing was heard of one of them for too long.
        """
        await self._await_others(lambda: self._others.absent)

    async def finish(self, snapshot: Snapshot, pin: Pin) -> Path:
        """Wait until all shards are done, publish what they have brought, and clear up.

        Raises:
            ShardMissingError: nothing was heard of one of them for too long.
            SnapshotChangedError: a file is not any more what this shard had verified.
        """
        own = Lease(Held(self._place).lease_path, self.bytes)
        async with own.held(self._tell_of):
            await self._await_others(lambda: self._others.missing)
            while not await self._publish(snapshot):
                await self._await_others(lambda: self._others.missing)
        await self._clear_up(pin)
        if self._last:
            done = replace(self._last, bytes_done=self._size, bytes_total=self._size)
            done = replace(done, files_done=self._files, files_total=self._files)
            self._emit(replace(done, rate=0.0, eta=None, connections=0, verifying=False))
        if self._own:
            self._emit(replace(self._own, files=self._files, bytes=self._size))
        return self._place.base

    # -- waiting -----------------------------------------------------------------------------------

    async def _await_others(self, awaited: Callable[[], list[Other]]) -> None:
        begun, told, named = linux.clock(), 0.0, -1
        await in_thread(self._reader, self._others.look, threading.Event())
        while missing := awaited():
            now = linux.clock()
            # Of any of them: where pods come one after the other, the last is silent for long.
            heard = max(begun, *(one.changed for one in self._others.all))
            if now - heard >= self._config.shard_patience:
                raise self._missing(missing)
            if self._last:
                self._emit(replace(self._whole(self._last), waiting=True))
            if now - told >= _TELL or len(missing) != named:
                told, named = now, len(missing)
                self._emit(self._awaited(missing, now))
            await asyncio.sleep(_GLANCE)
            await in_thread(self._reader, self._others.look, threading.Event())

    def _awaited(self, missing: Sequence[Other], now: float) -> ShardsAwaited:
        return ShardsAwaited(
            self._place.shard.count,
            tuple(
                ShardProgress(
                    one.shard.index,
                    one.bytes_done,
                    one.size,
                    round(now - one.changed, 1),
                    one.came,
                )
                for one in missing
            ),
            self._config.shard_patience,
        )

    def _missing(self, gone: Sequence[Other]) -> ShardMissingError:
        names, patience = _names(gone), f"{self._config.shard_patience:g} s"
        never, silent = [one for one in gone if not one.came], [one for one in gone if one.came]
        parts = [f"shard {_names(never)} did not come"] if never else []
        parts += [f"shard {_names(silent)} gave no sign of life"] if silent else []
        return ShardMissingError(
            f"{' and '.join(parts)} for {patience}, of {self._place.shard.count} shards in "
            f"{self._place.base}",
            hint=f"look at the pod with completion index {names}, and run all shards again: "
            "what is proven is kept",
        )

    # -- publishing --------------------------------------------------------------------------------

    def _proven(self, enough: threading.Event) -> dict[str, Record] | None:
        """The records of all files; None when another shard has to bring some again."""
        base, share = self._place.base, self._parts[self._place.shard.index]
        own = prove_share(base, share, hidden_of(self._place), enough)
        if own is None:
            raise SnapshotChangedError(
                f"what shard {self._place.shard} had verified has changed since",
                hint="run all shards again: what is proven is kept",
            )
        others = self._others.prove_again(enough)
        return None if others is None else {**own, **others}

    async def _publish(self, snapshot: Snapshot) -> bool:
        """Publish like any other run, under the lease that those hold; returns whether it was so.

        While this one waited for that lease, another run may have put other files there.
        """
        while True:
            with contextlib.suppress(LeaseLostError):
                lease = Lease(Held(self._layout).lease_path, self.bytes)
                async with lease.held(self._tell_of):
                    records = await in_thread(self._reader, self._proven, threading.Event())
                    if records is not None:
                        sink = Sink(self._layout, lease.guard, keep_origin=False)
                        sink.publish(self._origin(snapshot, records))
                    return records is not None

    def _origin(self, snapshot: Snapshot, records: dict[str, Record]) -> Origin:
        return Origin(
            uri=str(self._uri),
            repository=self._uri.repository,
            revision=self._uri.revision or "main",
            commit=snapshot.commit,
            subpath=self._uri.subpath,
            include=tuple(self._config.include),
            exclude=tuple(self._config.exclude),
            weight_format=self._config.weight_format,
            files=records,
        )

    async def _clear_up(self, pin: Pin) -> None:
        await self._clear_own()
        await clear_shards(self._layout, self._emit, pin)
        pin.remove()
        # A shard that came again has looked for the pin at its end: before that, or after.
        await self._clear_own()

    async def _clear_own(self) -> None:
        own = [one for one in shards_in(self._place.base) if self._is_of_run(one)]
        await asyncio.gather(*(clear_shard(one, self._emit) for one in own))

    def _is_of_run(self, one: ShardDir) -> bool:
        return one.shard.count == self._place.shard.count

    def _tell_of(self, holder: Holder | None, silent: float) -> None:
        self._emit(waiting(holder, silent))


def _names(shards: Sequence[Other]) -> str:
    return ", ".join(str(one.shard.index) for one in shards)
