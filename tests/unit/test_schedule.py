"""Which stream fetches what: no network, no threads, no clock that has to be waited for."""

import asyncio
import time
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader.http_client.bulk import BulkAnswer
from aim_downloader.partial import BLOCK, Partial
from aim_downloader.protocols.schedule import (
    FIRST_STREAMS,
    LARGEST_SEGMENT,
    LONG_WAIT,
    SMALLEST_SEGMENT,
    Schedule,
    StoppedError,
    Stream,
    Transfer,
    segment_size,
)
from aim_downloader.snapshot import MIB, ByteRange, RemoteFile


def transfer(size: int = 1024 * MIB, *, missing: list[ByteRange] | None = None) -> Transfer:
    """A file under way. Nothing here touches its partial."""
    file = RemoteFile("model.bin", size, None, url="http://hub.test/model.bin")
    waiting = [ByteRange(0, size)] if missing is None else missing
    # Of the partial nothing is asked, and of the future only that it is there.
    nothing = object()
    return Transfer(file, cast("Partial", nothing), waiting, cast("asyncio.Future[None]", nothing))


def schedule(connections: int, *transfers: Transfer) -> Schedule:
    made = Schedule(connections)
    made.transfers.extend(transfers)
    return made


def starve(*streams: Stream) -> None:
    for stream in streams:
        stream.reading, stream.working = 1.0, 0.1


def keep_busy(*streams: Stream) -> None:
    for stream in streams:
        stream.reading, stream.working = 0.1, 1.0


def must(stream: Stream | None) -> Stream:
    assert stream is not None
    return stream


def all_now(schedule: Schedule) -> list[Stream]:
    """All streams that there is work and room for now."""
    return list(iter(schedule.next_stream, None))


class Answer:
    """An answer that notes whether it was shut down."""

    def __init__(self) -> None:
        self.shut_down = 0

    def shutdown(self) -> None:
        self.shut_down += 1


def answer(of: Answer) -> BulkAnswer:
    return cast("BulkAnswer", of)


# -- who gets the next stream ----------------------------------------------------------------------


def test_without_files_there_is_nothing_to_do() -> None:
    assert Schedule(16).next_stream() is None
    assert Schedule(16).useful_streams == 0


def test_every_file_gets_a_leader_before_any_gets_a_helper() -> None:
    files = [transfer() for _ in range(3)]
    plan = schedule(16, *files)
    first = must(plan.next_stream())
    starve(first)
    leaders = [first, must(plan.next_stream()), must(plan.next_stream())]
    assert [stream.transfer for stream in leaders] == files
    assert [stream.position for stream in leaders] == [0, 0, 0]


def test_a_file_whose_stream_has_enough_to_do_gets_no_helper() -> None:
    plan = schedule(16, transfer())
    keep_busy(must(plan.next_stream()))
    assert plan.next_stream() is None


def test_a_file_gets_a_helper_when_all_its_streams_starve() -> None:
    plan = schedule(16, transfer())
    leader = must(plan.next_stream())
    starve(leader)
    helper = must(plan.next_stream())
    assert helper.position == leader.stop
    keep_busy(helper)
    assert plan.next_stream() is None
    starve(helper)
    assert must(plan.next_stream()).position == helper.stop


def test_of_two_starved_files_the_one_with_more_to_fetch_is_helped() -> None:
    small, large = transfer(100 * MIB), transfer(1000 * MIB)
    plan = schedule(16, small, large)
    starve(must(plan.next_stream()), must(plan.next_stream()))
    assert must(plan.next_stream()).transfer is large


@pytest.mark.parametrize(
    ("since", "starved"), [(None, False), (0.0, False), (LONG_WAIT + 0.01, True)]
)
def test_a_stream_that_waits_long_starves_whatever_it_did_before(
    since: float | None, starved: bool
) -> None:
    stream = must(schedule(16, transfer()).next_stream())
    keep_busy(stream)
    stream.waiting_since = 0.0 if since is None else time.monotonic() - since
    assert stream.starved is starved


@pytest.mark.parametrize("starved", [True, False])
def test_old_blocks_count_less_and_less(starved: bool) -> None:
    stream = must(schedule(16, transfer()).next_stream())
    slow, quick = (1.0, 0.1), (0.01, 0.1)
    for reading, working in [quick if starved else slow] * 10 + [slow if starved else quick] * 20:
        stream.note(reading, working)
    assert stream.starved is starved


