"""Which errors are worth another try, after how long, and how often."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader.errors import (
    AccessDeniedError,
    ConfigError,
    DigestMismatchError,
    DownloadError,
    LeaseLostError,
    RangeNotHonouredError,
    SnapshotChangedError,
    SnapshotNotFoundError,
    SourceError,
    StorageError,
    ThrottledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.retry import RetryPolicy, is_retryable

POLICY = RetryPolicy()
INTERRUPTED = TransferInterruptedError("dropped")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransferInterruptedError(""), True),
        (ThrottledError(""), True),
        (RangeNotHonouredError(""), True),
        (TransferError(""), False),
        (SourceError(""), False),
        (SnapshotNotFoundError(""), False),
        (AccessDeniedError(""), False),
        (SnapshotChangedError(""), False),
        (DigestMismatchError(""), False),
        (StorageError(""), False),
        (LeaseLostError(""), False),
        (ConfigError(""), False),
        (TypeError(""), False),
        (OSError(""), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_what_is_worth_another_try(error: BaseException, again: bool) -> None:
    assert is_retryable(error) is again


@pytest.mark.parametrize(
    ("attempt", "longest"),
    [
        (1, 0.5),
        (2, 1.0),
        (3, 2.0),
        (4, 4.0),
        (5, 8.0),
        (6, 16.0),
        (7, 30.0),
        (8, 30.0),
        (500, 30.0),
    ],
)
@pytest.mark.parametrize("error", [INTERRUPTED, ThrottledError("busy"), None])
def test_delays_double_up_to_a_limit(
    attempt: int, longest: float, error: DownloadError | None
) -> None:
    delays = [POLICY.delay(attempt, error) for _ in range(200)]
    assert longest / 2 <= min(delays) <= max(delays) <= longest


@pytest.mark.parametrize(
    ("asked", "at_least"),
    [(0.0, 0.0), (5.0, 5.0), (599.0, 599.0), (600.0, 600.0), (86400.0, 600.0)],
)
@pytest.mark.parametrize("attempt", [1, 8])
def test_a_server_that_names_a_delay_is_believed(
    attempt: int, asked: float, at_least: float
) -> None:
    delays = [POLICY.delay(attempt, ThrottledError("", retry_after=asked)) for _ in range(200)]
    backoff = POLICY.first_delay * 2 ** (attempt - 1)
    longest = max(at_least * 1.1, min(backoff, POLICY.longest_delay))
    assert at_least <= min(delays) <= max(delays) <= longest
    assert min(delays) > 0  # "at once" would be eight tries in no time


def test_those_who_were_told_the_same_do_not_come_back_together() -> None:
    error = ThrottledError("", retry_after=5.0)
    assert len({round(POLICY.delay(1, error), 3) for _ in range(100)}) > 20
    assert len({round(POLICY.delay(3, None), 3) for _ in range(100)}) > 20


@given(st.integers(1, 1000), st.floats(0, 1e12) | st.none())
@settings(deadline=None)
def test_every_delay_is_within_patience(attempt: int, asked: float | None) -> None:
    delay = POLICY.delay(attempt, ThrottledError("", retry_after=asked))
    assert 0 <= delay <= POLICY.longest_patience * 1.1


class Tries:
    """Something that fails some times; it notes the waits, and what was told of them."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.tries = 0
        self.slept: list[float] = []
        self.told: list[tuple[BaseException, int, float]] = []

    def once(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def in_a_thread(self, policy: RetryPolicy) -> str:
        retrying = policy.retrying(self.slept.append, self.tell)
        return str(retrying(self.once))

    async def in_the_loop(self, policy: RetryPolicy) -> str:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        async for attempt in policy.async_retrying(sleep, self.tell):
            with attempt:
                return self.once()
        raise AssertionError

    def tell(self, error: BaseException, attempt: int, delay: float) -> None:
        self.told.append((error, attempt, delay))

    async def run(self, way: str, policy: RetryPolicy) -> str:
        return self.in_a_thread(policy) if way == "thread" else await self.in_the_loop(policy)


@pytest.mark.parametrize("way", ["thread", "loop"])
class TestTries:
    """In a thread and in the event loop alike."""

    async def test_what_works_is_done_once(self, way: str) -> None:
        tries = Tries()
        assert await tries.run(way, POLICY) == "done"
        assert (tries.tries, tries.slept, tries.told) == (1, [], [])

    async def test_each_wait_is_told_before_it_begins(self, way: str) -> None:
        throttled = ThrottledError("busy", retry_after=7.0)
        tries = Tries(INTERRUPTED, throttled)
        assert await tries.run(way, POLICY) == "done"
        assert tries.tries == 3
        assert [(error, attempt) for error, attempt, _ in tries.told] == [
            (INTERRUPTED, 1),
            (throttled, 2),
        ]
        assert [delay for _, _, delay in tries.told] == tries.slept
        assert tries.slept[0] <= 0.5
        assert 7.0 <= tries.slept[1] <= 7.7

    @pytest.mark.parametrize("attempts", [1, 3, 8])
    async def test_it_ends_with_the_last_error(self, way: str, attempts: int) -> None:
        errors = [TransferInterruptedError(str(number)) for number in range(20)]
        tries = Tries(*errors)
        with pytest.raises(TransferInterruptedError) as caught:
            await tries.run(way, RetryPolicy(attempts=attempts))
        assert caught.value is errors[attempts - 1]
        assert (tries.tries, len(tries.slept)) == (attempts, attempts - 1)

    @pytest.mark.parametrize("error", [AccessDeniedError("no"), TransferError("no"), TypeError()])
    async def test_what_another_try_cannot_cure_ends_it(self, way: str, error: Exception) -> None:
        tries = Tries(INTERRUPTED, error)
        with pytest.raises(type(error)) as caught:
            await tries.run(way, POLICY)
        assert caught.value is error
        assert len(tries.slept) == 1


class StoppedError(Exception):
    """Raised by a sleep that was ended."""


def test_a_sleep_may_end_the_tries() -> None:
    def sleep(seconds: float) -> None:
        raise StoppedError

    tries = Tries(INTERRUPTED)
    once: Callable[[], str] = tries.once
    with pytest.raises(StoppedError):
        POLICY.retrying(sleep, tries.tell)(once)
    assert tries.tries == 1
