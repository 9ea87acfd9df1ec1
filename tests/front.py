"""A front before a Hub: it passes requests on, and answers those it is told to, byte by byte."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from tests.proxy import LoopThread, ending, join

Evil = Callable[[], AsyncIterator[bytes]]
"""What is sent in place of an answer, piece by piece; then the connection ends."""


@dataclass
class Trap:
    """An evil for requests whose target has a text in it; None of ``times`` is for ever."""

    text: str
    evil: Evil
    times: int | None
    met: int = 0


class Front:
    """`with Front(endpoint) as front:`, on an address of its own; `front.url` is the endpoint."""

    def __init__(self, behind: str = "", host: str = "127.0.0.1") -> None:
        self.behind = behind
        self.targets: list[str] = []
        self._host = host
        self._traps: list[Trap] = []
        self._loop = LoopThread()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """What clients take as HF_ENDPOINT."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def trap(self, text: str, evil: Evil, times: int | None = None) -> Trap:
        """From now on requests whose target has this text in it meet this evil."""
        self._traps.append(Trap(text, evil, times))
        return self._traps[-1]

    def __enter__(self) -> Self:
        self._loop.begin()
        self._server = self._loop.call(asyncio.start_server(self._serve, self._host, 0))
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server is not None
        self._loop.end(self._server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            async with ending(writer):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                target = head.split(" ", 2)[1]
                self.targets.append(target)
                evil = self._evil_for(target)
                if evil is None:
                    await self._pass_on(head, reader, writer)
                else:
                    await _send(evil, writer)

    def _evil_for(self, target: str) -> Evil | None:
        for trap in self._traps:
            if trap.text in target and (trap.times is None or trap.met < trap.times):
                trap.met += 1
                return trap.evil
        return None

    async def _pass_on(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        parts = urlsplit(self.behind)
        there = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [line for line in head.split("\r\n") if not line.lower().startswith("connection:")]
        # One request, and then the connection ends: so the answer need not be understood.
        lines.insert(1, "Connection: close")
        there[1].write("\r\n".join(lines).encode("latin-1"))
        await join((reader, writer), there)


async def _send(evil: Evil, writer: asyncio.StreamWriter) -> None:
    async for piece in evil():
        writer.write(piece)
        await writer.drain()
