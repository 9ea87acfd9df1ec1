"""The cases: who runs what, and what is made of the samples."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench import origin
from bench.checksum import fastest_sha256
from bench.confined import little_memory
from bench.contenders import (
    HF,
    Aria2,
    Contender,
    Curl,
    HfDownload,
    HfTransfer,
    Ours,
    OursUnverified,
    Task,
    environment,
)
from bench.content import MIB
from bench.grounds import Grounds, able, demand_all, tell
from bench.measure import BenchError, Sample, end_group
from bench.paired import (
    Runs,
    alternate,
    cpu,
    fastest,
    paired_ratios,
    peak,
    spread,
    wall,
    wall_and_check,
)
from bench.relay import Relay
from bench.result import Number, Outcome, Series

CONNECTIONS = 16
KILL_ALLOWANCE = CONNECTIONS * 2 * MIB + 8 * MIB
_FEW = 3

Case = Callable[[Grounds], Outcome]


def verified(grounds: Grounds) -> Outcome:
    """P3 and P3b: 2 GiB in 4 files, verified by us, against peers that do not verify."""
    ours = Ours()
    peers, left_out = able([HfTransfer(), Curl(), Aria2()])
    known, lacking = able([HfDownload()])
    model = grounds.weights
    checksum = fastest_sha256(model.path(model.files[0]))
    runs = grounds.contest("P3", model, [ours, *peers, *known], checksum=checksum)
    if not peers:
        return Outcome([], _series("P3", runs), [*left_out, *lacking])
    best = fastest({peer.name: runs[peer.name] for peer in peers})
    plain = paired_ratios(runs[ours.name], runs[best])
    checked = paired_ratios(runs[ours.name], runs[best], wall, wall_and_check)
    seconds = _seconds([sample.wall for sample in runs[ours.name]])
    what = _model(grounds)
    two_cores = len(os.sched_getaffinity(0)) < 4
    numbers = [
        Number(
            "P3",
            f"{what}, verified, against the fastest peer, which does not verify",
            seconds,
            f"{best} {_seconds([sample.wall for sample in runs[best]])}",
            spread(plain),
            1.30 if two_cores else 1.05,
        ),
        Number(
            "P3b",
            f"the same, against that peer followed by {checksum.name}",
            seconds,
            f"{best}, then sha256: {_seconds([wall_and_check(sample) for sample in runs[best]])}",
            spread(checked),
            0.70,
        ),
    ]
    facts = {"fastest": best, "P3": plain, "P3b": checked}
    return Outcome(numbers, _series("P3", runs, {ours.name: facts}), [*left_out, *lacking])


def bytes_only(grounds: Grounds) -> Outcome:
    """P4: the CPU that the bytes themselves cost, without hash and journal."""
    ours = OursUnverified()
    peers, left_out = able([HfTransfer()])
    if not peers:
        return Outcome([], (), left_out)
    runs = grounds.contest("P4", grounds.weights, [ours, *peers])
    return _duel(
        "P4",
        f"CPU for {_model(grounds)}, not verified",
        runs,
        (ours.name, peers[0].name),
        0.75,
        what=cpu,
    )


def small_files(grounds: Grounds) -> Outcome:
    """P6: many small files."""
    peers, left_out = able([HfDownload()])
    if not peers:
        return Outcome([], (), left_out)
    runs = grounds.contest("P6", grounds.small, [Ours(), *peers])
    case = f"{grounds.sizes.small_files} files of 8 KiB, verified"
    return _duel("P6", case, runs, (Ours.name, peers[0].name), 0.20)


def killed(grounds: Grounds) -> Outcome:
    """P7: killed at half and started again; what was fetched twice."""
    samples = [_killed_once(grounds) for _ in range(min(grounds.runs, _FEW))]
    size = grounds.weights.size
    extra = [(sample.sent or 0) - size for sample in samples]
    shares = [bytes_ / KILL_ALLOWANCE for bytes_ in extra]
    number = Number(
        "P7",
        f"killed at half (origin at {grounds.sizes.pace / 1e6:.0f} MB/s), started again: "
        "bytes fetched twice",
        f"{spread(extra).median / MIB:.1f} MiB",
        f"2 MiB for each of {CONNECTIONS} connections + 8 MiB",
        spread(shares),
        1.0,
    )
    return Outcome([number], [Series("P7", Ours.name, samples, {"P7": shares})])


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
        f"{_size(model.size)}, {pace / 1e6:.0f} MB/s for each connection, one of them at 1 %, "
        "against the same without it"
    )
    return _duel("P8", case, runs, (ours, same), 1.25)


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
    none = Number(
        "P9", "the same: requests that we make", str(requests), "—", spread([requests]), 0
    )
    if not peers:
        return Outcome([none], _series("P9", runs), left_out)
    case = f"nothing to do: {grounds.sizes.small_files} files, revision pinned"
    duel = _duel("P9", case, runs, (Ours.name, peers[0].name), 0.25)
    return Outcome([*duel.numbers, none], duel.series, left_out)


def memory(grounds: Grounds) -> Outcome:
    """P10: peak memory, for several files and for a large one."""
    numbers, series = [], []
    for model, case in (
        (grounds.weights, _model(grounds)),
        (grounds.sparse, f"{_size(grounds.sizes.large_file)} in one file"),
    ):
        runs = grounds.contest("P10", model, [Ours()], runs=min(grounds.runs, _FEW))
        samples = runs[Ours.name]
        peaks = spread([peak(sample) / MIB for sample in samples])
        shown = f"{peaks.median:.0f} MiB"
        numbers.append(Number("P10", f"peak memory: {case}", shown, "—", peaks, 160, "MiB"))
        series.append(Series("P10", f"{Ours.name}, {case}", samples))
    return Outcome(numbers, series)


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
    return _duel("P12", "start: `--version`", runs, (ours.name, theirs.name), 0.30)


CASES: Mapping[str, Case] = {
    "P3": verified,
    "P3b": verified,
    "P4": bytes_only,
    "P6": small_files,
    "P7": killed,
    "P8": slow_connection,
    "P9": nothing_to_do,
    "P10": memory,
    "P11": little_memory,
    "P12": start,
}


class _Named(Ours):
    """Ours, under circumstances that have a name."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Words:
    """A command that downloads nothing."""

    verifies = False

    def __init__(self, name: str, words: list[str]) -> None:
        self.name = name
        self._words = words

    def lacks(self) -> str | None:
        return None

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


