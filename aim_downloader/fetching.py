"""Carries out a plan: small files in batches, large ones through their chain, side by side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from aim_downloader.chain import Chain, OpenProtocol, Protocols
from aim_downloader.config import PROTOCOLS, Config
from aim_downloader.content_hash import SmallFile
from aim_downloader.errors import AllProtocolsFailedError
from aim_downloader.events import ConnectionsReduced, Emit, Event, FileCommitted, ProtocolsSkipped
from aim_downloader.governor import Governor
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from aim_downloader.memory import allowance
from aim_downloader.planner import SMALL_FILE, Plan
from aim_downloader.progress import Progress, Traffic
from aim_downloader.protocols.base import Run, TransferProtocol
from aim_downloader.protocols.http import HttpLane, HttpProtocol
from aim_downloader.protocols.small_files import fetch_small_files
from aim_downloader.rate_limit import RateLimit
from aim_downloader.retry import RetryPolicy
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.below import make_folder
from aim_downloader.storage import storage_errors
from aim_downloader.tasks import in_thread, together

_HOPELESS = 8


class Fetching:
    """One plan on its way into ``sink``, by the connections of ``config`` or as many as fit."""

    def __init__(
        self,
        plan: Plan,
        network: Network,
        config: Config,
        sink: Sink,
        progress: Progress,
        emit: Emit,
    ) -> None:
        self._config = config
        self._repository = plan.snapshot.uri.repository
        self._commit = plan.snapshot.commit
        self._small = [file for file in plan.fetch if file.size <= SMALL_FILE]
        self._large = [file for file in plan.fetch if file.size > SMALL_FILE]
        self._network = network
        self._memory, self._asked = sink.memory, config.connections
        self._allowed = allowance(self._memory, self._asked)
        self._sink = sink
        scratch = Path(config.scratch) if config.scratch else sink.scratch
        # Who holds this folder knows by the name what an earlier run has left.
        whose = os.fsencode(f"{socket.gethostname()}:{sink.hidden.absolute()}")
        self._scratch = scratch / f"aim-downloader-{sha256(whose).hexdigest()[:16]}"
        self._progress = progress
        self._emit = emit
        self._failures = Failures(progress.traffic)
        self._policy = RetryPolicy()
        self._governor = Governor(self._allowed.connections, self._policy.longest_patience)
        self._limit: RateLimit | None = None
        self._listener_failed: BaseException | None = None
        self._running: asyncio.Task[object] | None = None

    async def run(self, client: AsyncClient) -> None:
        """Fetch, verify and commit all that the plan lacks.

        A file that cannot be had does not stop the others; it is told of at the end.

        Raises:
            AllProtocolsFailedError: a file cannot be had now.
            DownloadError: nothing can.
        """
        connections = self._allowed.connections
        if self._memory is not None and connections < self._asked:
            self._emit(ConnectionsReduced(self._memory, self._asked, connections))
        if skipped := [name for name in self._config.protocols if name not in PROTOCOLS]:
            self._emit(ProtocolsSkipped(tuple(dict.fromkeys(skipped))))
        for_small, for_large = share(connections, bool(self._small), bool(self._large))
        self._running = asyncio.current_task()
        self._limit = client.rate_limit
        try:
            if for_small + for_large <= connections:
                small = self._fetch_small(client, for_small)
                await together([small, self._fetch_large(client, for_large)])
            else:
                await self._fetch_small(client, for_small)
                await self._fetch_large(client, for_large)
        except asyncio.CancelledError:
            # The cancel may be ours, on behalf of the listener; a real one comes first.
            if self._listener_failed and self._running and not self._running.uncancel():
                raise self._listener_failed from None
            raise
        self._failures.tell()

    def _run(self, connections: int, emit: Emit) -> Run:
        return Run(
            network=self._network,
            connections=connections,
            policy=self._policy,
            traffic=self._progress.traffic,
            emit=emit,
            governor=self._governor,
            limit=self._limit,
            scratch=self._scratch,
            memory=self._memory,
            telemetry=self._config.telemetry,
        )

    def _from_threads(self) -> Emit:
        """An ``emit`` for threads. A listener that fails there ends the run, as anywhere else."""
        loop = asyncio.get_running_loop()

        def hear(event: Event) -> None:
            try:
                self._emit(event)
            except Exception as error:  # noqa: BLE001  # it is the caller's: raised where it sees it
                # Once: what is cancelled twice does not come back as the listener's error.
                if self._listener_failed is None and self._running is not None:
                    self._listener_failed = error
                    self._running.cancel()

        def emit(event: Event) -> None:
            loop.call_soon_threadsafe(hear, event)

        return emit

    async def _fetch_small(self, client: AsyncClient, connections: int) -> None:
        if not self._small:
            return
        run = self._run(connections, self._emit)
        with ThreadPoolExecutor(1, thread_name_prefix="aim-small") as disk:

            async def take(batch: list[SmallFile]) -> None:
                await in_thread(disk, self._sink.commit_small, batch)
                for one in batch:
                    self._progress.settle(one.file.size)
                    self._emit(FileCommitted(one.file.path, one.file.size, str(one.file.digest)))

            room = self._allowed.small_files
            await fetch_small_files(self._small, client, run, room, take, self._failures.add)

    async def _fetch_large(self, client: AsyncClient, connections: int) -> None:
        if not self._large:
            return
        async with contextlib.AsyncExitStack() as stack:
            protocols = await self._open(stack, client, connections)
            kept = self._progress.keep
            chain = Chain(protocols, self._sink, self._commit, self._emit, connections, kept)
            stack.callback(chain.close)
            self._progress.active = chain.active
            await chain.bring_all(
                self._large, lambda file: self._progress.settle(file.size), self._failures.add
            )

    @contextlib.contextmanager
    def _with_scratch(self) -> Iterator[None]:
        """Make the folder for what engines write beside the model, and remove it afterwards."""
        with storage_errors(self._scratch):
            if not self._config.scratch:
                make_folder(self._sink.scratch)
            if self._scratch.exists():
                shutil.rmtree(self._scratch)
            self._scratch.mkdir(0o700, parents=True)
        try:
            yield
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    async def _open(
        self, stack: contextlib.AsyncExitStack, client: AsyncClient, connections: int
    ) -> Protocols:
        """Open a lane for each protocol that is named, and the one for all other files."""
        run = self._run(connections, self._from_threads())
        names = self._config.protocols
        plain = HttpProtocol()
        ranges = await stack.enter_async_context(plain.open(run))
        http = OpenProtocol(plain, ranges)
        by_name = {http.name: http}
        engines = [one for one in dict.fromkeys(names) if one in PROTOCOLS and one != http.name]
        if engines:
            stack.enter_context(self._with_scratch())
        for name in engines:
            protocol = self._engine(name, client, ranges)
            lane = await stack.enter_async_context(protocol.open(run))
            by_name[name] = OpenProtocol(protocol, lane)
        self._progress.connections = lambda: sum(one.lane.connections for one in by_name.values())
        return Protocols([by_name.get(name) for name in names], http)

    def _engine(self, name: str, client: AsyncClient, ranges: HttpLane) -> TransferProtocol:
        """A protocol that has an engine of its own; imported only where it is named."""
        if name == "XET":
            from aim_downloader.protocols.xet import XetProtocol

            return XetProtocol(self._repository, self._commit, client)
        from aim_downloader.protocols.hf_transfer import HfTransferProtocol

        return HfTransferProtocol(ranges)


class Failures:
    """Files that cannot be had. When one after another fails and no byte comes, that is the end."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._errors: list[AllProtocolsFailedError] = []
        self._received = 0
        self._in_vain = 0

    def add(self, error: AllProtocolsFailedError) -> None:
        """Take note of a file that failed.

        Raises:
            AllProtocolsFailedError: as many have failed in a row as show that the others will too.
        """
        self._errors.append(error)
        self._in_vain = self._in_vain + 1 if self._traffic.received == self._received else 1
        self._received = self._traffic.received
        if self._in_vain >= _HOPELESS:
            self.tell()

    def tell(self) -> None:
        """Raise the first failure, if there is any.

        Raises:
            AllProtocolsFailedError: a file failed.
        """
        if self._errors:
            raise self._errors[0]


def share(connections: int, small: bool, large: bool) -> tuple[int, int]:
    """How many of the connections are for small files, and how many for large ones.

    With a single one both get it, one after the other.
    """
    if not large:
        return connections, 0
    if not small:
        return 0, connections
    for_small = max(1, connections // 4)
    return for_small, max(1, connections - for_small)
