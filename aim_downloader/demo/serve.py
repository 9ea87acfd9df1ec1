"""Brings Hub and CDN onto sockets of this machine, each on a host of its own."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from aim_downloader.demo.cdn import Cdn, Signer
from aim_downloader.demo.hub import Hub
from aim_downloader.demo.repository import Catalogue
from aim_downloader.demo.sender import Sender

SHUTDOWN_S = 0.2


@dataclass(frozen=True)
class Doors:
    """Where to listen. The CDN has the first of its hosts that this machine has."""

    hub: str = "127.0.0.1"
    port: int = 0
    # Another host than the Hub's, as in the real world: some clients compare hosts without ports.
    # Linux answers on all of 127.0.0.0/8; elsewhere only 127.0.0.1 can be bound.
    cdn: tuple[str, ...] = ("127.0.0.2", "127.0.0.1")


@dataclass(frozen=True)
class Served:
    """Where a running Hub can be reached."""

    endpoint: str
    cdn: str


LOCAL_DOORS = Doors()


@asynccontextmanager
async def serve(
    catalogue: Catalogue,
    signer: Signer,
    sender: Sender,
    *,
    doors: Doors = LOCAL_DOORS,
    cdn_base: str | None = None,
    page_size: int = 1000,
    cdn_send_buffer: int | None = None,
) -> AsyncIterator[Served]:
    """Serves until the block ends. `cdn_base` names another CDN to send large files to."""
    hub_socket = listen((doors.hub,), doors.port)
    cdn_socket = listen(doors.cdn, 0, cdn_send_buffer)
    served = Served(address(hub_socket), cdn_base or address(cdn_socket))
    hub = Hub(catalogue, signer, sender, cdn_base=served.cdn, page_size=page_size)
    async with AsyncExitStack() as stack:
        await start(stack, hub.application(), hub_socket)
        await start(stack, Cdn(catalogue.large, signer, sender).application(), cdn_socket)
        yield served


async def start(stack: AsyncExitStack, app: web.Application, listener: socket.socket) -> None:
    """Serves an application until the stack unwinds."""
    # A handler ends with its client: a paced body for a client that is gone must not go on.
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener, backlog=512).start()


def listen(hosts: tuple[str, ...], port: int, send_buffer: int | None = None) -> socket.socket:
    """A socket on the first of these hosts that this machine has."""
    for host in hosts[:-1]:
        try:
            return _bind(host, port, send_buffer)
        except OSError:
            continue
    return _bind(hosts[-1], port, send_buffer)


def _bind(host: str, port: int, send_buffer: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"
