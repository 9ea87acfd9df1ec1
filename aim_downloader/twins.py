"""Names that are one to the target's file system: there the second file would replace the first."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from aim_downloader.errors import StorageError
from aim_downloader.names import folded_path
from aim_downloader.storage import DRAFT, storage_errors


def refuse_twins(hidden: Path, paths: Iterable[str], enough: threading.Event | None = None) -> None:
    """Refuse paths that are one and the same in the target.

    The file system is asked, in a folder below ``hidden``; and only about paths that some file
    system takes for the same. ``enough`` ends it early.

    Raises:
        StorageError: there are such paths, or the disk refuses.
    """
    for group in alike(paths):
        if enough is not None and enough.is_set():
            return
        if twins := _are_one(hidden, group):
            raise StorageError(
                f"{twins[0]!r} and {twins[1]!r} are one name to the file system of "
                f"{hidden.parent}: one file would replace the other",
                hint="choose a folder on another file system, or leave one out with --exclude",
            )


def alike(paths: Iterable[str]) -> list[list[str]]:
    """Groups of paths that some file system takes for the same."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(folded_path(path), []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def _are_one(hidden: Path, group: Sequence[str]) -> tuple[str, str] | None:
    """The first two of a group that the file system does not tell apart."""
    place = hidden / f"names.{secrets.token_hex(8)}{DRAFT}"
    with storage_errors(hidden):
        try:
            for path in group:
                if (place / path).exists():
                    return group[0], path
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (place / path).touch()
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return None
