"""Which pod brings which files, which commit all take, and what the first one sees of others."""

from __future__ import annotations

import asyncio
import io
import os
import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader.config import Config
from aim_downloader.environment import config_from_environ
from aim_downloader.errors import ConfigError
from aim_downloader.events import (
    Event,
    PlanMade,
    RunProgressed,
    ShardProgress,
    ShardsAwaited,
    ShareBrought,
    ShareTaken,
)
from aim_downloader.others import prove_share
from aim_downloader.pin import Pin
from aim_downloader.receipt import Origin, Record, write_origin, write_sums
from aim_downloader.reporters.job_log import JobLog
from aim_downloader.reporters.sentences import sentence
from aim_downloader.sharding import Shard, shares
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.layout import Layout
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.sinks.shard_dir import ShardDir
from aim_downloader.snapshot import MIB, Digest, RemoteFile
from tests.unit.sinks import begun, bring, git_file, lfs_file

_models = st.dictionaries(st.text("abc/.", min_size=1, max_size=5), st.integers(0, 100)).map(
    lambda sizes: [RemoteFile(path, size, None) for path, size in sizes.items()]
)


# --- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, ["", "", ""]),
        ({"a": 5}, ["a", "", ""]),
        ({"a": 1, "b": 2, "c": 3}, ["c", "b", "a"]),
        # Ties: by path, to the lowest index.
        ({"b": 4, "a": 4, "d": 4, "c": 4}, ["ad", "b", "c"]),
        # The biggest first, each to whom has least.
        ({"a": 10, "b": 6, "c": 5, "d": 4, "e": 2}, ["a", "be", "cd"]),
        # Files of no bytes weigh nothing: they follow the lightest.
        ({"a": 3, "b": 2, "c": 1, "x": 0, "y": 0}, ["a", "b", "cxy"]),
    ],
)
def test_who_brings_what(sizes: dict[str, int], expected: list[str]) -> None:
    files = [RemoteFile(path, size, None) for path, size in sizes.items()]
    found = ["".join(file.path for file in share) for share in shares(files, 3)]
    assert found == expected


@given(_models, st.integers(1, 8), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_every_file_is_in_one_share_and_all_are_balanced(
    files: list[RemoteFile], count: int, order: random.Random
) -> None:
    parts = shares(files, count)
    assert sorted(file.path for part in parts for file in part) == sorted(
        file.path for file in files
    )
    loads = [sum(file.size for file in part) for part in parts]
    assert max(loads) - min(loads) <= max((file.size for file in files), default=0)
    shuffled = order.sample(files, len(files))
    assert shares(shuffled, count) == parts, "another listing's order makes no difference"


# --- who this is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"JOB_COMPLETION_INDEX": "1"}, None),
        ({"AIM_DOWNLOADER_SHARDS": "", "JOB_COMPLETION_INDEX": "1"}, None),
        ({"AIM_DOWNLOADER_SHARDS": "3", "JOB_COMPLETION_INDEX": "1"}, Shard(1, 3)),
        ({"AIM_DOWNLOADER_SHARDS": "1", "JOB_COMPLETION_INDEX": "0"}, Shard(0, 1)),
        ({"AIM_DOWNLOADER_SHARD": "2/3"}, Shard(2, 3)),
        ({"AIM_DOWNLOADER_SHARD": "0/2", "AIM_DOWNLOADER_SHARDS": "9"}, Shard(0, 2)),
    ],
)
def test_the_environment_names_the_shard(environ: dict[str, str], expected: Shard | None) -> None:
    assert config_from_environ(environ).shard == expected


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"AIM_DOWNLOADER_SHARDS": "3"}, "JOB_COMPLETION_INDEX"),
        ({"AIM_DOWNLOADER_SHARDS": "3", "JOB_COMPLETION_INDEX": "3"}, "must be 0 to 2"),
        ({"AIM_DOWNLOADER_SHARDS": "0", "JOB_COMPLETION_INDEX": "0"}, "must be 1 to 1000"),
        ({"AIM_DOWNLOADER_SHARDS": "1001", "JOB_COMPLETION_INDEX": "0"}, "must be 1 to 1000"),
        ({"AIM_DOWNLOADER_SHARDS": "few", "JOB_COMPLETION_INDEX": "0"}, "'few' is not a number"),
        ({"AIM_DOWNLOADER_SHARDS": "3", "JOB_COMPLETION_INDEX": "-1"}, "'-1' is not a number"),
        ({"AIM_DOWNLOADER_SHARD": "1"}, "'1' is no shard"),
        ({"AIM_DOWNLOADER_SHARD": "3/3"}, "must be 0 to 2"),
        ({"AIM_DOWNLOADER_SHARD": "-1/3"}, "'-1/3' is no shard"),
        ({"AIM_DOWNLOADER_SHARD": "0/3", "AIM_DOWNLOADER_LAYOUT": "hf-cache"}, "hf-cache"),
        ({"AIM_DOWNLOADER_SHARD": "0/3", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
    ],
)
def test_what_is_no_shard_is_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_from_environ(environ)


