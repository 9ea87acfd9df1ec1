"""A front before the real API server, for its bad days: answers of our own, cuts, silence."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.cluster.client import Cluster
from tests.cluster.supervisor import replace

WAIT_S = 60.0
_PASSED_ON = ("Authorization", "Accept", "Content-Type")


class Mishap(Enum):
    """What may happen to a request, other than an answer that is not the server's."""

    CUT = "its connection is cut before the server hears of it"
    LOST = "the server does it, and the connection is cut before its answer"


class Trap:
    """An answer for requests whose method and path, with the query, have this text in them."""

    def __init__(
        self,
        text: str,
        status: int,
        body: str = "",
        times: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.text, self.status, self.body, self.times = text, status, body, times
        self.headers = headers or {}


class ApiFront:
    """`with ApiFront(cluster, folder) as front:`; ``front.kubeconfig`` leads through it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        config = json.loads(cluster.kubeconfig.read_text("utf-8"))
        self._server: dict[str, str] = config["clusters"][0]["cluster"]
        self.token: str = config["users"][0]["user"]["token"]
        self._config = config
        self._folder = folder
        self.requests: list[str] = []
        """Of each request that came its method and its path with the query."""
        self.meddle: Callable[[str], Mishap | Trap | None] = lambda _: None
        """What happens to a request; it is called with its method and path, in a thread of ours."""
        self._traps: list[Trap] = []
        self._watches: set[asyncio.Task[Any]] = set()
        self._down = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    @property
    def kubeconfig(self) -> Path:
        return self.kubeconfig_with(token=self.token)

    def kubeconfig_with(self, **user: str) -> Path:
        """A kubeconfig whose user has this: a token, or a tokenFile."""
        config = {
            **self._config,
            "clusters": [
                {"name": "aim-tests", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
            ],
            "users": [{"name": "aim-tests", "user": user}],
        }
        path = self._folder / "kubeconfig-of-front"
        # Somebody may be reading it.
        replace(path, json.dumps(config))
        return path

    def trap(
        self,
        text: str,
        status: int,
        body: str = "",
        times: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> Trap:
        """From now on so many requests with this text in them are answered so."""
        self._traps.append(Trap(text, status, body, times, headers))
        return self._traps[-1]

    def release(self, trap: Trap) -> None:
        self._traps.remove(trap)

    def seen(self, text: str) -> list[str]:
        return [each for each in list(self.requests) if text in each]

    @property
    def writes(self) -> list[str]:
        """The requests so far that change something."""
        return [each for each in list(self.requests) if not each.startswith("GET ")]

    @property
    def watching(self) -> int:
        """On how many connections watches listen."""
        return len(self._watches)

    def cut_watches(self) -> int:
        """Cuts the connections on which watches listen; returns how many there were."""
        return self._do(self._cut)

    def go_down(self) -> None:
        """From now on connections are cut before an answer, and those that listen are now."""
        self._down = True
        self._do(self._cut)

    def come_up(self) -> None:
        self._down = False

    def hush_watches(self) -> None:
        """From now on watches hear nothing, and their connections stay."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def let_watches_hear(self) -> None:
        self._loop.call_soon_threadsafe(self._flowing.set)

    def close_door(self) -> None:
        """From now on nobody listens on the port, and who was connected is so no longer."""
        asyncio.run_coroutine_threadsafe(self._close_door(), self._loop).result(WAIT_S)

    def open_door(self) -> None:
        """Somebody listens again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._open_door(), self._loop).result(WAIT_S)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(WAIT_S)
        return self

    def __exit__(self, *error: object) -> None:
        self.go_down()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(WAIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def _do(self, what: Callable[[], int]) -> int:
        async def call() -> int:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(WAIT_S)

    def _cut(self) -> int:
        for watch in self._watches:
            watch.cancel()
        return len(self._watches)

    async def _start(self) -> None:
        context = ssl.create_default_context()
        # It is the server of the tests, on this machine.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0), read_bufsize=2**21
        )
        application = web.Application(client_max_size=8 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        # It keeps the port while the door is closed: nobody else is given it.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        await self._open_door()

    async def _open_door(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self.port))
        self._site = web.SockSite(self._runner, self._door)
        await self._site.start()

    async def _close_door(self) -> None:
        # Who is just being let in is so only in a later turn, if there is a server then.
        self._loop.remove_reader(self._door)
        await asyncio.sleep(0.1)
        await self._site.stop()
        assert self._runner.server
        for connection in self._runner.server.connections:
            if connection.transport:
                connection.transport.abort()

    async def _end(self) -> None:
        await self._runner.cleanup()
        self._place.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._session.close()
        await asyncio.sleep(0.1)  # transports of TLS are closed in later turns

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path_qs}"
        self.requests.append(line)
        if self._down:
            _abort(request)
            raise asyncio.CancelledError
        mishap: Trap | Mishap | None = self._trapped(line)
        if mishap is None:
            mishap = await asyncio.to_thread(self.meddle, line)
        if isinstance(mishap, Trap):
            return web.Response(
                status=mishap.status,
                text=mishap.body,
                headers=mishap.headers,
                content_type="application/json",
            )
        if mishap is Mishap.CUT:
            _abort(request)
            raise asyncio.CancelledError
        return await self._ask(request, lose_answer=mishap is Mishap.LOST)

    def _trapped(self, line: str) -> Trap | None:
        for trap in self._traps:
            if trap.text in line and trap.times != 0:
                trap.times = None if trap.times is None else trap.times - 1
                return trap
        return None

    async def _ask(self, request: web.Request, *, lose_answer: bool) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        async with self._session.request(
            request.method,
            self._server["server"] + request.path_qs,
            headers=headers,
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            if lose_answer:
                await answer.read()
                _abort(request)
                raise asyncio.CancelledError
            said = web.StreamResponse(
                status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}
            )
            await said.prepare(request)
            await self._pour(request, answer, said)
            return said

    async def _pour(
        self, request: web.Request, answer: aiohttp.ClientResponse, said: web.StreamResponse
    ) -> None:
        task = asyncio.current_task()
        assert task
        if "watch=true" in request.query_string:
            self._watches.add(task)
        try:
            async for piece in answer.content.iter_any():
                if "watch=true" in request.query_string:
                    await self._flowing.wait()
                await said.write(piece)
            await said.write_eof()
        except asyncio.CancelledError:
            _abort(request)
            raise
        finally:
            self._watches.discard(task)


def _abort(request: web.Request) -> None:
    if request.transport:  # else the client was quicker
        request.transport.abort()
