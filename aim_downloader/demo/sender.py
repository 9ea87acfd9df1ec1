"""Puts replies on the wire: files by sendfile, at full speed or at a pace."""

import asyncio
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Protocol

from aiohttp import web

from aim_downloader.demo.content import Content
from aim_downloader.demo.reply import Reply, Subject

SLICE = 1024 * 1024
PIECE = 256 * 1024
PACED_STEP_S = 0.02


class Sender(Protocol):
    """Sends a reply; the place to slow down, count or spoil what leaves the Hub."""

    async def send(
        self, request: web.Request, subject: Subject, reply: Reply
    ) -> web.StreamResponse: ...


class Pace:
    """A token bucket: all who take from one pace share its bytes per second."""

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self.bytes_per_second = bytes_per_second
        self._paid_until = time.monotonic()

    def step(self) -> int:
        """How many bytes to take at once, so that a slow pace is smooth and a fast one cheap."""
        rate = self.bytes_per_second
        return min(SLICE, max(1, int(rate * PACED_STEP_S))) if rate else SLICE

    async def take(self, count: int) -> None:
        rate = self.bytes_per_second
        if rate is None:
            return
        now = time.monotonic()
        # What a late wake-up lost is caught up with, by no more than 1 MiB. After a longer pause
        # nobody was waiting, and there is nothing to catch up with.
        late = now - self._paid_until
        begin = now if late > min(5 * PACED_STEP_S, SLICE / rate) else self._paid_until
        self._paid_until = begin + count / rate
        await asyncio.sleep(self._paid_until - now)


class PlainSender:
    """Sends every reply as it is; contents from the CDN share one pace."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._unpaced = Pace()

    async def send(
        self, request: web.Request, subject: Subject, reply: Reply
    ) -> web.StreamResponse:
        response = await begin(request, reply)
        if request.method != "HEAD":
            pace = self._pace if subject.where == "cdn" else self._unpaced
            wire = Wire(request, response, [pace])
            await wire.write(reply.content, reply.start, reply.stop)
        await response.write_eof()
        return response


async def begin(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Sends status line and headers."""
    response = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
    await response.prepare(request)
    return response


def ignore_count(_: int) -> None:
    pass


class Wire:
    """The body of one response under way."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        paces: list[Pace],
        sent: Callable[[int], None] = ignore_count,
    ) -> None:
        self._request = request
        self._response = response
        self._paces = paces
        self._sent = sent

    async def write(self, content: Content, start: int, stop: int) -> None:
        """Writes the bytes `start` to `stop` of a content in slices, and counts them."""
        if isinstance(content.data, Path):
            await self._write_file(content.data, start, stop)
        else:
            await self._write_bytes(memoryview(content.data)[start:stop])

    async def _write_bytes(self, data: memoryview) -> None:
        while data:
            piece = data[: await self._turn(min(len(data), PIECE))]
            await self._response.write(piece)
            self._sent(len(piece))
            data = data[len(piece) :]

    async def _write_file(self, path: Path, start: int, stop: int) -> None:
        with path.open("rb", buffering=0) as file:
            while start < stop:
                count = await self._turn(stop - start)
                file.seek(start)
                try:
                    await self._sendfile(file, start, count)
                finally:
                    # The position tells how far sendfile came, also when the client went away.
                    self._sent(file.tell() - start)
                start += count

    async def _sendfile(self, file: FileIO, start: int, count: int) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client went away")
        await asyncio.get_running_loop().sendfile(transport, file, start, count)

    async def _turn(self, left: int) -> int:
        """Waits until every pace lets a slice pass, and says how long that slice may be."""
        count = min(left, *(pace.step() for pace in self._paces), SLICE)
        for pace in self._paces:
            await pace.take(count)
        return count
