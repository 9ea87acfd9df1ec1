"""`tests/setup-servers` builds the store once, whole or not at all, and says what is left out."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "setup-servers"
SERVER = "aim-downloader-tests/xet-client-1.8.0/bin/local_cas_server"

# Stands for cargo, of which a build takes minutes: it notes its process, and builds when told to.
CARGO = """#!/bin/sh
echo $$ >>"$0.began"
while [ ! -e "$0.go" ]; do sleep 0.02; done
while [ "$1" != --root ]; do shift; done
mkdir -p "$2/bin" && echo built >"$2/bin/local_cas_server" && chmod 755 "$2/bin/local_cas_server"
"""
BROKEN = "#!/bin/sh\necho 'error: no space left' >&2\nexit 101\n"


@dataclass(frozen=True)
class Machine:
    """A cache folder, and a PATH with a cargo of ours or with none."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def server(self) -> Path:
        return self.cache / SERVER

    @property
    def cargo(self) -> Path:
        return self.folder / "bin" / "cargo"

    def install_cargo(self, text: str) -> None:
        self.cargo.write_text(text)
        self.cargo.chmod(0o755)

    def let_cargo_build(self) -> None:
        self.cargo.with_name("cargo.go").touch()

    def builds(self) -> list[int]:
        """The process of each cargo that was started."""
        began = self.cargo.with_name("cargo.began")
        return [int(line) for line in began.read_text().split()] if began.exists() else []

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        path = f"{self.cargo.parent}:/usr/bin:/bin"
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
        return list((self.cache / "aim-downloader-tests").glob("building*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    return Machine(tmp_path)


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    said, _ = process.communicate(timeout=20)
    return process.returncode, said.splitlines()


def wait_for_builds(machine: Machine, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(machine.builds()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_server_is_built_once(machine: Machine) -> None:
    machine.install_cargo(CARGO)
    machine.let_cargo_build()
    code, said = machine.run()
    assert (code, len(said)) == (0, 1)
    assert "some minutes" in said[0]
    assert machine.server.read_text() == "built\n"
    assert machine.left_over() == []
    assert machine.run() == (0, [])
    assert len(machine.builds()) == 1


@pytest.mark.parametrize("everywhere", [False, True], ids=["here", "where everything must run"])
@pytest.mark.parametrize(
    ("cargo", "reason"), [(None, "cargo, which is not installed"), (BROKEN, "no space left")]
)
def test_what_is_left_out_is_said_in_one_line(
    machine: Machine, cargo: str | None, reason: str, *, everywhere: bool
) -> None:
    if cargo:
        machine.install_cargo(cargo)
    code, said = machine.run(**({"CI": "true"} if everywhere else {}))
    assert code == (1 if everywhere else 0)
    assert "tests that use the Xet store are left out" in said[-1]
    assert reason in said[-1]
    assert machine.left_over() == []


def test_an_interrupted_build_is_begun_anew(machine: Machine) -> None:
    machine.install_cargo(CARGO)
    interrupted = machine.start()
    wait_for_builds(machine, 1)
    interrupted.terminate()
    assert ended(interrupted)[0] == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(machine.builds()[0], 0)
    assert not machine.server.exists()
    assert machine.left_over() == []
    machine.let_cargo_build()
    assert machine.run()[0] == 0
    assert machine.server.exists()


def test_two_at_once_do_no_harm(machine: Machine) -> None:
    machine.install_cargo(CARGO)
    both = [machine.start(), machine.start()]
    wait_for_builds(machine, 2)
    machine.let_cargo_build()
    assert [ended(each)[0] for each in both] == [0, 0]
    assert machine.server.read_text() == "built\n"
    assert machine.left_over() == []
