"""How one model lies on disk: what differs between a plain folder and a cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aim_downloader.receipt import Origin
from aim_downloader.snapshot import RemoteFile


@dataclass(frozen=True, slots=True)
class Content:
    """A regular file that holds a model's file, and what the system says of it."""

    path: Path
    stat: os.stat_result


class Layout(Protocol):
    """How one model lies on disk. A file is named by its ``path`` and its ``digest`` as text."""

    @property
    def base(self) -> Path:
        """The folder that the user named; it may be a symlink, nothing below it may."""

    @property
    def root(self) -> Path:
        """Where the paths of the model begin: what a run returns."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Our own folders below the base, the outermost first; the last is the hidden folder."""

    @property
    def commit(self) -> str | None:
        """The commit that this place is for; None where one place serves them all."""

    def at(self, commit: str) -> Layout:
        """The layout of the same model at a commit."""

    def siblings(self) -> Iterable[Path]:
        """Hidden folders of other commits, whose records speak of the same contents."""

    def place(self, path: str, digest: str) -> str:
        """Where a verified file goes, from the base.

        Raises:
            StorageError: the layout has no name for it.
        """

    def content(self, path: str, digest: str) -> Content | None:
        """The regular file that holds it now; what a foreign link leads to does not count."""

    def shows(self, path: str, digest: str) -> bool:
        """Whether it has its own name in the model, if it is there at all."""

    def show(self, origin: Origin, listing: Sequence[RemoteFile], drafts: Path) -> None:
        """Make a complete snapshot visible. What is written begins in ``drafts``.

        ``listing`` has all files of the commit, also those that were not asked for.

        Raises:
            OSError: the disk refuses.
            StorageError: a symlink leads elsewhere.
        """


def hidden_of(layout: Layout) -> Path:
    """Our hidden folder."""
    return layout.folders[-1]
