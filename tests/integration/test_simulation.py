"""AIM_DEBUG_*: jobs that hang, fail or pretend, and are told of as real ones."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.hub import HubServer
from tests.integration.support import URI, Command, Finished, children, wait_until

KIB = 1024
HANG = {"AIM_DEBUG_CAUSE_HANG": "1", "STALL_TIMEOUT": "0.6", "AIM_DOWNLOADER_STALL_TIMEOUT": ""}
FAIL = {"AIM_DEBUG_CAUSE_FAILURE": "1"}
PRETEND = {
    "AIM_DEBUG_SIMULATE_DOWNLOAD": "true",
    "AIM_DEBUG_DOWNLOAD_DURATION": "0.5",
    "AIM_DEBUG_VERIFY_DURATION": "0.5",
    "EXPECTED_SIZE_BYTES": "3000000",
    "PROGRESS_INTERVAL": "0.1",
}
PRETEND_HF = {
    "AIM_DEBUG_SIMULATE_HF_DOWNLOAD": "1",
    "AIM_DEBUG_SIMULATE_HF_DURATION": "0.1",
    "AIM_DOWNLOADER_PROTOCOL": "XET,FOO,HF_TRANSFER,HTTP",
}


class Job:
    """Runs `job` in this environment; ``said`` is its last word."""

    def __init__(self, command: Command, hub: HubServer, target: Path) -> None:
        self._told = command.home / "termination-log"
        self._hub = hub
        self.target = target
        self.command = command
        command.environment["AIM_DOWNLOADER_TERMINATION_LOG"] = str(self._told)

    def run(self, uri: str = URI, **environment: Any) -> Finished:
        done = self.command.run("job", uri, self.target, **environment)
        assert self._hub.log == [], "a simulation asks nobody"
        assert "Traceback" not in done.stderr, done.said
        return done

    @property
    def said(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._told.read_text("utf-8"))
        return content

    @property
    def sizes(self) -> list[int]:
        """Of the files in the target."""
        return [path.stat().st_size for path in self.target.glob("*")]


@pytest.fixture
def job(command: Command, hub: HubServer, target: Path) -> Job:
    return Job(command, hub, target)


def lines(done: Finished, *beginnings: str) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith(beginnings)]


@pytest.mark.parametrize("uri", [URI, "s3://bucket/model"])
def test_a_transfer_that_hangs_is_ended(job: Job, uri: str) -> None:
    done = job.run(uri, **HANG)
    assert done.code == 69, done.said
    assert "Download stalled for 0.6s, killing" in done.stderr.splitlines()
    assert done.seconds >= 0.6
    assert done.fair_seconds < 10
    assert (job.said["outcome"], job.said["error"]) == ("failed", "StalledError")


def test_sigterm_ends_a_transfer_that_hangs_with_its_process(job: Job) -> None:
    running = job.command.start("job", URI, job.target, **HANG | {"STALL_TIMEOUT": "60"})
    wait_until(lambda: children(running))
    [hanging] = children(running)
    done = running.end_by(signal.SIGTERM)
    assert done.code == 143, done.said
    assert done.fair_seconds < 2
    assert not Path(f"/proc/{hanging}").exists()
    assert job.said["outcome"] == "cancelled"


def test_a_transfer_that_hangs_and_is_killed_by_others_is_no_success(job: Job) -> None:
    running = job.command.start("job", URI, job.target, **HANG | {"STALL_TIMEOUT": "60"})
    wait_until(lambda: children(running))
    [hanging] = children(running)
    os.kill(hanging, signal.SIGKILL)
    done = running.finish()
    assert done.code == 69, done.said
    assert "Traceback" not in done.stderr
    assert job.said["error"] == "TransferInterruptedError"


def test_nothing_is_left_of_a_job_that_is_killed_while_it_hangs(job: Job) -> None:
    running = job.command.start("job", URI, job.target, **HANG | {"STALL_TIMEOUT": "60"})
    wait_until(lambda: children(running))
    [hanging] = children(running)
    running.kill()
    wait_until(lambda: not Path(f"/proc/{hanging}/exe").exists())


def test_a_failure_comes_at_once(job: Job) -> None:
    done = job.run(**FAIL)
    assert done.code == 1, done.said
    assert lines(done, "[SIMULATE]") == ["[SIMULATE] a failure"]
    assert job.said["outcome"] == "failed"
    assert not job.target.exists()


@pytest.mark.parametrize("uri", [URI, "s3://bucket/model"])
def test_a_download_comes_in_halves(job: Job, uri: str) -> None:
    done = job.run(uri, **PRETEND)
    assert done.code == 0, done.said
    assert job.sizes == [3000000]
    assert lines(done, "[SIMULATE]") == [
        "[SIMULATE] a download of 3000000 bytes that takes 0.5 s",
        "[SIMULATE] a verification that takes 0.5 s",
    ]
    progress = lines(done, "Progress: ")
    assert any(line.startswith("Progress: 50% (1500000/3000000 bytes)") for line in progress)
    assert progress[-1] == "Progress: 100% (3000000/3000000 bytes)"
    [last] = lines(done, "Done: ")
    assert "simulated" in last
    assert "verified" not in last
    assert done.seconds >= 1
    said = job.said
    assert (said["outcome"], said["bytes"], said["revision"]) == ("complete", 3000000, None)


def test_a_download_of_no_known_size(job: Job) -> None:
    environment = {**PRETEND, "EXPECTED_SIZE_BYTES": "", "AIM_DEBUG_DOWNLOAD_DURATION": "0"}
    assert job.run(**environment).code == 0
    assert job.sizes == [1024 * KIB]


def test_a_verification_fails(job: Job) -> None:
    done = job.run(**PRETEND, AIM_DEBUG_VERIFY_FAIL="1")
    assert done.code == 1, done.said
    assert "AIM_DEBUG_VERIFY_FAIL is set" in done.stderr.splitlines()[-1]
    assert job.sizes == [3000000]
    assert (job.said["outcome"], job.said["bytes"]) == ("failed", 3000000)


def test_sigterm_ends_a_download_that_is_pretended(job: Job) -> None:
    environment = {**PRETEND, "AIM_DEBUG_DOWNLOAD_DURATION": "60"}
    running = job.command.start("job", URI, job.target, **environment)
    running.wait_for_words("Progress: 50%")
    done = running.end_by(signal.SIGTERM)
    assert done.code == 143, done.said
    assert done.fair_seconds < 2
    assert (job.said["outcome"], job.said["bytes"]) == ("cancelled", 1500000)


@pytest.mark.parametrize(
    ("failing", "attempts", "code"),
    [
        ("", ["SUCCESS: XET (attempt 1/4)"], 0),
        ("HTTP", ["SUCCESS: XET (attempt 1/4)"], 0),
        ("xet", ["FAILED: XET (attempt 1/4)", "SUCCESS: HF_TRANSFER (attempt 3/4)"], 0),
        (
            "XET,HF_TRANSFER,HTTP",
            [
                "FAILED: XET (attempt 1/4)",
                "FAILED: HF_TRANSFER (attempt 3/4)",
                "FAILED: HTTP (attempt 4/4)",
                "ALL 4 DOWNLOAD ATTEMPTS EXHAUSTED",
            ],
            69,
        ),
    ],
)
def test_protocols_are_tried_in_their_order(
    job: Job, failing: str, attempts: list[str], code: int
) -> None:
    done = job.run(**PRETEND_HF, AIM_DEBUG_SIMULATE_HF_FAIL_PROTOCOLS=failing)
    assert done.code == code, done.said
    assert lines(done, "SUCCESS", "FAILED", "ALL") == attempts
    assert "FOO" in done.stderr
    assert f"Model: {URI}" in done.stderr.splitlines()
    assert job.sizes == ([] if code else [100 * KIB])
    assert job.said["exitCode"] == code


def test_protocols_are_simulated_for_the_hub_alone(job: Job) -> None:
    done = job.run("s3://bucket/model", **PRETEND_HF)
    assert done.code == 2
    assert "s3:// is not supported yet" in done.stderr


@pytest.mark.parametrize(
    ("environment", "code", "told"),
    [
        ({**PRETEND_HF, **PRETEND, **FAIL, **HANG}, 69, "a transfer that hangs"),
        ({**PRETEND_HF, **PRETEND, **FAIL}, 1, "a failure"),
        ({**PRETEND_HF, **PRETEND, "AIM_DEBUG_CAUSE_FAILURE": "0"}, 0, "a download of"),
        ({**PRETEND_HF, "AIM_DEBUG_SIMULATE_DOWNLOAD": "false"}, 0, "XET, which takes"),
    ],
)
def test_the_first_of_several_counts(
    job: Job, environment: dict[str, Any], code: int, told: str
) -> None:
    done = job.run(**environment)
    assert done.code == code, done.said
    assert lines(done, "[SIMULATE]")[0].startswith(f"[SIMULATE] {told}")


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_a_duration_that_is_none(job: Job, value: str) -> None:
    done = job.run(**PRETEND | {"AIM_DEBUG_VERIFY_DURATION": value})
    assert done.code == 2, done.said
    assert f"AIM_DEBUG_VERIFY_DURATION={value!r}" in done.stderr
