"""Work side by side, and threads that nobody leaves behind."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aim_downloader.tasks import in_thread, to_the_end, together

WAIT_S = 30.0


class OwnError(Exception):
    """What the work of a test raises."""


async def turn_the_loop() -> None:
    """Lets everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop has to complain about, such as errors that nobody has asked for."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield heard
    gc.collect()
    await turn_the_loop()
    assert heard == []


# -- together --------------------------------------------------------------------------------------


async def test_together_waits_for_all() -> None:
    done = []

    async def work(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        done.append(turns)

    await together(work(turns) for turns in (5, 1, 3))
    assert done == [1, 3, 5]


async def test_nothing_together_is_done_at_once() -> None:
    await together([])


async def fail(turns: int, words: str) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    raise OwnError(words)


@pytest.mark.usefixtures("complaints")
async def test_the_first_error_comes_as_it_is() -> None:
    with pytest.raises(OwnError, match="sooner"):
        await together([fail(6, "later"), fail(1, "sooner"), asyncio.sleep(60)])


@pytest.mark.usefixtures("complaints")
async def test_two_errors_in_one_turn_are_one() -> None:
    with pytest.raises(OwnError, match="one"):
        await together([fail(1, "one"), fail(1, "two")])


class SlowToLeave:
    """Work that needs some turns of the loop to clean up after a cancel."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.left = False

    async def work(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            self.cancelled += 1
            await turn_the_loop()
            self.left = True


async def test_after_an_error_the_others_are_cancelled_and_waited_for() -> None:
    others = [SlowToLeave(), SlowToLeave()]
    with pytest.raises(OwnError):
        await together([others[0].work(), fail(2, "now"), others[1].work()])
    assert [(one.cancelled, one.left) for one in others] == [(1, True), (1, True)]


@pytest.mark.usefixtures("complaints")
async def test_an_error_while_cleaning_up_does_not_hide_the_first() -> None:
    async def cleans_up_badly() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise OwnError("while cleaning up")

    with pytest.raises(OwnError, match="the cause"):
        await together([cleans_up_badly(), fail(1, "the cause")])


@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_cancelled_together_they_are_waited_for(cancels: int) -> None:
    some = [SlowToLeave(), SlowToLeave()]
    task = asyncio.create_task(together([one.work() for one in some]))
    await turn_the_loop()
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(one.cancelled for one in some)
    if cancels == 1:
        assert all(one.left for one in some)


# -- in_thread -------------------------------------------------------------------------------------


class SlowWork:
    """Work in a thread that ends when a test lets it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.ended = False

    def __call__(self, *events: threading.Event, error: Exception | None = None) -> str:
        self.begun.set()
        assert self.may_end.wait(WAIT_S)
        self.ended = True
        if error:
            raise error
        return "the result"

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, WAIT_S)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def work() -> Iterator[SlowWork]:
    work = SlowWork()
    yield work
    work.may_end.set()


async def test_the_result_comes_back(pool: ThreadPoolExecutor) -> None:
    def joined(first: int, *, second: int) -> str:
        return f"{first} {second} {threading.current_thread() is threading.main_thread()}"

    assert await in_thread(pool, joined, 1, second=2) == "1 2 False"


async def test_the_error_comes_as_it_is(pool: ThreadPoolExecutor) -> None:
    def fails() -> None:
        raise OwnError("in the thread")

    with pytest.raises(OwnError, match="in the thread"):
        await in_thread(pool, fails)


@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_a_cancel_is_obeyed_only_when_the_thread_has_ended(
    pool: ThreadPoolExecutor, work: SlowWork, cancels: int
) -> None:
    task = asyncio.create_task(in_thread(pool, work))
    await work.until_begun()
    for _ in range(cancels):
        task.cancel()
        await turn_the_loop()
        assert not task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_work_that_waits_for_its_turn_is_not_left_either(
    work: SlowWork,
) -> None:
    """What was cancelled while the pool was busy must not begin after everybody has gone."""
    second = SlowWork()
    second.may_end.set()
    with ThreadPoolExecutor(1) as narrow:
        first = asyncio.create_task(in_thread(narrow, work))
        await work.until_begun()
        waiting = asyncio.create_task(in_thread(narrow, second))
        await turn_the_loop()
        waiting.cancel()
        await turn_the_loop()
        work.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        ended_before = second.ended
        await first
    assert second.ended == ended_before


@pytest.mark.parametrize("by_name", [False, True], ids=["by place", "by name"])
async def test_a_cancel_tells_work_that_can_be_told(
    pool: ThreadPoolExecutor, by_name: bool
) -> None:
    enough, begun = threading.Event(), threading.Event()

    def ends_when_told(count: int, enough: threading.Event) -> bool:
        begun.set()
        return enough.wait(WAIT_S)

    call = (
        in_thread(pool, ends_when_told, 1, enough=enough)
        if by_name
        else in_thread(pool, ends_when_told, 1, enough)
    )
    task = asyncio.create_task(call)
    assert await asyncio.to_thread(begun.wait, WAIT_S)
    assert not enough.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 2)
    assert enough.is_set()


async def test_without_a_cancel_no_event_is_set(pool: ThreadPoolExecutor) -> None:
    enough = threading.Event()
    assert await in_thread(pool, lambda event: event.is_set(), enough) is False
    assert not enough.is_set()


async def test_an_error_after_a_cancel_is_no_complaint(
    pool: ThreadPoolExecutor, work: SlowWork, complaints: list[dict[str, Any]]
) -> None:
    task = asyncio.create_task(in_thread(pool, work, error=OwnError("too late")))
    await work.until_begun()
    task.cancel()
    await turn_the_loop()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    await turn_the_loop()
    assert complaints == []


@pytest.mark.parametrize("cancels", [0, 1, 2])
async def test_what_cleans_up_is_done_however_often_cancelled(cancels: int) -> None:
    done = []

    async def clean_up() -> str:
        await asyncio.sleep(0.05)
        done.append(True)
        return "clean"

    task = asyncio.create_task(to_the_end(clean_up()))
    await asyncio.sleep(0)
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0.01)
    if cancels:
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert await task == "clean"
    assert done
