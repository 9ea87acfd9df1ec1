"""Which layout: the one that a run asks for, or those that are found in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from aim_downloader import config
from aim_downloader.errors import ConfigError
from aim_downloader.names import HIDDEN
from aim_downloader.receipt import read_origin
from aim_downloader.sinks.hf_cache import HfCache, known_commits
from aim_downloader.sinks.layout import Layout
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import ModelURI


def layout_for(
    name: config.Layout, uri: ModelURI, directory: str | os.PathLike[str] | None
) -> Layout:
    """The place of a model in ``directory``, or where each layout has it when that is None.

    Raises:
        ConfigError: the layout has no place for the model.
    """
    if name == "hf-cache":
        return HfCache.of(uri, None if directory is None else Path(directory))
    return LocalDir(default_folder(uri) if directory is None else Path(directory))


def default_folder(uri: ModelURI) -> Path:
    """The folder of a model when none is named.

    Raises:
        ConfigError: another model of the same name is in it, which nobody meant to replace.
    """
    folder = Path(uri.name)
    origin = read_origin(folder / HIDDEN)
    if origin and origin.repository != uri.repository:
        raise ConfigError(
            f"./{folder} holds hf://{origin.repository}", hint=f"name a DIR for {uri} behind it"
        )
    return folder


def layouts_in(directory: Path) -> list[Layout]:
    """All that runs have left something of in a target, a cache, a model of it, or a snapshot.

    A snapshot is the folder that a run has returned.
    """
    if found := known_commits(directory):
        return [*found]
    if (directory / HIDDEN).is_dir():
        return [LocalDir(directory)]
    directory = directory.absolute()
    if directory.parent.name == "snapshots":
        commits = known_commits(directory.parents[1])
        return [one for one in commits if one.commit == directory.name]
    models = sorted(directory.glob("models--*"))
    return [one for model in models for one in known_commits(model)]
