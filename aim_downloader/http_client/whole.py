"""The client of the event loop: answers that are small and read whole, by aiohttp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    unreachable,
)


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
    """Requests of the event loop, up to ``connections`` at once."""

    def __init__(self, network: Network, connections: int) -> None:
        self._network = network
        self._connections = connections

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

    async def get(self, url: str, limit: int) -> Answer:
        """Fetch a URL whole, following redirects; a body is cut off behind ``limit + 1`` bytes.

        Raises:
            DownloadError: no answer, or one that refuses (see ``refusal``).
        """
        first_headers: Mapping[str, str] | None = None
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._ask(url, limit)
            first_headers = answer.headers if first_headers is None else first_headers
            if not isinstance(answer, _Redirect):
                return Answer(url, answer.headers, answer.body, first_headers)
            url = answer.target
        raise too_many_redirects(url)

    async def _ask(self, url: str, limit: int) -> Answer | _Redirect:
        with _errors(url):
            async with self._session.get(
                # A signature covers the URL as it was written.
                yarl.URL(url, encoded=True),
                headers=self._network.headers(url),
                allow_redirects=False,
                proxy=self._network.proxy_for(url),
            ) as response:
                target = next_hop(url, response.status, response.headers)
                if target is not None:
                    return _Redirect(target, response.headers)
                if response.status != 200:
                    raise refusal(response.status, response.headers, url, self._network.endpoint)
                refuse_encoding(response.headers, url)
                body = await _read(response, limit)
                return Answer(url, response.headers, body, response.headers)


@dataclass(frozen=True, slots=True)
class _Redirect:
    target: str
    headers: Mapping[str, str]


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            response.close()
            break
    return bytes(body[: limit + 1])


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
        raise unreachable(url, error.os_error) from error
    except (aiohttp.ClientError, UnicodeError) as error:
        raise unreachable(url, error) from error
