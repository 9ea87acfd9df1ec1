"""Inside a xorb: chunks one after another, each a header of 8 bytes and its data.

version u8 | length of the data u24 | compression u8 (0: none) | length uncompressed u24
"""

from collections.abc import Iterator
from pathlib import Path

HEADER = 8
PLAIN = 0


def plain_byte(xorb: Path, start: int, stop: int) -> int:
    """An offset in the middle of these whole chunks that lies in uncompressed data.

    Nothing but a digest of the file finds damage there: a damaged header or damaged compressed data
    is noticed when the chunk is unpacked.
    """
    middle = (start + stop) // 2
    plain = [part for part in _plain_parts(xorb, start, stop) if part[1] > middle]
    if not plain:
        raise ValueError(f"{xorb} has no uncompressed chunk behind {middle}")
    first, last = plain[0]
    return (first + last) // 2


def _plain_parts(xorb: Path, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where the data of the uncompressed chunks lies."""
    with xorb.open("rb") as opened:
        while start < stop:
            opened.seek(start)
            header = opened.read(HEADER)
            begin = start + HEADER
            start = begin + int.from_bytes(header[1:4], "little")
            if header[4] == PLAIN:
                yield begin, start
