"""What a protocol is, and what a run gives it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from aim_downloader.events import Emit
from aim_downloader.http_client.network import Network
from aim_downloader.partial import Partial
from aim_downloader.progress import Traffic
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import RemoteFile


@dataclass(frozen=True, slots=True)
class Run:
    """What the lanes of one run share. ``emit`` may be called from any thread."""

    network: Network
    connections: int
    policy: RetryPolicy
    traffic: Traffic
    emit: Emit


class Lane(Protocol):
    """An open protocol: it owns connections, and several files are under way in it at once."""

    async def fetch(self, file: RemoteFile, partial: Partial) -> None:
        """Fill what the partial misses.

        When this returns or raises, none of its writers is left; after a cancel one may be, which
        ``partial.orphaned`` tells.

        Raises:
            TransferError: this protocol cannot bring the file.
            DownloadError: nobody can.
        """
        ...

    @property
    def connections(self) -> int:
        """Connections that are receiving now."""
        ...


class TransferProtocol(Protocol):
    """A way of moving bytes. ``ranged``: it fills gaps; else it begins from an empty partial."""

    name: str
    ranged: bool

    def supports(self, file: RemoteFile) -> bool:
        """Whether the protocol is for this file."""
        ...

    def open(self, run: Run) -> AbstractAsyncContextManager[Lane]:
        """Open a lane for a run."""
        ...
