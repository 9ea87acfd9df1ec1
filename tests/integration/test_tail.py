"""A connection that is slow, or says nothing, holds up neither its file nor the run."""

import asyncio
import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from aim_downloader.errors import TransferInterruptedError
from aim_downloader.events import RetryScheduled
from aim_downloader.http_client.bulk import BulkAnswer, BulkClient, Call
from aim_downloader.http_client.network import Network
from aim_downloader.snapshot import ByteRange
from tests.fair_time import fair_time
from tests.hub import HubServer, RequestRecord, faults
from tests.integration.support import (
    MIB,
    TOKEN,
    Downloader,
    assert_snapshot,
    cdn_requests,
    wait_until,
)

REPO = "org/tail"
URI = f"hf://{REPO}"
LARGE, OTHER = "model.safetensors", "other.safetensors"
SIZE = 40 * MIB
PACE = 60e6
STALL_S = 60.0
"""So long that a run in which anybody waits for it is seen."""
A_FRACTION = 20.0


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(64 * MIB)


def first_byte(record: RequestRecord) -> int:
    assert record.range
    return int(record.range.removeprefix("bytes=").split("-")[0])


# --- one is slow, the others are not --------------------------------------------------------------

TROUBLES: Mapping[str, faults.Fault] = {
    "slow": faults.Slow(20_000),
    "stalled in its first block": faults.Stall(after=300_000),
    "stalled later": faults.Stall(after=2 * MIB + 300_000),
    "stalled before the head": faults.LateFirstByte(STALL_S),
}


@pytest.mark.parametrize("at", [0, 20 * MIB], ids=["leader", "helper"])
@pytest.mark.parametrize("name", TROUBLES)
async def test_one_bad_connection_does_not_hold_up_its_file(
    hub: HubServer, downloader: Downloader, target: Path, content: bytes, name: str, at: int
) -> None:
    files = {LARGE: content[:SIZE]}
    hub.add_repo(REPO, files)
    hub.pace(PACE)
    scripted = hub.fault(TROUBLES[name], path=LARGE, at=at)
    begun = fair_time()
    await downloader(target, URI, stall_timeout=STALL_S)
    assert fair_time() - begun < A_FRACTION
    assert scripted.fired == 1
    assert_snapshot(target, files)
    # A block, and what the bad connection had on its way.
    assert hub.bytes_sent(LARGE) - SIZE <= 8 * MIB
    assert not downloader.told(RetryScheduled)


async def test_several_bad_connections_one_after_the_other(
    hub: HubServer, downloader: Downloader, target: Path, content: bytes
) -> None:
    """Also the one that stands in for another may be bad."""
    files = {LARGE: content[:SIZE]}
    hub.add_repo(REPO, files)
    hub.pace(PACE)
    scripted = hub.fault(faults.Stall(), path=LARGE, at=10 * MIB + 77, times=3)
    begun = fair_time()
    await downloader(target, URI, stall_timeout=STALL_S)
    assert fair_time() - begun < A_FRACTION
    assert scripted.fired == 3
    assert_snapshot(target, files)


@pytest.mark.parametrize(("after", "skip"), [(2 * MIB, 1), (300_000, 2)], ids=["before", "later"])
async def test_a_bad_connection_is_not_all_that_is_left_when_another_is_refused(
    hub: HubServer, downloader: Downloader, target: Path, content: bytes, after: int, skip: int
) -> None:
    """Before the bad one is known as such, or later, the server wants one connection fewer."""
    files = {LARGE: content[: 24 * MIB]}
    hub.add_repo(REPO, files)
    hub.fault(faults.Slow(8e6), path=LARGE, times=None)
    stalled = hub.fault(faults.Stall(after), path=LARGE, at=0)
    refused = hub.fault(faults.Status(503), path=LARGE, skip=skip)
    async with asyncio.timeout(A_FRACTION):
        await downloader(target, URI, stall_timeout=STALL_S, connections=2)
    assert stalled.fired == refused.fired == 1
    assert_snapshot(target, files)


async def test_a_file_that_is_slow_by_nature_is_not_hammered(
    hub: HubServer, downloader: Downloader, target: Path, content: bytes
) -> None:
    """One file comes slowly over whatever connection; another one shows what is usual."""
    slow, quick = content[: 3 * MIB], content[3 * MIB : 43 * MIB]
    hub.add_repo(REPO, {LARGE: slow, OTHER: quick})
    hub.fault(faults.Slow(800_000), path=LARGE, times=None)
    hub.fault(faults.Slow(8e6), path=OTHER, times=None)
    await downloader(target, URI, stall_timeout=STALL_S)
    assert_snapshot(target, {LARGE: slow, OTHER: quick})
    assert len(cdn_requests(hub.log, LARGE)) <= 8


# --- who is done helps the others -----------------------------------------------------------------


