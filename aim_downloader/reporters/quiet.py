"""Says nothing: what went wrong is told by whoever started the run."""

from __future__ import annotations

from typing import Self

from aim_downloader.events import Event


class QuietReporter:
    """Renders no event at all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, event: Event, /) -> None:
        """Say nothing."""
