"""What the kernel holds in memory for tests and benchmarks: pages of a file, and cgroups."""

import contextlib
import ctypes
import mmap
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aim_downloader.linux import memory_groups

_RELEASE_S = 20.0


# --- the page cache -------------------------------------------------------------------------------


def cached_bytes(path: Path) -> int:
    """Bytes of a file that are in the page cache."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        path.open("rb") as opened,
        mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_COPY) as mapped,
    ):
        # Only a writable view tells its address, and it must be gone before the mapping is closed.
        first = ctypes.c_ubyte.from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), size, pages)
        del first
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return mmap.PAGESIZE * sum(page & 1 for page in pages)


def why_no_cache(folder: Path) -> str | None:
    """Why nothing can be said of the cached pages of files in a folder; None when it can."""
    if not hasattr(os, "posix_fadvise"):
        return "this system does not let go of cached pages"
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True
    ).stdout.strip()
    return f"{folder} is in memory ({kind}), not on a disk" if kind in {"tmpfs", "ramfs"} else None


# --- cgroups --------------------------------------------------------------------------------------


class NoGroupError(Exception):
    """No memory cgroup of this version can be made here; its words say why."""


@dataclass(frozen=True)
class MemoryGroup:
    """A cgroup with a limit of memory, the page cache included."""

    folder: Path
    version: int

    def command(self, command: Sequence[str]) -> list[str]:
        """The words that start a command inside."""
        enter = f'echo $$ > "{self.folder}/cgroup.procs" && exec "$@"'
        return ["sh", "-c", enter, "sh", *command]

    @property
    def peak(self) -> int:
        """The most bytes it ever had."""
        return int(self._read({1: "memory.max_usage_in_bytes", 2: "memory.peak"}[self.version]))

    @property
    def refusals(self) -> int:
        """How often the limit was reached, and something had to go first."""
        return int(self._read("memory.failcnt")) if self.version == 1 else self._event("max")

    @property
    def kills(self) -> int:
        """How many processes were killed for want of memory."""
        return self._event("oom_kill")

    def _event(self, name: str) -> int:
        text = self._read({1: "memory.oom_control", 2: "memory.events"}[self.version])
        found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
        assert found, text
        return int(found[1])

    def _read(self, name: str) -> str:
        return (self.folder / name).read_text()


@contextlib.contextmanager
def memory_group(limit: int, version: int) -> Iterator[MemoryGroup]:
    """A new cgroup that allows so many bytes; its processes must have ended at the end.

    Raises:
        NoGroupError: it cannot be made here.
    """
    folder = _parent(version) / f"aim-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        raise NoGroupError(f"no cgroup can be made here: {error}") from error
    try:
        group = MemoryGroup(folder, version)
        _set_limit(group, limit)
        yield group
    finally:
        _remove(folder)


def _set_limit(group: MemoryGroup, limit: int) -> None:
    """Limit what it has in memory; what it may swap out does not help it."""
    name, swap = {
        1: ("memory.limit_in_bytes", "memory.swappiness"),
        2: ("memory.max", "memory.swap.max"),
    }[group.version]
    try:
        (group.folder / name).write_text(str(limit))
        if (group.folder / swap).exists():
            (group.folder / swap).write_text("0")
        _ = group.peak, group.refusals, group.kills
        subprocess.run(group.command(["true"]), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoGroupError(f"cgroups do not do here what is needed: {error}") from error


def _parent(version: int) -> Path:
    """The group to make one in: our own, or in version 2 the next above that hands memory on."""
    try:
        texts = [Path(f"/proc/self/{name}").read_text() for name in ("cgroup", "mountinfo")]
    except OSError as error:
        raise NoGroupError(f"no cgroups: {error}") from error
    for point, own in memory_groups(*texts):
        folder = Path(own)
        if version == 1 and (folder / "memory.limit_in_bytes").exists():
            return folder
        for above in (folder, *folder.parents) if folder.is_relative_to(point) else ():
            control = above / "cgroup.subtree_control"
            if version == 2 and control.exists() and "memory" in control.read_text().split():
                return above
    raise NoGroupError(f"cgroups of version {version} do not limit memory here")


def _remove(folder: Path) -> None:
    # A process that has ended leaves its group a moment later.
    deadline = time.monotonic() + _RELEASE_S
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
