"""`python -m bench.recorded`: what the operator's metrics say while a fleet of models arrives.

It writes `docs/monitoring.svg`. API server and operator are real; the node is made up, and so are
its models: they have sizes, and no bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.operator import cluster_of_its_own
from bench.origin import PROJECT
from bench.timeline import Line, Panel, drawn
from tests.cluster.client import Namespace
from tests.operator.busy_node import BusyNode
from tests.operator.program import Program

PICTURE = PROJECT / "docs" / "monitoring.svg"
_WAVES = ((0, 40), (30, 60))
"""After so many seconds, so many artifacts."""
_GATED = 4
_SLOTS, _SECONDS, _STEPS = 24, 14.0, 14
_PATIENCE_S = 600.0
_COLOURS = (
    *(("Ready", "s1"), ("Progressing", "s2"), ("New", "s3"), ("Pending", "s5")),
    *(("Degraded", "s5"), ("Failed", "s4")),
)

Samples = dict[str, float]
"""By name, with the labels that tell samples apart."""


@dataclass(frozen=True)
class Scrape:
    """What was read at one time."""

    time: float
    samples: Samples

    def total(self, name: str, label: str = "") -> float:
        return sum(
            value
            for sample, value in self.samples.items()
            if sample.partition("{")[0] == name and label in sample
        )


def main() -> int:
    argparse.ArgumentParser(prog="python -m bench.recorded", description=__doc__).parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="aim-bench-") as folder,
        cluster_of_its_own(folder) as cluster,
        cluster.namespace() as space,
    ):
        scrapes = asyncio.run(recorded(space, Path(folder)))
    PICTURE.write_text(picture(scrapes), "utf-8")
    return 0


async def recorded(space: Namespace, folder: Path) -> list[Scrape]:
    """A scrape each second, until all models are there that can be."""
    flags = ("--namespaces", space.name, "--kinds", "AIMArtifact", "--log-level", "info")
    with Program(space.cluster.kubeconfig, folder, *flags) as program:
        await asyncio.to_thread(program.wait_until_ready)
        async with BusyNode(space, _SECONDS, _STEPS, _SLOTS) as node:
            scrapes = [scrape(program)]
            coming = asyncio.create_task(_come(node))
            while len(node.ready) < _models() or scrapes[-1].time < scrapes[0].time + 10:
                await asyncio.sleep(1)
                scrapes.append(scrape(program))
                if scrapes[-1].time > scrapes[0].time + _PATIENCE_S:
                    raise TimeoutError("the models do not come")
            await coming
            for _ in range(3):
                await asyncio.sleep(1)
                scrapes.append(scrape(program))
            return scrapes


def scrape(program: Program) -> Scrape:
    _, page = program.probe("/metrics")
    samples = {
        f"{sample.name}{sorted(sample.labels.items())}".replace("[", "{", 1): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    return Scrape(time.monotonic(), samples)


def picture(scrapes: Sequence[Scrape]) -> str:
    """Three of the dashboard's panels."""
    times = [each.time for each in scrapes]
    by_status = [
        Line(status, kind, [s.total("aim_operator_artifacts", f"'{status}'") for s in scrapes])
        for status, kind in _COLOURS
    ]
    gigabytes = [each / 1e9 for each in rates(scrapes, "aim_operator_downloaded_bytes_total")]
    panels = [
        Panel("Artifacts by status", [each for each in by_status if any(each.values)], True),
        Panel("Download speed of all, GB/s", [Line("all", "s2", gigabytes)]),
        Panel(
            "The operator: passes and requests a second, objects waiting",
            [
                Line("passes", "s1", rates(scrapes, "aim_operator_reconcile_seconds_count")),
                Line("requests", "s2", rates(scrapes, "aim_operator_api_requests_total")),
                Line("waiting", "s5", [s.total("aim_operator_queue_length") for s in scrapes]),
            ],
        ),
    ]
    many, node = _models() + _GATED, f"the node has room for {_SLOTS} pods"
    notes = [
        f"{many} artifacts in two waves, {_GATED} of them without a token for their model; {node}",
        "Real API server and operator, scraped each second; the node and its bytes are made up",
    ]
    return drawn("What /metrics says while models arrive", notes, times, panels)


def rates(scrapes: Sequence[Scrape], name: str, over: int = 5) -> list[float]:
    """How much it grew in a second, over the last few scrapes."""
    totals = [each.total(name) for each in scrapes]
    found = [0.0]
    for now in range(1, len(scrapes)):
        then = max(0, now - over)
        seconds = scrapes[now].time - scrapes[then].time
        found.append((totals[now] - totals[then]) / seconds)
    return found


def _models() -> int:
    return sum(number for _, number in _WAVES) - _GATED


async def _come(node: BusyNode) -> None:
    begun, count = time.monotonic(), 0
    for after, number in _WAVES:
        await asyncio.sleep(max(0.0, begun + after - time.monotonic()))
        names = [f"model-{each:03}" for each in range(count, count + number)]
        if not count:
            names[:_GATED] = [f"gated-{each}" for each in range(_GATED)]
        count += number
        await node.create(names)


if __name__ == "__main__":
    sys.exit(main())
