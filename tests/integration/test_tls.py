"""A Hub behind TLS whose certificate a private authority has signed, as inside companies."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from aim_downloader.errors import TransferError, TransferInterruptedError
from aim_downloader.events import RetryScheduled
from aim_downloader.http_client.bulk import BulkClient
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from tests.hub import HubServer, faults
from tests.integration.support import (
    TOKEN,
    Command,
    Downloader,
    Files,
    assert_snapshot,
    content_requests,
)
from tests.proxy import LoopThread, Proxy, ending, join

PLAIN = "hf://org/plain"
LARGE, GIT = "model.safetensors", "config.json"


# --- certificates ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A private authority, and a server's certificate that it has signed."""

    bundle: Path
    folder: Path
    """The same certificate, under the name by which OpenSSL looks for it."""
    certificate: Path
    key: Path


_OF_SERVER = """
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1
"""


def make_authority(folder: Path) -> Authority:
    def openssl(*words: str) -> str:
        command = ["openssl", *words]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"),
        *("-subj", "/CN=Authority of the tests", "-addext", "keyUsage = critical, keyCertSign"),
    )
    openssl("req", "-new", *key, "-keyout", "hub.key", "-out", "hub.csr", "-subj", "/CN=hub")
    (folder / "hub.ext").write_text(_OF_SERVER)
    openssl(
        *("x509", "-req", "-in", "hub.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-extfile", "hub.ext", "-out", "hub.pem", "-days", "2"),
    )
    hashed = folder / "hashed"
    hashed.mkdir()
    (hashed / f"{openssl('x509', '-hash', '-noout', '-in', 'ca.pem')}.0").write_bytes(
        (folder / "ca.pem").read_bytes()
    )
    return Authority(folder / "ca.pem", hashed, folder / "hub.pem", folder / "hub.key")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def another_authority(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Authority:
    return make_authority(tmp_path_factory.mktemp("another-authority"))


# --- a Hub behind TLS -----------------------------------------------------------------------------


class TlsFront:
    """Ends TLS, and passes what is inside on to a plain server."""

    def __init__(self, plain: str, authority: Authority) -> None:
        self._plain = urlsplit(plain)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(authority.certificate, authority.key)
        self._context.sni_callback = self._count
        self._loop = LoopThread()
        self.handshakes = 0
        """How often a client has begun to talk."""

    def _count(self, *_: object) -> None:
        self.handshakes += 1

    def __enter__(self) -> Self:
        self._loop.begin()
        self._server = self._loop.call(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.end(self._server)

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async with ending(writer):
                there = await asyncio.open_connection(self._plain.hostname, self._plain.port)
                await join((reader, writer), there)


@pytest.fixture
def front(hub: HubServer, files: Files, authority: Authority) -> Iterator[TlsFront]:
    # Without LFS the Hub itself sends all files, and nothing leads to the CDN, which is plain.
    hub.add_repo("org/plain", files, lfs=lambda _: False)
    with TlsFront(hub.endpoint, authority) as front:
        yield front


@pytest.fixture
def command(command: Command, front: TlsFront) -> Command:
    command.environment |= {"HF_ENDPOINT": front.endpoint, "HF_TOKEN": TOKEN}
    return command


# --- trusted --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("SSL_CERT_FILE", False),
        ("SSL_CERT_DIR", True),
        ("REQUESTS_CA_BUNDLE", False),
        ("REQUESTS_CA_BUNDLE", True),
        ("CURL_CA_BUNDLE", False),
    ],
)
def test_a_private_authority_is_trusted_that_is_named(
    hub: HubServer,
    command: Command,
    authority: Authority,
    target: Path,
    files: Files,
    variable: str,
    folder: bool,
) -> None:
    command.environment[variable] = str(authority.folder if folder else authority.bundle)
    done = command.run(PLAIN, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert {record.where for record in hub.log} == {"api", "hub"}
    assert {record.file for record in content_requests(hub.log)} == set(files)


@pytest.mark.parametrize(
    ("variable", "folder"),
    [("SSL_CERT_FILE", False), ("REQUESTS_CA_BUNDLE", False), ("REQUESTS_CA_BUNDLE", True)],
)
def test_an_engine_trusts_it_too(
    hub: HubServer,
    command: Command,
    authority: Authority,
    target: Path,
    files: Files,
    variable: str,
    folder: bool,
) -> None:
    command.environment |= {
        variable: str(authority.folder if folder else authority.bundle),
        "AIM_DOWNLOADER_PROTOCOL": "HF_TRANSFER",
    }
    done = command.run(PLAIN, target, "--json")
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    # Nobody has stepped in for it.
    assert "retry.scheduled" not in done.stdout
    asked = [record.range for record in content_requests(hub.log, LARGE)]
    assert asked[:2] == ["bytes=0-0"] * 2


def test_through_the_tunnel_of_a_proxy(
    front: TlsFront, command: Command, authority: Authority, target: Path, files: Files
) -> None:
    with Proxy(user="me", password="a password") as proxy:
        command.environment |= {
            "HTTPS_PROXY": f"http://me:a%20password@{proxy.address}",
            "SSL_CERT_FILE": str(authority.bundle),
        }
        done = command.run(PLAIN, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert {(one.method, one.target) for one in proxy.requests} == {
        ("CONNECT", f"127.0.0.1:{front.port}")
    }
    # All that is secret stays inside.
    assert not [one for one in proxy.requests if "authorization" in one.headers]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_named(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
    url = f"{scheme}://hub.test/x"
    network = Network(url, proxies={scheme: proxy})
    with pytest.raises(TransferInterruptedError, match="the proxy on the way to") as bulk:
        BulkClient(network, 1).get(url)
    async with AsyncClient(network, 1) as client:
        with pytest.raises(TransferInterruptedError, match="the proxy on the way to") as whole:
            await client.get(url, 10)
    assert str(bulk.value) == str(whole.value)
    assert "NO_PROXY" in bulk.value.hint


# --- not trusted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["nothing", "another authority"])
def test_a_certificate_that_is_not_trusted_ends_the_command_at_once(
    hub: HubServer,
    front: TlsFront,
    command: Command,
    another_authority: Authority,
    target: Path,
    named: str,
) -> None:
    if named == "another authority":
        command.environment["REQUESTS_CA_BUNDLE"] = str(another_authority.bundle)
    done = command.run(PLAIN, target)
    assert done.code == 75, done.said
    assert done.fair_seconds < 3
    assert "is not trusted" in done.stderr
    assert "hint: name your CA bundle in SSL_CERT_FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Retry" not in done.stderr
    assert front.handshakes == 1
    assert hub.log == []


def test_a_certificate_of_another_host_is_not_trusted(
    hub: HubServer, front: TlsFront, command: Command, authority: Authority, target: Path
) -> None:
    done = command.run(
        PLAIN,
        target,
        HF_ENDPOINT=f"https://localhost:{front.port}",
        SSL_CERT_FILE=str(authority.bundle),
    )
    assert done.code == 75, done.said
    assert "is not trusted" in done.stderr
    assert hub.log == []


async def ask_whole(network: Network) -> None:
    async with AsyncClient(network, 1) as client:
        await client.get(f"{network.endpoint}/x?Signature=secret", 10)


async def ask_in_bulk(network: Network) -> None:
    client = BulkClient(network, 1)
    try:
        client.get(f"{network.endpoint}/x?Signature=secret").close()
    finally:
        client.close()


@pytest.mark.parametrize("ask", [ask_whole, ask_in_bulk], ids=lambda ask: ask.__name__)
async def test_both_clients_tell_it_alike(front: TlsFront, ask: Callable[[Network], Any]) -> None:
    with pytest.raises(TransferError, match="is not trusted") as caught:
        await ask(Network(front.endpoint, TOKEN, 5.0))
    assert not caught.value.retryable
    assert "SSL_CERT_FILE" in caught.value.hint
    assert "secret" not in str(caught.value)
    assert front.handshakes == 1


# --- back to plain text ---------------------------------------------------------------------------


async def test_from_https_no_redirect_leads_to_http(
    hub: HubServer, front: TlsFront, authority: Authority, downloader: Downloader, target: Path
) -> None:
    """The files of this model are at the CDN, whose address is plain."""
    settings = {"endpoint": front.endpoint, "ca_bundle": str(authority.bundle)}
    with pytest.raises(Exception, match="which is not followed") as caught:
        await downloader(target, **settings)
    assert getattr(caught.value, "exit_code", None) == 69
    assert not [record for record in hub.log if record.where == "cdn"]
    assert not downloader.told(RetryScheduled)
    assert not (target / LARGE).exists()


async def test_from_https_no_page_of_the_listing_is_asked_for_over_http(
    hub: HubServer, front: TlsFront, authority: Authority, downloader: Downloader, target: Path
) -> None:
    link = {"Link": f'<{hub.endpoint}/api/models/org/model/tree/main>; rel="next"'}
    hub.fault(faults.Headers(link), where="api", path="/tree/")
    settings = {"endpoint": front.endpoint, "ca_bundle": str(authority.bundle)}
    with pytest.raises(Exception, match="goes on at another host"):
        await downloader(target, **settings)
