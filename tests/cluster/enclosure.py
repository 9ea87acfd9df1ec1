"""Namespaces of the kernel in which a cluster lives: its own network, mounts and processes.

Everything that it starts ends, and everything that it mounts is undone, when the first process in
there does; and that ends when its standard input does, so also when whoever holds that is killed.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.cluster.addresses import OURS
from tests.cluster.programs import search_path

STOP_S = 60.0
RUN_S = 120.0

# The first process inside. It tells its number outside, and collects orphans that have ended.
# Folders in which Kubernetes and containerd leave things have others mounted over them: nothing is
# shared with the machine, nor with another cluster. What is in memory needs no disk to be synced.
_FIRST = """
set -e
read -r outside _ </proc/self/stat
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
for place in /var/lib /var/log; do
    mkdir -p "$folder$place"
    mount --bind "$folder$place" "$place"
done
ip link set lo up
for address in $addresses; do
    ip address add "$address/32" dev lo
done
exec 3<&0 </dev/null
cat <&3 >/dev/null &
held=$!
echo "$outside"
while kill -0 "$held" 2>/dev/null; do
    sleep 0.2
done
"""

# Outlives everybody, and leaves nothing behind: neither groups of the kernel nor the folder.
_JANITOR = """
trap '' HUP INT TERM
unshare --net --mount --pid --fork --kill-child sh -c "$first"
for try in 1 2 3 4 5; do
    find /sys/fs/cgroup/$group /sys/fs/cgroup/*/$group -depth -type d -exec rmdir {} + 2>/dev/null
    ls -d /sys/fs/cgroup/$group /sys/fs/cgroup/*/$group >/dev/null 2>&1 || break
    sleep 0.5
done
rm -rf --one-file-system "$folder"
"""


class Enclosure:
    """`with Enclosure() as enclosure:`; its folder, control groups and processes go with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aim-cluster-"))
        # Below it are the control groups of all pods.
        self.group = self.folder.name
        self.pid = 0
        self._janitor: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.folder.chmod(0o755)  # pods run as somebody else, and their volumes are below it
        (self.folder / "logs").mkdir()
        own = {
            "first": _FIRST,
            "folder": str(self.folder),
            "group": self.group,
            "addresses": " ".join(OURS),
        }
        with self.log("janitor").open("wb") as log:
            self._janitor = subprocess.Popen(
                ["sh", "-c", _JANITOR],
                env=_environment(self.folder) | own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for us
                cwd="/",
            )
        told = _pipe(self._janitor.stdout).readline()
        if not told:
            said = self.log("janitor").read_text("utf-8")
            self._stop()
            raise RuntimeError(f"the kernel gives no namespaces for a cluster: {said.strip()}")
        self.pid = int(told)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def start(self, name: str, command: Sequence[str | Path]) -> "subprocess.Popen[bytes]":
        """Starts a server inside, which writes its log."""
        with self.log(name).open("wb") as log:
            return subprocess.Popen(
                [*_enter(self.pid), *command],
                env=_environment(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    def run(self, *command: str | Path) -> str:
        return run_inside(self.pid, *command)

    def _stop(self) -> None:
        if self._janitor is None:
            return
        janitor, self._janitor = self._janitor, None
        _pipe(janitor.stdin).close()
        janitor.wait(STOP_S)
        _pipe(janitor.stdout).close()


def run_inside(pid: int, *command: str | Path) -> str:
    """Runs a program to its end, beside a process inside, and gives what it printed.

    Raises:
        RuntimeError: It failed; what it printed is told.
    """
    done = subprocess.run(
        [*_enter(pid), *command],
        env=_environment(Path("/")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=RUN_S,
        cwd="/",
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout.strip()}")
    return done.stdout


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for those who look for what went wrong."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text("utf-8", errors="replace").splitlines()[-lines:])


def _enter(pid: int) -> list[str]:
    # Not `ip netns exec`, which mounts /sys anew: a kubelet then finds no control groups.
    return ["nsenter", f"--target={pid}", "--net", "--mount", "--pid", "--"]


def _environment(home: Path) -> dict[str, str]:
    # No proxy of this machine, and nothing that this user has set.
    return {"PATH": search_path(), "HOME": str(home), "LANG": "C.UTF-8"}


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
