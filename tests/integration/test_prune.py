"""A branch that moved: new files are brought, old ones are kept, and only --prune removes them."""

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from aim_downloader import adownload, arepair, plan
from aim_downloader.errors import DownloadError
from aim_downloader.events import EarlierSettled, Event, FilePruned, PlanMade, RunProgressed
from tests.folding import folding_folder
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    MIB,
    RECEIPT,
    SUMS,
    URI,
    Command,
    Downloader,
    Files,
    assert_right,
    assert_snapshot,
    names_below,
    wait_until,
)

LARGE, OTHER = "model.safetensors", "other.safetensors"
OLD: Files = {
    "config.json": b'{"old": true}',
    "README.md": b"same",
    LARGE: os.urandom(2 * MIB),
    "old.safetensors": os.urandom(2 * MIB + 1),
    "deep/er/old.json": b"old",
    "deep/stays.json": b"stays",
}
GONE = {"old.safetensors", "deep/er/old.json"}
CHANGED: Files = {"config.json": b'{"new": true}', LARGE: os.urandom(2 * MIB), "new.json": b"new"}
NEW: Files = {**{name: OLD[name] for name in OLD.keys() - GONE}, **CHANGED}
EARLIER_BYTES = 2 * MIB + 1 + 3


@pytest.fixture(autouse=True)
def _old(hub: HubServer) -> None:
    hub.add_repo("org/model", OLD)


def move(hub: HubServer) -> None:
    hub.repo("org/model").commit({**CHANGED, **dict.fromkeys(GONE)})


@pytest.fixture
async def moved(hub: HubServer, downloader: Downloader, target: Path) -> Path:
    """A folder of the old revision, while the branch is at the new one."""
    await downloader(target)
    move(hub)
    hub.clear_log()
    downloader.events.clear()
    return target


def assert_kept(target: Path) -> None:
    """The new revision is all there and on the sums; the files that it lacks stand there too."""
    assert names_below(target) == {*NEW, *GONE, *RECEIPT}
    for name, content in {**NEW, **{name: OLD[name] for name in GONE}}.items():
        assert_right(target / name, content)
    sums = (target / SUMS).read_text("utf-8").splitlines()
    assert {line[66:] for line in sums} == NEW.keys()


# --- kept -----------------------------------------------------------------------------------------


async def test_what_the_new_revision_lacks_is_kept_and_told(
    downloader: Downloader, moved: Path
) -> None:
    await downloader(moved)
    assert_kept(moved)
    assert downloader.told(EarlierSettled) == [EarlierSettled(2, EARLIER_BYTES, 0, 0, ())]
    (made,) = downloader.told(PlanMade)
    assert (made.kept_files, made.kept_bytes) == (2, EARLIER_BYTES)


async def test_it_is_told_again_by_later_runs_and_after_another_move(
    hub: HubServer, downloader: Downloader, moved: Path
) -> None:
    await downloader(moved)
    hub.repo("org/model").commit({"config.json": b"{}", "new.json": None})
    await downloader(moved)
    await downloader(moved)
    told = [(event.kept_files, event.kept_bytes) for event in downloader.told(EarlierSettled)]
    assert told == [(2, EARLIER_BYTES), (3, EARLIER_BYTES + 3), (3, EARLIER_BYTES + 3)]


async def test_it_is_told_by_a_run_that_asks_nobody(
    hub: HubServer, downloader: Downloader, moved: Path
) -> None:
    await downloader(moved)
    hub.clear_log()
    downloader.events.clear()
    await downloader(moved, f"{URI}@{hub.repo('org/model').head}")
    assert hub.log == []
    assert downloader.told(EarlierSettled) == [EarlierSettled(2, EARLIER_BYTES, 0, 0, ())]


async def test_what_somebody_has_removed_or_changed_is_not_told(
    downloader: Downloader, moved: Path
) -> None:
    (moved / "deep/er/old.json").unlink()
    (moved / "old.safetensors").write_bytes(b"mine")
    await downloader(moved)
    assert downloader.told(EarlierSettled) == []


