"""Between a client and a server: each TCP connection at a pace of its own, one of them slow."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

_PIECE = 256 * 1024
_LATE = 0.1


class Relay:
    """Passes connections on to a server, the answers at `rate` bytes per second each.

    The connection with the number `slow`, counted from 1 since `begin`, gets a hundredth of that.
    """

    def __init__(self, server: tuple[str, int], rate: float) -> None:
        self._server = server
        self._rate = rate
        self._slow: int | None = None
        self._count = 0
        self._listening = socket.create_server((server[0], 0))
        self.url = f"http://{server[0]}:{self._listening.getsockname()[1]}"

    def begin(self, slow: int | None) -> None:
        """Count anew, for the next run."""
        self._slow, self._count = slow, 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        _in_background(self._accept)
        try:
            yield
        finally:
            # Only this wakes the thread that accepts.
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._count += 1
                rate = self._rate / 100 if self._count == self._slow else self._rate
                server = socket.create_connection(self._server)
                _in_background(_pass_on, client, server, None)
                _in_background(_pass_on, server, client, rate)


def _in_background(work: Callable[..., None], *args: object) -> None:
    threading.Thread(target=work, args=args, daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, rate: float | None) -> None:
    piece = min(_PIECE, int(rate / 20)) if rate else _PIECE
    paid_until = time.monotonic()
    try:
        while data := source.recv(piece):
            sink.sendall(data)
            if rate:
                # What a late wake-up lost is caught up with, but no more.
                paid_until = max(paid_until, time.monotonic() - _LATE) + len(data) / rate
                time.sleep(max(0.0, paid_until - time.monotonic()))
    except OSError:
        return
    finally:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
