"""Where the cases run: the models, the origin, the folder for destinations, and one run in it."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bench import content, origin
from bench.checksum import Checksum
from bench.contenders import Contender, Task, environment
from bench.content import GIB, KIB, MIB, Model
from bench.measure import BenchError, Sample, measure
from bench.paired import Runs, alternate

_MEMORY = Path("/dev/shm")
_NEEDED = 8 * GIB


@dataclass(frozen=True)
class Sizes:
    """How much is downloaded."""

    weights: int = 2 * GIB
    small_files: int = 2000
    large_file: int = 4 * GIB
    tail: int = GIB
    pace: float = 200e6
    connection_pace: float = 20e6


QUICK = Sizes(weights=64 * MIB, small_files=60, large_file=64 * MIB, tail=64 * MIB, pace=40e6)


@dataclass
class Grounds:
    """Everything that one bench has; `opened` makes it and clears it away."""

    work: Path
    destinations: Path
    runs: int
    sizes: Sizes
    cdn: origin.Cdn
    synced: bool

    @cached_property
    def weights(self) -> Model:
        tell(f"writing {self.sizes.weights // MIB} MiB of random bytes")
        model = content.weights(self.work / "weights", self.sizes.weights, 4)
        self.cdn.add(model)
        return model

    @cached_property
    def single(self) -> Model:
        model = content.weights(self.work / "single", self.sizes.tail, 1)
        self.cdn.add(model)
        return model

    @cached_property
    def small(self) -> Model:
        return content.small(self.work / "small", self.sizes.small_files, 8 * KIB)

    @cached_property
    def sparse(self) -> Model:
        model = content.sparse(self.work / "sparse", self.sizes.large_file)
        self.cdn.add(model)
        return model

    def log(self) -> Path:
        """A name for the log of a Hub."""
        return self.work / "hub.log"

    @contextlib.contextmanager
    def hub(self, model: Model) -> Iterator[origin.Hub]:
        """A Hub whose large files come from nginx."""
        with origin.hub(model.root, self.log(), cdn=self.cdn.url) as hub:
            yield hub

    @contextlib.contextmanager
    def task(self, model: Model, hub: origin.Hub, commit: str | None = None) -> Iterator[Task]:
        """An empty folder to download into, and away with it."""
        with (
            tempfile.TemporaryDirectory(prefix="target-", dir=self.destinations) as target,
            tempfile.TemporaryDirectory(prefix="scratch-", dir=self.work) as scratch,
        ):
            yield Task(model, hub, Path(target), Path(scratch), commit)
        if self.synced:
            os.sync()

    def contest(
        self,
        case: str,
        model: Model,
        contenders: Sequence[Contender],
        *,
        runs: int | None = None,
        checksum: Checksum | None = None,
    ) -> Runs:
        """Lets contenders download a model in turn, each time into an empty folder.

        With `checksum` the files of those that do not verify are checked afterwards.
        """
        with self.hub(model) as hub:
            measured = {
                one.name: self._downloads(case, one, model, hub, checksum) for one in contenders
            }
            return alternate(measured, runs or self.runs)

    def _downloads(
        self,
        case: str,
        contender: Contender,
        model: Model,
        hub: origin.Hub,
        checksum: Checksum | None,
    ) -> Callable[[], Sample]:
        def run() -> Sample:
            with self.task(model, hub) as task:
                before = self.cdn.sent()
                sample = self.measured(case, contender, task)
                sent = self.cdn.sent() - before
                demand_all(task)
                seconds = None
                if checksum and not contender.verifies:
                    seconds = checksum.seconds([task.target / one.path for one in model.files])
                return replace(sample, sent=sent or None, check=seconds)

        return run

    def measured(self, case: str, contender: Contender, task: Task) -> Sample:
        """One run of a contender, told of while it goes."""
        sample = measure(contender.command(task), environment(task))
        tell(
            f"{case:4} {contender.name:28} {sample.wall:7.2f} s {sample.cpu:7.2f} s CPU "
            f"{sample.peak / MIB:6.0f} MiB"
        )
        return sample


@contextlib.contextmanager
def opened(runs: int, sizes: Sizes, disk: Path | None) -> Iterator[Grounds]:
    """Prepare the grounds: in memory when there is room, destinations on `disk` if it is named."""
    with tempfile.TemporaryDirectory(prefix="aim-bench-", dir=_memory(sizes)) as folder:
        work = Path(folder)
        for name in ("cdn", "destinations"):
            (work / name).mkdir()
        cdn = origin.Cdn(work / "cdn")
        with contextlib.ExitStack() as stack:
            destinations = work / "destinations"
            if disk:
                made = tempfile.TemporaryDirectory(prefix="aim-bench-", dir=disk)
                destinations = Path(stack.enter_context(made))
            stack.enter_context(cdn.running())
            _touch(destinations, sizes.weights)
            yield Grounds(work, destinations, runs, sizes, cdn, synced=disk is not None)


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


def _memory(sizes: Sizes) -> Path | None:
    """Where the work is: in memory if there is room, else where temporary files go."""
    needed = min(_NEEDED, 2 * sizes.weights + sizes.large_file)
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > needed:
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
