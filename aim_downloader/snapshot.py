"""The values that travel through a run: where a model is, what it consists of, which bytes."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field

from aim_downloader.errors import ConfigError

MIB = 1024 * 1024

_REPOSITORY_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# How KServe writes a revision: hf://owner/name:revision.
_COLON = re.compile(r"([^/@:]+(?:/[^/@:]+)?):(?!/)([^@]+)")
# The one kind of revision that is written with slashes in a URI, as huggingface_hub's
# HfFileSystem does; every other slash in a revision is written %2F.
_SPECIAL_REVISION = re.compile(r"refs/(?:convert/\w+|pr/\d+)")
# What may be a secret: user parts, queries, tokens, the values of flags. hf://name@revision has
# no user part, but for one with a colon.
_SECRETS = (
    (re.compile(r"(^|://)[^/@]*:(?!//).*@", re.DOTALL), r"\1…@"),
    (re.compile(r"^((?!hf:)\w+://)[^/]*@", re.IGNORECASE), r"\1…@"),
    (re.compile(r"\?.+", re.DOTALL), "?…"),
    (re.compile(r"^(-[^=]*=).+", re.DOTALL), r"\1…"),
    (re.compile(r"\bhf_\w+"), "…"),
)


def shown(text: str) -> str:
    """What somebody has written for a URI, as it may be shown: logs are read by others."""
    for secret, instead in _SECRETS:
        text = secret.sub(instead, text)
    return text


@dataclass(frozen=True, slots=True)
class ModelURI:
    """Where a model is asked for: ``hf://owner/name[@revision][/subpath]``.

    A colon is as good as the @: so KServe writes it.
    """

    scheme: str
    repository: str
    revision: str | None = None
    subpath: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelURI:
        """Read a URI as a person writes it.

        Raises:
            ConfigError: the text is no URI, or of a scheme that is not supported.
        """
        scheme, separator, rest = text.partition("://")
        if not separator or not rest or rest.startswith("/"):
            raise ConfigError(
                f"{shown(text)!r} is not a model URI", hint="write it as hf://owner/name[@revision]"
            )
        scheme = scheme.lower()
        if scheme != "hf":
            # Somebody who has copied the model's page from a browser.
            page = re.fullmatch(r"https?://[^/]+/([^/?#]+/[^/?#]+)/?", text)
            hint = f"write hf://{page[1]}" if page else "write hf://owner/name[@revision]"
            raise ConfigError(f"{scheme}:// is not supported yet (in {shown(text)!r})", hint=hint)
        return cls._parse_hub(text, rest)

    @classmethod
    def _parse_hub(cls, text: str, rest: str) -> ModelURI:
        if colon := _COLON.fullmatch(rest):
            rest = "@".join(colon.groups())
        repository, at, tail = rest.partition("@")
        revision: str | None = None
        subpath = ""
        if at:
            special = _SPECIAL_REVISION.match(tail)
            revision = special[0] if special else tail.partition("/")[0]
            subpath = tail[len(revision) :].strip("/")
            revision = urllib.parse.unquote(revision)
        else:
            parts = rest.strip("/").split("/")
            repository, subpath = "/".join(parts[:2]), "/".join(parts[2:])
        parts = repository.split("/")
        if len(parts) > 2 or not all(_REPOSITORY_PART.fullmatch(part) for part in parts):
            raise ConfigError(
                f"{shown(text)!r} does not name a repository",
                hint="write it as hf://owner/name[@revision][/subpath]",
            )
        if len(parts) == 2 and parts[0] in ("datasets", "spaces"):
            raise ConfigError(
                f"{shown(text)!r} names no model: {parts[0]} are not supported",
                hint="write it as hf://owner/name",
            )
        if at and not revision:
            raise ConfigError(f"{shown(text)!r} has an @ but no revision behind it")
        if any(ord(char) < 32 or char == "\x7f" for char in f"{revision}{subpath}"):
            raise ConfigError(f"{shown(text)!r} has control characters in it")
        return cls("hf", repository, revision, subpath)

    @property
    def name(self) -> str:
        """The last part of the repository's name: the default folder's name."""
        return self.repository.rpartition("/")[2]

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which can never mean other bytes later."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        if self.revision and _SPECIAL_REVISION.fullmatch(self.revision):
            revision = f"@{self.revision}"
        subpath = f"/{self.subpath}" if self.subpath else ""
        return f"{self.scheme}://{self.repository}{revision}{subpath}"


@dataclass(frozen=True, slots=True)
class Digest:
    """Proof of content. ``algorithm`` is ``sha256``, or ``git-sha1`` for a git blob id."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes ``start <= offset < stop`` of a file."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        """Refuse what is no range.

        Raises:
            ValueError: the range is negative or runs backwards.
        """
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"no byte range: {self.start} to {self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def header(self) -> str:
        """The value of a ``Range`` header (RFC 9110 section 14.2, whose last byte counts in)."""
        return f"bytes={self.start}-{self.stop - 1}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a snapshot, as its source describes it. ``size`` is in bytes.

    ``blob_id`` is git's name for it, ``xet_hash`` that of Xet; empty where the source has none.
    """

    path: str
    size: int
    digest: Digest | None
    etag: str | None = None
    url: str = field(default="", repr=False)
    blob_id: str = field(default="", repr=False)
    xet_hash: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files of a model at one commit."""

    uri: ModelURI
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """All bytes of the snapshot."""
        return sum(file.size for file in self.files)
