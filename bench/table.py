"""Pure: numbers and samples become Markdown, and find their place in a document."""

from collections.abc import Sequence

from bench.content import MIB
from bench.paired import spread
from bench.result import Number, Series

BEGIN = "<!-- bench: begin -->"
END = "<!-- bench: end -->"

_NUMBERS = ("#", "Case", "Ours", "Against", "Ratio (min to max)", "Goal", "")
_SERIES = (
    "Case",
    "Who",
    "Wall, s (min to max)",
    "CPU, s",
    "Peak, MiB",
    "Sent, MiB",
    "then sha256, s",
)


def numbers_table(numbers: Sequence[Number]) -> str:
    return table(_NUMBERS, [_number_row(number) for number in numbers])


def series_table(series: Sequence[Series]) -> str:
    return table(_SERIES, [_series_row(one) for one in series])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text, too."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [_line(heads, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def replaced(document: str, block: str) -> str:
    """The document with `block` between its markers.

    Raises:
        ValueError: it does not have both of them, in their order.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document has no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n{block.strip()}\n{END}{tail}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def _number_row(number: Number) -> list[str]:
    value, digits, unit = number.value, 2, ""
    if number.unit or number.goal == 0:
        digits, unit = 0, f" {number.unit}".rstrip()
    shown = f"{value.median:.{digits}f}{unit}"
    if value.low != value.high:
        shown += f" ({value.low:.{digits}f} to {value.high:.{digits}f})"
    goal = f"≤ {number.goal:.{digits}f}{unit}" if number.goal else "none"
    verdict = "reached" if number.reached else "**missed**"
    return [number.id, number.case, number.ours, number.against, shown, goal, verdict]


def _series_row(series: Series) -> list[str]:
    samples = series.samples
    wall = spread([sample.wall for sample in samples])
    sent = [sample.sent for sample in samples if sample.sent is not None]
    check = [sample.check for sample in samples if sample.check is not None]
    return [
        series.case,
        series.name,
        f"{wall.median:.2f} ({wall.low:.2f} to {wall.high:.2f})",
        f"{spread([sample.cpu for sample in samples]).median:.2f}",
        f"{spread([sample.peak for sample in samples]).median / MIB:.0f}",
        f"{spread(sent).median / MIB:.0f}" if sent else "",
        f"{spread(check).median:.2f}" if check else "",
    ]
