"""Which stream fetches what: no network, no threads, no clock that has to be waited for."""

import asyncio
import time
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def wait(stream: Stream, seconds: float, *, asking: bool = False) -> None:
    """The stream has waited for the network for so long now."""
    stream.waiting_since, stream.asking = time.monotonic() - seconds, asking


def usual(plan: Schedule, seconds: float) -> None:
    """So long is what blocks and heads have taken up to now."""
    for _ in range(20):
        plan.blocks.note(seconds)
        plan.heads.note(seconds)


def under_way(plan: Schedule, count: int) -> list[Stream]:
    """So many streams, all of which starve."""
    plan.width = count
    streams: list[Stream] = []
    while len(streams) < count:
        streams.append(must(plan.next_stream()))
        starve(*streams)
    plan.width = 16
    return streams


def must(stream: Stream | None) -> Stream:
    assert stream is not None
    return stream


def all_now(schedule: Schedule) -> list[Stream]:
    """All streams that there is work and room for now."""
    return list(iter(schedule.next_stream, None))


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


def test_as_many_streams_join_as_have_shown_that_they_starve() -> None:
    """So that many come soon where they help, and one by mistake where they do not."""
    plan = schedule(16, transfer())
    plan.width = 16
    counts = [len(all_now(plan))]
    while len(plan.streams) < 16:
        starve(*plan.streams)
        all_now(plan)
        counts.append(len(plan.streams))
    assert counts == [1, 2, 4, 8, 16]


def test_of_two_starved_files_the_one_with_more_to_fetch_is_helped() -> None:
    small, large = transfer(100 * MIB), transfer(1000 * MIB)
    plan = schedule(16, small, large)
    starve(must(plan.next_stream()), must(plan.next_stream()))
    assert must(plan.next_stream()).transfer is large


def test_of_two_starved_files_the_one_with_fewer_streams_is_helped() -> None:
    large, small = transfer(1000 * MIB), transfer(100 * MIB)
    streams = under_way(schedule(8, large, small), 8)
    assert [stream.transfer for stream in streams].count(small) == 4


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
    one.sequential, one.ignored_ranges = True, 4
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


def test_a_relieved_stream_takes_no_room() -> None:
    plan = schedule(16, *(transfer() for _ in range(5)))
    streams = all_now(plan)
    assert len(streams) == FIRST_STREAMS
    streams[0].relieve()
    assert must(plan.next_stream()).position == streams[0].position
    assert plan.next_stream() is None


def test_a_relieved_stream_is_a_connection_all_the_same() -> None:
    plan = schedule(2, transfer(), transfer())
    all_now(plan)[0].relieve()
    assert plan.next_stream() is None


def test_the_width_does_not_grow_for_a_stream_that_is_relieved() -> None:
    plan = schedule(16, *(transfer() for _ in range(10)))
    streams = all_now(plan)
    starve(*streams)
    streams[0].relieve()
    plan.widen()
    assert plan.width == FIRST_STREAMS


# -- stragglers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "asking", "waited", "straggler"),
    [
        # So much is the machine's doing, however quick blocks come otherwise.
        (0.01, False, 0.4, False),
        (0.01, False, 0.6, True),
        (0.5, False, 1.9, False),
        (0.5, False, 2.1, True),
        # A new connection takes its time.
        (0.01, True, 0.9, False),
        (0.01, True, 1.1, True),
        (0.5, True, 1.9, False),
        (0.5, True, 2.1, True),
        # Nobody knows what is usual.
        (None, False, 4.9, False),
        (None, False, 5.1, True),
        (None, True, 4.9, False),
        (None, True, 5.1, True),
    ],
)
def test_who_is_a_straggler(
    block: float | None, asking: bool, waited: float, straggler: bool
) -> None:
    plan = schedule(16, transfer())
    slow, *_ = under_way(plan, 3)
    if block is not None:
        usual(plan, block)
    slow.reading = 0.0
    wait(slow, waited, asking=asking)
    plan.relieve()
    assert slow.relieved is straggler


