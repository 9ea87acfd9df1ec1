"""On what was measured, and which versions of what."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

from aim_downloader._version import __version__
from bench.origin import NGINX

_NUMBER = re.compile(r"\d+(?:\.\d+)+")


def machine() -> str:
    """CPU model, cores, memory and kernel."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kernel = _NUMBER.match(platform.release())
    cores = len(os.sched_getaffinity(0))
    system = f"{platform.system()} {kernel[0] if kernel else ''}".strip()
    return f"{_cpu()}, {cores} cores, {memory:.0f} GiB of memory, {system}"


def versions() -> dict[str, str]:
    """Of ours, of the peers and of the server; what is not installed is left out."""
    found = {"aim_downloader": __version__, "Python": platform.python_version()}
    for name in ("huggingface_hub", "hf_xet", "hf_transfer"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commands = {"curl": ["curl", "--version"], "aria2c": ["aria2c", "--version"]}
    if NGINX:
        commands["nginx"] = [NGINX, "-v"]
    for name, command in commands.items():
        if version := _version_of(command):
            found[name] = version
    return found


def _version_of(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    number = _NUMBER.search(done.stdout + done.stderr)
    return number[0] if number else None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
