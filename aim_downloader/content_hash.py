"""What the bytes of one file are, read from front to back: its digests and a crc32 per stretch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from zlib_ng.zlib_ng import crc32, crc32_combine

from aim_downloader.errors import DigestMismatchError
from aim_downloader.snapshot import MIB, Digest, RemoteFile

Bytes: TypeAlias = bytes | bytearray | memoryview

STRETCH = 16 * MIB
"""A receipt keeps one crc32 for so many bytes, so that a repair can find the damage."""


@dataclass(frozen=True, slots=True)
class ContentProof:
    """What a file was found to be: its sha256, the digest asked for, and ``crc32s`` by stretch."""

    sha256: str
    digest: Digest | None
    crc32s: tuple[int, ...]

    def check(self, file: RemoteFile) -> None:
        """Refuse bytes that are not those of ``file``.

        Raises:
            DigestMismatchError: the source vouches for others.
        """
        if self.digest != file.digest:
            raise DigestMismatchError(
                f"{file.path} was received with digest {self.digest}, "
                f"but the source vouches for {file.digest}"
            )


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A file that was received whole and verified in memory."""

    file: RemoteFile
    content: bytes
    proof: ContentProof


class ContentHash:
    """Hashes a file that arrives in order. ``size`` is in bytes; git counts it into its blob id.

    The sha256 is always taken: ``SHA256SUMS`` lists every file, whatever its source vouches for.
    """

    def __init__(self, size: int, expected: Digest | None) -> None:
        self._expected = expected
        self._sha256 = hashlib.sha256()
        self._git = None
        if expected and expected.algorithm == "git-sha1":
            self._git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        self._crc32s: list[int] = []
        self._position = 0

    def update(self, data: Bytes, crc: int) -> None:
        """Take the next bytes, whose crc32 is ``crc``; they may not cross a stretch's border."""
        self._sha256.update(data)
        if self._git:
            self._git.update(data)
        if self._position % STRETCH == 0:
            self._crc32s.append(crc)
        else:
            self._crc32s[-1] = crc32_combine(self._crc32s[-1], crc, len(data))
        self._position += len(data)

    def add(self, data: Bytes) -> None:
        """Take the next bytes, which may not cross a stretch's border."""
        self.update(data, crc32(data))

    def result(self) -> ContentProof:
        """What all bytes so far are."""
        sha256 = self._sha256.hexdigest()
        digest: Digest | None = None
        if self._git:
            digest = Digest("git-sha1", self._git.hexdigest())
        elif self._expected:
            digest = Digest("sha256", sha256)
        return ContentProof(sha256, digest, tuple(self._crc32s))


def prove(content: bytes, expected: Digest | None) -> ContentProof:
    """The proof of a whole content that is in memory."""
    content_hash = ContentHash(len(content), expected)
    view = memoryview(content)
    for start in range(0, len(content), STRETCH):
        content_hash.add(view[start : start + STRETCH])
    return content_hash.result()