def test_shards_do_not_prune() -> None:
    with pytest.raises(ConfigError, match="--prune") as caught:
        Config(shard=Shard(0, 2), prune=True)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0-of-3", Shard(0, 3)),
        ("12-of-100", Shard(12, 100)),
        ("3-of-3", None),
        ("00-of-3", None),
        ("0-of-0", None),
        ("partial", None),
    ],
)
def test_the_folder_of_a_shard(name: str, expected: Shard | None) -> None:
    assert Shard.named(name) == expected
    assert expected is None or str(expected) == name


# --- the pin --------------------------------------------------------------------------------------

A, B = "a" * 40, "b" * 40


def test_the_first_one_pins_the_commit(tmp_path: Path) -> None:
    first, second = (Pin(tmp_path, 3, "hf://org/model", None) for _ in range(2))
    assert asyncio.run(first.read()) is None
    assert asyncio.run(first.set(A)) == A
    assert asyncio.run(second.set(B)) == A
    assert asyncio.run(second.read()) == A
    assert first.names(A)
    assert not second.names(B)


@pytest.mark.parametrize(
    "other",
    [(2, "hf://org/model", None), (3, "hf://org/model@v1", None), (3, "hf://org/model", "gguf")],
    ids=["count", "uri", "filters"],
)
def test_a_pin_of_something_else_is_none(tmp_path: Path, other: tuple[int, str, object]) -> None:
    asyncio.run(Pin(tmp_path, *other).set(A))
    assert asyncio.run(Pin(tmp_path, 3, "hf://org/model", None).set(B)) == B


def test_many_pin_at_once_and_all_get_the_same(tmp_path: Path) -> None:
    commits = [f"{number:040x}" for number in range(8)]
    found: list[str] = []
    ready = threading.Barrier(len(commits))

    def pin(commit: str) -> None:
        ready.wait()
        found.append(asyncio.run(Pin(tmp_path, 3, "hf://org/model").set(commit)))

    threads = [threading.Thread(target=pin, args=(commit,)) for commit in commits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(commits)
    assert len(set(found)) == 1


def test_a_pin_that_is_gone_names_nothing(tmp_path: Path) -> None:
    pin = Pin(tmp_path, 3, "hf://org/model")
    asyncio.run(pin.set(A))
    pin.remove()
    assert not pin.names(A)
    assert asyncio.run(pin.read()) is None


def test_a_commit_is_pinned_though_another_run_has_removed_the_empty_folder(tmp_path: Path) -> None:
    assert asyncio.run(Pin(tmp_path / "gone", 3, "hf://org/model").set(A)) == A


# --- in words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            ShareTaken(1, 3, 4, 10 * MIB, 12, 30 * MIB),
            "Shard 1 of 3 (from 0) takes 4 files, 10 MiB of 12 files, 30 MiB",
        ),
        (
            ShardsAwaited(3, (ShardProgress(2, 2 * MIB, 8 * MIB, 1.0),), 600.0),
            "Waiting for 1 of 3 shards: shard 2 at 25 % (2.00/8.00 MiB)",
        ),
        (
            ShardsAwaited(4, (ShardProgress(1, 0, 0, 0.0), ShardProgress(3, 0, 0, 63.0)), 600.0),
            (
                "Waiting for 2 of 4 shards: shard 1; shard 3, silent for 1 min 3 s; "
                "this one gives up when none is heard of for 600 s"
            ),
        ),
        (
            ShardsAwaited(3, (ShardProgress(2, 0, 0, 63.0, came=False),), 600.0),
            (
                "Waiting for 1 of 3 shards: shard 2 has not come for 1 min 3 s; "
                "this one gives up when none is heard of for 600 s"
            ),
        ),
        (
            ShareBrought(2, 3),
            "The share of shard 2 of 3 is there; it is shard 0 that publishes the model",
        ),
        (
            ShardsAwaited(3, (ShardProgress(0, 0, 0, 0.0),), 600.0),
            "Waiting for 1 of 3 shards: shard 0",
        ),
    ],
)
def test_what_is_told_of_shards(event: Event, expected: str) -> None:
    assert sentence(event) == expected


