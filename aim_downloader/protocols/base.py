"""What a protocol is, and what a run gives it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aim_downloader.events import Emit
from aim_downloader.governor import Governor
from aim_downloader.http_client.network import Network
from aim_downloader.partial import Partial
from aim_downloader.progress import Traffic
from aim_downloader.rate_limit import RateLimit
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import RemoteFile


@dataclass(frozen=True, slots=True)
class Run:
    """What the lanes of one run share, but for ``connections``, which is this lane's part.

    ``emit`` may be called from any thread. ``limit`` is the run's speed, None for no limit. Native
    engines write what is not the model into the folder ``scratch``, use their part of ``memory``
    (bytes that a cgroup leaves; None where none does), and report to nobody without ``telemetry``.
    """

    network: Network
    connections: int
    policy: RetryPolicy
    traffic: Traffic
    emit: Emit
    governor: Governor
    limit: RateLimit | None = None
    scratch: Path = Path()
    memory: int | None = None
    telemetry: bool = False

    @property
    def allowed(self) -> int:
        """Connections that may be in use now: the servers and the speed limit leave so many."""
        useful = self.limit.streams(self.connections) if self.limit else self.connections
        return min(useful, self.governor.allowed(self.connections))


class Lane(Protocol):
    """An open protocol: it owns connections, and several files are under way in it at once."""

    async def fetch(self, file: RemoteFile, partial: Partial) -> None:
        """Fill what the partial misses.

        When this returns or raises, none of its writers is left; after a cancel one may be that
        hangs in the disk, and finds the partial open until it leaves.

        Raises:
            TransferError: this protocol cannot bring the file; a ProtocolUnavailableError says
                that it can bring none.
            DownloadError: nobody can.
        """
        ...

    @property
    def connections(self) -> int:
        """Connections that are receiving now."""
        ...


class TransferProtocol(Protocol):
    """A way of moving bytes."""

    name: str

    def supports(self, file: RemoteFile) -> bool:
        """Whether the protocol is for this file."""
        ...

    def open(self, run: Run) -> AbstractAsyncContextManager[Lane]:
        """Open a lane for a run. It costs nothing before the first file."""
        ...
