"""The two commands, and the model that the demo makes."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aim_downloader.demo.model import MIB, write_model
from aim_downloader.demo.repository import repository_of
from tests.hub.client import fetch, follow
from tests.xet.need import need_server

DEMO = [sys.executable, "-m", "aim_downloader.demo"]
HUB = [sys.executable, "-m", "tests.hub"]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_model_has_valid_weight_shards_and_an_index(tmp_path: Path) -> None:
    write_model(tmp_path, size=4 * MIB)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) >= 2
    names: dict[str, str] = {}
    for shard in shards:
        data = shard.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        assert header.pop("__metadata__") == {"format": "pt"}
        assert max(each["data_offsets"][1] for each in header.values()) == len(data) - 8 - length
        names |= dict.fromkeys(header, shard.name)
    assert index["weight_map"] == names
    assert index["metadata"]["total_size"] == pytest.approx(4 * MIB, rel=0.02)


@pytest.mark.parametrize("size", [MIB, 16 * MIB])
def test_model_has_the_size_asked_for(tmp_path: Path, size: int) -> None:
    write_model(tmp_path, size=size)
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert total == pytest.approx(size, rel=0.05)


def test_model_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_model(tmp_path / name, size=MIB, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != digests(tmp_path / "c")


def test_repository_of_a_folder_leaves_out_hidden_files(tmp_path: Path) -> None:
    for name in ("config.json", "sub/model.bin", ".git/config", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    repository = repository_of("a/b", tmp_path)
    entries = repository.commits[repository.head].entries
    assert list(entries) == ["config.json", "sub/model.bin"]


def test_demo_runs_a_command_and_ends_with_its_status() -> None:
    script = """
import json, os, sys, urllib.request
files = os.environ["HF_ENDPOINT"] + "/demo/tiny-llama/resolve/main/"
index = json.load(urllib.request.urlopen(files + "model.safetensors.index.json"))
shard = index["weight_map"]["lm_head.weight"]
size = len(urllib.request.urlopen(files + shard).read())
print(size, "127.0.0.2" in os.environ["NO_PROXY"], sys.argv[1:])
sys.exit(7)
"""
    options = ["--size-mib", "1", "--rate-mb", "0", "--"]
    command = [*DEMO, *options, "python", "-c", script, "--port", "--"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 7, done.stderr
    size, bypassed, arguments = done.stdout.split(maxsplit=2)
    assert int(size) > 64 * 320
    assert (bypassed, arguments.strip()) == ("True", "['--port', '--']")


def test_demo_names_a_command_that_is_not_there() -> None:
    command = [*DEMO, "--size-mib", "1", "--", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 127
    assert done.stderr.startswith("no-such-command: ")


def test_demo_says_in_one_line_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [*DEMO, "--size-mib", "1", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the demonstration Hub cannot be started: Address already in use"
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_serves_until_a_signal_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [*DEMO, "--size-mib", "1"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        endpoint = line.split()[0].removeprefix("HF_ENDPOINT=")
        assert fetch(f"{endpoint}/api/models/demo/tiny-llama").status == 200
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        assert process.wait(10) == 0
    assert not list(tmp_path.iterdir())


def test_demo_keeps_its_pace_and_serves_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x" * 1_000_000)
    script = """
import os, urllib.request
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/demo/tiny-llama/resolve/main/model.bin").read()
"""
    options = ["--rate-mb", "2", "--dir", str(tmp_path)]
    started = time.monotonic()
    subprocess.run([*DEMO, *options, "--", "python", "-c", script], timeout=100, check=True)
    assert time.monotonic() - started > 0.4
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_hub_serves_folders_as_repositories_and_writes_a_log(tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    (root / "org/model").mkdir(parents=True)
    (root / "org/model/model.bin").write_bytes(b"weights")
    options = ["--root", str(root), "--log", str(log), "--pace", "1e6"]
    with subprocess.Popen([*HUB, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["repositories"] == ["org/model"]
        answer = follow(f"{ready['endpoint']}/org/model/resolve/main/model.bin")
        assert answer.body == b"weights"
        process.terminate()
        assert process.wait(10) == 0
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["where"], each["status"]) for each in records] == [("hub", 302), ("cdn", 200)]
    assert records[1]["bytes_sent"] == 7


def test_hub_has_its_large_files_in_a_xet_store_too(tmp_path: Path) -> None:
    need_server()
    root, log, store = tmp_path / "root", tmp_path / "log", tmp_path / "store"
    (root / "org/model").mkdir(parents=True)
    (root / "org/model/model.bin").write_bytes(b"weights")
    options: list[str | Path] = [
        "--root",
        root,
        "--log",
        log,
        "--xet",
        store,
        "--xorbs-base",
        "http://data.example",
    ]
    with subprocess.Popen([*HUB, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        api = f"{json.loads(process.stdout.readline())['endpoint']}/api/models/org/model"
        [file] = fetch(f"{api}/tree/main").json
        token = fetch(f"{api}/xet-read-token/main").json
        plan = fetch(
            f"{token['casUrl']}/v2/reconstructions/{file['xetHash']}",
            headers={"Authorization": f"Bearer {token['accessToken']}"},
        ).json
        process.terminate()
        assert process.wait(10) == 0
    (((data, *_),),) = (plan["xorbs"].values(),)
    assert (store / "xorbs" / data["url"].removeprefix("http://data.example/")).is_file()
    places = [json.loads(line)["where"] for line in log.read_text().splitlines()]
    assert places == ["api", "api", "cas"]
