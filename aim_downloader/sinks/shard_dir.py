"""A shard's place in a plain folder: the files go to the same names, its own papers lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aim_downloader.sharding import Shard
from aim_downloader.sinks.layout import hidden_of
from aim_downloader.sinks.local_dir import LocalDir, shard_folders


@dataclass(frozen=True, slots=True)
class ShardDir(LocalDir):
    """The target folder ``base``, as one ``shard`` of several has it."""

    shard: Shard

    @property
    def folders(self) -> tuple[Path, ...]:  # noqa: D102
        hidden = hidden_of(LocalDir(self.base))
        return hidden, hidden / str(self.shard)

    def siblings(self) -> tuple[Path, ...]:
        """Where other runs, with other shares or none, have put the same files on record."""
        hidden, own = self.folders
        return hidden, *(folder for folder in shard_folders(hidden) if folder != own)


def shards_in(base: Path) -> list[ShardDir]:
    """The places of shards that have left anything in a folder."""
    folders = shard_folders(hidden_of(LocalDir(base)))
    found = (Shard.named(folder.name) for folder in folders)
    return sorted((ShardDir(base, shard) for shard in found if shard), key=lambda one: one.shard)
