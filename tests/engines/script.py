"""An engine that does what a test orders, in the main thread."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import aim_downloader
from aim_downloader.engines.child import Handle, Order, Tell, serve


class Deeds:
    """What can be ordered, by name."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def echo(self, **words: Any) -> None:
        self._tell(**words)

    def where(self) -> None:
        self._tell(where=str(Path(aim_downloader.__file__).parent))

    def chatter(self) -> None:
        """What libraries do: print in every way, and read what is not theirs."""
        print("printed")
        os.write(1, b"written\n")
        subprocess.run(["sh", "-c", "echo said by another; cat"], check=True)
        self._tell(read=sys.stdin.read())

    def crowd(self, threads: int, lines: int, length: int) -> None:
        """Tell from many threads at once."""

        def tell(number: int) -> None:
            for line in range(lines):
                self._tell(thread=number, line=line, filler="x" * length)

        crowd = [threading.Thread(target=tell, args=(number,)) for number in range(threads)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def hold(self) -> None:
        """Hold the interpreter's lock, as some libraries do for a whole download."""
        self._tell(holding=True)
        ctypes.PyDLL(None).sleep(60)

    def signal(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def crash(self) -> None:
        ctypes.string_at(0)

    def leave(self, code: int, words: str = "") -> None:
        self._tell(leaving=True)
        os.write(2, words.encode())
        os._exit(code)

    def fail(self, words: str) -> None:
        raise RuntimeError(words)

    def load(self, name: str) -> None:
        __import__(name)

    def eat(self) -> None:
        """Take memory without end."""
        eaten = []
        while True:
            eaten.append(os.urandom(1 << 20))


def begin(tell: Tell) -> Handle:
    deeds = Deeds(tell)

    def handle(order: Order) -> None:
        getattr(deeds, order.pop("do"))(**order)

    tell(pid=os.getpid())
    return handle


if __name__ == "__main__":
    serve(begin)
