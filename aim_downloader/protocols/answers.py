"""Whether an answer's head fits what was asked for. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aim_downloader.errors import RangeNotHonouredError, SnapshotChangedError
from aim_downloader.snapshot import ByteRange, RemoteFile

# Bounded, as int() is not: it raises beyond some thousands of digits.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


def check_range(headers: Mapping[str, str], asked: ByteRange, size: int) -> int:
    """Check the Content-Range of a 206 (RFC 9110 section 14.4). A server may answer with less.

    Returns:
        Where the answer's bytes stop.

    Raises:
        RangeNotHonouredError: these are other bytes, or those of a file of another size.
    """
    value = headers.get("Content-Range", "")
    length = headers.get("Content-Length")
    found = _CONTENT_RANGE.fullmatch(value.strip())
    if found is None:
        raise RangeNotHonouredError(f"the answer to {asked.header} has no usable Content-Range")
    start, stop, total = int(found[1]), int(found[2]) + 1, found[3]
    fits = start == asked.start and start < stop <= asked.stop
    if not fits or total not in ("*", str(size)) or length not in (None, str(stop - start)):
        raise RangeNotHonouredError(
            f"asked for {asked.header} of {size} bytes, the answer has {value!r} in {length} bytes"
        )
    return stop


def check_identity(first_headers: Mapping[str, str], file: RemoteFile) -> None:
    """Check what the Hub says of the file on its first answer.

    Raises:
        SnapshotChangedError: it is another file than the one that was listed.
    """
    etag = plain_etag(first_headers.get("X-Linked-ETag", ""))
    size = first_headers.get("X-Linked-Size", "")
    if (etag and etag != file.etag) or (size and size != str(file.size)):
        raise SnapshotChangedError(
            f"{file.path} was listed with etag {file.etag} and {file.size} bytes, "
            f"and is served with etag {etag} and {size} bytes"
        )


def plain_etag(etag: str) -> str:
    """An etag without its quotes and the mark of a weak one."""
    return etag.removeprefix("W/").strip('"')
