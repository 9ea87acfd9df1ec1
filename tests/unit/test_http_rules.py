"""Where tokens go, which redirects are followed, what a status means, how patient we are."""

import datetime as dt
import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.rules import (
    next_hop,
    patience,
    refusal,
    refuse_encoding,
    too_many_redirects,
)
from aim_downloader.snapshot import ByteRange
from aim_downloader.urls import origin, redacted

HUB = "https://hub.test"
CDN = "https://cdn.test"
TOKEN = "hf_secret"


# -- the headers of a request ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "url", "with_token"),
    [
        (HUB, f"{HUB}/api/models/x", True),
        (HUB, HUB, True),
        (HUB, "https://HUB.test/x", True),
        (HUB, "https://hub.test:443/x", True),
        ("https://hub.test:443", f"{HUB}/x", True),
        ("http://hub.test", "http://hub.test:80/x", True),
        (f"{HUB}/mirror", f"{HUB}/mirror/x", True),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/x", True),
        (HUB, f"{CDN}/x", False),
        (HUB, "http://hub.test/x", False),
        (HUB, "https://hub.test:8443/x", False),
        (HUB, "https://cdn.hub.test/x", False),
        (HUB, "https://hub.test.evil.test/x", False),
        (HUB, "https://evilhub.test/x", False),
        (HUB, "https://hub.test@evil.test/x", False),
        (HUB, "https://evil.test/https://hub.test/", False),
        (HUB, "https://evil.test?https://hub.test/", False),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081/x", False),
        ("http://127.0.0.1:8080", "http://localhost:8080/x", False),
    ],
)
def test_the_token_goes_to_the_endpoint_alone(endpoint: str, url: str, with_token: bool) -> None:
    headers = Network(endpoint, TOKEN).headers(url)
    assert headers.get("Authorization") == (f"Bearer {TOKEN}" if with_token else None)


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_none_is_sent(token: str | None) -> None:
    assert "Authorization" not in Network(HUB, token).headers(f"{HUB}/x")


@pytest.mark.parametrize(
    ("byte_range", "header"),
    [
        (None, None),
        (ByteRange(0, 1), "bytes=0-0"),
        (ByteRange(10, 20), "bytes=10-19"),
    ],
)
def test_the_range_asked_for(byte_range: ByteRange | None, header: str | None) -> None:
    assert Network(HUB).headers(f"{HUB}/x", byte_range).get("Range") == header


def test_no_compression_is_asked_for() -> None:
    headers = Network(HUB).headers(f"{HUB}/x")
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("aim-downloader/")


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(Network(HUB, TOKEN))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://hub.test", ("https", "hub.test", 443)),
        ("http://hub.test/x?y#z", ("http", "hub.test", 80)),
        ("https://user:pass@Hub.Test:8443/x", ("https", "hub.test", 8443)),
        ("http://[::1]:80/", ("http", "::1", 80)),
    ],
)
def test_origin(url: str, found: tuple[str, str, int]) -> None:
    assert origin(url) == found


# -- redirects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 206, 300, 304, 305, 306, 400, 404, 500])
def test_what_is_no_redirect(status: int) -> None:
    assert next_hop(f"{HUB}/x", status, {"Location": f"{CDN}/y"}) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        (f"{HUB}/a/b", f"{CDN}/c?Signature=x%2Fy", f"{CDN}/c?Signature=x%2Fy"),
        (f"{HUB}/a/b", "/c", f"{HUB}/c"),
        (f"{HUB}/a/b", "c", f"{HUB}/a/c"),
        (f"{HUB}/a/b", "../c", f"{HUB}/c"),
        (f"{HUB}/a/b", "//cdn.test/c", f"{CDN}/c"),
        (f"{HUB}/a/b", "?c=d", f"{HUB}/a/b?c=d"),
        (f"{HUB}/a/b", f"{HUB}/a/b", f"{HUB}/a/b"),
        ("http://hub.test/a", f"{CDN}/c", f"{CDN}/c"),
        ("http://hub.test/a", "http://cdn.test:8080/c", "http://cdn.test:8080/c"),
    ],
)
def test_a_redirect_is_followed(status: int, url: str, location: str, target: str) -> None:
    assert next_hop(url, status, {"Location": location}) == target


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Location": ""},
        {"Location": "http://hub.test/x"},
        {"Location": "http://cdn.test/x"},
        {"Location": "HTTP://cdn.test/x"},
        {"Location": "file:///etc/passwd"},
        {"Location": "ftp://cdn.test/x"},
        {"Location": "data:text/plain,x"},
        {"Location": "javascript:alert(1)"},
        {"Location": "https://[bad/"},
        {"Location": "https://cdn.test:99999/"},
        {"Location": "https://cdn.test:port/"},
    ],
    ids=str,
)
def test_a_redirect_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(TransferError) as caught:
        next_hop(f"{HUB}/x", 302, headers)
    assert not caught.value.retryable
    assert "HF_ENDPOINT" in caught.value.hint


