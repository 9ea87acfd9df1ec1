"""The work queue, in virtual time."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from operator_shim.queue import FIRST_DELAY, LONGEST_DELAY, Queue
from tests.operator.virtual_time import run


class Bench:
    """A queue at work, and what it did: which key, begun when."""

    def __init__(self, takes: float = 0.0, workers: int = 4) -> None:
        self.passes: list[tuple[str, float]] = []
        self.failures: list[tuple[str, str, float]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.looks: dict[str, float] = {}  # when each key wants its next look
        self.errors: dict[str, Exception] = {}
        self._under_way: list[str] = []
        self.queue: Queue[str] = Queue(
            lambda key, error, delay: self.failures.append((key, str(error), delay))
        )
        self._takes = takes
        self._workers = workers

    def putting(self, *keys: str) -> Callable[[], None]:
        """The act of putting these keys."""

        def put() -> None:
            for key in keys:
                self.queue.put(key)

        return put

    async def work(self, key: str) -> float | None:
        assert key not in self._under_way, "the same key twice at a time"
        self._under_way.append(key)
        self.passes.append((key, now()))
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        await asyncio.sleep(self._takes)
        self._under_way.remove(key)
        if key in self.errors:
            raise self.errors[key]
        return self.looks.pop(key, None)

    async def run_for(self, seconds: float, *acts: tuple[float, Callable[[], object]]) -> None:
        """Works for so long; each act is done at its time."""
        working = asyncio.create_task(self.queue.run(self.work, self._workers))
        for when, act in acts:
            asyncio.get_running_loop().call_at(when, act)
        await asyncio.sleep(seconds)
        working.cancel()
        await asyncio.wait([working])
        assert working.cancelled(), working.exception()


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


def test_a_key_is_worked_on_once_however_often_it_is_put() -> None:
    bench = Bench()
    act = bench.putting(*"a" * 100)
    run(bench.run_for(10, (1, act)))
    assert bench.passes == [("a", 1)]


def test_a_key_that_is_put_while_it_is_worked_on_is_worked_on_again_and_never_twice_at_a_time() -> (
    None
):
    bench = Bench(takes=5)
    put = bench.putting("a")
    run(bench.run_for(60, (0, put), (1, put), (2, put), (6, put)))
    assert bench.passes == [("a", 0), ("a", 5), ("a", 10)]


@pytest.mark.parametrize(("workers", "ends"), [(1, 40), (2, 20), (4, 10)])
def test_as_many_keys_at_a_time_as_there_are_workers(workers: int, ends: float) -> None:
    bench = Bench(takes=10, workers=workers)
    put = bench.putting(*"abcd")
    run(bench.run_for(100, (0, put)))
    assert bench.most_at_once == workers
    assert sorted(key for key, _ in bench.passes) == list("abcd")
    assert bench.passes[-1][1] == ends - 10


@pytest.mark.parametrize(
    ("wishes", "begun"),
    [
        ([(0, 10)], [10]),
        ([(0, 10), (0, 5)], [5]),  # the earliest counts
        ([(0, 5), (0, 10)], [5]),
        ([(0, 10), (3, 0)], [3]),
        ([(0, 10), (12, 0)], [10, 12]),
        ([(0, -1)], [0]),
    ],
)
def test_of_several_wishes_the_earliest_counts(
    wishes: list[tuple[float, float]], begun: list[float]
) -> None:
    bench = Bench()
    acts = [(when, lambda delay=delay: bench.queue.put("a", delay)) for when, delay in wishes]
    run(bench.run_for(60, *acts))
    assert [when for _, when in bench.passes] == begun


def test_an_event_takes_the_place_of_a_later_look_as_its_pass_says_when_to_look_next() -> None:
    bench = Bench()
    bench.looks["a"] = 30
    put = bench.putting("a")
    run(bench.run_for(100, (0, put), (10, put)))
    assert bench.passes == [("a", 0), ("a", 10)]


def test_a_look_that_is_due_takes_place() -> None:
    bench = Bench()
    bench.looks["a"] = 30
    run(bench.run_for(100, (0, lambda: bench.queue.put("a"))))
    assert bench.passes == [("a", 0), ("a", 30)]


def test_failures_are_tried_again_later_each_time_with_jitter_and_not_others_affair() -> None:
    bench = Bench()
    bench.errors["bad"] = ValueError("broken")
    put = bench.putting("bad", "good")
    run(bench.run_for(3600, (0, put)))
    begun = [when for key, when in bench.passes if key == "bad"]
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    for place, gap in enumerate(gaps):
        full = min(LONGEST_DELAY, FIRST_DELAY * 2**place)
        assert full / 2 - 0.01 <= gap <= full + 0.01
    assert len({round(gap / min(LONGEST_DELAY, 2.0**n), 3) for n, gap in enumerate(gaps)}) > 3
    assert [(key, text) for key, text, _ in bench.failures] == [("bad", "broken")] * len(begun)
    assert bench.passes.count(("good", 0)) == 1


class BusyError(Exception):
    """A server that wants to be left alone for a while."""

    wait = 20.0


def test_a_failure_that_says_how_long_to_wait_is_not_tried_again_before() -> None:
    bench = Bench()
    bench.errors["a"] = BusyError("slow down")
    run(bench.run_for(50, (0, bench.putting("a"))))
    assert bench.passes == [("a", 0), ("a", 20), ("a", 40)]


def test_an_event_does_not_wait_for_a_backoff_and_a_success_begins_it_anew() -> None:
    bench = Bench()
    bench.errors["a"] = ValueError("broken")

    def mend() -> None:
        bench.errors.clear()
        bench.queue.put("a")

    def spoil() -> None:
        bench.errors["a"] = ValueError("broken again")
        bench.queue.put("a")

    run(bench.run_for(2000, (0, lambda: bench.queue.put("a")), (1000, mend), (1500, spoil)))
    assert ("a", 1000) in bench.passes
    assert [key for key, when in bench.passes if 1000 < when < 1500] == []
    again = [delay for _, text, delay in bench.failures if text == "broken again"]
    assert again[0] <= FIRST_DELAY


def test_thousands_of_keys_are_worked_on_and_nothing_of_them_stays() -> None:
    bench = Bench(takes=0.01, workers=8)
    keys = [f"key-{number}" for number in range(5000)]
    put = bench.putting(*keys)
    run(bench.run_for(60, (0, put), (1, put)))
    assert {key for key, _ in bench.passes} == set(keys)
    assert len(bench.passes) <= 2 * len(keys)
