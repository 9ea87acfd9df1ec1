"""What the Hub lists, and what of its answers is not believed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from aim_downloader.errors import (
    AccessDeniedError,
    DownloadError,
    SnapshotNotFoundError,
    SourceError,
)
from aim_downloader.events import Event, RetryScheduled
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import MIB, Digest, ModelURI, RemoteFile, Snapshot
from aim_downloader.sources.hf import HubSource
from tests.hub import HubServer
from tests.hub.faults import (
    Body,
    EndlessTree,
    Fault,
    Headers,
    LargeJson,
    LateFirstByte,
    Redirect,
    RedirectLoop,
    Reset,
    Slow,
    Stall,
    Status,
    TruncatedBody,
)

WEIGHTS = bytes(range(256)) * 40
CONFIG = b'{"model_type": "llama"}'
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "empty.bin": b"",
    "onnx/model.onnx": b"onnx" * 10,
    "names/a b+c%ü#?.txt": b"odd name",
}
QUICK = RetryPolicy(attempts=3, first_delay=0.01, longest_delay=0.01, longest_patience=0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer(page_size=3) as server:
        model = server.add_repo("org/model", FILES)
        model.tag("v1")
        model.commit({"config.json": b"{}", "onnx/model.onnx": None})
        model.commit({"extra.txt": b"x"}, branch="feature/one")
        model.commit({"pull.txt": b"x"}, branch="refs/pr/1")
        server.add_repo("bare", {"config.json": b"{}"})
        server.add_repo("org/empty", {})
        server.add_repo("org/private", {"config.json": b"{}"}, private=True)
        server.add_repo("org/gated", {"config.json": b"{}"}, gated="manual")
        server.add_repo("org/former", {"config.json": b"{}"})
        server.rename_repo("org/former", "org/current")
        server.add_token("reader", reads=("org/private", "org/gated"))
        server.add_token("stranger")
        yield server


@pytest.fixture
def hub(server: HubServer) -> Iterator[HubServer]:
    server.clear_log()
    yield server
    server.clear_faults()


async def resolve(
    hub: HubServer,
    uri: str,
    token: str | None = None,
    events: list[Event] | None = None,
    stall_timeout: float = 30.0,
    longest: float = 60.0,
) -> Snapshot:
    network = Network(hub.endpoint, token, stall_timeout)
    emit = (events if events is not None else []).append
    async with AsyncClient(network, 4) as client:
        source = HubSource(client, hub.endpoint, emit, QUICK, longest)
        return await source.resolve(ModelURI.parse(uri))


def requests(hub: HubServer) -> list[str]:
    return [record.path for record in hub.log]


def by_path(files: Sequence[RemoteFile]) -> dict[str, RemoteFile]:
    return {file.path: file for file in files}


# -- what is listed --------------------------------------------------------------------------------


async def test_all_files_of_all_pages(hub: HubServer) -> None:
    commit = hub.repo("org/model").tags["v1"]
    snapshot = await resolve(hub, "hf://org/model@v1")
    assert snapshot.commit == commit
    assert str(snapshot.uri) == "hf://org/model@v1"
    assert {file.path: file.size for file in snapshot.files} == {
        path: len(content) for path, content in FILES.items()
    }
    # Five files and two folders on pages of three; one more to pin the tag.
    assert len(requests(hub)) == 1 + 3


async def test_what_is_known_of_a_large_file(hub: HubServer) -> None:
    commit = hub.repo("org/model").tags["v1"]
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert by_path((await resolve(hub, "hf://org/model@v1")).files)["model.safetensors"] == (
        RemoteFile(
            "model.safetensors",
            len(WEIGHTS),
            Digest("sha256", sha256),
            etag=sha256,
            url=f"{hub.endpoint}/org/model/resolve/{commit}/model.safetensors",
            blob_id=hub.repo("org/model").commits[commit].entries["model.safetensors"].oid,
        )
    )


async def test_what_is_known_of_a_small_file(hub: HubServer) -> None:
    commit = hub.repo("org/model").tags["v1"]
    blob = b"blob %d\0%s" % (len(CONFIG), CONFIG)
    sha1 = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    assert by_path((await resolve(hub, "hf://org/model@v1")).files)["config.json"] == (
        RemoteFile(
            "config.json",
            len(CONFIG),
            Digest("git-sha1", sha1),
            etag=sha1,
            url=f"{hub.endpoint}/org/model/resolve/{commit}/config.json",
            blob_id=sha1,
        )
    )


async def test_every_url_serves_its_file(hub: HubServer) -> None:
    snapshot = await resolve(hub, "hf://org/model@v1")
    async with AsyncClient(Network(hub.endpoint), 4) as client:
        for file in snapshot.files:
            assert (await client.get(file.url, MIB)).body == FILES[file.path]


# -- which revision --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "present", "absent"),
    [
        ("hf://org/model", "config.json", "onnx/model.onnx"),
        ("hf://org/model@main", "config.json", "onnx/model.onnx"),
        ("hf://org/model@v1", "onnx/model.onnx", "extra.txt"),
        ("hf://org/model@feature%2Fone", "extra.txt", "pull.txt"),
        ("hf://org/model@refs/pr/1", "pull.txt", "extra.txt"),
        ("hf://bare", "config.json", "extra.txt"),
    ],
)
async def test_a_revision(hub: HubServer, uri: str, present: str, absent: str) -> None:
    snapshot = await resolve(hub, uri)
    paths = by_path(snapshot.files)
    assert present in paths
    assert absent not in paths
    assert snapshot.commit in paths[present].url


async def test_a_commit_makes_no_request_but_the_listing(hub: HubServer) -> None:
    commit = hub.repo("org/gated").head
    snapshot = await resolve(hub, f"hf://org/gated@{commit}")
    assert snapshot.commit == commit
    assert requests(hub) == [f"/api/models/org/gated/tree/{commit}"]


@pytest.mark.parametrize("pinned", [False, True])
async def test_a_renamed_repository(hub: HubServer, pinned: bool) -> None:
    commit = hub.repo("org/current").head
    snapshot = await resolve(hub, f"hf://org/former@{commit}" if pinned else "hf://org/former")
    assert snapshot.commit == commit
    assert [file.path for file in snapshot.files] == ["config.json"]


async def test_a_renamed_repository_is_asked_by_its_present_name(hub: HubServer) -> None:
    snapshot = await resolve(hub, "hf://org/former")
    assert "/org/current/resolve/" in snapshot.files[0].url


# -- who may read ----------------------------------------------------------------------------------

MISSING = "0" * 40


@pytest.mark.parametrize(
    ("uri", "token", "kind", "words"),
    [
        ("hf://org/none", None, AccessDeniedError, "does not exist, or is private"),
        ("hf://org/none", "reader", SnapshotNotFoundError, "repository does not exist"),
        ("hf://org/private", None, AccessDeniedError, "is private"),
        ("hf://org/private", "stranger", SnapshotNotFoundError, "the token may not see it"),
        ("hf://org/private", "bad", AccessDeniedError, "the token is not accepted"),
        ("hf://org/model", "bad", AccessDeniedError, "Invalid credentials"),
        ("hf://org/model@none", None, SnapshotNotFoundError, "revision does not exist"),
        (f"hf://org/model@{MISSING}", None, SnapshotNotFoundError, "revision does not exist"),
        ("hf://org/empty", None, SnapshotNotFoundError, "has no files"),
    ],
)
async def test_what_cannot_be_read(
    hub: HubServer, uri: str, token: str | None, kind: type[DownloadError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        await resolve(hub, uri, token)
    assert type(caught.value) is kind
    assert caught.value.hint or kind is SnapshotNotFoundError
    assert len(requests(hub)) <= 2


async def test_a_gated_repository_that_lists_nothing(hub: HubServer) -> None:
    hub.fault(Status(403, error_code="GatedRepo"), where="api")
    with pytest.raises(AccessDeniedError, match="gated") as caught:
        await resolve(hub, "hf://org/gated", "stranger")
    assert "ask for access on the model's page" in caught.value.hint


async def test_a_private_repository_with_the_right_token(hub: HubServer) -> None:
    snapshot = await resolve(hub, "hf://org/private", "reader")
    assert [file.path for file in snapshot.files] == ["config.json"]
    assert all(r.headers["Authorization"] == "Bearer reader" for r in hub.log)


# -- what passes, and what does not ----------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Status(500), Status(502), Status(503), Status(429, retry_after=0), Reset(), Reset(after=10)],
    ids=str,
)
@pytest.mark.parametrize("path", ["revision", "tree"])
async def test_what_passes_is_asked_again(hub: HubServer, fault: Fault, path: str) -> None:
    events: list[Event] = []
    hub.fault(fault, where="api", path=path, times=2)
    snapshot = await resolve(hub, "hf://org/model", events=events)
    assert len(snapshot.files) == 4
    assert [event.attempt for event in events if isinstance(event, RetryScheduled)] == [1, 2]


async def test_a_pin_may_name_very_many_files(hub: HubServer) -> None:
    commit = hub.repo("org/model").head
    info = {"sha": commit, "siblings": [{"rfilename": "x" * 200}] * 250_000}
    hub.fault(Body(json.dumps(info).encode(), "application/json"), where="api", path="revision")
    assert (await resolve(hub, "hf://org/model")).commit == commit


async def test_a_page_may_not_be_as_long(hub: HubServer) -> None:
    hub.fault(LargeJson(17 * MIB), where="api", path="tree", times=None)
    with pytest.raises(SourceError, match="more than"):
        await resolve(hub, "hf://org/model")


async def test_an_answer_that_stands_still_is_asked_for_again(hub: HubServer) -> None:
    hub.fault(Stall(after=5), where="api")
    snapshot = await resolve(hub, "hf://org/model", stall_timeout=0.5)
    assert len(snapshot.files) == 4


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Status(500), "answered 500"),
        (Status(429, retry_after=0), "too busy"),
        (Status(418), "answered 418"),
        (Reset(), "failed"),
        (Body(), "did not answer with JSON"),
        (Body(b""), "did not answer with JSON"),
        (Body(b"\xff\xfe\0"), "did not answer with JSON"),
        (Body(b"[" * 100_000), "did not answer with JSON"),
        (Body(b"9" * 5000), "did not answer with"),
        (Body(b'"text"'), "did not answer with a JSON"),
        (Body(b"null"), "did not answer with a JSON"),
        (TruncatedBody(), "did not answer with JSON"),
        (LargeJson(65 * MIB), "more than"),
        (Body(b"[" + b"{}," * 1_000_000 + b"{}]"), "values"),
        (Body(b'{"": [' + b"[]," * 1_000_000 + b"[]]}"), "values"),
        (RedirectLoop(), "redirects more than"),
        (Redirect("file:///etc/passwd"), "not followed"),
        (Redirect("http://[bad/"), "not followed"),
        (Headers({"Content-Encoding": "br"}), "compressed by br"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("path", ["revision", "tree"])
async def test_what_does_not_pass_is_told(
    hub: HubServer, fault: Fault, words: str, path: str
) -> None:
    hub.fault(fault, where="api", path=path, times=None)
    with pytest.raises(SourceError, match=words) as caught:
        await resolve(hub, "hf://org/model", "reader")
    assert type(caught.value) is SourceError
    assert caught.value.exit_code == 75
    assert "reader" not in str(caught.value)


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"sha": None},
        {"sha": 7},
        {"sha": "main"},
        {"sha": "A" * 40},
        {"sha": "a" * 41},
        {"sha": "../" * 14},
        {"sha": "a" * 40, "id": None},
        {"sha": "a" * 40, "id": 7},
        {"sha": "a" * 40, "id": "a/b/c"},
        {"sha": "a" * 40, "id": "a/b?x"},
        {"sha": "a" * 40, "id": "../.."},
        {"sha": "a" * 40, "id": ""},
    ],
    ids=str,
)
async def test_a_pin_that_names_nothing_is_told(hub: HubServer, info: dict[str, Any]) -> None:
    hub.fault(Body(json.dumps(info).encode(), "application/json"), where="api", path="revision")
    with pytest.raises(SourceError, match="names no") as caught:
        await resolve(hub, "hf://org/model")
    assert type(caught.value) is SourceError


# -- pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        '<https://elsewhere.test/api/models/org/model/tree/x>; rel="next"',
        '<//elsewhere.test/x>; rel="next"',
        '<https://127.0.0.1:1/x>; rel="next"',
        '<http://[bad/>; rel="next"',
        '<http://127.0.0.1:port/>; rel="next"',
        '<file:///etc/passwd>; rel="next"',
    ],
)
async def test_a_next_page_elsewhere_is_refused(hub: HubServer, link: str) -> None:
    hub.fault(Headers({"Link": link}), where="api", path="tree")
    with pytest.raises(SourceError, match="another host"):
        await resolve(hub, "hf://org/model", "reader")
    assert len(requests(hub)) == 2


@pytest.mark.parametrize(
    "link",
    [
        '<{}>; rel="next"',
        "<{}>; rel=next",
        '<{}>;rel="next"',
        '<https://elsewhere.test/first>; rel="first", <{}>; rel="next"',
    ],
)
async def test_a_next_page_in_any_spelling_is_followed(hub: HubServer, link: str) -> None:
    commit = hub.repo("org/model").tags["v1"]
    page = f"/api/models/org/model/tree/{commit}?recursive=True&cursor=3"
    hub.fault(Headers({"Link": link.format(page)}), where="api", path="tree")
    assert len((await resolve(hub, "hf://org/model@v1")).files) == len(FILES)


async def test_a_listing_that_comes_back_to_itself_ends(hub: HubServer) -> None:
    commit = hub.repo("org/model").head
    here = f"/api/models/org/model/tree/{commit}?recursive=True"
    link = {"Link": f'<{here}>; rel="next"'}
    hub.fault(Headers(link), where="api", path="tree", times=None)
    with pytest.raises(SourceError, match="does not end"):
        await resolve(hub, "hf://org/model")
    assert len(requests(hub)) == 3


@pytest.mark.timeout(400)
async def test_a_listing_without_an_end_ends(hub: HubServer) -> None:
    hub.fault(EndlessTree(entries=60_000), where="api", path="tree", times=None)
    with pytest.raises(SourceError, match="does not end"):
        # A busy machine takes a while to read so much.
        await resolve(hub, "hf://org/model", longest=360)


@pytest.mark.parametrize(
    ("entries", "most"), [(1, 110), (20, 600)], ids=["one by one", "twenty by twenty"]
)
async def test_pages_that_bring_little_come_to_an_end(
    hub: HubServer, entries: int, most: int
) -> None:
    hub.fault(EndlessTree(entries=entries), where="api", path="tree", times=None)
    with pytest.raises(SourceError, match="does not end"):
        await resolve(hub, "hf://org/model")
    assert len(requests(hub)) < most


@pytest.mark.parametrize(("path", "late"), [("revision", 0.7), ("tree", 0.2)])
async def test_a_listing_that_takes_too_long_ends(hub: HubServer, path: str, late: float) -> None:
    hub.fault(LateFirstByte(late), where="api", path=path, times=None)
    hub.fault(EndlessTree(), where="api", path="tree", times=None)
    with pytest.raises(SourceError, match=r"has not listed hf://org/model within 0\.5 s"):
        await resolve(hub, "hf://org/model", longest=0.5)


async def test_an_answer_that_drips_is_given_up(hub: HubServer) -> None:
    hub.fault(Slow(20), where="api", path="tree", times=None)
    with pytest.raises(SourceError, match="too slowly"):
        await resolve(hub, "hf://org/model", stall_timeout=0.2)


async def test_an_answer_that_is_slow_and_comes_is_taken(hub: HubServer) -> None:
    """Longer than the time for a stall, and faster than what is given up."""
    commit = hub.repo("org/model").head
    hub.fault(LargeJson(9000), where="api", path="tree", times=None)
    hub.fault(Slow(6000), where="api", path="tree", times=None)
    files = (await resolve(hub, f"hf://org/model@{commit}", stall_timeout=0.5)).files
    assert files


async def test_pages_that_repeat_a_file_list_it_once(hub: HubServer) -> None:
    """The listing moves while its pages are read."""
    commit = hub.repo("org/model").tags["v1"]
    page = f"/api/models/org/model/tree/{commit}?recursive=True&cursor=1"
    hub.fault(Headers({"Link": f'<{page}>; rel="next"'}), where="api", path="tree")
    files = (await resolve(hub, "hf://org/model@v1")).files
    assert sorted(file.path for file in files) == sorted(FILES)


# -- entries ---------------------------------------------------------------------------------------

SHA1, SHA256 = "a" * 40, "b" * 64
GIT = {"type": "file", "path": "config.json", "size": 5, "oid": SHA1}
LFS = GIT | {"lfs": {"oid": SHA256, "size": 9, "pointerSize": 130}}


async def listed(hub: HubServer, *entries: object) -> tuple[RemoteFile, ...]:
    body = Body(json.dumps(entries).encode(), "application/json")
    hub.fault(body, where="api", path="tree")
    return (await resolve(hub, f"hf://org/model@{MISSING}")).files


@pytest.mark.parametrize(
    ("entry", "size", "digest"),
    [
        (GIT, 5, Digest("git-sha1", SHA1)),
        (GIT | {"lfs": None}, 5, Digest("git-sha1", SHA1)),
        (GIT | {"size": 0}, 0, Digest("git-sha1", SHA1)),
        (GIT | {"unknown": "field"}, 5, Digest("git-sha1", SHA1)),
        # The size of an LFS file is that of its content, whatever git has.
        (LFS, 9, Digest("sha256", SHA256)),
        (LFS | {"size": 130}, 9, Digest("sha256", SHA256)),
        (LFS | {"lfs": {"oid": SHA256, "size": 2**50}}, 2**50, Digest("sha256", SHA256)),
    ],
    ids=str,
)
async def test_an_entry(hub: HubServer, entry: object, size: int, digest: Digest) -> None:
    (file,) = await listed(hub, entry)
    assert (file.path, file.size, file.digest) == ("config.json", size, digest)


async def test_folders_are_no_files(hub: HubServer) -> None:
    folder = {"type": "directory", "path": "onnx", "size": 0, "oid": SHA1}
    assert [file.path for file in await listed(hub, folder, GIT)] == ["config.json"]


@pytest.mark.parametrize(
    "changed",
    [
        {"size": None},
        {"size": -1},
        {"size": "5"},
        {"size": 5.0},
        {"size": 1e300},
        {"size": True},
        {"size": [5]},
        {"oid": None},
        {"oid": 7},
        {"oid": ""},
        {"oid": SHA1[:-1]},
        {"oid": SHA1.upper()},
        {"oid": SHA256},
        {"lfs": {}},
        {"lfs": {"oid": SHA256}},
        {"lfs": {"size": 9}},
        {"lfs": {"oid": SHA256, "size": -1}},
        {"lfs": {"oid": SHA256, "size": "9"}},
        {"lfs": {"oid": SHA1, "size": 9}},
        {"lfs": {"oid": f"sha256:{SHA256}", "size": 9}},
        {"lfs": {"oid": SHA256 + "\n", "size": 9}},
    ],
    ids=str,
)
async def test_an_entry_that_proves_nothing_is_refused(
    hub: HubServer, changed: dict[str, Any]
) -> None:
    with pytest.raises(SourceError, match="without a usable size and digest"):
        await listed(hub, GIT | changed)


@pytest.mark.parametrize("entry", [None, 7, "config.json", [], {}, {"type": "file"}], ids=str)
async def test_an_entry_without_a_path_is_refused(hub: HubServer, entry: object) -> None:
    with pytest.raises(SourceError, match="without a path"):
        await listed(hub, GIT, entry)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "onnx/../../x",
        "..\\x",
        ".aim-downloader/lease",
        "a\nb",
        "\x1b[2Jx",
        "",
        ".",
        "x" * 300,
        "\ud800",
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_a_hostile_path_is_refused(hub: HubServer, path: str, kind: str) -> None:
    with pytest.raises(SourceError, match="a file that is refused") as caught:
        await listed(hub, GIT, GIT | {"type": kind, "path": path})
    assert str(caught.value).isprintable()
    assert "do not trust this repository" in caught.value.hint


@pytest.mark.parametrize(
    "entries",
    [
        [GIT, GIT | {"path": "config.json/x"}],
        [GIT | {"path": "a/b/c"}, GIT | {"path": "a/b"}],
        [GIT | {"path": "a/b"}, GIT | {"path": "a-b"}, GIT | {"path": "a.b"}, GIT | {"path": "a"}],
        [GIT, GIT | {"type": "directory"}],
        [GIT | {"type": "directory"}, GIT],
    ],
    ids=lambda entries: " ".join(entry["path"] for entry in entries),
)
async def test_what_is_both_file_and_folder_is_refused(
    hub: HubServer, entries: list[dict[str, Any]]
) -> None:
    with pytest.raises(SourceError, match="a file that is refused"):
        await listed(hub, *entries)


@pytest.mark.parametrize(
    ("changed", "blob_id", "xet_hash"),
    [
        ({}, SHA1, ""),
        ({"xetHash": SHA256}, SHA1, SHA256),
        ({"xetHash": SHA1}, SHA1, ""),
        ({"xetHash": 7, "oid": None}, "", ""),
    ],
    ids=str,
)
async def test_other_names_of_a_file_are_kept_when_they_are_some(
    hub: HubServer, changed: dict[str, Any], blob_id: str, xet_hash: str
) -> None:
    (file,) = await listed(hub, LFS | changed)
    assert (file.blob_id, file.xet_hash) == (blob_id, xet_hash)