def test_a_file_that_is_read_from_the_front_has_one_stream() -> None:
    one = transfer()
    one.sequential = True
    plan = schedule(16, one)
    leader = must(plan.next_stream())
    starve(leader)
    assert plan.next_stream() is None
    plan.end(leader)
    assert must(plan.next_stream()).position == 0


def test_a_file_that_failed_gets_no_stream() -> None:
    failed, sound = transfer(), transfer()
    plan = schedule(16, failed, sound)
    plan.fail(failed, OSError("no"))
    assert [stream.transfer for stream in all_now(plan)] == [sound]


# -- how many streams ------------------------------------------------------------------------------


@pytest.mark.parametrize(("connections", "width"), [(1, 1), (3, 3), (4, 4), (5, 4), (256, 4)])
def test_the_width_at_first(connections: int, width: int) -> None:
    plan = schedule(connections, *(transfer() for _ in range(20)))
    assert plan.width == width == min(FIRST_STREAMS, connections)
    assert len(all_now(plan)) == width


def test_the_width_grows_while_all_starve_up_to_the_connections() -> None:
    plan = schedule(16, *(transfer() for _ in range(40)))
    widths = []
    for _ in range(6):
        starve(*all_now(plan))
        plan.widen()
        widths.append(plan.width)
    assert widths == sorted(widths)
    assert widths[0] > FIRST_STREAMS
    assert widths[-1] == 16
    assert len(plan.streams) == 16


def test_the_width_stays_when_one_stream_is_busy() -> None:
    plan = schedule(16, *(transfer() for _ in range(10)))
    streams = all_now(plan)
    starve(*streams)
    keep_busy(streams[0])
    plan.widen()
    assert plan.width == FIRST_STREAMS


def test_the_width_stays_while_there_is_room() -> None:
    plan = schedule(16, transfer(), transfer())
    streams = all_now(plan)
    keep_busy(*streams)
    assert len(streams) < FIRST_STREAMS
    starve(*streams)
    plan.widen()
    assert plan.width == FIRST_STREAMS


@pytest.mark.parametrize(
    ("sizes", "streams"),
    [
        ([], 0),
        ([1], 1),
        ([SMALLEST_SEGMENT], 1),
        ([SMALLEST_SEGMENT + 1], 2),
        ([1, 1, 1], 3),
        ([1024 * MIB], 4),
        ([1] * 20, 4),
    ],
)
def test_how_many_streams_there_is_work_for(sizes: list[int], streams: int) -> None:
    plan = schedule(16, *map(transfer, sizes))
    assert plan.useful_streams == streams
    all_now(plan)
    assert plan.useful_streams <= max(streams, len(plan.streams))


# -- segments --------------------------------------------------------------------------------------


def test_segments_shrink_towards_the_end() -> None:
    one = transfer(1500 * MIB)
    plan = schedule(4, one)
    sizes = []
    while one.waiting:
        stream = must(plan.next_stream())
        sizes.append(stream.stop - stream.position)
        stream.position = stream.stop
        plan.end(stream)
    assert sizes[0] == LARGEST_SEGMENT
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert sizes[-2] == SMALLEST_SEGMENT
    assert sum(sizes) == one.file.size
    assert not any(size % BLOCK for size in sizes[:-1])


def test_a_segment_ends_where_a_gap_ends() -> None:
    gaps = [ByteRange(0, 2 * MIB), ByteRange(5 * MIB, 6 * MIB), ByteRange(9 * MIB, 900 * MIB)]
    one = transfer(1024 * MIB, missing=list(gaps))
    plan = schedule(16, one)
    streams = []
    for _ in range(3):
        streams.append(must(plan.next_stream()))
        starve(*streams)
    assert [stream.rest for stream in streams[:2]] == gaps[:2]
    assert streams[2].position == 9 * MIB


@given(st.integers(1, 300 * MIB), st.integers(1, 256), st.lists(st.integers(0, 64), max_size=30))
@settings(deadline=None, max_examples=60)
def test_what_is_given_out_and_what_waits_is_all_there_is(
    size: int, connections: int, blocks_fetched: list[int]
) -> None:
    """Streams that end early, one after the other, lose no byte and leave none to two."""
    one = transfer(size)
    plan = schedule(connections, one)
    fetched = 0
    for blocks in blocks_fetched:
        if (stream := plan.next_stream()) is None:
            break
        begin = stream.position
        stream.position = min(stream.stop, begin + blocks * BLOCK)
        fetched += stream.position - begin
        plan.end(stream)
        assert fetched + one.waiting_bytes == size
        assert one.waiting == sorted(one.waiting)
    assert (fetched == size) == (not one.waiting)


