"""The settings of a run: one frozen value, built once (see ``environment``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypedDict

from aim_downloader.errors import ConfigError
from aim_downloader.sharding import Shard
from aim_downloader.urls import is_usable, redacted
from aim_downloader.weights import FORMATS

DEFAULT_ENDPOINT = "https://huggingface.co"

Layout: TypeAlias = Literal["plain", "hf-cache"]
"""How a model lies on disk: a plain folder, or the cache of huggingface_hub."""
LAYOUTS: tuple[Layout, ...] = ("plain", "hf-cache")

PROTOCOLS = ("XET", "HF_TRANSFER", "HTTP")
"""Ways of moving the bytes of large files."""
DEFAULT_PROTOCOLS = ("XET", "HF_TRANSFER")


class Settings(TypedDict, total=False):
    """Single settings, as they may be given to ``download``: see ``Config`` for each."""

    endpoint: str
    token: str | None
    revision: str | None
    include: Sequence[str]
    exclude: Sequence[str]
    weight_format: str | None
    protocols: Sequence[str]
    connections: int
    stall_timeout: float
    limit_rate: int | None
    layout: Layout
    prune: bool
    offline: bool
    clean: bool


@dataclass(frozen=True, slots=True)
class Config:
    """Settings, each with what it means and where it may come from.

    A ``Config()`` made by hand knows nothing of the environment; ``config_from_environ`` does.
    """

    endpoint: str = DEFAULT_ENDPOINT
    """The Hub (``--endpoint``, ``HF_ENDPOINT``)."""
    token: str | None = field(default=None, repr=False)
    """For the Hub alone (``--token-file``, ``HF_TOKEN``); None: what ``hf auth login`` stored."""
    ask_for_token: bool = True
    """Whether huggingface_hub may know a token (``hf auth login``, OIDC); asking takes 0.2 s."""
    revision: str | None = None
    """Branch, tag or commit (``--revision``); the URI's own revision when None."""
    include: Sequence[str] = ()
    """Globs; a file is taken when one matches, or when there are none (``--include``)."""
    exclude: Sequence[str] = ()
    """Globs; a file is left out when one matches (``--exclude``)."""
    weight_format: str | None = None
    """One weight format where there are several (``--format``); all of them when None."""
    protocols: Sequence[str] = DEFAULT_PROTOCOLS
    """What is tried for each large file, in this order (``--protocol``,
    ``AIM_DOWNLOADER_PROTOCOL``)."""
    unknown_protocols: Sequence[str] = ()
    """Names in ``protocols`` that are not refused, but passed over with a warning; they keep their
    places in the sequence (those that ``AIM_DOWNLOADER_PROTOCOL`` names)."""
    connections: int = 16
    """Connections at most (``--connections``, ``AIM_DOWNLOADER_CONNECTIONS``)."""
    stall_timeout: float = 120.0
    """Seconds without a byte until a connection is given up (``AIM_DOWNLOADER_STALL_TIMEOUT``)."""
    limit_rate: int | None = None
    """Bytes per second for the whole run (``--limit-rate``, ``AIM_DOWNLOADER_LIMIT_RATE``)."""
    layout: Layout = "plain"
    """How the model lies on disk (``--layout``, ``AIM_DOWNLOADER_LAYOUT``)."""
    prune: bool = False
    """Remove files of an earlier revision that this one lacks (``--prune``)."""
    ca_bundle: str | None = None
    """More certificates to trust (``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``); SSL_CERT_FILE and
    SSL_CERT_DIR are read by OpenSSL itself."""
    offline: bool = False
    """No request at all; what is there must be complete (``HF_HUB_OFFLINE``)."""
    clean: bool = False
    """When the run fails, also remove what could be resumed (``--clean``)."""
    scratch: str | None = None
    """The folder for caches and logs of native engines (``AIM_DOWNLOADER_SCRATCH``); None: a hidden
    one beside the model."""
    telemetry: bool = False
    """Let hf_xet report transfers to its store (``AIM_DOWNLOADER_TELEMETRY``)."""
    origin: bool = True
    """Leave ``origin.json`` beside the model. Without it a model is the same bytes on every volume,
    and a later run reads them all to know them; ``job`` does so."""
    shard: Shard | None = None
    """One of several pods that share a model: which one this is (``AIM_DOWNLOADER_SHARDS`` with
    ``JOB_COMPLETION_INDEX``, or ``AIM_DOWNLOADER_SHARD``)."""
    shard_patience: float = 600.0
    """Seconds without a sign of life until another shard is given up."""
    progress_interval: float = 5.0
    """Seconds between two reports of a ``job`` (``PROGRESS_INTERVAL``)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: a setting is out of its range.
        """
        for name in ("include", "exclude"):
            globs = getattr(self, name)
            if isinstance(globs, str):
                raise ConfigError(f"{name} is a string: it must be a list of globs")
            object.__setattr__(self, name, tuple(globs))
        self._check_protocols()
        self._check_numbers()
        if self.weight_format is not None and self.weight_format not in FORMATS:
            raise ConfigError(
                f"--format is {self.weight_format!r}: it must be one of {', '.join(FORMATS)}"
            )
        object.__setattr__(self, "endpoint", self.endpoint.rstrip("/"))
        if self.prune and self.layout == "hf-cache":
            raise ConfigError(
                "--prune is for a plain folder: in a cache each revision has a folder of its own",
                hint="`hf cache prune` removes revisions that no branch names",
            )
        if self.shard:
            self._check_shared()
        if self.layout not in LAYOUTS:
            raise ConfigError(f"--layout is {self.layout!r}: it must be {' or '.join(LAYOUTS)}")
        if not is_usable(self.endpoint):
            secret = "@" in self.endpoint or "?" in self.endpoint
            shown = redacted(self.endpoint) if secret else self.endpoint
            raise ConfigError(
                f"the endpoint (HF_ENDPOINT, --endpoint) {shown!r} is not an http(s) URL of a host",
                hint="write it as https://host[:port][/path], and the token into HF_TOKEN",
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError("the token has characters in it that no token has")

    def _check_protocols(self) -> None:
        if isinstance(self.protocols, str):
            raise ConfigError("protocols is a string: it must be a list of names")
        names = tuple(str(name).upper() for name in self.protocols)
        unknown = [name for name in names if name not in PROTOCOLS]
        refused = [name for name in unknown if name not in self.unknown_protocols]
        if refused or len(unknown) == len(names):
            named = ", ".join(refused or unknown)
            raise ConfigError(
                f"no protocol has the name {named}" if named else "no protocol is named",
                hint=f"those of --protocol and AIM_DOWNLOADER_PROTOCOL are {', '.join(PROTOCOLS)}",
            )
        object.__setattr__(self, "protocols", names)

    def _check_shared(self) -> None:
        """Refuse what shards cannot do: they share a plain folder, and none of them sees it all."""
        for refused, name, hint in (
            (self.layout == "hf-cache", "--layout hf-cache", "shards share a plain folder"),
            (self.prune, "--prune", "prune by a run without shards, afterwards"),
            (self.offline, "HF_HUB_OFFLINE", "a run without shards looks at what is there"),
        ):
            if refused:
                raise ConfigError(f"{name} does not go with shards", hint=hint)

    def _check_numbers(self) -> None:
        for name in ("connections", "limit_rate", "stall_timeout", "progress_interval"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int | float):
                raise ConfigError(f"{name} is {value!r}: it must be a number")
        if not 1 <= self.connections <= 256:
            raise ConfigError(f"--connections is {self.connections}: it must be 1 to 256")
        if not self.stall_timeout > 0:
            raise ConfigError(f"the stall timeout is {self.stall_timeout}: it must be above 0")
        if not self.progress_interval > 0:
            raise ConfigError(f"PROGRESS_INTERVAL is {self.progress_interval}: it must be above 0")
        if self.limit_rate is not None and self.limit_rate < 1024:
            raise ConfigError(f"--limit-rate is {self.limit_rate}: it must be 1K or more")


def parse_protocols(text: str) -> tuple[str, ...]:
    """The names in a sequence with commas between them, in capitals."""
    names = (name.strip().upper() for name in text.split(","))
    return tuple(name for name in names if name)
