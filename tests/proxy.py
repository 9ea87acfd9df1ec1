"""A small HTTP proxy in a thread: it forwards, opens tunnels, asks for a password, and refuses."""

import asyncio
import base64
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

WAIT_S = 60.0
_GRACE_S = 0.5
_BUFFER = 64 * 1024


@dataclass(frozen=True)
class ProxyRequest:
    """What a client asked of the proxy; ``headers`` with names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


class LoopThread:
    """An event loop in a thread of its own: for servers beside a test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def begin(self) -> None:
        self._thread.start()

    def end(self, server: asyncio.Server) -> None:
        """Closes the server, ends all that is under way, and the thread."""
        self.call(_end(server))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()


async def _end(server: asyncio.Server) -> None:
    # In its own loop: a connection that ends at this moment is counted by the server, too.
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for _ in range(3):  # a transport that was aborted is closed in a later turn
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def ending(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Ends a connection after the block, whatever the peer does."""
    try:
        yield
    finally:
        writer.close()
        try:
            async with asyncio.timeout(_GRACE_S):
                await writer.wait_closed()
        except OSError:
            pass
        finally:
            writer.transport.abort()


class Proxy:
    """`with Proxy() as proxy:`; ``refuse`` is the status that all requests get from now on."""

    def __init__(self, *, user: str = "", password: str = "") -> None:
        self._credentials = f"{user}:{password}" if user else ""
        self._loop = LoopThread()
        self._server: asyncio.Server | None = None
        self.refuse: int | None = None
        self.requests: list[ProxyRequest] = []

    @property
    def address(self) -> str:
        """Host and port."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        """What HTTP_PROXY may hold, without a password."""
        return f"http://{self.address}"

    def asked_for(self, text: str) -> list[ProxyRequest]:
        """Requests whose target has this text in it."""
        return [request for request in self.requests if text in request.target]

    def __enter__(self) -> Self:
        self._loop.begin()
        self._server = self._loop.call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server is not None
        self._loop.end(self._server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            async with ending(writer):
                await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, rest = _parse(await reader.readuntil(b"\r\n\r\n"))
        self.requests.append(request)
        if status := self._refusal(request):
            writer.write(_refusal(status))
            await writer.drain()
        elif request.method == "CONNECT":
            await _tunnel(request, reader, writer)
        else:
            await _forward(request, rest, reader, writer)

    def _refusal(self, request: ProxyRequest) -> int | None:
        if self._credentials:
            right = base64.b64encode(self._credentials.encode()).decode()
            if request.headers.get("proxy-authorization") != f"Basic {right}":
                return 407
        return self.refuse


def _parse(head: bytes) -> tuple[ProxyRequest, list[str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return ProxyRequest(method, target, headers), lines


def _refusal(status: int) -> bytes:
    ask = 'Proxy-Authenticate: Basic realm="proxy"\r\n' if status == 407 else ""
    return (
        f"HTTP/1.1 {status} Refused\r\n{ask}Content-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode()


async def _tunnel(
    request: ProxyRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    host, _, port = request.target.rpartition(":")
    there = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await join((reader, writer), there)


async def _forward(
    request: ProxyRequest,
    lines: list[str],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """One request, and then the connection ends: so the answer need not be understood."""
    parts = urlsplit(request.target)
    there = await asyncio.open_connection(parts.hostname, parts.port or 80)
    path = request.target.split(parts.netloc, 1)[1] or "/"
    kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
    head = [f"{request.method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
    there[1].write("\r\n".join(head).encode("latin-1"))
    await join((reader, writer), there)


async def join(
    here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Carries bytes both ways until one side is done, and ends the connection there."""
    async with ending(there[1]):
        ways = [
            asyncio.ensure_future(_carry(here[0], there[1])),
            asyncio.ensure_future(_carry(there[0], here[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BUFFER):
            writer.write(data)
            await writer.drain()
