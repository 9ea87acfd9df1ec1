"""Two runs in one folder: one works, the others wait and go on from there."""

import signal
import time
from pathlib import Path

from tests.fair_time import fair_time
from tests.hub import HubServer
from tests.integration.support import (
    HIDDEN,
    MIB,
    URI,
    Command,
    Files,
    Running,
    assert_snapshot,
    total_size,
    wait_until,
)

WAITING = "Waiting for another run"
SLACK = 2 * MIB


def two_runs(hub: HubServer, command: Command, target: Path) -> tuple[Running, Running]:
    """One in the middle of its work, one that waits for it."""
    hub.pace(12e6)
    first = command.start(URI, target)
    hub.wait_for_bytes(2 * MIB)
    # A busy machine takes its time to start the other.
    hub.pace(1e6)
    second = command.start(URI, target)
    second.wait_for_words(WAITING)
    hub.pace(12e6)
    return first, second


def test_the_second_waits_and_nothing_is_fetched_twice(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    first, second = two_runs(hub, command, target)
    assert f"process {first.process.pid}" in second.stderr
    assert not first.ended
    hub.pace(None)
    for done in (first.finish(), second.finish()):
        assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert hub.bytes_sent() <= total_size(files) + SLACK


def test_five_that_start_together(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    hub.pace(40e6)
    for running in [command.start(URI, target) for _ in range(5)]:
        done = running.finish()
        assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert hub.bytes_sent() <= total_size(files) + SLACK


def test_the_second_takes_over_at_once_when_the_first_is_killed(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    first, second = two_runs(hub, command, target)
    hub.wait_for_bytes(8 * MIB)
    first.kill()
    hub.pace(None)
    killed = fair_time()
    done = second.finish()
    assert done.code == 0, done.said
    assert fair_time() - killed < 5
    assert_snapshot(target, files)
    assert hub.bytes_sent() <= total_size(files) + 16 * 2 * MIB + 8 * MIB


def test_the_second_goes_on_when_the_first_is_ended(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    first, second = two_runs(hub, command, target)
    ended = first.end_by(signal.SIGTERM)
    assert ended.code == 143, ended.said
    hub.pace(None)
    done = second.finish()
    assert done.code == 0, done.said
    assert_snapshot(target, files)


def test_the_second_takes_over_from_one_that_stands_still_and_both_succeed(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    first, second = two_runs(hub, command, target)
    first.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        hub.pace(None)
        done = second.finish()
        assert done.code == 0, done.said
        assert 10 < time.monotonic() - stopped < 25
        assert_snapshot(target, files)
    finally:
        first.process.send_signal(signal.SIGCONT)
    awoken = first.finish()
    assert awoken.code == 0, awoken.said
    assert_snapshot(target, files)


def test_two_parts_of_a_model_in_one_folder(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    names = ["model.safetensors", "other.safetensors"]
    for running in [command.start(URI, target, "--include", name) for name in names]:
        done = running.finish()
        assert done.code == 0, done.said
    assert_snapshot(target, {name: files[name] for name in names})


def test_clean_leaves_a_folder_alone_in_which_somebody_works(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    hub.pace(2e6)
    running = command.start(URI, target)
    hub.wait_for_bytes(MIB)
    refused = command.run("clean", target)
    assert refused.code == 75, refused.said
    hub.pace(None)
    assert running.finish().code == 0
    assert_snapshot(target, files)


def test_clean_removes_what_a_dead_run_has_left(
    hub: HubServer, command: Command, target: Path
) -> None:
    hub.pace(12e6)
    running = command.start(URI, target)
    hub.wait_for_bytes(6 * MIB)
    wait_until(lambda: any((target / HIDDEN / "partial").iterdir()))
    running.kill()
    done = command.run("clean", target)
    assert done.code == 0, done.said
    assert not list(target.rglob("*.partial"))
    assert not list(target.rglob("*.journal"))
    assert not (target / HIDDEN / "lease").exists()
