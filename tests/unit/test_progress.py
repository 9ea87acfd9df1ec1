"""How far a run is, as counters and samples."""

import asyncio
import threading
import time
from dataclasses import dataclass

import pytest

from aim_downloader.events import Event, FileProgress, RunProgressed
from aim_downloader.progress import Progress, Traffic, sampling
from aim_downloader.snapshot import RemoteFile


@dataclass
class UnderWay:
    """A file under way, with numbers of the test's choice."""

    file: RemoteFile
    present: int = 0
    verified: int = 0
    reading_back: bool = False


def under_way(path: str, size: int, present: int = 0, verified: int = 0) -> UnderWay:
    return UnderWay(RemoteFile(path, size, None), present, verified)


def fetching(files: int = 4, size: int = 1000) -> Progress:
    progress = Progress()
    progress.begin_fetching(files, size, 0, 0)
    return progress


# -- counters --------------------------------------------------------------------------------------


def test_traffic_is_counted_from_any_thread() -> None:
    traffic = Traffic()

    def count() -> None:
        for _ in range(2000):
            traffic.add(3)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traffic.received == 4 * 2000 * 3


def test_a_run_that_has_not_begun() -> None:
    sample = Progress().sample()
    assert (sample.bytes_done, sample.bytes_total, sample.rate, sample.eta) == (0, 0, 0.0, None)
    assert (sample.files_done, sample.files_total, sample.connections) == (0, 0, 0)
    assert not sample.verifying
    assert sample.active == ()


def test_what_is_there_counts_as_done() -> None:
    progress = Progress()
    progress.begin_fetching(5, 1000, files_held=2, bytes_held=300)
    sample = progress.sample()
    assert (sample.files_done, sample.files_total) == (2, 5)
    assert (sample.bytes_done, sample.bytes_total) == progress.bytes() == (300, 1000)


def test_bytes_of_a_file_count_once_on_its_way_and_when_it_is_there() -> None:
    progress = fetching(2, 1000)
    one = under_way("a", 600)
    progress.active = active = {"a": one}
    told = []
    for present in (0, 200, 600):
        one.present = present
        told.append(progress.bytes()[0])
    del active["a"]
    progress.settle(600)
    told.append(progress.bytes()[0])
    assert told == [0, 200, 600, 600]
    assert progress.sample().files_done == 1


def test_what_is_kept_of_a_file_that_failed_still_counts() -> None:
    progress = fetching(2, 1000)
    progress.active = active = {"a": under_way("a", 600, present=250)}
    assert progress.bytes() == (250, 1000)
    active.clear()
    progress.add(250)
    assert progress.bytes() == (250, 1000)
    assert progress.sample().files_done == 0


def test_files_under_way_are_told_one_by_one() -> None:
    progress = fetching(2, 1000)
    progress.active = {"a": under_way("a", 600, 200, 100), "b": under_way("b", 400, 10, 0)}
    progress.connections = lambda: 7
    sample = progress.sample()
    assert sample.active == (FileProgress("a", 600, 200, 100), FileProgress("b", 400, 10, 0))
    assert (sample.bytes_done, sample.connections) == (210, 7)


def test_reading_back_is_told() -> None:
    progress = fetching()
    one = under_way("a", 600)
    progress.active = {"a": one}
    assert not progress.sample().verifying
    one.reading_back = True
    assert progress.sample().verifying


def test_first_what_is_there_is_verified_then_the_rest_is_fetched() -> None:
    progress = Progress()
    progress.begin_examining(2, 500)
    progress.add(500)
    progress.settle(0)
    sample = progress.sample()
    assert sample.verifying
    assert (sample.bytes_done, sample.bytes_total) == (500, 500)
    assert (sample.files_done, sample.files_total) == (1, 2)
    progress.begin_fetching(3, 900, 1, 300)
    sample = progress.sample()
    assert not sample.verifying
    assert (sample.bytes_done, sample.bytes_total) == (300, 900)
    assert (sample.files_done, sample.files_total) == (1, 3)


def test_the_rate_is_what_comes_over_the_network() -> None:
    progress = fetching(size=1_000_000)
    progress.sample()
    begun = time.monotonic()
    progress.traffic.add(300_000)
    progress.add(300_000)
    time.sleep(0.05)
    sample = progress.sample()
    assert sample.bytes_received == 300_000
    assert 0 < sample.rate <= 300_000 / (time.monotonic() - begun) * 2
    assert sample.eta == pytest.approx(700_000 / sample.rate)


def test_bytes_read_through_are_no_rate_of_the_network() -> None:
    progress = Progress()
    progress.begin_examining(1, 1000)
    progress.add(100)
    progress.sample()
    progress.add(700)
    time.sleep(0.01)
    assert progress.sample().rate > 0
    progress.begin_fetching(1, 1000, 0, 0)
    progress.sample()
    time.sleep(0.01)
    sample = progress.sample()
    assert (sample.rate, sample.eta) == (0.0, None)


# -- samples ---------------------------------------------------------------------------------------


async def test_samples_come_several_times_a_second_and_at_the_end() -> None:
    told: list[Event] = []
    progress = fetching(1, 10)
    async with sampling(progress, told.append):
        await asyncio.sleep(0.5)
        assert told
        progress.settle(10)
    last = told[-1]
    assert isinstance(last, RunProgressed)
    assert (last.bytes_done, last.files_done) == (10, 1)
    assert 2 <= len(told) <= 5
    count = len(told)
    await asyncio.sleep(0.25)
    assert len(told) == count


async def test_a_short_run_has_one_sample() -> None:
    told: list[Event] = []
    async with sampling(fetching(), told.append):
        await asyncio.sleep(0)
    assert len(told) == 1


async def test_an_error_of_the_run_comes_as_it_is() -> None:
    told: list[Event] = []
    with pytest.raises(LookupError, match="of the run"):
        async with sampling(fetching(), told.append):
            raise LookupError("of the run")
    assert len(told) == 1


async def test_who_listens_and_fails_is_heard() -> None:
    calls = 0

    def listen(event: Event) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise LookupError("the listener's own mistake")

    with pytest.raises(LookupError, match="own mistake"):
        async with sampling(fetching(), listen):
            await asyncio.sleep(0.3)


async def test_a_cancel_comes_through() -> None:
    told: list[Event] = []

    async def run() -> None:
        async with sampling(fetching(), told.append):
            await asyncio.sleep(60)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(told) == 1
    assert not [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
