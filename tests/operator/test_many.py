"""Many artifacts at once: what they cost the operator grows as they do, and nothing comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.operator import MOST_WRITES, measured
from tests.cluster.client import Cluster
from tests.cluster.fixtures import leave_out

FEW, MANY = 20, 60

# The cluster may have to be started first.
pytestmark = pytest.mark.timeout(400)


async def test_many_artifacts_cost_each_what_few_do(kinds: Cluster, tmp_path: Path) -> None:
    leave_out(None if kinds.pid else "the fake node cannot be in the network of this cluster")
    runs = []
    for artifacts in (FEW, MANY):
        with kinds.namespace() as space:
            runs.append(await measured(space, artifacts, tmp_path))
    few, many = runs
    for run in runs:
        assert run.writes <= MOST_WRITES * run.artifacts, run.requests
        # A claim and two Jobs, and each of these but once.
        assert run.made == 3 * run.artifacts
        assert run.requests["apply", "Job"] == 2 * run.artifacts
        assert run.requests["apply", "PersistentVolumeClaim"] == run.artifacts
        assert run.requests["delete", "Job"] == 0
        # What kopf lists and watches does not grow.
        assert run.requests["watch", "Pod"] <= 2
    # Three times as many: what looks at all others for each one would need three times as much.
    assert many.each(many.requests.total()) < 2 * few.each(few.requests.total()), runs
