"""Which blocks of a file that is written in order are there for good."""

import pytest

from aim_downloader.partial import BLOCK
from aim_downloader.protocols.following import InOrder
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
