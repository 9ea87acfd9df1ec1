"""The client of the event loop: answers that are small and read whole, by aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import yarl

from aim_downloader.http_client.network import Network
from aim_downloader.http_client.rules import (
    MAX_REDIRECTS,
    next_hop,
    proxy_refusal,
    refusal,
    refuse_encoding,
    stood_still,
    too_many_redirects,
    too_slow,
    unreachable,
)
from aim_downloader.rate_limit import RateLimit

# A server that drips holds a connection for ever, byte by byte: every answer has as long as bytes
# may fail to come, and a second more for so many bytes as have come.
_SLOWEST = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. ``url`` is the one that answered, after redirects.

    ``first_headers`` are those of the first answer: on a redirect the Hub puts there what it
    knows of the file.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    first_headers: Mapping[str, str]


class AsyncClient:
    """Requests of the event loop, up to ``connections`` at once, at most as fast as the limit."""

    def __init__(
        self, network: Network, connections: int, rate_limit: RateLimit | None = None
    ) -> None:
        self._network = network
        self._connections = connections
        self.rate_limit = rate_limit

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                # aiohttp has a context of the system's certificates ready.
                ssl=self._network.ssl_context() if self._network.ca_bundle else True,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._network.connect_timeout,
                sock_read=self._network.stall_timeout,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(
        self,
        url: str,
        limit: int,
        turn: Callable[[str, Mapping[str, str]], Awaitable[None]] | None = None,
        received: Callable[[int], None] = lambda _: None,
    ) -> Answer:
        """Fetch a URL whole, following redirects; a body is cut off behind ``limit + 1`` bytes.

        ``turn`` is awaited before each request: with its URL, and the headers of the redirect that
        led there. ``received`` hears of bytes of the body as they come.

        Raises:
            DownloadError: no answer, or one that refuses (see ``refusal``).
        """
        first_headers: Mapping[str, str] | None = None
        led_here: Mapping[str, str] = {}
        for _ in range(MAX_REDIRECTS + 1):
            if turn is not None:
                await turn(url, led_here)
            answer = await self._ask(url, limit, received)
            first_headers = answer.headers if first_headers is None else first_headers
            if not isinstance(answer, _Redirect):
                return Answer(url, answer.headers, answer.body, first_headers)
            url, led_here = answer.target, answer.headers
        raise too_many_redirects(url)

    async def _ask(
        self, url: str, limit: int, received: Callable[[int], None]
    ) -> Answer | _Redirect:
        longest = self._network.connect_timeout + self._network.stall_timeout
        with _errors(url):
            async with (
                _deadline(longest, url) as ending,
                self._session.get(
                    # A signature covers the URL as it was written.
                    yarl.URL(url, encoded=True),
                    headers=self._network.headers(url),
                    allow_redirects=False,
                    proxy=self._network.proxy_for(url),
                ) as response,
            ):
                target = next_hop(url, response.status, response.headers)
                if target is not None:
                    return _Redirect(target, response.headers)
                if response.status != 200:
                    raise refusal(response.status, response.headers, url, self._network.endpoint)
                refuse_encoding(response.headers, url)
                body = await _read(response, limit, ending, self.rate_limit, received)
                return Answer(url, response.headers, body, response.headers)


@dataclass(frozen=True, slots=True)
class _Redirect:
    target: str
    headers: Mapping[str, str]


@asynccontextmanager
async def _deadline(longest: float, url: str) -> AsyncIterator[asyncio.Timeout]:
    """So many seconds for an answer; what it brings may put the end off."""
    ending = asyncio.timeout(longest)
    try:
        async with ending:
            yield ending
    except TimeoutError as error:
        # A timeout of aiohttp's comes through here, too.
        raise too_slow(url) if ending.expired() else error from error


async def _read(
    response: aiohttp.ClientResponse,
    limit: int,
    ending: asyncio.Timeout,
    rate_limit: RateLimit | None,
    received: Callable[[int], None],
) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        received(len(chunk))
        _put_off(ending, len(chunk) / _SLOWEST)
        if len(body) > limit:
            response.close()
            break
        if rate_limit is not None:
            seconds = rate_limit.take(len(chunk))
            # Our own brake does not use up the server's time.
            _put_off(ending, seconds)
            await asyncio.sleep(seconds)
    return bytes(body[: limit + 1])


def _put_off(ending: asyncio.Timeout, seconds: float) -> None:
    when = ending.when()
    if when is not None:
        ending.reschedule(when + seconds)


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turn what aiohttp raises into our errors."""
    try:
        yield
    except TimeoutError as error:
        raise stood_still(url) from error
    except aiohttp.ClientHttpProxyError as error:
        raise proxy_refusal(error.status, url) from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise unreachable(url, error.certificate_error) from error
    except aiohttp.ClientConnectorError as error:
        by_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
        raise unreachable(url, error.os_error, by_proxy=by_proxy) from error
    except (aiohttp.ClientError, UnicodeError) as error:
        raise unreachable(url, error) from error
