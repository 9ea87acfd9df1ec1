"""Prometheus in tests: the server that scrapes, and promtool, which judges rules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

PROMTOOL_S = 60.0
_START_S = 60.0


def need_prometheus() -> None:
    """Skips the test without Prometheus, which is a failure where everything must run."""
    if shutil.which("prometheus") and shutil.which("promtool"):
        return
    trouble = (
        "tests of the alerts are left out: Prometheus is missing; tests/setup-system brings it"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(trouble)
    pytest.skip(trouble)


def promtool(*arguments: str | Path, input: str = "") -> tuple[bool, str]:  # noqa: A002
    """Whether it has no complaints, and what it says."""
    need_prometheus()
    done = subprocess.run(
        ["promtool", *arguments],
        input=input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=PROMTOOL_S,
    )
    return done.returncode == 0, done.stdout


class Prometheus:
    """`with Prometheus(folder, config) as prometheus:`; it listens on a port of its own."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        self._config = config

    def __enter__(self) -> Self:
        need_prometheus()
        # JSON is YAML, too.
        (self._folder / "config.yaml").write_text(json.dumps(self._config), "utf-8")
        command = ["prometheus", "--config.file=config.yaml", "--storage.tsdb.path=data"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--web.listen-address=127.0.0.1:0"],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers: the field ``data``."""
        url = f"http://127.0.0.1:{self._port()}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=PROMTOOL_S) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        """Of what a query finds now."""
        return [float(each["value"][1]) for each in self.ask("query", query=query)["result"]]

    def _port(self) -> str:
        deadline = time.monotonic() + _START_S
        while True:
            log = (self._folder / "log").read_text("utf-8")
            found = re.search(r'"Listening on".* address=127\.0\.0\.1:(\d+)', log)
            if found and "Server is ready" in log:
                return found[1]
            assert self._process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
