"""The road: resolve, plan, fetch, verify, commit, publish."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aim_downloader.config import Config, config_from_environ
from aim_downloader.errors import ConfigError, DownloadError, LeaseLostError, SnapshotNotFoundError
from aim_downloader.events import (
    Emit,
    Event,
    FileSkipped,
    LeaseWaiting,
    PlanMade,
    RunCancelled,
    RunFailed,
    SnapshotPublished,
    SnapshotResolved,
)
from aim_downloader.lease import Holder, Lease, live_holder
from aim_downloader.planner import Holding, LeftOut, Plan, Space, check_space, make_plan, select
from aim_downloader.progress import Progress, sampling
from aim_downloader.receipt import Origin, Record
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import Digest, ModelURI, RemoteFile, Snapshot

if TYPE_CHECKING:
    # A run with nothing to fetch does without HTTP libraries.
    from aim_downloader.http_client import AsyncClient, Network


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What ``clean`` has removed (``bytes`` on disk), or who works there (``busy``)."""

    removed: tuple[Path, ...]
    bytes: int
    busy: str | None = None


def download(
    uri: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    on_event: Emit | None = None,
) -> Path:
    """Bring a model into a folder, verified; see ``adownload``."""
    return asyncio.run(adownload(uri, directory, config=config, on_event=on_event))


async def adownload(
    uri: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    on_event: Emit | None = None,
) -> Path:
    """Bring a model into a folder, verified.

    What is there and right is not fetched again, and what an earlier run has left is resumed.

    Args:
        uri: ``hf://owner/name[@revision][/subpath]``.
        directory: the target; ``./<name>`` when None.
        config: the settings; from the environment when None.
        on_event: called in the event loop's thread with each event of ``aim_downloader.events``.

    Returns:
        The target folder, whose files all have the size and digest that the source vouches for.

    Raises:
        DownloadError: see ``aim_downloader.errors`` for the tree. What is proven stays on disk.
        asyncio.CancelledError: cancelled; what is proven stays on disk.
    """
    config = config or config_from_environ(os.environ)
    emit = on_event or _ignore
    road: Road | None = None
    try:
        road = Road(parse(uri, config), directory, config, emit)
        return await road.walk()
    except DownloadError as error:
        emit(RunFailed(type(error).__name__, str(error), error.hint, error.exit_code))
        raise
    except asyncio.CancelledError:
        emit(RunCancelled(*(road.progress.bytes() if road else (0, 0))))
        raise


async def plan(
    uri: str, directory: str | os.PathLike[str] | None = None, *, config: Config | None = None
) -> Plan:
    """Say what ``adownload`` would do, without writing anything.

    Raises:
        DownloadError: the snapshot cannot be listed, or does not fit.
    """
    config = config or config_from_environ(os.environ)
    road = Road(parse(uri, config), directory, config, _ignore)
    return await road.look_ahead()


async def snapshot_size(uri: str, *, config: Config | None = None) -> int:
    """Bytes of the files that ``adownload`` would bring into an empty folder.

    Raises:
        DownloadError: the snapshot cannot be listed.
    """
    config = config or config_from_environ(os.environ)
    model = parse(uri, config)
    async with connected(config, _ignore) as connection:
        snapshot = await connection.resolve(model)
    wanted, _ = select(snapshot, config.include, config.exclude)
    return sum(file.size for file in wanted)


def clean(directory: str | os.PathLike[str]) -> CleanReport:
    """Remove what dead runs have left in a folder: partials, journals, logs and the lease.

    Raises:
        StorageError: the disk refuses.
    """
    sink = LocalDir(Path(directory))
    if holder := live_holder(sink.lease_path):
        return CleanReport((), 0, str(holder))
    removed, freed = sink.forget_unfinished()
    return CleanReport(removed, freed)


def parse(uri: str, config: Config) -> ModelURI:
    """The model's URI, with the revision of the settings when they name one.

    Raises:
        ConfigError: the URI cannot be used, or two revisions are named.
    """
    model = ModelURI.parse(uri)
    if config.revision is None:
        return model
    if model.revision not in (None, config.revision):
        raise ConfigError(f"{uri} names a revision, and --revision another: {config.revision}")
    return replace(model, revision=config.revision)


