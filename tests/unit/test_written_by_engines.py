"""A partial that another process writes: what it has written is taken in, proven and resumed."""

import os
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from aim_downloader.errors import DigestMismatchError, IntegrityError, StorageError
from aim_downloader.partial import BLOCK, Partial, resumable_bytes
from aim_downloader.protocols.following import Follower, InOrder
from aim_downloader.snapshot import ByteRange
from tests.integration.support import wait_until
from tests.unit.test_partial import IDENTITY, Place, content_of

SIZE = 5 * BLOCK + 123
ALL = ByteRange(0, SIZE)
LEAD = 8 * BLOCK


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, content_of(SIZE))


def engine_writes(place: Place, start: int, stop: int) -> None:
    """What an engine does, behind our back."""
    with place.path.open("r+b") as opened:
        opened.seek(start)
        opened.write(place.content[start:stop])


def take_in(partial: Partial, *blocks: int) -> None:
    buffer = memoryview(bytearray(BLOCK))
    for block in blocks:
        partial.take_in(block * BLOCK, buffer)


# -- taking in -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 3, 4, 0, 2, 1), (0, 0, 2, 1, 3, 5, 4)])
def test_what_was_written_and_taken_in_commits(place: Place, order: Sequence[int]) -> None:
    partial = place.open()
    engine_writes(place, 0, SIZE)
    take_in(partial, *order)
    assert not partial.missing()
    assert partial.present == SIZE
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


def test_in_order_it_is_hashed_at_once(place: Place) -> None:
    with closing(place.open()) as partial:
        engine_writes(place, 0, SIZE)
        take_in(partial, 0, 1)
        assert partial.verified == 2 * BLOCK
        take_in(partial, 3)
        assert partial.verified == 2 * BLOCK
        assert not partial.behind
        take_in(partial, 2)
        assert partial.verified == 3 * BLOCK
        assert partial.behind


def test_wrong_bytes_get_no_name(place: Place) -> None:
    partial = place.open()
    engine_writes(place, 0, SIZE)
    place.damage(3 * BLOCK + 7)
    take_in(partial, *range(6))
    with closing(partial), pytest.raises(DigestMismatchError):
        partial.commit(place.final)
    assert not place.final.exists()


def test_what_is_not_there_is_not_taken_in(place: Place) -> None:
    """Also where the block before it was all alike."""
    with closing(place.open()) as partial:
        partial.hand_over()
        engine_writes(place, 0, BLOCK)
        take_in(partial, 0)
        with pytest.raises(StorageError, match="shorter"):
            take_in(partial, 1)
        assert partial.missing() == [ByteRange(BLOCK, SIZE)]


def test_who_may_not_write_takes_nothing_in(place: Place) -> None:
    allowed = [True]

    def guard() -> None:
        if not allowed[0]:
            raise StorageError("lost")

    with closing(place.open(guard)) as partial:
        engine_writes(place, 0, SIZE)
        allowed[0] = False
        with pytest.raises(StorageError, match="lost"):
            take_in(partial, 0)
        with pytest.raises(StorageError, match="lost"):
            partial.hand_over()
        allowed[0] = True


@pytest.mark.parametrize("block", [0, 2, 5])
def test_what_was_written_over_since_is_found(place: Place, block: int) -> None:
    with closing(place.open()) as partial:
        partial.share()
        engine_writes(place, 0, SIZE)
        take_in(partial, *range(6))
        partial.check_again(threading.Event())
        place.damage(block * BLOCK + 7)
        with pytest.raises(IntegrityError, match="written over"):
            partial.check_again(threading.Event())


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_what_an_engine_has_cut_or_lengthened_since_gets_no_name(place: Place, size: int) -> None:
    partial = place.open()
    engine_writes(place, 0, SIZE)
    take_in(partial, *range(6))
    os.truncate(place.path, size)
    with closing(partial), pytest.raises(StorageError, match="another run"):
        partial.commit(place.final)
    assert not place.final.exists()


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "taken_in", "kept"),
    [
        (0, 0, 0),
        (2 * BLOCK, 0, 0),
        (2 * BLOCK, 2, 2 * BLOCK),
        (2 * BLOCK + 7, 2, 2 * BLOCK),
        (5 * BLOCK, 3, 3 * BLOCK),
        (SIZE, 6, SIZE),
    ],
)
def test_killed_while_an_engine_writes_what_was_taken_in_is_kept(
    place: Place, written: int, taken_in: int, kept: int
) -> None:
    """A kill closes nothing: the file is as long as the engine has made it."""
    killed = place.open()
    killed.hand_over()
    engine_writes(place, 0, written)
    take_in(killed, *range(taken_in))
    assert resumable_bytes(place.path, place.file, IDENTITY) == kept
    partial = place.open()
    assert partial.present == kept
    assert partial.size_on_disk == SIZE
    for part in partial.missing():
        for start in range(part.start, part.stop, BLOCK):
            partial.write_at(start, place.content[start : min(start + BLOCK, SIZE)])
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content
    killed.close()


