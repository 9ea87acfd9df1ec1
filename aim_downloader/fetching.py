"""Carries out a plan: small files in batches, large ones through their chain, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aim_downloader.chain import Chain, OpenProtocol
from aim_downloader.content_hash import SmallFile
from aim_downloader.errors import AllProtocolsFailedError
from aim_downloader.events import Emit, Event, FileCommitted
from aim_downloader.http_client import AsyncClient, Network
from aim_downloader.planner import SMALL_FILE, Plan
from aim_downloader.progress import Progress
from aim_downloader.protocols.base import Run
from aim_downloader.protocols.http import HttpProtocol
from aim_downloader.protocols.small_files import fetch_small_files
from aim_downloader.retry import RetryPolicy
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import RemoteFile
from aim_downloader.tasks import together


async def fetch(
    plan: Plan,
    network: Network,
    client: AsyncClient,
    connections: int,
    sink: LocalDir,
    progress: Progress,
    emit: Emit,
) -> None:
    """Fetch, verify and commit all that the plan lacks.

    A file that cannot be had does not stop the others; it is told of at the end.

    Raises:
        AllProtocolsFailedError: a file cannot be had now.
        DownloadError: nothing can.
    """
    loop = asyncio.get_running_loop()

    def emit_from_thread(event: Event) -> None:
        loop.call_soon_threadsafe(emit, event)

    small = [file for file in plan.fetch if file.size <= SMALL_FILE]
    large = [file for file in plan.fetch if file.size > SMALL_FILE]
    for_small, for_large = share(connections, bool(small), bool(large))
    run = Run(network, for_large, RetryPolicy(), progress.traffic, emit_from_thread)

    async def take(batch: list[SmallFile]) -> None:
        await asyncio.to_thread(sink.commit_small, batch)
        for one in batch:
            progress.settle(one.file.size)
            emit(FileCommitted(one.file.path, one.file.size, str(one.file.digest)))

    failed: list[AllProtocolsFailedError] = []

    async def fetch_small() -> None:
        failed.extend(await fetch_small_files(small, client, run, for_small, take))

    async def fetch_large() -> None:
        commit = plan.snapshot.commit
        failed.extend(await _fetch_large(large, run, sink, commit, progress, emit))

    await together([fetch_small(), fetch_large()])
    if failed:
        raise failed[0]


def share(connections: int, small: bool, large: bool) -> tuple[int, int]:
    """How many of the connections are for small files, and how many for large ones."""
    if not large:
        return connections, 0
    if not small:
        return 0, connections
    for_small = max(1, connections // 4)
    return for_small, max(1, connections - for_small)


async def _fetch_large(
    files: list[RemoteFile], run: Run, sink: LocalDir, commit: str, progress: Progress, emit: Emit
) -> list[AllProtocolsFailedError]:
    """Bring large files through their chain; returns an error for each that cannot be had."""
    if not files:
        return []
    protocol = HttpProtocol()
    failed: list[AllProtocolsFailedError] = []
    async with protocol.open(run) as lane:
        chain = Chain([OpenProtocol(protocol, lane)], sink, commit, emit, run.connections)
        progress.active = chain.active
        progress.connections = lambda: lane.connections
        waiting = iter(files)
        try:
            await together(_work(chain, waiting, progress, failed) for _ in range(run.connections))
        finally:
            chain.close()
    return failed


async def _work(
    chain: Chain,
    waiting: Iterator[RemoteFile],
    progress: Progress,
    failed: list[AllProtocolsFailedError],
) -> None:
    for file in waiting:
        try:
            await chain.bring(file)
            progress.settle(file.size)
        except AllProtocolsFailedError as error:
            failed.append(error)
