"""Protocol XET against the real store: right bytes from there alone, or it says why it gives up."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from aim_downloader.errors import ProtocolUnavailableError, TransferError
from aim_downloader.events import (
    FileRejected,
    FileStarted,
    ProtocolLeft,
    ProtocolSwitched,
    RunProgressed,
)
from aim_downloader.governor import Governor
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.whole import AsyncClient
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.progress import Traffic
from aim_downloader.protocols.base import Lane, Run
from aim_downloader.protocols.xet import XetProtocol
from aim_downloader.protocols.xet_access import Access, StoreFailedError, TokenRefusedError, why_not
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import ByteRange, Digest, RemoteFile
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    MIB,
    STALL_S,
    TOKEN,
    Command,
    Downloader,
    Files,
    Running,
    assert_snapshot,
    children,
    digest,
    names_below,
    wait_until,
)
from tests.xet import XetFront, XetStore

LARGE, OTHER = "model.safetensors", "other.safetensors"
XET = ("XET",)
BOTH = ("XET", "HTTP")
XORB = 64 * MIB
TOKENS = "xet-read-token"
IN_FLIGHT = 57_000_000
"""Bytes that one child has in flight at most."""

linux_only = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


@pytest.fixture(scope="session")
def long(xet_store: XetStore) -> Files:
    """A model that takes a while: its file lies in several xorbs."""
    files: Files = {"long.safetensors": os.urandom(2 * XORB + 5)}
    for content in files.values():
        xet_store.upload(content)
    return files


@pytest.fixture
def long_hub(xet_hub: HubServer, long: Files) -> HubServer:
    xet_hub.add_repo("org/long", long)
    return xet_hub


def tokens_asked(hub: HubServer) -> int:
    return sum(TOKENS in record.path for record in hub.log)


def from_the_cdn(hub: HubServer, path: str | None = None) -> int:
    return sum(
        record.bytes_sent
        for record in hub.log
        if record.where == "cdn" and path in (None, record.file)
    )


# --- what it brings -------------------------------------------------------------------------------


async def test_every_size_comes_from_the_store_alone(
    xet_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path
) -> None:
    sizes = (MIB + 1, 2 * MIB - 1, 2 * MIB, 3 * MIB + 123, 24 * MIB, XORB + 3 * MIB + 7)
    files: Files = {f"deep/{size}.safetensors": os.urandom(size) for size in sizes}
    xet_hub.add_repo("org/sizes", {**files, "empty.bin": b"", "config.json": b"{}"})
    await xet_downloader(target, "hf://org/sizes", protocols=XET)
    assert_snapshot(target, {**files, "empty.bin": b"", "config.json": b"{}"})
    assert {event.protocol for event in xet_downloader.told(FileStarted)} == {"XET"}
    assert from_the_cdn(xet_hub) == 0
    # Once, whatever number of files began together.
    assert tokens_asked(xet_hub) == 1


async def test_the_cdn_may_refuse(
    xet_hub: HubServer, xet_downloader: Downloader, target: Path
) -> None:
    refused = xet_hub.fault(faults.Status(403), path=LARGE, where="cdn", times=None)
    await xet_downloader(target, protocols=XET, include=(LARGE,))
    assert refused.fired == 0


async def test_content_that_repeats_itself_comes_right(
    xet_hub: HubServer, xet_downloader: Downloader, target: Path
) -> None:
    piece = os.urandom(300_000)
    files: Files = {"zeros.bin": bytes(5 * MIB), "again.bin": piece * 20 + bytes(MIB) + piece}
    xet_hub.add_repo("org/again", files)
    await xet_downloader(target, "hf://org/again", protocols=XET)
    assert_snapshot(target, files)


async def test_files_without_a_xet_hash_pass_it_by(
    xet_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path
) -> None:
    files: Files = {"model.safetensors": os.urandom(2 * MIB)}
    xet_hub.add_repo("org/old", files, xet=False)
    await xet_downloader(target, "hf://org/old", protocols=XET)
    assert_snapshot(target, files)
    assert not xet.log
    assert tokens_asked(xet_hub) == 0


# --- gaps -----------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The lane alone, with a partial of one file: the large one, if no other is named."""

    hub: HubServer
    folder: Path
    content: bytes
    xet_hash: str
    path: str = LARGE

    def partial(self, *present: ByteRange) -> Partial:
        partial = Partial(self.folder / self.path, self.file, "these bytes")
        for part in present:
            for start in range(part.start, part.stop, BLOCK):
                partial.write_at(start, self.content[start : min(start + BLOCK, part.stop)])
        return partial

    @property
    def file(self) -> RemoteFile:
        proof = Digest("sha256", digest(self.content))
        return RemoteFile(self.path, len(self.content), proof, xet_hash=self.xet_hash)

    @property
    def network(self) -> Network:
        return Network(self.hub.endpoint, TOKEN, STALL_S)

    @contextlib.asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        scratch = self.folder / "scratch"
        scratch.mkdir()
        policy = RetryPolicy(attempts=3, first_delay=0.01)
        traffic, governor = Traffic(), Governor(8)
        run = Run(self.network, 8, policy, traffic, lambda _: None, governor, scratch=scratch)
        async with (
            AsyncClient(self.network, 4) as client,
            XetProtocol("org/model", "main", client).open(run) as lane,
        ):
            assert lane.connections == 0
            yield lane
            assert lane.connections == 0

    async def fetch(self, partial: Partial) -> None:
        async with self.lane() as lane:
            await lane.fetch(partial.file, partial)


