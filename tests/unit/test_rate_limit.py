"""The speed limit: what is taken never exceeds it, and whoever takes gets a turn."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.rate_limit import RateLimit

KIB, MIB = 1024, 1024 * 1024
BURST = 0.25


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("idle", "taken", "waits"),
    [
        # Everything is paid for, also the first bytes.
        (0.0, [100], [1.0]),
        (0.0, [100, 100], [1.0, 2.0]),
        (0.0, [50, 50, 100], [0.5, 1.0, 2.0]),
        # Who was idle catches up with a quarter of a second, and no more.
        (0.1, [10], [0.0]),
        (10.0, [25], [0.0]),
        (10.0, [25, 100], [0.0, 1.0]),
        (3600.0, [125], [1.0]),
    ],
)
def test_how_long_to_wait(idle: float, taken: list[int], waits: list[float]) -> None:
    clock = Clock()
    limit = RateLimit(100, clock)
    clock.now += idle
    assert [limit.take(count) for count in taken] == pytest.approx(waits)


@given(
    st.integers(1024, 10**9),
    st.lists(st.tuples(st.integers(1, MIB), st.floats(0, 2)), min_size=1, max_size=50),
)
def test_it_is_never_faster_than_the_limit(rate: int, steps: list[tuple[int, float]]) -> None:
    """Whoever waits as told, and then dawdles, has at no time more than the limit allows."""
    clock = Clock()
    limit = RateLimit(rate, clock)
    begun, got = clock.now, 0
    for count, dawdling in steps:
        clock.now += limit.take(count)
        got += count
        assert got <= rate * (clock.now - begun + BURST) * (1 + 1e-6) + 1
        clock.now += dawdling


def test_threads_share_it() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock)
    waits: list[float] = []
    threads = [
        threading.Thread(target=lambda: waits.extend(limit.take(1) for _ in range(250)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([number / 1000 for number in range(1, 1001)])


@pytest.mark.parametrize(
    ("rate", "piece", "streams", "buffer"),
    [
        (KIB, 4 * KIB, 1, 64 * KIB),
        (64 * KIB, 16 * KIB, 1, 64 * KIB),
        (512 * KIB, 64 * KIB, 2, 64 * KIB),
        (MIB, 64 * KIB, 4, 64 * KIB),
        (4 * MIB, 64 * KIB, 16, 128 * KIB),
        (16 * MIB, 256 * KIB, 16, 256 * KIB),
        (100 * MIB, MIB, 16, None),
        (10**10, MIB, 16, None),
    ],
)
def test_what_follows_from_it(rate: int, piece: int, streams: int, buffer: int | None) -> None:
    limit = RateLimit(rate)
    assert (limit.piece, limit.streams(16), limit.receive_buffer) == (piece, streams, buffer)


@given(st.integers(1024, 10**12), st.integers(1, 256))
def test_what_follows_is_within_bounds(rate: int, connections: int) -> None:
    limit = RateLimit(rate)
    assert 4 * KIB <= limit.piece <= MIB
    assert limit.piece <= max(4 * KIB, rate // 4)
    assert 1 <= limit.streams(connections) <= connections
