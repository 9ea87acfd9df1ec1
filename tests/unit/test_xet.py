"""The pure parts of protocol XET: buffers, the Hub's answer, and what errors of hf_xet mean."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.errors import (
    DownloadError,
    InsufficientSpaceError,
    StorageError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.http_client.network import Network
from aim_downloader.protocols.engine import SMALLEST_BUDGET, budget_of
from aim_downloader.protocols.xet import Buffers, children, judge, patience
from aim_downloader.protocols.xet_access import (
    Access,
    StoreFailedError,
    TokenRefusedError,
    access_of,
)
from aim_downloader.snapshot import MIB

GIB = 1024 * MIB

# -- buffers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "cores", "connections", "count"),
    [
        (None, 1, 16, 1),
        (None, 2, 16, 2),
        (None, 4, 16, 4),
        (None, 64, 16, 4),
        (None, 64, 2, 2),
        (None, 64, 1, 1),
        (64 * GIB, 4, 16, 4),
        (1 * GIB, 4, 16, 4),
        (512 * MIB, 4, 16, 2),
        (511 * MIB, 4, 16, 1),
        (128 * MIB, 4, 16, 1),
        (1 * MIB, 4, 16, 1),
    ],
)
def test_how_many_files_come_at_once(
    memory: int | None, cores: int, connections: int, count: int
) -> None:
    assert children(budget_of(memory), cores, connections) == count


@given(st.integers(SMALLEST_BUDGET, 128 * MIB), st.integers(0, 2**40))
def test_what_is_in_flight_stays_within_the_budget(budget: int, pace: int) -> None:
    whole = Buffers.within(budget)
    stream = whole.for_stream(pace)
    for buffers in (whole, stream):
        # The last fetch of a file may be half as large again.
        assert buffers.waiting + 1.5 * buffers.fetch <= budget
        assert buffers.fetch >= MIB // 2
    assert stream.fetch <= 4_000_000
    if pace:
        assert stream.waiting == stream.fetch


@pytest.mark.parametrize(
    ("pace", "fetch"),
    [(4 * 1024, 1_000_000), (64 * 1024, 1_048_576), (128 * 1024, 2_097_152), (MIB, 4_000_000)],
)
def test_the_slower_a_stream_may_be_the_less_it_runs_ahead(pace: int, fetch: int) -> None:
    assert Buffers.within(64 * MIB).for_stream(pace) == Buffers(fetch, fetch)


@pytest.mark.parametrize(
    ("stall", "read", "connect", "delay"),
    [(120.0, "15000ms", "20000ms", "2000ms"), (1.2, "600ms", "1200ms", "20ms")],
)
def test_patience(stall: float, read: str, connect: str, delay: str) -> None:
    assert patience(Network("https://hub.test", stall_timeout=stall)) == {
        "client.read_timeout": read,
        "client.connect_timeout": connect,
        "client.retry_max_attempts": 3,
        "client.retry_base_delay": delay,
    }


# -- the Hub's answer ------------------------------------------------------------------------------

HUB = "https://hub.test/api/models/org/model/xet-read-token/main"
ANSWER: dict[str, Any] = {
    "accessToken": "xet_token",
    "exp": 2_000_000_000,
    "casUrl": "https://cas.test/",
}


def test_access() -> None:
    access = access_of(json.dumps(ANSWER).encode(), HUB)
    assert access == Access("https://cas.test", "xet_token", 2_000_000_000)
    assert "xet_token" not in repr(access)


def test_a_store_without_encryption_is_for_a_hub_without_it() -> None:
    body = json.dumps({**ANSWER, "casUrl": "http://cas.test"}).encode()
    assert access_of(body, "http://hub.test/token").endpoint == "http://cas.test"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"[" * 10_000,
        *(
            json.dumps({**ANSWER, **changed}).encode()
            for changed in (
                {"accessToken": None},
                {"accessToken": ""},
                {"accessToken": 7},
                {"accessToken": "two\r\nlines"},
                {"accessToken": "tökén"},
                {"exp": "soon"},
                {"exp": True},
                {"exp": 1.5},
                {"exp": -1},
                {"exp": 10**30},
                {"casUrl": None},
                {"casUrl": "cas.test"},
                {"casUrl": "file:///etc/passwd"},
                {"casUrl": "https://user:secret@cas.test"},
                {"casUrl": "https://cas.test\r\nX: y"},
                {"casUrl": "https://cas.test/?signature=secret"},
                {"casUrl": "http://cas.test"},
                {"padding": "x" * 70_000},
            )
        ),
    ],
    ids=lambda body: body[-60:].decode(),
)
def test_what_is_no_access_is_refused(body: bytes) -> None:
    with pytest.raises(TransferError) as caught:
        access_of(body, HUB)
    assert "secret" not in str(caught.value)


# -- errors ----------------------------------------------------------------------------------------

TASK = "Task error: File reconstruction error: "
CAS = f"{TASK}CAS Client Error: "
STORE = "https://cas.test/v2/reconstructions/" + 64 * "d"
XORB = "https://transfer.test/xorbs/default/" + 64 * "9"

REFUSED = "Request error: HTTP status client error"
FAILED = "Request error: HTTP status server error"
UNSENT = "Request middleware error: error sending request for url"
NO_TOKEN = "Request middleware error: Auth error: Token refresh failed:"

WORDS: list[tuple[str, type[DownloadError]]] = [
    (f"{CAS}{REFUSED} (401 Unauthorized), domain: {STORE}", TokenRefusedError),
    (f"Network error: {REFUSED} (403 Forbidden), domain: {STORE}", TokenRefusedError),
    (f"{CAS}{REFUSED} (429 Too Many Requests), domain: {STORE}", StoreFailedError),
    (f"{CAS}{FAILED} (500 Internal Server Error), domain: {STORE}", StoreFailedError),
    # Refused, no such host, a certificate that is not trusted, no answer in time: all the same.
    (f"{CAS}{UNSENT} ({STORE})", StoreFailedError),
    (f"{CAS}Request error: error decoding response body, domain: no-url", StoreFailedError),
    (f"{CAS}{NO_TOKEN} {REFUSED} (401 Unauthorized), domain: {HUB}", TokenRefusedError),
    # Such an answer is about one file, and says nothing of the others.
    (f"{CAS}{REFUSED} (400 Bad Request), domain: {STORE}", TransferError),
    (f"{CAS}{REFUSED} (416 Range Not Satisfiable), domain: {STORE}", TransferError),
    (f"{CAS}{REFUSED} (404 Not Found), domain: {STORE.replace('v2', 'v1')}", TransferError),
    (f"{CAS}{REFUSED} (401 Unauthorized), domain: {XORB}", TransferInterruptedError),
    (f"{CAS}{REFUSED} (403 Forbidden), domain: {XORB}?X-Sig=secret", TransferInterruptedError),
    (f"Server error: {FAILED} (500), domain: {XORB}", TransferInterruptedError),
    (f"Network error: {UNSENT} ({XORB}?X-Sig=secret)", TransferInterruptedError),
    (f"{TASK}Internal Writer Error: Data sender was dropped", TransferInterruptedError),
    (f"{CAS}Format error: I/O error: error decoding response body", TransferInterruptedError),
    (f"{CAS}Format error: Malformed data: cannot convert value 108", TransferInterruptedError),
    ("Task error: File size mismatch: expected 9 bytes but downloaded 0", TransferInterruptedError),
    ("more bytes came than were asked for", TransferInterruptedError),
    (f"{TASK}IO Error: No space left on device (os error 28)", InsufficientSpaceError),
    (f"{TASK}IO Error: Disk quota exceeded (os error 122)", InsufficientSpaceError),
    (f"{TASK}IO Error: Input/output error (os error 5)", StorageError),
]


@pytest.mark.parametrize(("words", "kind"), WORDS)
def test_what_its_words_mean(words: str, kind: type[DownloadError]) -> None:
    error = judge({"error": words, "kind": "RuntimeError"}, "model.safetensors")
    assert type(error) is kind
    assert "secret" not in str(error)
    assert "Task error" not in str(error)
    assert len(str(error)) <= 300


def test_what_its_kind_means() -> None:
    error = judge({"error": "no", "kind": "XetAuthenticationError"}, "model.safetensors")
    assert type(error) is TokenRefusedError


def test_words_without_an_end_steer_no_terminal() -> None:
    said = str(judge({"error": "\x1b[2J" + 5000 * "x", "kind": "RuntimeError"}, "m"))
    assert said.isprintable()
    assert len(said) <= 300