@pytest.fixture
def bench(xet_hub: HubServer, xet_store: XetStore, files: Files, tmp_path: Path) -> Bench:
    content = files[LARGE]
    assert isinstance(content, bytes)
    return Bench(xet_hub, tmp_path, content, xet_store.upload(content))


@pytest.fixture
def few(bench: Bench, xet_hub: HubServer, xet_store: XetStore) -> list[Bench]:
    """Several files for one lane."""
    files = {f"{number}.safetensors": os.urandom(MIB + 64 * 1024) for number in range(8)}
    xet_hub.add_repo("org/few", files)
    return [
        replace(bench, path=path, content=content, xet_hash=xet_store.upload(content))
        for path, content in files.items()
    ]


GAPS = {
    "the end": ([ByteRange(0, 20 * MIB)], 4),
    "the start": ([ByteRange(5 * MIB, 24 * MIB)], 5),
    "the middle": ([ByteRange(0, 3 * MIB), ByteRange(4 * MIB, 24 * MIB)], 1),
    "several": (
        [ByteRange(MIB, 2 * MIB), ByteRange(9 * MIB, 10 * MIB), ByteRange(11 * MIB, 20 * MIB)],
        13,
    ),
    "nothing": ([ByteRange(0, 24 * MIB)], 0),
}


@pytest.mark.parametrize("name", GAPS)
async def test_of_what_is_there_nothing_comes_again(
    bench: Bench, xet: XetFront, tmp_path: Path, name: str
) -> None:
    present, lacking = GAPS[name]
    partial = bench.partial(*present)
    await bench.fetch(partial)
    assert not partial.missing()
    partial.commit(tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == bench.content
    # The chunks in which gaps begin and end come whole.
    gaps = len(present) + 1
    assert lacking * MIB <= xet.bytes_sent() <= lacking * MIB * 1.05 + gaps * 300_000


@linux_only
def test_killed_half_way_it_goes_on(
    long_hub: HubServer, xet: XetFront, xet_command: Command, target: Path, long: Files
) -> None:
    words = ("hf://org/long", target, "--protocol", "XET")
    xet.pace(100e6)
    running = xet_command.start(*words)
    xet.wait_for_bytes(100 * MIB)
    engines = children(running)
    assert engines
    running.kill()
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in engines))
    xet.pace(None)
    done = xet_command.run(*words)
    assert done.code == 0, done.said
    assert_snapshot(target, long)
    fetched_again = xet.bytes_sent() - 2 * XORB
    assert fetched_again <= IN_FLIGHT + 8 * MIB
    assert from_the_cdn(long_hub) == 0


