"""`tests/setup-servers` builds each server once, whole or not at all, and says what is left out."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.manifests import HELM_VERSION
from tests.cluster.programs import built

SCRIPT = Path(__file__).parents[1] / "setup-servers"
FOLDER = "aim-downloader-tests"

# Stand for cargo and go, of which a build takes minutes: they note their process, and build when
# told to.
WAITS = """#!/bin/sh
echo $$ >>"$0.began"
while [ ! -e "$0.go" ]; do sleep 0.02; done
"""
CARGO = """
while [ "$1" != --root ]; do shift; done
mkdir -p "$2/bin" && echo built >"$2/bin/local_cas_server" && chmod 755 "$2/bin/local_cas_server"
"""
GO = """
if [ "$1" = install ]; then
    mkdir -p "$GOBIN" && echo built >"$GOBIN/helm" && chmod 755 "$GOBIN/helm" && exit
fi
while [ "$1" != -o ]; do shift; done
echo built >"$2/cluster" && echo built >"$2/pause" && chmod 755 "$2/cluster" "$2/pause"
"""
ROOT = "#!/bin/sh\necho 0\n"
SOMEBODY = "#!/bin/sh\necho 1000\n"
BROKEN = "#!/bin/sh\necho 'error: no space left' >&2\nexit 101\n"


@dataclass(frozen=True)
class Server:
    """What is built, by which tool, and how it is called in what is said."""

    tool: str
    building: str
    title: str
    place: str
    program: str


STORE = Server("cargo", CARGO, "the Xet store", "xet-client-1.8.0", "local_cas_server")
KUBERNETES = Server("go", GO, "Kubernetes", built().parent.name, "kube-apiserver")
HELM = Server("go", GO, "Helm", f"helm-{HELM_VERSION}", "helm")
SERVERS = {"store": STORE, "Kubernetes": KUBERNETES, "Helm": HELM}


@dataclass(frozen=True)
class Machine:
    """A cache folder in which all but one server is built, and a PATH with tools of ours."""

    folder: Path
    server: Server

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def program(self) -> Path:
        return self.cache / FOLDER / self.server.place / "bin" / self.server.program

    @property
    def tool(self) -> Path:
        return self.folder / "bin" / self.server.tool

    def install(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def install_tool(self) -> None:
        self.install(self.server.tool, WAITS + self.server.building)

    def let_it_build(self) -> None:
        self.tool.with_name(f"{self.server.tool}.go").touch()

    def builds(self) -> list[int]:
        """The process of each build that was started."""
        began = self.tool.with_name(f"{self.server.tool}.began")
        return [int(line) for line in began.read_text().split()] if began.exists() else []

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        path = f"{self.tool.parent}:/usr/bin:/bin"
        return subprocess.Popen(
            ["sh", SCRIPT],
            env={"PATH": path, "XDG_CACHE_HOME": str(self.cache), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **environment: str) -> tuple[int, list[str]]:
        return ended(self.start(**environment))

    def left_over(self) -> list[Path]:
        return list((self.cache / FOLDER).glob("building*"))


@pytest.fixture(params=SERVERS.values(), ids=list(SERVERS))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    machine = Machine(tmp_path, request.param)
    machine.install("id", ROOT)
    for other in SERVERS.values():
        if other is not request.param:
            (machine.cache / FOLDER / other.place / "bin").mkdir(parents=True)
    return machine


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    said, _ = process.communicate(timeout=100)
    return process.returncode, said.splitlines()


def wait_for_builds(machine: Machine, count: int) -> None:
    deadline = time.monotonic() + 100
    while len(machine.builds()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_is_built_once(machine: Machine) -> None:
    machine.install_tool()
    machine.let_it_build()
    code, said = machine.run()
    assert (code, len(said)) == (0, 1)
    assert f"building {machine.server.title}" in said[0]
    assert "some minutes" in said[0]
    assert machine.program.read_text() == "built\n"
    assert machine.left_over() == []
    assert machine.run() == (0, [])
    assert len(machine.builds()) == 1


@pytest.mark.parametrize("everywhere", [False, True], ids=["here", "where everything must run"])
@pytest.mark.parametrize(
    ("tool", "reason"), [(None, "{tool}, which is not installed"), (BROKEN, "no space left")]
)
def test_what_is_left_out_is_said_in_one_line(
    machine: Machine, tool: str | None, reason: str, *, everywhere: bool
) -> None:
    if tool:
        machine.install(machine.server.tool, tool)
    code, said = machine.run(**({"CI": "true"} if everywhere else {}))
    assert code == (1 if everywhere else 0)
    assert f"tests that use {machine.server.title} are left out" in said[-1]
    assert reason.format(tool=machine.server.tool) in said[-1]
    assert machine.left_over() == []


@pytest.mark.parametrize("machine", [KUBERNETES], indirect=True)
def test_what_only_root_can_start_is_built_by_root_alone(machine: Machine) -> None:
    machine.install("id", SOMEBODY)
    machine.install_tool()
    [said] = machine.run()[1]
    assert "only root can start it" in said


def test_an_interrupted_build_is_begun_anew(machine: Machine) -> None:
    machine.install_tool()
    interrupted = machine.start()
    wait_for_builds(machine, 1)
    interrupted.terminate()
    assert ended(interrupted)[0] == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(machine.builds()[0], 0)
    assert not machine.program.exists()
    assert machine.left_over() == []
    machine.let_it_build()
    assert machine.run()[0] == 0
    assert machine.program.exists()


def test_two_at_once_do_no_harm(machine: Machine) -> None:
    machine.install_tool()
    both = [machine.start(), machine.start()]
    wait_for_builds(machine, 2)
    machine.let_it_build()
    assert [ended(each)[0] for each in both] == [0, 0]
    assert machine.program.read_text() == "built\n"
    assert machine.left_over() == []


def test_what_one_lacks_does_not_stop_the_other(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    machine = Machine(tmp_path, STORE)
    machine.install("id", ROOT)
    machine.install("go", BROKEN)
    machine.install_tool()
    machine.let_it_build()
    assert machine.run(CI="true")[0] == 1
    assert machine.program.exists()
