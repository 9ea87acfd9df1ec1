"""Which blocks of a file that is written in order are there for good."""

import pytest

from aim_downloader.partial import BLOCK
from aim_downloader.protocols.following import InOrder, InTurn
from aim_downloader.snapshot import ByteRange

END = 5 * BLOCK + 123


@pytest.mark.parametrize(
    ("part", "steps"),
    [
        # Where it is written up to, and the blocks that this adds.
        (ByteRange(0, END), [(0, None), (BLOCK - 1, None), (BLOCK, (0, BLOCK))]),
        (ByteRange(0, END), [(3 * BLOCK + 7, (0, 3 * BLOCK)), (3 * BLOCK + 9, None)]),
        (ByteRange(0, END), [(END - 1, (0, 5 * BLOCK)), (END, (5 * BLOCK, END)), (END, None)]),
        (ByteRange(0, END), [(END, (0, END)), (END + 7 * BLOCK, None)]),
        # What its end is may change for the worse: an engine may begin anew.
        (
            ByteRange(0, END),
            [(2 * BLOCK, (0, 2 * BLOCK)), (0, None), (3 * BLOCK, (2 * BLOCK, 3 * BLOCK))],
        ),
        (ByteRange(BLOCK, 3 * BLOCK), [(BLOCK, None), (2 * BLOCK, (BLOCK, 2 * BLOCK))]),
        (ByteRange(BLOCK, 3 * BLOCK), [(END, (BLOCK, 3 * BLOCK)), (END, None)]),
        (ByteRange(4 * BLOCK, END), [(END - 1, (4 * BLOCK, 5 * BLOCK)), (END, (5 * BLOCK, END))]),
        (ByteRange(0, 7), [(6, None), (7, (0, 7))]),
    ],
)
def test_whole_blocks_and_the_end(
    part: ByteRange, steps: list[tuple[int, tuple[int, int] | None]]
) -> None:
    frontiers = iter([frontier for frontier, _ in steps])
    written = InOrder(part, lambda: next(frontiers))
    for _, added in steps:
        assert list(written.fresh()) == ([ByteRange(*added)] if added else [])


def one(number: int) -> ByteRange:
    return ByteRange(number * BLOCK, (number + 1) * BLOCK)


@pytest.mark.parametrize(
    ("steps", "given"),
    [
        # When, what comes, and then what is given; the frontier is behind what was given in turn.
        ([(0.0, [0, 1])], [[0, 1]]),
        ([(0.0, [1]), (0.02, [0])], [[], [0, 1]]),
        ([(0.0, [2, 1]), (0.02, [0]), (0.03, [3])], [[], [0, 1, 2], [3]]),
        # What lacks does not come soon: the rest is not kept waiting.
        ([(0.0, [2]), (0.04, [1]), (0.06, []), (0.1, [])], [[], [], [2], [1]]),
        ([(0.0, [2]), (0.06, []), (0.07, [0])], [[], [2], [0]]),
        ([(0.0, []), (0.1, [])], [[], []]),
    ],
)
def test_what_comes_soon_is_put_in_order(
    steps: list[tuple[float, list[int]]], given: list[list[int]]
) -> None:
    in_turn, frontier = InTurn(), 0
    seen: list[list[int]] = []
    for now, numbers in steps:
        in_turn.add([one(number) for number in numbers], now)
        seen.append([])
        for part in in_turn.due(frontier, now):
            seen[-1].append(part.start // BLOCK)
            if part.start == frontier:
                frontier = part.stop
    assert seen == given