def test_a_refused_redirect_tells_no_secret() -> None:
    with pytest.raises(TransferError) as caught:
        next_hop(f"{HUB}/x?sig=s3cret", 302, {"Location": "http://me:s3cret@cdn.test/?k=s3cret"})
    assert "s3cret" not in str(caught.value)
    assert HUB in str(caught.value)


# -- what a status means ---------------------------------------------------------------------------

USED_UP = "the link to it may have expired"


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (401, "", AccessDeniedError, "access denied"),
        (403, "", AccessDeniedError, "access denied"),
        (401, "RepoNotFound", AccessDeniedError, "does not exist, or is private"),
        (401, "GatedRepo", AccessDeniedError, "gated"),
        (403, "GatedRepo", AccessDeniedError, "gated"),
        (404, "", SnapshotNotFoundError, "not found"),
        (410, "", SnapshotNotFoundError, "not found"),
        (404, "RepoNotFound", SnapshotNotFoundError, "repository does not exist"),
        (404, "RevisionNotFound", SnapshotNotFoundError, "revision does not exist"),
        (404, "EntryNotFound", SnapshotNotFoundError, "file does not exist"),
        (404, "SomethingNew", SnapshotNotFoundError, "not found"),
        (407, "", TransferError, "the proxy asks for a password"),
        (408, "", TransferInterruptedError, "408"),
        (416, "", RangeNotHonouredError, "no such range"),
        (425, "", TransferInterruptedError, "425"),
        (429, "", ThrottledError, "too busy"),
        (503, "", ThrottledError, "too busy"),
        (500, "", TransferInterruptedError, "500"),
        (502, "", TransferInterruptedError, "502"),
        (504, "", TransferInterruptedError, "504"),
        (599, "RepoNotFound", TransferInterruptedError, "599"),
        (400, "", TransferError, "400"),
        (418, "", TransferError, "418"),
        (204, "", TransferError, "204"),
    ],
)
def test_what_the_hub_refuses(
    status: int, code: str, kind: type[DownloadError], words: str
) -> None:
    error = refusal(status, {"X-Error-Code": code} if code else {}, f"{HUB}/x", HUB)
    assert type(error) is kind
    assert words in str(error)
    assert f"{HUB}/x answered {status}" in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, TransferInterruptedError, USED_UP),
        (401, TransferInterruptedError, USED_UP),
        (403, TransferInterruptedError, USED_UP),
        (404, TransferInterruptedError, USED_UP),
        (410, TransferInterruptedError, USED_UP),
        (416, RangeNotHonouredError, "no such range"),
        (429, ThrottledError, "too busy"),
        (503, ThrottledError, "too busy"),
        (500, TransferInterruptedError, "500"),
    ],
)
def test_what_another_host_refuses(status: int, kind: type[DownloadError], words: str) -> None:
    """A signed URL is used up; that says nothing of who may read the model."""
    error = refusal(status, {"X-Error-Code": "GatedRepo"}, f"{CDN}/x?Signature=s3cret", HUB)
    assert type(error) is kind
    assert error.retryable
    assert words in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("status", [401, 403, 404, 407])
