"""What only Linux tells and does; elsewhere the answer is None, and callers do without."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# The kernel has no word for "no limit" in version 1: it tells the largest number of pages.
_NO_LIMIT = 1 << 60
_OWN_GROUP = re.compile(r"^\d+:([^:]*):(/.*)$", re.MULTILINE)
_CGROUP_MOUNT = re.compile(r"^\d+ \d+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$", re.MULTILINE)
_HIERARCHICAL_LIMIT = re.compile(r"^hierarchical_memory_limit (\d+)$", re.MULTILINE)
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_PR_SET_PDEATHSIG = 1


def boot_id() -> str | None:
    """A name for this boot of this machine."""
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def machine_id() -> str | None:
    """A name for this machine that outlives a boot."""
    return _read(Path("/etc/machine-id")) or None


def pid_namespace() -> str | None:
    """A name for the namespace in which this process's pids mean something."""
    try:
        # A magic link: its text is the answer.
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return None


def process_start(pid: int) -> str | None:
    """When a process was started, in clock ticks since boot; None when there is no such process."""
    stat = _read(Path(f"/proc/{pid}/stat"))
    # The name in parentheses may hold spaces; field 22 is the 20th behind it (proc(5)).
    return stat.rpartition(")")[2].split()[19] if stat else None


def clock() -> float:
    """Seconds on a clock that never jumps, and goes on while the machine sleeps where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def drop_cached(fd: int, start: int = 0, length: int = 0) -> None:
    """Let go of a file's pages in memory; 0 bytes are all to its end. Dirty ones stay."""
    if hasattr(os, "posix_fadvise"):
        # It is advice: a file system that takes none is as good as one that does.
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory, page cache counted, that the cgroups of this process allow at most.

    None when there is no limit, or nobody tells. ``root`` is where the system begins, for tests.
    """
    limits = [limit for top, group in _groups(root) for limit in _limits(top, group)]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for want of memory, in our cgroup if it tells.

    Where it does not, the whole machine's; None when nobody tells. ``root`` is as above.
    """
    tellers = [
        group / name
        for _, group in _groups(root)
        for name in ("memory.events", "memory.oom_control")
    ]
    for teller in (*tellers, root / "proc/vmstat"):
        found = _OOM_KILLS.search(_read(teller) or "")
        if found:
            return int(found[1])
    return None


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    ``parent`` is the pid that this process was told: it may have ended before now.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def be_killed_first() -> None:
    """Have the kernel take this process before others when memory runs out, if it lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def memory_groups(own: str, mounts: str) -> list[tuple[str, str]]:
    """Where cgroups that may limit memory are mounted, each with the folder of one's own group.

    ``own`` and ``mounts`` are the texts of ``/proc/self/cgroup`` and ``/proc/self/mountinfo``.
    """
    groups = {
        "cgroup" if names else "cgroup2": PurePosixPath(path)
        for names, path in _OWN_GROUP.findall(own)
        if not names or "memory" in names.split(",")
    }
    found = []
    for top, point, kind, options in _CGROUP_MOUNT.findall(mounts):
        if kind in groups and (kind == "cgroup2" or "memory" in options.split(",")):
            group = groups[kind]
            # A container may see its own group as the top, and be told a path that leads elsewhere.
            inside = group.is_relative_to(top) and ".." not in group.parts
            found.append(
                (point, str(PurePosixPath(point) / group.relative_to(top)) if inside else point)
            )
    return found


def _groups(root: Path) -> Iterator[tuple[Path, Path]]:
    """Where cgroups that may limit memory are mounted, and the nearest of ours to be seen there."""
    own, mounts = _read(root / "proc/self/cgroup"), _read(root / "proc/self/mountinfo")
    for point, folder in memory_groups(own or "", mounts or ""):
        top, group = root / point.lstrip("/"), root / folder.lstrip("/")
        yield top, group if group.is_dir() else top


def _limits(top: Path, group: Path) -> Iterator[int]:
    """What a group and those above it allow."""
    # Version 1 counts in those above by itself, even ones that a container does not see.
    yield from map(int, _HIERARCHICAL_LIMIT.findall(_read(group / "memory.stat") or ""))
    for folder in (group, *group.parents):
        for name in ("memory.max", "memory.high"):
            limit = _read(folder / name) or ""
            if limit.isdigit():
                yield int(limit)
        if folder == top:
            return


def _read(path: Path) -> str | None:
    try:
        # A process or a mount point may have a name of any bytes.
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return None