def test_who_only_waits_tells_no_speed_and_no_time_left() -> None:
    sample = RunProgressed(5, 10, 5, 1, 3, 1e6, 4.0, 0, verifying=False, active=())
    plan = PlanMade("/cache", 3, 10, 1, 5, 0, 0, 0, 0, 0, 0, 0, "")
    for waiting, rest in (False, "977 KiB/s, 0:04 left, 1/3"), (True, "waiting for others, 1/3"):
        event = replace(sample, waiting=waiting)
        assert sentence(event).endswith(f" {rest} files")
        log = JobLog(stream := io.StringIO())
        log(plan)
        log(event)
        assert stream.getvalue().endswith(f" {rest} files\n")


# --- what sums prove ------------------------------------------------------------------------------

WEIGHTS, NOTES = b"weights" * 1000, b"notes"
LFS, GIT = lfs_file("model.bin", WEIGHTS), git_file("notes.md", NOTES)
SUM_LFS = str(LFS.digest).removeprefix("sha256:")
SUM_GIT = str(lfs_file("notes.md", NOTES).digest).removeprefix("sha256:")
RIGHT = {"model.bin": SUM_LFS, "notes.md": SUM_GIT}


@pytest.mark.parametrize(
    ("sums", "changed", "proven"),
    [
        (RIGHT, {}, True),
        ({**RIGHT, "another.bin": "0" * 64}, {}, True),
        ({"model.bin": SUM_LFS}, {}, False),
        ({**RIGHT, "model.bin": "0" * 64}, {}, False),
        ({**RIGHT, "notes.md": "0" * 64}, {}, False),
        (RIGHT, {"model.bin": b"short"}, False),
        (RIGHT, {"notes.md": b"other"}, False),
    ],
    ids=["right", "more lines", "a line lacks", "stale", "stale git", "size", "git content"],
)
def test_what_sums_prove(
    tmp_path: Path, sums: dict[str, str], changed: dict[str, bytes], proven: bool
) -> None:
    for name, content in {"model.bin": WEIGHTS, "notes.md": NOTES, **changed}.items():
        (tmp_path / name).write_bytes(content)
    hidden = papers(tmp_path, sums)
    found = prove_share(tmp_path, (LFS, GIT), hidden, threading.Event())
    assert (found is not None) == proven
    if found is not None:
        assert {path: record.sha256 for path, record in found.items()} == RIGHT


def test_a_share_without_files_is_proven_by_anything(tmp_path: Path) -> None:
    assert prove_share(tmp_path, (), tmp_path, threading.Event()) == {}


def test_what_is_gone_is_not_proven(tmp_path: Path) -> None:
    file = RemoteFile("x", 1, Digest("git-sha1", "0" * 40))
    hidden = papers(tmp_path, {"x": "0" * 64})
    assert prove_share(tmp_path, (file,), hidden, threading.Event()) is None


@pytest.mark.parametrize(
    ("content", "touched", "proven"),
    [
        (WEIGHTS, False, True),
        (WEIGHTS, True, True),
        (WEIGHTS.upper(), True, False),
        # Nobody can see this without reading all: a receipt is believed.
        (WEIGHTS.upper(), False, True),
    ],
    ids=["untouched", "touched", "changed", "changed, with its old time"],
)
def test_what_was_touched_since_is_read(
    tmp_path: Path, content: bytes, *, touched: bool, proven: bool
) -> None:
    layout = layout_of(tmp_path, "1-of-3")
    file = bring(begun(layout), "model.bin", WEIGHTS)
    sink = Sink(layout)
    sink.look()
    record = sink.record_of(file)
    assert record
    write_sums(sink.hidden, [record])
    write_origin(sink.hidden, Origin("", "", None, A, "", (), (), {file.path: record}))
    path = tmp_path / file.path
    path.write_bytes(content)
    mtime = record.mtime_ns + (1 if touched else 0)
    os.utime(path, ns=(mtime, mtime))
    found = prove_share(tmp_path, (file,), sink.hidden, threading.Event())
    assert (found is not None) == proven


def papers(folder: Path, sums: Mapping[str, str]) -> Path:
    """A folder whose ``SHA256SUMS`` says this."""
    records = [Record(path, 0, 0, "", sha256, ()) for path, sha256 in sums.items()]
    write_sums(folder, records)
    return folder


# --- what runs know of one another ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [("1-of-3", ""), ("", "1-of-3"), ("1-of-3", "0-of-2")],
    ids=["shard, plain run", "plain run, shard", "two counts"],
)
def test_what_one_has_on_record_the_others_need_not_read(
    tmp_path: Path, first: str, second: str
) -> None:
    file = bring(begun(layout_of(tmp_path, first)), "model.bin", WEIGHTS)
    sink = Sink(layout_of(tmp_path, second))
    sink.look()
    assert sink.record_of(file)
    (tmp_path / "model.bin").write_bytes(WEIGHTS + b"!")
    assert not sink.record_of(file)


def layout_of(base: Path, name: str) -> Layout:
    shard = Shard.named(name)
    return ShardDir(base, shard) if shard else LocalDir(base)
