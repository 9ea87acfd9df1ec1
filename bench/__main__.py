"""`python -m bench` (`make bench`): measure, show, store, and write `docs/benchmarks.md`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.cases import CASES
from bench.grounds import QUICK, Sizes, opened, tell
from bench.machine import machine, versions
from bench.measure import BenchError
from bench.origin import PROJECT
from bench.picture import bars, drawn
from bench.result import Number, Series
from bench.store import store
from bench.table import numbers_table, replaced, series_tables

DOCUMENT = PROJECT / "docs" / "benchmarks.md"
PICTURE = DOCUMENT.with_suffix(".svg")


@dataclass(frozen=True)
class Findings:
    """All that one bench has found."""

    numbers: Sequence[Number]
    series: Sequence[Series]
    left_out: Sequence[str]


def main() -> int:
    options = _parse()
    # So that servers and gigabytes in memory do not outlive a bench that is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        findings = _run(options)
    except BenchError as error:
        tell(f"bench: {error}")
        return 1
    print(_shown(findings))
    name = "quick" if options.quick else "bench"
    store(options.store, name, findings.series, findings.numbers)
    if options.write:
        DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), _block(findings)), "utf-8")
        PICTURE.write_text(_picture(findings.series, options.runs), "utf-8")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_ids, default=list(CASES), metavar="P3,large")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each contender (5)")
    parser.add_argument("--quick", action="store_true", help="see that it works: small, one run")
    parser.add_argument(
        "--disk", type=Path, metavar="DIR", help="where the disk is that is measured (TMPDIR)"
    )
    parser.add_argument("--store", type=Path, default=PROJECT / ".benchmarks", metavar="DIR")
    parser.add_argument(
        "--write", action="store_true", help=f"update {DOCUMENT.name} and its picture"
    )
    options = parser.parse_args()
    if options.write and (options.quick or set(options.only) != set(CASES)):
        parser.error("--write is for a whole bench: without --quick and --only")
    if options.runs < 1:
        parser.error("--runs is 1 at least")
    if options.quick:
        options.runs = 1
    return options


def _ids(text: str) -> list[str]:
    ids = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := sorted(set(ids) - set(CASES)):
        known = ", ".join(CASES)
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {known}")
    return ids


def _run(options: argparse.Namespace) -> Findings:
    # Some numbers come from the same case; a dict keeps their order.
    cases = dict.fromkeys(case for id_ in options.only for case in CASES[id_])
    sizes, wanted = QUICK if options.quick else Sizes(), frozenset(options.only)
    with opened(options.runs, sizes, wanted, options.disk) as grounds:
        outcomes = [case(grounds) for case in cases]
    order = {id_: place for place, id_ in enumerate(CASES)}
    numbers = [n for outcome in outcomes for n in outcome.numbers if n.id in wanted]
    return Findings(
        sorted(numbers, key=lambda number: order[number.id]),
        sorted(
            [one for outcome in outcomes for one in outcome.series],
            key=lambda series: (not series.title, order[series.case]),
        ),
        list(dict.fromkeys(reason for outcome in outcomes for reason in outcome.left_out)),
    )


def _shown(findings: Findings) -> str:
    parts = [numbers_table(findings.numbers)] if findings.numbers else []
    parts.append(series_tables(findings.series))
    if findings.left_out:
        parts.append("Left out: " + "; ".join(findings.left_out) + ".")
    return "\n\n".join(parts)


def _picture(series: Sequence[Series], runs: int) -> str:
    large = [one for one in series if one.case == "large"]
    _, _, what = large[0].title.partition(": ")
    notes = [f"{machine()}; the server is on it, too", f"Medians of {runs} runs; shorter is better"]
    return drawn(f"{what}: seconds until all is there and verified", notes, bars(large))


def _block(findings: Findings) -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    command = " ".join(["python -m bench", *sys.argv[1:]])
    day = datetime.now(UTC).date().isoformat()
    return f"`{command}`, {day}. {machine()}. {found}.\n\n{_shown(findings)}"


if __name__ == "__main__":
    sys.exit(main())
