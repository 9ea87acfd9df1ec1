"""The speed limit: the whole run keeps to it, evenly, and it disturbs nothing else."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from aim_downloader.events import FileCommitted, RetryScheduled, RunProgressed
from aim_downloader.http_client.bulk import BulkClient
from aim_downloader.http_client.network import Network
from tests.hub import HubServer
from tests.integration.support import (
    MIB,
    STALL_S,
    URI,
    Command,
    Downloader,
    Files,
    assert_snapshot,
    total_size,
)

KIB = 1024
LIMIT = 4 * MIB
BURST_S = 0.25
SOON_S = 10.0
"""How much later than at best a run may end: this machine has other things to do."""


def large(size: int) -> bytes:
    return os.urandom(size)


MODELS: dict[str, Files] = {
    "one large file": {"model.safetensors": large(12 * MIB)},
    "small files": {f"part-{number:03d}.bin": large(100 * KIB) for number in range(80)},
    "both": {
        "model.safetensors": large(6 * MIB),
        **{f"part-{number:03d}.bin": large(50 * KIB) for number in range(60)},
    },
}


@pytest.mark.parametrize("name", MODELS)
async def test_a_run_is_as_fast_as_the_limit_allows(
    hub: HubServer, downloader: Downloader, target: Path, name: str
) -> None:
    files = MODELS[name]
    hub.add_repo("org/limited", files)
    begun = time.monotonic()
    await downloader(target, "hf://org/limited", limit_rate=LIMIT)
    seconds = time.monotonic() - begun
    assert_snapshot(target, files)
    at_best = total_size(files) / LIMIT - BURST_S
    assert at_best <= seconds <= at_best + SOON_S
    assert not downloader.told(RetryScheduled)
    assert downloader.told(RunProgressed)[-1].rate <= 2 * LIMIT


@pytest.mark.parametrize("name", ["one large file", "small files"])
async def test_the_server_too_sends_little_at_a_time(
    hub: HubServer, downloader: Downloader, target: Path, name: str
) -> None:
    """What waits in buffers counts as sent; of that there is little."""
    hub.add_repo("org/limited", MODELS[name])
    run = asyncio.create_task(downloader(target, "hf://org/limited", limit_rate=MIB))

    def sent_in_a_second() -> int:
        hub.wait_for_bytes(1)
        time.sleep(1.0)
        return hub.bytes_sent()

    sent = await asyncio.to_thread(sent_in_a_second)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert 256 * KIB <= sent <= 5 * MIB


async def test_what_has_come_of_a_small_file_counts(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    hub.add_repo("org/limited", {f"{number}.bin": large(MIB - 1) for number in range(4)})
    run = asyncio.create_task(downloader(target, "hf://org/limited", limit_rate=64 * KIB))
    await asyncio.to_thread(hub.wait_for_bytes, 1)
    await asyncio.sleep(2)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not downloader.told(FileCommitted)
    assert downloader.told(RunProgressed)[-1].bytes_received > 0


@pytest.mark.parametrize(("limit", "most"), [(512 * KIB, 2), (64 * KIB, 1)])
async def test_few_connections_share_a_low_limit(
    hub: HubServer, downloader: Downloader, target: Path, limit: int, most: int
) -> None:
    hub.add_repo("org/limited", {f"{number}.safetensors": large(2 * MIB) for number in range(6)})
    run = asyncio.create_task(downloader(target, "hf://org/limited", limit_rate=limit))
    await asyncio.to_thread(hub.wait_for_bytes, 1)
    await asyncio.sleep(2 * STALL_S)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert downloader.told(RunProgressed)[-1].bytes_received >= limit
    assert not downloader.told(RetryScheduled)
    assert max(event.connections for event in downloader.told(RunProgressed)) == most


def test_a_connection_that_is_limited_has_a_small_buffer(hub: HubServer) -> None:
    """The kernel gives one that is read quickly a larger and larger one."""
    limited, free = (
        BulkClient(Network(hub.endpoint), 1, receive_buffer) for receive_buffer in (64 * KIB, None)
    )
    ahead = {}
    for client in (limited, free):
        hub.clear_log()
        answer = client.get(f"{hub.endpoint}/org/model/resolve/main/model.safetensors")
        read = sum(len(answer.read(MIB)) for _ in range(12))
        time.sleep(0.3)
        ahead[client] = hub.bytes_sent() - read
        answer.close()
        client.close()
    assert ahead[limited] <= 512 * KIB < ahead[free]


async def test_large_files_go_on_evenly(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files: Files = {f"{name}.safetensors": large(6 * MIB) for name in ("one", "two")}
    hub.add_repo("org/limited", files)
    await downloader(target, "hf://org/limited", limit_rate=LIMIT)
    assert_snapshot(target, files)
    half = next(
        event
        for event in downloader.told(RunProgressed)
        if event.bytes_done >= event.bytes_total / 2 and len(event.active) == 2
    )
    one, two = (file.done for file in half.active)
    # Blocks of 1 MiB that are under way do not count yet.
    assert abs(one - two) <= MIB


async def test_a_low_limit_is_no_stall(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files: Files = {"config.json": b"{}", "model.safetensors": large(MIB + 64 * KIB)}
    hub.add_repo("org/limited", files)
    await downloader(target, "hf://org/limited", limit_rate=256 * KIB, connections=16)
    assert_snapshot(target, files)
    assert not downloader.told(RetryScheduled)
    assert len(downloader.told(FileCommitted)) == 2
    assert len([each for each in hub.log if each.where == "cdn"]) == 1


def test_a_killed_run_goes_on_under_a_limit(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    words = (URI, target, "--include", "model.safetensors")
    running = command.start(*words, AIM_DOWNLOADER_LIMIT_RATE="8M")
    hub.wait_for_bytes(8 * MIB)
    running.kill()
    before = hub.bytes_sent()
    assert before <= 14 * MIB
    assert command.run(*words, AIM_DOWNLOADER_LIMIT_RATE="8M").code == 0
    assert_snapshot(target, {"model.safetensors": files["model.safetensors"]})
    # What was on its way is fetched again, and no more.
    assert hub.bytes_sent() <= 24 * MIB + 8 * MIB


@pytest.mark.parametrize("limit", ["4M", "8K"])
def test_ctrl_c_ends_a_limited_run_at_once(
    hub: HubServer, command: Command, target: Path, limit: str
) -> None:
    running = command.start(URI, target, AIM_DOWNLOADER_LIMIT_RATE=limit)
    hub.wait_for_bytes(64 * KIB)
    finished = running.end_by(signal.SIGINT)
    assert finished.code == 130, finished.said
    assert finished.fair_seconds < 1.5
