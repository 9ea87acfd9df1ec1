"""Runs one command and tells what it took: `python -I -S launch.py REPORT COMMAND ...`.

It is a process of its own because `ru_maxrss` survives `exec`: a child begins with the peak memory
of the process that starts it, and nothing that starts it is smaller than this.
"""

import _thread  # threading would double its size
import json
import os
import sys
import time

SAMPLE_S = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Tree:
    """A process and its descendants, and the most memory that they had at one time.

    That is the sum of their resident sizes, looked at fifty times a second: pages that two of them
    share count twice, and a peak between two looks is missed.
    """

    def __init__(self, root: int) -> None:
        self._members = {root}
        self._strangers: set[int] = set()
        self.peak = 0

    def watch(self) -> None:
        """Looks until this process ends; not where there is no /proc."""
        while os.path.isdir("/proc"):  # noqa: PTH112  # as below
            self.look()
            time.sleep(SAMPLE_S)

    def look(self) -> None:
        """Every process is asked for its parent once, so that a look costs next to nothing."""
        alive = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        self._members &= alive
        self._strangers &= alive
        # A parent is older than its children, and its number nearly always lower.
        for pid in sorted(alive - self._members - self._strangers):
            known = self._members if _parent(pid) in self._members else self._strangers
            known.add(pid)
        self.peak = max(self.peak, sum(map(_resident, self._members)))


def _parent(pid: int) -> int:
    # Behind the name, which may hold anything: the state, and the parent.
    return int(_read(pid, "stat").rpartition(b")")[2].split()[1])


def _resident(pid: int) -> int:
    return int(_read(pid, "statm").split()[1]) * _PAGE


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123  # as below
            return file.read()
    except OSError:  # it has just ended
        return b") 0 0 0"


def main(report: str, command: list[str]) -> None:
    begun = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    tree = Tree(child)
    _thread.start_new_thread(tree.watch, ())
    # The usage of a child holds that of all its descendants which were waited for.
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begun
    largest = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    result = {
        "code": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": max(largest, tree.peak),
    }
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib would double its size
        json.dump(result, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
