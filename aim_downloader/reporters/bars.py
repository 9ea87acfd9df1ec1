"""The bars of a run as a rich renderable, laid out anew for the width that there is."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aim_downloader.events import FileProgress, RunProgressed
from aim_downloader.reporters.base import one_line
from aim_downloader.reporters.sentences import pace
from aim_downloader.units import format_clock, format_percent, format_share

MOST_FILES = 6
# Widths that stay while numbers change, so that nothing jumps.
_PERCENT = len("100 %")
_RATE = len("1.23 GiB/s")
_REMAINING = len("59:59 left")
_SHARE = len("12.3/45.6 GiB")


@dataclass(frozen=True, slots=True)
class Bars:
    """One sample of a run: a bar for all of it, and below it the largest files under way."""

    sample: RunProgressed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _total(self.sample, options.max_width)
        active = sorted(self.sample.active, key=lambda file: (-file.bytes, file.path))
        # Rows stay for the first line and the last; the screen must not scroll by itself.
        shown = active[: min(MOST_FILES, max(0, console.height - 3))]
        if shown:
            gap = "..." if options.ascii_only else "…"
            yield _files(shown, options.max_width, self.sample.verifying, gap)
        if shown and (more := len(active) - len(shown)):
            yield Text(f"  and {more:,} more", style="dim")


def told_apart(names: Sequence[str], width: int, gap: str = "…") -> list[str]:
    """The names in at most ``width`` cells; of those that look alike then, what differs."""
    short = {name: shorten(name, width, gap) for name in names}
    looks = Counter(short.values())
    alike = [name for name in short if looks[short[name]] > 1]
    if len(alike) > 1:
        start, stop = _alike(alike), _alike([name[::-1] for name in alike])
        short |= {name: shorten(_around(name, start, stop, gap), width, gap) for name in alike}
    return [short[name] for name in names]


def _alike(names: Sequence[str]) -> int:
    """How many characters at their beginning are the same."""
    same = (len(set(chars)) == 1 for chars in zip(*names, strict=False))
    return sum(itertools.takewhile(bool, same))


def _around(name: str, start: int, stop: int, gap: str) -> str:
    """The words or numbers of a name between its first ``start`` and last ``stop`` characters."""
    while start and name[start - 1].isalnum():
        start -= 1
    while stop and name[-stop].isalnum():
        stop -= 1
    end = len(name) - stop
    return f"{gap if start else ''}{name[start:end]}{gap if stop else ''}"


def shorten(text: str, width: int, gap: str = "…") -> str:
    """The text in at most ``width`` cells: what is too long loses its middle."""
    if cell_len(text) <= width:
        return text
    room = width - cell_len(gap)
    if room < 2:
        return _fitting(text, width)
    tail = _fitting(text[::-1], room // 2)[::-1]
    return f"{_fitting(text, room - cell_len(tail))}{gap}{tail}"


def _fitting(text: str, width: int) -> str:
    for index, char in enumerate(text):
        width -= cell_len(char)
        if width < 0:
            return text[:index]
    return text


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a column shows and how wide it is; a bar (None) takes what is left."""

    content: RenderableType
    width: int | None


def _total(sample: RunProgressed, width: int) -> Table:
    """The first line. What matters least goes first when it gets narrow."""
    files = f"{sample.files_done:,}/{sample.files_total:,} files"
    remaining = "" if sample.eta is None or sample.waiting else f"{format_clock(sample.eta)} left"
    pace_style = "yellow" if sample.verifying else "green"
    row = [
        *([_Cell(Text(files), len(files))] if width >= 72 else []),
        _bar(sample.bytes_done, sample.bytes_total, "cyan"),
        *([_number(pace(sample), _RATE, pace_style)] if width >= 48 else []),
        _number(remaining, max(_REMAINING, len(remaining))),
        *_share(sample.bytes_done, sample.bytes_total, width, "bold"),
    ]
    return _grid([row])


def _files(files: Sequence[FileProgress], width: int, verifying: bool, gap: str) -> Table:
    """A line for each file, the names in one column of at most half the width."""
    paths = [one_line(file.path) for file in files]
    names = [f"  {name}" for name in told_apart(paths, width // 2 - 2, gap)]
    longest = max(cell_len(name) for name in names)
    return _grid(
        [
            [_Cell(Text(name), longest), *_progress(file, width, verifying)]
            for file, name in zip(files, names, strict=True)
        ]
    )


def _progress(file: FileProgress, width: int, verifying: bool) -> list[_Cell]:
    if file.verified < file.done and (verifying or file.done >= file.bytes):
        percent, *_ = _share(file.verified, file.bytes, width, "dim")
        told = [_number("verifying", _SHARE, "yellow")] if width >= 60 else []
        return [_bar(file.verified, file.bytes, "yellow"), percent, *told]
    return [_bar(file.done, file.bytes, "blue"), *_share(file.done, file.bytes, width, "dim")]


def _bar(done: int, total: int, style: str) -> _Cell:
    # An empty file or model is complete; rich would call it an unknown total.
    bar = ProgressBar(
        total=total or 1,
        completed=done if total else 1,
        complete_style=style,
        finished_style=style,
        style="bright_black",
    )
    return _Cell(bar, None)


def _share(done: int, total: int, width: int, style: str) -> list[_Cell]:
    percent = _number(format_percent(done, total), _PERCENT, style)
    return [percent, *([_number(format_share(done, total), _SHARE)] if width >= 60 else [])]


def _number(text: str, width: int, style: str = "") -> _Cell:
    return _Cell(Text(text, style=style, justify="right"), width)


def _grid(rows: Sequence[Sequence[_Cell]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for cell in rows[0]:
        grid.add_column(width=cell.width, ratio=None if cell.width else 1, no_wrap=True)
    for row in rows:
        grid.add_row(*(cell.content for cell in row))
    return grid
