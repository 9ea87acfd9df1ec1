"""One process that owns a cluster, and ends it: on Ctrl-C, or when nobody uses it any more.

Those who share a cluster meet in a folder. Each holds a shared lock on the file `users`, which the
kernel frees also when its holder is killed. `place` says where the cluster's kubeconfig is,
`failed` why there is none, and `node.wanted` asks for a node.
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.cluster.control_plane import ControlPlane
from tests.cluster.enclosure import Enclosure
from tests.cluster.node import Node
from tests.cluster.volumes import Provisioner

POLL_S = 0.1

USERS = "users"
STARTED = "started"
PLACE = "place"
FAILED = "failed"
NODE_WANTED = "node.wanted"


class Supervised:
    """A cluster that is up; a node may come later."""

    def __init__(self, enclosure: Enclosure, stack: ExitStack) -> None:
        self._enclosure = enclosure
        self._stack = stack
        self._control_plane = ControlPlane(enclosure)
        self._control_plane.start()
        self.has_node = False
        self._tell()

    @property
    def kubeconfig(self) -> Path:
        return self._control_plane.kubeconfig

    @property
    def pid(self) -> int:
        return self._enclosure.pid

    def start_node(self) -> None:
        Node(self._enclosure, self._control_plane).start()
        self._stack.enter_context(Provisioner(self._enclosure, self._control_plane))
        self.has_node = True
        self._tell()

    def _tell(self) -> None:
        state = {"pid": self.pid, "node": self.has_node}
        replace(self.kubeconfig.with_name("state.json"), json.dumps(state))


@contextmanager
def supervised() -> Iterator[Supervised]:
    with ExitStack() as stack:
        yield Supervised(stack.enter_context(Enclosure()), stack)


def serve(meeting: Path) -> None:
    """Owns a cluster for those who meet in a folder, as long as there are any."""
    with (meeting / USERS).open("ab") as users:
        try:
            with supervised() as cluster:
                replace(meeting / PLACE, str(cluster.kubeconfig))
                while not left_by_all(users):
                    if not cluster.has_node and (meeting / NODE_WANTED).exists():
                        cluster.start_node()
                    time.sleep(POLL_S)
        except BaseException as error:
            replace(meeting / FAILED, f"{type(error).__name__}: {error}")
            raise
        # Who comes now waits for the lock that we hold, and then starts another.
        for name in (PLACE, NODE_WANTED, STARTED):
            (meeting / name).unlink(missing_ok=True)


def left_by_all(users: IO[bytes]) -> bool:
    """Whether nobody shares the cluster; from then on nobody can, until the file is closed."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace(path: Path, text: str) -> None:
    """Writes a file in one step: nobody reads half of it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
