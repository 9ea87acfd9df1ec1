"""A busy server is left alone by everybody, and asked by fewer afterwards."""

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web

from aim_downloader.demo.reply import Where, error_reply
from aim_downloader.errors import AllProtocolsFailedError
from aim_downloader.events import RetryScheduled
from tests.fair_time import fair_time
from tests.hub import HubServer, RequestRecord, faults
from tests.hub.delivery import Delivery
from tests.integration.support import (
    MIB,
    Downloader,
    Files,
    assert_right,
    assert_snapshot,
    cdn_requests,
    most_at_once,
)

URI = "hf://org/many"
LARGE = "model.safetensors"
REACHED = 0.7
"""Seconds within which what was under way at a refusal has arrived."""


def small_files(count: int) -> Files:
    return {f"part-{number:04d}.json": b"%d" % number for number in range(count)}


def refused(log: Sequence[RequestRecord]) -> list[RequestRecord]:
    return [each for each in log if each.status in (429, 503)]


def of(log: Sequence[RequestRecord], *places: Where) -> list[RequestRecord]:
    return [each for each in log if each.where in places]


@dataclass
class Busy:
    """Grants so many requests; the next ration comes a second after all were used."""

    requests: int
    rationed: bool
    """Whether the answers tell how many requests are left."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: int = 0
    _refill: float = math.inf

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        left = self._count()
        if left < 0:
            reply = error_reply(429, "slow down", None, {"Retry-After": "1"})
        elif self.rationed:
            told = {"RateLimit": f'"api";r={left};t=1'}
            reply = replace(delivery.reply, headers={**delivery.reply.headers, **told})
        else:
            reply = delivery.reply
        return replace(delivery, reply=reply)

    def _count(self) -> int:
        """How many requests are left after this one; below 0 when it is too much itself."""
        with self._lock:
            now = time.monotonic()
            if now >= self._refill:
                self._asked, self._refill = 0, math.inf
            self._asked += 1
            if self._asked >= self.requests:
                self._refill = min(self._refill, now + 1.0)
            return self.requests - self._asked


class Worried:
    """Says with each answer that it was the last for ten minutes."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        told = {"RateLimit": '"api";r=0;t=600'}
        return replace(
            delivery, reply=replace(delivery.reply, headers={**delivery.reply.headers, **told})
        )


@dataclass
class Storm:
    """Refuses everything from the first request on, for some seconds."""

    seconds: float
    fault: faults.Status
    _begun: float = 0.0

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        self._begun = self._begun or time.monotonic()
        if time.monotonic() - self._begun > self.seconds:
            return delivery
        return self.fault.apply(delivery, request, begin)


# -- everybody waits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.Status(429, retry_after=1),
        faults.Status(503, retry_after=1),
        faults.Status(429, ratelimit='"api";r=0;t=1'),
    ],
    ids=["429", "503", "RateLimit"],
)
async def test_nobody_asks_a_server_that_named_a_time(
    hub: HubServer, downloader: Downloader, target: Path, fault: faults.Status
) -> None:
    files = small_files(300)
    hub.add_repo("org/many", files)
    hub.fault(faults.LateFirstByte(0.02), where="hub", times=None)
    hub.fault(fault, where="hub", skip=60)
    await downloader(target, URI, connections=16)
    assert_snapshot(target, files)
    [refusal] = refused(hub.log)
    assert refusal.finished is not None
    since = [each.started - refusal.finished for each in hub.log]
    assert not [each for each in since if REACHED < each < 0.99]
    assert [each for each in since if each >= 0.99]


