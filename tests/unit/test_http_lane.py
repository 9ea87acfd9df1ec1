"""The pure parts of the bulk lane: how it cuts a file, and which answers it believes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader.errors import DownloadError, RangeNotHonouredError, SnapshotChangedError
from aim_downloader.partial import BLOCK
from aim_downloader.protocols.answers import check_identity, check_range
from aim_downloader.protocols.http import HttpProtocol
from aim_downloader.protocols.schedule import segment_size
from aim_downloader.snapshot import MIB, ByteRange, Digest, RemoteFile

# -- segments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "connections", "size"),
    [
        (1, 16, 8 * MIB),
        (8 * MIB, 16, 8 * MIB),
        (100 * MIB, 1, 64 * MIB),
        (100 * MIB, 4, 25 * MIB),
        (100 * MIB + 1, 4, 26 * MIB),
        (100 * MIB, 256, 8 * MIB),
        (1024 * MIB, 16, 64 * MIB),
        (200 * 1024 * MIB, 16, 64 * MIB),
    ],
)
def test_segment_size(waiting: int, connections: int, size: int) -> None:
    assert segment_size(waiting, connections) == size


@given(st.integers(1, 2**45), st.integers(1, 256))
@settings(deadline=None)
def test_segments_lie_on_the_grid(waiting: int, connections: int) -> None:
    size = segment_size(waiting, connections)
    assert size % BLOCK == 0
    assert 8 * MIB <= size <= 64 * MIB


@given(st.integers(1, 2**40), st.integers(1, 256))
@settings(deadline=None)
def test_segments_get_smaller_towards_the_end(waiting: int, connections: int) -> None:
    assert segment_size(waiting // 2, connections) <= segment_size(waiting, connections)


# -- Content-Range ---------------------------------------------------------------------------------

ASKED = ByteRange(100, 200)
SIZE = 1000


@pytest.mark.parametrize(
    ("content_range", "length", "stop"),
    [
        ("bytes 100-199/1000", "100", 200),
        ("bytes 100-199/*", "100", 200),
        (" bytes 100-199/1000 ", "100", 200),
        # A server may answer with less than was asked for.
        ("bytes 100-149/1000", "50", 150),
        ("bytes 100-100/1000", "1", 101),
    ],
)
def test_a_range_that_is_believed(content_range: str, length: str, stop: int) -> None:
    headers = {"Content-Range": content_range, "Content-Length": length}
    assert check_range(headers, ASKED, SIZE) == stop


@pytest.mark.parametrize(
    ("content_range", "length"),
    [
        (None, "100"),
        ("", "100"),
        ("bytes", "100"),
        ("bytes */1000", "100"),
        ("bytes 100-199", "100"),
        ("bytes 100-/1000", "100"),
        ("bytes=100-199/1000", "100"),
        ("octets 100-199/1000", "100"),
        ("bytes 100-199/1000, bytes 300-399/1000", "100"),
        ("bytes -100-199/1000", "100"),
        ("bytes 0x64-199/1000", "100"),
        ("bytes 101-199/1000", "99"),
        ("bytes 99-199/1000", "101"),
        ("bytes 99-198/1000", "100"),
        ("bytes 0-99/1000", "100"),
        ("bytes 200-299/1000", "100"),
        ("bytes 100-200/1000", "101"),
        ("bytes 100-99/1000", "0"),
        ("bytes 199-100/1000", "100"),
        ("bytes 0-999/1000", "1000"),
        ("bytes 100-199/1000", "99"),
        ("bytes 100-199/1000", "101"),
        ("bytes 100-199/1000", "many"),
        ("bytes 100-149/1000", "100"),
    ],
)
def test_a_range_that_is_not_believed(content_range: str | None, length: str) -> None:
    headers = {"Content-Range": content_range} if content_range is not None else {}
    with pytest.raises(RangeNotHonouredError) as caught:
        check_range({**headers, "Content-Length": length}, ASKED, SIZE)
    assert caught.value.retryable
    assert "bytes=100-199" in str(caught.value)


@pytest.mark.parametrize("total", ["999", "1001", "0", "100"])
def test_an_answer_of_a_file_of_another_size_is_asked_for_again(total: str) -> None:
    headers = {"Content-Range": f"bytes 100-199/{total}", "Content-Length": "100"}
    with pytest.raises(RangeNotHonouredError, match=f"/{total}"):
        check_range(headers, ASKED, SIZE)


@pytest.mark.parametrize(
    "content_range",
    [
        f"bytes 100-{'9' * 5000}/1000",
        f"bytes {'9' * 5000}-199/1000",
        f"bytes 100-199/{'9' * 5000}",
    ],
    ids=["stop", "start", "total"],
)
def test_endless_numbers_break_nothing(content_range: str) -> None:
    with pytest.raises(DownloadError):
        check_range({"Content-Range": content_range, "Content-Length": "100"}, ASKED, SIZE)


@given(
    st.integers(0, 1100), st.integers(0, 1100), st.sampled_from(["1000", "*"]), st.integers(0, 1100)
)
@settings(deadline=None)
def test_what_is_believed_is_a_part_of_what_was_asked(
    first: int, last: int, total: str, length: int
) -> None:
    headers = {"Content-Range": f"bytes {first}-{last}/{total}", "Content-Length": str(length)}
    try:
        stop = check_range(headers, ASKED, SIZE)
    except RangeNotHonouredError:
        return
    assert (first, last + 1) == (ASKED.start, stop)
    assert stop <= ASKED.stop
    assert stop - first == length > 0


# -- identity --------------------------------------------------------------------------------------

ETAG = "a" * 64
FILE = RemoteFile("model.bin", SIZE, Digest("sha256", ETAG), etag=ETAG, url="https://hub.test/m")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Linked-ETag": f'"{ETAG}"'},
        {"X-Linked-ETag": f'W/"{ETAG}"'},
        {"X-Linked-ETag": ETAG},
        {"X-Linked-ETag": ""},
        {"X-Linked-Size": "1000"},
        {"X-Linked-Size": "1000", "X-Linked-ETag": f'"{ETAG}"'},
        # What the answer itself says is not what the Hub vouches for.
        {"ETag": '"other"', "Content-Length": "17"},
    ],
    ids=str,
)
def test_a_file_that_is_the_listed_one(headers: dict[str, str]) -> None:
    check_identity(headers, FILE)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Linked-ETag": '"other"'},
        {"X-Linked-ETag": f'"{ETAG[:-1]}b"'},
        {"X-Linked-Size": "999"},
        {"X-Linked-Size": "lots"},
        {"X-Linked-Size": "999", "X-Linked-ETag": f'"{ETAG}"'},
        {"X-Linked-Size": "1000", "X-Linked-ETag": '"other"'},
    ],
    ids=str,
)
def test_a_file_that_has_changed(headers: dict[str, str]) -> None:
    with pytest.raises(SnapshotChangedError, match=r"model\.bin"):
        check_identity(headers, FILE)


# -- what it is for --------------------------------------------------------------------------------


@pytest.mark.parametrize(("url", "supported"), [("https://hub.test/m", True), ("", False)])
def test_it_is_for_files_that_have_a_url(url: str, supported: bool) -> None:
    file = RemoteFile("m", 1, None, url=url)
    assert HttpProtocol().supports(file) is supported
