"""The cases: who runs what, and what is made of the samples."""

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bench import origin
from bench.board import Board, size
from bench.confined import little_memory
from bench.contenders import HF, Contender, HfDownload, HfTransfer, Ours, OursUnverified, Task
from bench.grounds import Grounds, able, demand_all
from bench.interrupted import CONNECTIONS, killed
from bench.measure import BenchError, Sample
from bench.paired import alternate, cpu, spread
from bench.relay import Relay
from bench.result import Number, Outcome
from bench.side_by_side import FEW, disk, large, medium, small

Case = Callable[[Grounds], Outcome]


def bytes_only(grounds: Grounds) -> Outcome:
    """P4: the CPU that the bytes themselves cost, without hash and journal."""
    ours = OursUnverified()
    peers, left_out = able([HfTransfer()])
    if not peers:
        return Outcome([], (), left_out)
    board = Board("P4", grounds.contest("P4", grounds.weights, [ours, *peers]))
    case = f"CPU for {size(grounds.sizes.weights)} in 4 files, not verified"
    board.duel("P4", case, ours.name, peers[0].name, 0.75, of=cpu)
    return board.outcome()


def slow_connection(grounds: Grounds) -> Outcome:
    """P8: one of the connections has a hundredth of the others' speed."""
    model, pace = grounds.single, grounds.sizes.connection_pace
    relay = Relay((origin.CDN_HOST, grounds.cdn.port), pace)
    # The first one, which leads the file, and others.
    numbers = itertools.cycle(range(1, CONNECTIONS + 1, 5))

    def measured(name: str, slow: Callable[[], int | None]) -> Callable[[], Sample]:
        def run() -> Sample:
            with grounds.task(model, hub) as task:
                relay.begin(slow())
                before = grounds.cdn.sent()
                sample = grounds.measured("P8", _Named(name), task)
                demand_all(task)
                return replace(sample, sent=grounds.cdn.sent() - before)

        return run

    ours, same = "one slow connection", "none"
    with relay.running(), origin.hub(model.root, grounds.log(), cdn=relay.url) as hub:
        runs = alternate(
            {ours: measured(ours, lambda: next(numbers)), same: measured(same, lambda: None)},
            grounds.runs,
        )
    case = (
        f"{size(model.size)}, {pace / 1e6:.0f} MB/s for each connection, one of them at 1 %, "
        "against the same without it"
    )
    board = Board("P8", runs)
    board.duel("P8", case, ours, same, 1.25)
    return board.outcome()


def nothing_to_do(grounds: Grounds) -> Outcome:
    """P9: all files and the receipt are there, and the revision is a commit."""
    peers, left_out = able([HfDownload()])
    contenders: list[Contender] = [Ours(), *peers]
    model, port = grounds.small, origin.free_port("127.0.0.1")
    with origin.hub(model.root, grounds.log(), cdn=grounds.cdn.url, port=port) as hub:
        commit = hub.commit(model)
        tasks = {one.name: _kept_task(grounds, one, hub, commit) for one in contenders}
        for one in contenders:
            grounds.measured("P9", one, tasks[one.name])
            demand_all(tasks[one.name])
    if not _requests_of_ours(hub):
        raise BenchError("our requests are not known by their User-Agent any more")
    # Another one on the same port, whose log begins when nothing is left to do.
    with origin.hub(model.root, grounds.log(), cdn=grounds.cdn.url, port=port) as hub:
        runs = alternate(
            {one.name: _repeated(grounds, one, tasks[one.name]) for one in contenders},
            grounds.runs,
        )
    requests = _requests_of_ours(hub)
    board = Board("P9", runs)
    if peers:
        case = f"nothing to do: {grounds.sizes.small_files} files, revision pinned"
        board.duel("P9", case, Ours().name, peers[0].name, 0.25)
    case = "the same: requests that we make"
    board.numbers.append(Number("P9", case, str(requests), "—", spread([requests]), 0))
    return board.outcome(left_out)


def large_file(grounds: Grounds) -> Outcome:
    """P10: peak memory for one large file, beside what `large` finds for several."""
    ours = Ours("HTTP")
    runs = grounds.contest("P10", grounds.sparse, [ours], runs=min(grounds.runs, FEW))
    board = Board("P10", runs)
    case = f"peak memory of {ours.name}: {size(grounds.sizes.large_file)} in one file"
    board.peak("P10", case, ours.name, 160)
    return board.outcome()


def start(grounds: Grounds) -> Outcome:
    """P12: what every call costs."""
    if not HF.exists():
        return Outcome([], (), ["hf version: hf is not installed"])
    contenders = [
        _Words("--version", [sys.executable, "-m", "aim_downloader", "--version"]),
        _Words("hf version", [str(HF), "version"]),
    ]
    with grounds.hub(grounds.small) as hub, grounds.task(grounds.small, hub) as task:
        runs = alternate(
            {one.name: _repeated(grounds, one, task) for one in contenders},
            grounds.runs if grounds.runs == 1 else max(grounds.runs, 9),
        )
    ours, theirs = contenders
    board = Board("P12", runs)
    board.duel("P12", "start: `--version`", ours.name, theirs.name, 0.30)
    return board.outcome()


CASES: Mapping[str, Sequence[Case]] = {
    "P1": (large,),
    "P2": (large,),
    "P3": (large,),
    "P3b": (large,),
    "P4": (bytes_only,),
    "P5": (large,),
    "P6": (small,),
    "P7": (killed,),
    "P8": (slow_connection,),
    "P9": (nothing_to_do,),
    "P10": (large, large_file),
    "P11": (little_memory,),
    "P12": (start,),
    "large": (large,),
    "disk": (disk,),
    "medium": (medium,),
    "small": (small,),
}
"""By the names of numbers, and of the repositories of the side by side."""


class _Named(Ours):
    """Ours over HTTP, under circumstances that have a name."""

    def __init__(self, name: str) -> None:
        super().__init__("HTTP")
        self.name = name


class _Words(Contender):
    """A command that downloads nothing."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name = name
        self._words = words

    def command(self, _task: Task) -> list[str]:
        return self._words


def _repeated(grounds: Grounds, contender: Contender, task: Task) -> Callable[[], Sample]:
    def run() -> Sample:
        return grounds.measured("P9" if task.commit else "P12", contender, task)

    return run


def _kept_task(grounds: Grounds, contender: Contender, hub: origin.Hub, commit: str) -> Task:
    folder = grounds.destinations / f"kept {contender.name}"
    target, scratch = folder / "target", folder / "scratch"
    for one in (target, scratch):
        one.mkdir(parents=True)
    return Task(grounds.small, hub, target, scratch, commit)


def _requests_of_ours(hub: origin.Hub) -> int:
    agents = [
        value
        for record in hub.records()
        for name, value in record["headers"].items()
        if name.lower() == "user-agent"
    ]
    return sum(agent.startswith("aim-downloader/") for agent in agents)
