"""The Hub names a Xet store, and the front before that gives data to those who have a token."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from aim_downloader.demo.listing import Json
from tests.hub import HubServer, faults
from tests.hub.client import Answer, fetch
from tests.hub.faults import Fault
from tests.xet import XetFront, XetStore
from tests.xet.conftest import FILES, PATH, WEIGHTS

API = "/api/models/org/model"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def listed(hub: HubServer, repo: str = "org/model") -> dict[str, Json]:
    items = fetch(f"{hub.endpoint}/api/models/{repo}/tree/main?recursive=True").json
    return {item["path"]: item for item in items}


def xet_hash(hub: HubServer, path: str = PATH) -> str:
    return str(listed(hub)[path]["xetHash"])


def token(hub: HubServer) -> str:
    return str(fetch(f"{hub.endpoint}{API}/xet-read-token/main").json["accessToken"])


def plan(hub: HubServer, xet: XetFront, version: str = "v2", path: str = PATH) -> Answer:
    """How a file is put together, asked for with a new token."""
    url = f"{xet.endpoint}/{version}/reconstructions/{xet_hash(hub, path)}"
    return fetch(url, headers=bearer(token(hub)))


@dataclass(frozen=True)
class Piece:
    """A piece of a xorb, and where it is."""

    url: str
    xorb: str
    start: int
    stop: int

    @property
    def span(self) -> dict[str, str]:
        return {"Range": f"bytes={self.start}-{self.stop - 1}"}


def piece(hub: HubServer, xet: XetFront, version: str = "v2") -> Piece:
    """The data of a file, which is in one xorb."""
    said = plan(hub, xet, version).json
    ((xorb, (fetch_info,)),) = (said["xorbs"] if version == "v2" else said["fetch_info"]).items()
    span = fetch_info["ranges"][0]["bytes"] if version == "v2" else fetch_info["url_range"]
    return Piece(fetch_info["url"], xorb, span["start"], span["end"] + 1)


def data(store: XetStore, piece: Piece) -> bytes:
    return store.xorb(piece.xorb).read_bytes()[piece.start : piece.stop]


# -- what the Hub says ---------------------------------------------------------------------------


def test_large_files_have_a_xet_hash_and_others_have_none(hub: HubServer) -> None:
    with_hash = {path for path, item in listed(hub).items() if "xetHash" in item}
    assert with_hash == {PATH, "deep/other.bin"}
    asked = fetch(f"{hub.endpoint}{API}/paths-info/main", method="POST", body=f"paths={PATH}")
    assert "xetHash" not in str(fetch(f"{hub.endpoint}{API}?blobs=True").json)
    assert asked.status == 200


def test_a_repository_may_be_without_xet(hub: HubServer) -> None:
    hub.add_repo("org/plain", {PATH: WEIGHTS}, xet=False)
    assert "xetHash" not in listed(hub, "org/plain")[PATH]
    answer = fetch(f"{hub.endpoint}/org/plain/resolve/main/{PATH}")
    assert (answer.headers["X-Xet-Hash"], answer.headers["Link"]) == (None, None)


def test_a_later_commit_is_in_the_store_too(hub: HubServer, xet: XetFront) -> None:
    hub.repo("org/model").commit({"new.bin": b"new" * 1000})
    assert plan(hub, xet, path="new.bin").status == 200


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_resolve_names_the_way_by_xet(hub: HubServer, xet: XetFront, method: str) -> None:
    answer = fetch(f"{hub.endpoint}/org/model/resolve/main/{PATH}", method=method)
    expected = xet_hash(hub)
    commit = hub.repo("org/model").head
    assert answer.status == 302
    assert answer.headers["X-Xet-Hash"] == expected
    assert answer.headers["Link"] == (
        f'<{hub.endpoint}{API}/xet-read-token/{commit}>; rel="xet-auth", '
        f'<{xet.endpoint}/v1/reconstructions/{expected}>; rel="xet-reconstruction-info"'
    )


@pytest.mark.parametrize("path", ["config.json", "empty.bin"])
def test_resolve_of_a_git_file_names_none(hub: HubServer, path: str) -> None:
    answer = fetch(f"{hub.endpoint}/org/model/resolve/main/{path}")
    assert (answer.headers["X-Xet-Hash"], answer.headers["Link"]) == (None, None)


def test_the_token_is_said_as_json_and_in_headers(hub: HubServer, xet: XetFront) -> None:
    xet.token_lifetime(100)
    answer = fetch(f"{hub.endpoint}{API}/xet-read-token/main")
    said = answer.json
    assert said["casUrl"] == answer.headers["X-Xet-Cas-Url"] == xet.endpoint
    assert said["accessToken"] == answer.headers["X-Xet-Access-Token"]
    assert str(said["exp"]) == answer.headers["X-Xet-Token-Expiration"]
    assert 60 < said["exp"] - time.time() <= 100


@pytest.mark.parametrize(
    ("repo", "as_whom", "status", "code"),
    [
        ("org/no", None, 401, "RepoNotFound"),
        ("org/private", None, 401, "RepoNotFound"),
        ("org/private", "hf_stranger", 404, "RepoNotFound"),
        ("org/private", "hf_reader", 200, None),
        ("org/gated", None, 401, "GatedRepo"),
        ("org/gated", "hf_stranger", 403, "GatedRepo"),
        ("org/gated", "hf_reader", 200, None),
        ("org/model", "hf_wrong", 401, None),
        ("org/model", None, 200, None),
    ],
)
def test_who_gets_a_token(
    hub: HubServer, repo: str, as_whom: str | None, status: int, code: str | None
) -> None:
    headers = bearer(as_whom) if as_whom else {}
    answer = fetch(f"{hub.endpoint}/api/models/{repo}/xet-read-token/main", headers=headers)
    assert (answer.status, answer.headers["X-Error-Code"]) == (status, code)


def test_the_token_of_an_unknown_revision(hub: HubServer) -> None:
    answer = fetch(f"{hub.endpoint}{API}/xet-read-token/no")
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")


def test_a_fault_of_the_token_route(hub: HubServer) -> None:
    hub.fault(faults.Status(503), where="api", path="xet-read-token")
    url = f"{hub.endpoint}{API}/xet-read-token/main"
    assert [fetch(url).status for _ in range(2)] == [503, 200]
    assert [record.path for record in hub.log] == [urlsplit(url).path] * 2


def test_a_hub_without_a_store_gives_no_token() -> None:
    with HubServer() as hub:
        hub.add_repo("org/model", FILES)
        assert fetch(f"{hub.endpoint}{API}/xet-read-token/main").status == 404
        assert "xetHash" not in listed(hub)[PATH]


# -- who gets data -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_plan_leads_to_the_data(
    hub: HubServer, xet: XetFront, store: XetStore, version: str
) -> None:
    found = piece(hub, xet, version)
    answer = fetch(found.url, headers=found.span)
    assert (answer.status, answer.body) == (206, data(store, found))
    assert xet.bytes_sent(PATH) == xet.bytes_sent() == len(answer.body)
    hosts = {urlsplit(url).hostname for url in (hub.endpoint, hub.cdn, xet.xorbs)}
    assert len(hosts) == 3 or "127.0.0.2" not in hosts
    assert found.url.startswith(xet.xorbs)


def test_a_part_behind_the_end_of_a_file(hub: HubServer, xet: XetFront) -> None:
    url = f"{xet.endpoint}/v2/reconstructions/{xet_hash(hub)}"
    beyond = {"Range": f"bytes={len(WEIGHTS)}-{len(WEIGHTS) + 9}"}
    assert fetch(url, headers=bearer(token(hub)) | beyond).status == 416


def test_the_plan_of_a_part_of_a_file(hub: HubServer, xet: XetFront) -> None:
    url = f"{xet.endpoint}/v2/reconstructions/{xet_hash(hub)}"
    answer = fetch(url, headers=bearer(token(hub)) | {"Range": "bytes=2500000-2999999"})
    ((_, (part,)),) = answer.json["xorbs"].items()
    span = part["ranges"][0]["bytes"]
    assert span["end"] - span["start"] < 800_000


def test_a_wrong_token_is_refused(hub: HubServer, xet: XetFront) -> None:
    url = f"{xet.endpoint}/v2/reconstructions/{xet_hash(hub)}"
    assert fetch(url).status == 401
    assert fetch(url, headers=bearer("xet_wrong")).status == 401
    assert fetch(url, headers=bearer("hf_reader")).status == 401
    given = token(hub)
    assert fetch(url, headers=bearer(given)).status == 200
    xet.revoke_tokens()
    assert fetch(url, headers=bearer(given)).status == 401
    xet.token_lifetime(-1)
    assert fetch(url, headers=bearer(token(hub))).status == 401
    assert [record.status for record in xet.log] == [401, 401, 401, 200, 401, 401]


def test_data_is_given_by_signature_alone(hub: HubServer, xet: XetFront) -> None:
    found = piece(hub, xet)
    assert fetch(found.url, headers=found.span | bearer(token(hub))).status == 400
    assert fetch(found.url + "x", headers=found.span).status == 403
    xet.url_lifetime(-1)
    assert fetch(piece(hub, xet).url).status == 403


def test_an_unknown_file(hub: HubServer, xet: XetFront) -> None:
    url = f"{xet.endpoint}/v2/reconstructions/{'1' * 64}"
    access = bearer(token(hub))
    assert fetch(url, headers=access).status == 404
    assert fetch(url, headers=access | {"Range": "bytes=0-99"}).status == 404


def test_data_may_come_from_elsewhere(store: XetStore) -> None:
    with XetFront(store, xorbs="http://data.example:81") as xet, HubServer(xet=xet) as hub:
        hub.add_repo("org/model", FILES)
        base, _, name = piece(hub, xet).url.rpartition("/")
        assert base == xet.xorbs == "http://data.example:81"
        assert (store.xorbs / name).is_file()


# -- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_a_status_of_either_part(hub: HubServer, xet: XetFront, status: int) -> None:
    xet.fault(faults.Status(status), path="deep/other.bin", times=None)
    xet.fault(faults.Status(status), path="deep/other.bin", times=None, where="cas")
    found = piece(hub, xet)
    xet.fault(faults.Status(status), path=PATH)
    xet.fault(faults.Status(status), path=PATH, where="cas")
    assert [plan(hub, xet).status for _ in range(2)] == [status, 200]
    assert [fetch(found.url, headers=found.span).status for _ in range(2)] == [status, 206]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.Reset(after=100_000), ConnectionResetError),
        (faults.ShortBody(after=100_000), None),
        (faults.Stall(after=100_000), TimeoutError),
    ],
    ids=str,
)
def test_a_body_that_ends_in_the_middle(
    hub: HubServer, xet: XetFront, store: XetStore, fault: Fault, error: type[Exception] | None
) -> None:
    found = piece(hub, xet)
    xet.fault(fault, path=PATH)
    answer = fetch(found.url, headers=found.span, timeout=2)
    assert answer.body == data(store, found)[:100_000]
    assert isinstance(answer.error, error) if error else answer.error is None
    assert fetch(found.url, headers=found.span).body == data(store, found)


@pytest.mark.parametrize(
    "fault",
    [faults.Stall(after=100_000, seconds=0.2), faults.LateFirstByte(0.2), faults.Slow(1e7)],
    ids=str,
)
def test_a_body_that_is_late(hub: HubServer, xet: XetFront, store: XetStore, fault: Fault) -> None:
    found = piece(hub, xet)
    xet.fault(fault, path=PATH)
    answer = fetch(found.url, headers=found.span)
    assert answer.body == data(store, found)
    assert answer.seconds >= 0.2


def test_a_pace_is_for_data(hub: HubServer, xet: XetFront) -> None:
    found = piece(hub, xet)
    xet.pace(1e7)
    assert fetch(found.url, headers=found.span).seconds > 0.2


def test_silence(hub: HubServer, xet: XetFront) -> None:
    known = xet_hash(hub)
    xet.fault(faults.LateFirstByte(600), where=None, times=None)
    with pytest.raises(TimeoutError):
        fetch(f"{xet.endpoint}/v2/reconstructions/{known}", timeout=0.2)


def test_damage_is_one_byte_of_the_data(hub: HubServer, xet: XetFront, store: XetStore) -> None:
    found = piece(hub, xet)
    xet.fault(xet.damage(PATH), path=PATH)
    right = data(store, found)
    wrong = fetch(found.url, headers=found.span).body
    different = [at for at in range(len(right)) if right[at] != wrong[at]]
    assert len(different) == 1
    # The bytes around it are found in the file: no header, and not compressed.
    around = right[different[0] - 50 : different[0] + 50]
    assert around in WEIGHTS
    assert fetch(found.url, headers=found.span).body == right


def test_vanished_and_back(hub: HubServer, xet: XetFront, store: XetStore) -> None:
    found = piece(hub, xet)
    cas, xorbs = xet.endpoint, xet.xorbs
    xet.vanish()
    for url in (cas, found.url):
        with pytest.raises(ConnectionRefusedError):
            fetch(url)
    xet.come_back()
    assert (xet.endpoint, xet.xorbs) == (cas, xorbs)
    assert fetch(found.url, headers=found.span).body == data(store, found)
    assert plan(hub, xet).status == 200


def test_vanishing_ends_what_is_under_way(hub: HubServer, xet: XetFront) -> None:
    found = piece(hub, xet)
    xet.pace(1e6)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(fetch, found.url, headers=found.span)
        xet.wait_for_bytes(100_000, PATH)
        xet.vanish()
        assert len(answer.result().body) < found.stop - found.start
