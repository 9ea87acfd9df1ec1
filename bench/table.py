"""Pure: numbers and samples become Markdown, and find their place in a document."""

from collections.abc import Sequence

from bench.content import MIB
from bench.paired import spread
from bench.result import Number, Series

_NUMBERS = ("#", "Case", "Ours", "Against", "Ratio (min to max)", "Goal", "")
_SERIES = (
    "Case",
    "Who",
    "Verified",
    "Wall, s (min to max)",
    "then verify, s",
    "then sync, s",
    "CPU, s",
    "Peak, MiB",
    "Sent, MiB",
)


def numbers_table(numbers: Sequence[Number]) -> str:
    return table(_NUMBERS, [_number_row(number) for number in numbers])


def series_table(series: Sequence[Series]) -> str:
    """Columns that would be empty are left out, and so is a case that all have."""
    rows = [_series_row(one) for one in series]
    told = [i for i in range(len(_SERIES)) if any(row[i] for row in rows)]
    if len({one.case for one in series}) == 1:
        told.remove(0)
    return table([_SERIES[i] for i in told], [[row[i] for i in told] for row in rows])


def series_tables(series: Sequence[Series]) -> str:
    """One table for each title, and one for all without."""
    parts = []
    for title in dict.fromkeys(one.title for one in series):
        shown = series_table([one for one in series if one.title == title])
        parts.append(f"### {title or 'The other cases'}\n\n{shown}")
    return "\n\n".join(parts)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text, too."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [_line(heads, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def replaced(document: str, block: str, name: str = "bench") -> str:
    """The document with `block` between the markers of this name.

    Raises:
        ValueError: it does not have both of them, in their order.
    """
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, begin, rest = document.partition(first)
    _, end, tail = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"the document has no {first} … {last}")
    return f"{head}{first}\n{block.strip()}\n{last}{tail}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def _number_row(number: Number) -> list[str]:
    value, goal = number.value, number.goal
    digits, unit = 2, ""
    if number.unit or goal == 0:
        digits, unit = 0, f" {number.unit}".rstrip()
    shown = f"{value.median:.{digits}f}{unit}"
    if value.low != value.high:
        shown += f" ({value.low:.{digits}f} to {value.high:.{digits}f})"
    told = [number.id, number.case, number.ours, number.against, shown]
    if goal is None:
        return [*told, "", ""]
    wanted = f"≤ {goal:.{digits}f}{unit}" if goal else "none"
    return [*told, wanted, "reached" if number.reached else "**missed**"]


def _series_row(series: Series) -> list[str]:
    samples = series.samples
    wall = spread([sample.wall for sample in samples])
    return [
        series.case,
        series.name,
        {None: "", True: "yes", False: "no"}[series.verifies],
        f"{wall.median:.2f} ({wall.low:.2f} to {wall.high:.2f})" if wall.median else "killed",
        _median([sample.check for sample in samples]),
        _median([sample.sync for sample in samples]),
        f"{spread([sample.cpu for sample in samples]).median:.2f}",
        f"{spread([sample.peak for sample in samples]).median / MIB:.0f}",
        _median([sample.sent and sample.sent / MIB for sample in samples], digits=0),
    ]


def _median(values: Sequence[float | None], digits: int = 2) -> str:
    there = [value for value in values if value is not None]
    return f"{spread(there).median:.{digits}f}" if there else ""
