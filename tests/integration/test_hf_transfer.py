"""HF_TRANSFER: the engine brings what begins empty; what it leaves the range engine completes."""

import asyncio
import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aim_downloader.demo.content import Content
from aim_downloader.demo.reply import Reply, Where
from aim_downloader.errors import (
    AccessDeniedError,
    AllProtocolsFailedError,
    DownloadError,
    SnapshotNotFoundError,
)
from aim_downloader.events import FileRejected, ProtocolSwitched, RetryScheduled
from aim_downloader.governor import Governor
from aim_downloader.http_client.network import Network
from aim_downloader.partial import Partial
from aim_downloader.progress import Traffic
from aim_downloader.protocols.base import Run
from aim_downloader.protocols.hf_transfer import CHUNK, HfTransferProtocol
from aim_downloader.protocols.http import HttpProtocol
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import Digest, RemoteFile
from aim_downloader.worker import Message, Worker
from tests.hub import HubServer, RequestRecord, faults
from tests.hub.delivery import Delivery
from tests.integration.support import (
    HIDDEN,
    LATE,
    MIB,
    TOKEN,
    URI,
    Command,
    Downloader,
    Files,
    assert_polite,
    assert_snapshot,
    cdn_requests,
    most_at_once,
    names_below,
    size_of,
    total_size,
    wait_until,
)

LARGE, OTHER = "model.safetensors", "other.safetensors"
SIZE = 24 * MIB
MIDDLE = 10 * MIB + 77
ENGINE = "aim_downloader.engines.hf_transfer"
ONLY: Mapping[str, Any] = {"protocols": ("HF_TRANSFER",)}
# Slow enough for the run to see chunks come, one by one.
PACE = 30e6


@pytest.fixture
def command(command: Command) -> Command:
    command.environment |= {"AIM_DOWNLOADER_PROTOCOL": "HF_TRANSFER", "HF_TOKEN": TOKEN}
    return command


