"""Where the cases run: the models, the origin, the folder for destinations, and one run in it."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bench import content, origin
from bench.checksum import Checksum, fastest_sha256
from bench.contenders import Contender, Task, environment
from bench.content import GIB, KIB, MIB, Model
from bench.measure import BenchError, Sample, measure
from bench.paired import Runs, alternate

_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Sizes:
    """How much is downloaded."""

    weights: int = 2 * GIB
    shards: int = GIB
    shard: int = 8 * MIB
    small_files: int = 2000
    large_file: int = 4 * GIB
    tail: int = GIB
    pace: float = 200e6
    connection_pace: float = 20e6

    @property
    def in_memory(self) -> int:
        """What lies there at once: models, most of them a second time as xorbs, a destination."""
        twice = self.weights + self.shards
        return 2 * twice + self.tail + self.weights


QUICK = Sizes(
    weights=64 * MIB,
    shards=32 * MIB,
    small_files=60,
    large_file=64 * MIB,
    tail=64 * MIB,
    pace=40e6,
)


@dataclass
class Grounds:
    """Everything that one bench has; `opened` makes it and clears it away."""

    work: Path
    destinations: Path
    disk: Path
    runs: int
    sizes: Sizes
    wanted: frozenset[str]
    """The cases that were asked for."""
    cdn: origin.Cdn

    @cached_property
    def weights(self) -> Model:
        """The large repository."""
        tell(f"writing {self.sizes.weights // MIB} MiB of random bytes")
        model = content.weights(self.work / "weights", self.sizes.weights, 4)
        self.cdn.add(model)
        return model

    @cached_property
    def shards(self) -> Model:
        """The medium repository."""
        sizes = self.sizes
        count = sizes.shards // sizes.shard
        model = content.weights(self.work / "shards", sizes.shards, count, "shards")
        self.cdn.add(model)
        return model

    @cached_property
    def single(self) -> Model:
        model = content.weights(self.work / "single", self.sizes.tail, 1)
        self.cdn.add(model)
        return model

    @cached_property
    def small(self) -> Model:
        """The repository of many small files."""
        return content.small(self.work / "small", self.sizes.small_files, 8 * KIB)

    @cached_property
    def sparse(self) -> Model:
        model = content.sparse(self.work / "sparse", self.sizes.large_file)
        self.cdn.add(model)
        return model

    @cached_property
    def checksum(self) -> Checksum:
        return fastest_sha256(self.weights.path(self.weights.files[0]))

    def log(self) -> Path:
        """A name for the log of a Hub."""
        return self.work / "hub.log"

    @contextlib.contextmanager
    def hub(self, model: Model, *, xet: bool = False) -> Iterator[origin.Hub]:
        """A Hub whose large files, and the xorbs of its store, come from nginx."""
        store = self.cdn.store if xet else None
        if xet:
            tell(f"the Xet store takes {model.id}")
        with origin.hub(
            model.root, self.log(), cdn=self.cdn.url, store=store, xorbs=self.cdn.xorbs
        ) as hub:
            yield hub

    @contextlib.contextmanager
    def task(
        self, model: Model, hub: origin.Hub, commit: str | None = None, place: Path | None = None
    ) -> Iterator[Task]:
        """An empty folder to download into (in `place`), and away with it."""
        place = place or self.destinations
        with (
            tempfile.TemporaryDirectory(prefix="aim-bench-", dir=place) as target,
            tempfile.TemporaryDirectory(prefix="scratch-", dir=self.work) as scratch,
        ):
            yield Task(model, hub, Path(target), Path(scratch), commit)

    def contest(
        self,
        case: str,
        model: Model,
        contenders: Sequence[Contender],
        *,
        runs: int | None = None,
        xet: bool = False,
        check: bool = False,
        disk: bool = False,
    ) -> Runs:
        """Lets contenders download a model in turn, each time into an empty folder.

        With `check` the files of those that do not verify are verified afterwards. With `disk`
        they go to the disk, and how long it takes until all is there is measured, too.
        """

        def downloads(one: Contender, hub: origin.Hub) -> Callable[[], Sample]:
            def run() -> Sample:
                with self.task(model, hub, place=self.disk if disk else None) as task:
                    return self._downloaded(case, one, task, check=check, disk=disk)

            return run

        with self.hub(model, xet=xet) as hub:
            measured = {one.name: downloads(one, hub) for one in contenders}
            # A disk does not become quicker by use.
            return alternate(measured, runs or self.runs, warm_up=not disk)

    def _downloaded(
        self, case: str, contender: Contender, task: Task, *, check: bool, disk: bool
    ) -> Sample:
        if disk:
            os.sync()  # what others have left to write
        before = self.cdn.sent()
        sample = self.measured(case, contender, task)
        seconds = _sync() if disk else None
        sent = self.cdn.sent() - before
        demand_all(task)
        checked = None
        if check and not contender.verifies:
            checked = self._check(contender, task)
        return replace(sample, sent=sent or None, check=checked, sync=seconds)

    def _check(self, contender: Contender, task: Task) -> float:
        paths = [task.target / one.path for one in task.model.files]
        command = contender.check(task) or self.checksum.on(paths)
        return measure(command, _environment(contender, task)).wall

    def measured(self, case: str, contender: Contender, task: Task) -> Sample:
        """One run of a contender, told of while it goes."""
        sample = measure(contender.command(task), _environment(contender, task))
        tell(
            f"{case:6} {contender.name:28} {sample.wall:7.2f} s {sample.cpu:7.2f} s CPU "
            f"{sample.peak / MIB:6.0f} MiB"
        )
        return sample


@contextlib.contextmanager
def opened(runs: int, sizes: Sizes, wanted: frozenset[str], disk: Path | None) -> Iterator[Grounds]:
    """Prepare the grounds: in memory when there is room."""
    with tempfile.TemporaryDirectory(prefix="aim-bench-", dir=_memory(sizes)) as folder:
        work = Path(folder)
        destinations = work / "destinations"
        for made in (work / "cdn", destinations):
            made.mkdir()
        cdn = origin.Cdn(work / "cdn")
        with cdn.running():
            _touch(destinations, sizes.weights)
            disk = disk or Path(tempfile.gettempdir())
            yield Grounds(work, destinations, disk, runs, sizes, wanted, cdn)


def able(contenders: Sequence[Contender]) -> tuple[list[Contender], list[str]]:
    """Those that can run here, and what the others lack."""
    lacking = {one.name: one.lacks() for one in contenders}
    present = [one for one in contenders if lacking[one.name] is None]
    return present, [f"{name}: {reason}" for name, reason in lacking.items() if reason]


def demand_all(task: Task) -> None:
    """Make sure that a run has brought what it was measured for.

    Raises:
        BenchError: a file is missing or has another size.
    """
    for file in task.model.files:
        path = task.target / file.path
        if not path.is_file() or path.stat().st_size != file.size:
            raise BenchError(f"{file.path} was not brought")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _environment(contender: Contender, task: Task) -> Mapping[str, str]:
    return {**environment(task), **contender.settings()}


def _sync() -> float:
    begun = time.perf_counter()
    os.sync()
    return time.perf_counter() - begun


def _memory(sizes: Sizes) -> Path | None:
    """Where the work is: in memory if there is room, else where temporary files go."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > sizes.in_memory:
        return _MEMORY
    tell("there is no room in memory: models are on a disk, and what is measured is the disk")
    return None


def _touch(folder: Path, size: int) -> None:
    """Write once what will be written: on virtual machines the first touch of memory is slow."""
    path = folder / "touch"
    with path.open("wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    path.unlink()
