"""One run of one command: wall clock, CPU, peak memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")
PATIENCE_S = 600.0


class BenchError(Exception):
    """A run did not do what it was measured for."""


@dataclass(frozen=True)
class Sample:
    """What one run took. `peak` is in bytes: the most that all its processes had at one time."""

    wall: float
    cpu: float
    peak: int
    sent: int | None = None
    """Bytes of content that left the origin."""
    check: float | None = None
    """Seconds that verifying the files took afterwards."""
    sync: float | None = None
    """Seconds that it took afterwards until everything was on the disk."""


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Sample:
    """Runs a command to its end.

    Raises:
        BenchError: it failed, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="bench-run-") as folder:
        report, words = Path(folder, "report"), Path(folder, "words")
        launcher = [sys.executable, "-I", "-S", str(LAUNCH), str(report), *command]
        with words.open("wb") as output:
            process = subprocess.Popen(
                launcher,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            _wait(process, command)
        told = words.read_text("utf-8", "replace")[-2000:]
        if not report.exists():
            raise BenchError(f"{_shown(command)} could not be started:\n{told}")
        result = json.loads(report.read_text("utf-8"))
        if result["code"] != 0:
            raise BenchError(f"{_shown(command)} ended with {result['code']}:\n{told}")
        return Sample(result["wall"], result["cpu"], result["peak"])


def _wait(process: "subprocess.Popen[bytes]", command: Sequence[str]) -> None:
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        end_group(process)
        raise BenchError(f"{_shown(command)} takes longer than {PATIENCE_S:.0f} s") from None
    except BaseException:
        end_group(process)
        raise


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process that leads a session of its own, and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)[:200]
