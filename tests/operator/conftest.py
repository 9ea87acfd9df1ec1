"""What the tests of the operator are given."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from operator_shim.access import Access
from tests.cluster.client import Cluster, Namespace
from tests.cluster.fixtures import cluster, cluster_share, existing_cluster, leave_out, meeting
from tests.cluster.programs import trouble
from tests.cluster.sharing import shared
from tests.operator.fake_node import FakeNode, OperatorsDoor
from tests.operator.kinds import our_kinds

__all__ = ["cluster", "cluster_share"]


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One without a node: a real scheduler and kubelet would take the pods of the fake node."""
    existing = existing_cluster(os.environ)
    if existing:
        leave_out("the cluster of KUBECONFIG has a node" if existing.node else None)
        yield existing
        return
    leave_out(trouble(node=False))
    with shared(meeting(tmp_path_factory, "control-plane")) as share:
        yield share.control_plane()


@pytest.fixture
def kinds(control_plane: Cluster) -> Iterator[Cluster]:
    """The control plane, with our kinds in it."""
    with our_kinds(control_plane) as cluster:
        yield cluster


@pytest.fixture
def space(kinds: Cluster) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    with kinds.namespace() as namespace:
        yield namespace


@pytest.fixture
def node(space: Namespace) -> Iterator[FakeNode]:
    node = FakeNode(space)
    yield node
    node.clear()


@pytest.fixture
async def door(kinds: Cluster) -> AsyncIterator[OperatorsDoor]:
    async with OperatorsDoor(await Access.load(str(kinds.kubeconfig))) as door:
        yield door
