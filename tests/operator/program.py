"""The operator as a program of its own: `python -m operator_shim`, and what it says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.cluster.client import Namespace

T = TypeVar("T")

WAIT_S = 120.0
ROOT = Path(__file__).parents[2]


class Program:
    """`with Program(kubeconfig, folder, flag, …) as program:`; it is killed at the end."""

    def __init__(self, kubeconfig: Path, folder: Path, *flags: str, module: str = "") -> None:
        self._log = folder / f"operator-{time.time_ns()}.log"
        self._command = [sys.executable, "-m", module or "operator_shim", *flags]
        self._environ = {
            **{name: value for name, value in os.environ.items() if "PROXY" not in name.upper()},
            "KUBECONFIG": str(kubeconfig),
            "AIM_OPERATOR_HEALTH_PORT": "0",
            "AIM_OPERATOR_LOG_FORMAT": "json",
            "AIM_OPERATOR_LOG_LEVEL": "debug",
        }

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environ, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    # -- what it says --------------------------------------------------------------------------

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log so far."""
        # The last one may be half written.
        whole = [each for each in self.text().splitlines() if each[:1] + each[-1:] == "{}"]
        return [json.loads(line) for line in whole]

    def said(self, text: str, level: str = "") -> list[dict[str, Any]]:
        """The lines with this text in them."""
        return [
            line
            for line in self.lines()
            if text in line["message"] and level in ("", line["level"])
        ]

    def troubles(self, since: int = 0) -> list[dict[str, Any]]:
        """Warnings and errors, after so many lines, but those that are Events, too.

        What becomes of a model is told by an Event, and in a line that begins with its reason.
        """
        told = [line for line in self.lines()[since:] if line["level"] in ("warning", "error")]
        return [line for line in told if not re.match(r"[A-Z]\w+: ", line["message"])]

    def passes(self, key: str, since: int = 0) -> int:
        """How many passes over this object have begun, after so many lines."""
        begun = [line for line in self.lines()[since:] if line["message"] == "a pass begins"]
        return len([line for line in begun if line["object"] == key])

    def mark(self) -> int:
        """How many lines there are now."""
        return len(self.lines())

    def text(self) -> str:
        return self._log.read_text("utf-8")

    # -- waiting -------------------------------------------------------------------------------

    def wait_for(self, look: Callable[[], T], timeout: float = WAIT_S, what: str = "") -> T:
        deadline = time.monotonic() + timeout
        while not (seen := look()):
            assert self.process.poll() is None, f"it ended: {self.text()}"
            assert time.monotonic() < deadline, f"still not: {what}\n{self.text()}"
            time.sleep(0.05)
        return seen

    def wait_for_pass(self, key: str, since: int = 0) -> None:
        self.wait_for(lambda: self.passes(key, since), what=f"a pass over {key}")

    def wait_until_ready(self) -> None:
        self.wait_for(lambda: self.probe("/readyz")[0] == 200, what="ready")

    def wait_until_it_watches(self) -> None:
        """Until each kind that is watched is listed, so that changes are events from now on."""
        watched = ("aimartifacts", "persistentvolumeclaims", "jobs", "pods")
        self.wait_for(
            lambda: all(self.said(f"Starting the watch-stream for {each}") for each in watched),
            what="watches",
        )

    # -- probes and signals --------------------------------------------------------------------

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text; status 0 while nobody answers."""
        port = re.search(r"probes are answered on port (\d+)", self.text())
        if not port:
            return 0, ""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port[1]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def end_by(self, number: signal.Signals, timeout: float = 60.0) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def looking_after(
    spaces: Sequence[Namespace], kinds: str, folder: Path, *flags: str
) -> Iterator[Program]:
    """The operator for these namespaces and kinds, once it is ready."""
    names = ",".join(each.name for each in spaces)
    kubeconfig = spaces[0].cluster.kubeconfig
    which = ("--kinds", kinds, "--namespaces", names)
    with Program(kubeconfig, folder, *which, *flags) as program:
        program.wait_until_ready()
        yield program


def once(*words: str, environ: Sequence[tuple[str, str]] = ()) -> subprocess.CompletedProcess[str]:
    """A call that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "operator_shim", *words],
        cwd=ROOT,
        env={**os.environ, **dict(environ)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
