"""Work side by side: coroutines that belong together, and threads that are waited for."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines side by side.

    Unlike a TaskGroup it raises the first error itself, not a group of errors: what follows a
    first error here is the cancellation of the others.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        failed = [task for task in tasks if task.done() and not task.cancelled()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in failed:
        task.result()


async def in_thread(
    pool: Executor,
    work: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run ``work`` in a thread and leave only when it has ended, however often cancelled.

    So whoever cleans up afterwards finds nobody at work. A ``stopping`` event among the arguments
    is set at a cancel, for work that can be told to end.
    """
    stopping = [one for one in (*args, *kwargs.values()) if isinstance(one, threading.Event)]
    call = functools.partial(work, *args, **kwargs)
    running = asyncio.get_running_loop().run_in_executor(pool, call)
    return await _ended(running, stopping)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do what cleans up, and leave only when it is done, however often cancelled."""
    return await _ended(asyncio.ensure_future(work))


async def _ended(running: asyncio.Future[T], stopping: Iterable[threading.Event] = ()) -> T:
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
            for event in stopping:
                event.set()
    if cancelled:
        running.exception()  # nobody is left to hear of it
        raise asyncio.CancelledError
    return running.result()
