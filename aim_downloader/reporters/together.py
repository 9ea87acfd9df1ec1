"""Several reporters as one."""

from __future__ import annotations

import contextlib
from typing import Self

from aim_downloader.events import Event
from aim_downloader.reporters.base import Reporter


class Together:
    """Tells each of its reporters of every event, in their order."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for reporter in self._reporters:
                stack.enter_context(reporter)
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.__exit__(*error)  # type: ignore[arg-type]  # as it came, so it goes on

    def __call__(self, event: Event, /) -> None:
        """Render one event, by all of them."""
        for reporter in self._reporters:
            reporter(event)
