"""What the tests of the cluster are given."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.cluster.client import Namespace
from tests.cluster.fixtures import cluster, cluster_share, control_plane
from tests.cluster.hub import hub_for_pods, store_for_pods, xet_for_pods
from tests.cluster.images import program_image
from tests.cluster.pods import IMAGE, MODEL
from tests.hub import HubServer
from tests.images.need import need_image
from tests.xet import XetFront, XetStore
from tests.xet.need import need_server

__all__ = ["cluster", "cluster_share", "control_plane", "shell"]


@pytest.fixture(scope="session")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image with a shell in it, and nothing else."""
    name = "aim.test/shell:1"
    archive = tmp_path_factory.mktemp("shell") / "shell.tar"
    archive.write_bytes(program_image(name, Path("/bin/sh")))
    cluster.import_image(archive)
    return name


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    with cluster.namespace() as namespace:
        yield namespace


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> str:
    """Our image, which the node has."""
    cluster.import_image(need_image().archive)
    return IMAGE


@pytest.fixture(scope="session")
def store(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[XetStore]:
    need_server()
    with store_for_pods(cluster, tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def xet(cluster: Cluster, store: XetStore) -> Iterator[XetFront]:
    with xet_for_pods(cluster, store) as xet:
        yield xet


@pytest.fixture
def hub(cluster: Cluster, xet: XetFront, image: str) -> Iterator[HubServer]:
    with hub_for_pods(cluster, {"org/model": MODEL}, xet) as hub:
        hub.add_token("hf_of_somebody")
        yield hub
