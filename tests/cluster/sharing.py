"""The users of a cluster: they start its supervisor when there is none, and keep it alive."""

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.client import Cluster, cluster_of
from tests.cluster.supervisor import FAILED, NODE_WANTED, PLACE, POLL_S, STARTED, USERS

PROJECT = Path(__file__).parents[2]
READY_S = 300.0


class Share:
    """Somebody's part in a cluster, which lives until the last share is given back."""

    def __init__(self, meeting: Path) -> None:
        self._meeting = meeting

    def control_plane(self) -> Cluster:
        """The cluster, with or without a node."""
        return self._wait(node=False)

    def cluster(self) -> Cluster:
        """The cluster with its node."""
        (self._meeting / NODE_WANTED).touch()
        return self._wait(node=True)

    def _wait(self, *, node: bool) -> Cluster:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            found = self._look()
            if found and (found.node or not node):
                return found
            failed = self._meeting / FAILED
            if failed.exists():
                raise RuntimeError(f"the cluster did not start: {failed.read_text('utf-8')}")
            time.sleep(POLL_S)
        raise TimeoutError(f"the cluster did not start in {READY_S} s")

    def _look(self) -> Cluster | None:
        try:
            return cluster_of(Path((self._meeting / PLACE).read_text("utf-8")))
        except FileNotFoundError:
            return None


@contextmanager
def shared(meeting: Path) -> Iterator[Share]:
    """A share in the cluster of those who meet in this folder."""
    meeting.mkdir(parents=True, exist_ok=True)
    with (meeting / USERS).open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        _start_once(meeting)
        yield Share(meeting)


def _start_once(meeting: Path) -> None:
    try:
        (meeting / STARTED).touch(exist_ok=False)
    except FileExistsError:
        return
    supervisor = [sys.executable, "-m", "tests.cluster"]
    with (meeting / "supervisor.log").open("wb") as log:
        # By a shell that ends at once: it is nobody's child, and Ctrl-C is for its users alone.
        subprocess.run(
            [
                "sh",
                "-c",
                '"$@" &',
                "sh",
                *supervisor,
                "--meeting",
                meeting,
            ],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=True,
        )
