"""The client of the bulk lane: blocking requests by urllib3, for threads."""

from __future__ import annotations

import logging
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import urllib3
import urllib3.exceptions

from aim_downloader.errors import DownloadError
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.rules import (
    MAX_REDIRECTS,
    next_hop,
    refusal,
    refuse_encoding,
    stood_still,
    too_many_redirects,
    unreachable,
)
from aim_downloader.snapshot import ByteRange
from aim_downloader.urls import origin

# urllib3 logs whole URLs at this level, and a signed one is a secret.
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: record.levelno > logging.DEBUG)


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
        with _errors(self.url):
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
        self._pools: dict[tuple[str | None, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def get(self, url: str, byte_range: ByteRange | None = None) -> BulkAnswer:
        """Ask for a range of a URL, following redirects.

        Raises:
            DownloadError: no answer, or one that refuses (see ``refusal``).
        """
        first_headers: Mapping[str, str] | None = None
        for _ in range(MAX_REDIRECTS + 1):
            response = self._request(url, byte_range)
            try:
                hop = self._judge(response, url)
            except DownloadError:
                _discard(response)
                raise
            first_headers = response.headers if first_headers is None else first_headers
            if hop is None:
                return BulkAnswer(url, response, first_headers)
            _discard(response)
            url = hop
        raise too_many_redirects(url)

    def _judge(self, response: urllib3.BaseHTTPResponse, url: str) -> str | None:
        """Where to go on asking; None when this answer is the one."""
        hop = next_hop(url, response.status, response.headers)
        if hop is None:
            if response.status not in (200, 206):
                raise refusal(response.status, response.headers, url, self._network.endpoint)
            refuse_encoding(response.headers, url)
        return hop

    def _request(self, url: str, byte_range: ByteRange | None) -> urllib3.BaseHTTPResponse:
        with _errors(url):
            return self._pool(url).urlopen(
                "GET",
                url,
                headers=self._network.headers(url, byte_range),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = self._network.proxy_for(url)
        # Reading the certificates takes a while: only where they are needed.
        tls = origin(url)[0] == "https" or (proxy or "").startswith("https:")
        with self._lock:
            if (proxy, tls) not in self._pools:
                self._pools[proxy, tls] = _new_pool(proxy, tls, self._network, self._connections)
            return self._pools[proxy, tls]

    def close(self) -> None:
        """Close the connections that are kept for reuse."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()


def _new_pool(
    proxy: str | None, tls: bool, network: Network, connections: int
) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=network.connect_timeout, read=network.stall_timeout)
    context = network.ssl_context() if tls else None
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
def _errors(url: str) -> Iterator[None]:
    """Turn what urllib3 raises into our errors."""
    try:
        yield
    except urllib3.exceptions.ReadTimeoutError as error:
        raise stood_still(url) from error
    except (urllib3.exceptions.HTTPError, UnicodeError) as error:
        raise unreachable(url, _root(error)) from error


def _root(error: BaseException) -> BaseException:
    """The plainest of chained errors: urllib3 wraps what the system said."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
