"""`XetFront`: what clients see of a Xet store: its API behind tokens, its xorbs on another host.

It passes questions on to a real store, and can go wrong as the Hub of the tests can.
"""

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack

from aiohttp import ClientSession, web

from aim_downloader.demo.cdn import Cdn, Signer
from aim_downloader.demo.content import Content
from aim_downloader.demo.reply import RefusalError, Reply, Subject, error_reply, whole
from aim_downloader.demo.repository import Catalogue, Entry
from aim_downloader.demo.xet import XetToken
from tests.hub.faults import DamagedByte
from tests.hub.scripted import FaultySender, ScriptedServer
from tests.xet.door import Door
from tests.xet.store import XetStore
from tests.xet.xorb import plain_byte

CAS_HOSTS = ("127.0.0.1",)
XORB_HOSTS = ("127.0.0.3", "127.0.0.1")
FROM_BEGIN = "bytes=0-"


class XetFront(ScriptedServer):
    """`with XetFront(store) as xet, HubServer(xet=xet) as hub:`; its log is apart from the Hub's.

    The parts that faults are for: "cas" (the API) and "xorb". For both `path` is a file's path in
    its repository; `at` is an offset in the xorb. `xorbs` is the address of another server that
    serves the store's folder of xorbs. `hosts` are those of the API and of the xorbs, where they
    are not this machine's own.
    """

    def __init__(
        self,
        store: XetStore,
        *,
        xorbs: str | None = None,
        hosts: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(large="xorb")
        self._store = store
        self._elsewhere = xorbs
        self._catalogue = Catalogue()
        self._tokens: dict[str, float] = {}
        self._lifetime = 3600.0
        self._signer = Signer()
        self._session: ClientSession | None = None
        sender = self._sender()
        self._cas = Door(
            hosts[:1] if hosts else CAS_HOSTS, sender, lambda: self._application(sender)
        )
        cdn = Cdn(self._xorb, self._signer, self._sender(), where="xorb")
        self._xorbs = Door(hosts[1:] if hosts else XORB_HOSTS, self._senders[-1], cdn.application)

    # -- for the Hub ---------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The address of the API: what the Hub calls casUrl."""
        return self._cas.url

    def grant(self) -> XetToken:
        expires = time.time() + self._lifetime
        token = XetToken(f"xet_{secrets.token_hex(16)}", int(expires))
        self._tokens[token.text] = expires
        return token

    def attach(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def take(self, contents: Iterable[Content]) -> None:
        self._store.take(contents)

    def hash_of(self, content: Content) -> str:
        return self._store.hash_of(content)

    # -- what it gives -------------------------------------------------------------------------

    @property
    def xorbs(self) -> str:
        """The address that URLs of data begin with."""
        return self._elsewhere or self._xorbs.url

    def token_lifetime(self, seconds: float) -> None:
        """How long tokens that are given from now on are valid."""
        self._lifetime = seconds

    def revoke_tokens(self) -> None:
        """Refuses all tokens so far; those who have one believe that it is valid."""
        self._tokens.clear()

    def url_lifetime(self, seconds: float) -> None:
        """How long URLs of data that are signed from now on are valid."""
        self._signer.lifetime = seconds

    # -- what goes wrong, beside scripted faults -----------------------------------------------

    def damage(self, path: str) -> DamagedByte:
        """A damage of this file, which must be random bytes, that only its digest tells of.

        It is to be scripted with the same path and where="xorb".
        """
        [xet_hash, *_] = [e.xet_hash for _, e in self._files() if e.path == path and e.xet_hash]
        fetches = self._store.reconstruction(xet_hash)["xorbs"]
        xorb_hash = next(iter(fetches))
        span = fetches[xorb_hash][0]["ranges"][0]["bytes"]
        return DamagedByte(plain_byte(self._store.xorb(xorb_hash), span["start"], span["end"] + 1))

    def vanish(self) -> None:
        """Ends all connections, and refuses new ones."""
        self._wait_for(self._cas.shut())
        self._wait_for(self._xorbs.shut())

    def come_back(self) -> None:
        """Answers again at the same addresses."""
        self._wait_for(self._cas.open())
        self._wait_for(self._xorbs.open())

    # -- its life ------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> None:
        self._session = await stack.enter_async_context(ClientSession())
        for door in (self._cas, self._xorbs):
            await door.open()
            stack.push_async_callback(door.shut)

    # -- the API -------------------------------------------------------------------------------

    def _application(self, sender: FaultySender) -> web.Application:
        async def handle(request: web.Request) -> web.StreamResponse:
            xet_hash = request.match_info.get("hash", "")
            subject = Subject("cas", *self._owner(xet_hash))
            try:
                self._check_token(request)
                reply = await self._answer(request, xet_hash)
            except RefusalError as refusal:
                reply = refusal.reply
            return await sender.send(request, subject, reply)

        app = web.Application()
        app.router.add_get("/{version:v1|v2}/reconstructions/{hash:[0-9a-f]{64}}", handle)
        app.router.add_route("*", "/{rest:.*}", handle)
        return app

    def _check_token(self, request: web.Request) -> None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or self._tokens.get(token, 0.0) < time.time():
            raise RefusalError(error_reply(401, "invalid or expired access token"))

    async def _answer(self, request: web.Request, xet_hash: str) -> Reply:
        if not xet_hash:
            return error_reply(404, "not found")
        assert self._session is not None
        asked = {name: request.headers[name] for name in ("Range",) if name in request.headers}
        url = f"{self._store.endpoint}{request.path}"
        async with self._session.get(url, headers=asked) as answer:
            body = await answer.read()
        # The test server says 416 for a file that it has not; that has not even a first byte.
        if answer.status == 416 and asked.get("Range", FROM_BEGIN).startswith(FROM_BEGIN):
            return error_reply(404, "file not found")
        if answer.status != 200:
            return whole(answer.status, body, {"Content-Type": "text/plain"})
        plan = json.loads(body)
        # The two versions differ in this name, and not in what is of interest here.
        for xorb_hash, fetches in plan.get("xorbs", plan.get("fetch_info")).items():
            for fetch in fetches:
                fetch["url"] = self._url(xet_hash, xorb_hash)
        return whole(200, json.dumps(plan).encode(), {"Content-Type": "application/json"})

    def _url(self, xet_hash: str, xorb_hash: str) -> str:
        if self._elsewhere is not None:
            return f"{self._elsewhere}/{self._store.xorb(xorb_hash).name}"
        return self._signer.sign(self._xorbs.url, *self._owner(xet_hash), xorb_hash)

    def _xorb(self, _: str, xorb_hash: str) -> Content | None:
        path = self._store.xorb(xorb_hash)
        return Content(path) if path.exists() else None

    def _owner(self, xet_hash: str) -> tuple[str, str]:
        """The first repository that has a file of this hash, and the file's path."""
        for repo_id, entry in self._files():
            if entry.xet_hash == xet_hash:
                return repo_id, entry.path
        return "", ""

    def _files(self) -> Iterator[tuple[str, Entry]]:
        for repository in list(self._catalogue.repositories.values()):
            for commit in list(repository.commits.values()):
                yield from ((repository.id, entry) for entry in commit.entries.values())
