"""Runs one command and tells what it took: `python -I -S launch.py REPORT COMMAND ...`.

It is a process of its own because `ru_maxrss` survives `exec`: a child begins with the peak memory
of the process that starts it, and nothing that starts it is smaller than this.
"""

import json
import os
import sys
import time


def main(report: str, command: list[str]) -> None:
    begun = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    # The usage of a child holds that of all its descendants which were waited for.
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begun
    result = {
        "code": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib would double its size
        json.dump(result, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
