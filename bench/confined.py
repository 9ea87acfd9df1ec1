"""P11: 4 GiB within a cgroup of 512 MiB that counts the page cache, to a disk."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders import Contender, HfDownload, Ours, Task
from bench.content import GIB, MIB, Model
from bench.grounds import Grounds, able, demand_all, tell
from bench.measure import BenchError, Sample
from bench.origin import Hub
from bench.paired import alternate, spread
from bench.result import Number, Outcome, Series
from tests.kernel_memory import MemoryGroup, NoGroupError, memory_group, why_no_cache

LIMIT = 512 * MIB


@dataclass(frozen=True)
class Confined:
    """A contender whose runs are each in a group of their own."""

    contender: Contender
    version: int
    peaks: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)

    def run(self, grounds: Grounds, task: Task) -> Sample:
        with memory_group(LIMIT, self.version) as group:
            try:
                sample = grounds.measured("P11", _Inside(self.contender, group), task)
                demand_all(task)
            except BenchError:
                if not group.kills:
                    raise
                sample = Sample(0.0, 0.0, group.peak)
            self.peaks.append(group.peak)
            self.refusals.append(group.refusals)
            self.kills.append(group.kills)
        tell(f"P11   peak {self.peaks[-1] / MIB:.0f} MiB, limit reached {self.refusals[-1]} times")
        return sample

    def told(self, samples: Sequence[Sample]) -> str:
        """How it went, in words."""
        seconds = [sample.wall for sample in samples if sample.wall]
        parts = [f"{spread(seconds).median:.2f} s"] if seconds else []
        parts += [f"killed {sum(self.kills)} times"] if any(self.kills) else []
        parts += [f"peak {spread(self.peaks).median / MIB:.0f} MiB"]
        return f"{', '.join(parts)}, limit reached {spread(self.refusals).median:.0f} times"


class _Inside:
    """A contender whose command runs in a group."""

    def __init__(self, contender: Contender, group: MemoryGroup) -> None:
        self.name = contender.name
        self.verifies = contender.verifies
        self._contender = contender
        self._group = group

    def lacks(self) -> str | None:
        return self._contender.lacks()

    def command(self, task: Task) -> list[str]:
        return self._group.command(self._contender.command(task))


def little_memory(grounds: Grounds) -> Outcome:
    """P11: who finishes, and how much of the limit it takes."""
    disk = Path(tempfile.gettempdir())
    version, reason = _version()
    if reason := reason or why_no_cache(disk):
        return Outcome([], (), [f"P11: {reason}"])
    peers, left_out = able([HfDownload()])
    confined = [Confined(one, version) for one in (Ours(), *peers)]
    with grounds.hub(grounds.sparse) as hub:
        runs = alternate(
            {one.contender.name: _download(grounds, one, hub, disk) for one in confined},
            grounds.runs,
            warm_up=False,
        )
    told = [one.told(runs[one.contender.name]) for one in confined]
    number = Number(
        "P11",
        f"{_size(grounds.sparse)} to a disk, in a cgroup of {LIMIT // MIB} MiB with its page "
        "cache: times killed",
        told[0],
        f"{peers[0].name} {told[1]}" if peers else "—",
        spread(confined[0].kills),
        0,
    )
    return Outcome([number], [_series(one, runs[one.contender.name]) for one in confined], left_out)


def _download(grounds: Grounds, confined: Confined, hub: Hub, disk: Path) -> Callable[[], Sample]:
    def run() -> Sample:
        with tempfile.TemporaryDirectory(prefix="aim-bench-", dir=disk) as folder:
            target, scratch = Path(folder, "target"), Path(folder, "scratch")
            for one in (target, scratch):
                one.mkdir()
            return confined.run(grounds, Task(grounds.sparse, hub, target, scratch))

    return run


def _version() -> tuple[int, str | None]:
    """Which cgroups can be made here; else why not."""
    reasons = []
    for version in (2, 1):
        try:
            with memory_group(LIMIT, version):
                return version, None
        except NoGroupError as error:
            reasons.append(str(error))
    return 0, "; ".join(reasons)


def _series(confined: Confined, samples: Sequence[Sample]) -> Series:
    facts = {
        "group peaks": confined.peaks,
        "limit reached": confined.refusals,
        "killed": confined.kills,
    }
    return Series("P11", confined.contender.name, samples, facts)


def _size(model: Model) -> str:
    return f"{model.size // GIB} GiB" if model.size >= GIB else f"{model.size // MIB} MiB"