@pytest.mark.parametrize(("reading", "straggler"), [(1.9, False), (2.1, True)])
def test_who_is_slow_on_average_is_a_straggler(reading: float, straggler: bool) -> None:
    plan = schedule(16, transfer())
    slow, *_ = under_way(plan, 3)
    usual(plan, 0.5)
    slow.reading = reading
    wait(slow, 0.01)
    plan.relieve()
    assert slow.relieved is straggler


def test_who_does_not_wait_for_the_network_is_no_straggler() -> None:
    plan = schedule(16, transfer())
    slow, *_ = under_way(plan, 3)
    usual(plan, 0.01)
    slow.reading = 60.0
    plan.relieve()
    assert not slow.relieved


def test_what_others_take_over_begins_with_the_block_in_hand() -> None:
    one = transfer()
    plan = schedule(16, one)
    slow, *_ = under_way(plan, 3)
    slow.position += 3 * BLOCK
    before, left = one.waiting_bytes, slow.rest
    slow.relieve()
    assert slow.rest == ByteRange(left.start, left.start + BLOCK)
    assert one.waiting[0] == left
    assert one.waiting_bytes == before + len(left)
    assert not slow.call.reusable
    plan.end(slow)
    assert one.waiting_bytes == before + len(left)
    assert must(plan.next_stream()).position == left.start


def test_one_is_relieved_at_a_time_the_slowest_first() -> None:
    plan = schedule(16, transfer())
    streams = under_way(plan, 4)
    usual(plan, 0.1)
    for number, stream in enumerate(streams):
        wait(stream, 10.0 + number)
    for count in range(1, 4):
        plan.relieve()
        assert [stream.relieved for stream in streams] == [False] * (4 - count) + [True] * count


def one_connection() -> Schedule:
    return schedule(1, transfer())


def no_ranges() -> Schedule:
    one = transfer()
    one.ignored_ranges = 1
    return schedule(16, one)


@pytest.mark.parametrize("case", [one_connection, no_ranges])
def test_nobody_is_relieved_when_nobody_can_take_over(case: Callable[[], Schedule]) -> None:
    plan = case()
    plan.next_stream()
    usual(plan, 0.01)
    working = [stream for stream in plan.streams if not stream.relieved]
    for stream in working:
        wait(stream, 60.0)
    plan.relieve()
    assert working
    assert not any(stream.relieved for stream in working)


def test_the_last_stream_is_relieved_when_there_is_room() -> None:
    plan = schedule(16, transfer())
    alone = must(plan.next_stream())
    usual(plan, 0.01)
    wait(alone, 1.0)
    plan.relieve()
    assert alone.relieved


def refused_later() -> tuple[Schedule, Stream]:
    """The other one is refused when the slow one is relieved already."""
    plan = schedule(2, transfer())
    slow, other = under_way(plan, 2)
    usual(plan, 0.01)
    wait(slow, 60.0)
    plan.relieve()
    plan.allowed = 1
    assert plan.refuse(other, 8)
    plan.end(other)
    return plan, slow


def refused_before() -> tuple[Schedule, Stream]:
    """The slow one is all that is left, before it is known as such."""
    plan = schedule(2, transfer())
    slow, other = under_way(plan, 2)
    plan.allowed = 1
    assert plan.refuse(other, 8)
    plan.end(other)
    usual(plan, 0.01)
    wait(slow, 60.0)
    plan.relieve()
    return plan, slow


def both_slow() -> tuple[Schedule, Stream]:
    plan = schedule(2, transfer())
    slow, other = under_way(plan, 2)
    usual(plan, 0.01)
    wait(slow, 60.0)
    wait(other, 50.0)
    plan.relieve()
    plan.relieve()
    return plan, slow


@pytest.mark.parametrize("case", [refused_later, refused_before, both_slow])
def test_the_slowest_ends_when_only_slow_ones_are_left(
    case: Callable[[], tuple[Schedule, Stream]],
) -> None:
    plan, slow = case()
    assert all(stream.relieved for stream in plan.streams)
    assert plan.next_stream() is None
    plan.relieve()
    assert [stream for stream in plan.streams if stream.stopped.is_set()] == [slow]
    plan.end(slow)
    assert must(plan.next_stream()).position == slow.position


