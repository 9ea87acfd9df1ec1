"""A download in its container form: by environment alone, with an end that says why."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.api_server import HANG, Answer, ApiServerDouble, service_account
from tests.fair_time import fair_time
from tests.hub import HubServer
from tests.integration.support import (
    HIDDEN,
    MIB,
    SUMS,
    TOKEN,
    URI,
    Command,
    Files,
    content_requests,
    names_below,
    total_size,
    wait_until,
)
from tests.integration.test_tls import Authority, authority

__all__ = ["authority"]

LARGE = "model.safetensors"
ORIGIN = f"{HIDDEN}/origin.json"
WITHIN_S = 2.0


@pytest.fixture
def told(command: Command) -> Path:
    """Where the container's last word goes."""
    path = command.home / "termination-log"
    command.environment["AIM_DOWNLOADER_TERMINATION_LOG"] = str(path)
    return path


def message(told: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(told.read_text("utf-8"))
    return content


def contents(target: Path) -> dict[str, bytes]:
    return {name: (target / name).read_bytes() for name in names_below(target)}


def of_model(files: Files) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if isinstance(content, bytes)}


def assert_volume(target: Path, files: Files) -> None:
    """The files, and what `sha256sum -c` reads."""
    found = contents(target)
    found.pop(SUMS)
    assert found == of_model(files)
    checked = subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=target, check=False)
    assert checked.returncode == 0


# --- what it brings -------------------------------------------------------------------------------


def test_target_dir_is_the_place(
    command: Command, target: Path, files: Files, told: Path, hub: HubServer
) -> None:
    done = command.run("job", URI, TARGET_DIR=str(target), EXPECTED_SIZE_BYTES="999999999")
    assert done.code == 0, done.said
    assert done.stdout == ""
    assert_volume(target, files)
    assert "EXPECTED_SIZE_BYTES" not in done.stderr
    said = message(told)
    assert said.pop("seconds") > 0
    assert said.pop("revision") == hub.repo("org/model").head
    assert said == {
        "outcome": "complete",
        "exitCode": 0,
        "error": None,
        "message": "",
        "hint": "",
        "protocol": "HTTP",
        "bytes": total_size(files),
        "bytesReceived": total_size(files),
        "totalBytes": total_size(files),
        "uri": URI,
    }


def test_the_same_model_is_the_same_bytes_by_every_protocol(
    xet_command: Command, tmp_path: Path, files: Files
) -> None:
    volumes = {}
    for protocol in ("XET", "HF_TRANSFER", "HTTP"):
        target = tmp_path / protocol
        done = xet_command.run("job", URI, target, AIM_DOWNLOADER_PROTOCOL=protocol)
        assert done.code == 0, done.said
        assert f"SUCCESS: {protocol} (attempt 1/1)" in done.stderr
        volumes[protocol] = contents(target)
    assert volumes["XET"] == volumes["HF_TRANSFER"] == volumes["HTTP"]
    assert volumes["XET"].keys() == {*files, SUMS}


