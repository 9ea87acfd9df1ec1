"""The road: resolve, plan, fetch, verify, commit, publish."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aim_downloader.config import Config
from aim_downloader.errors import DownloadError, LeaseLostError, SnapshotNotFoundError
from aim_downloader.events import (
    Emit,
    FileSkipped,
    LeaseWaiting,
    PlanMade,
    SnapshotPublished,
    SnapshotResolved,
)
from aim_downloader.lease import Holder, Lease
from aim_downloader.planner import Holding, LeftOut, Plan, check_space, make_plan, select
from aim_downloader.progress import Progress, sampling
from aim_downloader.receipt import Origin, Record
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import Digest, ModelURI, RemoteFile, Snapshot
from aim_downloader.storage import free_space
from aim_downloader.tasks import in_thread

if TYPE_CHECKING:
    # A run with nothing to fetch does without HTTP libraries.
    from aim_downloader.http_client.network import Network
    from aim_downloader.http_client.whole import AsyncClient
    from aim_downloader.sources.base import Source


@dataclass(frozen=True, slots=True)
class Connection:
    """The open way to the source."""

    network: Network
    client: AsyncClient
    emit: Emit

    async def resolve(self, uri: ModelURI) -> Snapshot:
        """Pin the revision and list its files (see ``Source``)."""
        from aim_downloader.sources.hf import HubSource

        source: Source = HubSource(self.client, self.network.endpoint, self.emit)
        snapshot = await source.resolve(uri)
        count = len(snapshot.files)
        self.emit(SnapshotResolved(str(uri), snapshot.commit, count, snapshot.size))
        return snapshot


@contextlib.asynccontextmanager
async def connected(config: Config, emit: Emit) -> AsyncIterator[Connection]:
    """Open the way to the source.

    Raises:
        SnapshotNotFoundError: no request may be made.
    """
    if config.offline:
        raise SnapshotNotFoundError(
            "HF_HUB_OFFLINE is set, so the Hub cannot be asked", hint="unset HF_HUB_OFFLINE"
        )
    from aim_downloader.http_client.network import Network
    from aim_downloader.http_client.whole import AsyncClient
    from aim_downloader.sources.hf import stored_token

    token = config.token or (stored_token() if config.ask_for_token else None)
    network = Network(config.endpoint, token, config.stall_timeout, config.ca_bundle)
    async with AsyncClient(network, config.connections) as client:
        yield Connection(network, client, emit)


class Road:
    """One model's way into one folder."""

    def __init__(
        self,
        uri: ModelURI,
        directory: str | os.PathLike[str] | None,
        config: Config,
        emit: Emit,
    ) -> None:
        self._uri = uri
        self._config = config
        self._emit = emit
        self._begun = time.monotonic()
        self.progress = Progress()
        self._root = Path(directory if directory is not None else uri.name)
        self._lease = Lease(LocalDir(self._root).lease_path, self.progress.bytes)
        self._sink = LocalDir(self._root, self._lease.guard)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="aim-reader")

    async def walk(self) -> Path:
        """Bring the model into the folder (see ``adownload``)."""
        if remembered := self._remembered():
            plan = self._settled_plan(*remembered)
            self._begin(plan)
            return self._published(plan)
        self._refuse_offline()
        async with connected(self._config, self._emit) as connection:
            snapshot = await connection.resolve(self._uri)
            wanted, left_out = select(snapshot, self._config.include, self._config.exclude)
            while True:
                # Another run that took the folder over does the same work: follow it, then look.
                with contextlib.suppress(LeaseLostError):
                    return await self._hold_and_fetch(connection, snapshot, wanted, left_out)

    async def look_ahead(self) -> Plan:
        """Make the plan of ``walk`` without writing anything."""
        if remembered := self._remembered():
            return self._settled_plan(*remembered)
        self._refuse_offline()
        self._sink.look()
        async with connected(self._config, self._emit) as connection:
            snapshot = await connection.resolve(self._uri)
        wanted, left_out = select(snapshot, self._config.include, self._config.exclude)
        holdings, _ = await self._look_at(wanted, snapshot.commit)
        return make_plan(snapshot, wanted, left_out, holdings)

    def _remembered(self) -> tuple[Origin, tuple[RemoteFile, ...]] | None:
        """The files of a receipt that answers for this very request, if all are untouched."""
        if not (self._uri.pinned or self._config.offline):
            return None
        self._sink.look()
        origin = self._sink.origin
        if origin is None or not self._asks_for(origin):
            return None
        files = tuple(
            RemoteFile(record.path, record.size, Digest(*record.digest.split(":", 1)))
            for record in origin.files.values()
            if record.digest
        )
        snapshot = Snapshot(self._uri, origin.commit, files)
        wanted, _ = select(snapshot, self._config.include, self._config.exclude)
        return (origin, wanted) if all(map(self._sink.record_of, wanted)) else None

    def _refuse_offline(self) -> None:
        """Say what is not there when it may not be asked for."""
        if not self._config.offline:
            return
        origin = self._sink.origin
        known = origin.files.values() if origin else ()
        gone = [record.path for record in known if not self._sink.untouched(record)]
        lacks = f"{gone[0]} and {len(gone)} in all" if len(gone) > 1 else "".join(gone)
        raise SnapshotNotFoundError(
            f"HF_HUB_OFFLINE is set, and {self._root} does not hold all of {self._uri}"
            + (f": it lacks {lacks}, or they were changed" if gone else ""),
            hint="download it once with a network, or unset HF_HUB_OFFLINE",
        )

    def _asks_for(self, origin: Origin) -> bool:
        """Whether a receipt speaks of all files that are asked for: its filters let them all in."""
        config = self._config
        filters = (self._uri.subpath, tuple(config.include), tuple(config.exclude))
        return (
            origin.repository == self._uri.repository
            and (self._uri.revision or "main") in (origin.commit, origin.revision)
            and (origin.subpath, origin.include, origin.exclude) in (filters, ("", (), ()))
        )

    def _settled_plan(self, origin: Origin, wanted: Sequence[RemoteFile]) -> Plan:
        """The plan of a run that has nothing to do."""
        snapshot = Snapshot(self._uri, origin.commit, tuple(wanted))
        return Plan(snapshot, (), tuple(wanted), ())

    async def _hold_and_fetch(
        self,
        connection: Connection,
        snapshot: Snapshot,
        wanted: Sequence[RemoteFile],
        left_out: Sequence[LeftOut],
    ) -> Path:
        self._sink.prepare()
        try:
            async with self._lease.held(self._tell_of):
                return await self._fetch_and_publish(connection, snapshot, wanted, left_out)
        finally:
            self._sink.leave()

    async def _fetch_and_publish(
        self,
        connection: Connection,
        snapshot: Snapshot,
        wanted: Sequence[RemoteFile],
        left_out: Sequence[LeftOut],
    ) -> Path:
        self._sink.begin()
        try:
            async with sampling(self.progress, self._emit):
                holdings, found = await self._look_at(wanted, snapshot.commit)
                self._sink.remember(found)
                plan = make_plan(snapshot, wanted, left_out, holdings)
                check_space(plan, free_space(self._root), str(self._root))
                self._begin(plan)
                if plan.fetch:
                    await self._fetch(plan, connection)
            self._sink.publish(self._origin(plan))
        except LeaseLostError:
            raise  # what is in the folder is another run's now
        except (DownloadError, asyncio.CancelledError):
            if self._config.clean:
                self._sink.forget_unfinished()
            raise
        finally:
            self._sink.tidy()
        return self._published(plan)

    def _tell_of(self, holder: Holder | None) -> None:
        name = str(holder) if holder else "an unknown process"
        done, total = (holder.bytes_done, holder.bytes_total) if holder else (0, 0)
        self._emit(LeaseWaiting(name, done, total))

    async def _look_at(
        self, wanted: Sequence[RemoteFile], commit: str
    ) -> tuple[dict[str, Holding], list[Record]]:
        """What the sink holds of each file; files that no record speaks of are read through."""
        holdings: dict[str, Holding] = {}
        found: list[Record] = []
        unknown = [f for f in wanted if not self._sink.record_of(f) and self._sink.of_right_size(f)]
        self.progress.begin_examining(len(unknown), sum(file.size for file in unknown))
        stopping = threading.Event()
        for file in unknown:
            examine = functools.partial(self._sink.examine, file, self.progress.add)
            if record := await in_thread(self._reader, examine, stopping):
                holdings[file.path] = Holding(complete=True)
                found.append(record)
            self.progress.settle(0)
        for file in wanted:
            if file.path not in holdings:
                complete = self._sink.record_of(file) is not None
                partial = 0 if complete else self._sink.partial_bytes(file, commit)
                holdings[file.path] = Holding(complete, partial)
        return holdings, found

    def _begin(self, plan: Plan) -> None:
        files = len(plan.fetch) + len(plan.held)
        self.progress.begin_fetching(files, plan.size, len(plan.held), plan.held_bytes)
        self._emit(
            PlanMade(
                target=str(self._root),
                files=files,
                bytes=plan.size,
                fetch_files=len(plan.fetch),
                fetch_bytes=plan.fetch_bytes,
                resumed_bytes=plan.resumed_bytes,
                held_files=len(plan.held),
                held_bytes=plan.held_bytes,
                left_out_files=len(plan.left_out),
                left_out_bytes=plan.left_out_bytes,
            )
        )
        for file in plan.held:
            self._emit(FileSkipped(file.path, file.size))

    async def _fetch(self, plan: Plan, connection: Connection) -> None:
        from aim_downloader.fetching import Fetching

        limit = self._config.connections
        fetching = Fetching(plan, connection.network, limit, self._sink, self.progress, self._emit)
        await fetching.run(connection.client)

    def _origin(self, plan: Plan) -> Origin:
        """What is now in the folder, with files of the same commit that earlier runs brought."""
        paths = {file.path for file in plan.wanted}
        earlier = self._sink.origin
        if earlier and earlier.commit == plan.snapshot.commit:
            listed = {file.path: file for file in plan.snapshot.files}
            paths |= {
                path
                for path in earlier.files.keys() & listed.keys()
                if self._sink.record_of(listed[path])
            }
        origin = Origin(
            uri=str(self._uri),
            repository=self._uri.repository,
            revision=self._uri.revision or "main",
            commit=plan.snapshot.commit,
            subpath=self._uri.subpath,
            include=tuple(self._config.include),
            exclude=tuple(self._config.exclude),
            files={path: self._sink.known[path] for path in sorted(paths)},
        )
        if earlier and earlier.commit == origin.commit and paths >= earlier.files.keys():
            # A part of a model that is all there does not make the rest of it less.
            wide = (earlier.subpath, earlier.include, earlier.exclude) == ("", (), ())
            return replace(origin, subpath="", include=(), exclude=()) if wide else origin
        return origin

    def _published(self, plan: Plan) -> Path:
        self._emit(
            SnapshotPublished(
                target=str(self._root),
                commit=plan.snapshot.commit,
                files=len(plan.fetch) + len(plan.held),
                bytes=plan.size,
                bytes_received=self.progress.traffic.received,
                seconds=round(time.monotonic() - self._begun, 3),
            )
        )
        return self._root