def test_who_ends_with_nobody_to_race_against_leaves_more_patience() -> None:
    """So that a file that is slow over whatever connection gets its block through one day."""
    plan, slow = refused_before()
    plan.relieve()
    plan.end(slow)
    assert slow.transfer.patience == 2.0
    again = must(plan.next_stream())
    for waited, relieved in ((0.9, False), (1.1, True)):
        wait(again, waited)
        plan.relieve()
        assert again.relieved is relieved


def test_who_is_relieved_goes_on_while_another_works() -> None:
    plan = schedule(16, transfer())
    usual(plan, 0.01)
    slow, _ = hedged(plan)
    wait(slow, 60.0)
    plan.relieve()
    assert not slow.stopped.is_set()


def hedged(plan: Schedule) -> tuple[Stream, Stream]:
    """A stream that is relieved, and the one that fetches the same block."""
    slow, *_ = under_way(plan, 3)
    slow.relieve()
    quick = must(plan.next_stream())
    assert quick.position == slow.position
    return slow, quick


def test_who_is_slower_ends_at_once_and_who_is_quicker_goes_on() -> None:
    one = transfer()
    plan = schedule(16, one)
    slow, quick = hedged(plan)
    left, before = quick.rest, one.waiting_bytes
    plan.wrote(quick, first=True)
    assert slow.stopped.is_set()
    assert slow.call.hung_up
    assert quick.rest == ByteRange(left.start + BLOCK, left.stop)
    plan.end(slow)
    assert one.waiting_bytes == before


def test_when_the_slow_one_wins_others_go_on_behind_its_block() -> None:
    one = transfer()
    plan = schedule(16, one)
    slow, quick = hedged(plan)
    block = slow.block
    plan.wrote(slow, first=True)
    assert not slow.rest
    assert quick.stopped.is_set()
    plan.end(quick)
    plan.end(slow)
    assert must(plan.next_stream()).position == block.stop


def test_when_the_slow_one_wins_before_others_begin_they_need_not_fetch_its_block() -> None:
    one = transfer()
    plan = schedule(16, one)
    slow, *_ = under_way(plan, 3)
    block = slow.block
    slow.relieve()
    plan.wrote(slow, first=True)
    assert must(plan.next_stream()).position == block.stop
    assert one.patience == 1.0


def test_who_comes_second_changes_nothing() -> None:
    one = transfer()
    plan = schedule(16, one)
    slow, quick = hedged(plan)
    plan.wrote(slow, first=False)
    assert not slow.rest
    assert not quick.stopped.is_set()
    assert one.patience == 1.0


def test_patience_doubles_with_each_race_in_vain_and_comes_back() -> None:
    one = transfer()
    plan = schedule(16, one)
    slow, quick = hedged(plan)
    plan.wrote(slow, first=True)
    plan.end(slow)
    plan.end(quick)
    assert one.patience == 2.0
    usual(plan, 0.01)
    slow = must(plan.next_stream())
    for waited, relieved in ((0.9, False), (1.1, True)):
        wait(slow, waited)
        slow.reading = 0.0
        plan.relieve()
        assert slow.relieved is relieved
    plan.wrote(must(plan.next_stream()), first=True)
    assert one.patience == 1.0


def test_a_block_is_given_to_one_more_only_after_twice_the_time() -> None:
    plan = schedule(16, transfer())
    usual(plan, 0.01)
    _, second = hedged(plan)
    for waited, relieved in ((0.9, False), (1.1, True)):
        wait(second, waited)
        plan.relieve()
        assert second.relieved is relieved
    third = must(plan.next_stream())
    assert third.position == second.position
    for waited, relieved in ((1.9, False), (2.1, True)):
        wait(third, waited)
        plan.relieve()
        assert third.relieved is relieved


def test_a_wait_that_we_are_asked_for_counts_for_nothing_and_those_around_it_together() -> None:
    """As where the speed is limited: a block comes in many small pieces, with a wait after each."""
    stream = must(schedule(16, transfer()).next_stream())
    begun = time.monotonic()
    wait(stream, 60.0)
    paused = stream.pause(0.1)
    slowness, passed = stream.slowness, time.monotonic() - begun
    assert 60.0 <= slowness <= 60.0 + passed - paused


