"""Which files of a model each of several pods brings: a rule that all of them compute alike."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass

from aim_downloader.errors import ConfigError
from aim_downloader.snapshot import RemoteFile

_MOST = 1000
_NAME = re.compile(r"(0|[1-9]\d{0,2})-of-([1-9]\d{0,3})", re.ASCII)
_TEXT = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of ``count`` pods that share a model; ``index`` is from 0."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Refuse what is no shard.

        Raises:
            ConfigError: the index or the count is out of its range.
        """
        if not 1 <= self.count <= _MOST:
            raise ConfigError(f"{self.count} shards: there must be 1 to {_MOST}")
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"shard {self.index} of {self.count}: the index must be 0 to {self.count - 1}",
                hint="an Indexed Job needs `completions` as high as AIM_DOWNLOADER_SHARDS",
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a shard as a person writes it: ``i/n``.

        Raises:
            ConfigError: it is none.
        """
        if not (match := _TEXT.fullmatch(text.strip())):
            raise ConfigError(
                f"{text!r} is no shard", hint="write it as i/n, i from 0: AIM_DOWNLOADER_SHARD=0/3"
            )
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def named(cls, name: str) -> Shard | None:
        """The shard that a folder is named for; None when it is another folder."""
        match = _NAME.fullmatch(name)
        if not match or int(match[1]) >= int(match[2]) or int(match[2]) > _MOST:
            return None
        return cls(int(match[1]), int(match[2]))

    @property
    def leads(self) -> bool:
        """Whether it waits for the others, and publishes."""
        return self.index == 0

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


def shares(files: Iterable[RemoteFile], count: int) -> tuple[tuple[RemoteFile, ...], ...]:
    """The files of each shard: the biggest first, each to whom has the fewest bytes so far.

    There may be none for some.
    """
    taken: list[list[RemoteFile]] = [[] for _ in range(count)]
    loads = [(0, index) for index in range(count)]
    for file in sorted(files, key=lambda file: (-file.size, file.path)):
        load, index = loads[0]
        taken[index].append(file)
        heapq.heapreplace(loads, (load + file.size, index))
    return tuple(map(tuple, taken))
