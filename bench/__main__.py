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
from bench.result import Number, Series
from bench.store import store
from bench.table import numbers_table, replaced, series_table

DOCUMENT = PROJECT / "docs" / "benchmarks.md"


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
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_ids, default=list(CASES), metavar="P3,P6")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each contender (5)")
    parser.add_argument("--quick", action="store_true", help="see that it works: small, one run")
    parser.add_argument("--disk", type=Path, metavar="DIR", help="download into DIR, not memory")
    parser.add_argument("--store", type=Path, default=PROJECT / ".benchmarks", metavar="DIR")
    parser.add_argument("--write", action="store_true", help=f"update {DOCUMENT.name}")
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
    cases = dict.fromkeys(CASES[id_] for id_ in options.only)
    with opened(options.runs, QUICK if options.quick else Sizes(), options.disk) as grounds:
        outcomes = [case(grounds) for case in cases]
    return Findings(
        [n for outcome in outcomes for n in outcome.numbers if n.id in options.only],
        [one for outcome in outcomes for one in outcome.series],
        list(dict.fromkeys(reason for outcome in outcomes for reason in outcome.left_out)),
    )


def _shown(findings: Findings) -> str:
    parts = [numbers_table(findings.numbers), series_table(findings.series)]
    if findings.left_out:
        parts.append("Left out: " + "; ".join(findings.left_out) + ".")
    return "\n\n".join(parts)


def _block(findings: Findings) -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    command = " ".join(["python -m bench", *sys.argv[1:]])
    day = datetime.now(UTC).date().isoformat()
    return f"`{command}`, {day}. {machine()}. {found}.\n\n{_shown(findings)}"


if __name__ == "__main__":
    sys.exit(main())
