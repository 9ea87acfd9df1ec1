"""Hubs that mean ill: each ends bounded, with one clear error, and touches nothing else."""

import asyncio
import gzip
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aim_downloader.errors import SourceError
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import ModelURI
from aim_downloader.sources.hf import HubSource
from tests.fair_time import fair_time
from tests.folding import folding_folder
from tests.front import Evil, Front
from tests.hub import HubServer, faults
from tests.hub.delivery import Delivery
from tests.integration.support import (
    HIDDEN,
    MIB,
    TOKEN,
    URI,
    Command,
    Files,
    Finished,
    Running,
    assert_snapshot,
    content_requests,
    names_below,
)

GIT, LFS, LARGE = "config.json", "tokenizer.bin", "model.safetensors"
MODEL: Files = {GIT: b'{"model_type": "llama"}', LFS: os.urandom(3000), LARGE: os.urandom(3 * MIB)}
QUICK = RetryPolicy(attempts=2, first_delay=0.01, longest_delay=0.01, longest_patience=0.01)
SHA1, SHA256 = "a" * 40, "b" * 64
TOO_MUCH_MIB = 300

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Canary:
    """What is not ours: a folder beside the target, and files in the target."""

    places: tuple[Path, ...]
    before: Mapping[Path, tuple[int, int, bytes]] = field(default_factory=dict)

    def sing(self) -> None:
        """Nothing of it was read into our files, written, renamed or touched."""
        assert state_of(self.places) == self.before


def state_of(places: tuple[Path, ...]) -> dict[Path, tuple[int, int, bytes]]:
    paths = [path for place in places for path in [place, *place.rglob("*")]]
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ino, content_of(path)) for path in paths
    }


def content_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else b""


@pytest.fixture
def canary(tmp_path: Path, target: Path) -> Iterator[Canary]:
    """Looked at after every test that asks for it."""
    outside, mine = tmp_path / "outside", target / "mine"
    for folder in (outside / "partial", outside / "small", mine):
        folder.mkdir(parents=True)
    for path in ("lease", "origin.json", "committed", "partial/x.partial", "small/x", "x"):
        (outside / path).write_bytes(b"not yours")
    (mine / "notes.txt").write_bytes(b"of somebody else")
    canary = Canary((outside, mine), state_of((outside, mine)))
    yield canary
    canary.sing()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_repo("org/model", MODEL)
        server.add_token(TOKEN)
        yield server


def said_well(done: Finished) -> bool:
    """One error, for people."""
    return "Traceback" not in done.stderr and done.stderr.count("error:") == 1


def list_as(hub: HubServer, entries: object) -> None:
    """From now on the Hub lists this."""
    body = faults.Body(json.dumps(entries).encode(), "application/json")
    hub.fault(body, where="api", path="/tree/", times=None)


def listed(hub: HubServer) -> list[dict[str, Any]]:
    """What the Hub lists by right."""
    commit = hub.repo("org/model").head
    url = f"{hub.endpoint}/api/models/org/model/tree/{commit}?recursive=True"
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(asked) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    hub.clear_log()
    return found


def lie_of(hub: HubServer, path: str, **lies: object) -> None:
    """The Hub lists one file with other values."""
    entries = listed(hub)
    entry = next(entry for entry in entries if entry["path"] == path)
    if "lfs" in entry:
        entry["lfs"] = {**entry["lfs"], **lies}
    else:
        entry.update(lies)
    list_as(hub, entries)


# --- names ----------------------------------------------------------------------------------------


def file(path: str, **other: object) -> Entry:
    return {"type": "file", "path": path, "size": 2, "oid": SHA1, **other}


def folder(path: str) -> Entry:
    return {"type": "directory", "path": path, "size": 0, "oid": SHA1}


REFUSED = {
    "an absolute path": [file("/etc/cron.d/x")],
    "a NUL": [file("a\0b")],
    "300 bytes": [file("x" * 300)],
    "a path of 4,000 bytes": [file("d/" * 2000 + "x")],
    "no text": [file("\ud800")],
    "a file in a file": [file("a"), file("a/b")],
    "a file in a file, far apart": [file("a/b/c"), file("a-b"), file("a.b"), file("a")],
    "a file and a folder": [file("a"), folder("a")],
    "a folder and a file": [folder("a"), file("a")],
    "our folder in capitals": [file(f"{HIDDEN.upper()}/origin.json")],
    "our folder with a dot behind": [file(f"{HIDDEN}./origin.json")],
    "our folder with what nobody sees": [file(".aim\u034f-downloader/origin.json")],
    "our folder in wide letters": [file("\uff0e\uff41im-downloader/origin.json")],
    "our folder as a file": [file(HIDDEN)],
}