async def test_a_stream_that_ends_early_is_told_and_what_has_come_is_kept(
    bench: Bench, xet: XetFront
) -> None:
    partial = bench.partial(ByteRange(0, MIB))
    xet.fault(faults.Status(500), times=None, skip=2)
    with pytest.raises(TransferError) as caught:
        await bench.fetch(partial)
    assert not isinstance(caught.value, ProtocolUnavailableError)
    assert LARGE in str(caught.value)
    assert 2 * MIB <= partial.present < len(bench.content)
    assert partial.path.stat().st_size == len(bench.content)


@pytest.mark.parametrize("whole", [True, False], ids=["file", "gap"])
@pytest.mark.parametrize(
    "fault", [faults.Status(401), faults.Status(403), faults.Status(500), faults.Body()], ids=str
)
async def test_a_store_that_refuses_is_left_by_all_files(
    bench: Bench, xet: XetFront, whole: bool, fault: faults.Fault
) -> None:
    partial = bench.partial(*([] if whole else [ByteRange(0, MIB)]))
    xet.fault(fault, where="cas", times=None)
    with pytest.raises(ProtocolUnavailableError, match="Xet store") as caught:
        await bench.fetch(partial)
    assert xet.endpoint in str(caught.value) or isinstance(fault, faults.Body)
    assert partial.path.stat().st_size == len(bench.content)


@pytest.mark.parametrize("whole", [True, False], ids=["file", "gap"])
async def test_a_store_that_is_not_there_is_left_by_all_files(
    bench: Bench, xet: XetFront, whole: bool
) -> None:
    partial = bench.partial(*([] if whole else [ByteRange(0, MIB)]))
    xet.vanish()
    with pytest.raises(ProtocolUnavailableError, match="cannot be asked") as caught:
        await bench.fetch(partial)
    assert caught.value.hint


@pytest.mark.parametrize("whole", [True, False], ids=["file", "gap"])
async def test_a_file_that_the_store_lacks_says_nothing_of_others(
    bench: Bench, whole: bool
) -> None:
    bench.xet_hash = "ab" * 32
    partial = bench.partial(*([] if whole else [ByteRange(0, MIB)]))
    with pytest.raises(TransferError, match="does not give it") as caught:
        await bench.fetch(partial)
    assert not isinstance(caught.value, ProtocolUnavailableError)


# What the store answers for one file after the other, and who suffers.
SUFFERS: dict[str, list[tuple[int, str]]] = {
    "files that it cannot put together": [
        (200, "nobody"),
        (500, "the file"),
        (200, "nobody"),
        (503, "the file"),
        (200, "nobody"),
    ],
    "it fails": [(200, "nobody"), (500, "the file"), (429, "all"), (200, "all")],
    "it has never worked": [(500, "all"), (200, "all")],
    "files that it refuses": [
        (400, "the file"),
        (404, "the file"),
        (416, "the file"),
        (200, "nobody"),
    ],
    "it wants no token": [(200, "nobody"), (403, "all"), (200, "all")],
}


@pytest.mark.parametrize("whole", [True, False], ids=["file", "gap"])
@pytest.mark.parametrize("name", SUFFERS)
async def test_who_suffers_when_the_store_fails(
    few: list[Bench], xet: XetFront, name: str, whole: bool
) -> None:
    met = []
    async with few[0].lane() as lane:
        for one, (status, _) in zip(few, SUFFERS[name], strict=False):
            if status != 200:
                xet.fault(faults.Status(status), where="cas", path=one.path, times=None)
            try:
                await lane.fetch(one.file, one.partial(*([] if whole else [ByteRange(0, MIB)])))
                met.append("nobody")
            except ProtocolUnavailableError:
                met.append("all")
            except TransferError:
                met.append("the file")
    assert met == [suffers for _, suffers in SUFFERS[name]]