async def test_nobody_asks_a_cdn_that_named_a_time(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(20e6)
    scripted = hub.fault(faults.Status(503, retry_after=1), skip=2)
    large = {name: files[name] for name in (LARGE, "other.safetensors")}
    await downloader(target, include=("*.safetensors",))
    assert_snapshot(target, large)
    assert scripted.fired
    [refusal] = refused(hub.log)
    assert refusal.finished is not None
    since = [each.started - refusal.finished for each in of(hub.log, "cdn")]
    assert not [each for each in since if REACHED < each < 0.99]


async def test_other_servers_are_asked_meanwhile(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files = {"a.bin": b"at the CDN", **small_files(100)}
    hub.add_repo("org/many", files)
    hub.fault(faults.Status(503, retry_after=5), where="cdn")
    await downloader(target, URI)
    assert_snapshot(target, files)
    first, again = of(hub.log, "cdn")
    assert again.started - first.started >= 5
    since = [each.started - first.started for each in of(hub.log, "hub")]
    assert len([each for each in since if 0 < each < 4.9]) >= 100


async def test_refusals_that_come_together_are_told_once(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files = small_files(64)
    hub.add_repo("org/many", files)
    # All of them are asked for before the first is refused.
    hub.fault(faults.LateFirstByte(1.0), where="hub", times=16)
    hub.fault(faults.Status(429, retry_after=1), where="hub", times=16)
    await downloader(target, URI, connections=16)
    assert_snapshot(target, files)
    assert len(refused(hub.log)) == 16
    [told] = downloader.told(RetryScheduled)
    assert "429" in told.reason
    assert told.delay >= 1


# -- fewer ask -------------------------------------------------------------------------------------


async def test_half_as_many_ask_after_a_refusal(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files = small_files(160)
    hub.add_repo("org/many", files)
    hub.fault(faults.LateFirstByte(0.2), where="hub", times=None)
    hub.fault(faults.Status(429, retry_after=0), where="hub", skip=48)
    await downloader(target, URI, connections=16)
    assert_snapshot(target, files)
    log = of(hub.log, "hub")
    [refusal] = refused(log)
    assert refusal.finished is not None
    before = [each for each in log if each.started < refusal.started]
    assert most_at_once(before) >= 14
    # None is given back in the first two seconds, which begin a little earlier at the client.
    since = [(each.started - refusal.finished, each) for each in log]
    after = [each for seconds, each in since if REACHED < seconds < 1.5]
    assert 1 <= most_at_once(after) <= 8


async def test_a_storm_in_the_middle_of_a_large_file_is_told_and_passes(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(20e6)
    hub.fault(Storm(0.6, faults.Status(503)), where="cdn", times=None, skip=1)
    await downloader(target, include=(LARGE,))
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert downloader.told(RetryScheduled)
    assert len(refused(hub.log)) <= 12


@pytest.mark.parametrize("rationed", [False, True], ids=["refused", "told before"])
async def test_thousands_of_files_from_a_hub_that_grants_so_many_requests(
    hub: HubServer, downloader: Downloader, target: Path, rationed: bool
) -> None:
    files = small_files(2000)
    hub.add_repo("org/many", files)
    hub.fault(Busy(1500, rationed), where="hub", times=None)
    await downloader(target, URI, connections=16)
    assert_snapshot(target, files)
    refusals = len(refused(hub.log))
    assert refusals == 0 if rationed else 0 < refusals <= 48
    assert 1 <= len(downloader.told(RetryScheduled)) <= 6


async def test_a_hub_that_grants_few_requests_is_asked_for_all_of_them(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files = small_files(30)
    hub.add_repo("org/many", files)
    hub.fault(Busy(10, rationed=True), where="hub", times=None)
    await downloader(target, URI, connections=16)
    assert_snapshot(target, files)
    asked = [each.started for each in of(hub.log, "hub")]
    # It takes three rations and what was refused of them, not a second for each file.
    assert max(asked) - min(asked) < 15


async def test_a_hub_that_says_none_is_left_and_answers_on_is_taken_at_its_deeds(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files = small_files(40)
    hub.add_repo("org/many", files)
    hub.fault(Worried(), where="hub", times=None)
    async with asyncio.timeout(60):
        await downloader(target, URI, connections=16)
    assert_snapshot(target, files)
    assert len(downloader.told(RetryScheduled)) <= 1


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", [None, 1])
async def test_a_storm_for_all_connections_ends_well(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, retry_after: int | None
) -> None:
    hub.fault(Storm(2.0, faults.Status(503, retry_after)), where="cdn", times=None)
    await downloader(target)
    for name, content in files.items():
        assert_right(target / name, content)
    # Nobody has stormed back.
    assert len(refused(hub.log)) <= 24


async def test_a_hub_that_always_refuses_ends_the_run(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    files: Files = {
        **{f"large-{number}.bin": bytes([number]) * 2 * MIB for number in range(12)},
        **small_files(40),
    }
    hub.add_repo("org/many", files)
    hub.fault(faults.Status(429), where="hub", times=None)
    begun = fair_time()
    with pytest.raises(AllProtocolsFailedError, match="429") as caught:
        await downloader(target, URI)
    # As long as one file is tried, and not once more for each.
    assert fair_time() - begun < 90
    assert caught.value.exit_code == 69
    assert not cdn_requests(hub.log, "large-0.bin")