@pytest.mark.parametrize("entries", REFUSED.values(), ids=REFUSED)
def test_a_listing_is_refused_before_anything_is_written(
    hub: HubServer, command: Command, tmp_path: Path, canary: Canary, entries: list[Entry]
) -> None:
    list_as(hub, [file(GIT), *entries])
    done = command.run(URI, tmp_path / "new")
    assert done.code == 75, done.said
    assert said_well(done)
    assert "refused" in done.stderr
    assert not (tmp_path / "new").exists()
    assert not content_requests(hub.log)


DIFFERENT = {
    "255 bytes": ["x" * 255, "ü" * 127 + "x", f"{'d' * 255}/{'e' * 255}"],
    "case": ["README.md", "readme.md", "Readme.MD", "onnx/a", "ONNX/A"],
    "Unicode's forms": ["caf\u00e9.json", "cafe\u0301.json", "\ufb01", "fi", "\u212a", "K"],
    "names that end in dots and spaces": ["a", "a.", "a ", "a. ."],
    "names of Windows": ["con", "NUL.txt", "a:b", "a*b?", "AIM-DO~1"],
    "nearly our folder": [f"{HIDDEN}s/x", f"x{HIDDEN}", "aim-downloader/x"],
}


@pytest.mark.parametrize("large", [False, True], ids=["git", "LFS"])
@pytest.mark.parametrize("names", DIFFERENT.values(), ids=DIFFERENT)
def test_names_that_this_file_system_tells_apart_are_files_of_their_own(
    hub: HubServer, command: Command, target: Path, names: list[str], large: bool
) -> None:
    files = {name: os.urandom(MIB + 5 if large else 9) for name in names}
    hub.add_repo("org/names", files, lfs=lambda _: large)
    done = command.run("hf://org/names", target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """On a file system that does not tell case and Unicode's forms apart."""
    with folding_folder(tmp_path) as folder:
        yield folder


@pytest.mark.parametrize("large", [False, True], ids=["git", "LFS"])
@pytest.mark.parametrize(
    "names",
    [["README.md", "readme.md"], ["caf\u00e9.json", "cafe\u0301.json"], ["onnx/a", "ONNX/a"]],
    ids=ascii,
)
def test_where_two_names_are_one_neither_file_replaces_the_other(
    hub: HubServer, command: Command, folding: Path, names: list[str], large: bool
) -> None:
    files = {name: os.urandom(MIB + 5 if large else 9) for name in [GIT, *names]}
    hub.add_repo("org/names", files, lfs=lambda _: large)
    done = command.run("hf://org/names", folding / "model")
    assert done.code == 73, done.said
    assert said_well(done)
    assert "are one name" in done.stderr
    assert not content_requests(hub.log)
    assert not list(folding.iterdir())
    done = command.run("hf://org/names", folding / "model", "--exclude", names[1])
    assert done.code == 0, done.said
    assert_snapshot(folding / "model", {name: files[name] for name in [GIT, names[0]]})


def test_a_model_without_such_names_comes_there_too(command: Command, folding: Path) -> None:
    for _ in range(2):
        done = command.run(URI, folding / "model")
        assert done.code == 0, done.said
        assert_snapshot(folding / "model", MODEL)


# --- sizes and digests ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Lie:
    """What the Hub says of a file that it serves as it is, and how that ends."""

    path: str
    said: Mapping[str, object]
    code: int
    words: str


LIES = {
    "10 TB": Lie(LARGE, {"size": 10 * 10**12}, 73, "are missing"),
    "more bytes than there are numbers": Lie(LARGE, {"size": 10**30}, 73, "are missing"),
    "10 TB of a small file": Lie(LFS, {"size": 10 * 10**12}, 73, "are missing"),
    "a negative size": Lie(LARGE, {"size": -1}, 75, "usable size"),
    "half a byte": Lie(LARGE, {"size": 0.5}, 75, "usable size"),
    "true": Lie(LARGE, {"size": True}, 75, "usable size"),
    "a digest too short": Lie(LARGE, {"oid": SHA1}, 75, "digest"),
    "a digest that is none": Lie(GIT, {"oid": "../../../etc/passwd"}, 75, "digest"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_size_or_digest_that_cannot_be_ends_it_before_the_first_byte(
    hub: HubServer, command: Command, target: Path, canary: Canary, lie: Lie
) -> None:
    lie_of(hub, lie.path, **lie.said)
    done = command.run(URI, target)
    assert done.code == lie.code, done.said
    assert said_well(done)
    assert lie.words in done.stderr
    assert not content_requests(hub.log)
    assert names_below(target) == {"mine/notes.txt"}


SERVED_OTHERWISE = {
    "a small file is larger": Lie(LFS, {"size": 2999}, 69, LFS),
    "a small file is smaller": Lie(LFS, {"size": 3001}, 69, LFS),
    "a small file should be empty": Lie(LFS, {"size": 0}, 69, LFS),
    "a small file should be large": Lie(LFS, {"size": 2 * MIB}, 69, LFS),
    "a large file is larger": Lie(LARGE, {"size": 3 * MIB - 1}, 69, LARGE),
    "a large file is smaller": Lie(LARGE, {"size": 3 * MIB + 1}, 69, LARGE),
    "a large file should be small": Lie(LARGE, {"size": 10}, 69, LARGE),
    "another digest of a small file": Lie(LFS, {"oid": SHA256}, 69, LFS),
    "another digest of a large file": Lie(LARGE, {"oid": SHA256}, 69, LARGE),
    "another digest of a file of git": Lie(GIT, {"oid": SHA1}, 69, GIT),
}


@pytest.mark.parametrize("lie", SERVED_OTHERWISE.values(), ids=SERVED_OTHERWISE)
def test_a_file_that_is_served_otherwise_than_listed_gets_no_name(
    hub: HubServer, command: Command, target: Path, canary: Canary, lie: Lie
) -> None:
    lie_of(hub, lie.path, **lie.said)
    (target / lie.path).write_bytes(b"what was there before")
    done = command.run(URI, target, timeout=110)
    assert done.code == lie.code, done.said
    assert said_well(done)
    assert lie.words in done.stderr
    assert (target / lie.path).read_bytes() == b"what was there before"
    assert not any("SHA256SUMS" in name for name in names_below(target))


# --- what somebody has planted in the target ------------------------------------------------------


def link(to: str) -> Callable[[Path, Path], None]:
    return lambda path, outside: path.symlink_to(outside / to)


def nowhere(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nowhere")


def itself(path: Path, outside: Path) -> None:
    path.symlink_to(path)


def hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "x")


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def full_folder(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "x").write_bytes(b"of somebody else")


PLANTED: list[tuple[str, Callable[[Path, Path], None], int]] = [
    (HIDDEN, link(""), 73),
    (HIDDEN, nowhere, 73),
    (HIDDEN, itself, 73),
    (HIDDEN, pipe, 73),
    (f"{HIDDEN}/partial", link("partial"), 73),
    (f"{HIDDEN}/small", link("small"), 73),
    (f"{HIDDEN}/lease", link("lease"), 73),
    (f"{HIDDEN}/lease", nowhere, 73),
    (f"{HIDDEN}/lease", pipe, 73),
    (f"{HIDDEN}/lease", full_folder, 73),
    (f"{HIDDEN}/committed", link("committed"), 73),
    (f"{HIDDEN}/committed", nowhere, 73),
    (f"{HIDDEN}/committed", pipe, 73),
    (f"{HIDDEN}/committed", hard_link, 73),
    (f"{HIDDEN}/origin.json", link("origin.json"), 0),
    (f"{HIDDEN}/origin.json", hard_link, 0),
    (f"{HIDDEN}/origin.json", pipe, 0),
    (f"{HIDDEN}/SHA256SUMS", link("x"), 0),
    (f"{HIDDEN}/SHA256SUMS", pipe, 0),
    (f"{HIDDEN}/SHA256SUMS", full_folder, 73),
    (LARGE, link("x"), 0),
    (LARGE, hard_link, 0),
    (LARGE, itself, 0),
    (LARGE, pipe, 0),
    (GIT, link("x"), 0),
    (GIT, hard_link, 0),
    (GIT, pipe, 0),
]


@pytest.mark.parametrize(
    ("place", "plant", "code"),
    PLANTED,
    ids=[f"{place}-{plant.__qualname__.split('.')[0]}" for place, plant, _ in PLANTED],
)
def test_what_is_planted_leads_nowhere(
    command: Command,
    tmp_path: Path,
    target: Path,
    canary: Canary,
    place: str,
    plant: Callable[[Path, Path], None],
    code: int,
) -> None:
    path = target / place
    path.parent.mkdir(exist_ok=True)
    plant(path, tmp_path / "outside")
    done = command.run(URI, target)
    assert done.code == code, done.said
    if code:
        assert said_well(done)
        assert place.rsplit("/", maxsplit=1)[-1] in done.stderr
    else:
        for name, content in MODEL.items():
            assert not (target / name).is_symlink()
            assert (target / name).read_bytes() == content


# --- answers that are none ------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY_LIST = b"Content-Length: 2\r\n\r\n[]"


def says(*pieces: bytes) -> Evil:
    async def evil() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return evil


def drips(begin: bytes, drop: bytes) -> Evil:
    """A drop now and then, so that the connection never stands still."""

    async def evil() -> AsyncIterator[bytes]:
        yield begin
        while True:
            yield drop
            await asyncio.sleep(0.1)

    return evil


def never_ends(begin: bytes, more: bytes) -> Evil:
    async def evil() -> AsyncIterator[bytes]:
        yield begin
        while True:
            yield more

    return evil


def bomb() -> bytes:
    body = gzip.compress(bytes(64 * MIB))
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


ANSWERS: dict[str, Evil] = {
    "nothing": says(),
    "another language": says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "garbage": says(b"\0\xff\r\n" * 50_000),
    "a status without an end": never_ends(b"HTTP/1.1 200 ", b"x" * 65536),
    "thousands of headers": says(
        OK, b"".join(b"X-%d: y\r\n" % number for number in range(20_000)), EMPTY_LIST
    ),
    "headers without an end": never_ends(OK, b"X: y\r\n" * 1000),
    "a header of 1 MiB": says(OK, b"X: ", b"y" * MIB, b"\r\n", EMPTY_LIST),
    "headers that drip": drips(OK, b"X"),
    "header lines that drip": drips(OK, b"X: y\r\n"),
    "a body that drips": drips(OK + b"Content-Length: 9000\r\n\r\n", b" "),
    "chunks that drip": drips(CHUNKED, b"1\r\n \r\n"),
    "a body without an end": never_ends(OK + b"\r\n", b" " * 65536),
    "a chunk's name without an end": never_ends(CHUNKED + b"1;", b"x" * 65536),
    "trailers without an end": never_ends(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000),
    "to be continued without an end": never_ends(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "two lengths": says(OK, b"Content-Length: 3\r\n", EMPTY_LIST),
    "a negative length": says(OK, b"Content-Length: -2\r\n\r\n[]"),
    "a length of 400 digits": says(OK, b"Content-Length: ", b"9" * 400, b"\r\n\r\n[]"),
    "a chunk of 40 digits": says(CHUNKED, b"f" * 40, b"\r\n[]"),
    "another protocol": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n[]"),
    "a compressed bomb": says(OK, b"Content-Encoding: gzip\r\n", bomb()),
    "compressed twice": says(OK, b"Content-Encoding: gzip, br\r\n", bomb()),
    "compressed on the way": says(OK, b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a thousand cookies": says(OK, b"Set-Cookie: a=b\r\n" * 1000, EMPTY_LIST),
    "deep JSON": says(OK, b"\r\n", b"[" * MIB),
    "millions of values": says(OK, b"\r\n[", b"[]," * (5 * MIB), b"1]"),
    "a number of a million digits": says(OK, b"\r\n[", b"9" * MIB, b"]"),
    "half of it": says(OK, b"\r\n", b'[{"type": "file", "path": "a'),
    "a page": says(OK, b"\r\n<html>Please sign in</html>"),
}


@pytest.fixture
def front(hub: HubServer) -> Iterator[Front]:
    with Front(hub.endpoint) as front:
        yield front


@pytest.mark.parametrize("evil", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_that_is_none_ends_the_listing(front: Front, evil: Evil) -> None:
    trap = front.trap("/tree/", evil)
    network = Network(front.url, TOKEN, stall_timeout=0.4)
    began = fair_time()
    async with asyncio.timeout(30), AsyncClient(network, 2) as client:
        source = HubSource(client, network.endpoint, lambda event: None, QUICK)
        with pytest.raises(SourceError) as caught:
            await source.resolve(ModelURI.parse(f"{URI}@{SHA1}"))
    assert fair_time() - began < 15
    assert type(caught.value) is SourceError
    assert caught.value.exit_code == 75
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    # aiohttp itself asks once more when a connection ends without an answer.
    assert trap.met <= 2 * QUICK.attempts


PASSES = ["headers that drip", "a body that drips", "a header of 1 MiB", "thousands of headers"]


@pytest.mark.parametrize("what", ["/tree/", f"/{GIT}", f"/{LFS}", f"/{LARGE}"])
@pytest.mark.parametrize("answer", PASSES)
def test_after_an_answer_that_is_none_it_is_asked_again(
    hub: HubServer, front: Front, command: Command, target: Path, answer: str, what: str
) -> None:
    trap = front.trap(what, ANSWERS[answer], times=1)
    done = command.run(URI, target, HF_ENDPOINT=front.url)
    assert done.code == 0, done.said
    assert trap.met == 1
    assert_snapshot(target, MODEL)


# --- in memory and time ---------------------------------------------------------------------------


def highest_memory(running: Running) -> float:
    """MiB that it had at most, as Linux counts them, until it ended."""
    most = 0
    while not running.ended:
        try:
            status = Path(f"/proc/{running.process.pid}/status").read_text("ascii")
        except OSError:
            break
        lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
        most = max([most, *(int(line[1]) for line in lines)])
        time.sleep(0.02)
    return most / 1024


@dataclass(frozen=True)
class LongTree:
    """A listing of many entries, page by page."""

    entries: int
    page: int = 1000

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        first = int(request.query.get("cursor") or 0)
        numbers = range(first, min(self.entries, first + self.page))
        tree = [entry_of(number) for number in numbers]
        headers = {}
        if numbers.stop < self.entries:
            after = f"{request.path}?recursive=True&cursor={numbers.stop}"
            headers["Link"] = f'<{after}>; rel="next"'
        delivery = faults.Body(json.dumps(tree).encode(), "application/json").apply(
            delivery, request, begin
        )
        return faults.Headers(headers).apply(delivery, request, begin)


def entry_of(number: int) -> Entry:
    path = f"data/shard-{number // 1000:04}/model-{number:08}-of-00200000.safetensors"
    lfs = {"oid": f"{number:064x}", "size": 2**30, "pointerSize": 130}
    return {"type": "file", "path": path, "size": 2**30, "oid": f"{number:040x}", "lfs": lfs}


@dataclass(frozen=True)
class Bomb:
    """An answer of few bytes that takes many when it is read."""

    body: bytes

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return faults.Body(self.body, "application/json").apply(delivery, request, begin)


LONG_NAME = json.dumps([file("\U0001f917" * 3_000_000)], ensure_ascii=False).encode()
BOMBS: dict[str, tuple[faults.Fault, int]] = {
    # Refused at the end, for lack of space: 200 TiB.
    "200,000 files": (LongTree(200_000), 73),
    "millions of lists": (Bomb(b"[" + b"[]," * (4 * MIB) + b"[]]"), 75),
    "millions of objects": (Bomb(b"[" + b"{}," * 900_000 + b"{}]"), 75),
    "a name of millions": (Bomb(LONG_NAME), 75),
    "more than an answer may have": (Bomb(b" " * (400 * MIB)), 75),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("fault", "code"), BOMBS.values(), ids=BOMBS)
def test_no_listing_takes_much_memory(
    hub: HubServer, command: Command, target: Path, fault: faults.Fault, code: int
) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells how much memory a process had")
    hub.fault(fault, where="api", path="/tree/", times=None)
    running = command.start(URI, target)
    most = highest_memory(running)
    done = running.finish()
    print(f"{most:.0f} MiB, {done.seconds:.1f} s")
    assert done.code == code, done.said
    assert said_well(done)
    assert most < TOO_MUCH_MIB
    assert not content_requests(hub.log)
    assert not target.exists()
