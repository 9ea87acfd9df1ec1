"""Who is measured: each one makes a command out of a task."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aim_downloader.demo.repository import lfs_by_suffix
from bench.content import File, Model
from bench.origin import PROJECT, Hub, why_no_xet

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
        """Where clients that know no Hub find a file: large ones at the CDN."""
        if lfs_by_suffix(file.path):
            return f"{self.hub.cdn}/{file.sha256}"
        return f"{self.hub.endpoint}/{self.model.id}/resolve/main/{file.path}"


class Contender:
    name: str
    verifies = False
    """Whether it checks the digest of what it has brought."""

    def lacks(self) -> str | None:
        """What is missing to run it."""
        return None

    def command(self, task: Task) -> list[str]:
        raise NotImplementedError

    def settings(self) -> Mapping[str, str]:
        """What it is told by its environment."""
        return {}

    def check(self, task: Task) -> list[str] | None:  # noqa: ARG002  # others do use it
        """Its own command that verifies afterwards; None if it has none."""
        return None


class Ours(Contender):
    """The command line, as a user has it: every byte verified."""

    verifies = True

    def __init__(self, protocol: str | None = None) -> None:
        self._protocol = protocol
        self.name = f"aim_downloader ({protocol})" if protocol else "aim_downloader"

    def lacks(self) -> str | None:
        return why_no_xet() if self._protocol == "XET" else None

    def command(self, task: Task) -> list[str]:
        uri = f"hf://{task.model.id}" + (f"@{task.commit}" if task.commit else "")
        pinned = ["--protocol", self._protocol] if self._protocol else []
        return [sys.executable, "-m", "aim_downloader", uri, str(task.target), "-q", *pinned]


class OursUnverified(Contender):
    """Our lane alone, without hash, journal and receipt: what the bytes cost by themselves."""

    name = "aim_downloader, bytes only"

    def command(self, task: Task) -> list[str]:
        return [sys.executable, "-m", "bench.bytes_only", *_pairs(task)]


class HfDownload(Contender):
    """`hf download`: eight files at once, over Xet or with one stream for each."""

    def __init__(self, way: str | None = None) -> None:
        self._xet = way == "Xet"
        self.name = f"hf download ({way})" if way else "hf download"

    def lacks(self) -> str | None:
        if not HF.exists():
            return "hf is not installed"
        return why_no_xet() if self._xet else None

    def command(self, task: Task) -> list[str]:
        pinned = ["--revision", task.commit] if task.commit else []
        words = ["download", task.model.id, *pinned, "--local-dir", str(task.target), "--quiet"]
        return [str(HF), *words]

    def settings(self) -> Mapping[str, str]:
        return {} if self._xet else {"HF_HUB_DISABLE_XET": "1"}

    def check(self, task: Task) -> list[str] | None:
        words = ["cache", "verify", task.model.id, "--local-dir", str(task.target)]
        return [str(HF), *words, "--fail-on-missing-files", "--quiet"]


class HfTransfer(Contender):
    """hf_transfer, file after file: it knows only one at a time."""

    name = "hf_transfer"

    def lacks(self) -> str | None:
        found = importlib.util.find_spec("hf_transfer")
        return None if found else "hf_transfer is not installed"

    def command(self, task: Task) -> list[str]:
        return [sys.executable, "-c", _HF_TRANSFER, *_pairs(task)]


_HF_TRANSFER = """
import os, sys, hf_transfer
for url, path in zip(sys.argv[1::2], sys.argv[2::2]):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    hf_transfer.download(url, path, max_files=8, chunk_size=10 * 1024 * 1024)
"""


class Curl(Contender):
    """Curl -Z: up to 50 files at once, one connection each."""

    name = "curl -Z"

    def lacks(self) -> str | None:
        return None if shutil.which("curl") else "curl is not installed"

    def command(self, task: Task) -> list[str]:
        words = ["curl", "-q", "-Z", "--location", "--fail", "--silent", "--show-error"]
        words.append("--create-dirs")
        for file in task.model.files:
            words += ["--output", str(task.target / file.path), task.url(file)]
        return words


class Aria2(Contender):
    """aria2c with 16 connections per file, 4 files at once."""

    name = "aria2c"

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
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "PYTHONPATH": str(PROJECT),
    }