# -- parts of a rest -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "block", "split"),
    [
        (64, 0.5, True),
        (9, 0.5, True),
        (8, 0.5, True),
        # Too little for two, or soon over, or nobody knows.
        (7, 0.5, False),
        (64, 0.01, False),
        (64, 0.0, False),
    ],
)
def test_what_is_split_when_nothing_waits(rest: int, block: float, split: bool) -> None:
    end = 64 * MIB
    one = transfer(end)
    plan = schedule(16, one)
    stream = must(plan.next_stream())
    one.waiting.clear()
    stream.position, stream.stop = end - rest * MIB, end
    stream.reading = block
    assert plan.useful_streams == 1 + split
    other = plan.next_stream()
    assert (other is not None) is split
    if other is not None:
        assert stream.stop == other.position
        assert len(other.rest) + one.waiting_bytes == end - stream.stop
        assert len(stream.rest) >= 4 * MIB
        assert end - stream.stop >= 4 * MIB
        assert other.position % BLOCK == 0


def test_the_stream_that_would_be_busy_longest_is_split() -> None:
    one = transfer(64 * MIB)
    plan = schedule(16, one)
    streams = under_way(plan, 8)
    one.waiting.clear()
    streams[5].reading = 3.0
    other = must(plan.next_stream())
    assert streams[4].stop < other.position < streams[6].position


def busy(plan: Schedule, stream: Stream) -> None:
    stream.reading, stream.working = 1.0, 1.0


def without_ranges(plan: Schedule, stream: Stream) -> None:
    stream.transfer.ignored_ranges = 1


def failed(plan: Schedule, stream: Stream) -> None:
    plan.fail(stream.transfer, OSError("no"))


def no_room(plan: Schedule, stream: Stream) -> None:
    plan.width = 1


@pytest.mark.parametrize("case", [busy, without_ranges, failed, no_room])
def test_nothing_is_split_where_it_would_not_help(
    case: Callable[[Schedule, Stream], None],
) -> None:
    one = transfer(64 * MIB)
    plan = schedule(16, one)
    stream = must(plan.next_stream())
    one.waiting.clear()
    starve(stream)
    case(plan, stream)
    assert plan.next_stream() is None


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
    plan.fail(failed, OSError("no"))
    assert of_failed.stopped.is_set()
    assert not of_sound.stopped.is_set()
    assert [one.call.hung_up for one in (of_failed, of_sound)] == [True, False]
    with pytest.raises(StoppedError):
        of_failed.sleep(60)


def test_the_first_error_counts() -> None:
    one = transfer()
    plan = schedule(16, one)
    first = OSError("first")
    plan.fail(one, first)
    plan.fail(one, OSError("second"))
    assert one.error is first


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


def test_a_failed_file_is_settled_when_its_writers_have_left() -> None:
    one = transfer()
    plan = schedule(16, one)
    stream = must(plan.next_stream())
    stream.writing = True
    plan.fail(one, OSError("no"))
    assert not plan.settle(one)
    plan.end(stream)
    assert plan.settle(one)
    assert not plan.settle(one)


def test_a_file_is_settled_although_the_loser_of_a_race_still_waits() -> None:
    one = transfer(MIB)
    plan = schedule(16, one)
    slow = must(plan.next_stream())
    slow.relieve()
    quick = must(plan.next_stream())
    slow.writing = True
    plan.wrote(quick, first=True)
    plan.end(quick)
    assert not plan.settle(one)
    slow.writing = False
    assert plan.settle(one)


def test_a_file_is_not_settled_while_the_slow_one_is_in_the_race() -> None:
    one = transfer(MIB)
    plan = schedule(16, one)
    slow = must(plan.next_stream())
    slow.relieve()
    quick = must(plan.next_stream())
    plan.end(quick)
    assert not plan.settle(one)
    plan.wrote(slow, first=True)
    plan.end(slow)
    assert plan.settle(one)


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