async def test_a_branch_that_moves_back_needs_no_fetch_of_what_was_kept(
    hub: HubServer, downloader: Downloader, moved: Path
) -> None:
    await downloader(moved)
    hub.repo("org/model").commit({name: OLD[name] for name in GONE})
    hub.clear_log()
    await downloader(moved)
    assert not {record.file for record in hub.log} & GONE
    assert_snapshot(moved, {**NEW, **{name: OLD[name] for name in GONE}})


def test_plan_tells_what_is_kept_replaced_and_would_be_removed(
    command: Command, moved: Path
) -> None:
    for words, action in (
        (("plan",), "kept"),
        (("plan", "--prune"), "remove"),
        (("download", "--dry-run", "--prune"), "remove"),
    ):
        told = json.loads(command.run(words[0], URI, moved, *words[1:], "--json").stdout)
        rows = {row["path"]: (row["action"], row.get("reason")) for row in told["files"]}
        assert {name: rows[name] for name in GONE} == dict.fromkeys(
            GONE, (action, "of an earlier revision")
        )
        assert rows[LARGE] == rows["config.json"] == ("fetch", "replaces a file that differs")
        assert rows["new.json"] == ("fetch", None)
        assert told[f"{action}Bytes"] == EARLIER_BYTES
    assert names_below(moved) == {*OLD, *RECEIPT}


async def test_plan_from_python(downloader: Downloader, moved: Path) -> None:
    planned = await plan(URI, moved, config=downloader.config())
    assert {record.path for record in planned.kept} == GONE
    assert planned.kept_bytes == EARLIER_BYTES


def test_a_file_of_somebodys_own_that_differs_is_said_to_be_replaced(
    command: Command, target: Path
) -> None:
    target.mkdir()
    (target / "config.json").write_bytes(b"mine")
    done = command.run("plan", URI, target)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("config.json"))
    assert line.endswith("fetch: replaces a file that differs")


# --- pruned ---------------------------------------------------------------------------------------


async def test_prune_removes_what_the_new_revision_lacks(
    downloader: Downloader, moved: Path
) -> None:
    (moved / "deep/mine.txt").write_text("mine")
    await downloader(moved, prune=True)
    (moved / "deep/mine.txt").unlink()
    assert_snapshot(moved, NEW)
    assert not (moved / "deep/er").exists()
    assert {event.path for event in downloader.told(FilePruned)} == GONE
    assert downloader.told(EarlierSettled) == [EarlierSettled(0, 0, 2, EARLIER_BYTES, ())]
    assert json.loads((moved / HIDDEN / "origin.json").read_bytes())["earlier"] == []


@pytest.mark.parametrize("settings", [{}, {"offline": True}])
@pytest.mark.parametrize("pinned", [True, False])
async def test_prune_of_a_folder_that_is_up_to_date(
    hub: HubServer, downloader: Downloader, moved: Path, settings: dict[str, bool], pinned: bool
) -> None:
    await downloader(moved)
    uri = f"{URI}@{hub.repo('org/model').head}" if pinned else URI
    await downloader(moved, uri, prune=True, **settings)
    assert_snapshot(moved, NEW)
    downloader.events.clear()
    await downloader(moved, uri, prune=True, **settings)
    assert downloader.told(EarlierSettled) == []


