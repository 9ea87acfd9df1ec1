"""The termination message: what became of a run, as one JSON object where Kubernetes reads it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from aim_downloader.errors import DownloadCancelledError, DownloadError, InsufficientSpaceError
from aim_downloader.events import (
    Event,
    FileCommitted,
    FileStarted,
    PlanMade,
    RunCancelled,
    RunFailed,
    RunProgressed,
    SnapshotPublished,
    SnapshotResolved,
)
from aim_downloader.reporters.base import Writer, one_line
from aim_downloader.reporters.by_variables import by_variables
from aim_downloader.reporters.phrases import disarm
from aim_downloader.urls import without_secrets

LIMIT = 4096
"""Bytes that Kubernetes keeps of a message."""

# Bytes for words that others choose, where all together are too long: the rest takes 300.
_ROOM = {"message": 2400, "hint": 600, "uri": 600}
_OF_KUBERNETES = Path("/dev/termination-log")
# A URL's user part and query; what is only an ellipsis has been left out before.
_MAY_BE_SECRET = re.compile(
    r"https?://[^\s/?#]*@\S*|https?://[^\s?]+\?(?!…)\S+|[a-z0-9+.-]+://[^\s/@]*:\S*@\S*"
    r"|bearer\s+\S+|\bhf_\w+",
    re.IGNORECASE,
)


def termination_path(
    environ: Mapping[str, str], of_kubernetes: Path = _OF_KUBERNETES
) -> Path | None:
    """Where the message goes: where the environment says, else where Kubernetes has made a file."""
    if named := environ.get("AIM_DOWNLOADER_TERMINATION_LOG"):
        return Path(named)
    return of_kubernetes if of_kubernetes.exists() else None


def _tell(line: str) -> None:
    Writer(sys.stderr)(f"{disarm(one_line(line))}\n")


class TerminationMessage:
    """Keeps what it hears of a run, or of several, for ``write``.

    ``bytes`` are those on disk in the end, ``bytesReceived`` those that came over the network,
    ``totalBytes`` those that the models have, as far as they are known: of all models together.
    ``uri`` and ``revision`` are those of the model that was cancelled, else of the first one that
    failed, else of the last one. ``protocol`` is the one that brought the most bytes of large
    files, or, while none is complete, the one that was last asked for one; null when there was no
    large file to fetch.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        tell: Callable[[str], None] = _tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._tell = tell
        self._clock = clock
        self._begun = clock()
        self._model = ("", "")
        self._failed: tuple[str, str] | None = None
        self._bytes = self._received = self._total = 0
        self._bytes_now = self._received_now = self._total_now = 0
        self._under_way: dict[str, str] = {}
        self._asked = ""
        self._brought: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, event: Event, /) -> None:
        """Keep what the message needs of the event."""
        match event:
            case SnapshotResolved():
                self._model = (event.uri, event.commit)
            case PlanMade():
                self._bytes_now = 0
                self._total_now = event.bytes
            case FileStarted():
                self._asked = self._under_way[event.path] = event.protocol
            case FileCommitted():
                if protocol := self._under_way.pop(event.path, ""):
                    self._brought[protocol] += event.bytes
            case RunProgressed():
                self._bytes_now, self._received_now = event.bytes_done, event.bytes_received
            case SnapshotPublished():
                self._bytes_now, self._received_now = event.bytes, event.bytes_received
                self._model = (self._model[0], event.commit)
                self._end()
            case RunCancelled():
                self._bytes_now = event.bytes_done
                self._end()
            case RunFailed():
                self._failed = self._failed or self._model
                self._end()

    def about(self, uri: str) -> None:
        """Know which model comes next: one that cannot be asked for is never told of."""
        self._model = (uri, "")

    def write(self, exit_code: int, error: BaseException | None) -> None:
        """Write the message in place, if anybody wants it; what prevents that is told."""
        if self._path is None:
            return
        try:
            # Kubernetes binds the file into the container: another could not take its place.
            self._path.write_bytes(_fitted(self._facts(exit_code, error)))
        except (OSError, ValueError) as reason:
            self._tell(f"The termination message cannot be written: {reason}")

    def _end(self) -> None:
        """Add what one model came to."""
        self._bytes += self._bytes_now
        self._received += self._received_now
        self._total += self._total_now
        self._bytes_now = self._received_now = self._total_now = 0
        self._under_way.clear()

    def _facts(self, exit_code: int, error: BaseException | None) -> dict[str, Any]:
        outcome = _outcome(exit_code, error)
        uri, revision = (outcome != "cancelled" and self._failed) or self._model
        most = max(self._brought, key=self._brought.__getitem__, default=self._asked)
        return {
            "outcome": outcome,
            "exitCode": exit_code,
            "error": type(error).__name__ if error else None,
            "message": _shown(by_variables(str(error))) if error else "",
            "hint": _shown(by_variables(error.hint)) if isinstance(error, DownloadError) else "",
            "protocol": most or None,
            "bytes": self._bytes + self._bytes_now,
            "bytesReceived": self._received + self._received_now,
            "totalBytes": self._total + self._total_now + _unplanned(error),
            "seconds": round(self._clock() - self._begun, 3),
            "revision": revision or None,
            "uri": _shown(uri) or None,
        }


def _unplanned(error: BaseException | None) -> int:
    """Bytes of a model that was given up before its plan: it would not have fit."""
    return error.model_bytes if isinstance(error, InsufficientSpaceError) else 0


def _outcome(exit_code: int, error: BaseException | None) -> str:
    if isinstance(error, DownloadCancelledError):
        return "cancelled"
    return "failed" if error or exit_code else "complete"


def _shown(words: str) -> str:
    """Without what may be a secret, in one line."""
    return one_line(_MAY_BE_SECRET.sub(lambda found: without_secrets(found[0]), words))


def _fitted(facts: dict[str, Any]) -> bytes:
    """The facts as JSON that fits; of words that are too long the end is left out."""
    written = _json(facts)
    if len(written) <= LIMIT:
        return written
    return _json(facts | {name: _shortened(facts[name], room) for name, room in _ROOM.items()})


def _shortened(words: str | None, room: int) -> str | None:
    """The words with as many characters as there is room for in bytes of JSON."""
    end, quotes = "…", 2
    if words is None or len(_json(words)) <= room:
        return words
    ends = accumulate(len(_json(character)) - quotes for character in words)
    room -= quotes + len(end.encode())
    return words[: sum(stop <= room for stop in ends)] + end


def _json(facts: Any) -> bytes:
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
