"""What the program of every engine begins with: it takes orders, tells, and ends with its parent.

Orders come on standard input and messages go to what was standard output, one JSON object a line.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from aim_downloader import linux

Order: TypeAlias = dict[str, Any]
Handle: TypeAlias = Callable[[Order], None]
Tell: TypeAlias = Callable[..., None]

_SILENCE = 10
# Its number is taken for seconds; it is 10 on Linux, and 30 on macOS.
_BEAT = signal.SIGUSR1


def serve(begin: Callable[[Tell], Handle]) -> NoReturn:
    """Obey the parent until it is gone; an error ends the process.

    ``begin`` is given what tells the parent something, ``tell(**message)`` from any thread, and
    imports its engine. What it returns is called with each order in turn, in the main thread.
    An ImportError says that the engine is not to be had here.
    """
    linux.die_with_parent(int(sys.argv[1]))
    linux.be_killed_first()
    _heed_signals()
    orders, tell = _take_channel()
    todo: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_hear, args=(orders, todo.put), daemon=True).start()
    tell(beat=_BEAT)
    try:
        handle = begin(tell)
        while True:
            handle(todo.get())
    except ImportError as error:
        tell(**_unavailable(error))
    except BaseException:  # noqa: BLE001  # told as the interpreter would; then we leave our way
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    # An engine's own threads may never end.
    os._exit(1)


def _heed_signals() -> None:
    """Leave Ctrl-C, which goes to the whole group, to the parent; end when it is silent.

    A suspended parent may have lost its folder to another run. An engine may hold the
    interpreter's lock for minutes, so no thread of ours can watch: each beat calls alarm() of the
    C library itself, with the signal's number for seconds, and the kernel does the rest.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGALRM})
    # An engine's threads inherit this: its calls to the system are not interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, {_BEAT})
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(_BEAT, ctypes.cast(libc.alarm, ctypes.c_void_p))
    signal.alarm(_SILENCE)


def _take_channel() -> tuple[int, Tell]:
    """Keep the pipes for ourselves: a library that prints or reads must not meddle."""
    orders, messages = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    one_at_a_time = threading.Lock()

    def tell(**message: Any) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        with one_at_a_time:
            while line:
                line = line[os.write(messages, line) :]

    return orders, tell


def _hear(orders: int, put: Callable[[Order], None]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {_BEAT})
    with open(orders, "rb") as lines:
        for line in lines:
            put(json.loads(line))
    os._exit(0)  # the parent is gone


def _unavailable(error: ImportError) -> dict[str, str]:
    """The message for an engine that cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return {"unavailable": f"{package} is not installed", "hint": f"pip install {package}"}
    return {"unavailable": f"it cannot be loaded: {error}", "hint": "install it anew"}
