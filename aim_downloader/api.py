"""What other programs call: a download, its plan, its size, and tidying up."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from aim_downloader.config import Config, Settings
from aim_downloader.environment import config_from_environ
from aim_downloader.errors import ConfigError, DownloadError
from aim_downloader.events import Emit, Event, RunCancelled, RunFailed
from aim_downloader.lease import Holder, Lease
from aim_downloader.planner import Plan, select
from aim_downloader.road import Road, connected
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import ModelURI


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What ``clean`` has removed (``bytes`` on disk), or who works there (``busy``)."""

    removed: tuple[Path, ...]
    bytes: int
    busy: str | None = None


def download(
    uri: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    on_event: Emit | None = None,
    **settings: Unpack[Settings],
) -> Path:
    """Bring a model into a folder, verified; see ``adownload``.

    Raises:
        RuntimeError: an event loop runs in this thread already, as in a notebook.
    """
    if _in_event_loop():
        raise RuntimeError("an event loop runs here: await adownload(…) instead")
    return asyncio.run(adownload(uri, directory, config=config, on_event=on_event, **settings))


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def adownload(
    uri: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    on_event: Emit | None = None,
    **settings: Unpack[Settings],
) -> Path:
    """Bring a model into a folder, verified.

    What is there and right is not fetched again, and what an earlier run has left is resumed.

    Args:
        uri: ``hf://owner/name[@revision][/subpath]``.
        directory: the target; ``./<name>`` when None.
        config: the settings; from the environment when None (see ``config_from_environ``).
        settings: single ones that come before those of ``config``, as the flags of the command do:
            ``download(uri, include=["*.json"], revision="main")``.
        on_event: called in the event loop's thread with each event of ``aim_downloader.events``.

    Returns:
        The target folder, whose files all have the size and digest that the source vouches for.

    Raises:
        DownloadError: see ``aim_downloader.errors`` for the tree. What is proven stays on disk.
        asyncio.CancelledError: cancelled; what is proven stays on disk.
    """
    config = replace(config or config_from_environ(os.environ), **settings)
    emit = on_event or _ignore
    road: Road | None = None
    try:
        road = Road(parse(uri, config), directory, config, emit)
        return await road.walk()
    except DownloadError as error:
        emit(RunFailed(type(error).__name__, str(error), error.hint, error.exit_code))
        raise
    except asyncio.CancelledError:
        done, total = road.progress.bytes() if road else (0, 0)
        emit(RunCancelled(0 if config.clean else done, total))
        raise


async def plan(
    uri: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    on_event: Emit | None = None,
) -> Plan:
    """Say what ``adownload`` would do, without writing anything.

    Raises:
        DownloadError: the snapshot cannot be listed, or does not fit.
    """
    config = config or config_from_environ(os.environ)
    road = Road(parse(uri, config), directory, config, on_event or _ignore)
    return await road.look_ahead()


async def snapshot_size(
    uri: str, *, config: Config | None = None, on_event: Emit | None = None
) -> int:
    """Bytes of the files that ``adownload`` would bring into an empty folder.

    Raises:
        DownloadError: the snapshot cannot be listed.
    """
    config = config or config_from_environ(os.environ)
    model = parse(uri, config)
    async with connected(config, on_event or _ignore) as connection:
        snapshot = await connection.resolve(model)
    wanted, _ = select(snapshot, config.include, config.exclude)
    return sum(file.size for file in wanted)


def clean(directory: str | os.PathLike[str]) -> CleanReport:
    """Remove what dead runs have left in a folder: partials, journals, logs and the lease.

    Raises:
        StorageError: the disk refuses.
    """
    return asyncio.run(_clean(LocalDir(Path(directory))))


class _BusyError(Exception):
    """A live run holds the folder."""


async def _clean(sink: LocalDir) -> CleanReport:
    if not sink.hidden.is_dir():
        return CleanReport((), 0)
    sink.prepare()
    first: list[Holder | None] = []

    def on_wait(holder: Holder | None) -> None:
        """Give up as soon as the heartbeat moves; a holder that is dead is waited out."""
        first.append(holder)
        if holder != first[0]:
            raise _BusyError(str(holder or "an unknown process"))

    try:
        async with Lease(sink.lease_path, lambda: (0, 0)).held(on_wait):
            removed, freed = sink.forget_unfinished()
    except _BusyError as busy:
        return CleanReport((), 0, str(busy))
    sink.leave()
    return CleanReport(removed, freed)


def parse(uri: str, config: Config) -> ModelURI:
    """The model's URI, with the revision of the settings when they name one.

    Raises:
        ConfigError: the URI cannot be used, or two revisions are named.
    """
    model = ModelURI.parse(uri)
    if config.revision is None:
        return model
    if model.revision not in (None, config.revision):
        raise ConfigError(f"{uri} names a revision, and --revision another: {config.revision}")
    return replace(model, revision=config.revision)


def _ignore(event: Event) -> None:
    """Nobody listens."""