Mount = Callable[..., Path]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system in memory, of a kind and with options."""
    mounted: list[Path] = []

    def mount(kind: str, *options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root may mount a file system")
        folder = tmp_path / kind
        folder.mkdir()
        words = ["mount", "-t", kind, *options, kind, str(folder)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def times_begun(log: Iterable[RequestRecord], path: str) -> int:
    """How often the engine was given a file: it asks for the first chunk of it, as nobody else."""
    return [each.range for each in log if each.file == path].count(f"bytes=0-{CHUNK - 1}")


# --- the lane by itself ---------------------------------------------------------------------------

SIZES = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * MIB - 4096, 3 * CHUNK, 3 * CHUNK + 123, 7 * MIB + 1]


def remote(hub: HubServer, path: str, content: bytes, digest: bool = True) -> RemoteFile:
    sha256 = hashlib.sha256(content).hexdigest()
    url = f"{hub.endpoint}/org/sizes/resolve/main/{path}"
    return RemoteFile(path, len(content), Digest("sha256", sha256) if digest else None, sha256, url)


def new_run(hub: HubServer, connections: int, scratch: Path) -> Run:
    return Run(
        Network(hub.endpoint, TOKEN, 20),
        connections,
        RetryPolicy(),
        Traffic(),
        lambda event: None,
        Governor(connections),
        scratch=scratch,
    )


async def bring(run: Run, partials: Iterable[Partial]) -> None:
    async with (
        HttpProtocol().open(run) as ranges,
        HfTransferProtocol(ranges).open(run) as lane,
    ):
        await asyncio.gather(*(lane.fetch(one.file, one) for one in partials))
        assert lane.connections == ranges.connections == 0


@pytest.mark.parametrize("connections", [1, 2, 8])
async def test_files_of_all_sizes_are_right(
    hub: HubServer, tmp_path: Path, pool: bytes, connections: int
) -> None:
    contents = {f"{size}.safetensors": pool[size : 2 * size] for size in SIZES}
    hub.add_repo("org/sizes", contents)
    hub.fault(LATE, where="cdn", times=None)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run = new_run(hub, connections, scratch)
    partials = {
        path: Partial(tmp_path / path, remote(hub, path, content), path)
        for path, content in contents.items()
    }
    await bring(run, partials.values())
    for path, content in contents.items():
        partials[path].commit(tmp_path / "final")
        assert (tmp_path / "final").read_bytes() == content
    assert run.traffic.received == total_size(contents)
    assert not list(scratch.iterdir())
    assert most_at_once([each for each in hub.log if each.where == "cdn"]) <= connections


@pytest.mark.parametrize("why", ["no symlinks", "no digest", "no holes"])
async def test_where_the_engine_is_of_no_use_ranges_are(
    hub: HubServer, tmp_path: Path, volume: Mount, pool: bytes, why: str
) -> None:
    content = pool[: 3 * MIB]
    hub.add_repo("org/sizes", {LARGE: content})
    scratch = tmp_path / "not there" if why == "no symlinks" else tmp_path
    # Of what lies in a ramfs the kernel says that all is data.
    folder = volume("ramfs") if why == "no holes" else tmp_path
    file = remote(hub, LARGE, content, digest=why != "no digest")
    partial = Partial(folder / "partial", file, "")
    await bring(new_run(hub, 4, scratch), [partial])
    partial.commit(folder / "final")
    assert (folder / "final").read_bytes() == content
    assert not times_begun(hub.log, LARGE)


# --- a whole model --------------------------------------------------------------------------------


async def test_a_model_is_right(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    await downloader(target, **ONLY)
    assert_snapshot(target, files)
    # Plain GETs, and the token for the Hub alone.
    assert_polite(hub.log)
    assert hub.bytes_sent() <= total_size(files) + 2 * len(files)
    for path in (LARGE, OTHER):
        located, asked, *chunks = cdn_requests(hub.log, path)
        assert located.range == asked.range == "bytes=0-0"
        assert located.query["Signature"] == asked.query["Signature"]
        assert {each.bytes_sent for each in chunks} <= {CHUNK, size_of(files[path]) % CHUNK}
    assert not downloader.told(RetryScheduled)
    assert not downloader.told(FileRejected)


async def test_the_engine_never_has_the_token(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    """What the Hub itself sends comes by ranges: the engine would hand it on to other ports."""
    hub.add_repo("org/plain", {"tokenizer.json": files[LARGE]}, private=True)
    hub.add_token("hf_reader", reads=("org/plain",))
    await downloader(target, "hf://org/plain", token="hf_reader", **ONLY)
    assert_snapshot(target, {"tokenizer.json": files[LARGE]})
    assert_polite(hub.log, "hf_reader")
    assert not times_begun(hub.log, "tokenizer.json")


async def test_without_a_token_the_engine_may_ask_the_hub(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.add_repo("org/plain", {"tokenizer.json": files[LARGE]})
    await downloader(target, "hf://org/plain", token="", **ONLY)
    assert_snapshot(target, {"tokenizer.json": files[LARGE]})
    assert times_begun(hub.log, "tokenizer.json") == 1


@pytest.mark.parametrize("why", ["a speed limit", "bytes that are there"])
async def test_the_range_engine_takes_what_the_other_cannot(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, why: str
) -> None:
    settings: dict[str, Any] = {"include": (LARGE,), **ONLY}
    if why == "a speed limit":
        settings["limit_rate"] = 100 * MIB
    else:
        hub.pace(20e6)
        half = asyncio.create_task(downloader(target, **settings))
        await asyncio.to_thread(hub.wait_for_bytes, SIZE // 2)
        half.cancel()
        await asyncio.gather(half, return_exceptions=True)
        hub.pace(None)
        hub.clear_log()
    await downloader(target, **settings)
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert "bytes=0-0" not in [each.range for each in hub.log]
    assert hub.bytes_sent() <= SIZE


# --- faults ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A fault of the CDN; what a run says of it, and what it costs: bytes that come twice.

    ``skip``: the first two requests are for one byte, ours and the engine's.
    """

    fault: faults.Fault
    times: int | None = 1
    at: int | None = None
    skip: int = 0
    said: str | None = None
    rejected: int = 0


