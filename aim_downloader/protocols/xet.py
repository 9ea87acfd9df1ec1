"""Protocol XET: files from the Hub's Xet store, by hf_xet in child processes with small buffers.

What is not there at all hf_xet writes itself, in order; gaps come as streams. It proves nothing:
what has come is counted and hashed by us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aim_downloader.errors import (
    DownloadError,
    EngineOutOfMemoryError,
    ProtocolUnavailableError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from aim_downloader.partial import Partial
from aim_downloader.protocols.base import Lane, Run
from aim_downloader.protocols.engine import SMALLEST_BUDGET, Engines, Told, budget_of, disk_trouble
from aim_downloader.protocols.following import InOrder
from aim_downloader.protocols.xet_access import (
    Access,
    AccessDesk,
    StoreFailedError,
    TokenRefusedError,
    why_not,
)
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile
from aim_downloader.urls import without_secrets

_MODULE = "aim_downloader.engines.xet"
_MB = 1_000_000
_MOST_CHILDREN = 4
_SHARE = 32 * MIB
# What is written at a time: more would not be hashed at once (see ``following``).
_LARGEST_FETCH = 15 * _MB
# It writes a whole fetch at a time.
_LEAD = 16 * MIB
# A stream hands over whole fetches. The edges of each lie inside chunks, which come twice: that is
# 2 % of 4 MB, and 9 % of 1 MB.
_LARGEST_PIECE = 4 * _MB
_SMALLEST_PIECE = 1 * _MB
_READ_TIMEOUT = 15.0
_RETRIES = 3
# It is doubled from try to try, and each time a random part of it is waited.
_RETRY_DELAY = 2.0
_WORDS = 200
_PREFACE = re.compile(r"(Task error: |File reconstruction error: |CAS Client Error: )*")
_OF_THE_STORE = re.compile(r"/v[0-9]/reconstructions/|domain: no-url")
_STATUS = re.compile(r"HTTP status \w+ error \(([0-9]{3})")


class XetProtocol:
    """The Xet store behind ``repository`` at ``commit``; ``client`` asks the Hub for access."""

    name = "XET"

    def __init__(self, repository: str, commit: str, client: AsyncClient) -> None:
        self._route = f"api/models/{repository}/xet-read-token/{commit}"
        self._client = client

    def supports(self, file: RemoteFile) -> bool:
        """Files that the store has, and that have bytes."""
        return bool(file.xet_hash) and file.size > 0

    @contextlib.asynccontextmanager
    async def open(self, run: Run) -> AsyncIterator[Lane]:
        """Open the lane; its children start with the first files."""
        url = f"{run.network.endpoint}/{self._route}"
        lane = XetLane(run, AccessDesk(url, self._client, run))
        try:
            yield lane
        finally:
            await lane.close()


class XetLane:
    """The lane of one run: a few children, each with its share of the buffers."""

    def __init__(self, run: Run, desk: AccessDesk) -> None:
        self._run = run
        self._desk = desk
        self._budget = budget_of(run.memory)
        self._connections = run.allowed
        self._children = children(self._budget, os.cpu_count() or 1, self._connections)
        self._engines = Engines(run, _MODULE, self._children, _LEAD, _environ(run), judge)
        # A token must not grow old while its file waits for a child.
        self._turns = asyncio.Semaphore(self._children)
        self._heard: list[Told] = []
        # Files that the store failed for since it last brought one.
        self._failed: set[str] = set()
        self._gone: ProtocolUnavailableError | None = None

    @property
    def connections(self) -> int:
        """Children that receive; how many connections each has, hf_xet does not tell."""
        return self._engines.busy

    async def fetch(self, file: RemoteFile, partial: Partial) -> None:
        """Fill what the partial misses; see ``Lane``."""
        if not partial.missing():
            return
        async with self._turns:
            if self._gone is not None:
                # Who waited for a turn need not find out once more.
                raise self._gone
            try:
                await self._fill(file, partial)
            except (TokenRefusedError, StoreFailedError) as error:
                if isinstance(error, StoreFailedError) and not self._fails_for_all(file):
                    raise
                self._gone = ProtocolUnavailableError(str(error), hint=error.hint)
                raise self._gone from error
            self._failed.clear()

    def _fails_for_all(self, file: RemoteFile) -> bool:
        """Whether a failing store is gone: nothing has ever come, or a second file meets it."""
        self._failed.add(file.path)
        return len(self._failed) > 1 or not any(told.get("received") for told in self._heard)

    async def _fill(self, file: RemoteFile, partial: Partial) -> None:
        """Bring all that is missing; a token that is refused may be followed by a better one."""
        try:
            await self._bring_gaps(file, partial)
        except TokenRefusedError:
            await self._bring_gaps(file, partial)

    async def _bring_gaps(self, file: RemoteFile, partial: Partial) -> None:
        gaps = partial.missing()
        if gaps == [ByteRange(0, file.size)] and self._run.limit is None:
            await self._bring(file, partial, None)
            return
        for gap in gaps:
            await self._bring(file, partial, gap)

    async def _bring(self, file: RemoteFile, partial: Partial, gap: ByteRange | None) -> None:
        """Bring a gap by a stream, or have hf_xet write the file when there is nothing of it."""
        wanted = gap or ByteRange(0, file.size)
        access = await self._desk.access()
        order = {
            "hash": file.xet_hash,
            "size": file.size,
            "path": str(partial.path.absolute()),
            "store": self._store(access),
            "settings": self._settings(stream=gap is not None),
            **({"start": gap.start, "stop": gap.stop, "pace": self._pace} if gap else {}),
        }

        def written(told: Told) -> InOrder:
            self._heard.append(told)
            if gap:
                return InOrder(gap, lambda: told.get("at", gap.start))
            partial.hand_over()
            return InOrder(wanted, lambda: partial.size_on_disk)

        try:
            await self._engines.bring(order, partial, written)
            # Now and then a stream that fails just ends.
            if lacking := sum(_common(part, wanted) for part in partial.missing()):
                reason = await why_not(self._run.network, access, file)
                short = f"{file.path}: what the Xet store sent is {lacking} bytes short"
                raise reason or TransferError(short)
        except EngineOutOfMemoryError:
            self._budget = max(SMALLEST_BUDGET, self._budget // 2)
            raise
        except TokenRefusedError:
            self._desk.drop(access)
            raise

    @property
    def _pace(self) -> int:
        return self._run.limit.piece if self._run.limit else 0

    def _store(self, access: Access) -> dict[str, object]:
        return {
            "endpoint": access.endpoint,
            "token": access.token,
            "token_expiry_unix_secs": access.expires,
            # A file may take longer than a token lives. The Hub's own is in these headers.
            "token_refresh_url": self._desk.url,
            "token_refresh_headers": self._run.network.headers(self._desk.url),
        }

    def _settings(self, *, stream: bool) -> dict[str, object]:
        buffers = Buffers.within(self._budget // self._children)
        if stream:
            buffers = buffers.for_stream(self._pace)
        connections = max(1, self._connections // self._children)
        return {
            **buffers.settings,
            **patience(self._run.network),
            "client.ac_initial_download_concurrency": connections,
            "client.ac_max_download_concurrency": connections,
            "telemetry.enabled": self._run.telemetry,
        }

    async def close(self) -> None:
        """End the children."""
        await self._engines.close()


def children(budget: int, cores: int, connections: int) -> int:
    """How many files to bring at once: each wants a core, a connection, and room for buffers."""
    return max(1, min(_MOST_CHILDREN, cores, connections, budget // _SHARE))


@dataclass(frozen=True, slots=True)
class Buffers:
    """What one child has in flight: bytes that wait to be written, and one fetch more."""

    fetch: int
    waiting: int

    @classmethod
    def within(cls, budget: int) -> Buffers:
        """Buffers that hold so many bytes together at most. Larger ones are not faster."""
        # The last fetch of a file may be half as large again.
        fetch = min(_LARGEST_FETCH, 2 * budget // 7)
        return cls(fetch, 2 * fetch)

    def for_stream(self, pace: int) -> Buffers:
        """Those for a stream; one with a speed limit, and so with a ``pace``, runs ahead little."""
        if not pace:
            fetch = min(_LARGEST_PIECE, self.fetch)
            # A slow link brings all that is waited for together: it must not seem to stand still.
            return Buffers(fetch, min(4 * fetch, self.waiting))
        fetch = min(self.fetch, max(_SMALLEST_PIECE, min(_LARGEST_PIECE, 16 * pace)))
        return Buffers(fetch, fetch)

    @property
    def settings(self) -> dict[str, object]:
        """The same in hf_xet's words."""
        reconstruction = {
            "min_reconstruction_fetch_size": self.fetch,
            "max_reconstruction_fetch_size": self.fetch,
            "min_prefetch_buffer": self.fetch,
            "download_buffer_size": self.waiting,
            "download_buffer_perfile_size": self.waiting,
            "download_buffer_limit": self.waiting,
        }
        return {f"reconstruction.{name}": str(size) for name, size in reconstruction.items()}