def _ignore(event: Event) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The open way to the source."""

    network: Network
    client: AsyncClient
    emit: Emit

    async def resolve(self, uri: ModelURI) -> Snapshot:
        """Pin the revision and list its files (see ``Source``)."""
        from aim_downloader.sources.hf import HubSource

        snapshot = await HubSource(self.client, self.network.endpoint, self.emit).resolve(uri)
        count = len(snapshot.files)
        self.emit(SnapshotResolved(str(uri), snapshot.commit, count, snapshot.size))
        return snapshot


@contextlib.asynccontextmanager
async def connected(config: Config, emit: Emit) -> AsyncIterator[Connection]:
    """Open the way to the source."""
    from aim_downloader.http_client import AsyncClient, Network
    from aim_downloader.sources.hf import stored_token

    token = config.token or await asyncio.to_thread(stored_token)
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

    async def walk(self) -> Path:
        """Bring the model into the folder (see ``adownload``)."""
        if remembered := self._remembered():
            return self._nothing_to_do(*remembered)
        if self._config.offline:
            raise SnapshotNotFoundError(
                f"HF_HUB_OFFLINE is set, and {self._root} does not hold all of {self._uri}",
                hint="download it once with a network, or unset HF_HUB_OFFLINE",
            )
        async with connected(self._config, self._emit) as connection:
            snapshot = await connection.resolve(self._uri)
            wanted, left_out = select(snapshot, self._config.include, self._config.exclude)
            while True:
                # Another run that took the folder over does the same work: follow it, then look.
                with contextlib.suppress(LeaseLostError):
                    return await self._hold_and_fetch(connection, snapshot, wanted, left_out)

    async def look_ahead(self) -> Plan:
        """Make the plan of ``walk`` without writing anything."""
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

    def _asks_for(self, origin: Origin) -> bool:
        """Whether a receipt is that of a run with the same repository, revision and filters."""
        filters = (self._uri.subpath, self._config.include, self._config.exclude)
        return (
            origin.repository == self._uri.repository
            and (self._uri.revision or "main") in (origin.commit, origin.revision)
            and filters == (origin.subpath, origin.include, origin.exclude)
        )

    def _nothing_to_do(self, origin: Origin, wanted: Sequence[RemoteFile]) -> Path:
        snapshot = Snapshot(self._uri, origin.commit, tuple(wanted))
        plan = Plan(snapshot, (), tuple(wanted), ())
        self._begin(plan)
        return self._published(plan)

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
                self._sink.look()
                async with sampling(self.progress, self._emit):
                    holdings, found = await self._look_at(wanted, snapshot.commit)
                    self._sink.remember(found)
                    plan = make_plan(snapshot, wanted, left_out, holdings)
                    check_space(plan, free_space(self._root), str(self._root))
                    self._begin(plan)
                    if plan.fetch:
                        await self._fetch(plan, connection)
                self._sink.publish(self._origin(plan))
                return self._published(plan)
        except DownloadError:
            if self._config.clean:
                self._sink.remove_unfinished()
            raise
        finally:
            self._sink.remove_if_empty()

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
        enough = threading.Event()
        try:
            for file in unknown:
                examine = functools.partial(self._sink.examine, file, self.progress.examined)
                if record := await asyncio.to_thread(examine, enough):
                    holdings[file.path] = Holding(complete=True)
                    found.append(record)
                self.progress.settle(0)
        finally:
            enough.set()
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
        from aim_downloader.fetching import fetch

        await fetch(
            plan,
            connection.network,
            connection.client,
            self._config.connections,
            self._sink,
            self.progress,
            self._emit,
        )

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
        return Origin(
            uri=str(self._uri),
            repository=self._uri.repository,
            revision=self._uri.revision or "main",
            commit=plan.snapshot.commit,
            subpath=self._uri.subpath,
            include=self._config.include,
            exclude=self._config.exclude,
            files={path: self._sink.known[path] for path in sorted(paths)},
        )

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


def free_space(folder: Path) -> Space:
    """What the file system of a folder, which need not exist yet, has free for this user."""
    while not folder.exists():
        folder = folder.absolute().parent
    found = os.statvfs(folder)
    inodes = found.f_favail if found.f_files else None
    return Space(found.f_bavail * found.f_frsize, inodes)
