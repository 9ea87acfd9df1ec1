"""The same from Python, as the documentation shows it."""

import asyncio
import inspect
import typing
from importlib import resources
from pathlib import Path

import pytest

import aim_downloader
from aim_downloader import Config, DownloadError, adownload, download
from aim_downloader.errors import ConfigError, SnapshotNotFoundError
from aim_downloader.events import (
    Event,
    FileCommitted,
    FileReceived,
    FileStarted,
    PlanMade,
    RunCancelled,
    RunFailed,
    RunProgressed,
    SnapshotPublished,
    SnapshotResolved,
)
from tests.hub import HubServer, faults
from tests.integration.support import (
    MIB,
    RECEIPT,
    TOKEN,
    URI,
    Downloader,
    Files,
    assert_snapshot,
    names_below,
    total_size,
)

LARGE = "model.safetensors"


@pytest.fixture
def config(hub: HubServer) -> Config:
    return Config(endpoint=hub.endpoint, token=TOKEN, stall_timeout=20)


def test_download_returns_the_folder(config: Config, target: Path, files: Files) -> None:
    found = download(URI, target, config=config)
    assert found == target
    assert_snapshot(found, files)


def test_download_takes_a_string_for_the_folder(config: Config, target: Path, files: Files) -> None:
    assert download(URI, str(target), config=config) == target
    assert_snapshot(target, files)


