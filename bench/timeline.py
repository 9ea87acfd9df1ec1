"""Pure: what metrics said over time, as lines and areas in an SVG in the style of the bars."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench.picture import STYLE, WIDTH, text

_LEFT, _RIGHT = 66, 20
_ROOM = WIDTH - _LEFT - _RIGHT
_TOP, _HEIGHT, _STEP = 80, 120, 184
_TICKS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600)
_MORE = """
.middle { text-anchor: middle }
.line { fill: none; stroke-width: 1.5 }
.s1 { fill: #1a7f5a; stroke: #1a7f5a }
.s2 { fill: #4c8fd6; stroke: #4c8fd6 }
.s3 { fill: #c9d1d9; stroke: #c9d1d9 }
.s4 { fill: #cf3f3f; stroke: #cf3f3f }
.s5 { fill: #b7791f; stroke: #b7791f }
.line.s1, .line.s2, .line.s3, .line.s4, .line.s5 { fill: none }
.area { stroke: none }
.grid { stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
  .s1 { fill: #2ea97a; stroke: #2ea97a }
  .s2 { fill: #5a9be0; stroke: #5a9be0 }
  .s3 { fill: #3d444d; stroke: #3d444d }
  .s4 { fill: #e05d5d; stroke: #e05d5d }
  .s5 { fill: #d9a441; stroke: #d9a441 }
  .line.s1, .line.s2, .line.s3, .line.s4, .line.s5 { fill: none }
}"""


@dataclass(frozen=True)
class Line:
    """One value over time; `kind` is its colour, s1 to s5."""

    name: str
    kind: str
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Values of one unit; stacked, the areas of all lines stand on one another."""

    title: str
    lines: Sequence[Line]
    stacked: bool = False

    @property
    def top(self) -> float:
        columns = zip(*(line.values for line in self.lines), strict=True)
        return rounded_up(max(sum(each) if self.stacked else max(each) for each in columns))


def drawn(title: str, notes: Sequence[str], times: Sequence[float], panels: Sequence[Panel]) -> str:
    """The picture: panels below one another, whose times are the same seconds."""
    height = _TOP + _STEP * len(panels) + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"',
        f'    viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}{_MORE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        text(20, 30, title, "title"),
        *(text(20, 50 + 18 * line, note, "quiet") for line, note in enumerate(notes)),
    ]
    for index, panel in enumerate(panels):
        lines += _panel(panel, times, _TOP + _STEP * index + 32)
    return "\n".join([*lines, "</svg>"]) + "\n"


def rounded_up(value: float) -> float:
    """The next number that is easy to read."""
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    return next(scale * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if scale * step >= value)


def _panel(panel: Panel, times: Sequence[float], top: int) -> Iterator[str]:
    bottom = top + _HEIGHT
    yield text(20, top - 12, panel.title, "")
    yield from _legend(panel, top - 12)
    xs = [_LEFT + _ROOM * (time - times[0]) / (times[-1] - times[0]) for time in times]
    base = [0.0] * len(times)
    for y in (top, top + _HEIGHT / 2):
        yield f'<path class="axis grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
    for line in panel.lines:
        ends = [low + value for low, value in zip(base, line.values, strict=True)]
        ys = [bottom - _HEIGHT * value / panel.top for value in ends]
        path = _path(xs, ys)
        if panel.stacked:
            lower = [bottom - _HEIGHT * value / panel.top for value in base]
            back = _path(xs[::-1], lower[::-1]).replace("M", "L", 1)
            yield f'<path class="area {line.kind}" d="{path}{back}Z"/>'
            base = ends
        else:
            yield f'<path class="line {line.kind}" d="{path}"/>'
    corner = f"M{_LEFT - 0.5} {top}V{bottom + 0.5}H{WIDTH - _RIGHT}"
    yield f'<path class="axis" fill="none" d="{corner}"/>'
    for share in (0.0, 0.5, 1.0):
        y = bottom - _HEIGHT * share
        yield text(_LEFT - 8, y + 4, f"{panel.top * share:g}", "quiet end")
    yield from _seconds(times, bottom)


def _legend(panel: Panel, y: int) -> Iterator[str]:
    x = float(WIDTH - _RIGHT)
    for line in reversed(panel.lines if len(panel.lines) > 1 else ()):
        x -= 17 + _width(line.name)
        yield f'<rect class="{line.kind}" x="{x:.0f}" y="{y - 10}" width="11" height="11" rx="2"/>'
        yield text(x + 17, y, line.name, "quiet")
        x -= 18


def _width(name: str) -> float:
    """About how many pixels a name takes: which font there is, nobody knows here."""
    return sum(4.0 if letter in "fijlrt," else 10.0 if letter in "mwMW" else 7.6 for letter in name)


def _seconds(times: Sequence[float], bottom: int) -> Iterator[str]:
    whole = times[-1] - times[0]
    step = next((each for each in _TICKS if whole / each <= 8), 1200)
    for second in range(0, int(whole) + 1, step):
        share = second / whole
        # The first and the last stay within the axis.
        place = "" if not second else " end" if share > 0.97 else " middle"
        yield text(_LEFT + _ROOM * share, bottom + 20, f"{second} s", f"quiet{place}")


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    pairs = (f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    return "M" + "L".join(pairs)
