"""`python -m bench.operator`: many AIMArtifacts at once, and what they cost the operator (P13).

It runs before a real API server, as a program; the node is made up: volumes and pods cost nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.machine import machine
from bench.origin import PROJECT
from bench.table import replaced, table
from tests.cluster.client import Cluster, Namespace
from tests.cluster.programs import VERSION, trouble
from tests.cluster.sharing import shared
from tests.operator.busy_node import BusyNode
from tests.operator.kinds import our_kinds
from tests.operator.program import Program

DOCUMENT = PROJECT / "docs" / "benchmarks.md"
BLOCK = "bench.operator"
WRITES = ("apply", "apply status", "create", "delete", "patch")
MOST_WRITES = 12
MIB = 1024 * 1024
_PATIENCE_S = 1800.0
_TICKS = os.sysconf("SC_CLK_TCK")
_HEADS = (
    *("Artifacts", "All have a Job, s", "All are Ready, s", "Operator's CPU, s", "Peak, MiB"),
    *("Requests each", "of them writes", "Events each"),
)


@dataclass(frozen=True)
class Run:
    """What so many artifacts took."""

    artifacts: int
    jobs: float
    """Seconds until each of them had its download Job."""
    ready: float
    """Seconds until each was Ready."""
    cpu: float
    peak: int
    requests: Counter[tuple[str, str]]
    """The operator's requests, by verb and kind."""
    made: int
    """How many claims and Jobs there were."""

    @property
    def writes(self) -> int:
        """Of the operator, beside Events."""
        return sum(n for (verb, kind), n in self.requests.items() if verb in WRITES) - self.events

    @property
    def events(self) -> int:
        return self.requests["create", "Event"]

    def each(self, total: float) -> float:
        return total / self.artifacts


def main() -> int:
    options = _parse()
    if reason := trouble(node=False):
        sys.stderr.write(f"bench.operator: {reason}\n")
        return 1
    # So that no operator and no cluster outlives it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    runs, load = [], os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="aim-bench-") as folder,
        cluster_of_its_own(folder) as cluster,
    ):
        for artifacts in options.artifacts:
            # Each begins with an operator that has seen nothing, in a namespace of its own.
            with cluster.namespace() as space:
                runs.append(asyncio.run(measured(space, artifacts, Path(folder))))
            print(_row(runs[-1]), file=sys.stderr, flush=True)
    print(shown(runs))
    if options.write:
        block = f"{_circumstances(load)}\n\n{shown(runs)}"
        DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), block, BLOCK), "utf-8")
    return 0 if all(run.each(run.writes) <= MOST_WRITES for run in runs) else 1


async def measured(space: Namespace, artifacts: int, folder: Path) -> Run:
    """Lets an operator bring so many artifacts to Ready."""
    flags = ("--namespaces", space.name, "--kinds", "AIMArtifact", "--log-level", "info")
    names = [f"model-{number:04}" for number in range(artifacts)]
    with Program(space.cluster.kubeconfig, folder, *flags) as program:
        await asyncio.to_thread(program.wait_until_ready)
        async with BusyNode(space) as node:
            before, cpu = requests_of(program), _cpu(program)
            begun = time.monotonic()
            await node.create(names)
            await node.until(lambda: len(node.began) == artifacts, _PATIENCE_S)
            await node.until(lambda: len(node.ready) == artifacts, _PATIENCE_S)
            await asyncio.sleep(2)  # the Events come after the status
            return Run(
                artifacts,
                max(node.began.values()) - begun,
                max(node.ready.values()) - begun,
                _cpu(program) - cpu,
                _peak(program),
                requests_of(program) - before,
                len(node.made),
            )


def requests_of(program: Program) -> Counter[tuple[str, str]]:
    """How many requests it has made, by verb and kind, as its own metrics say."""
    code, page = program.probe("/metrics")
    assert code == 200, page
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(page):
        if family.name == "aim_operator_api_requests":
            for sample in family.samples:
                found[sample.labels["verb"], sample.labels["kind"]] += int(sample.value)
    return found


def shown(runs: Sequence[Run]) -> str:
    """The table, and which requests there were at the end of it."""
    last = runs[-1]
    often = [
        f"{verb} {kind} {last.each(count):.1f}"
        for (verb, kind), count in last.requests.most_common()
        if last.each(count) >= 0.05
    ]
    detail = f"Requests for each of {last.artifacts:,} artifacts: {', '.join(often)}."
    return f"{table(_HEADS, [_row(run) for run in runs])}\n\n{detail}"


def _row(run: Run) -> list[str]:
    return [
        f"{run.artifacts:,}",
        f"{run.jobs:.1f}",
        f"{run.ready:.1f}",
        f"{run.cpu:.1f}",
        f"{run.peak / MIB:.0f}",
        f"{run.each(run.requests.total()):.1f}",
        f"{run.each(run.writes):.1f}",
        f"{run.each(run.events):.1f}",
    ]


def _circumstances(load: float) -> str:
    """Where it was measured; ``load`` is what others did there when it began."""
    command = " ".join(["python -m bench.operator", *sys.argv[1:]])
    day = datetime.now(UTC).date().isoformat()
    where = f"{machine()}, with a load of {load:.1f} when it began"
    return f"`{command}`, {day}. {where}. Kubernetes {VERSION}, on the same machine."


@contextmanager
def cluster_of_its_own(folder: str) -> Iterator[Cluster]:
    with shared(Path(folder, "cluster")) as share, our_kinds(share.control_plane()) as cluster:
        yield cluster


def _cpu(program: Program) -> float:
    stat = Path(f"/proc/{program.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / _TICKS


def _peak(program: Program) -> int:
    status = Path(f"/proc/{program.process.pid}/status").read_text("utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument(
        "--artifacts", type=_numbers, default=[100, 300, 1000], metavar="100,300,1000"
    )
    parser.add_argument("--write", action="store_true", help=f"update {DOCUMENT.name}")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