def test_settings_come_from_the_environment(
    hub: HubServer, target: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    download(URI, target)
    assert_snapshot(target, files)


def test_single_settings_come_before_those_of_the_config(
    hub: HubServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    download(URI, target, include=["config.json"], revision="main")
    assert names_below(target) == {"config.json", *RECEIPT}


def test_globs_are_a_list(config: Config, target: Path) -> None:
    with pytest.raises(ConfigError, match="include is a string"):
        download(URI, target, config=config, include="*.json")
    assert not target.exists()


async def test_a_part_of_a_model_that_is_all_there_makes_it_no_less(
    downloader: Downloader, target: Path
) -> None:
    await downloader(target)
    await downloader(target, include=["config.json"])
    await downloader(target, offline=True)


async def test_offline_the_message_names_the_folder_and_what_it_lacks(
    downloader: Downloader, target: Path
) -> None:
    await downloader(target)
    (target / "config.json").unlink()
    with pytest.raises(SnapshotNotFoundError, match=r"it lacks config\.json") as caught:
        await downloader(target, offline=True)
    assert str(target) in str(caught.value)


async def test_clean_leaves_nothing_to_resume_when_cancelled_either(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    hub.pace(8e6)
    task = asyncio.create_task(downloader(target, include=[LARGE], clean=True))
    await until_half(hub)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names_below(target) == set()


def test_the_folder_is_the_models_name_when_none_is_given(
    config: Config, tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    download(URI, config=config)
    assert_snapshot(tmp_path / "model", files)


def test_it_is_typed() -> None:
    assert resources.files(aim_downloader).joinpath("py.typed").is_file()
    for function in (download, adownload):
        hints = typing.get_type_hints(function, vars(aim_downloader.api) | {"Event": Event})
        assert hints["return"] is Path
        assert set(hints) == {*inspect.signature(function).parameters, "return"}


def test_what_is_promised_can_be_imported() -> None:
    for name in aim_downloader.__all__:
        assert getattr(aim_downloader, name) is not None


async def test_events_come_in_order(downloader: Downloader, target: Path, files: Files) -> None:
    await downloader(target)
    events = [event for event in downloader.events if not isinstance(event, RunProgressed)]
    kinds = [type(event) for event in events]
    assert kinds[:2] == [SnapshotResolved, PlanMade]
    assert kinds[-1] is SnapshotPublished
    committed = [event.path for event in downloader.told(FileCommitted)]
    assert sorted(committed) == sorted(files)
    of_large = [type(event) for event in events if getattr(event, "path", "") == LARGE]
    assert of_large == [FileStarted, FileReceived, FileCommitted]


async def test_samples_add_up(hub: HubServer, downloader: Downloader, target: Path) -> None:
    hub.pace(20e6)
    await downloader(target)
    (plan,) = downloader.told(PlanMade)
    samples = downloader.told(RunProgressed)
    assert len(samples) >= 3
    done = [sample.bytes_done for sample in samples]
    assert done == sorted(done)
    last = samples[-1]
    assert (last.bytes_done, last.bytes_total) == (plan.bytes, plan.bytes)
    assert (last.files_done, last.files_total) == (plan.files, plan.files)
    (published,) = downloader.told(SnapshotPublished)
    assert (published.files, published.bytes) == (plan.files, plan.bytes)
    assert published.bytes_received == plan.bytes


async def test_a_failure_is_an_exception_and_an_event(downloader: Downloader, target: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        await downloader(target, "hf://nobody/nothing")
    (failed,) = downloader.told(RunFailed)
    assert failed.error == type(caught.value).__name__
    assert (failed.message, failed.exit_code) == (str(caught.value), caught.value.exit_code)
    assert not downloader.told(SnapshotPublished)


def test_a_uri_that_is_none_is_refused_before_any_request(hub: HubServer, config: Config) -> None:
    with pytest.raises(DownloadError):
        download("not a uri", config=config)
    assert hub.log == []


async def until_half(hub: HubServer) -> None:
    await asyncio.to_thread(hub.wait_for_bytes, 14 * MIB)


async def test_cancelling_leaves_a_folder_that_can_be_resumed(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(30e6)
    task = asyncio.create_task(downloader(target))
    await until_half(hub)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)
    (cancelled,) = downloader.told(RunCancelled)
    assert 8 * MIB < cancelled.bytes_done < cancelled.bytes_total == total_size(files)
    assert not (target / LARGE).exists()
    hub.pace(None)
    await downloader(target)
    assert_snapshot(target, files)
    assert hub.bytes_sent() <= total_size(files) + 8 * 2 * MIB
    resumed = downloader.told(PlanMade)[-1]
    assert resumed.resumed_bytes + resumed.held_bytes > 8 * MIB


async def test_cancelling_while_the_server_is_silent(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.Stall(), path=LARGE, at=2 * MIB + 5, times=None)
    task = asyncio.create_task(downloader(target, stall_timeout=60.0))
    await asyncio.to_thread(hub.wait_for_bytes, 2 * MIB, LARGE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)
    hub.clear_faults()
    await downloader(target)
    assert_snapshot(target, files)


async def test_a_timeout_of_asyncio_ends_it(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(5e6)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.8):
            await downloader(target)
    hub.pace(None)
    await downloader(target)
    assert_snapshot(target, files)


async def test_a_program_goes_on_after_a_cancelled_download(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    """No task of ours outlives it."""
    hub.pace(5e6)
    before = asyncio.all_tasks()
    task = asyncio.create_task(downloader(target))
    await asyncio.to_thread(hub.wait_for_bytes, 2 * MIB)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_two_models_at_the_same_time_in_one_program(
    hub: HubServer, downloader: Downloader, tmp_path: Path, files: Files
) -> None:
    hub.add_repo("org/copy", files)
    hub.pace(60e6)
    await asyncio.gather(
        downloader(tmp_path / "a"),
        downloader(tmp_path / "b", "hf://org/copy"),
    )
    assert_snapshot(tmp_path / "a", files)
    assert_snapshot(tmp_path / "b", files)


async def test_the_same_folder_twice_in_one_program(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(60e6)
    await asyncio.gather(downloader(target), downloader(target))
    assert_snapshot(target, files)
    assert hub.bytes_sent() <= total_size(files) + 2 * MIB


async def test_a_listener_that_raises_ends_the_run_and_is_heard(
    hub: HubServer, target: Path, config: Config
) -> None:
    def listen(event: Event) -> None:
        if event.name == "plan.made":
            raise RuntimeError("the listener's own mistake")

    with pytest.raises(RuntimeError, match="own mistake"):
        await adownload(URI, target, config=config, on_event=listen)
