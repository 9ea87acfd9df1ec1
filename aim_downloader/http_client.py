"""The one place that knows HTTP libraries: two clients, and one set of rules for both.

``BulkClient`` (urllib3, blocking, for threads) moves the bytes of large files, ``AsyncClient``
(aiohttp) asks the Hub's API and fetches small files. Tokens, redirects, proxies, certificates and
the meaning of a status are decided here, once.
"""

from __future__ import annotations

import email.utils
import functools
import re
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp
import urllib3
import urllib3.exceptions
import yarl

from aim_downloader._version import __version__
from aim_downloader.errors import (
    AccessDeniedError,
    ConfigError,
    DownloadError,
    RangeNotHonouredError,
    SnapshotNotFoundError,
    ThrottledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.snapshot import ByteRange

_MAX_REDIRECTS = 8
_CONNECT_TIMEOUT = 20.0
_REDIRECTS = {301, 302, 303, 307, 308}
_CERTIFICATE_HINT = "name your CA bundle in SSL_CERT_FILE (or REQUESTS_CA_BUNDLE)"


@dataclass(frozen=True, slots=True)
class Network:
    """How this run reaches the network. ``token`` is for the origin of ``endpoint`` alone."""

    endpoint: str
    token: str | None = field(default=None, repr=False)
    stall_timeout: float = 120.0
    ca_bundle: str | None = None

    def headers(self, url: str, byte_range: ByteRange | None = None) -> dict[str, str]:
        """The request's headers; the token only where it belongs."""
        headers = {
            "User-Agent": f"aim-downloader/{__version__}",
            # A compressed body has neither the listed size nor usable ranges.
            "Accept-Encoding": "identity",
        }
        if byte_range is not None:
            headers["Range"] = byte_range.header
        if self.token and origin(url) == origin(self.endpoint):
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def ssl_context(self) -> ssl.SSLContext:
        """The system's certificates (SSL_CERT_FILE, SSL_CERT_DIR), and ``ca_bundle`` besides.

        Raises:
            ConfigError: the bundle cannot be read.
        """
        return _ssl_context(self.ca_bundle)


@functools.lru_cache(maxsize=4)
def _ssl_context(ca_bundle: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_bundle:
        try:
            context.load_verify_locations(cafile=ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the CA bundle {ca_bundle} cannot be read: {error}") from error
    return context


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL: the bounds of a token."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def redacted(url: str) -> str:
    """The URL as it may be shown: query strings are signatures, user parts are passwords."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL (HTTP(S)_PROXY, ALL_PROXY, NO_PROXY).

    Raises:
        ConfigError: it is of a kind that is not supported.
    """
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise ConfigError(
            f"the proxy {redacted(proxy)} is not an http proxy", hint="name one in HTTPS_PROXY"
        )
    return proxy


def next_hop(url: str, status: int, headers: Mapping[str, str]) -> str | None:
    """Where a redirect leads, or None when the answer is none.

    Raises:
        TransferError: it leads where no request may go.
    """
    if status not in _REDIRECTS:
        return None
    target = resolved(url, headers.get("Location", ""))
    if target is None or (url.startswith("https://") and target.startswith("http://")):
        shown = redacted(target) if target else "what is no http(s) URL"
        raise TransferError(
            f"{redacted(url)} redirects to {shown}, which is not followed",
            hint="check the endpoint (HF_ENDPOINT) and what stands between it and you",
        )
    return target


def resolved(url: str, reference: str) -> str | None:
    """Where a reference in an answer from ``url`` leads; None when it is no http(s) URL."""
    try:
        target = urllib.parse.urljoin(url, reference)
        scheme, host, _ = origin(target)
    except ValueError:
        return None
    return target if reference and host and scheme in ("http", "https") else None


def too_many_redirects(url: str) -> TransferError:
    """The error for a chain of redirects without an end."""
    return TransferError(f"{redacted(url)} redirects more than {_MAX_REDIRECTS} times")


def refusal(status: int, headers: Mapping[str, str], url: str, endpoint: str) -> DownloadError:
    """What an answer other than 200 and 206 means.

    The Hub puts the case into X-Error-Code and words into X-Error-Message. Another host than the
    Hub's was reached by a signed URL: a refusal there says that it is used up, not who may read.
    """
    words = _printable(headers.get("X-Error-Message", ""))
    said = f"{redacted(url)} answered {status}" + (f" ({words})" if words else "")
    if status in (429, 503):
        return ThrottledError(f"{said}: too busy", retry_after=patience(headers))
    if status in (408, 425) or status >= 500:
        return TransferInterruptedError(said)
    if status == 407:
        return TransferError(f"the proxy asks for a password: {said}", hint=_PROXY_HINT)
    if status == 416:
        return RangeNotHonouredError(f"{said}: it says that it has no such range")
    if origin(url) != origin(endpoint):
        return TransferInterruptedError(f"{said}: the link to it may have expired")
    return _hub_refusal(status, headers.get("X-Error-Code", ""), said)


def _hub_refusal(status: int, code: str, said: str) -> DownloadError:
    if code == "GatedRepo":
        return AccessDeniedError(
            f"access to this model is gated: {said}",
            hint="ask for access on the model's page, then set HF_TOKEN or --token-file",
        )
    if status in (401, 403):
        case = "the repository does not exist, or is private" if code else "access denied"
        return AccessDeniedError(
            f"{case}: {said}",
            hint="check the name; for a private model set HF_TOKEN, or name --token-file",
        )
    if status in (404, 410):
        case = {
            "RepoNotFound": "the repository does not exist (or the token may not see it)",
            "RevisionNotFound": "the revision does not exist",
            "EntryNotFound": "the file does not exist",
        }.get(code, "not found")
        return SnapshotNotFoundError(f"{case}: {said}", hint="check the name and the revision")
    return TransferError(said)


_PROXY_HINT = "write it as http://user:password@host:port in HTTPS_PROXY"


def patience(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait as the server asks: ``Retry-After`` (RFC 9110) or the Hub's ``RateLimit``."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    if value:
        try:
            when = email.utils.parsedate_to_datetime(value).timestamp()
        except ValueError:
            return None
        return max(0.0, when - (time.time() if now is None else now))
    spent = re.search(r"\br=0\b", headers.get("RateLimit", ""))
    reset = re.search(r"\bt=([0-9]{1,9})\b", headers.get("RateLimit", ""))
    return float(reset[1]) if spent and reset else None


def refuse_encoding(headers: Mapping[str, str], url: str) -> None:
    """Refuse a compressed body: it has neither the listed size nor usable ranges.

    Raises:
        TransferInterruptedError: the body is compressed although ``identity`` was asked for.
    """
    encoding = headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise TransferInterruptedError(
            f"{redacted(url)} sent a body compressed by {_printable(encoding)}, unasked",
            hint="a proxy on the way may compress: name it in NO_PROXY, or use another",
        )


def _printable(text: str) -> str:
    """A server's words, without what could steer a terminal or fill it."""
    return "".join(char for char in text if char.isprintable())[:300]


class BulkAnswer:
    """The answer to a request of ``BulkClient``, whose body is read block by block.

    ``url`` is the one that answered, after redirects. ``first_headers`` are those of the first
    answer: on a redirect the Hub puts there what it knows of the file.
    """

    def __init__(
        self, url: str, response: urllib3.BaseHTTPResponse, first_headers: Mapping[str, str]
    ) -> None:
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.first_headers = first_headers
        self._response = response

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes; fewer only when the body ends, or is shut down by another thread.

        Raises:
            TransferInterruptedError: the connection broke, stood still or ended too early.
        """
        with _bulk_errors(self.url):
            return self._response.read(size, decode_content=False)

    def shutdown(self) -> None:
        """Wake a thread that is inside ``read``: it gets a short read and no exception."""
        try:
            self._response.shutdown()
        except (RuntimeError, ValueError, OSError):
            # Read to its end, closed or broken: nobody is inside.
            return

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else close it."""
        if self._response.length_remaining == 0:
            self._response.release_conn()
        else:
            self._response.close()


class BulkClient:
    """Blocking requests for threads. Keeps up to ``connections`` per host for reuse."""

    def __init__(self, network: Network, connections: int) -> None:
        self._network = network
        self._connections = connections
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def get(self, url: str, byte_range: ByteRange | None = None) -> BulkAnswer:
        """Ask for a range of a URL, following redirects.

        Raises:
            DownloadError: no answer, or one that refuses (see ``refusal``).
        """
        first_headers: Mapping[str, str] | None = None
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._request(url, byte_range)
            if first_headers is None:
                first_headers = response.headers
            try:
                hop = next_hop(url, response.status, response.headers)
            except TransferError:
                response.close()
                raise
            if hop is None:
                break
            _discard(response)
            url = hop
        else:
            raise too_many_redirects(url)
        if response.status not in (200, 206):
            _discard(response)
            raise refusal(response.status, response.headers, url, self._network.endpoint)
        try:
            refuse_encoding(response.headers, url)
        except TransferInterruptedError:
            response.close()
            raise
        return BulkAnswer(url, response, first_headers)

    def _request(self, url: str, byte_range: ByteRange | None) -> urllib3.BaseHTTPResponse:
        with _bulk_errors(url):
            return self._pool(proxy_for(url)).urlopen(
                "GET",
                url,
                headers=self._network.headers(url, byte_range),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )

    def _pool(self, proxy: str | None) -> urllib3.PoolManager:
        if proxy not in self._pools:
            timeout = urllib3.Timeout(
                connect=min(_CONNECT_TIMEOUT, self._network.stall_timeout),
                read=self._network.stall_timeout,
            )
            self._pools[proxy] = _new_pool(proxy, self._network, self._connections, timeout)
        return self._pools[proxy]

    def close(self) -> None:
        """Close the connections that are kept for reuse."""
        for pool in self._pools.values():
            pool.clear()


def _new_pool(
    proxy: str | None, network: Network, connections: int, timeout: urllib3.Timeout
) -> urllib3.PoolManager:
    context = network.ssl_context()
    if proxy is None:
        return urllib3.PoolManager(maxsize=connections, timeout=timeout, ssl_context=context)
    auth = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=urllib.parse.unquote(auth)) if auth else None
    return urllib3.ProxyManager(
        proxy,
        proxy_headers=headers,
        maxsize=connections,
        timeout=timeout,
        ssl_context=context,
        proxy_ssl_context=context,
    )


def _discard(response: urllib3.BaseHTTPResponse) -> None:
    """Be done with an answer whose body nobody wants, keeping the connection if that is cheap."""
    if (response.length_remaining or 0) <= 64 * 1024 and response.headers.get("Content-Length"):
        response.drain_conn()
        response.release_conn()
    else:
        response.close()


@contextmanager
def _bulk_errors(url: str) -> Iterator[None]:
    """Turn what urllib3 raises into our errors."""
    try:
        yield
    except urllib3.exceptions.ReadTimeoutError as error:
        raise TransferInterruptedError(f"{redacted(url)} stood still: no byte came") from error
    except urllib3.exceptions.HTTPError as error:
        raise _unreachable(url, _root(error)) from error


def _root(error: BaseException) -> BaseException:
    """The plainest of chained errors: urllib3's own name whole URLs, which may be signed."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _unreachable(url: str, reason: BaseException) -> DownloadError:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return TransferError(
            f"the certificate of {redacted(url)} is not trusted: {reason.verify_message}",
            hint=_CERTIFICATE_HINT,
        )
    words = (isinstance(reason, OSError) and reason.strerror) or type(reason).__name__
    if "407" in str(reason):
        return TransferError(f"the proxy asks for a password for {redacted(url)}", hint=_PROXY_HINT)
    return TransferInterruptedError(
        f"the connection to {redacted(url)} failed: {words}",
        hint="check the network, the endpoint and the proxy settings",
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of ``AsyncClient``. ``url`` is the one that answered, after redirects."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    first_headers: Mapping[str, str]


class AsyncClient:
    """Requests of the event loop, whose answers are small and read whole."""

    def __init__(self, network: Network, connections: int) -> None:
        self._network = network
        self._endpoint = network.endpoint
        self._connections = connections

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, ssl=self._network.ssl_context()
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=min(_CONNECT_TIMEOUT, self._network.stall_timeout),
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
        for _ in range(_MAX_REDIRECTS + 1):
            with _async_errors(url):
                async with self._session.get(
                    # A signature covers the URL as it was written.
                    yarl.URL(url, encoded=True),
                    headers=self._network.headers(url),
                    allow_redirects=False,
                    proxy=proxy_for(url),
                ) as response:
                    first_headers = response.headers if first_headers is None else first_headers
                    hop = next_hop(url, response.status, response.headers)
                    if hop is None:
                        if response.status != 200:
                            raise refusal(response.status, response.headers, url, self._endpoint)
                        refuse_encoding(response.headers, url)
                        body = await _read(response, limit)
                        return Answer(url, response.headers, body, first_headers)
            url = hop
        raise too_many_redirects(url)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            response.close()
            break
    return bytes(body[: limit + 1])


@contextmanager
def _async_errors(url: str) -> Iterator[None]:
    """Turn what aiohttp raises into our errors."""
    try:
        yield
    except TimeoutError as error:
        raise TransferInterruptedError(f"{redacted(url)} stood still: no byte came") from error
    except aiohttp.ClientHttpProxyError as error:
        raise refusal(error.status, error.headers or {}, url, url) from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise _unreachable(url, error.certificate_error) from error
    except aiohttp.ClientConnectorError as error:
        raise _unreachable(url, error.os_error) from error
    except aiohttp.ClientError as error:
        raise _unreachable(url, error) from error
