"""Protocol HTTP, small files: fetched whole into memory by the event loop, verified there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from aim_downloader.content_hash import SmallFile, prove
from aim_downloader.errors import (
    AllProtocolsFailedError,
    DigestMismatchError,
    IntegrityError,
    SizeMismatchError,
    SnapshotChangedError,
    TransferError,
)
from aim_downloader.events import FileRejected, RetryScheduled
from aim_downloader.http_client import Answer, AsyncClient
from aim_downloader.protocols.base import Run
from aim_downloader.protocols.http import HttpProtocol, check_identity
from aim_downloader.snapshot import MIB, RemoteFile
from aim_downloader.tasks import together

_TRIES_OF_WRONG_BYTES = 3
_BATCH_FILES = 256
_BATCH_BYTES = 8 * MIB


async def fetch_small_files(
    files: Sequence[RemoteFile],
    client: AsyncClient,
    run: Run,
    connections: int,
    take: Callable[[list[SmallFile]], Awaitable[None]],
) -> None:
    """Fetch small files, ``connections`` at once, and hand them to ``take`` verified, in batches.

    Raises:
        AllProtocolsFailedError: one of them cannot be had.
        DownloadError: nothing can, or ``take`` failed.
    """
    ready: asyncio.Queue[SmallFile | None] = asyncio.Queue(_BATCH_FILES)
    waiting = iter(files)

    async def fetch_some() -> None:
        for file in waiting:
            await ready.put(await fetch_small(client, file, run))

    async def fetch_all() -> None:
        await together(fetch_some() for _ in range(connections))
        await ready.put(None)

    async def take_all() -> None:
        async for batch in _batches(ready):
            await take(batch)

    await together([fetch_all(), take_all()])


async def _batches(ready: asyncio.Queue[SmallFile | None]) -> AsyncIterator[list[SmallFile]]:
    """What is ready, as much as there is at a time, so that it is synced to disk together."""
    batch: list[SmallFile] = []
    size = 0
    while (small := await ready.get()) is not None:
        batch.append(small)
        size += small.file.size
        if ready.empty() or len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def fetch_small(client: AsyncClient, file: RemoteFile, run: Run) -> SmallFile:
    """Fetch one small file and verify it.

    Raises:
        AllProtocolsFailedError: it cannot be had, or keeps being other than it should.
        DownloadError: nothing can.
    """
    errors: list[IntegrityError] = []
    try:
        while len(errors) < _TRIES_OF_WRONG_BYTES:
            answer = await _fetch(client, file, run)
            try:
                return _verified(file, answer)
            except IntegrityError as error:
                errors.append(error)
                run.emit(FileRejected(file.path, HttpProtocol.name, str(error)))
    except TransferError as error:
        raise AllProtocolsFailedError(file.path, [(HttpProtocol.name, error)]) from error
    raise AllProtocolsFailedError(file.path, [(HttpProtocol.name, errors[-1])])


async def _fetch(client: AsyncClient, file: RemoteFile, run: Run) -> Answer:
    def on_retry(error: BaseException, attempt: int, delay: float) -> None:
        run.emit(RetryScheduled(file.path, str(error), attempt, delay))

    async for attempt in run.policy.async_retrying(asyncio.sleep, on_retry):
        with attempt:
            answer = await client.get(file.url, limit=file.size)
            run.traffic.add(len(answer.body))
            return answer
    raise AssertionError("a retry either returns or raises")


def _verified(file: RemoteFile, answer: Answer) -> SmallFile:
    try:
        check_identity(answer.first_headers, file)
    except SnapshotChangedError as error:
        raise DigestMismatchError(str(error)) from error
    if len(answer.body) != file.size:
        raise SizeMismatchError(f"{file.path}: {len(answer.body)} of {file.size} bytes came")
    proof = prove(answer.body, file.digest)
    if proof.digest != file.digest:
        raise DigestMismatchError(
            f"{file.path} was received with digest {proof.digest}, "
            f"but the source vouches for {file.digest}"
        )
    return SmallFile(file, answer.body, proof)
