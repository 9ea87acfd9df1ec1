"""The hf_transfer engine's program: one order is one file, fetched by many range requests."""

from __future__ import annotations

import errno
import os
import resource
from typing import Any

from aim_downloader.engines.child import Handle, Order, Tell, serve


def begin(tell: Tell) -> Handle:
    """Import the engine; what is returned fetches a file, and ends when that is done."""
    import hf_transfer

    def fetch(order: Order) -> None:
        _write_at_most(order["size"])
        try:
            hf_transfer.download(**order["call"], callback=_counter(order, tell))
        except Exception as error:  # noqa: BLE001  # it raises no other kind
            tell(error=str(error))
        else:
            tell(done=True)

    return fetch


def _write_at_most(size: int) -> None:
    """Let no file grow beyond this size: the engine believes what the server says of it."""
    # Python ignores the signal that comes with it, so it is an error of each write.
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def _counter(order: Order, tell: Tell) -> Any:
    """What the engine calls for each chunk that has come; it ends the order by an error."""
    size, chunk, chunks = order["size"], order["call"]["chunk_size"], 0

    def count(_size_less_one: int) -> None:
        nonlocal chunks
        if chunks * chunk >= size:
            # It does not look at how the last write to a file ended.
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        chunks += 1
        tell(received=min(size, chunks * chunk))

    return count


if __name__ == "__main__":
    serve(begin)
