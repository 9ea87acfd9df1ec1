"""The client of the bulk lane: blocking requests by urllib3, for threads."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import urllib3
import urllib3.connection
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


class Call:
    """What a thread asks for, and the answers to it: another thread may hang up at any time.

    ``reusable``: whether the connections it went over may serve others afterwards.
    """

    def __init__(self) -> None:
        self.reusable = True
        self.hung_up = False
        self.line: _Line | None = None

    def hang_up(self) -> None:
        """Wake the thread where it waits for an answer or its bytes: for it the connection ended.

        One that is still connecting is let down when it has connected.
        """
        self.hung_up, self.reusable = True, False
        line = self.line
        # Another call may take the connection at any moment: what it has then is not ours to end.
        wire = line.wire if line is not None else None
        if line is not None and line.call is self:
            _shut_down(wire)


class _Line(urllib3.connection.HTTPConnection):
    """A connection that knows which call goes over it, and since there is one, its socket."""

    call: Call | None = None
    wire: object = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self.call, self.wire = _this_thread.call, None
        self.call.line = self
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        # An answer may take the socket along, so it is kept; whoever hangs up before now does not
        # see it, but is seen here.
        self.wire = self.sock
        if self.call is not None and self.call.hung_up:
            raise ConnectionAbortedError("hung up")
        return super().getresponse()

    @property
    def is_connected(self) -> bool:
        """Whether the pool may use it again; if not, it closes it and connects anew."""
        return (self.call is None or self.call.reusable) and super().is_connected


class _TlsLine(_Line, urllib3.connection.HTTPSConnection):
    """The same for HTTPS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Line


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsLine


class _ThisThread(threading.local):
    """Where a connection finds the call that this thread makes: urllib3 hands nothing through."""

    call: Call


_this_thread = _ThisThread()


def _shut_down(wire: object) -> None:
    # TLS within TLS is no socket, but has one.
    while wire is not None and not isinstance(wire, socket.socket):
        wire = getattr(wire, "socket", None)
    # Closed or broken already: nobody is inside.
    with suppress(OSError):
        if wire is not None:
            # Not a TLS socket's own method: after that its reader would get encrypted bytes.
            socket.socket.shutdown(wire, socket.SHUT_RDWR)


class BulkAnswer:
    """The answer to a request of ``BulkClient``, whose body is read block by block.

    ``url`` is the one that answered, after redirects. ``first_headers`` are those of the first
    answer: on a redirect the Hub puts there what it knows of the file.
    """

    def __init__(
        self,
        url: str,
        response: urllib3.BaseHTTPResponse,
        first_headers: Mapping[str, str],
        call: Call,
    ) -> None:
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.first_headers = first_headers
        self._response = response
        self._call = call

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes; fewer only when the body ends, or another thread hangs up.

        Raises:
            TransferInterruptedError: the connection broke, stood still or ended too early.
        """
        with _errors(self.url):
            return self._response.read(size, decode_content=False)

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else close it."""
        if self._response.length_remaining == 0 and self._call.reusable:
            self._response.release_conn()
        else:
            self._response.close()


class BulkClient:
    """Blocking requests for threads. Keeps up to ``connections`` per host for reuse."""

    def __init__(
        self, network: Network, connections: int, receive_buffer: int | None = None
    ) -> None:
        self._network = network
        self._connections = connections
        self._receive_buffer = receive_buffer
        self._pools: dict[tuple[str | None, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def get(
        self,
        url: str,
        byte_range: ByteRange | None = None,
        call: Call | None = None,
        turn: Callable[[str, Mapping[str, str]], None] | None = None,
    ) -> BulkAnswer:
        """Ask for a range of a URL, following redirects. ``call`` is for who wants to hang up.

        ``turn`` is called before each request, and may wait: with its URL, and the headers of the
        redirect that led there.

        Raises:
            DownloadError: no answer, or one that refuses (see ``refusal``).
        """
        first_headers: Mapping[str, str] | None = None
        led_here: Mapping[str, str] = {}
        call = call or Call()
        for _ in range(MAX_REDIRECTS + 1):
            if turn is not None:
                turn(url, led_here)
            response = self._request(url, byte_range, call)
            try:
                hop = self._judge(response, url)
            except DownloadError:
                _discard(response)
                raise
            first_headers = response.headers if first_headers is None else first_headers
            if hop is None:
                return BulkAnswer(url, response, first_headers, call)
            _discard(response)
            url, led_here = hop, response.headers
        raise too_many_redirects(url)

    def _judge(self, response: urllib3.BaseHTTPResponse, url: str) -> str | None:
        """Where to go on asking; None when this answer is the one."""
        hop = next_hop(url, response.status, response.headers)
        if hop is None:
            if response.status not in (200, 206):
                raise refusal(response.status, response.headers, url, self._network.endpoint)
            refuse_encoding(response.headers, url)
        return hop

    def _request(
        self, url: str, byte_range: ByteRange | None, call: Call
    ) -> urllib3.BaseHTTPResponse:
        _this_thread.call = call
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
                pool = _new_pool(proxy, tls, self._network, self._connections)
                if self._receive_buffer is not None:
                    pool.connection_pool_kw["socket_options"] = [
                        *urllib3.connection.HTTPConnection.default_socket_options,
                        (socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer),
                    ]
                self._pools[proxy, tls] = pool
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
    pool: urllib3.PoolManager
    if proxy is None:
        pool = urllib3.PoolManager(maxsize=connections, timeout=timeout, ssl_context=context)
    else:
        pool = _proxy_pool(proxy, timeout, context, connections)
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return pool


def _proxy_pool(
    proxy: str, timeout: urllib3.Timeout, context: ssl.SSLContext | None, connections: int
) -> urllib3.ProxyManager:
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
        by_proxy = isinstance(error, urllib3.exceptions.ProxyError)
        raise unreachable(url, _root(error), by_proxy=by_proxy) from error


def _root(error: BaseException) -> BaseException:
    """The plainest of chained errors: urllib3 wraps what the system said."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
