"""The Hub speaks the protocol: what each request is answered with."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from aim_downloader.demo.listing import Json
from tests.hub import HubServer
from tests.hub.client import fetch, follow

WEIGHTS = bytes(range(256)) * 40
CONFIG = b'{"model_type": "llama"}'
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "empty.bin": b"",
    "onnx/model.onnx": b"onnx" * 10,
    "onnx/deep/notes.txt": b"notes",
    "names/a b+c%ü.txt": b"odd name",
}
MISSING = "0" * 40


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        model = server.add_repo("org/model", FILES)
        model.tag("v1")
        model.commit({"config.json": b"{}", "onnx/model.onnx": None}, title="Second")
        model.commit({"extra.txt": b"x"}, branch="feature/one", title="Third")
        server.add_repo("bare", {"config.json": b"{}"})
        server.add_repo("org/private", {"config.json": b"{}"}, private=True)
        server.add_repo("org/gated", {"config.json": b"{}"}, gated="manual")
        server.add_repo("org/former", {"config.json": b"{}"})
        server.rename_repo("org/former", "org/current")
        server.add_token("reader", reads=("org/private", "org/gated"))
        server.add_token("stranger")
        yield server


@pytest.fixture
def fresh() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@dataclass(frozen=True)
class Case:
    """One request and its answer; a header of None must be missing."""

    path: str
    status: int
    headers: dict[str, str | None] = field(default_factory=dict)
    token: str | None = None
    method: str = "GET"


CASES = {
    "model": Case("/api/models/org/model", 200),
    "bare model": Case("/api/models/bare", 200),
    "bare refs": Case("/api/models/bare/refs", 200),
    "bare tree": Case("/api/models/bare/tree/main", 200),
    "bare file": Case("/bare/resolve/main/config.json", 307),
    "branch with a slash": Case("/api/models/org/model/revision/feature%2Fone", 200),
    "full reference": Case("/api/models/org/model/revision/refs%2Fheads%2Fmain", 200),
    "tag": Case("/api/models/org/model/revision/v1", 200),
    "removed in main": Case("/org/model/resolve/main/onnx/model.onnx", 404),
    "kept in the tag": Case("/org/model/resolve/v1/onnx/model.onnx", 302),
    "name with odd letters": Case("/org/model/resolve/main/names/a%20b%2Bc%25%C3%BC.txt", 307),
    "other API": Case("/api/agent-harnesses", 404),
    "missing repository": Case("/api/models/org/no", 401, {"X-Error-Code": "RepoNotFound"}),
    "the same with a token": Case(
        "/api/models/org/no", 404, {"X-Error-Code": "RepoNotFound"}, token="stranger"
    ),
    "private": Case("/api/models/org/private", 401, {"X-Error-Code": "RepoNotFound"}),
    "private for a stranger": Case(
        "/api/models/org/private", 404, {"X-Error-Code": "RepoNotFound"}, token="stranger"
    ),
    "private for its reader": Case("/api/models/org/private", 200, token="reader"),
    "private file": Case("/org/private/resolve/main/config.json", 401),
    "private file for its reader": Case(
        "/org/private/resolve/main/config.json", 307, token="reader"
    ),
    "gated API": Case("/api/models/org/gated", 200),
    "gated tree": Case("/api/models/org/gated/tree/main", 200),
    "gated file": Case(
        "/org/gated/resolve/main/config.json", 401, {"X-Error-Code": "GatedRepo"}, method="HEAD"
    ),
    "gated file for a stranger": Case(
        "/org/gated/resolve/main/config.json",
        403,
        {"X-Error-Code": "GatedRepo"},
        token="stranger",
    ),
    "gated file for its reader": Case("/org/gated/resolve/main/config.json", 307, token="reader"),
    "bad token": Case(
        "/api/models/org/model",
        401,
        {
            "X-Error-Code": None,
            "X-Error-Message": "Invalid credentials in Authorization header",
        },
        token="wrong",
    ),
    "missing revision": Case(
        f"/api/models/org/model/revision/{MISSING}", 404, {"X-Error-Code": "RevisionNotFound"}
    ),
    "missing revision of a tree": Case(
        "/api/models/org/model/tree/no", 404, {"X-Error-Code": "RevisionNotFound"}
    ),
    "missing revision of a file": Case(
        "/org/model/resolve/no/config.json", 404, {"X-Error-Code": "RevisionNotFound"}
    ),
    "missing file": Case("/org/model/resolve/main/no", 404, {"X-Error-Code": "EntryNotFound"}),
    "missing folder": Case(
        "/api/models/org/model/tree/main/no", 404, {"X-Error-Code": "EntryNotFound"}
    ),
    "renamed": Case(
        "/api/models/org/former?blobs=True", 307, {"Location": "/api/models/org/current?blobs=True"}
    ),
    "renamed file": Case(
        "/org/former/resolve/main/config.json",
        307,
        {"Location": "/org/current/resolve/main/config.json"},
    ),
    "who am I": Case("/api/whoami-v2", 200, token="reader"),
    "who am I, nobody": Case("/api/whoami-v2", 401),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_answers(hub: HubServer, case: Case) -> None:
    headers = {"Authorization": f"Bearer {case.token}"} if case.token else {}
    answer = fetch(hub.endpoint + case.path, headers=headers, method=case.method)
    assert answer.status == case.status
    for name, value in case.headers.items():
        assert answer.headers[name] == value


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_model_lists_its_files_with_blobs(hub: HubServer) -> None:
    info = fetch(f"{hub.endpoint}/api/models/org/model/revision/v1?blobs=True").json
    assert (info["id"], info["private"], info["gated"]) == ("org/model", False, False)
    assert info["sha"] == hub.repo("org/model").tags["v1"]
    files = {sibling["rfilename"]: sibling for sibling in info["siblings"]}
    assert files.keys() == FILES.keys()
    assert files["config.json"]["blobId"] == git_blob(CONFIG)
    assert "lfs" not in files["config.json"]
    pointer = files["model.safetensors"]["lfs"]
    assert pointer["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert pointer["size"] == files["model.safetensors"]["size"] == len(WEIGHTS)


def test_without_blobs_there_are_names_only(hub: HubServer) -> None:
    info = fetch(f"{hub.endpoint}/api/models/org/model").json
    assert {"rfilename": "config.json"} in info["siblings"]


def test_lfs_file_has_the_git_id_of_its_pointer(hub: HubServer) -> None:
    [item] = [each for each in tree(hub, "v1") if each["path"] == "model.safetensors"]
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(WEIGHTS)}\n"
    assert item["oid"] == git_blob(text.encode())
    assert item["lfs"] == {"oid": sha256, "size": len(WEIGHTS), "pointerSize": len(text)}


def test_empty_file_is_a_git_file_whatever_its_name(hub: HubServer) -> None:
    [item] = [each for each in tree(hub) if each["path"] == "empty.bin"]
    assert item["oid"] == git_blob(b"")
    assert "lfs" not in item


def tree(hub: HubServer, revision: str = "main", query: str = "recursive=True") -> list[Json]:
    return list(fetch(f"{hub.endpoint}/api/models/org/model/tree/{revision}?{query}").json)


def test_tree_of_one_level_and_of_all(hub: HubServer) -> None:
    flat = {item["path"]: item["type"] for item in tree(hub, "v1", "")}
    assert flat["onnx"] == "directory"
    assert "onnx/model.onnx" not in flat
    deep = {item["path"]: item["type"] for item in tree(hub, "v1")}
    assert {path for path, kind in deep.items() if kind == "directory"} == {
        "names",
        "onnx",
        "onnx/deep",
    }
    assert {path for path, kind in deep.items() if kind == "file"} == FILES.keys()


def test_tree_of_a_folder(hub: HubServer) -> None:
    assert {item["path"] for item in tree(hub, "v1/onnx", "")} == {"onnx/model.onnx", "onnx/deep"}


def test_tree_expanded_tells_the_last_commit(hub: HubServer) -> None:
    for item in tree(hub, query="expand=true&recursive=1"):
        assert item["lastCommit"]["title"] == "Second"
        assert ("securityFileStatus" in item) == (item["type"] == "file")


def test_tree_pages_have_absolute_links(hub: HubServer) -> None:
    url: str | None = f"{hub.endpoint}/api/models/org/model/tree/v1?recursive=True&limit=2"
    pages = []
    while url:
        answer = fetch(url)
        pages.append([item["path"] for item in answer.json])
        url = answer.next_page
        assert url is None or url.startswith(hub.endpoint)
    assert [len(page) for page in pages] == [2, 2, 2, 2, 1]
    assert list(chain.from_iterable(pages)) == [item["path"] for item in tree(hub, "v1")]


def test_paths_info_leaves_out_what_is_not_there(hub: HubServer) -> None:
    form = urlencode({"paths": ["config.json", "no", "onnx"], "expand": "True"}, doseq=True)
    answer = fetch(
        f"{hub.endpoint}/api/models/org/model/paths-info/v1",
        method="POST",
        body=form,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert [item["path"] for item in answer.json] == ["config.json", "onnx"]
    assert "lastCommit" in answer.json[0]


def test_refs_and_commits(hub: HubServer) -> None:
    model = hub.repo("org/model")
    refs = fetch(f"{hub.endpoint}/api/models/org/model/refs").json
    assert refs["tags"] == [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": model.tags["v1"]}]
    assert {branch["name"] for branch in refs["branches"]} == {"main", "feature/one"}
    commits = fetch(f"{hub.endpoint}/api/models/org/model/commits/feature%2Fone").json
    assert [commit["title"] for commit in commits] == ["Third", "Second", "Upload model"]


def test_large_file_is_redirected_to_the_cdn(hub: HubServer) -> None:
    answer = fetch(f"{hub.endpoint}/org/model/resolve/main/model.safetensors", method="HEAD")
    assert answer.status == 302
    assert urlsplit(answer.headers["Location"]).hostname == hub.cdn_host
    assert answer.headers["X-Repo-Commit"] == hub.repo("org/model").head
    assert answer.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert answer.headers["X-Linked-ETag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert answer.body == b""


def test_cdn_is_another_host_than_the_hub(hub: HubServer) -> None:
    if hub.cdn_host == "127.0.0.1":
        pytest.skip("127.0.0.2 cannot be bound here")
    assert hub.cdn_host != urlsplit(hub.endpoint).hostname


def test_git_file_comes_from_the_hub_by_a_relative_redirect(hub: HubServer) -> None:
    url = f"{hub.endpoint}/org/model/resolve/v1/config.json"
    commit = hub.repo("org/model").tags["v1"]
    location = fetch(url).headers["Location"]
    assert location == f"/api/resolve-cache/models/org/model/{commit}/config.json"
    answer = follow(url)
    assert answer.body == CONFIG
    assert answer.headers["ETag"] == f'"{git_blob(CONFIG)}"'
    assert answer.headers["X-Repo-Commit"] == commit


def test_odd_name_survives_the_redirect(hub: HubServer) -> None:
    url = f"{hub.endpoint}/org/model/resolve/main/names/a%20b%2Bc%25%C3%BC.txt"
    assert follow(url).body == b"odd name"


def signed(hub: HubServer, path: str = "model.safetensors", repo: str = "org/model") -> str:
    answer = fetch(f"{hub.endpoint}/{repo}/resolve/main/{path}")
    return str(answer.headers["Location"])


def test_cdn_refuses_a_token(hub: HubServer) -> None:
    assert fetch(signed(hub), headers={"Authorization": "Bearer reader"}).status == 400


@pytest.mark.parametrize("part", ["Signature", "Expires", "file"])
def test_cdn_refuses_a_signature_that_does_not_fit(hub: HubServer, part: str) -> None:
    assert fetch(signed(hub).replace(f"{part}=", f"{part}=1")).status == 403


def test_cdn_refuses_an_address_without_a_signature(hub: HubServer) -> None:
    assert fetch(signed(hub).partition("?")[0]).status == 403


def test_signed_address_expires_and_a_new_one_works(fresh: HubServer) -> None:
    fresh.add_repo("org/model", FILES)
    assert fetch(signed(fresh)).status == 200
    fresh.url_lifetime(0.1)
    url = signed(fresh)
    time.sleep(0.15)
    assert fetch(url).status == 403
    fresh.url_lifetime(60)
    assert fetch(signed(fresh)).status == 200


SIZE = len(WEIGHTS)
ETAG = f'"{hashlib.sha256(WEIGHTS).hexdigest()[:32]}-1"'
RANGES = {
    "whole": ({}, 200, None, WEIGHTS),
    "first bytes": ({"Range": "bytes=0-9"}, 206, f"bytes 0-9/{SIZE}", WEIGHTS[:10]),
    "to the end": (
        {"Range": "bytes=10000-"},
        206,
        f"bytes 10000-{SIZE - 1}/{SIZE}",
        WEIGHTS[10000:],
    ),
    "last bytes": ({"Range": "bytes=-5"}, 206, f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}", WEIGHTS[-5:]),
    "past the end": ({"Range": f"bytes=5-{SIZE}"}, 206, f"bytes 5-{SIZE - 1}/{SIZE}", WEIGHTS[5:]),
    "behind the end": ({"Range": f"bytes={SIZE}-"}, 416, f"bytes */{SIZE}", None),
    "two ranges": ({"Range": "bytes=0-1,5-6"}, 200, None, WEIGHTS),
    "no range at all": ({"Range": "bytes=-"}, 200, None, WEIGHTS),
    "If-Range holds": (
        {"Range": "bytes=0-1", "If-Range": ETAG},
        206,
        f"bytes 0-1/{SIZE}",
        WEIGHTS[:2],
    ),
    "If-Range fails": ({"Range": "bytes=0-1", "If-Range": '"other"'}, 200, None, WEIGHTS),
    "If-Match holds": ({"If-Match": f'"other", {ETAG}'}, 200, None, WEIGHTS),
    "If-Match fails": ({"If-Match": '"other"'}, 412, None, None),
    "If-None-Match": ({"If-None-Match": ETAG}, 304, None, b""),
}


@pytest.mark.parametrize("on_disk", [False, True], ids=["bytes", "path"])
@pytest.mark.parametrize("name", RANGES)
def test_ranges_and_conditions(fresh: HubServer, tmp_path: Path, name: str, on_disk: bool) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS)
    content = tmp_path / "weights" if on_disk else WEIGHTS
    fresh.add_repo("org/model", {"model.safetensors": content})
    headers, status, span, body = RANGES[name]
    answer = fetch(signed(fresh), headers=headers)
    assert (answer.status, answer.headers["Content-Range"]) == (status, span)
    assert answer.headers["ETag"] == ETAG
    assert body in (None, answer.body)


def test_empty_file_has_no_range(hub: HubServer) -> None:
    url = f"{hub.endpoint}/org/model/resolve/main/empty.bin"
    assert follow(url).body == b""
    assert follow(url, headers={"Range": "bytes=0-0"}).status == 416


def test_another_cdn_can_be_named() -> None:
    with HubServer(cdn_base="http://127.0.0.3:8080/files") as hub:
        hub.add_repo("org/model", FILES)
        sha256 = hashlib.sha256(WEIGHTS).hexdigest()
        url = urlsplit(signed(hub))
        assert (url.netloc, url.path) == ("127.0.0.3:8080", f"/files/{sha256}")
        assert "Expires=" in url.query
        assert "Signature=" in url.query


def test_log_tells_what_was_asked_and_sent(fresh: HubServer) -> None:
    fresh.add_repo("org/model", FILES)
    follow(
        f"{fresh.endpoint}/org/model/resolve/main/model.safetensors",
        headers={"Range": "bytes=0-99"},
    )
    resolved, sent = fresh.log
    assert (resolved.where, resolved.file, resolved.status) == ("hub", "model.safetensors", 302)
    assert (sent.where, sent.repo, sent.file) == ("cdn", "org/model", "model.safetensors")
    assert (sent.range, sent.status, sent.bytes_sent) == ("bytes=0-99", 206, 100)
    assert sent.host == urlsplit(fresh.cdn).netloc
    assert fresh.bytes_sent() == fresh.bytes_sent("model.safetensors") == 100
    assert fresh.bytes_sent("config.json") == 0
    fresh.clear_log()
    assert fresh.log == []


def test_branch_that_moves_leaves_its_commits(fresh: HubServer) -> None:
    repo = fresh.add_repo("org/model", {"config.json": b"1"})
    first = repo.head
    repo.commit({"config.json": b"2"})
    assert follow(f"{fresh.endpoint}/org/model/resolve/main/config.json").body == b"2"
    assert follow(f"{fresh.endpoint}/org/model/resolve/{first}/config.json").body == b"1"


def test_port_that_is_taken_is_an_error(hub: HubServer) -> None:
    taken = urlsplit(hub.endpoint).port
    assert taken is not None
    with pytest.raises(OSError, match="in use"), HubServer(port=taken):
        pass
