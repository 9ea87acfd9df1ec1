"""The API server of Kubernetes, asked as a pod asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aim_downloader.http_client.cluster import ApiServer, ApiServerError
from tests.api_server import CLOSE, Answer, ApiServerDouble, service_account
from tests.integration.test_tls import Authority, another_authority, authority

__all__ = ["another_authority", "authority"]

TOKEN = "eyJ.a-token.of-the-pod"
BODY = {"status": {"progress": {"percentage": 7}}}
PATH = "/apis/group/v1/things/one/status"


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Path:
    return service_account(tmp_path / "account", authority, f"{TOKEN}\n")


@pytest.fixture
def server(authority: Authority) -> Iterator[ApiServerDouble]:
    with ApiServerDouble(authority) as server:
        yield server


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("10.96.0.1", "443", "https://10.96.0.1:443"),
        ("fd00::1", "6443", "https://[fd00::1]:6443"),
        ("", "443", None),
        ("10.96.0.1", "", None),
    ],
)
def test_a_pod_knows_its_api_server(folder: Path, host: str, port: str, url: str | None) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    found = ApiServer.of_pod(environ, folder)
    assert (found.url if found else None) == url
    (folder / "token").unlink()
    assert ApiServer.of_pod(environ, folder) is None


def test_a_merge_patch_is_sent_with_the_token_of_now(server: ApiServerDouble, folder: Path) -> None:
    api = ApiServer(server.url, folder)
    assert api.merge_patch(PATH, BODY) == BODY
    (folder / "token").write_text("another")
    api.merge_patch(PATH, BODY)
    first, second = server.requests
    assert (first.method, first.path, first.body) == ("PATCH", PATH, BODY)
    assert first.headers["Content-Type"] == "application/merge-patch+json"
    assert first.headers["User-Agent"].startswith("aim-downloader/")
    assert first.headers["Authorization"] == f"Bearer {TOKEN}"
    assert second.headers["Authorization"] == "Bearer another"


def test_no_proxy_is_asked(
    server: ApiServerDouble, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ApiServer(server.url, folder).merge_patch(PATH, BODY) == BODY


@pytest.mark.parametrize(
    ("answer", "status", "retry_after"),
    [
        (Answer(403), 403, None),
        (Answer(404), 404, None),
        (Answer(429, {"Retry-After": "3"}), 429, 3.0),
        (Answer(500), 500, None),
        (Answer(200, body=b"<html>"), None, None),
        (Answer(200, body=b"[]"), None, None),
        (CLOSE, None, None),
    ],
)
def test_what_goes_wrong_is_one_error_and_asked_once(
    server: ApiServerDouble,
    folder: Path,
    answer: Answer | str,
    status: int | None,
    retry_after: float | None,
) -> None:
    server.script = [answer]
    with pytest.raises(ApiServerError) as caught:
        ApiServer(server.url, folder).merge_patch(PATH, BODY)
    assert (caught.value.status, caught.value.retry_after) == (status, retry_after)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_gets_the_token(
    server: ApiServerDouble, authority: Authority, folder: Path, status: int
) -> None:
    with ApiServerDouble(authority) as elsewhere:
        server.script = [Answer(status, {"Location": f"{elsewhere.url}{PATH}"})]
        with pytest.raises(ApiServerError) as caught:
            ApiServer(server.url, folder).merge_patch(PATH, BODY)
        assert caught.value.status == status
        assert elsewhere.requests == []


@pytest.mark.parametrize("ca", ["another authority", "missing", "no certificate"])
def test_only_the_authority_of_the_cluster_is_trusted(
    server: ApiServerDouble,
    folder: Path,
    authority: Authority,
    another_authority: Authority,
    ca: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    content = {"another authority": another_authority.bundle.read_bytes(), "no certificate": b"?"}
    (folder / "ca.crt").unlink()
    if ca in content:
        (folder / "ca.crt").write_bytes(content[ca])
    with pytest.raises(ApiServerError) as caught:
        ApiServer(server.url, folder).merge_patch(PATH, BODY)
    assert caught.value.status is None
    assert server.requests == []


@pytest.mark.parametrize("token", ["", "secret\nX-Forged: 1", "secret-ü"])
def test_a_token_that_cannot_be_one_is_neither_sent_nor_shown(
    server: ApiServerDouble, folder: Path, token: str
) -> None:
    (folder / "token").write_text(token, "utf-8")
    with pytest.raises(ApiServerError, match="no usable token") as caught:
        ApiServer(server.url, folder).merge_patch(PATH, BODY)
    assert "secret" not in str(caught.value)
    assert server.requests == []