async def test_who_waits_for_a_turn_does_not_ask_a_store_that_is_gone(
    few: list[Bench], xet: XetFront
) -> None:
    refused = xet.fault(faults.Status(500), where="cas", times=None)
    async with few[0].lane() as lane:
        fetches = (lane.fetch(one.file, one.partial()) for one in few)
        ends = await asyncio.gather(*fetches, return_exceptions=True)
    assert {type(end) for end in ends} == {ProtocolUnavailableError}
    # Four at a time, and hf_xet asks four times.
    assert refused.fired <= 16 < 4 * len(few)


WHY: dict[str, tuple[faults.Fault | None, type[TransferError] | None]] = {
    "nothing": (None, None),
    "400": (faults.Status(400), TransferError),
    "401": (faults.Status(401), TokenRefusedError),
    "403": (faults.Status(403), TokenRefusedError),
    "404": (faults.Status(404), TransferError),
    "416": (faults.Status(416), TransferError),
    "429": (faults.Status(429), StoreFailedError),
    "500": (faults.Status(500), StoreFailedError),
    "503": (faults.Status(503), StoreFailedError),
    "a page": (faults.Body(), StoreFailedError),
    "silence": (faults.LateFirstByte(600), StoreFailedError),
}


@pytest.mark.parametrize("name", WHY)
async def test_why_a_stream_has_ended(bench: Bench, xet: XetFront, name: str) -> None:
    fault, kind = WHY[name]
    if fault:
        xet.fault(fault, where="cas", times=None)
    token = xet.grant()
    access = Access(xet.endpoint, token.text, token.expires)
    why = await why_not(bench.network, access, bench.file)
    assert why is None if kind is None else type(why) is kind
    assert token.text not in str(why)
    [record] = xet.log
    assert record.headers["Authorization"] == f"Bearer {token.text}"


