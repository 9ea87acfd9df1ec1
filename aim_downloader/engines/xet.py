"""The program around hf_xet: it writes a whole file by itself, or the pieces of a gap with us.

An order has ``hash`` and ``size`` of the file, its ``path``, how to reach the store (``store``),
and the engine's ``settings``; a gap has ``start``, ``stop``, and ``pace``: bytes that are asked
for at a time where there is a speed limit, else 0.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

from aim_downloader.engines.child import Handle, Order, Tell, serve


def begin(tell: Tell) -> Handle:
    """Import the engine."""
    import hf_xet

    return _Engine(hf_xet, tell).handle


class _Engine:
    """One order at a time, in a thread: what it may receive is told while it is under way."""

    def __init__(self, hf_xet: Any, tell: Tell) -> None:
        self._hf_xet = hf_xet
        self._tell = tell
        self._may: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._settings: dict[str, Any] = {}
        self._session: Any = None

    def handle(self, order: Order) -> None:
        if "may" in order:
            self._may.put(order["may"])
        else:
            threading.Thread(target=self._carry_out, args=(order,), daemon=True).start()

    def _carry_out(self, order: Order) -> None:
        try:
            self._fill_gap(order) if "start" in order else self._write_file(order)
        except Exception as error:  # noqa: BLE001  # the parent tells one from another
            self._tell(error=str(error), kind=type(error).__name__)
        else:
            self._tell(done=True)

    def _write_file(self, order: Order) -> None:
        def progress(report: Any, _: Any) -> None:
            self._tell(received=report.total_transfer_bytes_completed)

        session = self._session_with(order["settings"])
        with session.new_file_download_group(progress_callback=progress, **order["store"]) as group:
            group.start_download_file(self._file(order), order["path"]).result()

    def _fill_gap(self, order: Order) -> None:
        start, stop, pace = order["start"], order["stop"], order["pace"]
        position = start
        group = self._session_with(order["settings"]).new_download_stream_group(**order["store"])
        fd = os.open(order["path"], os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for piece in group.download_stream(self._file(order), start=start, end=stop):
                for part in self._paid(memoryview(piece), pace):
                    if position + len(part) > stop:
                        raise ValueError("more bytes came than were asked for")
                    _write(fd, part, position)
                    position += len(part)
                    self._tell(at=position, received=position - start)
        finally:
            os.close(fd)
        group.finish()

    def _paid(self, piece: memoryview, pace: int) -> Iterator[memoryview]:
        """A piece in parts, each as soon as the speed limit has room for it."""
        size = pace or len(piece)
        while part := piece[:size]:
            piece = piece[size:]
            if pace:
                self._tell(want=len(part))
                self._may.get()
            yield part

    def _session_with(self, settings: dict[str, Any]) -> Any:
        if settings != self._settings or self._session is None:
            config = self._hf_xet.XetConfig().with_config(settings)
            self._session, self._settings = self._hf_xet.XetSession(config), settings
        return self._session

    def _file(self, order: Order) -> Any:
        return self._hf_xet.XetFileInfo(order["hash"], order["size"])


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        try:
            written = os.pwrite(fd, data, offset)
        except OSError as error:
            # In the words of the engine, which the parent knows.
            raise OSError(f"{error.strerror} (os error {error.errno})") from error
        data, offset = data[written:], offset + written


if __name__ == "__main__":
    serve(begin)