def test_a_volume_that_is_complete_is_read_and_nothing_is_fetched(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    assert command.run("job", URI, target).code == 0
    before = contents(target)
    asked = len(hub.log)
    done = command.run("job", URI, target)
    assert done.code == 0, done.said
    assert content_requests(hub.log[asked:]) == []
    assert contents(target) == before


def test_what_was_changed_on_a_volume_is_fetched_again(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    assert command.run("job", URI, target).code == 0
    path = target / LARGE
    at = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[MIB] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert command.run("job", URI, target).code == 0
    assert_volume(target, files)


@pytest.mark.parametrize("revision", ["", "@{commit}"])
def test_what_an_earlier_download_has_left_becomes_a_volume(
    hub: HubServer, command: Command, target: Path, files: Files, revision: str
) -> None:
    """Also where that needs no request, and nothing is to be fetched."""
    uri = URI + revision.format(commit=hub.repo("org/model").head)
    assert command.run(uri, target).code == 0
    assert (target / ORIGIN).exists()
    asked = len(hub.log)
    done = command.run("job", uri, target)
    assert done.code == 0, done.said
    assert_volume(target, files)
    assert content_requests(hub.log[asked:]) == []


def test_killed_in_the_middle_the_next_pod_goes_on(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    hub.pace(10e6)
    running = command.start("job", URI, target)
    hub.wait_for_bytes(12 * MIB, LARGE)
    running.kill()
    hub.pace(None)
    sent = hub.bytes_sent()
    done = command.run("job", URI, target)
    assert done.code == 0, done.said
    assert_volume(target, files)
    assert hub.bytes_sent() - sent < total_size(files) - 8 * MIB


def test_several_models_are_all_tried(
    hub: HubServer, command: Command, tmp_path: Path, files: Files, told: Path
) -> None:
    """As KServe gives them: pairs, and a revision behind a colon."""
    commit = hub.repo("org/model").head
    targets = [tmp_path / name for name in "abcd"]
    uris = [f"{URI}:{commit}", "hf://org/gone", "s3://bucket/model", f"{URI}:main"]
    words = [word for pair in zip(uris, targets, strict=True) for word in pair]
    done = command.run("job", *words, HF_TOKEN=TOKEN)
    assert done.code == 66, done.said
    for target in (targets[0], targets[3]):
        assert_volume(target, files)
    lines = done.stderr.splitlines()
    failures = [line for line in lines if line.startswith("error: ")]
    assert failures[0].startswith("error: hf://org/gone: ")
    assert failures[1].startswith("error: s3://bucket/model: s3:// is not supported yet")
    # At once, not when all have been tried.
    assert lines.index(failures[1]) < lines.index(f"Model: {URI}@main")
    assert "Repository Not Found" in done.stderr.splitlines()[-1]
    said = message(told)
    assert (said["outcome"], said["exitCode"]) == ("failed", 66)
    assert (said["uri"], said["revision"]) == ("hf://org/gone", None)
    assert said["bytes"] == 2 * total_size(files)


def test_a_model_that_is_larger_than_its_volume_was_made_for(
    command: Command, target: Path, files: Files
) -> None:
    done = command.run("job", URI, target, EXPECTED_SIZE_BYTES="1048576")
    assert done.code == 0, done.said
    said = f"The model has {total_size(files)} bytes, and EXPECTED_SIZE_BYTES says 1048576: "
    assert f"{said}the volume may be too small for it" in done.stderr
    assert f"Progress monitor started: expected={total_size(files)} bytes" in done.stderr


def test_the_environment_decides_all_else(command: Command, target: Path, files: Files) -> None:
    done = command.run(
        "job",
        URI,
        target,
        AIM_DOWNLOADER_PROTOCOL="",
        HF_HUB_DISABLE_XET="1",
        PROGRESS_INTERVAL="0.5",
        STALL_TIMEOUT="7",
        AIM_DOWNLOADER_STALL_TIMEOUT="",
    )
    assert done.code == 0, done.said
    assert "interval=0.5s, stall_timeout=7s" in done.stderr
    assert "SUCCESS: HF_TRANSFER (attempt 1/1)" in done.stderr
    assert_volume(target, files)


def test_a_large_file_that_is_in_git_is_no_attempt_of_its_own(
    xet_hub: HubServer, xet_command: Command, target: Path
) -> None:
    told = xet_command.home / "told"
    files = {LARGE: os.urandom(5 * MIB), "tokenizer.json": os.urandom(3 * MIB)}
    xet_hub.add_repo("org/mixed", files)
    done = xet_command.run(
        "job",
        "hf://org/mixed",
        target,
        AIM_DOWNLOADER_PROTOCOL="XET,HF_TRANSFER",
        AIM_DOWNLOADER_TERMINATION_LOG=str(told),
    )
    assert done.code == 0, done.said
    attempts = [line for line in done.stderr.splitlines() if "attempt" in line.lower()]
    assert attempts == ["DOWNLOAD ATTEMPT 1/2", "SUCCESS: XET (attempt 1/2)"]
    assert message(told)["protocol"] == "XET"


def test_a_model_without_xet_begins_with_the_second_of_the_sequence(
    xet_hub: HubServer, xet_command: Command, target: Path
) -> None:
    xet_hub.add_repo("org/old", {LARGE: os.urandom(5 * MIB)}, xet=False)
    done = xet_command.run("job", "hf://org/old", target, AIM_DOWNLOADER_PROTOCOL="XET,HF_TRANSFER")
    assert done.code == 0, done.said
    attempts = [line for line in done.stderr.splitlines() if "attempt" in line.lower()]
    assert attempts == ["DOWNLOAD ATTEMPT 2/2", "SUCCESS: HF_TRANSFER (attempt 2/2)"]


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environment", "code", "error", "last"),
    [
        (["s3://bucket/m", "t"], {}, 2, "ConfigError", "s3:// is not supported yet"),
        (["org/model", "t"], {}, 2, "ConfigError", "'org/model' is not a model URI"),
        ([], {}, 2, "ConfigError", "no model is named"),
        (["--quiet", URI], {}, 2, "ConfigError", "'--quiet' is a flag"),
        ([URI, "--token=S3CRET"], {}, 2, "ConfigError", "'--token=…' is a flag"),
        ([URI, "t"], {"PROGRESS_INTERVAL": "0"}, 2, "ConfigError", "must be above 0"),
        ([URI, "t"], {"PROGRESS_INTERVAL": "x"}, 2, "ConfigError", "PROGRESS_INTERVAL='x'"),
        ([URI, "t"], {"EXPECTED_SIZE_BYTES": "5G"}, 2, "ConfigError", "EXPECTED_SIZE_BYTES='5G'"),
        ([URI, "t"], {"EXPECTED_SIZE_BYTES": "9" * 5000}, 2, "ConfigError", "EXPECTED_SIZE_BYTES="),
        (["hf://org/gone", "t"], {"HF_TOKEN": TOKEN}, 66, "SnapshotNotFoundError", "org/gone"),
        ([URI, "t"], {"HF_TOKEN": "hf_wrong"}, 77, "AccessDeniedError", "Cannot access gated repo"),
        ([URI, "config"], {}, 73, "StorageError", "config"),
    ],
)
def test_an_end_says_why(
    command: Command,
    told: Path,
    words: list[str],
    environment: dict[str, Any],
    code: int,
    error: str,
    last: str,
) -> None:
    (command.home.parent / "config").write_text("a file where a folder is needed")
    done = command.run("job", *words, **environment)
    assert done.code == code, done.said
    assert "Traceback" not in done.stderr
    assert last in "".join(done.stderr.splitlines()[-2:]), done.stderr
    said = message(told)
    assert (said["outcome"], said["exitCode"], said["error"]) == ("failed", code, error)


def test_without_a_place_for_it_no_last_word_is_written(command: Command, target: Path) -> None:
    """Kubernetes makes the place; where it has not, nobody does."""
    places = [Path("/dev/termination-log"), command.home.parent / "termination-log"]
    before = [place.exists() for place in places]
    done = command.run("job", "s3://bucket/model", target)
    assert done.code == 2
    assert "termination" not in done.stderr
    assert [place.exists() for place in places] == before


@pytest.mark.parametrize("number", [1, 2])
def test_without_a_standard_stream_it_ends_as_it_would(
    command: Command, target: Path, files: Files, number: int
) -> None:
    words = [sys.executable, "-m", "aim_downloader", "job", URI, str(target)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {number}>&-', "sh", *words], env=command.environment, check=False
    )
    assert done.returncode == 0
    assert_volume(target, files)


# --- the size -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "size"), [({}, "all"), ({"AIM_DOWNLOADER_FORMAT": "safetensors"}, "one")]
)
def test_the_size_is_the_last_line(
    hub: HubServer, command: Command, told: Path, environment: dict[str, Any], size: str
) -> None:
    safe, torch = {LARGE: b"s" * 5000}, {"pytorch_model.bin": b"t" * 7000}
    hub.add_repo("org/two", {**safe, **torch})
    done = command.run("check-size", "hf://org/two", **environment)
    assert done.code == 0, done.said
    expected = total_size(safe) + (total_size(torch) if size == "all" else 0)
    [line] = done.stdout.splitlines()
    assert json.loads(line) == {"url": "hf://org/two", "sizeBytes": expected}
    assert not done.stderr, "a container's log has the two streams in any order"
    said = message(told)
    assert (said["outcome"], said["exitCode"], said["uri"]) == ("complete", 0, "hf://org/two")
    assert said["revision"] == hub.repo("org/two").head


@pytest.mark.parametrize(
    ("words", "environment", "code", "last"),
    [
        (["hf://org/gone"], {"HF_TOKEN": TOKEN}, 66, "Repository Not Found: "),
        ([URI], {"HF_TOKEN": "hf_wrong"}, 77, "Cannot access gated repo: "),
        (["s3://bucket/model"], {}, 2, "hint: "),
        ([], {}, 2, "error: "),
        ([URI], {"AIM_DOWNLOADER_FORMAT": "zip"}, 2, "error: "),
    ],
)
def test_a_size_that_cannot_be_known(
    command: Command,
    told: Path,
    words: list[str],
    environment: dict[str, Any],
    code: int,
    last: str,
) -> None:
    done = command.run("check-size", *words, **environment)
    assert done.code == code, done.said
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(last)
    said = message(told)
    assert (said["outcome"], said["exitCode"]) == ("failed", code)
    assert f"error: {said['message']}"[:60] in done.stderr


# --- signals --------------------------------------------------------------------------------------


def test_sigterm_ends_it_in_good_order(
    hub: HubServer, command: Command, target: Path, files: Files, told: Path
) -> None:
    hub.pace(5e6)
    running = command.start("job", URI, target)
    hub.wait_for_bytes(6 * MIB)
    done = running.end_by(signal.SIGTERM)
    assert done.code == 143, done.said
    assert done.fair_seconds < WITHIN_S
    assert "Traceback" not in done.stderr
    said = message(told)
    assert (said["outcome"], said["exitCode"]) == ("cancelled", 143)
    assert 0 < said["bytes"] < total_size(files)
    hub.pace(None)
    sent = hub.bytes_sent()
    again = command.run("job", URI, target)
    assert again.code == 0, again.said
    assert_volume(target, files)
    assert hub.bytes_sent() - sent < total_size(files) - 2 * MIB


def test_a_model_that_failed_is_told_of_before_the_next_is_cancelled(
    hub: HubServer, command: Command, tmp_path: Path, told: Path
) -> None:
    hub.pace(5e6)
    words = ("hf://org/gone", tmp_path / "a", URI, tmp_path / "b")
    running = command.start("job", *words, HF_TOKEN=TOKEN)
    hub.wait_for_bytes(6 * MIB)
    done = running.end_by(signal.SIGTERM)
    assert done.code == 143, done.said
    assert done.stderr.startswith("error: hf://org/gone: ")
    said = message(told)
    assert (said["outcome"], said["uri"]) == ("cancelled", URI)
    assert said["revision"] == hub.repo("org/model").head


HANDLED = 1 << (signal.SIGTERM - 1)


def handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & HANDLED)


