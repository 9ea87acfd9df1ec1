"""A proof tells what the bytes are, however they were cut on their way."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zlib_ng.zlib_ng import crc32

from aim_downloader.content_hash import STRETCH, ContentHash, ContentProof, prove
from aim_downloader.snapshot import MIB, Digest

GIT = Digest("git-sha1", "0" * 40)
LFS = Digest("sha256", "0" * 64)
HELLO = b"hello\n"


def in_pieces(content: bytes, step: int, expected: Digest | None) -> ContentProof:
    content_hash = ContentHash(len(content), expected)
    for start in range(0, len(content), step):
        content_hash.add(content[start : start + step])
    return content_hash.result()


@pytest.mark.parametrize(
    ("content", "expected", "digest"),
    [
        # What `git hash-object` and `sha256sum` say.
        (b"", GIT, "git-sha1:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (HELLO, GIT, "git-sha1:ce013625030ba8dba906f756967f9e9ca394464a"),
        (
            b"",
            LFS,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            HELLO,
            LFS,
            "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ),
        (HELLO, None, "None"),
    ],
)
def test_digest(content: bytes, expected: Digest | None, digest: str) -> None:
    assert str(prove(content, expected).digest) == digest


@pytest.mark.parametrize("expected", [GIT, LFS, None])
def test_the_sha256_is_always_taken(expected: Digest | None) -> None:
    assert prove(HELLO, expected).sha256 == hashlib.sha256(HELLO).hexdigest()


@pytest.mark.parametrize(
    ("size", "stretches"),
    [(0, 0), (1, 1), (STRETCH - 1, 1), (STRETCH, 1), (STRETCH + 1, 2), (2 * STRETCH + 7, 3)],
)
def test_one_crc32_for_each_stretch(size: int, stretches: int) -> None:
    content = random.Random(size).randbytes(size)
    parts = [content[start : start + STRETCH] for start in range(0, size, STRETCH)]
    proof = prove(content, LFS)
    assert len(proof.crc32s) == stretches
    assert proof.crc32s == tuple(crc32(part) for part in parts)
    assert proof == in_pieces(content, MIB, LFS)


@given(st.binary(max_size=300), st.integers(1, 40), st.sampled_from([GIT, LFS, None]))
@settings(deadline=None)
def test_pieces_make_no_difference(content: bytes, step: int, expected: Digest | None) -> None:
    assert in_pieces(content, step, expected) == prove(content, expected)


@given(st.binary(max_size=100), st.binary(max_size=100))
@settings(deadline=None)
def test_other_bytes_have_another_proof(one: bytes, other: bytes) -> None:
    assert (prove(one, GIT) == prove(other, GIT)) == (one == other)


def test_the_size_counts_into_a_blob_id() -> None:
    """A file that is longer or shorter than listed has another git digest, whatever its bytes."""
    longer = ContentHash(len(HELLO) + 1, GIT)
    longer.add(HELLO)
    assert longer.result().digest != prove(HELLO, GIT).digest


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(kind: type[bytes]) -> None:
    content_hash = ContentHash(len(HELLO), LFS)
    content_hash.add(kind(HELLO))
    assert content_hash.result() == prove(HELLO, LFS)
