"""Protocol HTTP, small files: fetched whole into memory by the event loop, verified there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aim_downloader.content_hash import SmallFile, prove
from aim_downloader.errors import (
    AllProtocolsFailedError,
    DigestMismatchError,
    IntegrityError,
    SizeMismatchError,
    SnapshotChangedError,
    ThrottledError,
    TransferError,
)
from aim_downloader.events import FileRejected, RetryScheduled
from aim_downloader.http_client.rules import ration
from aim_downloader.http_client.whole import Answer, AsyncClient
from aim_downloader.protocols.answers import check_identity
from aim_downloader.protocols.base import Run
from aim_downloader.snapshot import RemoteFile
from aim_downloader.tasks import together

_TRIES_OF_WRONG_BYTES = 3


async def fetch_small_files(
    files: Sequence[RemoteFile],
    client: AsyncClient,
    run: Run,
    in_memory: int,
    take: Callable[[list[SmallFile]], Awaitable[None]],
    on_failure: Callable[[AllProtocolsFailedError], None],
) -> None:
    """Fetch small files, and hand them to ``take`` verified, in batches.

    At most ``in_memory`` bytes of them are held at once, which is room for the largest at least.
    ``on_failure`` hears of each file that cannot be had, and may raise to end it all.

    Raises:
        DownloadError: nothing can be had, or ``take`` failed.
    """
    ready: asyncio.Queue[SmallFile | None] = asyncio.Queue()
    room, turns = _Room(in_memory), _Turns(run)
    waiting = iter(files)

    async def fetch_some() -> None:
        for file in waiting:
            await room.take(file.size)
            try:
                await ready.put(await fetch_small(client, file, run, turns))
            except AllProtocolsFailedError as error:
                on_failure(error)
                await room.give_back(file.size)

    async def fetch_all() -> None:
        await together(fetch_some() for _ in range(run.connections))
        await ready.put(None)

    async def take_all() -> None:
        while batch := await _batch(ready):
            await take(batch)
            await room.give_back(sum(small.file.size for small in batch))

    await together([fetch_all(), take_all()])


class _Room:
    """So many bytes may be in memory, between the first byte of a file and its commit."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = asyncio.Condition()

    async def take(self, size: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= size)
            self._free -= size

    async def give_back(self, size: int) -> None:
        async with self._changed:
            self._free += size
            self._changed.notify_all()


class _Turns:
    """As many requests at a time as are allowed by now."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._asking = 0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._asking < self._run.allowed)
            self._asking += 1

    async def __aexit__(self, *error: object) -> None:
        self._asking -= 1
        async with self._changed:
            self._changed.notify_all()


async def _batch(ready: asyncio.Queue[SmallFile | None]) -> list[SmallFile]:
    """All that is ready now, and at least one: it is synced to disk together. Empty at the end."""
    small = await ready.get()
    batch: list[SmallFile] = []
    while small is not None:
        batch.append(small)
        if ready.empty():
            return batch
        small = ready.get_nowait()
    if batch:
        ready.put_nowait(None)  # the end is for the next call
    return batch


async def fetch_small(client: AsyncClient, file: RemoteFile, run: Run, turns: _Turns) -> SmallFile:
    """Fetch one small file and verify it.

    Raises:
        AllProtocolsFailedError: it cannot be had, or keeps being other than it should.
        DownloadError: nothing can.
    """
    errors: list[IntegrityError] = []
    try:
        while len(errors) < _TRIES_OF_WRONG_BYTES:
            answer = await _fetch(client, file, run, turns)
            try:
                return _verified(file, answer)
            except IntegrityError as error:
                errors.append(error)
                run.emit(FileRejected(file.path, "HTTP", str(error)))
    except TransferError as error:
        raise AllProtocolsFailedError(file.path, [("HTTP", error)]) from error
    raise AllProtocolsFailedError(file.path, [("HTTP", errors[-1])])


async def _fetch(client: AsyncClient, file: RemoteFile, run: Run, turns: _Turns) -> Answer:
    def on_retry(error: BaseException, attempt: int, delay: float) -> None:
        if run.governor.is_news(error, delay):
            kind = type(error).__name__
            run.emit(RetryScheduled(file.path, str(error), attempt, delay, kind))

    retrying = run.policy.async_retrying(asyncio.sleep, on_retry)
    try:
        answer: Answer = await retrying(_ask, client, file, run, turns)
    except ThrottledError as error:
        run.governor.give_up(error, run.policy.attempts)
        raise
    return answer


async def _ask(client: AsyncClient, file: RemoteFile, run: Run, turns: _Turns) -> Answer:
    async def turn(url: str, led_here: Mapping[str, str]) -> None:
        for pause in visit.pauses(url, ration(led_here)):
            if pause.reason:
                run.emit(RetryScheduled(file.path, pause.reason, 1, pause.seconds))
            await asyncio.sleep(pause.nap)

    async with turns:
        with run.governor.visit() as visit:
            answer = await client.get(file.url, file.size, turn, run.traffic.add)
            visit.answered(ration(answer.headers))
            return answer


def _verified(file: RemoteFile, answer: Answer) -> SmallFile:
    try:
        check_identity(answer.first_headers, file)
    except SnapshotChangedError as error:
        raise DigestMismatchError(str(error)) from error
    if len(answer.body) != file.size:
        came = f"{len(answer.body)} bytes" if len(answer.body) < file.size else "more"
        raise SizeMismatchError(f"{file.path} has {file.size} bytes, and {came} came")
    proof = prove(answer.body, file.digest)
    proof.check(file)
    return SmallFile(file, answer.body, proof)
