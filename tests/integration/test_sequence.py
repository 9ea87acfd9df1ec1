"""The sequence of protocols as a whole run has it: what is named, what is told, what is left."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aim_downloader import adownload
from aim_downloader.errors import AllProtocolsFailedError, StorageError
from aim_downloader.events import Event, FileStarted, ProtocolsSkipped, RetryScheduled
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    URI,
    Command,
    Downloader,
    Files,
    assert_snapshot,
    wait_until,
)

LARGE, OTHER = "model.safetensors", "other.safetensors"


def test_unknown_names_of_the_environment_keep_their_places(
    command: Command, target: Path, files: Files
) -> None:
    done = command.run(URI, target, "--json", AIM_DOWNLOADER_PROTOCOL="FOO,http,BAR,FOO")
    assert done.code == 0, done.said
    assert '{"event": "protocols.skipped", "protocols": ["FOO", "BAR"]}' in done.stdout
    assert done.stdout.count('"protocol": "HTTP", "attempt": 2, "attempts": 4') == 2
    assert_snapshot(target, files)


def test_unknown_names_are_told_in_the_log(command: Command, target: Path) -> None:
    done = command.run(URI, target, AIM_DOWNLOADER_PROTOCOL="HTTP,FOO")
    assert done.stderr.count("Passed over, as no protocol has the name: FOO\n") == 1


@pytest.mark.parametrize(
    ("words", "variable"), [(["--protocol", "HTTP,FOO"], ""), ([], "FOO")], ids=["flag", "variable"]
)
def test_a_sequence_that_cannot_be_used_is_refused(
    command: Command, hub: HubServer, target: Path, words: list[str], variable: str
) -> None:
    done = command.run(URI, target, *words, AIM_DOWNLOADER_PROTOCOL=variable)
    assert done.code == 2, done.said
    assert "no protocol has the name FOO" in done.stderr
    assert "XET, HF_TRANSFER, HTTP" in done.stderr
    assert not target.exists()
    assert not hub.log


def test_of_several_attempts_in_vain_each_has_a_line(
    hub: HubServer, command: Command, target: Path
) -> None:
    hub.fault(faults.DamagedByte(5), path=LARGE, times=None)
    done = command.run(URI, target, "--protocol", "HTTP,HTTP")
    assert done.code == 69, done.said
    first, *tried, hint = [
        line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))
    ]
    assert first == f"error: {LARGE} could not be downloaded in 2 attempts"
    assert len(tried) == 2
    assert all(line.startswith("error: HTTP: ") for line in tried)
    assert hint.startswith("hint: ")
    assert f"HTTP begins again with {LARGE}: " in done.stderr
    assert f"HTTP gives up {LARGE}: " in done.stderr


async def test_who_names_all_protocols_hears_of_no_other(
    downloader: Downloader, target: Path
) -> None:
    await downloader(target, protocols=["http"])
    assert not downloader.told(ProtocolsSkipped)
    assert {event.protocol for event in downloader.told(FileStarted)} == {"HTTP"}


# --- scratch --------------------------------------------------------------------------------------


async def seen_in(folder: Path, downloader: Downloader, target: Path, **settings: Any) -> set[str]:
    """Downloads, and returns what was in a folder when a large file began."""
    found: set[str] = set()

    def hear(event: Event) -> None:
        if isinstance(event, FileStarted):
            found.update(path.name for path in folder.iterdir())

    config = downloader.config(**{"protocols": ["HF_TRANSFER"], **settings})
    await adownload(URI, target, config=config, on_event=hear)
    return found


async def test_scratch_is_there_while_large_files_come_and_gone_afterwards(
    downloader: Downloader, target: Path, files: Files
) -> None:
    assert len(await seen_in(target / HIDDEN / "scratch", downloader, target)) == 1
    assert_snapshot(target, files)


async def test_scratch_may_be_elsewhere_and_what_others_have_there_stays(
    downloader: Downloader, target: Path, tmp_path: Path, files: Files
) -> None:
    scratch = tmp_path / "fast"
    scratch.mkdir()
    (scratch / "mine").write_text("mine")
    assert len(await seen_in(scratch, downloader, target, scratch=str(scratch))) == 2
    assert [path.name for path in scratch.iterdir()] == ["mine"]
    assert_snapshot(target, files)


async def test_scratch_elsewhere_is_made_and_stays(
    downloader: Downloader, target: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "fast" / "scratch"
    await downloader(target, protocols=["HF_TRANSFER"], scratch=str(scratch))
    assert list(scratch.iterdir()) == []


async def test_scratch_that_cannot_be_made_says_where(
    downloader: Downloader, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="file"):
        await downloader(target, protocols=["HF_TRANSFER"], scratch=str(tmp_path / "file"))


async def test_without_an_engine_there_is_no_scratch(
    downloader: Downloader, target: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "fast"
    await downloader(target, protocols=["HTTP"], scratch=str(scratch))
    assert not scratch.exists()


def test_what_a_killed_run_has_left_elsewhere_goes_with_the_next(
    hub: HubServer, command: Command, target: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "fast"
    words = (URI, target, "--protocol", "HF_TRANSFER")
    hub.pace(10e6)
    running = command.start(*words, AIM_DOWNLOADER_SCRATCH=str(scratch))
    wait_until(lambda: running.ended or (scratch.exists() and any(scratch.iterdir())))
    running.kill()
    [left] = scratch.iterdir()
    assert left.stat().st_mode & 0o077 == 0
    hub.pace(None)
    done = command.run(*words, AIM_DOWNLOADER_SCRATCH=str(scratch))
    assert done.code == 0, done.said
    assert list(scratch.iterdir()) == []


async def test_a_run_that_fails_leaves_no_scratch(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    hub.fault(faults.DamagedByte(5), path=LARGE, times=None)
    with pytest.raises(AllProtocolsFailedError):
        await downloader(target, protocols=["HF_TRANSFER"])
    assert not (target / HIDDEN / "scratch").exists()


# --- listeners ------------------------------------------------------------------------------------


async def test_a_listener_that_raises_again_and_again_is_heard_once(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    """Several files break off at once, and each of them is told of from a thread."""
    for path in (LARGE, OTHER):
        hub.fault(faults.Reset(), path=path, times=None)

    def listen(event: Event) -> None:
        if isinstance(event, RetryScheduled):
            raise ZeroDivisionError(event.path)

    config = downloader.config(protocols=["HTTP"])
    with pytest.raises(ZeroDivisionError):
        await adownload(URI, target, config=config, on_event=listen)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # one runs this
