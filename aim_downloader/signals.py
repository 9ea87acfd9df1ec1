"""SIGTERM and Ctrl-C end a run: soon, in good order where that is possible, and surely."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from aim_downloader.errors import DownloadCancelledError

GRACE = 1.8
"""Seconds from a signal until the program ends, come what may."""

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_T = TypeVar("_T")


def run_until_signalled(work: Coroutine[Any, Any, _T]) -> _T:
    """Run until it is done, or until SIGTERM or Ctrl-C has ended it.

    Raises:
        DownloadCancelledError: a signal has ended it; the exit code says which.
    """
    ending = _Ending()
    before = {number: signal.signal(number, ending.begin) for number in _ENDING_SIGNALS}
    try:
        return asyncio.run(ending.watch(work))
    except (asyncio.CancelledError, DownloadCancelledError) as error:
        if not ending.number:
            raise
        cancelled = DownloadCancelledError("ended by a signal")
        cancelled.exit_code = 128 + ending.number
        raise cancelled from error
    finally:
        ending.call_off()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Ending:
    """Cancels the work at the first signal; when time is up, or at another Ctrl-C, ends it all.

    Not the event loop's own signal handlers: those wait for a loop that is held up, for example
    by a file system that does not answer.
    """

    def __init__(self) -> None:
        self.number = 0
        self._cancel: Callable[[], object] | None = None

    async def watch(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do the work, as what can be cancelled from now on."""
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[_T]", asyncio.current_task())
        self._cancel = lambda: loop.is_closed() or loop.call_soon_threadsafe(task.cancel)
        if self.number:
            self._cancel()
        return await work

    def begin(self, number: int, _frame: object) -> None:
        """Handle a signal."""
        if self.number:
            if number == signal.SIGINT:
                os._exit(128 + number)
            return
        self.number = number
        signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        if self._cancel:
            self._cancel()

    def call_off(self) -> None:
        """Let the program end in its own way."""
        if self.number:
            signal.setitimer(signal.ITIMER_REAL, 0)
