"""The commit that all shards of a run take: a file that the first of them creates.

Its name says what was asked for, so a pin of something else is never taken for this one. It saves
work, and proves nothing: what is published is decided by digests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from aim_downloader.storage import read_whole, storage_errors, write_new

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PREFIX = "pin."
_WRITTEN_WITHIN = 15.0
_GLANCE = 0.2


class Pin:
    """The pin below ``hidden`` of ``count`` shards that were asked for the same."""

    def __init__(self, hidden: Path, count: int, uri: str, *filters: object) -> None:
        self.count = count
        self._uri = uri
        text = json.dumps([count, uri, *filters])
        self.path = hidden / f"{_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    async def read(self) -> str | None:
        """The commit; None when nobody has pinned one.

        Raises:
            StorageError: the file cannot be read.
        """
        for _ in range(int(_WRITTEN_WITHIN / _GLANCE)):
            with storage_errors(self.path):
                try:
                    content = read_whole(self.path)
                except FileNotFoundError:
                    return None
            if commit := _parse(content):
                return commit
            await asyncio.sleep(_GLANCE)  # somebody is about to write it
        self.remove()  # whoever was has died
        return None

    async def set(self, commit: str) -> str:
        """Pin a commit, unless somebody has; returns what is pinned.

        Raises:
            StorageError: the file cannot be written.
        """
        while True:
            with storage_errors(self.path), contextlib.suppress(FileExistsError):
                self._write(commit)
                return commit
            if pinned := await self.read():
                return pinned

    def names(self, commit: str) -> bool:
        """Whether this commit is pinned.

        Raises:
            StorageError: the file cannot be read.
        """
        with storage_errors(self.path), contextlib.suppress(FileNotFoundError):
            return _parse(read_whole(self.path)) == commit
        return False

    def _write(self, commit: str) -> None:
        # A run that ends removes the folder while nothing is in it.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_new(self.path, json.dumps({"uri": self._uri, "commit": commit}).encode())

    def remove(self) -> None:
        """Pin nothing any more.

        Raises:
            StorageError: the file cannot be removed.
        """
        with storage_errors(self.path):
            self.path.unlink(missing_ok=True)


def pins_in(hidden: Path) -> Iterable[Path]:
    """The files of all pins."""
    return hidden.glob(f"{_PREFIX}*")


def _parse(content: bytes) -> str | None:
    try:
        commit = json.loads(content)["commit"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else None
