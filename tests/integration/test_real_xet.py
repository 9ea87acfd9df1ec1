"""The clients that people use download by Xet from the store of these tests, unmodified."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from tests.hub import HubServer, faults
from tests.hub.faults import Fault
from tests.integration.support import MIB, TOKEN, Files, size_of
from tests.xet import XetFront

HF = Path(sys.executable).with_name("hf")
LARGE = "model.safetensors"
IN_XET = (LARGE, "other.safetensors", "tokenizer.bin")


@pytest.fixture
def environment(xet_hub: HubServer, tmp_path: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {
        **kept,
        "HF_ENDPOINT": xet_hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms",
        "HF_XET_CLIENT_READ_TIMEOUT": "1s",
    }


def run(
    command: list[str | Path], environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def hf_download(environment: Mapping[str, str], target: Path, *names: str) -> None:
    done = run([HF, "download", "org/model", *names, "--local-dir", target], environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hf_download_and_cache_verify(
    xet: XetFront, xet_hub: HubServer, environment: Mapping[str, str], files: Files, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    hf_download(environment, target)
    for name, content in files.items():
        assert (target / name).read_bytes() == content
    for name in IN_XET:
        assert size_of(files[name]) < xet.bytes_sent(name) < size_of(files[name]) * 1.01
        assert xet_hub.bytes_sent(name) == 0
    assert {record.where for record in xet.log} == {"cas", "xorb"}
    assert all("Authorization" not in r.headers for r in xet.log if r.where == "xorb")
    assert len([r for r in xet_hub.log if "xet-read-token" in r.path]) == 1
    verify: list[str | Path] = [HF, "cache", "verify", "org/model", "--local-dir", target]
    assert run(verify, environment).returncode == 0


def test_a_refused_url_of_data_leads_to_a_new_plan(
    xet: XetFront, environment: Mapping[str, str], files: Files, tmp_path: Path
) -> None:
    xet.fault(faults.ExpiredUrl(), path="other.safetensors")
    hf_download(environment, tmp_path, "other.safetensors")
    assert (tmp_path / "other.safetensors").read_bytes() == files["other.safetensors"]
    assert [r.where for r in xet.log] == ["cas", "xorb", "cas", "xorb"]


# Why nobody can do without a digest.
def test_hf_download_does_not_notice_damage(
    xet: XetFront, environment: Mapping[str, str], files: Files, tmp_path: Path
) -> None:
    xet.fault(xet.damage("other.safetensors"), path="other.safetensors")
    hf_download(environment, tmp_path, "other.safetensors")
    right, wrong = files["other.safetensors"], (tmp_path / "other.safetensors").read_bytes()
    assert isinstance(right, bytes)
    assert len(wrong) == len(right)
    assert sum(a != b for a, b in zip(right, wrong, strict=True)) == 1


# --- hf_xet itself --------------------------------------------------------------------------------

STREAM = """
import json, sys, hf_xet
order = json.load(sys.stdin)
info = hf_xet.XetFileInfo(order["hash"], order["size"])
access = {"token_refresh_url": order["token_url"], "token_refresh_headers": order["headers"]}
session = hf_xet.XetSession()
try:
    with session.new_download_stream_group(**access) as group:
        for piece in group.download_stream(info, start=order["start"], end=order["end"]):
            sys.stdout.buffer.write(piece)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def stream(
    xet_hub: HubServer, environment: Mapping[str, str], start: int, end: int
) -> "subprocess.CompletedProcess[bytes]":
    """A part of the large file, by a process of its own."""
    api = f"{xet_hub.endpoint}/api/models/org/model"
    repository = xet_hub.repo("org/model")
    entry = repository.commits[repository.head].entries[LARGE]
    order = {
        "hash": entry.xet_hash,
        "size": entry.size,
        "token_url": f"{api}/xet-read-token/main",
        "headers": {"Authorization": f"Bearer {TOKEN}"},
        "start": start,
        "end": end,
    }
    return subprocess.run(
        [sys.executable, "-c", STREAM],
        input=json.dumps(order).encode(),
        env=environment,
        capture_output=True,
        timeout=100,
        check=False,
    )


def test_hf_xet_streams_a_part_of_a_file(
    xet: XetFront, xet_hub: HubServer, environment: Mapping[str, str], files: Files
) -> None:
    content = files[LARGE]
    assert isinstance(content, bytes)
    start, end = 20 * MIB + 5, 22 * MIB - 7
    done = stream(xet_hub, environment, start, end)
    assert done.stdout == content[start:end], done.stderr
    assert end - start < xet.bytes_sent(LARGE) < end - start + MIB


@pytest.mark.parametrize("where", ["cas", "xorb"])
@pytest.mark.parametrize(
    "fault",
    [
        faults.Status(500),
        faults.Status(503),
        faults.ShortBody(after=100),
        faults.Reset(after=100),
        faults.Stall(after=100),
        faults.LateFirstByte(5),
    ],
    ids=str,
)
def test_hf_xet_gets_over(
    xet: XetFront,
    xet_hub: HubServer,
    environment: Mapping[str, str],
    files: Files,
    fault: Fault,
    where: Literal["cas", "xorb"],
) -> None:
    content = files[LARGE]
    assert isinstance(content, bytes)
    scripted = xet.fault(fault, where=where)
    done = stream(xet_hub, environment, 0, MIB)
    assert done.stdout == content[:MIB], done.stderr
    assert scripted.fired == 1
    assert len([record for record in xet.log if record.where == where]) > 1


def test_hf_xet_gives_up_when_its_token_is_refused(
    xet: XetFront, xet_hub: HubServer, environment: Mapping[str, str]
) -> None:
    xet.fault(faults.Status(401), where="cas", times=None)
    done = stream(xet_hub, environment, 0, MIB)
    # Now and then it just ends, without an error: that is why bytes are counted.
    assert b"401 Unauthorized" in done.stderr or (done.stdout, done.stderr) == (b"", b"")
    assert [record.where for record in xet.log] == ["cas"]


def test_hf_xet_asks_in_the_older_way_for_a_file_that_is_missing(
    xet: XetFront, xet_hub: HubServer, environment: Mapping[str, str]
) -> None:
    xet.fault(faults.Status(404), where="cas", times=None)
    done = stream(xet_hub, environment, 0, MIB)
    # Here, too, it just ends now and then.
    assert b"404 Not Found" in done.stderr or (done.stdout, done.stderr) == (b"", b"")
    assert [record.path[:4] for record in xet.log] == ["/v2/", "/v1/"]
    xet.clear_faults()
    xet.fault(faults.Status(404), where="cas")
    assert len(stream(xet_hub, environment, 0, MIB).stdout) == MIB


@pytest.mark.parametrize(("lifetime", "renewed"), [(3600, False), (20, True)])
def test_hf_xet_renews_a_token_that_ends_soon(
    xet: XetFront,
    xet_hub: HubServer,
    environment: Mapping[str, str],
    lifetime: float,
    *,
    renewed: bool,
) -> None:
    xet.token_lifetime(lifetime)
    xet.fault(faults.ExpiredUrl())  # so that it has to ask for a second plan
    assert len(stream(xet_hub, environment, 0, MIB).stdout) == MIB
    assert [record.where for record in xet.log] == ["cas", "xorb", "cas", "xorb"]
    tokens = [record for record in xet_hub.log if "xet-read-token" in record.path]
    assert (len(tokens) > 1) == renewed
