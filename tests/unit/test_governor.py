"""What one worker hears of a busy server, and what all of them do about it."""

import contextlib
from asyncio import Future
from collections.abc import Iterator
from random import Random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.errors import (
    DownloadError,
    StalledError,
    ThrottledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.governor import Governor, Ration, Visit
from aim_downloader.http_client.rules import ration, refusal, stood_still, unreachable
from aim_downloader.partial import Partial
from aim_downloader.protocols.schedule import Schedule, StoppedError, Stream, Transfer
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile

HUB, CDN = "https://hub.test/model", "https://cdn.test/bytes?signed"
PATIENCE = 600.0


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Workers:
    """Sixteen workers of one governor, who ask and fail as they are told."""

    def __init__(self, connections: int = 16) -> None:
        self.clock = Clock()
        self.governor = Governor(connections, PATIENCE, self.clock)
        self.connections = connections

    @property
    def allowed(self) -> int:
        return self.governor.allowed(self.connections)

    def fail(self, *errors: DownloadError) -> None:
        """As many requests under way as there are errors end with them, one after the other."""
        with self.under_way(len(errors)) as askings:
            for asking, error in zip(askings, errors, strict=True):
                with pytest.raises(type(error)):
                    asking.close_with(error)

    @contextlib.contextmanager
    def under_way(self, count: int) -> "Iterator[list[UnderWay]]":
        askings = [UnderWay(self.governor) for _ in range(count)]
        try:
            yield askings
        finally:
            for asking in askings:
                asking.close()

    def wait(self, url: str) -> float:
        """Seconds until a request to this URL may be sent."""
        pause = self.governor.pause(url)
        if pause is None:
            self.governor.ended(url)
            return 0.0
        return pause.seconds

    def answer(self, url: str, ration: Ration | None = None) -> None:
        """A request that others do not overlap with is answered well."""
        self.clock.now += 0.01
        with self.governor.visit() as visit:
            for pause in visit.pauses(url):
                self.clock.now += pause.nap
            self.clock.now += 0.01
            visit.answered(ration)

    def send(self, url: str) -> Visit | None:
        """A request that stays under way, if one may be sent now."""
        visit = Visit(self.governor)
        return visit if next(visit.pauses(url), None) is None else None

    def succeed(self, seconds: float = 2.0) -> None:
        """A request is answered so long after what was before."""
        self.clock.now += seconds
        self.governor.answered(CDN, self.clock.now)


class UnderWay:
    """A request that has been sent."""

    def __init__(self, governor: Governor) -> None:
        self._context = governor.visit()
        self.asking: Visit = self._context.__enter__()
        self._open = True

    def close_with(self, error: DownloadError) -> None:
        self._open = False
        if not self._context.__exit__(type(error), error, None):
            raise error

    def close(self) -> None:
        if self._open:
            self._context.__exit__(None, None, None)
        self._open = False


def throttled(seconds: float | None = None, url: str = CDN) -> ThrottledError:
    return ThrottledError("429: too busy", retry_after=seconds, url=url)


def stalled() -> StalledError:
    return StalledError("stood still")


# -- how many connections --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("under_way", "error", "allowed"),
    [
        (16, throttled(), 8),
        (16, throttled(5.0), 8),
        (16, stalled(), 12),
        # It is half of what was in use, not of what might have been.
        (4, throttled(), 2),
        (4, stalled(), 3),
        (3, throttled(), 2),
        (2, throttled(), 1),
        (2, stalled(), 1),
        (1, throttled(), 1),
        (1, stalled(), 1),
        # These say nothing of how much a server can take.
        (16, TransferInterruptedError("reset"), 16),
        (16, TransferError("404"), 16),
    ],
)
def test_connections_shrink(under_way: int, error: DownloadError, allowed: int) -> None:
    workers = Workers()
    with workers.under_way(under_way) as askings, pytest.raises(type(error)):
        askings[0].close_with(error)
    assert workers.allowed == allowed


@pytest.mark.parametrize("error", [throttled(), stalled()])
def test_a_burst_counts_once(error: DownloadError) -> None:
    workers = Workers()
    with workers.under_way(16) as askings:
        for asking in askings:
            workers.clock.now += 0.01
            with pytest.raises(type(error)):
                asking.close_with(error)
    assert workers.allowed == (8 if isinstance(error, ThrottledError) else 12)


def test_who_is_refused_again_shrinks_again() -> None:
    workers = Workers()
    seen = []
    for _ in range(6):
        workers.clock.now += 1
        workers.fail(*[throttled()] * workers.allowed)
        seen.append(workers.allowed)
    assert seen == [8, 4, 2, 1, 1, 1]


