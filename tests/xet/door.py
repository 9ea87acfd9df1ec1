"""An address at which an application answers, until it is shut; it can be opened there again."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from aiohttp import web

from aim_downloader.demo.serve import address, listen, start
from tests.hub.scripted import SEND_BUFFER, FaultySender


class Door:
    """Its `url` stays the same once it has been open. Only for the server's own loop."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        sender: FaultySender,
        application: Callable[[], web.Application],
    ) -> None:
        self._hosts = hosts
        self._sender = sender
        self._application = application
        self._stack = AsyncExitStack()
        self.url = ""

    async def open(self) -> None:
        port = urlsplit(self.url).port or 0
        listener = listen(self._hosts, port, SEND_BUFFER)
        self.url = address(listener)
        await start(self._stack, self._application(), listener)

    async def shut(self) -> None:
        """Ends all connections; from now on they are refused."""
        self._sender.hang_up()
        await self._stack.aclose()