def patience(network: Network) -> dict[str, object]:
    """When hf_xet gives up a connection, and then a file: there is a next protocol."""
    stall = network.stall_timeout
    return {
        "client.read_timeout": _duration(min(_READ_TIMEOUT, stall / 2)),
        "client.connect_timeout": _duration(network.connect_timeout),
        "client.retry_max_attempts": _RETRIES,
        "client.retry_base_delay": _duration(min(_RETRY_DELAY, stall / 60)),
    }


def judge(told: Told, path: str) -> DownloadError:
    """What it means that hf_xet failed with these words; there is little else to go by."""
    words = str(told["error"])
    if trouble := disk_trouble(words, path):
        return trouble
    shown = _cleansed(words)
    if told.get("kind") == "XetAuthenticationError" or "Token refresh failed" in words:
        return TokenRefusedError(f"the Xet store refuses its token: {shown}")
    if not _OF_THE_STORE.search(words):
        return TransferInterruptedError(f"{path}: the Xet store failed to send it: {shown}")
    return _of_the_store(words, shown, path)


def _of_the_store(words: str, shown: str, path: str) -> TransferError:
    """What it means that the store itself, and not what it leads to, failed."""
    status = _STATUS.search(words)
    code = status[1] if status else ""
    if code in ("401", "403"):
        return TokenRefusedError(f"the Xet store refuses its token: {shown}")
    if code.startswith("4") and code != "429":
        return TransferError(f"{path}: the Xet store does not give it: {shown}")
    if code:
        return StoreFailedError(f"the Xet store fails: {shown}")
    return StoreFailedError(
        f"the Xet store cannot be asked: {shown}",
        hint="look at what stands between you and the store: firewall, proxy, certificates",
    )


def _cleansed(words: str) -> str:
    """An engine's words as they may be shown."""
    return without_secrets(_PREFACE.sub("", words, count=1))[:_WORDS]


def _environ(run: Run) -> dict[str, str]:
    """Where the children keep what is not the model, and that they report to nobody."""
    scratch = run.scratch.absolute()
    return {
        "HF_XET_CACHE": str(scratch / "xet"),
        "HF_XET_LOG_DEST": f"{scratch}/xet-logs/",
        "RUST_LOG": "warn",
        "TMPDIR": str(scratch),
        **({} if run.telemetry else {"HF_HUB_DISABLE_TELEMETRY": "1"}),
    }


def _common(one: ByteRange, other: ByteRange) -> int:
    return max(0, min(one.stop, other.stop) - max(one.start, other.start))


def _duration(seconds: float) -> str:
    return f"{max(1, round(1000 * seconds))}ms"
