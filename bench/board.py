"""Pure: the runs of one case become numbers against goals, and series with their ratios."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from bench.content import GIB, MIB
from bench.measure import Sample
from bench.paired import Runs, paired_ratios, spread, wall
from bench.result import Number, Outcome, Series

TWO_CORES = len(os.sched_getaffinity(0)) < 4


class Board:
    """What was found in one case so far."""

    def __init__(self, case: str, runs: Runs, title: str = "") -> None:
        self._case = case
        self._title = title
        self._runs = runs
        self._ratios: dict[str, dict[str, object]] = defaultdict(dict)
        self.numbers: list[Number] = []

    def duel(
        self,
        id_: str,
        what: str,
        ours: str,
        theirs: str,
        goal: float,
        *,
        of: Callable[[Sample], float] = wall,
        against: Callable[[Sample], float] | None = None,
        then: str = "",
    ) -> None:
        """One number: ours against one peer; `against` and `then` are what it does afterwards."""
        ratios = paired_ratios(self._runs[ours], self._runs[theirs], of, against)
        self._ratios[ours][id_] = ratios
        seconds = _median([(against or of)(sample) for sample in self._runs[theirs]])
        self.numbers.append(
            Number(
                id_,
                what,
                f"{_median([of(sample) for sample in self._runs[ours]])} s",
                f"{theirs}{then} {seconds} s",
                spread(ratios),
                goal,
            )
        )

    def peak(self, id_: str, what: str, name: str, goal: float | None = None) -> None:
        """One number: the peak memory of one of them."""
        peaks = spread([sample.peak / MIB for sample in self._runs[name]])
        shown = f"{peaks.median:.0f} MiB"
        self.numbers.append(Number(id_, what, shown, "—", peaks, goal, "MiB"))

    def has(self, *names: str) -> bool:
        return all(name in self._runs for name in names)

    def outcome(
        self, left_out: Sequence[str] = (), verifying: Collection[str] | None = None
    ) -> Outcome:
        """All of it; `verifying` names those that verify, where that is of interest."""
        series = [
            Series(
                self._case,
                name,
                samples,
                self._ratios[name],
                None if verifying is None else name in verifying,
                self._title,
            )
            for name, samples in self._runs.items()
        ]
        return Outcome(self.numbers, series, left_out)


def size(count: int) -> str:
    return f"{count // GIB} GiB" if count >= GIB else f"{count // MIB} MiB"


def _median(values: Sequence[float]) -> str:
    return f"{spread(values).median:.2f}"