def test_success_gives_them_back_one_by_one() -> None:
    workers = Workers()
    workers.fail(*[throttled()] * 16)
    workers.succeed(1.9)
    assert workers.allowed == 8
    workers.succeed(0.1)
    assert workers.allowed == 9
    workers.succeed(0.1)
    assert workers.allowed == 9
    for _ in range(20):
        workers.succeed()
    assert workers.allowed == 16


def test_without_success_nothing_grows() -> None:
    workers = Workers()
    workers.fail(*[throttled()] * 16)
    workers.clock.now += 3600
    assert workers.allowed == 8


@pytest.mark.parametrize(("lane", "allowed"), [(16, 8), (12, 6), (4, 2), (3, 1), (2, 1), (1, 1)])
def test_both_lanes_shrink_alike(lane: int, allowed: int) -> None:
    workers = Workers()
    workers.fail(*[throttled()] * 16)
    assert workers.governor.allowed(lane) == allowed


@given(st.integers(1, 256), st.lists(st.sampled_from("tso"), max_size=60), st.integers(1, 256))
def test_there_is_always_one_and_never_more_than_configured(
    connections: int, course: list[str], lane: int
) -> None:
    workers = Workers(connections)
    for step in course:
        workers.clock.now += 2
        if step == "o":
            workers.succeed()
        else:
            workers.fail(*[throttled() if step == "t" else stalled()] * workers.allowed)
        assert 1 <= workers.allowed <= connections
        assert 1 <= workers.governor.allowed(min(lane, connections)) <= min(lane, connections)


# -- pauses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "pause"),
    [(5.0, 5.0), (600.0, 600.0), (86400.0, 600.0), (0.0, 0.0), (None, 0.0)],
)
def test_everybody_waits_as_long_as_the_server_named(asked: float | None, pause: float) -> None:
    workers = Workers()
    workers.fail(throttled(asked))
    waits = [workers.wait(CDN) for _ in range(100)]
    assert pause <= min(waits) <= max(waits) <= pause * 1.1
    if pause:
        # Not in the same millisecond.
        assert len({round(wait, 3) for wait in waits}) > 20
    workers.clock.now += pause
    assert workers.wait(CDN) == 0.0


@pytest.mark.parametrize(
    ("url", "waits"),
    [
        ("https://cdn.test/other?signed", True),
        ("https://CDN.test:443/", True),
        (HUB, False),
        ("https://cdn.test:8443/", False),
        ("http://cdn.test/", False),
    ],
)
def test_it_is_the_origin_that_is_left_alone(url: str, waits: bool) -> None:
    workers = Workers()
    workers.fail(throttled(5.0))
    assert (workers.wait(url) > 0) is waits


def test_a_later_refusal_prolongs_a_pause_and_never_shortens_it() -> None:
    workers = Workers()
    workers.fail(throttled(5.0), throttled(20.0), throttled(1.0), throttled())
    workers.clock.now += 19
    assert 0 < workers.wait(CDN) <= 3


@pytest.mark.parametrize("later", [None, 0.0, 1.0])
def test_a_refusal_that_prolongs_nothing_does_not_let_all_loose_at_once(
    later: float | None,
) -> None:
    workers = Workers()
    workers.fail(throttled(60.0), throttled(later))
    waits = [workers.wait(CDN) for _ in range(100)]
    assert len({round(wait, 3) for wait in waits}) > 20
    assert max(waits) > 61.5


def test_one_who_waits_looks_again_before_it_asks() -> None:
    workers = Workers()
    workers.fail(throttled(5.0))
    begun = workers.clock.now
    with workers.governor.visit() as asking:
        waits: list[float] = []
        for pause in asking.pauses(CDN):
            waits.append(pause.seconds)
            workers.clock.now += pause.nap
            if len(waits) == 1:
                workers.fail(throttled(7.0))
    # It was told of five seconds, and waited for eight.
    assert 8 <= asking.sent - begun <= 9
    assert asking.sent == workers.clock.now


