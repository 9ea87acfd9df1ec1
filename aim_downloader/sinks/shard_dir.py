"""A shard's place in a plain folder: the files go to the same names, its own papers lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aim_downloader.receipt import Origin
from aim_downloader.sharding import Shard
from aim_downloader.sinks.layout import Content, hidden_of
from aim_downloader.sinks.local_dir import LocalDir, shard_folders
from aim_downloader.snapshot import RemoteFile


@dataclass(frozen=True, slots=True)
class ShardDir:
    """The target folder ``base``, as one ``shard`` of several has it."""

    base: Path
    shard: Shard

    @property
    def commit(self) -> None:
        """None: the folder serves one commit after the other."""
        return

    @property
    def root(self) -> Path:  # noqa: D102
        return self.base

    @property
    def folders(self) -> tuple[Path, ...]:  # noqa: D102
        hidden = hidden_of(LocalDir(self.base))
        return hidden, hidden / str(self.shard)

    def at(self, commit: str) -> ShardDir:  # noqa: ARG002, D102  # the same for all commits
        return self

    def siblings(self) -> tuple[Path, ...]:
        """Where other runs, with other shares or none, have put the same files on record."""
        hidden, own = self.folders
        return hidden, *(folder for folder in shard_folders(hidden) if folder != own)

    def place(self, path: str, digest: str) -> str:  # noqa: ARG002, D102
        return path

    def content(self, path: str, digest: str) -> Content | None:  # noqa: D102
        return LocalDir(self.base).content(path, digest)

    def shows(self, path: str, digest: str) -> bool:  # noqa: ARG002
        """True: it has no other name."""
        return True

    def show(self, origin: Origin, listing: Sequence[RemoteFile], drafts: Path) -> None:
        """Nothing is left to do: each file has its name since it was committed."""


def shards_in(base: Path) -> list[ShardDir]:
    """The places of shards that have left anything in a folder."""
    folders = shard_folders(hidden_of(LocalDir(base)))
    found = (Shard.named(folder.name) for folder in folders)
    return sorted((ShardDir(base, shard) for shard in found if shard), key=lambda one: one.shard)
