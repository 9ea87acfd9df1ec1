"""P11: 4 GiB within a cgroup of 512 MiB that counts the page cache, to a disk."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import content
from bench.board import size
from bench.contenders import Contender, HfDownload, Ours, Task
from bench.content import MIB, Model
from bench.grounds import Grounds, able, demand_all, tell
from bench.measure import BenchError, Sample
from bench.origin import Hub
from bench.paired import alternate, spread
from bench.result import Number, Outcome, Series
from tests.kernel_memory import MemoryGroup, NoGroupError, memory_group, why_no_cache

LIMIT = 512 * MIB
_TIMES = 2


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
        tell(f"P11    peak {self.peaks[-1] / MIB:.0f} MiB, limit reached {self.refusals[-1]} times")
        return sample

    def told(self, samples: Sequence[Sample]) -> str:
        """How it went, in words."""
        seconds = [sample.wall for sample in samples if sample.wall]
        parts = [f"{spread(seconds).median:.2f} s"] if seconds else []
        parts += [f"killed {sum(self.kills)} times"] if any(self.kills) else []
        parts += [f"peak {spread(self.peaks).median / MIB:.0f} MiB"]
        return f"{', '.join(parts)}, limit reached {spread(self.refusals).median:.0f} times"


class _Inside(Contender):
    """A contender whose command runs in a group."""

    def __init__(self, contender: Contender, group: MemoryGroup) -> None:
        self.name = contender.name
        self._contender = contender
        self._group = group

    def command(self, task: Task) -> list[str]:
        return self._group.command(self._contender.command(task))

    def settings(self) -> Mapping[str, str]:
        return self._contender.settings()


def little_memory(grounds: Grounds) -> Outcome:
    """P11: who finishes, and how much of the limit it takes."""
    version, reason = _version()
    if reason := reason or why_no_cache(grounds.disk):
        return Outcome([], (), [f"P11: {reason}"])
    present, left_out = able([Ours("XET"), Ours("HTTP"), HfDownload("Xet")])
    confined = {one.name: Confined(one, version) for one in present}
    with grounds.hub(grounds.weights, xet=True):
        pass  # before what is made of them, so that the store takes no byte of it
    with _model(grounds) as model, grounds.hub(model, xet=True) as hub:
        runs = alternate(
            {name: _download(grounds, one, model, hub) for name, one in confined.items()},
            min(grounds.runs, _TIMES),
            warm_up=False,
        )
    told = {name: one.told(runs[name]) for name, one in confined.items()}
    *_, theirs = present
    against = "—" if theirs.verifies else f"{theirs.name} {told[theirs.name]}"
    numbers = [
        Number(
            "P11",
            f"{one.name}: {size(model.size)} to a disk, in a cgroup of {LIMIT // MIB} MiB with "
            "its page cache: times killed",
            told[one.name],
            against,
            spread(confined[one.name].kills),
            0,
        )
        for one in present
        if one.verifies
    ]
    return Outcome(numbers, [_series(one, runs[name]) for name, one in confined.items()], left_out)


@contextlib.contextmanager
def _model(grounds: Grounds) -> Iterator[Model]:
    """One large file, on the disk too: it would be too much for the memory of the bench."""
    with tempfile.TemporaryDirectory(prefix="aim-bench-", dir=grounds.disk) as folder:
        # nginx may be another user.
        Path(folder).chmod(0o755)
        times = grounds.sizes.large_file // grounds.weights.size
        model = content.joined(Path(folder), grounds.weights, times)
        grounds.cdn.add(model)
        yield model


def _download(grounds: Grounds, confined: Confined, model: Model, hub: Hub) -> Callable[[], Sample]:
    def run() -> Sample:
        with grounds.task(model, hub, place=grounds.disk) as task:
            before = grounds.cdn.sent()
            sample = confined.run(grounds, task)
            sent = grounds.cdn.sent() - before
        os.sync()
        return replace(sample, sent=sent)

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
