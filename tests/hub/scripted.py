"""What the servers for tests share: a thread of their own, scripted faults and a request log."""

import asyncio
import threading
import time
import weakref
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from aiohttp import web

from aim_downloader.demo.reply import Reply, Subject, Where
from aim_downloader.demo.sender import Pace
from tests.hub.delivery import deliver
from tests.hub.faults import Fault
from tests.hub.log import POLL_S, RequestLog, RequestRecord
from tests.hub.script import Script, ScriptedFault

# Linux doubles the value. What waits in this buffer counts as sent, although a client that was
# killed never gets it; the default grows to megabytes and would make `bytes_sent` a fiction.
# (The client's own receive buffer is out of our reach.)
SEND_BUFFER = 128 * 1024
WAIT_S = 30.0

T = TypeVar("T")


class FaultySender:
    """Sends replies as the script wants them, and writes the log."""

    def __init__(self, script: Script, log: RequestLog, pace: Pace, paced: Where) -> None:
        self._script = script
        self._log = log
        self._pace = pace
        self._paced = paced
        self._unpaced = Pace()
        self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    def hang_up(self) -> None:
        """Closes connections at once, also those that wait for a client to take what is left."""
        for transport in list(self._transports):
            if transport.get_write_buffer_size() or not transport.is_closing():
                transport.abort()

    async def send(
        self, request: web.Request, subject: Subject, reply: Reply
    ) -> web.StreamResponse:
        if request.transport is not None:
            self._transports.add(request.transport)
        exchange = self._log.begin(request, subject)
        delivery = self._script.spoil(request, subject, reply)
        exchange.status = delivery.reply.status
        pace = self._pace if subject.where == self._paced else self._unpaced
        try:
            return await deliver(request, delivery, pace, exchange.sent)
        finally:
            exchange.finish()


class ScriptedServer:
    """All methods may be called from any thread. Large contents come from the part `large`."""

    def __init__(self, large: Where) -> None:
        self._large: Where = large
        self._pace = Pace()
        self._script = Script()
        self._log = RequestLog()
        self._senders: list[FaultySender] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()

    def _sender(self) -> FaultySender:
        self._senders.append(FaultySender(self._script, self._log, self._pace, self._large))
        return self._senders[-1]

    # -- what goes wrong -----------------------------------------------------------------------

    def fault(
        self,
        kind: Fault,
        *,
        path: str | None = None,
        where: Where | Literal["large"] | None = "large",
        times: int | None = 1,
        at: int | None = None,
        repo: str | None = None,
        method: str = "GET",
        skip: int = 0,
    ) -> ScriptedFault:
        """Scripts a fault for the requests that fit.

        `path` is a file's path, or for the API a part of the URL's path. `where` is a part of the
        server, by default the one that large contents come from, or None for all. `times` None is
        for ever; the first `skip` fitting requests pass. `at` is an offset in the content: only
        answers that contain it are met, and the fault acts from there on. `method` "*" stands for
        every one.
        """
        part = self._large if where == "large" else where
        scripted = ScriptedFault(
            kind, path=path, where=part, times=times, at=at, repo=repo, method=method, skip=skip
        )
        return self._script.add(scripted)

    def clear_faults(self) -> None:
        self._script.clear()

    def pace(self, bytes_per_second: float | None) -> None:
        """Limits what all large contents together get; None lets them run free again."""
        self._pace.bytes_per_second = bytes_per_second

    # -- what happened -------------------------------------------------------------------------

    @property
    def log(self) -> list[RequestRecord]:
        """Every request so far, in the order of arrival."""
        self._log.settle()
        return self._log.records()

    def clear_log(self) -> None:
        self._log.clear()

    def bytes_sent(self, path: str | None = None) -> int:
        """Body bytes of file contents that have left, those under way included."""
        self._log.settle()
        return self._bytes_sent(path)

    def wait_for_bytes(self, count: int, path: str | None = None, timeout: float = WAIT_S) -> None:
        """Returns as soon as so many bytes of contents have left: the moment to kill a client."""
        deadline = time.monotonic() + timeout
        while self._bytes_sent(path) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {self._bytes_sent(path)} of {count} bytes were asked for")
            time.sleep(POLL_S)

    def _bytes_sent(self, path: str | None) -> int:
        return sum(
            record.bytes_sent
            for record in self._log.records()
            if record.carries_content and path in (None, record.file)
        )

    # -- its life ------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> None:
        """Begins to serve, until the stack unwinds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait_for(self._open(self._stack))
        except BaseException:
            self._wait_for(self._stack.aclose())
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._wait_for(self._close())
        finally:
            self._end()

    async def _close(self) -> None:
        await self._stack.aclose()
        for sender in self._senders:
            sender.hang_up()
        for _ in range(3):  # a transport that was aborted is closed in a later turn
            await asyncio.sleep(0)

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()
