"""P7: killed at half and started again; what is fetched twice."""

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench import origin
from bench.contenders import Ours, Task, environment
from bench.content import MIB
from bench.grounds import Grounds, able, demand_all, tell
from bench.measure import BenchError, Sample, end_group
from bench.paired import spread
from bench.result import Number, Outcome, Series

CONNECTIONS = 16
_RANGES = CONNECTIONS * 2 * MIB + 8 * MIB
ALLOWED = {
    "XET": (136 * MIB, "136 MiB"),
    "HF_TRANSFER": (_RANGES, f"2 MiB for each of {CONNECTIONS} connections + 8 MiB"),
    "HTTP": (_RANGES, f"2 MiB for each of {CONNECTIONS} connections + 8 MiB"),
}
_TIMES = 2


def killed(grounds: Grounds) -> Outcome:
    """P7, for each protocol."""
    outcomes = [_killed(grounds, protocol) for protocol in ALLOWED]
    return Outcome(
        [number for one in outcomes for number in one.numbers],
        [series for one in outcomes for series in one.series],
        [reason for one in outcomes for reason in one.left_out],
    )


def _killed(grounds: Grounds, protocol: str) -> Outcome:
    ours = Ours(protocol)
    present, left_out = able([ours])
    if not present:
        return Outcome([], (), left_out)
    samples = [_killed_once(grounds, ours) for _ in range(min(grounds.runs, _TIMES))]
    allowed, against = ALLOWED[protocol]
    extra = [(sample.sent or 0) - grounds.weights.size for sample in samples]
    shares = [bytes_ / allowed for bytes_ in extra]
    number = Number(
        "P7",
        f"{protocol}, killed at half (origin at {grounds.sizes.pace / 1e6:.0f} MB/s), "
        "started again: bytes fetched twice",
        f"{spread(extra).median / MIB:.1f} MiB",
        against,
        spread(shares),
        1.0,
    )
    return Outcome([number], [Series("P7", ours.name, samples, {"P7": shares})])


def _killed_once(grounds: Grounds, ours: Ours) -> Sample:
    """One run that is killed at half, and a second one; `sent` is what both were sent."""
    model = grounds.weights
    # The Hub sends all contents itself, xorbs too: nginx could not pace them together.
    paced = origin.hub(model.root, grounds.log(), store=grounds.cdn.store, pace=grounds.sizes.pace)
    with paced as hub, grounds.task(model, hub) as task:
        _kill_at(model.size // 2, ours.command(task), task)
        sample = grounds.measured("P7", ours, task)
        demand_all(task)
    # Which part of a file an answer of the Xet API describes is no content.
    content = [
        r for r in hub.records() if r["file"] and r["where"] != "cas" and r["status"] in (200, 206)
    ]
    sent = sum(record["bytes_sent"] for record in content)
    tell(f"P7     fetched twice: {(sent - model.size) / MIB:.1f} MiB")
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
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.lstat().st_blocks * 512
        except FileNotFoundError:  # it was taken away meanwhile
            continue
    return found
