"""Secrets: the Hub's token is for the Hub alone, and a proxy's password for the proxy."""

import http.server
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import pytest

from aim_downloader.errors import AccessDeniedError, DownloadError, TransferError
from aim_downloader.events import RetryScheduled
from aim_downloader.http_client.bulk import BulkClient
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from tests.hub import HubServer, faults
from tests.integration.support import (
    MIB,
    TOKEN,
    URI,
    Command,
    Downloader,
    Files,
    assert_polite,
    assert_snapshot,
    cdn_requests,
)
from tests.proxy import Proxy

LARGE, GIT, SMALL_LFS = "model.safetensors", "config.json", "tokenizer.bin"


# --- somebody else's server -----------------------------------------------------------------------


@dataclass
class Stranger:
    """A server that is not the Hub's: it answers all with the same, and keeps what it is told."""

    host: str
    heard: list[str] = field(default_factory=list)
    """Request lines and headers."""

    def __enter__(self) -> Self:
        heard = self.heard

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.append(f"{self.requestline}\n{self.headers}")
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"[]")

            def log_message(self, *words: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer((self.host, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"{self.host}:{self._server.server_port}"


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """On a host that is neither the Hub's nor the CDN's."""
    if sys.platform != "linux":
        pytest.skip("only Linux answers on all of 127.0.0.0/8")
    with Stranger("127.0.0.3") as server:
        yield server


@pytest.fixture
def neighbour() -> Iterator[Stranger]:
    """On the Hub's own host, at another port."""
    with Stranger("127.0.0.1") as server:
        yield server


# --- redirects ------------------------------------------------------------------------------------

Trap = Callable[[str, str], str]
"""A URL from the stranger's address and the Hub's."""


def behind_a_backslash(stranger: str, hub: str) -> str:
    """Some read the Hub's host here, and some the stranger's."""
    return f"http://{stranger}\\@{hub}/x"


def backslashes_for_slashes(stranger: str, hub: str) -> str:
    return f"http:\\\\{stranger}\\x"


def with_the_hub_as_user(stranger: str, hub: str) -> str:
    return f"http://{hub.partition(':')[0]}@{stranger}/x"


def with_the_hub_as_user_and_password(stranger: str, hub: str) -> str:
    return f"http://{hub}@{stranger}/x"


def with_the_stranger_as_user(stranger: str, hub: str) -> str:
    return f"http://{stranger}@{hub}/x"


def without_a_scheme(stranger: str, hub: str) -> str:
    return f"//{hub}@{stranger}/x"


REFUSED: list[Trap] = [
    behind_a_backslash,
    backslashes_for_slashes,
    with_the_hub_as_user,
    with_the_hub_as_user_and_password,
    with_the_stranger_as_user,
    without_a_scheme,
]


@dataclass(frozen=True)
class Place:
    """Where a redirect comes from: the fault's arguments, and the exit code that follows."""

    name: str
    where: Any
    path: str
    code: int


PLACES = [
    Place("the revision", "api", "/revision/", 75),
    Place("the listing", "api", "/tree/", 75),
    Place("a small file", "hub", GIT, 69),
    Place("a large file", "hub", LARGE, 69),
    Place("the CDN", "cdn", LARGE, 69),
    Place("the CDN, small", "cdn", SMALL_LFS, 69),
]


@pytest.mark.parametrize("trap", REFUSED, ids=lambda trap: trap.__name__)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_a_redirect_to_an_odd_url_is_refused(
    hub: HubServer,
    stranger: Stranger,
    downloader: Downloader,
    target: Path,
    place: Place,
    trap: Trap,
) -> None:
    location = trap(stranger.address, urlsplit(hub.endpoint).netloc)
    hub.fault(faults.Redirect(location), where=place.where, path=place.path, times=None)
    with pytest.raises(DownloadError, match="which is not followed") as caught:
        await downloader(target)
    assert caught.value.exit_code == place.code
    assert stranger.heard == []
    assert_polite(hub.log)
    # Asked again it would be the same.
    assert not [told for told in downloader.told(RetryScheduled) if "not followed" in told.reason]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
@pytest.mark.parametrize("who", ["stranger", "neighbour"])
def test_a_redirect_elsewhere_is_followed_without_the_token(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    place: Place,
    who: str,
    request: pytest.FixtureRequest,
) -> None:
    server: Stranger = request.getfixturevalue(who)
    location = f"http://{server.address}/x"
    hub.fault(faults.Redirect(location), where=place.where, path=place.path, times=1)
    # What comes from there is wrong; then the Hub is asked again, or the run ends.
    try:
        downloader.run(target)
    except DownloadError:
        assert place.where == "api"
    assert len(server.heard) == 1
    assert "authorization" not in server.heard[0].lower()
    assert TOKEN not in server.heard[0]
    assert_polite(hub.log)


async def test_a_listing_that_goes_on_at_another_host_is_refused(
    hub: HubServer, stranger: Stranger, neighbour: Stranger, downloader: Downloader, tmp_path: Path
) -> None:
    for number, address in enumerate((stranger.address, neighbour.address)):
        link = {"Link": f'<http://{address}/api/models/org/model/tree/main>; rel="next"'}
        hub.fault(faults.Headers(link), where="api", path="/tree/")
        with pytest.raises(DownloadError, match="another host") as caught:
            await downloader(tmp_path / str(number))
        assert caught.value.exit_code == 75
    assert stranger.heard == neighbour.heard == []


@pytest.mark.parametrize("trap", REFUSED, ids=lambda trap: trap.__name__)
async def test_a_listing_that_goes_on_at_an_odd_url_is_refused(
    hub: HubServer, stranger: Stranger, downloader: Downloader, target: Path, trap: Trap
) -> None:
    url = trap(stranger.address, urlsplit(hub.endpoint).netloc)
    link = {"Link": f'<{url}>; rel="next"'}
    hub.fault(faults.Headers(link), where="api", path="/tree/")
    with pytest.raises(DownloadError, match="what is no URL"):
        await downloader(target)
    assert stranger.heard == []
    assert_polite(hub.log)


# --- settings -------------------------------------------------------------------------------------

PASSWORD = "s3cr3t-of-somebody"


def assert_one_clear_message(said: str) -> None:
    lines = [line for line in said.splitlines() if line]
    assert len(lines) <= 2, said
    assert lines[0].startswith("error: "), said
    assert PASSWORD not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "token",
    [
        f"hf_{PASSWORD}\nX-Injected: yes",
        f"hf_{PASSWORD}\r\n\r\nGET / HTTP/1.1",
        f"hf_{PASSWORD}\tand more",
        f"hf_{PASSWORD}ü",
    ],
    ids=ascii,
)
def test_a_token_that_is_none_ends_the_command(
    hub: HubServer, command: Command, target: Path, token: str
) -> None:
    done = command.run(URI, target, HF_TOKEN=token)
    assert done.code == 2, done.said
    assert_one_clear_message(done.stderr)
    assert "token" in done.stderr
    assert hub.log == []
    assert not target.exists()


@pytest.mark.parametrize(
    "endpoint",
    [
        f"http://me:{PASSWORD}@hub.test",
        f"http://{PASSWORD}@hub.test",
        "http://hub.test:99999",
        "http://hub.test:port",
        "http://[::1",
        "http://[0]",
        "http://hub.test\\@evil.test",
        "hub.test",
        "http://hub test",
    ],
)
def test_an_endpoint_that_is_none_ends_the_command(
    command: Command, target: Path, endpoint: str
) -> None:
    done = command.run(URI, target, HF_ENDPOINT=endpoint, HF_TOKEN=TOKEN)
    assert done.code == 2, done.said
    assert_one_clear_message(done.stderr)
    assert "endpoint" in done.stderr
    assert not target.exists()


def test_the_libraries_log_no_signature(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    files: Files,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.fault(faults.Reset(), path=LARGE, at=5 * MIB)
    hub.fault(faults.Reset(), path=SMALL_LFS)
    downloader.run(target)
    assert_snapshot(target, files)
    assert cdn_requests(hub.log, LARGE)
    assert not re.search(rf"Signature|Key-Pair-Id|Expires=|{TOKEN}", caplog.text)


# --- proxies --------------------------------------------------------------------------------------


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def strict_proxy() -> Iterator[Proxy]:
    with Proxy(user="me", password=f"{PASSWORD}:@/") as proxy:
        yield proxy


def with_password(proxy: Proxy) -> str:
    password = quote(f"{PASSWORD}:@/", safe="")
    return f"http://me:{password}@{proxy.address}"


def assert_all_went_through(proxy: Proxy, hub: HubServer) -> None:
    """The Hub saw nothing that the proxy did not."""
    log = hub.log
    assert len(proxy.requests) == len(log)
    for request in proxy.requests:
        assert request.target.startswith((hub.endpoint, hub.cdn))
        to_hub = request.target.startswith(f"{hub.endpoint}/")
        assert ("authorization" in request.headers) == to_hub
    assert not [record for record in log if "Proxy-Authorization" in record.headers]
    assert_polite(log)


def test_large_and_small_files_come_through_a_proxy_with_a_password(
    hub: HubServer, strict_proxy: Proxy, command: Command, target: Path, files: Files
) -> None:
    done = command.run(
        URI, target, "--json", HTTP_PROXY=with_password(strict_proxy), HF_TOKEN=TOKEN
    )
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert_all_went_through(strict_proxy, hub)
    assert strict_proxy.asked_for(hub.cdn)
    assert PASSWORD not in done.said


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_by_any_name(
    hub: HubServer, proxy: Proxy, command: Command, target: Path, files: Files, name: str
) -> None:
    command.environment[name] = proxy.url
    done = command.run(URI, target, HF_TOKEN=TOKEN)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert_all_went_through(proxy, hub)


def test_a_proxy_without_a_scheme(
    hub: HubServer, proxy: Proxy, command: Command, target: Path, files: Files
) -> None:
    done = command.run(URI, target, HTTP_PROXY=proxy.address, HF_TOKEN=TOKEN)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert_all_went_through(proxy, hub)


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("proxy_name", ["HTTP_PROXY", "ALL_PROXY"])
def test_no_request_goes_to_the_proxy_for_hosts_without_one(
    hub: HubServer,
    proxy: Proxy,
    command: Command,
    target: Path,
    files: Files,
    name: str,
    proxy_name: str,
) -> None:
    hosts = f"example.test, {urlsplit(hub.endpoint).hostname}, {hub.cdn_host}"
    command.environment |= {proxy_name: proxy.url, name: hosts}
    done = command.run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert proxy.requests == []


def test_the_cdn_alone_may_be_without_a_proxy(
    hub: HubServer, proxy: Proxy, command: Command, target: Path, files: Files
) -> None:
    if hub.cdn_host == urlsplit(hub.endpoint).hostname:
        pytest.skip("Hub and CDN are one host here")
    done = command.run(URI, target, HTTP_PROXY=proxy.url, NO_PROXY=hub.cdn_host)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert proxy.asked_for(hub.endpoint)
    assert not proxy.asked_for(hub.cdn)


@pytest.mark.parametrize("endpoint", ["https://hub.test", None], ids=["tunnel", "plain"])
def test_a_proxy_that_asks_for_a_password_ends_the_command_at_once(
    strict_proxy: Proxy, command: Command, target: Path, endpoint: str | None
) -> None:
    command.environment |= {"HTTP_PROXY": strict_proxy.url, "HTTPS_PROXY": strict_proxy.url}
    if endpoint:
        command.environment["HF_ENDPOINT"] = endpoint
    done = command.run(URI, target, HF_TOKEN=TOKEN)
    assert done.code == 75, done.said
    assert "the proxy asks for a password" in done.stderr
    assert "hint: write it as http://host:port in HTTPS_PROXY, with user:password@" in done.stderr
    assert len(strict_proxy.requests) == 1


def test_a_proxy_that_refuses_the_way_is_not_told_as_the_hub(
    proxy: Proxy, command: Command, target: Path
) -> None:
    proxy.refuse = 403
    running = command.start(
        URI, target, HTTPS_PROXY=proxy.url, HF_ENDPOINT="https://hub.test", HF_TOKEN=TOKEN
    )
    running.wait_for_words("the proxy refuses the way to https://hub.test")
    running.kill()
    assert {request.method for request in proxy.requests} == {"CONNECT"}
    assert not [request for request in proxy.requests if "authorization" in request.headers]


URL = "https://hub.test/x?Signature=secret"


async def ask_whole(network: Network) -> None:
    async with AsyncClient(network, 1) as client:
        await client.get(URL, 10)


async def ask_in_bulk(network: Network) -> None:
    client = BulkClient(network, 1)
    try:
        client.get(URL).close()
    finally:
        client.close()


@pytest.mark.parametrize("ask", [ask_whole, ask_in_bulk], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("status", [401, 403, 404, 407, 429, 502])
async def test_what_a_proxy_refuses_is_told_alike(
    proxy: Proxy, ask: Callable[[Network], Any], status: int
) -> None:
    proxy.refuse = status
    network = Network("https://hub.test", TOKEN, 2.0, proxies={"https": proxy.url})
    with pytest.raises(TransferError, match=rf"the proxy .*answered {status}") as caught:
        await ask(network)
    error = caught.value
    assert not isinstance(error, AccessDeniedError)
    assert error.exit_code != 77
    assert error.retryable == (status != 407)
    assert error.hint
    assert "secret" not in str(error)
    assert ("user:password@" in error.hint) == (status == 407)


@pytest.mark.parametrize("ask", [ask_whole, ask_in_bulk], ids=lambda ask: ask.__name__)
async def test_a_proxy_that_is_not_there_is_told_without_its_password(
    ask: Callable[[Network], Any],
) -> None:
    # Port 9 (discard) of this host: nobody listens.
    proxies = {"https": f"http://me:{PASSWORD}@127.0.0.1:9"}
    with pytest.raises(TransferError) as caught:
        await ask(Network("https://hub.test", TOKEN, 2.0, proxies=proxies))
    assert caught.value.retryable
    assert PASSWORD not in str(caught.value) + caught.value.hint
    assert "secret" not in str(caught.value)