def test_a_refusal_says_what_helps(status: int) -> None:
    assert refusal(status, {}, f"{HUB}/x", HUB).hint


def test_the_servers_words_are_shown_without_what_steers_a_terminal() -> None:
    words = "\x1b[31mno\r\n way\x07" + "!" * 10_000
    error = refusal(400, {"X-Error-Message": words}, f"{HUB}/x", HUB)
    assert "[31mno way!!!" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "words",
    ["https://x.test/?sig=S3CRET", "Bearer S3CRET", "GET /x?sig=S3CRET", "for hf_S3CRETS3CRETS"],
)
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
def test_a_server_that_quotes_the_request_tells_no_secret(status: int, words: str) -> None:
    said = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"no: {words}"}
    error = refusal(status, said, f"{HUB}/x", HUB)
    assert "(no: " in str(error)
    assert "S3CRET" not in str(error)


def test_redirects_without_an_end_are_no_reason_to_ask_again() -> None:
    error = too_many_redirects(f"{HUB}/x?sig=s3cret")
    assert not error.retryable
    assert "s3cret" not in str(error)


# -- patience --------------------------------------------------------------------------------------

NOW = dt.datetime(2025, 6, 1, 12, tzinfo=dt.UTC).timestamp()


def http_date(seconds: float) -> str:
    return email.utils.formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "999999999"}, 999999999.0),
        ({"Retry-After": http_date(90)}, 90.0),
        ({"Retry-After": http_date(0)}, 0.0),
        ({"Retry-After": http_date(-90)}, 0.0),
        ({"Retry-After": "Sun, 01 Jun 2025 14:01:00 +0200"}, 60.0),
        ({"Retry-After": "Sunday, 01-Jun-25 12:01:00 GMT"}, 60.0),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "9" * 5000}, None),
        ({"Retry-After": "Mon, 99 Foo 2025 99:99:99 GMT"}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"Retry-After": "Mon, 01 Jan 2025 00:00:00 +99999999999999999999"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api"; r=0; t=55'}, 55.0),
        ({"RateLimit": '"api";t=55;r=0'}, 55.0),
        ({"RateLimit": '"api";r=10;t=55'}, None),
        ({"RateLimit": '"api";r=0'}, None),
        ({"RateLimit": '"api";r=0;t=soon'}, None),
        ({"RateLimit": "garbage"}, None),
        ({"RateLimit": '"api";r=0;t=55', "Retry-After": "7"}, 7.0),
    ],
    ids=lambda value: str(value)[:60],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert patience(headers, NOW) == seconds
    throttled = refusal(429, headers, f"{HUB}/x", HUB)
    assert isinstance(throttled, ThrottledError)
    assert (throttled.retry_after is None) == (seconds is None)


words = st.text(alphabet=st.characters(max_codepoint=255), max_size=40)
dates = st.tuples(
    st.sampled_from(["Mon, ", ""]), words, st.sampled_from(["Jan ", " Feb "]), words, words
).map("".join)


@given(words | dates, words)
@settings(deadline=None)
def test_no_header_can_break_us(retry_after: str, rate_limit: str) -> None:
    asked = patience({"Retry-After": retry_after, "RateLimit": rate_limit}, NOW)
    assert asked is None or asked >= 0


# -- compression -----------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "identity"}])
def test_a_plain_body_is_taken(headers: dict[str, str]) -> None:
    refuse_encoding(headers, f"{HUB}/x")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "GZIP"])
def test_a_compressed_body_is_refused(encoding: str) -> None:
    with pytest.raises(TransferInterruptedError) as caught:
        refuse_encoding({"Content-Encoding": encoding}, f"{HUB}/x?sig=s3cret")
    assert encoding in str(caught.value)
    assert "s3cret" not in str(caught.value)


# -- what may be shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hub.test", "https://hub.test"),
        ("https://hub.test/a/b", "https://hub.test/a/b"),
        ("https://hub.test:8443/a", "https://hub.test:8443/a"),
        ("https://cdn.test/a?X-Amz-Signature=s3cret&b=c", "https://cdn.test/a?…"),
        ("https://me:s3cret@hub.test/a", "https:…"),
        ("https://me:s3/cret@x@hub.test/a?b", "https:…"),
        ("https://s3cret@hub.test", "https:…"),
        ("https://hub.test/a#s3cret", "https://hub.test/a"),
    ],
)
def test_redacted(url: str, shown: str) -> None:
    assert redacted(url) == shown


