"""What other programs call: a download, its plan and size, verify and repair, tidying up."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from aim_downloader.config import Config, Settings
from aim_downloader.connection import connected
from aim_downloader.environment import config_from_environ
from aim_downloader.errors import ConfigError, DownloadError
from aim_downloader.events import Emit, Event, RunCancelled, RunFailed
from aim_downloader.findings import Findings
from aim_downloader.lease import BusyError, Lease, unless_alive
from aim_downloader.mending import mend
from aim_downloader.planner import Plan, select
from aim_downloader.road import Road
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.choice import layouts_in
from aim_downloader.sinks.clearing import clear_shards
from aim_downloader.snapshot import ModelURI
from aim_downloader.verifying import place_of, verify_folder

if TYPE_CHECKING:
    from aim_downloader.sharing import Sharing


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
    _refuse_in_event_loop("await adownload(…) instead")
    return asyncio.run(adownload(uri, directory, config=config, on_event=on_event, **settings))


def _refuse_in_event_loop(instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"an event loop runs here: {instead}")


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
    way: Road | Sharing | None = None
    try:
        model = parse(uri, config)
        if config.shard:
            from aim_downloader.sharing import Sharing

            way = Sharing(model, directory, config, emit, config.shard)
        else:
            way = Road(model, directory, config, emit)
        return await way.walk()
    except DownloadError as error:
        emit(RunFailed(type(error).__name__, str(error), error.hint, error.exit_code))
        raise
    except asyncio.CancelledError:
        done, total = way.bytes() if way else (0, 0)
        emit(RunCancelled(done, total))
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
    selection = select(snapshot, config.include, config.exclude, config.weight_format)
    return sum(file.size for file in selection.wanted)


def verify(
    directory: str | os.PathLike[str],
    uri: str | None = None,
    *,
    remote: bool = False,
    config: Config | None = None,
    on_event: Emit | None = None,
    **settings: Unpack[Settings],
) -> Findings:
    """Read every byte of a folder again; see ``averify``.

    Raises:
        RuntimeError: an event loop runs in this thread already, as in a notebook.
    """
    _refuse_in_event_loop("await averify(…) instead")
    return asyncio.run(
        averify(directory, uri, remote=remote, config=config, on_event=on_event, **settings)
    )


async def averify(
    directory: str | os.PathLike[str],
    uri: str | None = None,
    *,
    remote: bool = False,
    config: Config | None = None,
    on_event: Emit | None = None,
    **settings: Unpack[Settings],
) -> Findings:
    """Read every byte of a folder again, and compare it with its receipt. Nothing is written.

    Args:
        directory: a folder that ``download`` has made; any, with a ``uri``.
        uri: the model that it should be: the source is asked for it, and no receipt is needed.
        remote: ask the source what should be there for the receipt's commit, too.
        config: as for ``adownload``.
        settings: as for ``adownload``.
        on_event: as for ``adownload``.

    Returns:
        What was found; see ``Findings.all_right``.

    Raises:
        DownloadError: there is nothing to compare with, or the source cannot be asked.
    """
    config = replace(config or config_from_environ(os.environ), **settings)
    model = parse(uri, config) if uri else None
    asked = remote or model is not None
    layout = place_of(Path(directory), model)
    return await verify_folder(layout, model, config, on_event or _ignore, remote=asked)


def repair(
    directory: str | os.PathLike[str],
    uri: str | None = None,
    *,
    config: Config | None = None,
    on_event: Emit | None = None,
    **settings: Unpack[Settings],
) -> Findings:
    """Verify a folder, and fetch what is damaged or missing; see ``arepair``.

    Raises:
        RuntimeError: an event loop runs in this thread already, as in a notebook.
    """
    _refuse_in_event_loop("await arepair(…) instead")
    return asyncio.run(arepair(directory, uri, config=config, on_event=on_event, **settings))


async def arepair(
    directory: str | os.PathLike[str],
    uri: str | None = None,
    *,
    findings: Findings | None = None,
    config: Config | None = None,
    on_event: Emit | None = None,
    **settings: Unpack[Settings],
) -> Findings:
    """Verify a folder, and fetch what is damaged or missing, from the receipt's commit.

    Of a large file only the damaged stretches of 16 MiB are fetched.

    Args:
        directory: as for ``averify``.
        uri: as for ``averify``.
        findings: what ``averify`` has just found; None to verify first.
        config: as for ``adownload``.
        settings: as for ``adownload``.
        on_event: as for ``adownload``.

    Returns:
        What was mended; nothing is wrong any more.

    Raises:
        DownloadError: something could not be fetched. A file that was damaged has lost its name,
            and the next download or repair goes on with it.
    """
    config = replace(config or config_from_environ(os.environ), **settings)
    emit, model = on_event or _ignore, parse(uri, config) if uri else None
    if findings is None:
        findings = await averify(directory, uri, config=config, on_event=emit)
    return await mend(place_of(Path(directory), model), model, findings, config, emit)


def clean(directory: str | os.PathLike[str], *, on_event: Emit | None = None) -> CleanReport:
    """Remove what dead runs have left in a folder: partials, journals, logs and the lease.

    Of a cache of huggingface_hub that is done for each of its models. ``on_event`` hears of a run
    that may be dead, for which it waits some seconds.

    Raises:
        RuntimeError: an event loop runs in this thread already.
        StorageError: the disk refuses.
    """
    _refuse_in_event_loop("call clean in a thread")
    sinks = [Sink(layout) for layout in layouts_in(Path(directory))]
    reports = [asyncio.run(_clean(sink, on_event or _ignore)) for sink in sinks]
    removed = tuple(path for report in reports for path in report.removed)
    busy = next((report.busy for report in reports if report.busy), None)
    return CleanReport(removed, sum(report.bytes for report in reports), busy)


async def _clean(sink: Sink, emit: Emit) -> CleanReport:
    sink.prepare()
    try:
        async with Lease(sink.lease_path, lambda: (0, 0)).held(unless_alive(emit)):
            removed, freed = sink.forget_unfinished()
            of_shards = await clear_shards(sink.layout, emit)
    except BusyError as busy:
        return CleanReport((), 0, str(busy))
    sink.leave()
    return CleanReport((*removed, *of_shards.removed), freed + of_shards.bytes, of_shards.busy)


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