# A container's only process, which the kernel protects from most signals.
AS_FIRST = ("--pid", "--fork", "--kill-child")


def start_apart(
    command: Command, flags: Sequence[str], *words: str | Path, **environment: str
) -> "subprocess.Popen[bytes]":
    """Starts it in namespaces of its own, which the flags of `unshare` name."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        lacks = "a namespace needs root and unshare"
        assert os.environ.get("CI") != "true", lacks
        pytest.skip(lacks)
    program = [sys.executable, "-m", "aim_downloader", *words]
    return subprocess.Popen(
        ["unshare", *flags, *program],
        env={**command.environment, **environment},
        cwd=command.home.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def ended_by_sigterm(started: "subprocess.Popen[bytes]", after: float) -> tuple[int, float]:
    """Sends SIGTERM so long after the program can hear it; its code, and the seconds it took."""
    try:
        inside = only_child(started.pid)
        wait_until(lambda: handles_sigterm(inside))
        time.sleep(after)
        begun = fair_time()
        os.kill(inside, signal.SIGTERM)
        return started.wait(60), fair_time() - begun
    finally:
        started.kill()
        started.wait()


def only_child(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(tasks.read_bytes)
    return int(tasks.read_text("ascii"))


def test_sigterm_is_heard_while_the_first_process_of_a_container_still_imports(
    command: Command, target: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "click.py").write_text("import time\ntime.sleep(60)")
    path = f"{slow}{os.pathsep}{command.environment['PYTHONPATH']}"
    code, seconds = ended_by_sigterm(
        start_apart(command, AS_FIRST, "job", URI, target, PYTHONPATH=path), after=0.0
    )
    assert code == 143
    assert seconds < WITHIN_S


def test_sigterm_at_any_early_moment_of_the_first_process_of_a_container(
    hub: HubServer, command: Command, target: Path, files: Files, told: Path
) -> None:
    hub.pace(5e6)
    seed = int(os.environ.get("AIM_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"AIM_TEST_SEED={seed}")
    moments = random.Random(seed)
    for _ in range(6):
        code, seconds = ended_by_sigterm(
            start_apart(command, AS_FIRST, "job", URI, target), after=moments.uniform(0, 0.7)
        )
        assert code == 143
        assert seconds < WITHIN_S
        if told.exists():  # before that there is nothing to tell
            assert message(told)["outcome"] == "cancelled"
            told.unlink()
    hub.pace(None)
    assert command.run("job", URI, target).code == 0
    assert_volume(target, files)


# --- the cluster ----------------------------------------------------------------------------------


def start_in_pod(
    command: Command, account: Path, server: ApiServerDouble, target: Path, **environment: str
) -> "subprocess.Popen[bytes]":
    """Starts a job that finds its token, and its API server, where a pod does."""
    place = "/run/secrets/kubernetes.io/serviceaccount"
    mount = f'mount -t tmpfs none /run && mkdir -p {place} && cp {account}/* {place} && exec "$@"'
    pod = {
        "ARTIFACT_NAMESPACE": "team",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }
    flags = ("--mount", "sh", "-c", mount, "sh")
    return start_apart(command, flags, "job", URI, target, **pod, **environment)


@pytest.mark.parametrize(("name", "told_of"), [("demo", True), ("", False)])
def test_kubernetes_is_told_where_an_artifact_is_named(
    command: Command, target: Path, tmp_path: Path, authority: Authority, name: str, told_of: bool
) -> None:
    with ApiServerDouble(authority) as server:
        account = service_account(tmp_path / "account", authority, "a-token")
        started = start_in_pod(command, account, server, target, ARTIFACT_NAME=name)
        assert started.wait(30) == 0
    assert bool(server.requests) is told_of
    if told_of:
        assert server.status["progress"]["percentage"] == 100
        assert server.requests[-1].path.endswith("/namespaces/team/aimartifacts/demo/status")


def test_what_is_complete_when_sigterm_comes_ends_as_complete(
    command: Command,
    target: Path,
    tmp_path: Path,
    authority: Authority,
    told: Path,
) -> None:
    """Also while the API server does not hear the last word."""
    with ApiServerDouble(authority) as server:
        server.script = [Answer(200), HANG]
        account = service_account(tmp_path / "account", authority, "a-token")
        started = start_in_pod(
            command, account, server, target, ARTIFACT_NAME="demo", PROGRESS_INTERVAL="60"
        )
        server.wait_for(lambda: len(server.requests) == 2)
        begun = fair_time()
        started.terminate()
        code, seconds = started.wait(60), fair_time() - begun
    assert code == 0
    assert seconds < WITHIN_S
    assert message(told)["outcome"] == "complete"
