"""SIGTERM and Ctrl-C end the command within two seconds, whatever it does, and it can go on."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub import HubServer, faults
from tests.integration.support import (
    MIB,
    URI,
    Command,
    Files,
    Finished,
    Running,
    assert_snapshot,
    total_size,
    wait_until,
)

LARGE, GIT = "model.safetensors", "config.json"
WITHIN_S = 2.0
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
PATIENT = {"AIM_DOWNLOADER_STALL_TIMEOUT": "60"}

Start = Callable[[HubServer, Command, Path], Running]


def fetching(hub: HubServer, command: Command, target: Path) -> Running:
    hub.pace(5e6)
    running = command.start(URI, target)
    hub.wait_for_bytes(3 * MIB)
    return running


def fetching_at_full_speed(hub: HubServer, command: Command, target: Path) -> Running:
    hub.pace(100e6)
    running = command.start(URI, target)
    hub.wait_for_bytes(8 * MIB)
    return running


def stalled(hub: HubServer, command: Command, target: Path) -> Running:
    hub.fault(faults.Stall(), path=LARGE, at=2 * MIB + 5, times=None)
    running = command.start(URI, target, **PATIENT)
    hub.wait_for_bytes(2 * MIB, LARGE)
    time.sleep(0.2)
    return running


def stalled_before_the_answer(hub: HubServer, command: Command, target: Path) -> Running:
    late = hub.fault(faults.LateFirstByte(60), path=LARGE, times=None)
    running = command.start(URI, target, **PATIENT)
    wait_until(lambda: late.fired)
    return running


def stalled_small_file(hub: HubServer, command: Command, target: Path) -> Running:
    stall = hub.fault(faults.Stall(after=1), path=GIT, where="hub", at=0, times=None)
    running = command.start(URI, target, **PATIENT)
    wait_until(lambda: stall.fired)
    return running


def stalled_listing(hub: HubServer, command: Command, target: Path) -> Running:
    stall = hub.fault(faults.Stall(after=1), path="/tree/", where="api", times=None)
    running = command.start(URI, target, **PATIENT)
    wait_until(lambda: stall.fired)
    return running


def told_to_come_back_later(hub: HubServer, command: Command, target: Path) -> Running:
    hub.fault(faults.Status(503, retry_after=300), path=LARGE, times=None)
    running = command.start(URI, target)
    running.wait_for_words("Retry")
    return running


def told_to_list_later(hub: HubServer, command: Command, target: Path) -> Running:
    hub.fault(faults.Status(429, retry_after=300), where="api", times=None)
    running = command.start(URI, target)
    running.wait_for_words("Retry")
    return running


def waiting_for_the_lease(hub: HubServer, command: Command, target: Path) -> Running:
    hub.pace(3e6)
    command.start(URI, target)
    hub.wait_for_bytes(1 * MIB)
    running = command.start(URI, target)
    running.wait_for_words("Waiting for another run")
    return running


@pytest.mark.parametrize("number", CODES, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize(
    "start",
    [
        fetching,
        fetching_at_full_speed,
        stalled,
        stalled_before_the_answer,
        stalled_small_file,
        stalled_listing,
        told_to_come_back_later,
        told_to_list_later,
        waiting_for_the_lease,
    ],
    ids=lambda start: start.__name__,
)
def test_a_signal_ends_the_command_and_the_next_run_goes_on(
    hub: HubServer, command: Command, target: Path, files: Files, start: Start, number: int
) -> None:
    done = start(hub, command, target).end_by(number)
    assert_ended_well(done, number)
    hub.clear_faults()
    hub.pace(None)
    again = command.run(URI, target)
    assert again.code == 0, again.said
    assert_snapshot(target, files)
    # What was in flight is fetched again, and no more.
    assert hub.bytes_sent() <= total_size(files) + 16 * 2 * MIB


def assert_ended_well(done: Finished, number: int) -> None:
    assert done.code == CODES[signal.Signals(number)], done.said
    assert done.fair_seconds < WITHIN_S
    assert "Traceback" not in done.stderr, done.said
    assert "error" not in done.stderr.lower(), done.said
    assert "Exception ignored" not in done.stderr, done.said


def test_a_signal_ends_the_command_while_it_reads_what_is_there(
    hub: HubServer, command: Command, roomy: Path
) -> None:
    """The file is there and no record speaks of it, so it is read through: for seconds."""
    origin, target = roomy / "origin", roomy / "target"
    origin.write_bytes(b"")
    os.truncate(origin, 3 * 1024 * MIB)
    hub.add_repo("org/zeros", {LARGE: origin})
    target.mkdir()
    (target / LARGE).write_bytes(b"")
    os.truncate(target / LARGE, 3 * 1024 * MIB)
    running = command.start("hf://org/zeros", target)
    open_files = Path(f"/proc/{running.process.pid}/fd")
    wait_until(lambda: LARGE in names_behind(open_files))
    done = running.end_by(signal.SIGTERM)
    assert_ended_well(done, signal.SIGTERM)
    assert (target / LARGE).stat().st_size == 3 * 1024 * MIB


def names_behind(links: Path) -> set[str]:
    """Where the links of a folder lead; they may be gone before they are looked at."""
    names = set()
    for link in links.iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.add(link.readlink().name)
    return names


def test_a_second_ctrl_c_ends_it_at_once(hub: HubServer, command: Command, target: Path) -> None:
    running = stalled(hub, command, target)
    running.process.send_signal(signal.SIGINT)
    done = running.end_by(signal.SIGINT)
    assert_ended_well(done, signal.SIGINT)


def test_sigterm_at_any_moment_of_a_short_run(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    hub.pace(60e6)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(8):
        running = command.start(URI, target)
        time.sleep(moments.uniform(0.02, 1.0))
        done = running.end_by(signal.SIGTERM)
        # -15: it came before the program could know of it; a shell says 143 to both.
        assert done.code in (143, -signal.SIGTERM, 0), done.said
        assert done.fair_seconds < WITHIN_S
        assert "Traceback" not in done.stderr, done.said
    done = command.run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)


def test_json_tells_that_it_was_cancelled(hub: HubServer, command: Command, target: Path) -> None:
    hub.pace(5e6)
    running = command.start(URI, target, "--json")
    hub.wait_for_bytes(3 * MIB)
    done = running.end_by(signal.SIGTERM)
    assert_ended_well(done, signal.SIGTERM)
    assert '"run.cancelled"' in done.stdout.splitlines()[-1]
