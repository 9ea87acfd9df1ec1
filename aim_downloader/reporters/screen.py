"""Lines that stay at the bottom of a terminal while others are printed above them.

rich.live would do, but it counts the lines it has drawn, not the rows that they fill once the
window has become narrower, and then leaves pieces of old bars behind.
"""

from __future__ import annotations

import contextlib
from typing import Any

from rich.console import Console, RenderableType
from rich.segment import Segment

from aim_downloader.reporters.base import Writer


class Terminal(Console):
    """A console on standard error that lets a run go on when nobody looks any more."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"stderr": True, "highlight": False, **options})

    def on_broken_pipe(self) -> None:
        """Do nothing, where rich would end the program."""


class Screen:
    """Writes to ``console`` in one piece per change, so that nothing flickers."""

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._write = Writer(console.file)
        self._below: RenderableType | None = None
        self._widths: list[int] = []

    def print(self, content: RenderableType) -> None:
        """Write lines above those that stay."""
        self._draw(content, self._below)

    def keep_below(self, content: RenderableType | None) -> None:
        """Replace the lines that stay; None takes them away."""
        self._below = content
        self._draw(None, content)

    def _draw(self, above: RenderableType | None, below: RenderableType | None) -> None:
        rubbing_out = self._rubbing_out()
        self._widths = self._widths_of(below)
        with contextlib.suppress(OSError):  # rich flushes what could not be written before
            self._write(rubbing_out + self._rendered(above) + self._rendered(below))

    def _rubbing_out(self) -> str:
        """Go back over what was drawn, in rows: a line that is now too wide has been folded.

        Line by line: to clear all to the end of the screen moves it into the scrollback of tmux.
        """
        width = max(1, self._console.width)
        rows = sum(max(1, -(-cells // width)) for cells in self._widths)
        return "\r" + "\x1b[1A\x1b[2K" * rows if rows else ""

    def _rendered(self, content: RenderableType | None) -> str:
        if content is None:
            return ""
        with self._console.capture() as capture:
            self._console.print(content)
        return capture.get()

    def _widths_of(self, content: RenderableType | None) -> list[int]:
        if content is None:
            return []
        lines = self._console.render_lines(content, pad=False)
        return [Segment.get_line_length(line) for line in lines]
