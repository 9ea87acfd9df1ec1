"""The fixtures `control_plane` and `cluster`, for every folder whose tests want a cluster.

A conftest.py imports them. Nothing is started before the first test asks. All workers of a test run
share one cluster; two runs have two, which do not meet.

KUBECONFIG of a cluster that `make cluster` started: that is used, nothing is started, and it stays.
KUBECONFIG of another cluster is not touched, as it may be one that people work with, unless
AIM_TESTS_USE_EXISTING_CLUSTER=true says that tests may. The test Hub is out of its pods' reach, so
only tests of the control plane use it; tests that need `cluster` are left out.
KUBEBUILDER_ASSETS: a folder with etcd, kube-apiserver and kubectl, which are used in place of ours.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cluster.client import Cluster, cluster_of
from tests.cluster.programs import trouble
from tests.cluster.sharing import Share, shared


@pytest.fixture(scope="session")
def cluster_share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    with shared(meeting(tmp_path_factory, "cluster")) as share:
        yield share


def meeting(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Where the workers of a test run meet to share a cluster."""
    base = tmp_path_factory.getbasetemp()
    # Each worker of pytest-xdist has a folder of its own, below that of the run.
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return run / name


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Cluster:
    """A real API server with its controllers; whether it has a node is left open."""
    existing = existing_cluster(os.environ)
    if existing:
        return existing
    leave_out(trouble(node=False))
    share: Share = request.getfixturevalue("cluster_share")
    return share.control_plane()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster whose node runs pods."""
    existing = existing_cluster(os.environ)
    if existing:
        leave_out(None if existing.node else "the cluster of KUBECONFIG has no node of the tests")
        return existing
    leave_out(trouble(node=True))
    share: Share = request.getfixturevalue("cluster_share")
    return share.cluster()


def existing_cluster(environ: Mapping[str, str]) -> Cluster | None:
    """The cluster of KUBECONFIG, when tests may use it."""
    named = environ.get("KUBECONFIG")
    if not named:
        return None
    ours = cluster_of(Path(named))
    if ours or environ.get("AIM_TESTS_USE_EXISTING_CLUSTER") != "true":
        return ours
    return Cluster(Path(named))


def leave_out(reason: str | None) -> None:
    """Leaves the test out for a reason; where everything must run, that is a failure."""
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