async def test_who_is_done_takes_a_part_of_what_another_would_take_long_for(
    hub: HubServer, downloader: Downloader, target: Path, content: bytes
) -> None:
    """A connection that is not slow enough to be given up."""
    whole, segment = content[: 48 * MIB], 12 * MIB
    hub.add_repo(REPO, {LARGE: whole})
    hub.fault(faults.Slow(16e6), path=LARGE, times=None)
    hub.fault(faults.Slow(2.5e6), path=LARGE, at=0)
    await downloader(target, URI, connections=4)
    assert_snapshot(target, {LARGE: whole})
    starts = [first_byte(record) for record in cdn_requests(hub.log, LARGE)]
    assert [start for start in starts if MIB < start < segment]
    assert hub.bytes_sent(LARGE) - len(whole) <= 8 * MIB


async def test_two_large_files_share_the_connections(
    hub: HubServer, downloader: Downloader, target: Path, content: bytes
) -> None:
    """However much more there is to fetch of one of them."""
    files = {LARGE: content, OTHER: content[: 32 * MIB]}
    hub.add_repo(REPO, files)
    hub.fault(faults.Slow(8e6), times=None)
    await downloader(target, URI, connections=8)
    assert_snapshot(target, files)
    begun = [record.file for record in hub.log if record.where == "cdn"][:8]
    assert max(Counter(begun).values()) <= 5


# --- hanging up -----------------------------------------------------------------------------------


class Caller:
    """A thread that asks for a range and reads it."""

    def __init__(self, client: BulkClient, url: str) -> None:
        self.call = Call()
        self.error: BaseException | None = None
        self.read = 0
        self._client, self._url = client, url
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            answer = self._client.get(self._url, ByteRange(0, 8 * MIB), self.call)
            with contextlib.closing(answer):
                self._read(answer)
        except TransferInterruptedError as error:
            self.error = error

    def _read(self, answer: BulkAnswer) -> None:
        while data := answer.read(100_000):
            self.read += len(data)

    def leaves(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


@pytest.fixture
def client(hub: HubServer) -> Iterator[BulkClient]:
    client = BulkClient(Network(hub.endpoint, TOKEN, STALL_S), 1)
    yield client
    client.close()


@pytest.mark.parametrize("where", ["hub", "cdn"])
def test_who_waits_for_a_head_leaves_when_another_thread_hangs_up(
    hub: HubServer, client: BulkClient, where: str
) -> None:
    hub.fault(faults.LateFirstByte(STALL_S), where="hub" if where == "hub" else "cdn")
    caller = Caller(client, f"{hub.endpoint}/org/model/resolve/main/{LARGE}")
    wait_until(lambda: [record for record in hub.log if record.where == where])
    caller.call.hang_up()
    assert caller.leaves(10)
    assert caller.error


def test_who_waits_for_a_body_leaves_when_another_thread_hangs_up(
    hub: HubServer, client: BulkClient
) -> None:
    hub.fault(faults.Stall(after=MIB))
    caller = Caller(client, f"{hub.endpoint}/org/model/resolve/main/{LARGE}")
    wait_until(lambda: caller.read >= 900_000)
    caller.call.hang_up()
    assert caller.leaves(10)


def test_who_hangs_up_before_the_call_ends_it(hub: HubServer, client: BulkClient) -> None:
    call = Call()
    call.hang_up()
    with pytest.raises(TransferInterruptedError):
        client.get(f"{hub.endpoint}/org/model/resolve/main/{LARGE}", ByteRange(0, MIB), call)


def read_whole(client: BulkClient, url: str, call: Call) -> None:
    answer = client.get(url, ByteRange(0, MIB), call)
    assert len(answer.read(MIB)) == MIB
    answer.close()


def peers(log: list[RequestRecord]) -> list[tuple[str, int]]:
    return [record.peer for record in log if record.where == "cdn"]


@pytest.mark.parametrize("reusable", [True, False])
def test_a_slow_connection_serves_nobody_else(
    hub: HubServer, client: BulkClient, reusable: bool
) -> None:
    url = f"{hub.endpoint}/org/model/resolve/main/{LARGE}"
    call = Call()
    call.reusable = reusable
    read_whole(client, url, call)
    read_whole(client, url, Call())
    first, second = peers(hub.log)
    assert (first == second) is reusable


def test_a_late_hang_up_does_not_end_the_next_call(hub: HubServer, client: BulkClient) -> None:
    url = f"{hub.endpoint}/org/model/resolve/main/{LARGE}"
    former, next_ = Call(), Call()
    read_whole(client, url, former)
    answer = client.get(url, ByteRange(0, 2 * MIB), next_)
    former.hang_up()
    assert len(answer.read(2 * MIB)) == 2 * MIB
    answer.close()
    first, second = peers(hub.log)
    assert first == second


class TakenMeanwhile:
    """A connection that another call takes over while somebody looks at it."""

    def __init__(self, former: Call, wire: socket.socket) -> None:
        self.call = former
        self._wire = wire

    @property
    def wire(self) -> socket.socket:
        self.call = Call()
        return self._wire


def test_who_hangs_up_leaves_a_connection_alone_that_is_taken_meanwhile() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        former = Call()
        former.line = cast("Any", TakenMeanwhile(former, ours))
        former.hang_up()
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
        # Whoever would take it from now on gets another one.
        assert not former.reusable
