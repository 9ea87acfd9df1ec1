"""The settings of a run: one frozen value, built once from flags, environment and defaults."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict

from aim_downloader.errors import ConfigError
from aim_downloader.units import parse_bytes
from aim_downloader.urls import is_usable, redacted

DEFAULT_ENDPOINT = "https://huggingface.co"
_TRUE = {"1", "on", "yes", "true"}

Layout: TypeAlias = Literal["plain", "hf-cache"]
"""How a model lies on disk: a plain folder, or the cache of huggingface_hub."""
LAYOUTS: tuple[Layout, ...] = ("plain", "hf-cache")


class Settings(TypedDict, total=False):
    """Single settings, as they may be given to ``download``: see ``Config`` for each."""

    endpoint: str
    token: str | None
    revision: str | None
    include: Sequence[str]
    exclude: Sequence[str]
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
        if not 1 <= self.connections <= 256:
            raise ConfigError(f"--connections is {self.connections}: it must be 1 to 256")
        if not self.stall_timeout > 0:
            raise ConfigError(f"the stall timeout is {self.stall_timeout}: it must be above 0")
        if self.limit_rate is not None and self.limit_rate < 1024:
            raise ConfigError(f"--limit-rate is {self.limit_rate}: it must be 1K or more")
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


def config_from_environ(environ: Mapping[str, str], **flags: object) -> Config:
    """Build the settings: a flag that is not None beats the environment beats the default.

    Raises:
        ConfigError: a flag or variable cannot be used.
    """
    settings: dict[str, object] = {
        "offline": environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE,
        "ask_for_token": _may_be_logged_in(environ),
    }
    if endpoint := environ.get("HF_ENDPOINT"):
        settings["endpoint"] = endpoint
    if token := environ.get("HF_TOKEN", "").strip():
        settings["token"] = token
    if bundle := environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"):
        settings["ca_bundle"] = bundle
    if layout := environ.get("AIM_DOWNLOADER_LAYOUT"):
        settings["layout"] = layout
    readings: tuple[tuple[str, str, Callable[[str], float]], ...] = (
        ("connections", "AIM_DOWNLOADER_CONNECTIONS", int),
        ("stall_timeout", "AIM_DOWNLOADER_STALL_TIMEOUT", float),
        ("stall_timeout", "STALL_TIMEOUT", float),
        ("limit_rate", "AIM_DOWNLOADER_LIMIT_RATE", parse_bytes),
    )
    for name, variable, kind in readings:
        if name not in settings and (text := environ.get(variable)):
            settings[name] = _number(variable, text, kind)
    settings.update({name: value for name, value in flags.items() if value is not None})
    settings["endpoint"] = str(settings.get("endpoint", DEFAULT_ENDPOINT)).rstrip("/")
    return Config(**settings)  # type: ignore[arg-type]  # names are Config's own; checked there


def hf_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps its cache."""
    return _expanded(environ.get("HF_HUB_CACHE") or f"{_hf_home(environ)}/hub")


def _may_be_logged_in(environ: Mapping[str, str]) -> bool:
    """Whether a token may be had where huggingface_hub looks for one."""
    elsewhere = ("HF_OIDC_RESOURCE", "HUGGING_FACE_HUB_TOKEN", "COLAB_RELEASE_TAG")
    if any(environ.get(name) for name in elsewhere):
        return True
    try:
        return _expanded(environ.get("HF_TOKEN_PATH") or f"{_hf_home(environ)}/token").exists()
    except OSError:
        return False  # a folder that may not be looked into


def _hf_home(environ: Mapping[str, str]) -> str:
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return environ.get("HF_HOME") or f"{cache}/huggingface"


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(os.path.expandvars(path)))  # noqa: PTH111  # without a home it stays


def _number(variable: str, text: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{variable}={text!r} is not a number") from None
