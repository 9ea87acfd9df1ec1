"""The pure parts of HF_TRANSFER: which chunks are told as written, and what its errors mean."""

import random
from collections.abc import Sequence

import pytest

from aim_downloader.errors import (
    AccessDeniedError,
    DownloadError,
    InsufficientSpaceError,
    RangeNotHonouredError,
    StorageError,
    ThrottledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.protocols.hf_transfer import CHUNK, Chunks, judge
from aim_downloader.snapshot import ByteRange

# --- chunks ---------------------------------------------------------------------------------------

COUNT, PAGE = 16, 4096
SIZE = (COUNT - 1) * CHUNK + 5 * PAGE + 7


class Disk:
    """A sparse file, page by page."""

    def __init__(self) -> None:
        self._pages = bytearray(-(-SIZE // PAGE))
        self.over = False
        self.received = 0
        self.asked = 0

    def write(self, chunk: int, share: float = 1.0) -> None:
        """The first part of a chunk reaches the disk; of a whole one the engine tells."""
        start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, SIZE)
        first, count = start // PAGE, -(-(stop - start) // PAGE)
        written = count if share >= 1 else min(count - 1, int(count * share))
        self._pages[first : first + written] = b"\1" * written
        self.received += stop - start if share >= 1 else 0

    def data_from(self, offset: int) -> ByteRange | None:
        self.asked += 1
        start = self._pages.find(1, offset // PAGE)
        if start < 0:
            return None
        stop = self._pages.find(0, start)
        last = SIZE if stop < 0 else min(SIZE, stop * PAGE)
        return ByteRange(max(offset, start * PAGE), last)

    def chunks(self) -> Chunks:
        return Chunks(SIZE, self.data_from, lambda: self.received, lambda: self.over)


def numbers(parts: Sequence[ByteRange]) -> list[int]:
    """Which chunks these parts are made of; each of them begins and ends with one."""
    found: list[int] = []
    for part in parts:
        assert part.start % CHUNK == 0
        assert part.stop % CHUNK == 0 or part.stop == SIZE
        found += range(part.start // CHUNK, -(-part.stop // CHUNK))
    return found


Step = tuple[list[tuple[int, float]], list[int]]
"""What is written before a look, as chunks and shares of them, and which chunks that look tells."""

CASES: dict[str, list[Step]] = {
    "nothing is written": [([], []), ([], [])],
    "a whole chunk is told one look later": [([(0, 1)], []), ([], [0]), ([], [])],
    "one with a hole is not told": [([(0, 0.99)], []), ([], []), ([(0, 1)], []), ([], [0])],
    "in order": [([(0, 1), (1, 1)], []), ([(2, 1)], [0, 1]), ([], [2]), ([], [])],
    "behind a gap some wait": [
        ([(1, 1), (2, 1), (0, 0.5)], []),
        ([], []),
        ([(0, 1)], []),
        ([], [0, 1, 2]),
    ],
    "behind a gap too many do not wait": [
        ([(number, 1) for number in range(1, 6)], []),
        ([], [1, 2, 3, 4, 5]),
        ([(6, 1)], []),
        ([(0, 1)], []),
        ([], [0, 6]),
    ],
    "the last one is short": [([(COUNT - 1, 1), (0, 1)], []), ([], [0]), ([], [])],
}


@pytest.mark.parametrize("name", CASES)
def test_chunks_are_told_when_they_are_written_for_good(name: str) -> None:
    disk = Disk()
    chunks = disk.chunks()
    for written, told in CASES[name]:
        for number, share in written:
            disk.write(number, share)
        assert numbers(chunks.fresh()) == told


def test_when_it_is_over_all_that_is_whole_is_told_once() -> None:
    disk = Disk()
    chunks = disk.chunks()
    for number in (0, 3, 4, COUNT - 1):
        disk.write(number)
    disk.write(7, 0.5)
    assert not chunks.fresh()
    disk.write(2)
    disk.over = True
    assert numbers(chunks.fresh()) == [0, 2, 3, 4, COUNT - 1]
    assert not chunks.fresh()


def test_of_one_that_the_engine_tells_of_too_early_the_rest_is_waited_for() -> None:
    disk = Disk()
    chunks = disk.chunks()
    disk.write(0, 0.99)
    disk.received = CHUNK
    assert not chunks.fresh()
    assert not chunks.fresh()
    disk.write(0)
    disk.received = CHUNK
    assert not chunks.fresh()
    assert numbers(chunks.fresh()) == [0]


def test_while_nothing_comes_the_disk_is_left_alone() -> None:
    disk = Disk()
    chunks = disk.chunks()
    disk.write(0)
    chunks.fresh()
    disk.asked = 0
    assert numbers(chunks.fresh()) == [0]
    chunks.fresh()
    assert not disk.asked
    disk.write(2)
    chunks.fresh()
    assert disk.asked


def test_in_any_order_each_chunk_is_told_once_and_never_too_early() -> None:
    for seed in range(50):
        accidents = random.Random(seed)
        disk = Disk()
        chunks = disk.chunks()
        left = dict.fromkeys(range(COUNT), 0.0)
        told: list[int] = []
        while left:
            for number in accidents.sample(sorted(left), min(4, len(left))):
                left[number] += accidents.uniform(0.2, 1)
                disk.write(number, min(1.0, left[number]))
            whole = {number for number in range(COUNT) if left.get(number, 1) >= 1}
            told += (fresh := numbers(chunks.fresh()))
            assert set(fresh) <= whole
            left = {number: share for number, share in left.items() if share < 1}
        disk.over = True
        told += numbers(chunks.fresh())
        assert sorted(told) == list(range(COUNT))
        assert not chunks.fresh()


def test_a_look_asks_no_more_of_what_is_settled() -> None:
    disk = Disk()
    chunks = disk.chunks()
    for number in range(COUNT - 1):
        disk.write(number)
    chunks.fresh()
    chunks.fresh()
    disk.asked = 0
    disk.write(COUNT - 1)
    chunks.fresh()
    assert disk.asked == 1


# --- errors ---------------------------------------------------------------------------------------

HUB, CDN = "http://hub.test", "http://cdn.test:8080/874e"
SIGNED = f"{CDN}?repo=org/m&Expires=1795360858.384&Key-Pair-Id=K1&Signature=5e0e862a556c"
SENDING = f"error sending request for url ({SIGNED})"


def status(code: int, words: str, url: str = SIGNED) -> str:
    kind = "client" if code < 500 else "server"
    return f"HTTP status {kind} error ({code} {words}) for url ({url})"


FAILED = f"Request: {status(500, 'Internal Server Error')}"


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (status(403, "Forbidden"), TransferInterruptedError, "answered 403: the link"),
        (
            f"Downloading error Request: {status(403, 'Forbidden')}",
            TransferInterruptedError,
            "answered 403",
        ),
        (status(403, "Forbidden", f"{HUB}/m/resolve/main/x"), AccessDeniedError, "denied"),
        (status(404, "Not Found"), TransferInterruptedError, "answered 404"),
        (
            f"Downloading error Request: {status(416, 'Range Not Satisfiable')}",
            RangeNotHonouredError,
            "answered 416",
        ),
        (f"Downloading error {FAILED}", TransferInterruptedError, "answered 500"),
        (
            f"Downloading error Request: {status(503, 'Service Unavailable')}",
            ThrottledError,
            "too busy",
        ),
        (
            f"Failed too many failures in parallel (2): {FAILED} (no permits available)",
            TransferInterruptedError,
            "answered 500",
        ),
        (
            f"Failed after too many retries (2): Request: {status(429, 'Too Many Requests')}",
            ThrottledError,
            "answered 429",
        ),
        (
            "Downloading error Request: error decoding response body",
            TransferInterruptedError,
            "m.bin: the hf_transfer engine failed: Downloading error",
        ),
        (
            f"Error while downloading: {SENDING}",
            TransferInterruptedError,
            f"error sending request for url ({CDN}?…)",
        ),
        ("No content length", RangeNotHonouredError, "m.bin: its server knows no ranges"),
        ("Error while downloading: builder error", TransferInterruptedError, "builder error"),
        (
            "Downloading error Io: No space left on device (os error 28)",
            InsufficientSpaceError,
            "m.bin",
        ),
        (
            "Downloading error Io: Read-only file system (os error 30)",
            StorageError,
            "m.bin",
        ),
        (
            "Downloading error Io: File too large (os error 27)",
            TransferError,
            "m.bin: its server sent more than is listed",
        ),
        ("[Errno 27] File too large", TransferError, "more than is listed"),
        (
            "Downloading error Io: No such file or directory (os error 2)",
            TransferInterruptedError,
            "os error 2",
        ),
    ],
)
def test_what_its_words_mean(said: str, kind: type[DownloadError], words: str) -> None:
    error = judge(HUB, {"error": said}, "m.bin")
    assert type(error) is kind
    assert words in str(error)
    assert "Signature" not in str(error)
    assert error.fallback is isinstance(error, TransferError)