CASES = {
    "reset": Case(faults.Reset(), at=MIDDLE),
    "reset three times": Case(faults.Reset(), at=MIDDLE, times=4, said="decoding response body"),
    "body cut": Case(faults.ShortBody(), at=MIDDLE),
    "stall": Case(faults.Stall(), at=MIDDLE, said="nothing came for"),
    "500 now and then": Case(faults.Status(500), skip=2),
    "500 for a while": Case(faults.Status(500), skip=5, times=4, said="answered 500"),
    "503": Case(faults.Status(503, retry_after=1), skip=5, times=4, said="too busy"),
    "URL expired": Case(faults.ExpiredUrl(), skip=6, said="answered 403"),
    "fewer bytes": Case(faults.FewerBytes(MIB), at=0, skip=2),
    "byte damaged": Case(faults.DamagedByte(MIDDLE), rejected=1),
    "last byte damaged": Case(faults.DamagedByte(SIZE - 1), rejected=1),
    "Content-Range off by one": Case(faults.WrongContentRange(), skip=4),
    "416": Case(faults.RangeNotSatisfiable(), skip=4, times=4, said="answered 416"),
}


@pytest.mark.parametrize("name", CASES)
async def test_the_bytes_are_right_after(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, name: str
) -> None:
    case = CASES[name]
    hub.pace(PACE)
    scripted = hub.fault(
        case.fault, path=LARGE, where="cdn", times=case.times, at=case.at, skip=case.skip
    )
    await downloader(target, include=(LARGE,), **ONLY)
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert_polite(hub.log)
    assert scripted.fired
    reasons = [event.reason for event in downloader.told(RetryScheduled)]
    assert any(case.said in reason for reason in reasons) if case.said else not reasons, reasons
    assert not [reason for reason in reasons if "Signature" in reason]
    assert len(downloader.told(FileRejected)) == case.rejected
    # What was proven is not fetched again.
    again = 8 * 2 * MIB + 8 * MIB + case.rejected * 2 * SIZE
    assert hub.bytes_sent(LARGE) - SIZE <= again


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("hub", faults.Status(500)),
        ("hub", faults.IgnoredRange()),
        ("cdn", faults.Status(500)),
        ("cdn", faults.IgnoredRange()),
        ("cdn", faults.RangeNotSatisfiable()),
        ("cdn", faults.WrongContentRange()),
        ("cdn", faults.Stall()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_byte_that_cannot_be_had_is_left_to_the_range_engine(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    files: Files,
    where: Where,
    fault: faults.Fault,
) -> None:
    hub.fault(fault, path=LARGE, where=where)
    await downloader(target, include=(LARGE,), **ONLY)
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert [each.range for each in hub.log if each.where == where].count("bytes=0-0") == 1
    assert not times_begun(hub.log, LARGE)


async def test_a_server_without_ranges_is_asked_for_the_whole(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.IgnoredRange(), path=LARGE, where="cdn", times=None)
    await downloader(target, include=(LARGE,), **ONLY)
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert not downloader.told(RetryScheduled)


async def test_a_server_that_forgets_a_range(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    """All chunks that follow are overwritten, by bytes of other places."""
    scripted = hub.fault(faults.IgnoredRange(), path=LARGE, where="cdn", skip=5)
    await downloader(target, include=(LARGE,), **ONLY)
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert scripted.fired


async def test_wrong_bytes_are_not_had_from_the_engine_again(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.DamagedByte(MIDDLE), path=LARGE, where="cdn")
    await downloader(target, include=(LARGE,), **ONLY)
    assert_snapshot(target, {LARGE: files[LARGE]})
    [rejected] = downloader.told(FileRejected)
    assert "sha256" in rejected.reason
    assert times_begun(hub.log, LARGE) == 1


@dataclass(frozen=True)
class Larger:
    """The file is larger than it was listed, and an answer may be longer than its range."""

    grow: int
    body: int | None = None

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        first, last = map(int, request.headers["Range"].removeprefix("bytes=").split("-"))
        size = SIZE + self.grow
        last = min(last, size - 1)
        length = self.body if self.body and last else last + 1 - first
        headers = {
            "Content-Range": f"bytes {first}-{last}/{size}",
            "Content-Length": str(length),
        }
        content = Content(bytes(length))
        return replace(delivery, reply=Reply(206, headers, content, 0, length, content))


LIES = {
    "more chunks": Larger(16 * MIB),
    "longer chunks": Larger(0, 3 * CHUNK),
    "both": Larger(16 * MIB, 3 * CHUNK),
}


@pytest.mark.parametrize("name", LIES)
async def test_the_engine_writes_no_more_than_is_listed(
    hub: HubServer, tmp_path: Path, pool: bytes, name: str
) -> None:
    hub.add_repo("org/sizes", {LARGE: pool[: 3 * MIB]})
    hub.fault(LIES[name], path=LARGE, times=None)
    heard: list[Message] = []
    written, link = tmp_path / "written", tmp_path / "link"
    written.touch()
    link.symlink_to(written)
    ended = asyncio.Event()

    def hear(message: Message) -> None:
        heard.append(message)
        if {"done", "error"} & {*message}:
            ended.set()

    worker = await Worker.start(ENGINE, environ={}, on_message=hear)
    call = {
        "url": f"{hub.endpoint}/org/sizes/resolve/main/{LARGE}",
        "filename": str(link),
        "max_files": 4,
        "chunk_size": CHUNK,
    }
    try:
        worker.send({"size": SIZE, "call": call})
        await asyncio.wait_for(ended.wait(), 30)
    finally:
        await worker.end()
    assert written.stat().st_size <= SIZE
    assert "File too large" in heard[-1]["error"]
    # It does not go on for as long as the server has more.
    assert hub.bytes_sent(LARGE) <= 2 * SIZE * (LIES[name].body or CHUNK) // CHUNK


async def test_a_server_that_has_more_for_the_engine_spoils_nothing(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    # Its first byte, each chunk, and as many more as may be under way.
    times = 1 + SIZE // CHUNK + 1 + 4
    hub.fault(Larger(16 * MIB), path=LARGE, where="cdn", skip=1, times=times)
    await downloader(target, include=(LARGE,), **ONLY)
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert "more than is listed" in downloader.told(RetryScheduled)[0].reason


async def test_where_chunks_never_end_the_range_engine_goes_on(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    """The engine tells of whole chunks alone, so a slow link looks like a stall to it."""
    for path in (LARGE, OTHER):
        hub.fault(faults.Stall(after=100_000), path=path, where="cdn", skip=2, times=4)
    await downloader(target, include=(LARGE, OTHER), **ONLY)
    assert_snapshot(target, {path: files[path] for path in (LARGE, OTHER)})


async def test_what_stays_damaged_is_nobodys(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    hub.fault(faults.DamagedByte(MIDDLE), path=LARGE, where="cdn", times=None)
    with pytest.raises(AllProtocolsFailedError) as caught:
        await downloader(target, include=(LARGE,), **ONLY)
    assert caught.value.exit_code == 69
    assert [name for name, _ in caught.value.attempts] == ["HF_TRANSFER"]
    assert not (target / LARGE).exists()


async def test_the_next_protocol_takes_over(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.DamagedByte(MIDDLE), path=LARGE, where="cdn", times=2)
    await downloader(target, include=(LARGE,), protocols=("HF_TRANSFER", "HTTP"))
    assert_snapshot(target, {LARGE: files[LARGE]})
    [switched] = downloader.told(ProtocolSwitched)
    assert "sha256" in switched.reason


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AccessDeniedError), (403, AccessDeniedError), (404, SnapshotNotFoundError)],
)
async def test_a_refusal_of_the_hub_is_told_before_an_engine_runs(
    hub: HubServer, downloader: Downloader, target: Path, status: int, error: type[DownloadError]
) -> None:
    refused = hub.fault(faults.Status(status), path=LARGE, where="hub", times=None)
    with pytest.raises(error):
        await downloader(target, include=(LARGE,), **ONLY)
    assert refused.fired == 1
    assert not cdn_requests(hub.log, LARGE)


# --- its process ----------------------------------------------------------------------------------


def engines_of(pid: int) -> list[int]:
    """The children of a process that run the engine."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if ENGINE in line]


async def test_an_engine_that_is_killed_leaves_what_is_proven(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(20e6)
    running = asyncio.create_task(downloader(target, include=(LARGE,), **ONLY))
    await asyncio.to_thread(hub.wait_for_bytes, SIZE // 2)
    for pid in engines_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    await running
    assert_snapshot(target, {LARGE: files[LARGE]})
    [told] = downloader.told(RetryScheduled)
    assert "SIGKILL" in told.reason
    assert hub.bytes_sent(LARGE) - SIZE <= 8 * 2 * MIB
    assert not engines_of(os.getpid())


def test_killed_at_half_the_next_run_goes_on(
    hub: HubServer, command: Command, target: Path, pool: bytes
) -> None:
    files = {"one.safetensors": pool[: 48 * MIB], "two.safetensors": pool[-48 * MIB + 77 :]}
    hub.add_repo("org/two", files)
    hub.pace(60e6)
    connections = 4
    running = command.start("hf://org/two", target, "--connections", str(connections))
    hub.wait_for_bytes(total_size(files) // 2)
    children = engines_of(running.process.pid)
    assert children
    running.kill()
    # They end with their parent, whatever they do.
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in children), 5)
    hub.pace(None)
    done = command.run("hf://org/two", target, "--connections", str(connections))
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert hub.bytes_sent() - total_size(files) <= connections * 2 * MIB + 8 * MIB


def test_ctrl_c_ends_the_engine_and_keeps_what_is_proven(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    hub.pace(10e6)
    running = command.start(URI, target, "--connections", "4")
    hub.wait_for_bytes(12 * MIB)
    children = engines_of(running.process.pid)
    done = running.end_by(signal.SIGINT)
    assert done.code == 130, done.said
    assert done.fair_seconds < 3
    assert not any(Path(f"/proc/{pid}/stat").exists() for pid in children)
    assert not (target / HIDDEN / "scratch").exists()
    hub.pace(None)
    hub.clear_log()
    again = command.run(URI, target)
    assert again.code == 0, again.said
    assert_snapshot(target, files)
    assert hub.bytes_sent(LARGE) < SIZE


# --- what is said, and left -----------------------------------------------------------------------


def test_a_signed_url_is_never_shown(hub: HubServer, command: Command, target: Path) -> None:
    hub.fault(faults.Status(500), path=LARGE, where="cdn", times=4, skip=1)
    done = command.run(URI, target, "--json")
    assert done.code == 0, done.said
    assert "answered 500" in done.stdout
    for secret in ("Signature", "Key-Pair-Id", TOKEN):
        assert secret not in done.said
    assert not [name for name in names_below(target) if "scratch" in name]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "ModuleNotFoundError(\"No module named 'hf_transfer'\", name='hf_transfer')",
            "hf_transfer is not installed",
        ),
        ("ImportError('no wheel for this machine')", "it cannot be loaded: no wheel"),
    ],
)
def test_without_the_engine_ranges_bring_all(
    hub: HubServer,
    command: Command,
    tmp_path: Path,
    target: Path,
    files: Files,
    error: str,
    said: str,
) -> None:
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "hf_transfer.py").write_text(f"raise {error}")
    path = f"{folder}{os.pathsep}{command.environment['PYTHONPATH']}"
    done = command.run(URI, target, "--json", PYTHONPATH=path)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert said in done.stdout
    assert done.stdout.count("files come by the range engine") == 1
    assert "protocol.left" not in done.stdout


def test_space_that_runs_out_on_the_way(
    hub: HubServer, command: Command, volume: Mount, pool: bytes
) -> None:
    """The engine does not notice it: the end of a chunk is written behind its back."""
    files = {LARGE: pool[: 12 * MIB]}
    hub.add_repo("org/fits", files)
    hub.pace(10e6)
    small = volume("tmpfs", "-o", "size=16m")
    target = small / "model"
    running = command.start("hf://org/fits", target)
    hub.wait_for_bytes(3 * MIB)
    (small / "greedy").write_bytes(bytes(8 * MIB))
    done = running.finish()
    assert done.code == 73, done.said
    assert not (target / LARGE).exists()
    (small / "greedy").unlink()
    hub.pace(None)
    again = command.run("hf://org/fits", target)
    assert again.code == 0, again.said
    assert_snapshot(target, files)
