"""The open way to the source of a model. Where nothing is asked no HTTP library is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aim_downloader.config import Config
from aim_downloader.errors import SnapshotNotFoundError
from aim_downloader.events import Emit, SnapshotResolved
from aim_downloader.snapshot import ModelURI, Snapshot

if TYPE_CHECKING:
    from aim_downloader.http_client.network import Network
    from aim_downloader.http_client.whole import AsyncClient
    from aim_downloader.sources.base import Source


@dataclass(frozen=True, slots=True)
class Connection:
    """The open way to the source."""

    network: Network
    client: AsyncClient
    emit: Emit

    async def resolve(self, uri: ModelURI, commit: str | None = None) -> Snapshot:
        """Pin the revision, to a ``commit`` that is known, and list its files (see ``Source``)."""
        from aim_downloader.sources.hf import HubSource

        source: Source = HubSource(self.client, self.network.endpoint, self.emit)
        snapshot = await source.resolve(replace(uri, revision=commit) if commit else uri)
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
    from aim_downloader.rate_limit import RateLimit
    from aim_downloader.sources.hf import stored_token

    token = config.token or (stored_token() if config.ask_for_token else None)
    network = Network(config.endpoint, token, config.stall_timeout, config.ca_bundle)
    limit = RateLimit(config.limit_rate) if config.limit_rate else None
    async with AsyncClient(network, config.connections, limit) as client:
        yield Connection(network, client, emit)
