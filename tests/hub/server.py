"""`HubServer`: Hub and CDN in a thread of their own, with scripted faults and a request log."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from aim_downloader.demo.cdn import Signer
from aim_downloader.demo.reply import Reply, Subject, Where
from aim_downloader.demo.repository import Catalogue, Gate, Repository, lfs_by_suffix, repository_of
from aim_downloader.demo.sender import Pace
from aim_downloader.demo.serve import Served, serve
from tests.hub.delivery import deliver
from tests.hub.faults import Fault
from tests.hub.log import POLL_S, RequestLog, RequestRecord
from tests.hub.script import Script, ScriptedFault

# Linux doubles the value. What waits in this buffer counts as sent, although a client that was
# killed never gets it; the default grows to megabytes and would make `bytes_sent` a fiction.
# (The client's own receive buffer is out of our reach.)
CDN_SEND_BUFFER = 128 * 1024
WAIT_S = 30.0

T = TypeVar("T")


class FaultySender:
    """Sends replies as the script wants them, and writes the log."""

    def __init__(self, script: Script, log: RequestLog, pace: Pace) -> None:
        self._script = script
        self._log = log
        self._pace = pace
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
        pace = self._pace if subject.where == "cdn" else self._unpaced
        try:
            return await deliver(request, delivery, pace, exchange.sent)
        finally:
            exchange.finish()


class HubServer:
    """A Hub for tests: `with HubServer() as hub:`. All methods may be called from any thread."""

    def __init__(
        self,
        *,
        port: int = 0,
        cdn_base: str | None = None,
        page_size: int = 1000,
    ) -> None:
        self._port = port
        self._cdn_base = cdn_base
        self._page_size = page_size
        self._catalogue = Catalogue(tokens={})
        self._signer = Signer()
        self._pace = Pace()
        self._script = Script()
        self._log = RequestLog()
        self._sender = FaultySender(self._script, self._log, self._pace)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hub", daemon=True)
        self._stack = AsyncExitStack()
        self._served: Served | None = None

    # -- where it is ---------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """What clients take as HF_ENDPOINT."""
        return self._address().endpoint

    @property
    def cdn(self) -> str:
        """The address that signed URLs begin with."""
        return self._address().cdn

    @property
    def cdn_host(self) -> str:
        """The host of the CDN, without a port."""
        return urlsplit(self.cdn).hostname or ""

    # -- what it holds -------------------------------------------------------------------------

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes | Path],
        *,
        lfs: Callable[[str], bool] = lfs_by_suffix,
        private: bool = False,
        gated: Gate = False,
    ) -> Repository:
        """A new repository with one commit on `main`; `commit` and `tag` are methods of it."""
        repository = Repository(repo_id, private=private, gated=gated, is_lfs=lfs)
        repository.commit(files)
        return self._catalogue.add(repository)

    def add_folder(self, repo_id: str, folder: Path) -> Repository:
        """A new repository with the files of a folder."""
        return self._catalogue.add(repository_of(repo_id, folder))

    def repo(self, repo_id: str) -> Repository:
        return self._catalogue.repositories[repo_id]

    def rename_repo(self, old_id: str, new_id: str) -> None:
        """Moves a repository; its former name answers 307."""
        repository = self._catalogue.repositories.pop(old_id)
        repository.id = new_id
        self._catalogue.add(repository)
        self._catalogue.renamed[old_id] = new_id

    def add_token(self, token: str, *, reads: tuple[str, ...] = ()) -> None:
        """A valid token, and the private and gated repositories that it may read."""
        tokens = self._catalogue.tokens or {}
        self._catalogue.tokens = {**tokens, token: frozenset(reads)}

    def remove_token(self, token: str) -> None:
        tokens = self._catalogue.tokens or {}
        self._catalogue.tokens = {known: tokens[known] for known in tokens if known != token}

    # -- what goes wrong -----------------------------------------------------------------------

    def fault(
        self,
        kind: Fault,
        *,
        path: str | None = None,
        where: Where | None = "cdn",
        times: int | None = 1,
        at: int | None = None,
        repo: str | None = None,
        method: str = "GET",
        skip: int = 0,
    ) -> ScriptedFault:
        """Scripts a fault for the requests that fit.

        `path` is a file's path, or for the API a part of the URL's path. `where` is "api", "hub"
        (resolve and git files), "cdn" or None for all. `times` None is for ever; the first `skip`
        fitting requests pass. `at` is an offset in the file: only answers that contain it are met,
        and the fault acts from there on. `method` "*" stands for every one.
        """
        scripted = ScriptedFault(
            kind, path=path, where=where, times=times, at=at, repo=repo, method=method, skip=skip
        )
        return self._script.add(scripted)

    def clear_faults(self) -> None:
        self._script.clear()

    def pace(self, bytes_per_second: float | None) -> None:
        """Limits what all CDN bodies together get; None lets them run free again."""
        self._pace.bytes_per_second = bytes_per_second

    def url_lifetime(self, seconds: float) -> None:
        """How long signed URLs made from now on are valid."""
        self._signer.lifetime = seconds

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

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._served = self._wait_for(self._stack.enter_async_context(self._serve()))
        except BaseException:
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
        self._sender.hang_up()
        for _ in range(3):  # a transport that was aborted is closed in a later turn
            await asyncio.sleep(0)

    def _serve(self) -> AbstractAsyncContextManager[Served]:
        return serve(
            self._catalogue,
            self._signer,
            self._sender,
            port=self._port,
            cdn_base=self._cdn_base,
            page_size=self._page_size,
            cdn_send_buffer=CDN_SEND_BUFFER,
        )

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def _address(self) -> Served:
        if self._served is None:
            raise RuntimeError("the Hub is not running")
        return self._served