# -- proxies ---------------------------------------------------------------------------------------

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


P, Q = "http://proxy.test:3128", "http://other.test:3128"


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, f"{HUB}/x", None),
        ({"HTTPS_PROXY": P}, f"{HUB}/x", P),
        ({"https_proxy": P}, f"{HUB}/x", P),
        ({"HTTPS_PROXY": P}, "http://hub.test/x", None),
        ({"HTTP_PROXY": P}, "http://hub.test/x", P),
        ({"HTTP_PROXY": P}, f"{HUB}/x", None),
        ({"ALL_PROXY": P}, f"{HUB}/x", P),
        ({"ALL_PROXY": P}, "http://hub.test/x", P),
        ({"ALL_PROXY": Q, "HTTPS_PROXY": P}, f"{HUB}/x", P),
        ({"HTTPS_PROXY": "proxy.test:3128"}, f"{HUB}/x", P),
        ({"HTTPS_PROXY": "me:pw@proxy.test:3128"}, f"{HUB}/x", "http://me:pw@proxy.test:3128"),
        ({"HTTPS_PROXY": "https://proxy.test"}, f"{HUB}/x", "https://proxy.test"),
        ({"HTTPS_PROXY": ""}, f"{HUB}/x", None),
        ({"HTTPS_PROXY": P, "NO_PROXY": "hub.test"}, f"{HUB}/x", None),
        ({"HTTPS_PROXY": P, "no_proxy": "hub.test"}, f"{HUB}/x", None),
        ({"HTTPS_PROXY": P, "NO_PROXY": "cdn.test, hub.test"}, f"{HUB}/x", None),
        ({"HTTPS_PROXY": P, "NO_PROXY": ".test"}, f"{HUB}/x", None),
        ({"HTTPS_PROXY": P, "NO_PROXY": "*"}, f"{HUB}/x", None),
        ({"HTTPS_PROXY": P, "NO_PROXY": "cdn.test"}, f"{HUB}/x", P),
        ({"HTTPS_PROXY": P, "NO_PROXY": "b.test"}, f"{HUB}/x", P),
        ({"HTTPS_PROXY": P, "NO_PROXY": "hub.test:8443"}, "https://hub.test:8443/x", None),
        ({"HTTPS_PROXY": P, "NO_PROXY": "hub.test:8443"}, f"{HUB}/x", P),
        ({"HTTP_PROXY": P, "NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:8080/x", None),
    ],
)
def test_the_proxy_that_the_environment_names(
    environment: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert Network(HUB).proxy_for(url) == proxy


@pytest.mark.parametrize("proxy", ["socks5://me:s3cret@proxy.test:1080", "ftp://proxy.test"])
def test_a_proxy_of_another_kind_is_told(environment: pytest.MonkeyPatch, proxy: str) -> None:
    environment.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError) as caught:
        Network(HUB).proxy_for(f"{HUB}/x")
    assert "s3cret" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("proxy", ["http://proxy.test:port", "http://[proxy.test", "http://"])
def test_a_proxy_that_is_no_url_is_told(environment: pytest.MonkeyPatch, proxy: str) -> None:
    environment.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError):
        Network(HUB).proxy_for(f"{HUB}/x")


# -- certificates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_bundle_that_cannot_be_read_is_told(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str | None
) -> None:
    path = tmp_path_factory.mktemp("ca") / "bundle.pem"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    with pytest.raises(ConfigError, match=r"bundle\.pem"):
        Network(HUB, ca_bundle=str(path)).ssl_context()


@pytest.mark.parametrize("bundle", [None, ""])
def test_without_a_bundle_the_systems_certificates_are_trusted(bundle: str | None) -> None:
    context = Network(HUB, ca_bundle=bundle).ssl_context()
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
