"""What a file holds: bytes in memory or a file on disk, and its digests, each computed once."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Content:
    """The bytes of one file."""

    data: bytes | Path

    @cached_property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return self._digest("sha256")

    @cached_property
    def git_blob(self) -> str:
        """The id that git gives to a blob of these bytes."""
        return self._digest("sha1", b"blob %d\0" % self.size)

    def read(self, start: int, stop: int) -> bytes:
        if isinstance(self.data, bytes):
            return self.data[start:stop]
        with self.data.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def _digest(self, algorithm: str, prefix: bytes = b"") -> str:
        digest = hashlib.new(algorithm, prefix, usedforsecurity=False)
        for block in self._blocks():
            digest.update(block)
        return digest.hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        if isinstance(self.data, bytes):
            yield self.data
            return
        with self.data.open("rb") as file:
            while block := file.read(BLOCK):
                yield block


EMPTY = Content(b"")
