"""The tests' clock for what must not take long."""

import signal
import subprocess
import sys
import time
from pathlib import Path

MEASURES = """
import time
from tests.fair_time import fair_time
begun = fair_time(), time.monotonic()
input("ready\\n")
print(fair_time() - begun[0], time.monotonic() - begun[1])
"""


def test_it_goes_on_and_stands_still_while_we_are_held_up() -> None:
    root = Path(__file__).parents[2]
    command, pipe = [sys.executable, "-c", MEASURES], subprocess.PIPE
    with subprocess.Popen(command, cwd=root, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        fair, whole = map(float, process.communicate("\n")[0].split())
    assert whole > 1.5
    assert 0 < fair < whole - 0.9
