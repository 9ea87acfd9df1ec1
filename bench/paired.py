"""Pure: runs side by side become medians, spreads and ratios."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.measure import Sample

Runs = Mapping[str, Sequence[Sample]]
"""The samples of each contender by its name; those of one round have the same index."""


@dataclass(frozen=True)
class Spread:
    """A median, and between what it lies."""

    median: float
    low: float
    high: float

    def __mul__(self, factor: float) -> "Spread":
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def alternate(
    contenders: Mapping[str, Callable[[], Sample]], runs: int, *, warm_up: bool = True
) -> Runs:
    """Runs A B C A B C ..., so that whatever else the machine does meets all of them alike.

    A single run is to see that it works: it has no warm-up.
    """
    if warm_up and runs > 1:
        for run in contenders.values():
            run()
    rounds = [{name: run() for name, run in contenders.items()} for _ in range(runs)]
    return {name: [one[name] for one in rounds] for name in contenders}


def wall(sample: Sample) -> float:
    return sample.wall


def cpu(sample: Sample) -> float:
    return sample.cpu


def peak(sample: Sample) -> float:
    return sample.peak


def wall_and_check(sample: Sample) -> float:
    return sample.wall + (sample.check or 0.0)


def paired_ratios(
    ours: Sequence[Sample],
    theirs: Sequence[Sample],
    what: Callable[[Sample], float] = wall,
    against: Callable[[Sample], float] | None = None,
) -> list[float]:
    """Ours by theirs, round by round; `against` is what counts of theirs when it is not `what`."""
    of_theirs = against or what
    return [what(a) / of_theirs(b) for a, b in zip(ours, theirs, strict=True)]


def fastest(runs: Runs) -> str:
    """The name of the contender with the lowest median wall clock."""
    return min(runs, key=lambda name: spread([sample.wall for sample in runs[name]]).median)
