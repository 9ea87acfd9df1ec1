"""A cluster ends with those who use it, and leaves nothing on the machine, however they end."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.cluster.client import cluster_of
from tests.cluster.fixtures import existing_cluster, leave_out
from tests.cluster.programs import trouble
from tests.cluster.sharing import PROJECT, shared

SOON_S = 60.0

# Each of them makes clusters of its own.
pytestmark = pytest.mark.timeout(400)

# Somebody who shares a cluster, until it is killed.
USER = """
import sys, time
from pathlib import Path
from tests.cluster.sharing import shared
with shared(Path(sys.argv[1])) as share:
    print(share.cluster().kubeconfig, flush=True)
    time.sleep(1000)
"""


@dataclass(frozen=True)
class Started:
    """A process of ours, and the cluster that it told of."""

    process: "subprocess.Popen[str]"
    cluster: Cluster

    @property
    def traces(self) -> list[str]:
        """What is on the machine of the cluster."""
        folder, name = self.cluster.kubeconfig.parent, self.cluster.kubeconfig.parent.name
        groups = [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]
        mounts = [line for line in read("/proc/self/mountinfo").splitlines() if name in line]
        loops = [
            str(file)
            for file in Path("/sys/block").glob("loop*/loop/backing_file")
            if name in read(file)
        ]
        folders = [str(folder)] if folder.exists() else []
        return [*folders, *map(str, groups), *mounts, *loops, *processes(name)]


def processes(name: str) -> list[str]:
    """The processes of a cluster: those that know its folder."""
    lines = [f"{read(each)} in {each}" for each in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in lines if name in line]


def read(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:  # gone meanwhile
        return ""


Start = Callable[..., Started]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python with these arguments, and waits until it has told where its cluster is."""
    leave_out(trouble(node=True))
    begun = []

    def begin(*arguments: str) -> Started:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        )
        begun.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"(/\S+/kubeconfig)$", line):
                cluster = cluster_of(Path(found[1]))
                assert cluster is not None
                return Started(process, cluster)
        raise AssertionError("it ended without a cluster")

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def wait_until_nothing_is_left(started: Started) -> None:
    deadline = time.monotonic() + SOON_S
    while started.traces:
        assert time.monotonic() < deadline, started.traces
        time.sleep(0.1)


def run_a_pod(cluster: Cluster) -> None:
    """A pod on a small volume, which are still there when the cluster ends."""
    with cluster.namespace() as namespace:
        namespace.claim("data", "8Mi", small=True)
        namespace.volume("data")


def test_it_ends_when_its_last_user_is_killed(start: Start, tmp_path: Path) -> None:
    users = [start("-c", USER, str(tmp_path / "meeting")) for _ in range(2)]
    assert users[0].cluster == users[1].cluster
    users[0].process.kill()
    time.sleep(1)
    run_a_pod(users[1].cluster)
    assert any("kubelet" in each for each in users[1].traces)
    users[1].process.kill()
    wait_until_nothing_is_left(users[1])


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_when_it_is_told_to(
    control_plane: Cluster, start: Start, end: signal.Signals
) -> None:
    started = start("-m", "tests.cluster", "--no-node")
    # Two do not meet.
    with started.cluster.namespace() as namespace:
        names = [each["metadata"]["name"] for each in control_plane.listed("namespaces")]
        assert namespace.name not in names
    started.process.send_signal(end)
    assert started.process.wait(SOON_S) == (-end if end == signal.SIGKILL else 0)
    wait_until_nothing_is_left(started)


def test_who_comes_late_gets_another(tmp_path: Path) -> None:
    leave_out(trouble(node=False))
    for _ in range(2):
        with shared(tmp_path / "meeting") as share:
            left = share.control_plane()
            left.listed("namespaces")
        deadline = time.monotonic() + SOON_S
        while left.kubeconfig.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_cluster_of_others_is_used_only_when_tests_may(tmp_path: Path) -> None:
    named = {"KUBECONFIG": str(tmp_path / "config")}
    assert existing_cluster({}) is None
    assert existing_cluster(named) is None
    allowed = named | {"AIM_TESTS_USE_EXISTING_CLUSTER": "true"}
    assert existing_cluster(allowed) == Cluster(tmp_path / "config")


def test_a_cluster_of_ours_is_used(control_plane: Cluster) -> None:
    found = existing_cluster({"KUBECONFIG": str(control_plane.kubeconfig)})
    assert found is not None
    assert (found.pid, found.kubeconfig) == (control_plane.pid, control_plane.kubeconfig)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    leave_out(trouble(node=False))
    said = trouble(node=False, environ={"KUBEBUILDER_ASSETS": str(tmp_path)})
    assert said is not None
    assert "lacks etcd, kube-apiserver, kubectl" in said
