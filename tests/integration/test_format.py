"""--format: one weight format of a repository that holds several."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from aim_downloader import plan, snapshot_size
from aim_downloader.errors import SnapshotNotFoundError
from aim_downloader.events import PlanMade
from tests.hub import HubServer
from tests.integration.support import Command, Downloader, assert_snapshot, content_requests

MANY = "hf://org/many"
SAFE = {
    "config.json": b"{}",
    "tokenizer.bin": b"no weights",
    "training_args.bin": b"nor these",
    "model-00001-of-00001.safetensors": os.urandom(200_000),
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "1_Dense/model.safetensors": os.urandom(3_000),
}
STAND_IN = {"2_Dense/pytorch_model.bin": os.urandom(5_000), "sparse_linear.pt": os.urandom(700)}
OTHERS = {
    "pytorch_model.bin": os.urandom(200_000),
    "pytorch_model.bin.index.json": b"{}",
    "1_Dense/pytorch_model.bin": os.urandom(3_000),
    "original/consolidated.00.pth": os.urandom(200_000),
    "onnx/model.onnx": os.urandom(50_000),
    "x-Q4_K_M.gguf": os.urandom(60_000),
}
ALL: Mapping[str, bytes] = {**SAFE, **STAND_IN, **OTHERS}
WANTED = {**SAFE, **STAND_IN}
BYTES = sum(map(len, WANTED.values()))


@pytest.fixture(autouse=True)
def _many(hub: HubServer) -> None:
    hub.add_repo("org/many", ALL)


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_one_format_is_brought(command: Command, target: Path, by: str) -> None:
    if by == "flag":
        done = command.run(MANY, target, "--format", "safetensors")
    else:
        done = command.run(MANY, target, AIM_DOWNLOADER_FORMAT="safetensors")
    assert done.code == 0, done.said
    assert_snapshot(target, WANTED)
    assert "2_Dense/pytorch_model.bin and 1 more (pytorch weights: no safetensors" in done.stderr


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_format_that_nobody_knows_is_refused(command: Command, target: Path, by: str) -> None:
    if by == "flag":
        done = command.run(MANY, target, "--format", "zip")
    else:
        done = command.run(MANY, target, AIM_DOWNLOADER_FORMAT="zip")
    assert done.code == 2, done.said
    assert "safetensors" in done.stderr
    assert not target.exists()


def test_a_format_that_is_not_there(command: Command, target: Path) -> None:
    done = command.run(MANY, target, "--format", "flax")
    assert done.code == 66, done.said
    assert "has no flax weights" in done.stderr
    assert "safetensors (" in done.stderr
    assert not target.exists()


def test_the_plan_names_what_is_left_out_and_what_stays(command: Command, target: Path) -> None:
    done = command.run("plan", MANY, target, "--format", "safetensors", "--json")
    told = json.loads(done.stdout)
    left_out = {row["path"]: row["reason"] for row in told["files"] if row["action"] == "leftOut"}
    assert left_out.keys() == OTHERS.keys()
    assert left_out["onnx/model.onnx"] == "onnx weights: --format safetensors"
    assert told["leftOutBytes"] == sum(map(len, OTHERS.values()))
    assert told["fetchBytes"] == BYTES
    reasons = {row["path"]: row["reason"] for row in told["files"] if row.get("reason")}
    reason = "pytorch weights: no safetensors weights replace them"
    assert {name: reasons[name] for name in reasons.keys() - left_out} == dict.fromkeys(
        STAND_IN, reason
    )


def test_size_counts_with_the_format(command: Command) -> None:
    done = command.run("size", MANY, "--format", "safetensors")
    assert json.loads(done.stdout.splitlines()[-1])["sizeBytes"] == BYTES


async def test_from_python(hub: HubServer, downloader: Downloader, target: Path) -> None:
    config = downloader.config(weight_format="safetensors")
    assert await snapshot_size(MANY, config=config) == BYTES
    planned = await plan(MANY, target, config=config)
    assert {file.path for file in planned.fetch} == WANTED.keys()
    await downloader(target, MANY, weight_format="safetensors")
    assert_snapshot(target, WANTED)


async def test_without_it_all_is_brought_and_a_hint_given_once(
    downloader: Downloader, target: Path
) -> None:
    await downloader(target, MANY)
    assert_snapshot(target, ALL)
    await downloader(target, MANY)
    hints = [event.hint for event in downloader.told(PlanMade)]
    assert hints[0].startswith("weights in 4 formats: --format safetensors would save ")
    assert hints[1] == ""


def test_the_hint_at_a_shell(command: Command, target: Path) -> None:
    for words in (("plan", MANY, target), (MANY, target)):
        done = command.run(*words)
        assert (done.stdout + done.stderr).count("--format safetensors would save") == 1, done.said


# --- the receipt ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "asks"),
    [
        ("safetensors", "safetensors", False),
        ("safetensors", None, True),
        ("safetensors", "pytorch", True),
        # A receipt of all files speaks of those of a format too.
        (None, "safetensors", False),
    ],
)
async def test_a_receipt_answers_for_its_own_format(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    first: str | None,
    second: str | None,
    asks: bool,
) -> None:
    pinned = f"{MANY}@{hub.repo('org/many').head}"
    await downloader(target, pinned, weight_format=first)
    hub.clear_log()
    await downloader(target, pinned, weight_format=second)
    assert bool(hub.log) is asks
    if second is None:
        assert_snapshot(target, ALL)


async def test_another_format_comes_beside_the_first(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    await downloader(target, MANY, weight_format="safetensors")
    hub.clear_log()
    await downloader(target, MANY, weight_format="gguf")
    assert {record.file for record in content_requests(hub.log)} == {"x-Q4_K_M.gguf"}
    assert_snapshot(target, {**WANTED, "x-Q4_K_M.gguf": ALL["x-Q4_K_M.gguf"]})


async def test_offline_a_format_that_is_there_is_enough(
    downloader: Downloader, target: Path
) -> None:
    await downloader(target, MANY, weight_format="safetensors")
    await downloader(target, MANY, weight_format="safetensors", offline=True)
    with pytest.raises(SnapshotNotFoundError):
        await downloader(target, MANY, offline=True)
