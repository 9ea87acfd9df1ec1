"""Which blocks of a partial are on disk: an append-only text file that may be lost at any byte.

    <start> <stop> <crc32 of block> <check>     one line per block, in the order of arrival

The check is the crc32 (8 hex digits) of who the bytes belong to and the line before it. Lines are
appended without syncing: what was not written, is torn, was damaged or belongs to other bytes fails
its check and is left out, so the journal can only know too little. What it knows is checked again,
by the block's own crc32, before it counts (see ``partial``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zlib_ng.zlib_ng import crc32

from aim_downloader.snapshot import ByteRange
from aim_downloader.storage import open_to_append, read_whole


@dataclass(frozen=True, slots=True)
class Block:
    """A block that was written: where it is, and the crc32 of its bytes."""

    range: ByteRange
    crc32: int


def sealed(text: str, identity: str = "") -> bytes:
    """One line that checks itself, and whose it is."""
    return f"{text} {_check(text.encode(), identity):08x}\n".encode()


def unsealed(line: bytes, identity: str = "") -> str | None:
    """The text of a line that ``sealed`` wrote, or None when a byte of it is not as it was."""
    text, _, check = line.rpartition(b" ")
    if len(check) != 8 or check != b"%08x" % _check(text, identity):
        return None
    return text.decode(errors="replace")


def _check(text: bytes, identity: str) -> int:
    return int(crc32(text, crc32(identity.encode())))


def parse(content: bytes, identity: str) -> Iterator[Block]:
    """The blocks that a journal speaks of; none when it belongs to other bytes."""
    # The part behind the last newline was torn off while it was written.
    for line in content.split(b"\n")[:-1]:
        block = _parse_block(unsealed(line, identity))
        if block:
            yield block


def _parse_block(text: str | None) -> Block | None:
    if text is None:
        return None
    try:
        start, stop, crc = text.split(" ")
        return Block(ByteRange(int(start), int(stop)), int(crc, 16))
    except ValueError:
        return None


class Journal:
    """The file itself. ``identity`` names the content: a journal of other content is void.

    ``append`` is one write of one short line, so lines of several threads do not mix.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity
        self._fd: int | None = None

    def read(self) -> list[Block]:
        """The blocks on record. A journal that is missing, foreign or unreadable has none."""
        try:
            return list(parse(read_whole(self._path), self._identity))
        except OSError:
            return []

    def begin(self) -> None:
        """Start an empty journal and keep it open."""
        os.ftruncate(self._open(), 0)

    def resume(self) -> None:
        """Go on with the journal that is there."""
        self._open()
        # Ends a line that was torn, so that it does not spoil the next one.
        self._write(b"\n")

    def append(self, block: Block) -> None:
        """Put a written block on record.

        Raises:
            OSError: the journal cannot be written.
        """
        line = f"{block.range.start} {block.range.stop} {block.crc32:08x}"
        self._write(sealed(line, self._identity))

    def close(self) -> None:
        """Let go of the file; it stays for the next run."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Let go of the file and delete it."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _open(self) -> int:
        self.close()
        self._fd = open_to_append(self._path)
        return self._fd

    def _write(self, line: bytes) -> None:
        if self._fd is not None:
            os.write(self._fd, line)
