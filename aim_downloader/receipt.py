"""What is known of the files in a target, on three kinds of paper below the hidden folder.

``SHA256SUMS``   what ``sha256sum -c`` reads; its bytes depend on the content alone.
``origin.json``  where the model came from, and enough of each file to see that it is untouched.
``committed``    the same facts, one sealed line per file, while a run is under way: a run that is
                 killed need not read again what it had verified.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from zlib_ng.zlib_ng import crc32

from aim_downloader.content_hash import STRETCH
from aim_downloader.journal import sealed, unsealed
from aim_downloader.names import fault_of
from aim_downloader.snapshot import Digest
from aim_downloader.storage import open_to_append, read_whole, write_whole

SUMS, ORIGIN, COMMITTED = "SHA256SUMS", "origin.json", "committed"

_RECORDS = ("files", "earlier", "outdated")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|git-sha1:[0-9a-f]{40})?")


@dataclass(frozen=True, slots=True)
class Record:
    """A verified file as it was when it got its name. ``size`` in bytes.

    ``digest`` is what the source vouched for (``algorithm:hex``, empty when for nothing);
    ``crc32s`` has one for each 16 MiB. ``found``: it was there before any run, which only read it.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str
    sha256: str
    crc32s: tuple[int, ...]
    found: bool = False

    def as_dict(self) -> dict[str, object]:
        """The record as a JSON object."""
        # Most files were brought, and a receipt may speak of 200,000.
        names = self.__slots__ if self.found else self.__slots__[:-1]
        return {name: getattr(self, name) for name in names}

    def still(self, found: os.stat_result) -> bool:
        """Whether a file looks untouched since."""
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)

    def proves(self, digest: Digest | None) -> bool:
        """Whether the file was verified against this very digest."""
        if digest is None:
            return False
        return str(digest) in (self.digest, f"sha256:{self.sha256}")


Filters: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...], str | None]
"""Subpath, globs to include, globs to exclude, weight format."""
NO_FILTERS: Filters = ("", (), (), None)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of a target came from. The filters are those of the last run.

    ``earlier`` are files of earlier revisions that are still there; ``outdated`` those of them that
    the commit has too, in another version, which filters leave out.
    """

    uri: str
    repository: str
    revision: str | None
    commit: str
    subpath: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    files: Mapping[str, Record]
    weight_format: str | None = None
    earlier: Mapping[str, Record] = field(default_factory=dict)
    outdated: Mapping[str, Record] = field(default_factory=dict)

    @property
    def filters(self) -> Filters:
        """What of the model was asked for."""
        return self.subpath, self.include, self.exclude, self.weight_format


def parse_record(value: object) -> Record | None:
    """A record from its JSON object; None when it is not one, or leads out of the target."""
    if not isinstance(value, dict) or not isinstance(value.get("found", False), bool):
        return None
    try:
        record = Record(**{**value, "crc32s": tuple(value["crc32s"])})
    except (TypeError, KeyError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Record) -> bool:
    if not all(type(number) is int for number in (record.size, record.mtime_ns, *record.crc32s)):
        return False
    if not all(isinstance(word, str) for word in (record.path, record.digest, record.sha256)):
        return False
    return (
        not fault_of(record.path)
        and len(record.crc32s) == -(-record.size // STRETCH)
        and _DIGEST.fullmatch(record.digest) is not None
        and _SHA256.fullmatch(record.sha256) is not None
    )


def read_origin(folder: Path) -> Origin | None:
    """The origin below the hidden ``folder``; None when there is none, or a byte of it is wrong."""
    try:
        content = json.loads(read_whole(folder / ORIGIN))
        if content.pop("crc32") != _check(content):
            return None
        # Receipts of old have no files of earlier revisions.
        content |= {name: _records(content.get(name, [])) for name in _RECORDS}
        content |= {name: tuple(content[name]) for name in ("include", "exclude")}
        return Origin(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _records(items: Iterable[object]) -> dict[str, Record]:
    return {record.path: record for record in map(parse_record, items) if record}


def write_origin(folder: Path, origin: Origin) -> None:
    """Write ``origin.json`` below the hidden ``folder``."""
    plain = dataclasses.replace(origin, files={}, earlier={}, outdated={})
    content = dataclasses.asdict(plain)
    for name in _RECORDS:
        records = getattr(origin, name)
        content[name] = [records[path].as_dict() for path in sorted(records)]
    content["crc32"] = _check(content)
    write_whole(folder / ORIGIN, json.dumps(content).encode())


def _check(content: object) -> str:
    """What tells damage: the crc32 of the content in its plainest form."""
    return f"{crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def sums(records: Iterable[Record]) -> bytes:
    """The content of ``SHA256SUMS``; its paths start at the target."""
    lines = sorted(f"{record.sha256}  {record.path}\n" for record in records)
    lines.sort(key=lambda line: line[66:])
    return "".join(lines).encode()


def remove_origin(folder: Path) -> None:
    """Forget where the files came from; ``SHA256SUMS`` stays."""
    (folder / ORIGIN).unlink(missing_ok=True)


def write_sums(folder: Path, records: Iterable[Record]) -> None:
    """Write ``SHA256SUMS`` below the hidden ``folder``."""
    write_whole(folder / SUMS, sums(records))


def read_sums(folder: Path) -> tuple[dict[str, str], int]:
    """The sha256 of each path in ``SHA256SUMS``, and how many of its lines are none."""
    try:
        lines = read_whole(folder / SUMS).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}, int(os.path.lexists(folder / SUMS))
    found = [match for line in lines if (match := _SUM.fullmatch(line))]
    read = {match[2]: match[1] for match in found if not fault_of(match[2])}
    return read, len(lines) - len(read)


class CommitLog:
    """The file ``committed``. ``read`` leaves out what is torn, damaged, or of another model."""

    def __init__(self, folder: Path, repository: str) -> None:
        self._path = folder / COMMITTED
        self._repository = repository

    def read(self) -> dict[str, Record]:
        """What is on record, by path; the latest of several."""
        try:
            lines = read_whole(self._path).split(b"\n")
        except OSError:
            return {}
        texts = filter(None, (unsealed(line, self._repository) for line in lines))
        return {record.path: record for record in map(_parse_line, texts) if record}

    def append(self, records: Iterable[Record]) -> None:
        """Put verified files on record.

        Raises:
            OSError: the log cannot be written.
        """
        lines = [sealed(json.dumps(record.as_dict()), self._repository) for record in records]
        fd = open_to_append(self._path)
        try:
            # The newline in front ends a line that an earlier run left torn.
            os.write(fd, b"\n" + b"".join(lines))
        finally:
            os.close(fd)

    def remove(self) -> None:
        """The log is not needed any more."""
        self._path.unlink(missing_ok=True)


def _parse_line(text: str) -> Record | None:
    try:
        return parse_record(json.loads(text))
    except (ValueError, RecursionError):
        return None