def _killed_once(grounds: Grounds) -> Sample:
    """One run that is killed at half, and a second one; `sent` is what both were sent."""
    model, ours = grounds.weights, Ours()
    paced = origin.hub(model.root, grounds.log(), pace=grounds.sizes.pace)
    with paced as hub, grounds.task(model, hub) as task:
        _kill_at(model.size // 2, ours.command(task), task)
        sample = grounds.measured("P7", ours, task)
        demand_all(task)
    content = [r for r in hub.records() if r["file"] and r["status"] in (200, 206)]
    sent = sum(record["bytes_sent"] for record in content)
    tell(f"P7   fetched twice: {(sent - model.size) / MIB:.1f} MiB")
    return Sample(sample.wall, sample.cpu, sample.peak, sent)


def _kill_at(size: int, command: Sequence[str], task: Task) -> None:
    process = subprocess.Popen(
        command, env=dict(environment(task)), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while _on_disk(task.target) < size:
            if process.poll() is not None:
                raise BenchError("it ended before it could be killed")
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        end_group(process)


def _on_disk(folder: Path) -> int:
    """Bytes that the files below a folder take up; those of holes do not count."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _duel(
    id_: str,
    case: str,
    runs: Runs,
    names: tuple[str, str],
    goal: float,
    what: Callable[[Sample], float] = wall,
) -> Outcome:
    """One number: ours against one peer."""
    ours, theirs = names
    ratios = paired_ratios(runs[ours], runs[theirs], what)
    number = Number(
        id_,
        case,
        _seconds([what(sample) for sample in runs[ours]]),
        f"{theirs} {_seconds([what(sample) for sample in runs[theirs]])}",
        spread(ratios),
        goal,
    )
    return Outcome([number], _series(id_, runs, {ours: {id_: ratios}}))


def _series(
    case: str, runs: Runs, facts: Mapping[str, Mapping[str, object]] | None = None
) -> list[Series]:
    return [
        Series(case, name, samples, (facts or {}).get(name, {})) for name, samples in runs.items()
    ]


def _seconds(values: Sequence[float]) -> str:
    return f"{spread(values).median:.2f} s"


def _model(grounds: Grounds) -> str:
    return f"{_size(grounds.sizes.weights)} in 4 files"


def _size(count: int) -> str:
    return f"{count >> 30} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"
