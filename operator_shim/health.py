"""What is asked for by HTTP: does the program work (/healthz), can it (/readyz), and /metrics."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator

from aiohttp import web

from operator_shim.reconciler import Reconciler

log = logging.getLogger(__name__)


class PortError(Exception):
    """The port for probes cannot be had."""


@contextlib.asynccontextmanager
async def answering_probes(reconciler: Reconciler, port: int) -> AsyncIterator[None]:
    """Answer on this port, at every address that the machine has.

    Raises:
        PortError: the port is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        status = 200 if reconciler.alive else 503
        return web.Response(status=status, text=f"last resync {reconciler.age:.0f} s ago\n")

    async def readyz(_: web.Request) -> web.Response:
        ready = reconciler.ready
        return web.Response(status=200 if ready else 503, text="ready\n" if ready else "waiting\n")

    async def metrics(request: web.Request) -> web.Response:
        page, kind = reconciler.metrics.page(request.headers.get("Accept", ""))
        answer = web.Response(body=page, headers={"Content-Type": kind})
        answer.enable_compression()
        return answer

    application = web.Application()
    application.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        door = _listening(port)
        await web.SockSite(runner, door).start()
        log.info("probes are answered on port %d", door.getsockname()[1])
        yield
    finally:
        await runner.cleanup()


def _listening(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise PortError(f"port {port} cannot be listened on: {error.strerror}") from error