# -- what servers say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, None),
        ({"RateLimit": '"api";r=9;t=55'}, Ration(9, 55.0)),
        ({"RateLimit": '"api"; t=55; r=0'}, Ration(0, 55.0)),
        ({"RateLimit": '"api";r=9;t=55, "pages";r=3;t=7'}, Ration(3, 7.0)),
        ({"RateLimit": "limit=10, remaining=9, reset=55"}, Ration(9, 55.0)),
        ({"RateLimit": "remaining=0,reset=1"}, Ration(0, 1.0)),
        ({"RateLimit": '"api";r=9'}, None),
        ({"RateLimit": '"api";r=-1;t=55'}, None),
        ({"RateLimit": f'"api";r=9;t={"9" * 5000}'}, None),
        ({"RateLimit": "garbage"}, None),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_a_header_grants(headers: dict[str, str], said: Ration | None) -> None:
    assert ration(headers) == said


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (stood_still(CDN), StalledError),
        (unreachable(CDN, TimeoutError()), StalledError),
        (unreachable(CDN, ConnectionResetError()), TransferInterruptedError),
    ],
)
def test_which_errors_are_stalls(error: DownloadError, kind: type[DownloadError]) -> None:
    assert type(error) is kind


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_knows_who_refused(status: int) -> None:
    error = refusal(status, {"Retry-After": "5"}, CDN, HUB)
    assert isinstance(error, ThrottledError)
    assert (error.url, error.retry_after) == (CDN, 5.0)


# -- what a server still grants --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granted", "under_way", "pause"),
    [
        (None, 15, 0.0),
        (Ration(1000, 55.0), 15, 0.0),
        (Ration(1, 55.0), 0, 0.0),
        (Ration(16, 55.0), 15, 0.0),
        # Those under way may use up what is left: their answers, which come soon, will tell.
        (Ration(15, 55.0), 15, 0.1),
        (Ration(1, 55.0), 15, 0.1),
        (Ration(0, 55.0), 0, 55.0),
        (Ration(0, 55.0), 15, 55.0),
        (Ration(0, 86400.0), 0, 600.0),
        (Ration(0, 0.0), 0, 0.0),
    ],
)
def test_everybody_waits_when_the_ration_is_used_up(
    granted: Ration | None, under_way: int, pause: float
) -> None:
    workers = Workers()
    for _ in range(under_way):
        assert workers.send(HUB)
    workers.answer(HUB, granted)
    wait = workers.wait(HUB)
    assert pause <= wait <= pause * 2
    assert wait <= pause * 1.1 or pause < 1
    assert workers.wait(CDN) == 0.0
    assert workers.allowed == 16


@given(st.integers(2, 60), st.integers(1, 32), st.randoms(use_true_random=False))
def test_a_ration_is_used_up_and_no_more_is_asked_for(
    granted: int, width: int, random: Random
) -> None:
    workers = Workers(width)
    counted = 1
    workers.answer(HUB, Ration(granted - counted, 55.0))
    under_way: list[tuple[Visit, Ration]] = []
    while True:
        while len(under_way) < width and (visit := workers.send(HUB)):
            counted += 1
            under_way.append((visit, Ration(granted - counted, 55.0)))
        if not under_way:
            break
        # Answers overtake each other.
        visit, ration = under_way.pop(random.randrange(len(under_way)))
        workers.clock.now += 0.01
        visit.answered(ration)
    assert counted == granted


def test_a_server_that_grants_more_than_it_said_is_believed() -> None:
    workers = Workers()
    for left in (1, 9, 9):
        workers.answer(HUB, Ration(left, 55.0))
    for _ in range(9):
        assert workers.send(HUB)
    assert workers.wait(HUB) > 0


def test_who_is_not_answered_needs_nothing_of_what_is_left() -> None:
    workers = Workers()
    with workers.under_way(1) as [unanswered]:
        assert list(unanswered.asking.pauses(HUB)) == []
        workers.answer(HUB, Ration(1, 55.0))
        assert workers.wait(HUB) > 0
        with pytest.raises(StalledError):
            unanswered.close_with(stalled())
        assert workers.wait(HUB) == 0.0


def test_a_server_that_always_says_it_was_the_last_is_not_believed_twice() -> None:
    workers = Workers()
    together = [workers.send(HUB), workers.send(HUB)]
    for visit, wait in zip(together, (600.0, 0.0), strict=True):
        assert visit is not None
        visit.answered(Ration(0, 600.0))
        assert wait <= workers.wait(HUB) <= wait * 1.1
    workers.answer(HUB, Ration(0, 600.0))
    assert workers.wait(HUB) == 0.0
    # What it names when it refuses is another matter; and it may come to count.
    workers.fail(throttled(5.0, HUB))
    assert workers.wait(HUB) >= 5
    workers.answer(HUB, Ration(1, 55.0))
    workers.answer(HUB, Ration(0, 55.0))
    assert workers.wait(HUB) >= 50


def test_one_who_waits_hears_soon_that_it_need_not() -> None:
    workers = Workers()
    late = workers.send(HUB)
    assert late is not None
    workers.answer(HUB, Ration(0, 600.0))
    begun = workers.clock.now
    with workers.governor.visit() as asking:
        for pause in asking.pauses(HUB):
            late.answered(Ration(0, 600.0))
            workers.clock.now += pause.nap
    assert workers.clock.now - begun <= 1


