"""Pure: who takes how long, as bars in an SVG that needs no script, no font and no other host.

pygal, with which pytest-benchmark draws, puts a script into every picture; and it knows no dark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench.paired import spread
from bench.result import Series

WIDTH = 760
_LEFT, _RIGHT = 252, 96
_TOP, _STEP, _HEIGHT = 110, 30, 18
_ROOM = WIDTH - _LEFT - _RIGHT

# The card brings its own background: a page may be dark when the system is light.
STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
text { fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.quiet { fill: #59636e }
.end { text-anchor: end }
.ours { font-weight: 600 }
.card { fill: #ffffff; stroke: #d1d9e0 }
.axis { stroke: #d1d9e0 }
.verified { fill: #1a7f5a }
.plain { fill: #8c96a3 }
.check { fill: #d3d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .quiet { fill: #9198a1 }
  .card { fill: #0d1117; stroke: #3d444d }
  .axis { stroke: #3d444d }
  .verified { fill: #2ea97a }
  .plain { fill: #6e7885 }
  .check { fill: #343c46 }
}"""


@dataclass(frozen=True)
class Bar:
    """One contender: how long it takes, and to verify afterwards if it does not by itself."""

    name: str
    seconds: float
    verifies: bool
    check: float = 0.0

    @property
    def whole(self) -> float:
        return self.seconds + self.check


def bars(series: Sequence[Series]) -> list[Bar]:
    """The medians; those who verify come first, and then the quickest."""
    found = [_bar(one) for one in series]
    return sorted(found, key=lambda bar: (not bar.verifies, bar.whole))


def drawn(title: str, notes: Sequence[str], found: Sequence[Bar]) -> str:
    """The picture; `notes` are two lines that say under which circumstances."""
    height = _TOP + _STEP * len(found) + 20
    bottom = height - 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"',
        f'    viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        text(20, 30, title, "title"),
        *(text(20, 50 + 18 * line, note, "quiet") for line, note in enumerate(notes)),
        *_legend(),
        *_rows(found),
        f'<path class="axis" d="M{_LEFT - 0.5} {_TOP - 6}V{bottom}"/>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bar(series: Series) -> Bar:
    checks = [sample.check for sample in series.samples if sample.check is not None]
    return Bar(
        series.name,
        spread([sample.wall for sample in series.samples]).median,
        bool(series.verifies),
        spread(checks).median if checks else 0.0,
    )


def _legend() -> Iterator[str]:
    x = 20
    for kind, words, width in (
        ("verified", "download, verified on the way", 216),
        ("plain", "download, not verified", 176),
        ("check", "verifying afterwards", 0),
    ):
        yield f'<rect class="{kind}" x="{x}" y="{_TOP - 28}" width="12" height="12" rx="2"/>'
        yield text(x + 18, _TOP - 17, words, "quiet")
        x += width


def _rows(found: Sequence[Bar]) -> Iterator[str]:
    scale = _ROOM / max(bar.whole for bar in found)
    for index, bar in enumerate(found):
        top = _TOP + 2 + index * _STEP
        base = top + 14
        name = "end ours" if bar.verifies else "end"
        yield text(_LEFT - 12, base, bar.name, name)
        kind = "verified" if bar.verifies else "plain"
        yield _box(kind, _LEFT, top, bar.seconds * scale)
        if bar.check:
            yield _box("check", _LEFT + bar.seconds * scale, top, bar.check * scale)
        shown = f"{bar.seconds:.1f} s"
        if bar.check:
            shown = f"{bar.seconds:.1f} + {bar.check:.1f} s"
        yield text(_LEFT + bar.whole * scale + 8, base, shown, "ours" if bar.verifies else "")


def _box(kind: str, x: float, y: float, width: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_HEIGHT}"/>'


def text(x: float, y: float, words: str, kind: str) -> str:
    """Words in the picture, of a kind that the style knows."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(words)}</text>'
