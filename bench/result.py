"""What the cases bring back: numbers with their goals, and the samples they were made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.measure import Sample
from bench.paired import Spread


@dataclass(frozen=True)
class Number:
    """One number of the table. It is reached when its median is not above the goal.

    Without a goal it is shown all the same.
    """

    id: str
    case: str
    ours: str
    against: str
    value: Spread
    goal: float | None = None
    unit: str = ""

    @property
    def reached(self) -> bool:
        return self.goal is None or self.value.median <= self.goal


@dataclass(frozen=True)
class Series:
    """All runs of one contender in one case. `facts` are stored with them.

    `verifies` says whether it checked the digests; None where that is not of interest.
    """

    case: str
    name: str
    samples: Sequence[Sample]
    facts: Mapping[str, object] = field(default_factory=dict)
    verifies: bool | None = None
    title: str = ""
    """Over the table that it is shown in, with others of the same title."""


@dataclass(frozen=True)
class Outcome:
    """What one case has found. `left_out` says who could not be measured, and why."""

    numbers: Sequence[Number]
    series: Sequence[Series] = ()
    left_out: Sequence[str] = ()
