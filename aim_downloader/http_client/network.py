"""How a run reaches the network: whose token, which certificates, through which proxy."""

from __future__ import annotations

import functools
import ssl
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aim_downloader._version import __version__
from aim_downloader.errors import ConfigError
from aim_downloader.http_client.rules import PROXY_HINT
from aim_downloader.snapshot import ByteRange
from aim_downloader.urls import is_usable, origin

_CONNECT_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Network:
    """How this run reaches the network. ``token`` is for the origin of ``endpoint`` alone.

    ``proxies`` are those of the environment when the run began, by scheme; times in seconds.
    """

    endpoint: str
    token: str | None = field(default=None, repr=False)
    stall_timeout: float = 120.0
    ca_bundle: str | None = None
    proxies: Mapping[str, str] = field(default_factory=urllib.request.getproxies, repr=False)

    @property
    def connect_timeout(self) -> float:
        """How long a connection may take to come about."""
        return min(_CONNECT_TIMEOUT, self.stall_timeout)

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

    def proxy_for(self, url: str) -> str | None:
        """The proxy for a URL, as HTTP(S)_PROXY, ALL_PROXY and NO_PROXY name it; None for none.

        Raises:
            ConfigError: it is of a kind that is not supported.
        """
        parts = urllib.parse.urlsplit(url)
        proxy = self.proxies.get(parts.scheme) or self.proxies.get("all")
        if not proxy or urllib.request.proxy_bypass(parts.netloc):
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        scheme, _, rest = proxy.partition("://")
        if not is_usable(f"{scheme}://{rest.rpartition('@')[2]}"):
            raise ConfigError(
                "the proxy that the environment names is not an http proxy", hint=PROXY_HINT
            )
        return proxy


@functools.lru_cache(maxsize=4)
def _ssl_context(ca_bundle: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_bundle:
        folder = Path(ca_bundle).is_dir()
        try:
            context.load_verify_locations(**{"capath" if folder else "cafile": ca_bundle})
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the CA bundle {ca_bundle} cannot be read: {error}") from error
    return context