# -- the end of a stream ---------------------------------------------------------------------------


def test_what_a_stream_has_not_fetched_is_for_others() -> None:
    plan = schedule(16, transfer(200 * MIB))
    first = must(plan.next_stream())
    starve(first)
    second = must(plan.next_stream())
    first.position = 3 * MIB
    left = first.rest
    plan.end(first)
    assert first not in plan.streams
    starve(second)
    again = must(plan.next_stream())
    assert again.position == left.start
    assert again.stop <= left.stop


def test_a_stream_that_has_fetched_all_gives_nothing_back() -> None:
    one = transfer(MIB)
    plan = schedule(16, one)
    stream = must(plan.next_stream())
    stream.position = stream.stop
    plan.end(stream)
    assert one.waiting == []
    assert plan.next_stream() is None


# -- the end of a file -----------------------------------------------------------------------------


def test_a_failure_ends_the_streams_of_its_file_alone() -> None:
    failed, sound = transfer(), transfer()
    plan = schedule(16, failed, sound)
    of_failed, of_sound = must(plan.next_stream()), must(plan.next_stream())
    answers = Answer(), Answer()
    of_failed.attach(answer(answers[0]))
    of_sound.attach(answer(answers[1]))
    plan.fail(failed, OSError("no"))
    assert of_failed.stopped.is_set()
    assert not of_sound.stopped.is_set()
    assert [one.shut_down for one in answers] == [1, 0]
    with pytest.raises(StoppedError):
        of_failed.sleep(60)


def test_the_first_error_counts() -> None:
    one = transfer()
    plan = schedule(16, one)
    first = OSError("first")
    plan.fail(one, first)
    plan.fail(one, OSError("second"))
    assert one.error is first


def test_an_answer_that_comes_after_the_end_is_not_read() -> None:
    stream = must(schedule(16, transfer()).next_stream())
    stream.end()
    late = Answer()
    with pytest.raises(StoppedError):
        stream.attach(answer(late))


def test_an_end_after_the_answer_wakes_who_reads_it() -> None:
    stream = must(schedule(16, transfer()).next_stream())
    here = Answer()
    stream.attach(answer(here))
    stream.end()
    assert here.shut_down == 1


def test_a_stream_sleeps_unless_it_is_told_to_end() -> None:
    stream = must(schedule(16, transfer()).next_stream())
    stream.sleep(0.001)
    stream.end()
    with pytest.raises(StoppedError):
        stream.sleep(0.001)


def test_a_file_is_settled_once_when_all_is_fetched_and_all_have_left() -> None:
    one = transfer(2 * SMALLEST_SEGMENT)
    plan = schedule(16, one)
    first = must(plan.next_stream())
    starve(first)
    second = must(plan.next_stream())
    assert not plan.settle(one)
    first.position = first.stop
    plan.end(first)
    assert not plan.settle(one)
    second.position = second.stop
    plan.end(second)
    assert plan.settle(one)
    assert not plan.settle(one)
    assert plan.transfers == []


def test_a_file_with_bytes_left_is_not_settled() -> None:
    one = transfer(SMALLEST_SEGMENT)
    plan = schedule(16, one)
    stream = must(plan.next_stream())
    plan.end(stream)
    assert not plan.settle(one)


def test_a_failed_file_is_settled_when_its_streams_have_left() -> None:
    one = transfer()
    plan = schedule(16, one)
    stream = must(plan.next_stream())
    plan.fail(one, OSError("no"))
    assert not plan.settle(one)
    plan.end(stream)
    assert plan.settle(one)
    assert not plan.settle(one)


def test_a_failed_file_that_nobody_works_on_is_settled_at_once() -> None:
    one = transfer()
    plan = schedule(16, one)
    plan.fail(one, OSError("no"))
    assert plan.settle(one)


def test_the_place_of_a_stream_that_ended_is_free() -> None:
    plan = schedule(1, transfer(), transfer())
    stream = must(plan.next_stream())
    assert plan.next_stream() is None
    plan.end(stream)
    assert plan.next_stream() is not None


def test_segment_size_is_what_next_stream_takes() -> None:
    plan = schedule(16, transfer(300 * MIB))
    stream = must(plan.next_stream())
    assert len(stream.rest) == segment_size(300 * MIB, 16)