def test_a_redirect_tells_of_the_ration_where_it_came_from() -> None:
    workers = Workers()
    with workers.governor.visit() as visit:
        assert list(visit.pauses(HUB)) == []
        assert list(visit.pauses(CDN, Ration(0, 55.0))) == []
        visit.answered(Ration(1000, 55.0))
    assert workers.wait(HUB) >= 55
    assert workers.wait(CDN) == 0.0


def test_a_wait_for_a_ration_is_told_once() -> None:
    workers = Workers()
    workers.answer(HUB, Ration(1, 55.0))
    workers.answer(HUB, Ration(0, 55.0))
    pauses = [workers.governor.pause(HUB) for _ in range(3)]
    assert [pause.reason for pause in pauses if pause] == [
        "hub.test grants no more requests for now",
        "",
        "",
    ]


def test_a_wait_for_a_refusal_is_not_told_as_one_for_a_ration() -> None:
    workers = Workers()
    workers.answer(HUB, Ration(0, 5.0))
    workers.clock.now += 5
    workers.fail(throttled(5.0, HUB))
    pause = workers.governor.pause(HUB)
    assert pause is not None
    assert pause.reason == ""


# -- what is told, and when it ends ----------------------------------------------------------------


def test_of_refusals_that_come_together_one_is_told() -> None:
    workers = Workers()
    told = [workers.governor.is_news(throttled(5.0), 5.0) for _ in range(16)]
    assert told == [True, *[False] * 15]
    assert workers.governor.is_news(throttled(5.0, HUB), 5.0)
    assert all(workers.governor.is_news(stalled(), 1.0) for _ in range(3))
    workers.clock.now += 5
    assert workers.governor.is_news(throttled(5.0), 5.0)


def test_when_one_has_given_up_the_others_need_not_try_as_long() -> None:
    workers = Workers()
    workers.fail(throttled())
    workers.governor.give_up(throttled(), 1)
    with pytest.raises(TransferError, match="429") as caught, workers.governor.visit():
        raise throttled()
    assert not caught.value.retryable
    # Elsewhere, and after an answer, there is hope again.
    workers.fail(throttled(url=HUB))
    workers.succeed()
    workers.fail(throttled())


def test_an_error_that_is_none_of_its_business_passes() -> None:
    workers = Workers()
    with pytest.raises(ZeroDivisionError), workers.governor.visit():
        raise ZeroDivisionError
    assert workers.allowed == 16
    assert workers.wait(CDN) == 0.0


# -- streams that make way -------------------------------------------------------------------------

TRIES = 8


def under_way(connections: int, files: int) -> tuple[Schedule, list[Stream]]:
    """A schedule with large files, and as many streams as may be."""
    plan = Schedule(connections)
    plan.width = connections
    # Neither partial nor future is touched by a schedule.
    nothing = object()
    for _ in range(files):
        file = RemoteFile("model.bin", 1024 * MIB, None, url=CDN)
        waiting = [ByteRange(0, file.size)]
        plan.transfers.append(
            Transfer(file, cast("Partial", nothing), waiting, cast("Future[None]", nothing))
        )
    streams: list[Stream] = []
    while (stream := plan.next_stream()) is not None:
        stream.reading, stream.working = 1.0, 0.1
        streams.append(stream)
    assert len(streams) == connections
    return plan, streams


@pytest.mark.parametrize("allowed", [1, 2, 3, 4])
def test_of_streams_that_are_refused_the_allowed_stay(allowed: int) -> None:
    plan, streams = under_way(4, 2)
    plan.allowed = allowed
    leaving = [stream for stream in streams if plan.refuse(stream, TRIES)]
    assert len(leaving) == 4 - allowed
    for stream in leaving:
        with pytest.raises(StoppedError):
            stream.sleep(0)
        plan.end(stream)
    # What they had is for others, and not before there is room again.
    assert plan.next_stream() is None
    assert sum(one.waiting_bytes for one in plan.transfers) > 0
    plan.allowed = 4
    assert (plan.next_stream() is None) is (allowed == 4)


def test_a_file_that_is_always_refused_goes_from_hand_to_hand_for_some_time_only() -> None:
    plan, streams = under_way(16, 1)
    plan.allowed = 1
    assert [plan.refuse(stream, TRIES) for stream in streams].count(True) == TRIES


def test_no_stream_begins_beyond_the_allowed() -> None:
    plan, streams = under_way(4, 4)
    plan.allowed = 2
    for ended in (1, 2):
        plan.end(streams[ended])
        assert plan.next_stream() is None
        assert plan.useful_streams <= 2
    plan.end(streams[3])
    assert plan.next_stream() is not None
