"""Engines that bring files: whatever happens, nobody is left at work on a partial."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from aim_downloader.errors import DownloadError, StalledError, TransferError
from aim_downloader.governor import Governor
from aim_downloader.http_client.network import Network
from aim_downloader.partial import BLOCK, Partial, no_guard
from aim_downloader.progress import Traffic
from aim_downloader.protocols.base import Run
from aim_downloader.protocols.engine import Engines, Told
from aim_downloader.protocols.following import InOrder, Written
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import ByteRange, Digest, RemoteFile
from tests.integration.support import wait_until

ROOT = Path(__file__).parents[2]
FILE = RemoteFile("model.bin", 32 * BLOCK, Digest("sha256", "0" * 64))
LEAD = 4 * BLOCK
SLEEP = {"do": "sleep", "seconds": 60}

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def judge(told: Told, path: str) -> DownloadError:
    return TransferError(f"{path}: {told['error']}")


class Seats:
    """One engine that does what a test orders, and a partial to write."""

    def __init__(self, folder: Path, stall: float = 60.0) -> None:
        self._folder = folder
        network, policy = Network("http://127.0.0.1:9", None, stall), RetryPolicy()
        self.traffic = Traffic()
        run = Run(network, 4, policy, self.traffic, lambda _: None, Governor(4, 1.0), None, folder)
        environ = {"PYTHONPATH": str(ROOT)}
        self.engines = Engines(run, "tests.engines.script", 1, LEAD, environ, judge)

    def partial(self, guard: Callable[[], None] = no_guard) -> Partial:
        return Partial(self._folder / "abc.partial", FILE, "identity", guard)

    async def bring(self, order: dict[str, Any], partial: Partial) -> None:
        await self.engines.bring(order, partial, lambda told: written(partial))


def written(partial: Partial) -> Written:
    partial.hand_over()
    return InOrder(ByteRange(0, FILE.size), lambda: partial.size_on_disk)


@pytest.fixture
async def seats(tmp_path: Path) -> AsyncIterator[Seats]:
    seats = Seats(tmp_path)
    yield seats
    await seats.engines.close()


def followers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("aim-follow")]


def at_work() -> int:
    """Followers that are not idle: their pool keeps its threads."""
    frames = sys._current_frames()
    names = [frames[one.ident].f_code.co_name for one in followers() if one.ident in frames]
    return sum(name != "_worker" for name in names)


def state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0]


def engine_processes() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    children = [int(word) for task in tasks for word in task.read_text("ascii").split()]
    return [one for one in children if b"engines.script" in command_of(one)]


def command_of(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


@pytest.mark.parametrize("between", [0.0, 0.001, 0.004, 0.02])
async def test_cancelled_twice_nobody_is_left(seats: Seats, between: float) -> None:
    partial = seats.partial()
    task = asyncio.create_task(seats.bring(SLEEP, partial))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.sleep(between)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert partial.size_on_disk == FILE.size
    assert seats.engines.busy == 0
    await asyncio.to_thread(wait_until, lambda: not at_work(), 5)
    partial.close()


async def test_what_has_come_before_a_failure_is_kept(seats: Seats) -> None:
    partial = seats.partial()
    task = asyncio.create_task(seats.bring({"do": "echo", "error": "no more"}, partial))
    with pytest.raises(TransferError, match="no more"):
        await task
    assert partial.size_on_disk == FILE.size
    partial.close()


async def test_one_that_tells_nothing_is_ended(tmp_path: Path) -> None:
    seats = Seats(tmp_path, stall=0.5)
    partial = seats.partial()
    with pytest.raises(StalledError, match=FILE.path):
        await seats.bring(SLEEP, partial)
    await seats.engines.close()
    partial.close()


async def test_what_it_receives_is_counted(seats: Seats) -> None:
    partial = seats.partial()
    order = {"do": "echo", "received": 7, "done": True}
    await seats.bring(order, partial)
    await seats.bring({**order, "received": 5}, partial)
    assert seats.traffic.received == 12
    partial.close()


@linux_only
async def test_a_slow_disk_does_not_hold_an_engine_up_for_ever(seats: Seats) -> None:
    """It would take the silence for our death."""
    slow, entered = threading.Event(), threading.Event()

    def guard() -> None:
        if threading.current_thread().name.startswith("aim-follow"):
            entered.set()
            slow.wait(20)

    partial = seats.partial(guard)
    task = asyncio.create_task(seats.bring(SLEEP, partial))
    await asyncio.to_thread(wait_until, lambda: engine_processes() and followers())
    [child] = engine_processes()
    # In one step: of what was written bit by bit a glance may see no more than the lead.
    os.truncate(partial.path, 16 * BLOCK)
    assert await asyncio.to_thread(entered.wait, 10)
    await asyncio.to_thread(wait_until, lambda: state(child) == "T", 5)
    await asyncio.to_thread(wait_until, lambda: state(child) != "T", 8)
    slow.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    partial.close()
