"""Paths below a folder in which somebody may have planted links: no link is followed there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from aim_downloader.errors import StorageError


def make_folder(folder: Path) -> None:
    """Make a folder that may be there already.

    Raises:
        OSError: it cannot be made.
        StorageError: a symlink stands there.
    """
    folder.mkdir(exist_ok=True)
    refuse_symlink(folder)


def refuse_symlink(folder: Path) -> None:
    """Refuse a folder that is a symlink.

    Raises:
        StorageError: it is one.
    """
    if folder.is_symlink():
        raise StorageError(
            f"{folder} is a symlink: files would leave the target folder",
            hint="move it away, or download to the folder it points to",
        )


def plain_file(base: Path, path: str) -> os.stat_result | None:
    """The status of a regular file below ``base``; None for anything else, links included."""
    try:
        # Text, not Path, here and below: a model may have 200,000 files.
        found = os.lstat(f"{base}/{path}")
    except (OSError, ValueError):
        return None
    return found if stat.S_ISREG(found.st_mode) and not behind_link(base, path) else None


def link_text(base: Path, path: str) -> str | None:
    """Where a symlink below ``base`` points, as it is written; None for anything else."""
    try:
        text = os.readlink(f"{base}/{path}")  # noqa: PTH115
    except (OSError, ValueError):
        return None
    return None if behind_link(base, path) else text


def behind_link(base: Path, path: str) -> bool:
    """Whether a folder on the way to a file is a symlink."""
    return any(_is_link(f"{base}/{folder}") for folder in _folders(path))


def folders_to(base: Path, path: str) -> Iterator[Path]:
    """The folders between ``base`` and a file, the outermost first."""
    return (base / folder for folder in _folders(path))


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False


def _folders(path: str) -> Iterator[str]:
    return accumulate(path.split("/")[:-1], "{}/{}".format)
