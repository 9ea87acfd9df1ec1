"""A Hub that pods of the cluster can reach, with its Xet store."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster.addresses import CDN, HUB, XORBS
from tests.cluster.client import Cluster
from tests.hub import HubServer
from tests.xet import XetFront, XetStore

Files = Mapping[str, bytes | Path]


@contextmanager
def store_for_pods(cluster: Cluster, folder: Path) -> Iterator[XetStore]:
    """The Xet store in the cluster's network; uploads to it must be made from there, too."""
    with ExitStack() as stack:
        with cluster.network():
            store = stack.enter_context(XetStore(folder))
        yield store


@contextmanager
def xet_for_pods(cluster: Cluster, store: XetStore) -> Iterator[XetFront]:
    """The store as pods see it."""
    with ExitStack() as stack:
        with cluster.network():
            xet = stack.enter_context(XetFront(store, hosts=(HUB, XORBS)))
        yield xet


@contextmanager
def hub_for_pods(
    cluster: Cluster, repositories: Mapping[str, Files], xet: XetFront | None
) -> Iterator[HubServer]:
    """A Hub with these repositories, whose large files are in a store as well, if there is one."""
    with ExitStack() as stack:
        with cluster.network():
            hub = stack.enter_context(HubServer(hosts=(HUB, CDN), xet=xet))
            for name, files in repositories.items():
                hub.add_repo(name, files)
        yield hub
