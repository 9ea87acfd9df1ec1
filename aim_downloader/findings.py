"""Pure: what a file should be and what it was found to be, and what that says of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from aim_downloader.content_hash import STRETCH, ContentProof
from aim_downloader.journal import Block
from aim_downloader.partial import BLOCK
from aim_downloader.receipt import Record
from aim_downloader.snapshot import MIB, ByteRange, Digest
from aim_downloader.units import format_bytes

Against: TypeAlias = Literal["receipt", "SHA256SUMS", "source"]
"""Who says what a file should be."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file should be.

    ``size`` is None and ``crc32s`` (one for each 16 MiB) are none where nobody has noted them.
    ``vouched`` is what the source said of it, as in a ``Record``.
    """

    path: str
    size: int | None
    digest: Digest
    crc32s: tuple[int, ...] = ()
    vouched: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """By what a file is known again: a file that was replaced or written to has another."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> State:
        """The state that the system tells."""
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file was found to be, as far as it should reach.

    ``block_crc32s`` has one for each ``BLOCK``.
    """

    state: State
    proof: ContentProof
    block_crc32s: Sequence[int]


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that is not what it should be. No ``ranges``: which of its bytes, nobody can tell.

    ``sound`` are the blocks that a repair need not fetch; ``state`` is that of the file which was
    read (None when something else stands there).
    """

    path: str
    reason: str
    ranges: tuple[ByteRange, ...] = ()
    sound: tuple[Block, ...] = field(default=(), repr=False)
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What ``verify`` has found. ``files`` of ``bytes`` were read and compared with ``against``.

    ``unknown`` are other files in the folder, ``notes`` is what else a person may want to know.
    ``moved_to`` is the commit where the branch is now, when that is another one.
    ``mended`` files were wrong before a repair, which has received ``bytes_received``.
    """

    against: Against
    commit: str
    files: int
    bytes: int
    damaged: tuple[Damaged, ...] = ()
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    moved_to: str | None = None
    mended: tuple[str, ...] = ()
    bytes_received: int = 0
    right: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def all_right(self) -> bool:
        """Whether every file is there, and what it should be."""
        return not (self.damaged or self.missing)


def compare(expected: Expected, reading: Reading) -> Damaged | None:
    """Where a file differs from what it should be; None when it does not."""
    size, found = expected.size, reading.state.size
    of_right_size = size is None or found == size
    if of_right_size and reading.proof.digest == expected.digest:
        return None
    reasons = [] if of_right_size else [f"it has {found} bytes instead of {size}"]
    wrong = _wrong_stretches(expected, reading)
    if wrong is None:
        if of_right_size:
            reasons.append(f"its {expected.digest.algorithm} is not {expected.digest.hex}")
        return Damaged(expected.path, "; ".join(reasons), state=reading.state)
    if wrong:
        reasons.append(_count(wrong, len(expected.crc32s)))
    return Damaged(
        expected.path,
        "; ".join(reasons),
        _ranges(wrong, size or 0),
        _sound_blocks(expected, reading, set(wrong)),
        reading.state,
    )


def record_of(expected: Expected, reading: Reading) -> Record:
    """The record of a file that is what it should be."""
    return Record(
        path=expected.path,
        size=reading.state.size,
        mtime_ns=reading.state.mtime_ns,
        digest=expected.vouched,
        sha256=reading.proof.sha256,
        crc32s=reading.proof.crc32s,
    )


def _wrong_stretches(expected: Expected, reading: Reading) -> list[int] | None:
    """The stretches that differ, by number; None when the crc32s do not tell."""
    found = reading.proof.crc32s
    wrong = [
        number
        for number, crc in enumerate(expected.crc32s)
        if number >= len(found) or found[number] != crc
    ]
    too_long = expected.size is not None and reading.state.size > expected.size
    # All crc32s fit and the digest does not: then it is they that cannot be trusted.
    told = wrong or (too_long and reading.proof.digest == expected.digest)
    return wrong if expected.crc32s and told else None


def _count(wrong: Sequence[int], stretches: int) -> str:
    """How many stretches are damaged, in words."""
    if stretches == 1:
        return "its bytes are not those that were verified"
    are = "is" if len(wrong) == 1 else "are"
    some = f"{len(wrong):,} of {stretches:,} stretches of {STRETCH // MIB} MiB"
    return f"{some} {are} damaged, the first at {format_bytes(wrong[0] * STRETCH)}"


def _ranges(wrong: Sequence[int], size: int) -> tuple[ByteRange, ...]:
    """The bytes of stretches, neighbours joined."""
    ranges: list[ByteRange] = []
    for number in wrong:
        start, stop = number * STRETCH, min((number + 1) * STRETCH, size)
        if ranges and ranges[-1].stop == start:
            start = ranges.pop().start
        ranges.append(ByteRange(start, stop))
    return tuple(ranges)


def _sound_blocks(expected: Expected, reading: Reading, wrong: set[int]) -> tuple[Block, ...]:
    """The blocks of all stretches that are right."""
    size = expected.size or 0
    return tuple(
        Block(ByteRange(start, min(start + BLOCK, size)), crc)
        for start, crc in zip(range(0, size, BLOCK), reading.block_crc32s, strict=False)
        if start // STRETCH not in wrong
    )
