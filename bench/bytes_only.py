"""Our HTTP lane without verification, for P4: `python -m bench.bytes_only URL PATH ...`."""

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from aim_downloader.config import Config
from aim_downloader.events import Event
from aim_downloader.governor import Governor
from aim_downloader.http_client.network import Network
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.progress import Traffic
from aim_downloader.protocols.base import Lane, Run
from aim_downloader.protocols.http import HttpProtocol
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import ByteRange, RemoteFile
from aim_downloader.storage import pwrite_all


class Unverified:
    """What a lane sees of a `Partial`; it writes, and neither hashes nor keeps a journal."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self.path = path
        self.file = file
        self.behind = False
        self.present = self.verified = 0
        self._lock = threading.Lock()
        self._there: set[int] = set()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._fd, file.size)

    def missing(self) -> list[ByteRange]:
        """All of it: nobody asks twice."""
        return [ByteRange(0, self.file.size)]

    def lacks(self, offset: int) -> bool:
        return offset // BLOCK not in self._there

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        with self._lock:
            if not self.lacks(offset):
                return False
            self._there.add(offset // BLOCK)
            self.present += len(data)
        pwrite_all(self._fd, data, offset)
        return True

    def catch_up(self, enough: threading.Event | None = None) -> None:
        """Nothing is ever behind."""

    def close(self) -> None:
        os.close(self._fd)


async def fetch_all(pairs: list[tuple[str, Path]]) -> None:
    connections, network = Config().connections, Network(_root(pairs[0][0]))
    governor = Governor(connections)
    run = Run(network, connections, RetryPolicy(), Traffic(), _ignore, governor)
    async with HttpProtocol().open(run) as lane:
        await asyncio.gather(*(_fetch(lane, url, path) for url, path in pairs))


async def _fetch(lane: Lane, url: str, path: Path) -> None:
    file = RemoteFile(path.name, await asyncio.to_thread(_size, url), None, url=url)
    partial = Unverified(path, file)
    await lane.fetch(file, cast("Partial", partial))
    partial.close()
    if partial.present != file.size:
        raise SystemExit(f"{url}: {partial.present} of {file.size} bytes came")


def _size(url: str) -> int:
    with urlopen(Request(url, method="HEAD")) as answer:
        return int(answer.headers["Content-Length"])


def _root(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _ignore(event: Event) -> None:
    """Nobody listens."""


if __name__ == "__main__":
    words = sys.argv[1:]
    asyncio.run(fetch_all(list(zip(words[::2], map(Path, words[1::2]), strict=True))))