@pytest.mark.parametrize("whole", [True, False], ids=["file", "gap"])
async def test_a_hash_of_more_bytes_brings_no_more_than_are_listed(
    bench: Bench, xet: XetFront, tmp_path: Path, whole: bool
) -> None:
    listed = 3 * MIB
    less = replace(bench, content=bench.content[:listed])
    partial = less.partial(*([] if whole else [ByteRange(0, MIB)]))
    await less.fetch(partial)
    assert partial.path.stat().st_size == listed
    assert xet.bytes_sent() <= listed + 300_000
    partial.commit(tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == less.content


# --- the token ------------------------------------------------------------------------------------

REFUSALS: list[tuple[faults.Fault, str]] = [
    (faults.Status(401), "answered 401"),
    (faults.Status(403), "answered 403"),
    (faults.Status(404), "answered 404"),
    (faults.Status(500), "answered 500"),
    (faults.Body(), "is no JSON"),
    (faults.Body(b'{"accessToken": "x", "exp": 1}', "application/json"), "no usable URL"),
]


@pytest.mark.parametrize(("fault", "words"), REFUSALS, ids=lambda value: str(value)[:40])
async def test_without_a_token_it_is_left_by_all_files(
    bench: Bench, xet_hub: HubServer, xet: XetFront, fault: faults.Fault, words: str
) -> None:
    xet_hub.fault(fault, where="api", path=TOKENS, times=None)
    with pytest.raises(ProtocolUnavailableError, match=TOKENS) as caught:
        await bench.fetch(bench.partial())
    assert words in str(caught.value)
    assert caught.value.hint
    assert not xet.log


async def test_without_a_token_the_next_protocol_has_its_turn(
    xet_hub: HubServer, xet_downloader: Downloader, target: Path, files: Files
) -> None:
    refused = xet_hub.fault(faults.Status(404), where="api", path=TOKENS, times=None)
    await xet_downloader(target, protocols=BOTH)
    assert_snapshot(target, files)
    [left] = xet_downloader.told(ProtocolLeft)
    assert TOKENS in left.reason
    assert refused.fired == 1


async def test_a_busy_hub_is_asked_for_a_token_again(bench: Bench, xet_hub: HubServer) -> None:
    busy = xet_hub.fault(faults.Status(503), where="api", path=TOKENS, times=2)
    partial = bench.partial()
    await bench.fetch(partial)
    assert not partial.missing()
    assert busy.fired == 2


async def test_a_token_that_expires_is_renewed_within_a_file(
    xet_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path, files: Files
) -> None:
    xet.token_lifetime(1)
    await xet_downloader(target, protocols=XET, include=(LARGE,), limit_rate=8 * MIB)
    assert digest(target / LARGE) == digest(files[LARGE])
    asked = [record for record in xet_hub.log if TOKENS in record.path]
    assert len(asked) >= 3
    assert {record.headers["Authorization"] for record in asked} == {f"Bearer {TOKEN}"}
    assert {record.status for record in xet.log} <= {200, 206}


@pytest.mark.parametrize("whole", [True, False], ids=["file", "gap"])
async def test_a_token_that_is_revoked_is_followed_by_another(
    few: list[Bench], xet_hub: HubServer, xet: XetFront, whole: bool
) -> None:
    async with few[0].lane() as lane:
        for one in few[:3]:
            partial = one.partial(*([] if whole else [ByteRange(0, MIB)]))
            await lane.fetch(one.file, partial)
            assert not partial.missing()
            xet.revoke_tokens()
    assert tokens_asked(xet_hub) == 3


async def test_tokens_that_are_all_refused_end_the_protocol_and_not_the_run(
    xet_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path, files: Files
) -> None:
    refused = xet.fault(faults.Status(401), where="cas", times=None)
    await xet_downloader(target, protocols=BOTH)
    assert_snapshot(target, files)
    [left] = xet_downloader.told(ProtocolLeft)
    assert "401" in left.reason
    # Nobody tries it again and again.
    assert refused.fired <= 16


# --- what goes wrong ------------------------------------------------------------------------------

HEALED: dict[str, tuple[faults.Fault, str]] = {
    "500": (faults.Status(500), "xorb"),
    "503 of the store": (faults.Status(503), "cas"),
    "an expired URL": (faults.ExpiredUrl(), "xorb"),
    "a reset": (faults.Reset(after=MIB), "xorb"),
    "a cut": (faults.ShortBody(after=MIB), "xorb"),
    "a stall": (faults.Stall(after=MIB), "xorb"),
}


@pytest.mark.parametrize("name", HEALED)
async def test_what_happens_once_it_survives(
    xet_hub: HubServer,
    xet: XetFront,
    xet_downloader: Downloader,
    target: Path,
    name: str,
    files: Files,
) -> None:
    fault, where = HEALED[name]
    met = xet.fault(fault, where=where, path=LARGE)  # type: ignore[arg-type]
    await xet_downloader(target, protocols=XET, stall_timeout=2.4)
    assert_snapshot(target, files)
    assert met.fired == 1
    assert not xet_downloader.told(ProtocolSwitched)


STAYS: dict[str, faults.Fault] = {
    "401": faults.Status(401),
    "403": faults.Status(403),
    "404": faults.Status(404),
    "500": faults.Status(500),
    "a cut": faults.ShortBody(after=MIB),
    "a stall": faults.Stall(after=MIB),
    "no first byte": faults.LateFirstByte(600),
    "a page": faults.Body(),
    "the whole xorb": faults.IgnoredRange(),
}


@pytest.mark.parametrize("name", STAYS)
async def test_from_xorbs_that_fail_for_good_the_next_protocol_takes_over(
    xet_hub: HubServer,
    xet: XetFront,
    xet_downloader: Downloader,
    target: Path,
    files: Files,
    name: str,
) -> None:
    xet.fault(STAYS[name], path=OTHER, times=None)
    async with asyncio.timeout(30):
        await xet_downloader(target, protocols=BOTH)
    assert_snapshot(target, files)
    [switched] = xet_downloader.told(ProtocolSwitched)
    assert (switched.path, switched.failed, switched.to) == (OTHER, "XET", "HTTP")
    assert OTHER in switched.reason
    assert "X-Amz" not in switched.reason
    assert "?" not in switched.reason.replace("?…", "")
    # The other file does not suffer.
    assert from_the_cdn(xet_hub, LARGE) == 0


@pytest.mark.parametrize("times", [1, None])
async def test_a_damaged_byte_is_noticed_by_us(
    xet_hub: HubServer,
    xet: XetFront,
    xet_downloader: Downloader,
    target: Path,
    files: Files,
    times: int | None,
) -> None:
    xet.fault(xet.damage(OTHER), path=OTHER, times=times)
    await xet_downloader(target, protocols=BOTH)
    assert_snapshot(target, files)
    rejected = xet_downloader.told(FileRejected)
    assert {event.protocol for event in rejected} == {"XET"}
    assert bool(xet_downloader.told(ProtocolSwitched)) == (times is None)
    assert (from_the_cdn(xet_hub, OTHER) > 0) == (times is None)


async def test_a_store_that_vanishes_half_way_leaves_what_has_come(
    long_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path, long: Files
) -> None:
    xet.pace(100e6)
    run = asyncio.create_task(xet_downloader(target, "hf://org/long", protocols=BOTH))
    await asyncio.to_thread(xet.wait_for_bytes, 100 * MIB)
    await asyncio.to_thread(xet.vanish)
    await run
    assert_snapshot(target, long)
    # It has worked before: perhaps it does so again for the next file.
    [switched] = xet_downloader.told(ProtocolSwitched)
    assert "Xet store" in switched.reason
    assert not xet_downloader.told(ProtocolLeft)
    assert 0 < from_the_cdn(long_hub) <= 2 * XORB - 100 * MIB + IN_FLIGHT + 8 * MIB


@linux_only
def test_an_engine_that_is_killed_falls_back(
    long_hub: HubServer, xet: XetFront, xet_command: Command, target: Path, long: Files
) -> None:
    xet.pace(100e6)
    running = xet_command.start("hf://org/long", target, "--protocol", "XET,HTTP")
    xet.wait_for_bytes(90 * MIB)
    for child in children(running):
        os.kill(child, signal.SIGKILL)
    done = running.finish()
    assert done.code == 0, done.said
    assert_snapshot(target, long)
    assert "SIGKILL" in done.stderr
    assert 0 < from_the_cdn(long_hub) <= 2 * XORB - 90 * MIB + IN_FLIGHT + 8 * MIB


def test_a_certificate_that_is_not_trusted_is_told(
    xet_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path, files: Files
) -> None:
    """What stands at that port does not speak TLS, which is as bad."""
    port = xet.endpoint.rpartition(":")[2]
    answer = f'{{"accessToken": "x", "exp": 9999999999, "casUrl": "https://127.0.0.1:{port}"}}'
    body = faults.Body(answer.encode(), "application/json")
    xet_hub.fault(body, where="api", path=TOKENS, times=None)
    xet_downloader.run(target, protocols=BOTH)
    assert_snapshot(target, files)
    [left] = xet_downloader.told(ProtocolLeft)
    assert "cannot be asked" in left.reason


# --- the speed limit ------------------------------------------------------------------------------


async def test_a_speed_limit_is_kept_from_the_start(
    xet_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path, files: Files
) -> None:
    limit = 8 * MIB
    begun = time.monotonic()
    run = asyncio.create_task(
        xet_downloader(target, protocols=XET, include=(LARGE,), limit_rate=limit)
    )
    await asyncio.to_thread(xet.wait_for_bytes, 1)
    await asyncio.sleep(1.0)
    # What runs ahead of the limit, and what a second is worth.
    assert xet.bytes_sent() <= limit + 5 * MIB
    await run
    seconds = time.monotonic() - begun
    assert 24 / 8 - 0.25 <= seconds <= 24 / 8 + 10
    assert digest(target / LARGE) == digest(files[LARGE])
    assert xet.bytes_sent() <= 24 * MIB * 1.06
    steps = [event.bytes_received for event in xet_downloader.told(RunProgressed)]
    assert len(set(steps)) >= 5


async def test_a_low_limit_is_no_stall(
    xet_hub: HubServer, xet: XetFront, xet_downloader: Downloader, target: Path
) -> None:
    files: Files = {"model.safetensors": os.urandom(MIB + 64 * 1024)}
    xet_hub.add_repo("org/limited", files)
    await xet_downloader(target, "hf://org/limited", protocols=XET, limit_rate=512 * 1024)
    assert_snapshot(target, files)


# --- what it leaves, tells and takes --------------------------------------------------------------


@pytest.mark.parametrize("telemetry", [False, True])
@pytest.mark.parametrize("limit", [None, 64 * MIB], ids=["file", "gap"])
async def test_it_reports_to_nobody_unless_asked_to(
    xet_hub: HubServer,
    xet: XetFront,
    xet_downloader: Downloader,
    target: Path,
    telemetry: bool,
    limit: int | None,
) -> None:
    await xet_downloader(
        target, protocols=XET, include=(OTHER,), telemetry=telemetry, limit_rate=limit
    )
    reports = [record for record in xet.log if record.method != "GET"]
    assert {record.path for record in reports} == ({"/v1/telemetry"} if telemetry else set())


@linux_only
def test_secrets_go_by_pipe_alone_and_nothing_is_left(
    long_hub: HubServer, xet: XetFront, xet_command: Command, target: Path, long: Files
) -> None:
    xet.pace(100e6)
    running = xet_command.start("hf://org/long", target, "--protocol", "XET", HF_TOKEN=TOKEN)
    xet.wait_for_bytes(20 * MIB)
    for child in children(running):
        for name in ("cmdline", "environ"):
            seen = Path(f"/proc/{child}/{name}").read_bytes()
            assert TOKEN.encode() not in seen
    scratch = target / HIDDEN / "scratch"
    assert any(scratch.rglob("xet*"))
    written = b"".join(p.read_bytes() for p in scratch.rglob("*") if p.is_file())
    done = running.finish()
    assert done.code == 0, done.said
    given = {
        record.headers["Authorization"].removeprefix("Bearer ")
        for record in xet.log
        if record.where == "cas"
    }
    assert given
    for secret in {TOKEN, *given}:
        assert secret not in done.said
        assert secret.encode() not in written
        assert not any(secret in f"{record.path}{record.query}" for record in xet.log)
    assert TOKEN not in given
    assert_snapshot(target, long)
    # Neither the cache nor the logs of hf_xet.
    assert not names_below(xet_command.home)


@linux_only
def test_a_child_has_little_memory(
    long_hub: HubServer, xet_command: Command, target: Path, long: Files
) -> None:
    running = xet_command.start("hf://org/long", target, "--protocol", "XET")
    peaks = set(memory_peaks(running))
    assert running.finish().code == 0
    assert peaks
    assert max(peaks) <= 200 * MIB


def memory_peaks(running: Running) -> Iterator[int]:
    while not running.ended:
        for child in children(running):
            status = Path(f"/proc/{child}/status")
            try:
                lines = status.read_text("ascii").splitlines()
            except OSError:
                continue
            yield from (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        time.sleep(0.01)
