"""Several pods share one model: each brings its part of the files, the first one publishes it."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from aim_downloader.errors import ShardMissingError
from aim_downloader.events import PlanMade, RunProgressed, SnapshotPublished
from aim_downloader.lease import Holder
from aim_downloader.sharding import Shard, shares
from aim_downloader.snapshot import RemoteFile
from tests.folding import folding_folder
from tests.hub import HubServer
from tests.integration.support import (
    HIDDEN,
    MIB,
    SUMS,
    Command,
    Downloader,
    Files,
    Running,
    assert_right,
    content_requests,
    digest,
    names_below,
    size_of,
    total_size,
    wait_until,
)

URI = "hf://org/shared"
WAITING = "Waiting for"
COUNT = 3
SLACK = 2 * MIB
PER_KILL = 16 * 2 * MIB + 8 * MIB


@pytest.fixture
def model(hub: HubServer) -> Files:
    """Something for each of three shards, large and small."""
    weights = {f"model-{number}.safetensors": os.urandom(10 * MIB + number) for number in range(3)}
    small = {f"part/{number}.json": os.urandom(3000 + number) for number in range(9)}
    files = {**weights, **small, "config.json": b"{}", "empty.txt": b""}
    hub.add_repo("org/shared", files)
    return files


def shard(
    command: Command, target: Path, index: int, count: int = COUNT, uri: str = URI
) -> Running:
    return command.start(
        uri, target, AIM_DOWNLOADER_SHARDS=str(count), JOB_COMPLETION_INDEX=str(index)
    )


def all_of(command: Command, target: Path, count: int = COUNT, uri: str = URI) -> list[Running]:
    return [shard(command, target, index, count, uri) for index in range(count)]


def share(files: Files, index: int, count: int = COUNT) -> Files:
    listed = [RemoteFile(path, size_of(content), None) for path, content in files.items()]
    return {file.path: files[file.path] for file in shares(listed, count)[index]}


def assert_done(*running: Running) -> None:
    for one in running:
        done = one.finish()
        assert done.code == 0, done.said


def assert_published(target: Path, files: Files) -> None:
    """Exactly these files, right to the byte, and of ours the sums alone."""
    assert names_below(target) == {*files, SUMS}
    for name, content in files.items():
        assert_right(target / name, content)
    sums = sorted(f"{digest(content)}  {name}" for name, content in files.items())
    assert sorted((target / SUMS).read_text("utf-8").splitlines()) == sums
    assert [path.name for path in (target / HIDDEN).iterdir()] == ["SHA256SUMS"]


def sums_of(target: Path, index: int, count: int = COUNT) -> Path:
    return target / HIDDEN / f"{index}-of-{count}" / "SHA256SUMS"


def lease_of(target: Path, index: int, count: int = COUNT) -> Path:
    return target / HIDDEN / f"{index}-of-{count}" / "lease"


# --- together -------------------------------------------------------------------------------------


def test_three_beside_one_another_are_as_good_as_one(
    hub: HubServer,
    command: Command,
    downloader: Downloader,
    target: Path,
    tmp_path: Path,
    model: Files,
) -> None:
    assert_done(*all_of(command, target))
    assert_published(target, model)
    assert hub.bytes_sent() <= total_size(model) + SLACK, "nothing is fetched twice"
    alone = downloader.run(tmp_path / "alone", URI, origin=False)
    assert names_below(alone) == names_below(target)
    for name in names_below(alone):
        assert (alone / name).read_bytes() == (target / name).read_bytes()


def test_jobs_share_too_and_the_first_one_answers_for_all(
    command: Command, target: Path, tmp_path: Path, model: Files
) -> None:
    running = [
        command.start(
            "job",
            URI,
            target,
            AIM_DOWNLOADER_SHARDS="3",
            JOB_COMPLETION_INDEX=str(index),
            AIM_DOWNLOADER_TERMINATION_LOG=str(tmp_path / f"{index}.json"),
        )
        for index in range(COUNT)
    ]
    logs = [one.finish() for one in running]
    assert [one.code for one in logs] == [0] * COUNT
    assert "Done: " in logs[0].stderr.splitlines()[-1]
    for index in (1, 2):
        last = logs[index].stderr.splitlines()[-1]
        assert last.startswith(f"The share of shard {index} of 3 is there")
    assert_published(target, model)
    said = [json.loads((tmp_path / f"{index}.json").read_text()) for index in range(COUNT)]
    assert [one["outcome"] for one in said] == ["complete"] * COUNT
    assert [one["uri"] for one in said] == [URI] * COUNT
    assert said[0]["bytes"] == total_size(model)
    assert said[1]["bytes"] == total_size(share(model, 1))


def test_each_fetches_its_share_alone_and_says_so(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    done = shard(command, target, 1).finish()
    assert done.code == 0, done.said
    assert "Shard 1 of 3" in done.stderr
    assert {each.file for each in content_requests(hub.log)} == {*share(model, 1)}
    assert not (target / SUMS).exists()
    assert sums_of(target, 1).exists()


def test_the_order_of_coming_makes_no_difference(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    for index in (2, 1, 0):
        assert_done(shard(command, target, index))
    assert_published(target, model)
    assert hub.bytes_sent() <= total_size(model) + SLACK


def test_a_complete_folder_is_read_and_nothing_is_fetched(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    assert_done(*all_of(command, target))
    hub.clear_log()
    assert_done(*all_of(command, target))
    assert not content_requests(hub.log)
    assert_published(target, model)


def test_damage_is_found_by_whose_share_it_is(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    assert_done(*all_of(command, target))
    name = next(iter(share(model, 2)))
    content = bytearray((target / name).read_bytes())
    content[1000] ^= 1
    (target / name).write_bytes(content)
    hub.clear_log()
    assert_done(*all_of(command, target))
    assert {each.file for each in content_requests(hub.log)} == {name}
    assert_published(target, model)


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b"{}"},
        {"config.json": b"{}", "empty.txt": b""},
        {f"{number}.json": b"%d" % number for number in range(40)},
        {"model.safetensors": b"w" * 2_000_000},
    ],
    ids=["one file", "two files", "small ones only", "one large file"],
)
def test_shares_of_all_kinds(
    hub: HubServer, command: Command, target: Path, files: dict[str, bytes]
) -> None:
    hub.add_repo("org/kind", files)
    assert_done(*all_of(command, target, uri="hf://org/kind"))
    assert_published(target, files)


def test_one_shard_alone_is_the_whole(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    done = command.run(URI, target, AIM_DOWNLOADER_SHARD="0/1")
    assert done.code == 0, done.said
    assert_published(target, model)
    assert hub.bytes_sent() <= total_size(model) + SLACK


# --- killed ---------------------------------------------------------------------------------------


def test_one_is_killed_and_comes_again(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    hub.pace(8e6)
    running = all_of(command, target)
    wait_until(lambda: list((target / HIDDEN / "2-of-3").glob("partial/*.journal")))
    time.sleep(0.5)
    running[2].kill()
    # The others are not disturbed: one ends, the first one waits.
    hub.pace(None)
    assert_done(running[1])
    running[0].wait_for_words(f"{WAITING} 1 of 3 shards: shard 2")
    assert not running[0].ended
    assert not (target / SUMS).exists()
    assert_done(shard(command, target, 2), running[0])
    assert_published(target, model)
    assert hub.bytes_sent() <= total_size(model) + PER_KILL
    own = {path for index in (0, 1) for path in share(model, index)}
    sent = sum(each.bytes_sent for each in hub.log if each.file in own)
    assert sent <= sum(size_of(model[path]) for path in own) + SLACK


def test_the_first_is_killed_while_it_waits(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 2 of 3 shards")
    first.kill()
    assert_done(shard(command, target, 1))
    hub.clear_log()
    again = shard(command, target, 0)
    again.wait_for_words(f"{WAITING} 1 of 3 shards")
    assert not content_requests(hub.log)
    assert_done(shard(command, target, 2), again)
    assert_published(target, model)


def test_the_first_is_ended_while_it_waits(command: Command, target: Path, model: Files) -> None:
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 2 of 3 shards")
    ended = first.end_by(signal.SIGTERM)
    assert ended.code == 143, ended.said
    assert not lease_of(target, 0).exists()
    assert_done(*all_of(command, target))
    assert_published(target, model)


def test_one_that_was_killed_when_it_was_done_is_not_waited_for(
    command: Command, target: Path, model: Files
) -> None:
    """Its sums are there, and a lease that nobody has let go."""
    for index in (1, 2):
        assert_done(shard(command, target, index))
    dead = replace(Holder.this_process(), process_start="0", beat=9)
    lease_of(target, 2).write_text(json.dumps(asdict(dead)))
    assert_done(shard(command, target, 0))
    assert_published(target, model)


def test_one_that_comes_after_the_end_leaves_nothing(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    assert_done(*all_of(command, target))
    hub.clear_log()
    assert_done(shard(command, target, 2))
    assert not content_requests(hub.log)
    assert_published(target, model)


def test_one_that_wakes_after_the_end_leaves_nothing(
    command: Command, target: Path, model: Files
) -> None:
    """It knows the pin, and waits for its turn, while all is published without it."""
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 2 of 3 shards")
    first.kill()
    [pin] = (target / HIDDEN).glob("pin.*")
    content = pin.read_bytes()
    assert_done(*all_of(command, target))
    pin.write_bytes(content)
    lease_of(target, 2).parent.mkdir()
    elsewhere = replace(Holder.this_process(), host="another", beat=9)
    lease_of(target, 2).write_text(json.dumps(asdict(elsewhere)))
    late = shard(command, target, 2)
    late.wait_for_words("another")
    pin.unlink()
    lease_of(target, 2).unlink()
    assert_done(late)
    assert_published(target, model)


def test_one_that_comes_late_mixes_no_versions(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    assert_done(*all_of(command, target))
    moved = {**model, **{name: os.urandom(3 * MIB) for name in share(model, 2)}}
    hub.repo("org/shared").commit(moved)
    late = shard(command, target, 2)
    late.wait_for_words(f"{WAITING} 1 of 3 shards: shard 0")
    late.kill()
    assert_published(target, model)


def test_the_first_one_alone_changes_nothing_that_is_published(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    """A pod may come again after the end, and find that the branch has moved."""
    assert_done(*all_of(command, target))
    moved = {name: os.urandom(size_of(content)) for name, content in model.items()}
    hub.repo("org/shared").commit(moved)
    hub.clear_log()
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 2 of 3 shards")
    time.sleep(1)
    assert not content_requests(hub.log)
    for name, content in model.items():
        assert_right(target / name, content)
    assert_done(shard(command, target, 1), shard(command, target, 2), first)
    assert_published(target, moved)


# --- which commit ---------------------------------------------------------------------------------


def test_a_branch_that_moves_between_two_starts(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    assert_done(shard(command, target, 1))
    moved = {name: os.urandom(size_of(content)) for name, content in model.items()}
    hub.repo("org/shared").commit(moved)
    assert_done(shard(command, target, 2), shard(command, target, 0))
    assert_published(target, model)
    # All together then follow the branch.
    assert_done(*all_of(command, target))
    assert_published(target, moved)


def test_sums_of_an_earlier_commit_are_not_published(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    for index in (1, 2):
        assert_done(shard(command, target, index))
    for pin in (target / HIDDEN).glob("pin.*"):
        pin.unlink()
    # Of the same sizes, so that the shares are the same, and nothing but digests tells.
    moved = {name: os.urandom(size_of(content)) for name, content in model.items()}
    hub.repo("org/shared").commit(moved)
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 2 of 3 shards")
    time.sleep(1)
    assert not (target / SUMS).exists()
    assert_done(shard(command, target, 1), shard(command, target, 2), first)
    assert_published(target, moved)


# --- what the first one tells ---------------------------------------------------------------------


def test_the_first_one_tells_of_the_whole_model(
    hub: HubServer, command: Command, downloader: Downloader, target: Path, model: Files
) -> None:
    for index in (1, 2):
        assert_done(shard(command, target, index))
    downloader.run(target, URI, shard=Shard(0, COUNT))
    size = total_size(model)
    [plan] = downloader.told(PlanMade)
    assert (plan.files, plan.bytes) == (len(model), size)
    assert plan.fetch_bytes == total_size(share(model, 0))
    *samples, last = downloader.told(RunProgressed)
    assert samples
    assert {sample.bytes_total for sample in samples} == {size}
    assert all(sample.bytes_done < size for sample in samples)
    assert (last.bytes_done, last.bytes_total) == (size, size)
    assert (last.files_done, last.files_total) == (len(model), len(model))
    [published] = downloader.told(SnapshotPublished)
    assert (published.files, published.bytes) == (len(model), size)
    assert downloader.events[-1] == published


def test_a_shard_that_does_not_come(downloader: Downloader, target: Path, model: Files) -> None:
    for index in (0, 1):
        config = {"shard": Shard(index, COUNT), "shard_patience": 1.0}
        if index:
            downloader.run(target, URI, **config)
            continue
        with pytest.raises(ShardMissingError, match="shard 1, 2 did not come for 1 s") as caught:
            downloader.run(target, URI, **config)
        assert caught.value.exit_code == 75
        assert "index 1, 2" in caught.value.hint
    with pytest.raises(ShardMissingError, match="shard 2 did not come for 1 s"):
        downloader.run(target, URI, shard=Shard(0, COUNT), shard_patience=1.0)
    assert not (target / SUMS).exists()


def test_one_after_the_other_is_not_given_up(
    hub: HubServer, command: Command, downloader: Downloader, target: Path, model: Files
) -> None:
    """As in a Job whose `parallelism` is below its `completions`."""
    # More than a busy machine needs to start the next one.
    patience = 13.0

    def others() -> None:
        hub.pace(0.5e6)
        assert_done(shard(command, target, 1))
        hub.pace(None)
        assert_done(shard(command, target, 2))

    with pytest.raises(ShardMissingError):  # its own share is there from now on
        downloader.run(target, URI, shard=Shard(0, COUNT), shard_patience=0.1)
    with ThreadPoolExecutor(1) as executor:
        begun, coming = time.monotonic(), executor.submit(others)
        wait_until(lambda: lease_of(target, 1).exists())
        downloader.run(target, URI, shard=Shard(0, COUNT), shard_patience=patience)
        assert time.monotonic() - begun > patience
        coming.result()
    assert_published(target, model)


# --- what is left, and other runs -----------------------------------------------------------------


def left_half_done(hub: HubServer, command: Command, target: Path) -> None:
    """One is done with its share, another one is killed in the middle of its own."""
    assert_done(shard(command, target, 1))
    hub.pace(6e6)
    running = shard(command, target, 2)
    wait_until(lambda: list((target / HIDDEN / "2-of-3").glob("partial/*.journal")))
    time.sleep(0.5)
    running.kill()
    hub.pace(None)
    assert lease_of(target, 2).exists()


def test_a_plain_run_goes_on_from_there(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    left_half_done(hub, command, target)
    hub.clear_log()
    done = command.run(URI, target)
    assert done.code == 0, done.said
    assert names_below(target) == {*model, SUMS, f"{HIDDEN}/origin.json"}
    assert not any(path.is_dir() for path in (target / HIDDEN).iterdir())
    fetched = {each.file for each in content_requests(hub.log)}
    assert not fetched & {*share(model, 1)}, "what a shard has on record is not fetched again"


def test_another_count_goes_on_from_there(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    left_half_done(hub, command, target)
    assert_done(*all_of(command, target, 2))
    assert_published(target, model)


def test_clean_removes_what_is_left(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    left_half_done(hub, command, target)
    done = command.run("clean", target)
    assert done.code == 0, done.said
    assert "removed" in done.stdout
    assert not (target / HIDDEN).exists()
    assert all((target / name).exists() for name in share(model, 1)), "finished files stay"


def test_what_belongs_to_living_shards_is_left_alone(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    assert_done(shard(command, target, 1))
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 1 of 3 shards")
    refused = command.run("clean", target)
    assert refused.code == 75, refused.said
    assert sums_of(target, 1).exists(), "the first one waits for the last: it needs these, too"
    assert_done(shard(command, target, 2), first)
    assert_published(target, model)


def test_a_plain_run_beside_shards_spoils_nothing(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    hub.pace(20e6)
    running = all_of(command, target)
    hub.wait_for_bytes(2 * MIB)
    plain = command.start(URI, target)
    hub.pace(None)
    assert_done(plain, *running)
    assert names_below(target) - {f"{HIDDEN}/origin.json"} == {*model, SUMS}
    for name, content in model.items():
        assert_right(target / name, content)
    assert command.run("verify", target).code == 0


def test_what_another_run_has_replaced_is_not_published(
    hub: HubServer, command: Command, target: Path, model: Files
) -> None:
    """A plain run brings another version, of the same sizes, while the first one waits."""
    assert_done(shard(command, target, 1))
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 1 of 3 shards")
    weights = next(iter(share(model, 0)))
    moved = {**model, weights: os.urandom(size_of(model[weights]))}
    hub.repo("org/shared").commit(moved)
    hub.pace(8e6)
    hub.clear_log()
    plain = command.start(URI, target)
    hub.wait_for_bytes(MIB)
    last = shard(command, target, 2)
    hub.wait_for_bytes(4 * MIB)
    hub.pace(None)
    assert_done(plain, last)
    ended = first.finish()
    assert ended.code == 75, ended.said
    assert "has changed since" in ended.stderr
    for name, content in moved.items():
        assert_right(target / name, content)
    assert command.run("verify", target).code == 0


def test_what_was_changed_since_a_shard_was_done_is_read(
    command: Command, target: Path, model: Files
) -> None:
    for index in (1, 2):
        assert_done(shard(command, target, index))
    name = next(iter(share(model, 2)))
    right = (target / name).read_bytes()
    (target / name).write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    first = shard(command, target, 0)
    first.wait_for_words(f"{WAITING} 1 of 3 shards: shard 2")
    assert not (target / SUMS).exists()
    assert_done(shard(command, target, 2), first)
    assert_published(target, model)


def test_verify_knows_what_shards_have_published(
    command: Command, target: Path, model: Files
) -> None:
    assert_done(*all_of(command, target))
    done = command.run("verify", target)
    assert done.code == 0, done.said


def test_names_that_are_one_are_refused_though_they_are_in_two_shares(
    hub: HubServer, command: Command, tmp_path: Path
) -> None:
    files = {"README.md": b"1", "readme.md": b"2"}
    hub.add_repo("org/names", files)
    with folding_folder(tmp_path) as folder:
        done = shard(command, folder / "model", 0, 2, "hf://org/names").finish()
    assert done.code == 73, done.said
    assert "are one name" in done.stderr
    assert not content_requests(hub.log)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AIM_DOWNLOADER_SHARDS": "3", "JOB_COMPLETION_INDEX": "3"}, "must be 0 to 2"),
        ({"AIM_DOWNLOADER_SHARDS": "3"}, "JOB_COMPLETION_INDEX"),
        ({"AIM_DOWNLOADER_SHARD": "first"}, "'first' is no shard"),
        ({"AIM_DOWNLOADER_SHARD": "0/3", "AIM_DOWNLOADER_LAYOUT": "hf-cache"}, "plain folder"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    hub: HubServer, command: Command, target: Path, environment: dict[str, str], words: str
) -> None:
    done = command.start(URI, target, **environment).finish()
    assert done.code == 2, done.said
    assert words in done.stderr
    assert not hub.log