async def test_prune_spares_what_a_wider_run_has_left_unfinished(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    """It is of this revision, though no receipt says so yet."""
    uri = f"{URI}@{hub.repo('org/model').head}"
    await downloader(target, uri, include=["*.json"])
    hub.fault(faults.Stall(), path=LARGE, times=None)
    await end_when((target / "README.md").exists, downloader(target, uri))
    hub.clear_faults()
    before = names_below(target)
    await downloader(target, uri, include=["*.json"], prune=True)
    # What the log knew is in the receipt now.
    assert names_below(target) == before - {f"{HIDDEN}/committed"}


async def test_prune_spares_a_file_that_somebody_has_changed(
    downloader: Downloader, moved: Path
) -> None:
    (moved / "old.safetensors").write_bytes(b"mine")
    await downloader(moved, prune=True)
    assert (moved / "old.safetensors").read_bytes() == b"mine"
    (settled,) = downloader.told(EarlierSettled)
    assert (settled.pruned_files, settled.changed) == (1, ("old.safetensors",))
    downloader.events.clear()
    await downloader(moved, prune=True)
    assert (moved / "old.safetensors").exists()


async def test_prune_spares_a_file_that_somebody_changes_meanwhile(
    downloader: Downloader, moved: Path
) -> None:
    def change(event: Event) -> None:
        downloader.events.append(event)
        if isinstance(event, PlanMade):
            (moved / "old.safetensors").write_bytes(b"mine")

    await adownload(URI, moved, config=downloader.config(prune=True), on_event=change)
    assert (moved / "old.safetensors").read_bytes() == b"mine"
    assert downloader.told(EarlierSettled) == [EarlierSettled(0, 0, 1, 3, ("old.safetensors",))]


async def test_prune_touches_nothing_that_no_receipt_knows(
    downloader: Downloader, moved: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old.json").write_bytes(b"old")
    (moved / "mine.safetensors").write_bytes(b"mine")
    (moved / "deep/er/old.json").unlink()
    (moved / "deep/er").rmdir()
    (moved / "deep/er").symlink_to(outside)
    await downloader(moved, prune=True)
    assert (moved / "mine.safetensors").exists()
    assert (outside / "old.json").read_bytes() == b"old"
    assert (moved / "deep/er").is_symlink()
    assert not (moved / "old.safetensors").exists()


async def test_prune_spares_files_of_this_revision_that_filters_leave_out(
    downloader: Downloader, moved: Path
) -> None:
    await downloader(moved, prune=True, include=["*.json"])
    for name, content in {**NEW, LARGE: OLD[LARGE]}.items():
        assert_right(moved / name, content)
    assert names_below(moved) == {*NEW, *RECEIPT}


@pytest.mark.parametrize("prune", [True, False])
async def test_a_changed_file_that_filters_leave_out_stays_until_it_is_of_no_revision(
    hub: HubServer, command: Command, downloader: Downloader, moved: Path, prune: bool
) -> None:
    """The other half of a model is still wanted, though its branch has moved."""
    uri = f"{URI}@{hub.repo('org/model').head}"
    words = ("--prune", "--json") if prune else ("--json",)
    told = json.loads(command.run("plan", uri, moved, "--include", "*.json", *words).stdout)
    (row,) = (row for row in told["files"] if row["path"] == LARGE)
    assert row["action"] == "leftOut"
    assert row["reason"] == "no --include matches; what is there is of an earlier revision"
    for _ in range(2):  # the second run has no listing
        await downloader(moved, uri, prune=prune, include=["*.json"])
        assert_right(moved / LARGE, OLD[LARGE])
    hub.repo("org/model").commit({LARGE: None})
    await downloader(moved, prune=True, include=["*.json"])
    assert not (moved / LARGE).exists()


def copy_own(target: Path, own: Mapping[str, bytes]) -> None:
    for name, content in own.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)


async def test_prune_spares_what_was_there_before(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    """A file of the user's own, that only has the listed bytes, as a LICENSE often has."""
    copy_own(target, {"README.md": b"same", "deep/stays.json": b"stays"})
    hub.fault(faults.Status(403), path=LARGE, where=None, times=None)
    with pytest.raises(DownloadError):
        await downloader(target)  # it is known to later runs from the log, too
    hub.clear_faults()
    await downloader(target)
    os.utime(target / "deep/stays.json")
    await arepair(target, config=downloader.config())  # it takes note of the new time
    hub.repo("org/model").commit({"README.md": None, "deep/stays.json": None, "config.json": None})
    await downloader(target)
    os.utime(target / "README.md")
    await downloader(target, prune=True)
    lacking = {"config.json"}
    assert names_below(target) == {*(OLD.keys() - lacking), *RECEIPT}


async def end_when(happened: Callable[[], object], run: Coroutine[Any, Any, object]) -> None:
    task = asyncio.create_task(run)
    await asyncio.to_thread(wait_until, happened)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_prune_spares_what_another_model_has_left_unfinished(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    await downloader(target)
    beside = {"b.json": b"{}", "c.json": b"{ }"}
    hub.add_repo("org/beside", {**beside, "large.safetensors": os.urandom(2 * MIB)})
    hub.fault(faults.Stall(), path="large.safetensors", times=None)
    await end_when(lambda: {*beside} <= names_below(target), downloader(target, "hf://org/beside"))
    hub.clear_faults()
    move(hub)
    downloader.events.clear()
    planned = await plan(URI, target, config=downloader.config())
    assert {record.path for record in planned.kept} == GONE
    await downloader(target)
    await downloader(target, prune=True)
    told = [(event.kept_files, event.pruned_files) for event in downloader.told(EarlierSettled)]
    assert told == [(2, 0), (0, 2)]
    assert names_below(target) == {*NEW, *beside, *RECEIPT}


def _received(downloader: Downloader) -> int:
    return max((event.bytes_received for event in downloader.told(RunProgressed)), default=0)


async def test_pruning_alone_keeps_what_can_be_gone_on_with(
    hub: HubServer, downloader: Downloader, moved: Path
) -> None:
    """A wider run was killed: its partials and its log stay, and the wider run goes on."""
    uri = f"{URI}@{hub.repo('org/model').head}"
    await downloader(moved, uri, include=["*.json"])
    hub.fault(faults.Stall(), path=LARGE, at=MIB + 1, times=None)
    await end_when(lambda: _received(downloader) >= MIB, downloader(moved, uri))
    hub.clear_faults()
    before = await plan(uri, moved, config=downloader.config())
    assert before.resumed_bytes > 0
    hub.clear_log()
    await downloader(moved, uri, include=["*.json"], prune=True)
    assert hub.log == []
    assert not any((moved / name).exists() for name in GONE)
    after = await plan(uri, moved, config=downloader.config())
    assert after.resumed_bytes == before.resumed_bytes
    assert {file.path for file in after.held} == {file.path for file in before.held}
    # Nor does a narrow run that fetches.
    (moved / "new.json").unlink()
    await downloader(moved, uri, include=["*.json"])
    assert (await plan(uri, moved, config=downloader.config())).resumed_bytes > 0
    await downloader(moved, uri)
    assert_snapshot(moved, NEW)


async def test_who_prunes_alone_brings_its_revision_when_another_run_took_it_away(
    hub: HubServer, downloader: Downloader, moved: Path
) -> None:
    uri = f"{URI}@{hub.repo('org/model').head}"
    await downloader(moved)
    hub.repo("org/model").commit({"config.json": b"newest"})
    hub.fault(faults.LateFirstByte(1.5), path="config.json", where=None, times=1)
    other = asyncio.create_task(Downloader(hub)(moved))
    await asyncio.to_thread(wait_until, (moved / HIDDEN / "lease").exists)
    downloader.events.clear()
    await downloader(moved, uri, prune=True)
    await other
    assert_snapshot(moved, NEW)
    (made,) = downloader.told(PlanMade)
    assert made.fetch_files == 1


async def test_prune_spares_a_file_that_is_only_spelt_another_way(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    """Where case makes no difference the old name is the new file, as a hard link shows here."""
    repository = hub.add_repo("org/spelt", {"Notes.md": b"notes", "Gone.md": b"gone"})
    await downloader(target, "hf://org/spelt")
    (target / "notes.md").hardlink_to(target / "Notes.md")
    repository.commit({"Notes.md": None, "Gone.md": None, "notes.md": b"notes"})
    await downloader(target, "hf://org/spelt", prune=True)
    assert names_below(target) == {"Notes.md", "notes.md", *RECEIPT}


async def test_prune_spares_a_file_that_has_one_of_several_spellings(
    hub: HubServer, downloader: Downloader, tmp_path: Path
) -> None:
    """`notes.md.` is none of the old file's names, and must not hide that `notes.md` is."""
    repository = hub.add_repo("org/spelt", {"Notes.md": b"notes", "Gone.md": b"gone"})
    new: Files = {"notes.md": b"notes", "notes.md.": b"others"}
    with folding_folder(tmp_path) as folder:
        target = folder / "target"
        await downloader(target, "hf://org/spelt")
        repository.commit({"Notes.md": None, "Gone.md": None, **new})
        await downloader(target, "hf://org/spelt", prune=True)
        for line in (target / SUMS).read_text("utf-8").splitlines():
            assert_right(target / line[66:], new[line[66:]])
        assert not (target / "Gone.md").exists()


async def test_prune_leaves_another_model_in_the_folder_alone(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    hub.add_repo("org/beside", {"beside.json": b"{}"})
    await downloader(target, "hf://org/beside")
    await downloader(target, prune=True)
    assert names_below(target) == {*OLD, "beside.json", *RECEIPT}
    assert downloader.told(EarlierSettled) == []


async def test_another_model_in_the_folder_is_named_once(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    await downloader(target)
    hub.add_repo("org/beside", {"beside.json": b"{}", "config.json": b"{}"})
    downloader.events.clear()
    planned = await plan("hf://org/beside", target, config=downloader.config())
    await downloader(target, "hf://org/beside")
    await downloader(target, "hf://org/beside")
    told = [event.hint for event in downloader.told(PlanMade)]
    assert told == [planned.hint, ""]
    assert planned.hint == (
        "the folder holds org/model: files of the same name are replaced, the others stay"
    )


async def test_nothing_is_pruned_before_the_new_revision_is_published(
    downloader: Downloader, moved: Path
) -> None:
    found: list[set[str]] = []

    def look(event: Event) -> None:
        if isinstance(event, FilePruned):
            found.append({line[66:] for line in (moved / SUMS).read_text("utf-8").splitlines()})

    await adownload(URI, moved, config=downloader.config(prune=True), on_event=look)
    assert found == [NEW.keys()] * len(GONE)


def test_at_a_shell(command: Command, moved: Path) -> None:
    kept = command.run(URI, moved)
    assert "2 files, 2 MiB, of an earlier revision are kept; --prune removes them" in kept.stderr
    assert_kept(moved)
    pruned = command.run(URI, moved, "--prune", "--json")
    told = [json.loads(line) for line in pruned.stdout.splitlines()]
    names = [event["event"] for event in told]
    assert names[-4:] == ["file.pruned", "file.pruned", "earlier.settled", "snapshot.published"]
    assert told[-2]["pruned_files"] == 2
    assert_snapshot(moved, NEW)


# --- killed ---------------------------------------------------------------------------------------


def test_a_kill_in_the_middle_leaves_each_file_whole(
    hub: HubServer, command: Command, target: Path
) -> None:
    names = [f"model-{number}.safetensors" for number in range(4)]
    old = {name: os.urandom(2 * MIB) for name in names} | {"config.json": b"old", "x.txt": b"x"}
    new = {name: os.urandom(2 * MIB) for name in names} | {"config.json": b"new"}
    repository = hub.add_repo("org/moving", old)
    assert command.run("hf://org/moving", target).code == 0
    repository.commit({**new, "x.txt": None})
    hub.pace(3e6)
    for part in (2, 5):
        sent = hub.bytes_sent()
        running = command.start("hf://org/moving", target, "--prune")
        hub.wait_for_bytes(sent + part * MIB)
        running.kill()
        for name in names:
            content = (target / name).read_bytes()
            assert content in {old[name], new[name]}, f"{name} is neither the old nor the new one"
        assert (target / "x.txt").exists()
    hub.pace(None)
    done = command.run("hf://org/moving", target, "--prune")
    assert done.code == 0, done.said
    assert_snapshot(target, new)
