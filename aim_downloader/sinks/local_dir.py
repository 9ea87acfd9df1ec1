"""A plain folder: the model's files under their own names, and the hidden folder beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aim_downloader.names import HIDDEN
from aim_downloader.receipt import Origin
from aim_downloader.sharding import Shard
from aim_downloader.sinks.below import plain_file
from aim_downloader.sinks.layout import Content
from aim_downloader.snapshot import RemoteFile


@dataclass(frozen=True, slots=True)
class LocalDir:
    """The target folder ``base``. A verified file is in its place at once."""

    base: Path

    @property
    def commit(self) -> None:
        """None: the folder serves one commit after the other."""
        return

    @property
    def root(self) -> Path:  # noqa: D102
        return self.base

    @property
    def folders(self) -> tuple[Path, ...]:  # noqa: D102
        return (self.base / HIDDEN,)

    def at(self, commit: str) -> Self:  # noqa: ARG002, D102  # the same for all commits
        return self

    def siblings(self) -> tuple[Path, ...]:
        """What shards have put on record, if some have left their work half done."""
        return shard_folders(self.base / HIDDEN)

    def place(self, path: str, digest: str) -> str:  # noqa: ARG002, D102
        return path

    def content(self, path: str, digest: str) -> Content | None:  # noqa: ARG002, D102
        found = plain_file(self.base, path)
        return Content(self.base / path, found) if found else None

    def shows(self, path: str, digest: str) -> bool:  # noqa: ARG002
        """True: it has no other name."""
        return True

    def show(self, origin: Origin, listing: Sequence[RemoteFile], drafts: Path) -> None:
        """Nothing is left to do: each file has its name since it was committed."""


def shard_folders(hidden: Path) -> tuple[Path, ...]:
    """The folders of shards below the hidden folder."""
    try:
        found = [path for path in hidden.iterdir() if Shard.named(path.name)]
    except OSError:
        return ()
    return tuple(path for path in found if path.is_dir() and not path.is_symlink())
