"""Every fault does what it says, to the requests that it is for and to no others."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fair_time import fair_time
from tests.hub import HubServer, faults
from tests.hub.client import fetch, follow

WEIGHTS = bytes(range(251)) * 4000
SIZE = len(WEIGHTS)
PATH = "model.safetensors"
TREE = "/api/models/org/model/tree/main?recursive=True"
CONFIG = b"{}" * 500


@pytest.fixture(params=["bytes", "path"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubServer]:
    (tmp_path / PATH).write_bytes(WEIGHTS)
    content = WEIGHTS if request.param == "bytes" else tmp_path / PATH
    with HubServer() as server:
        server.add_repo("org/model", {PATH: content, "config.json": CONFIG})
        yield server


def resolve(hub: HubServer, path: str = PATH) -> str:
    return f"{hub.endpoint}/org/model/resolve/main/{path}"


def signed(hub: HubServer) -> str:
    return str(fetch(resolve(hub)).headers["Location"])


def span(start: int, stop: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-{stop - 1}"}


# -- whom a fault meets --------------------------------------------------------------------------


def test_fault_is_limited_by_times(hub: HubServer) -> None:
    scripted = hub.fault(faults.Status(503), path=PATH, times=2)
    assert [follow(resolve(hub)).status for _ in range(4)] == [503, 503, 200, 200]
    assert scripted.fired == 2


def test_fault_for_ever_until_cleared(hub: HubServer) -> None:
    hub.fault(faults.Status(503), times=None)
    assert [follow(resolve(hub)).status for _ in range(3)] == [503] * 3
    hub.clear_faults()
    assert follow(resolve(hub)).status == 200


def test_fault_skips_the_first_requests(hub: HubServer) -> None:
    hub.fault(faults.Status(503), skip=1)
    assert [follow(resolve(hub)).status for _ in range(3)] == [200, 503, 200]


def test_fault_is_for_one_file_and_one_place(hub: HubServer) -> None:
    hub.fault(faults.Status(503), path=PATH, where="hub", times=None)
    assert fetch(resolve(hub)).status == 503
    assert follow(resolve(hub, "config.json")).status == 200
    assert fetch(f"{hub.endpoint}{TREE}").status == 200


def test_fault_of_the_api_is_for_a_part_of_the_path(hub: HubServer) -> None:
    hub.fault(faults.Status(500), path="/tree/", where="api", times=None)
    assert fetch(f"{hub.endpoint}{TREE}").status == 500
    assert fetch(f"{hub.endpoint}/api/models/org/model").status == 200


def test_fault_is_for_one_method(hub: HubServer) -> None:
    hub.fault(faults.Status(500), where="hub", method="HEAD")
    assert fetch(resolve(hub)).status == 302
    assert fetch(resolve(hub), method="HEAD").status == 500


def test_fault_at_an_offset_meets_the_range_that_holds_it(hub: HubServer) -> None:
    hub.fault(faults.Reset(), at=5000)
    url = signed(hub)
    assert fetch(url, headers=span(0, 5000)).error is None
    broken = fetch(url, headers=span(1000, 9000))
    assert broken.body == WEIGHTS[1000:5000]
    assert isinstance(broken.error, ConnectionResetError)
    assert fetch(url, headers=span(1000, 9000)).error is None


def test_faults_add_up(hub: HubServer) -> None:
    hub.fault(faults.DamagedByte(10))
    hub.fault(faults.ShortBody(after=100))
    assert fetch(signed(hub)).body == damaged(WEIGHTS, 10)[:100]


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_status(hub: HubServer, status: int) -> None:
    hub.fault(faults.Status(status, retry_after=2, ratelimit='"api";r=0;t=2'), where="api")
    answer = fetch(f"{hub.endpoint}{TREE}")
    assert answer.status == status
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["RateLimit"] == '"api";r=0;t=2'
    assert fetch(f"{hub.endpoint}{TREE}").status == 200


def test_expired_url_stays_expired_and_a_new_one_works(hub: HubServer) -> None:
    hub.fault(faults.ExpiredUrl())
    first, second = signed(hub), signed(hub)
    assert [fetch(first).status for _ in range(3)] == [403] * 3
    assert fetch(second).status == 200


def test_range_not_satisfiable(hub: HubServer) -> None:
    hub.fault(faults.RangeNotSatisfiable())
    answer = fetch(signed(hub), headers=span(0, 10))
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}")


def test_redirect_elsewhere(hub: HubServer) -> None:
    hub.fault(faults.Redirect("ftp://example.invalid/file"), where="hub")
    answer = fetch(resolve(hub))
    assert (answer.status, answer.headers["Location"]) == (302, "ftp://example.invalid/file")
    assert answer.headers["X-Linked-Size"] == str(SIZE)


def test_redirect_loop(hub: HubServer) -> None:
    hub.fault(faults.RedirectLoop(), where="hub", times=None)
    url = resolve(hub)
    for _ in range(3):
        url = str(fetch(url).headers["Location"])
    assert url == resolve(hub)


def test_changed_etag_of_the_hub(hub: HubServer) -> None:
    hub.fault(faults.ChangedEtag('"new"'), where="hub", method="HEAD")
    answer = fetch(resolve(hub), method="HEAD")
    assert (answer.headers["X-Linked-ETag"], answer.headers["ETag"]) == ('"new"', '"new"')


def test_changed_etag_of_the_cdn_fails_conditions(hub: HubServer) -> None:
    hub.fault(faults.ChangedEtag('"new"'), times=None)
    url, old = signed(hub), {"If-Match": '"old"'}
    assert fetch(url, headers=span(0, 10)).headers["ETag"] == '"new"'
    assert fetch(url, headers=span(0, 10) | old).status == 412
    assert fetch(url, headers=span(0, 10) | {"If-Match": '"new"'}).status == 206
    assert fetch(url, headers=span(0, 10) | {"If-Range": '"old"'}).body == WEIGHTS


def test_headers_can_be_set(hub: HubServer) -> None:
    hub.fault(faults.Headers({"ETag": 'W/"weak"'}))
    assert fetch(signed(hub)).headers["ETag"] == 'W/"weak"'


# -- bodies of contents --------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 500_000])
def test_reset_in_the_middle(hub: HubServer, after: int) -> None:
    hub.fault(faults.Reset(after=after))
    answer = fetch(signed(hub))
    assert isinstance(answer.error, ConnectionResetError)
    assert answer.body == WEIGHTS[:after]
    assert hub.bytes_sent() == after


def test_short_body_closes_cleanly(hub: HubServer) -> None:
    hub.fault(faults.ShortBody(after=500_000))
    answer = fetch(signed(hub))
    assert (answer.error, answer.promised) == (None, SIZE)
    assert answer.body == WEIGHTS[:500_000]


@pytest.mark.parametrize("consistent", [True, False])
def test_fewer_bytes_than_asked(hub: HubServer, *, consistent: bool) -> None:
    hub.fault(faults.FewerBytes(100, consistent=consistent))
    answer = fetch(signed(hub), headers=span(1000, 2000))
    last = 1099 if consistent else 1999
    assert answer.headers["Content-Range"] == f"bytes 1000-{last}/{SIZE}"
    assert answer.promised == 100
    assert answer.body == WEIGHTS[1000:1100]


def test_long_body_keeps_the_connection_open(hub: HubServer) -> None:
    hub.fault(faults.LongBody(extra=7))
    url = urlsplit(signed(hub))
    assert url.hostname is not None
    with socket.create_connection((url.hostname, url.port or 80), timeout=5) as connection:
        request = f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n"
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            while answer.readline().strip():
                pass
            assert answer.read(17) == WEIGHTS[:10] + b"x" * 7
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_stall_for_ever(hub: HubServer) -> None:
    hub.fault(faults.Stall(after=1000))
    # What comes at all comes sooner, on a busy machine, too.
    answer = fetch(signed(hub), timeout=2)
    assert isinstance(answer.error, TimeoutError)
    assert answer.body == WEIGHTS[:1000]


def test_stall_for_some_seconds(hub: HubServer) -> None:
    hub.fault(faults.Stall(after=1000, seconds=0.2))
    answer = fetch(signed(hub))
    assert answer.body == WEIGHTS
    assert answer.seconds >= 0.2


def test_stall_does_not_hold_up_the_end() -> None:
    with HubServer() as hub:
        hub.add_repo("org/model", {PATH: WEIGHTS})
        hub.fault(faults.Stall())
        reader = threading.Thread(target=fetch, args=(signed(hub),), kwargs={"timeout": 20})
        reader.start()
        while len(hub.log) < 2:
            time.sleep(0.005)
        started = fair_time()
    assert fair_time() - started < 5
    reader.join(5)
    assert not reader.is_alive()


def test_ignored_range(hub: HubServer) -> None:
    hub.fault(faults.IgnoredRange())
    answer = fetch(signed(hub), headers=span(10, 20))
    assert (answer.status, answer.headers["Content-Range"]) == (200, None)
    assert answer.body == WEIGHTS


def test_wrong_content_range(hub: HubServer) -> None:
    hub.fault(faults.WrongContentRange(shift=5, grow=1))
    answer = fetch(signed(hub), headers=span(10, 20))
    assert answer.headers["Content-Range"] == f"bytes 15-24/{SIZE + 1}"
    assert answer.body == WEIGHTS[10:20]


def damaged(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]


def test_damaged_byte_once(hub: HubServer) -> None:
    hub.fault(faults.DamagedByte(600_000))
    url = signed(hub)
    assert fetch(url, headers=span(0, 600_000)).body == WEIGHTS[:600_000]
    assert fetch(url, headers=span(1, 600_001)).body == damaged(WEIGHTS, 600_000)[1:600_001]
    assert fetch(url).body == WEIGHTS


def test_damaged_bytes_for_good(hub: HubServer) -> None:
    hub.fault(faults.DamagedByte(SIZE - 1), times=None)
    hub.fault(faults.DamagedByte(0), times=None)
    for _ in range(2):
        assert fetch(signed(hub)).body == damaged(damaged(WEIGHTS, 0), SIZE - 1)


def test_late_first_byte(hub: HubServer) -> None:
    hub.fault(faults.LateFirstByte(0.2))
    answer = fetch(signed(hub))
    assert answer.body == WEIGHTS
    assert answer.seconds >= 0.2


def test_git_files_are_contents_too(hub: HubServer) -> None:
    hub.fault(faults.ShortBody(after=10), path="config.json", where="hub", at=0)
    assert follow(resolve(hub, "config.json")).body == CONFIG[:10]


def test_gzipped_text_has_no_length(hub: HubServer) -> None:
    hub.fault(faults.Gzipped(), where="hub", times=None)
    url = resolve(hub, "config.json")
    answer = follow(url, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Length"] is None
    assert gzip.decompress(answer.body) == CONFIG
    assert follow(url, headers={"Accept-Encoding": "identity"}).body == CONFIG


# -- bodies of the API ---------------------------------------------------------------------------


def test_body_that_is_not_json(hub: HubServer) -> None:
    hub.fault(faults.Body(), where="api")
    answer = fetch(f"{hub.endpoint}{TREE}")
    assert answer.status == 200
    assert answer.body.startswith(b"<html>")


def test_truncated_json(hub: HubServer) -> None:
    hub.fault(faults.TruncatedBody(), where="api")
    answer = fetch(f"{hub.endpoint}{TREE}")
    assert len(answer.body) == answer.promised
    with pytest.raises(json.JSONDecodeError):
        answer.json  # noqa: B018 - the reading fails


def test_large_json(hub: HubServer) -> None:
    expected = fetch(f"{hub.endpoint}{TREE}").json
    hub.fault(faults.LargeJson(3_000_000), where="api")
    answer = fetch(f"{hub.endpoint}{TREE}")
    assert len(answer.body) > 3_000_000
    assert answer.json == expected


def test_endless_tree(hub: HubServer) -> None:
    hub.fault(faults.EndlessTree(entries=3), path="/tree/", where="api", times=None)
    url = f"{hub.endpoint}{TREE}"
    names = set()
    for _ in range(20):
        answer = fetch(url)
        names |= {item["path"] for item in answer.json}
        assert answer.next_page is not None
        url = answer.next_page
    assert len(names) == 60


# -- pace and counting ---------------------------------------------------------------------------


def test_pace_is_shared_by_all_bodies(hub: HubServer) -> None:
    hub.pace(8e6)
    url = signed(hub)
    started, begun = time.monotonic(), fair_time()
    with ThreadPoolExecutor(4) as pool:
        bodies = list(pool.map(lambda _: fetch(url).body, range(4)))
    assert bodies == [WEIGHTS] * 4
    # 0.5 s by the pace; the upper bound is for a machine that is busy with other things.
    assert time.monotonic() - started > 0.4
    assert fair_time() - begun < 3
    hub.pace(None)
    begun = fair_time()
    assert fetch(url).status == 200
    assert fair_time() - begun < 1


def test_slow_body_does_not_slow_others(hub: HubServer) -> None:
    hub.fault(faults.Slow(2e6))
    url = signed(hub)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, url)
        while len(hub.log) < 2:
            time.sleep(0.005)
        fast = fetch(url)
        assert fast.seconds < slow.result().seconds
        assert slow.result().seconds > 0.4


def test_bytes_of_a_client_that_goes_away_are_few(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    with HubServer() as hub:
        hub.add_repo("org/model", {"large.bin": large})
        url = urlsplit(str(fetch(resolve(hub, "large.bin")).headers["Location"]))
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            assert url.hostname is not None
            connection.connect((url.hostname, url.port or 80))
            request = f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\n\r\n"
            connection.sendall(request.encode())
            received = 0
            while received < 1_000_000:
                received += len(connection.recv(65536))
        while hub.log[-1].finished is None:
            time.sleep(0.005)
        assert 900_000 < hub.bytes_sent("large.bin") < 2_000_000


def test_waiting_for_bytes(hub: HubServer) -> None:
    hub.fault(faults.Stall(after=300_000))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(fetch, signed(hub), timeout=2)
        hub.wait_for_bytes(300_000, PATH, timeout=30)
        assert len(reading.result().body) == 300_000
    with pytest.raises(TimeoutError):
        hub.wait_for_bytes(SIZE, timeout=0.05)