def test_a_file_that_is_taken_back_has_its_size(place: Place) -> None:
    with closing(place.open()) as partial:
        partial.hand_over()
        assert partial.size_on_disk == 0
        engine_writes(place, 0, BLOCK)
        assert partial.size_on_disk == BLOCK
        partial.take_back()
        assert partial.size_on_disk == SIZE


# -- holes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (0, ByteRange(0, BLOCK)),
        (BLOCK // 2, ByteRange(BLOCK // 2, BLOCK)),
        (BLOCK, ByteRange(2 * BLOCK, 4 * BLOCK)),
        (3 * BLOCK, ByteRange(3 * BLOCK, 4 * BLOCK)),
        (4 * BLOCK, None),
        (SIZE, None),
    ],
)
def test_holes_tell_what_is_written(place: Place, offset: int, data: ByteRange | None) -> None:
    with closing(place.open()) as partial:
        engine_writes(place, 0, BLOCK)
        engine_writes(place, 2 * BLOCK, 4 * BLOCK)
        if partial.data_from(0) == ALL:
            pytest.skip("this file system has no holes")
        assert partial.data_from(offset) == data


# -- following -------------------------------------------------------------------------------------


def follow(partial: Partial) -> tuple[Follower, threading.Thread]:
    follower = Follower(
        partial, InOrder(ALL, lambda: partial.size_on_disk), LEAD, lambda held: None
    )
    thread = threading.Thread(target=follower.run)
    thread.start()
    return follower, thread


def test_what_an_engine_appends_is_followed(place: Place) -> None:
    partial = place.open()
    partial.hand_over()
    follower, thread = follow(partial)
    for stop in (BLOCK // 2, BLOCK, 3 * BLOCK + 5):
        engine_writes(place, 0, stop)
        wait_until(lambda stop=stop: partial.verified == stop // BLOCK * BLOCK)  # type: ignore[misc]
    engine_writes(place, 0, SIZE)
    follower.end()
    thread.join(10)
    assert partial.present == partial.verified == SIZE
    partial.commit(place.final)
    assert place.final.read_bytes() == place.content


class Shuffled:
    """What an engine has written that knows no order."""

    def __init__(self, *blocks: int) -> None:
        self._blocks = list(blocks)

    def fresh(self) -> Sequence[ByteRange]:
        if not self._blocks:
            return []
        start = self._blocks.pop(0) * BLOCK
        return [ByteRange(start, min(start + BLOCK, SIZE))]


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (1, 0, 3, 2, 5, 4)])
def test_in_whatever_order_it_is_hashed_in_the_files_own(
    place: Place, order: Sequence[int]
) -> None:
    partial = place.open()
    engine_writes(place, 0, SIZE)
    follower = Follower(partial, Shuffled(*order), LEAD, lambda held: None)
    follower.end()
    follower.run()
    assert partial.verified == SIZE
    partial.commit(place.final)


def test_an_engine_that_is_too_fast_is_held_up(tmp_path: Path) -> None:
    place = Place(tmp_path, os.urandom(48 * BLOCK))
    partial = place.open()
    partial.hand_over()
    place.path.write_bytes(place.content)
    held: list[tuple[bool, int]] = []
    follower = Follower(
        partial,
        InOrder(ByteRange(0, place.file.size), lambda: partial.size_on_disk),
        LEAD,
        lambda is_held: held.append((is_held, partial.verified)),
    )
    follower.end()
    follower.run()
    assert held == [(True, 0), (False, place.file.size)]
    assert len(place.recorded()) == 48
    partial.commit(place.final)


def test_an_engine_is_let_go_also_when_the_disk_refuses(place: Place) -> None:
    allowed = [True]

    def guard() -> None:
        if not allowed[0]:
            raise StorageError("lost")

    held: list[bool] = []

    def brake(is_held: bool) -> None:
        held.append(is_held)
        allowed[0] = False

    place = Place(place.path.parent, bytes(48 * BLOCK))
    partial = place.open(guard)
    whole = ByteRange(0, place.file.size)
    follower = Follower(partial, InOrder(whole, lambda: place.file.size), LEAD, brake)
    with pytest.raises(StorageError, match="lost"):
        follower.run()
    assert held == [True, False]
    allowed[0] = True
    partial.close()


def test_a_follower_that_is_abandoned_leaves(place: Place) -> None:
    with closing(place.open()) as partial:
        partial.hand_over()
        follower, thread = follow(partial)
        follower.abandon()
        thread.join(10)
        assert not thread.is_alive()
