"""Who is measured: each one makes a command out of a task."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.content import File, Model
from bench.origin import PROJECT, Hub

BIN = Path(sys.executable).parent
HF = BIN / "hf"


@dataclass(frozen=True)
class Task:
    """One download: all files of `model` into `target`. `scratch` is for notes and caches."""

    model: Model
    hub: Hub
    target: Path
    scratch: Path
    commit: str | None = None

    def url(self, file: File) -> str:
        """Where the CDN has a large file."""
        return f"{self.hub.cdn}/{file.sha256}"


class Contender(Protocol):
    name: str
    verifies: bool
    """Whether it checks the digest of what it has brought."""

    def lacks(self) -> str | None:
        """What is missing to run it."""
        ...

    def command(self, task: Task) -> list[str]: ...


class Ours:
    """The command line, as a user has it: every byte verified."""

    name = "aim_downloader"
    verifies = True

    def lacks(self) -> str | None:
        return None

    def command(self, task: Task) -> list[str]:
        uri = f"hf://{task.model.id}" + (f"@{task.commit}" if task.commit else "")
        return [sys.executable, "-m", "aim_downloader", uri, str(task.target), "-q"]


class OursUnverified:
    """Our lane alone, without hash, journal and receipt: what the bytes cost by themselves."""

    name = "aim_downloader, bytes only"
    verifies = False

    def lacks(self) -> str | None:
        return None

    def command(self, task: Task) -> list[str]:
        return [sys.executable, "-m", "bench.bytes_only", *_pairs(task)]


class HfDownload:
    """`hf download` over plain HTTP: one stream per file, eight files at once."""

    name = "hf download"
    verifies = False

    def lacks(self) -> str | None:
        return None if HF.exists() else "hf is not installed"

    def command(self, task: Task) -> list[str]:
        pinned = ["--revision", task.commit] if task.commit else []
        words = ["download", task.model.id, *pinned, "--local-dir", str(task.target), "--quiet"]
        return [str(HF), *words]


class HfTransfer:
    """hf_transfer, file after file: it knows only one at a time."""

    name = "hf_transfer"
    verifies = False

    def lacks(self) -> str | None:
        found = importlib.util.find_spec("hf_transfer")
        return None if found else "hf_transfer is not installed"

    def command(self, task: Task) -> list[str]:
        return [sys.executable, "-c", _HF_TRANSFER, *_pairs(task)]


_HF_TRANSFER = """
import sys, hf_transfer
for url, path in zip(sys.argv[1::2], sys.argv[2::2]):
    hf_transfer.download(url, path, max_files=8, chunk_size=10 * 1024 * 1024)
"""


class Curl:
    """Curl -Z: all files at once, one connection each."""

    name = "curl -Z"
    verifies = False

    def lacks(self) -> str | None:
        return None if shutil.which("curl") else "curl is not installed"

    def command(self, task: Task) -> list[str]:
        words = ["curl", "-q", "-Z", "--fail", "--silent", "--show-error"]
        for file in task.model.files:
            words += ["--output", str(task.target / file.path), task.url(file)]
        return words


class Aria2:
    """aria2c with 16 connections per file, 4 files at once."""

    name = "aria2c"
    verifies = False

    def lacks(self) -> str | None:
        return None if shutil.which("aria2c") else "aria2c is not installed"

    def command(self, task: Task) -> list[str]:
        files = task.scratch / "aria2.txt"
        lines = [f"{task.url(file)}\n  out={file.path}\n" for file in task.model.files]
        files.write_text("".join(lines))
        words = ["aria2c", "--no-conf", "-x16", "-s16", "-k1M", "-j4", "--quiet"]
        return [*words, "--file-allocation=none", f"--input-file={files}", f"--dir={task.target}"]


def _pairs(task: Task) -> list[str]:
    words = []
    for file in task.model.files:
        words += [task.url(file), str(task.target / file.path)]
    return words


def environment(task: Task) -> Mapping[str, str]:
    """What all contenders are given: the Hub, no proxy, and no traces of the user who measures."""
    kept = {"LANG", "LC_ALL", "PATH", "TMPDIR"}
    return {
        **{name: value for name, value in os.environ.items() if name in kept},
        "HOME": str(task.scratch),
        "HF_HOME": str(task.scratch / "hf"),
        "HF_ENDPOINT": task.hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "PYTHONPATH": str(PROJECT),
    }
