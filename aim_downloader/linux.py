"""What only Linux tells about processes; elsewhere the answer is None, and callers do without."""

from __future__ import annotations

import os
import time
from pathlib import Path


def boot_id() -> str | None:
    """A name for this boot of this machine."""
    return _read("/proc/sys/kernel/random/boot_id")


def machine_id() -> str | None:
    """A name for this machine that outlives a boot."""
    return _read("/etc/machine-id") or None


def pid_namespace() -> str | None:
    """A name for the namespace in which this process's pids mean something."""
    try:
        # A magic link: its text is the answer.
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return None


def process_start(pid: int) -> str | None:
    """When a process was started, in clock ticks since boot; None when there is no such process."""
    stat = _read(f"/proc/{pid}/stat")
    # The name in parentheses may hold spaces; field 22 is the 20th behind it (proc(5)).
    return stat.rpartition(")")[2].split()[19] if stat else None


def clock() -> float:
    """Seconds on a clock that never jumps, and goes on while the machine sleeps where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
