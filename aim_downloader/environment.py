"""What the environment says: each variable that is read, what it sets and what it means."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aim_downloader.config import DEFAULT_PROTOCOLS, PROTOCOLS, Config, parse_protocols
from aim_downloader.errors import ConfigError
from aim_downloader.sharding import Shard
from aim_downloader.units import parse_bytes


def _is_true(text: str) -> bool:
    return text.lower() in {"1", "on", "yes", "true"}


def _without_xet(text: str) -> tuple[str, ...]:
    return tuple(name for name in DEFAULT_PROTOCOLS if name != "XET") if _is_true(text) else ()


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable, what it means, and the field of ``Config`` that it sets, if it sets one."""

    name: str
    meaning: str
    setting: str = ""
    read: Callable[[str], object] = str


# Of two that set the same field the first one counts that says anything.
VARIABLES = (
    Variable("TARGET_DIR", "Where to, when the command names no DIR (`job`: else /cache)."),
    Variable("HF_ENDPOINT", "The Hub, or a mirror of it.", "endpoint"),
    Variable("HF_TOKEN", "The Hub's token; it goes to the Hub alone.", "token", str.strip),
    Variable("HF_HUB_OFFLINE", "1: make no request.", "offline", _is_true),
    Variable("HF_HOME", "Where huggingface_hub keeps its token (and, in `hub`, its cache)."),
    Variable("HF_HUB_CACHE", "Its cache, where `--layout hf-cache` puts models."),
    Variable("HF_TOKEN_PATH", "The file in which `hf auth login` has put the token."),
    Variable(
        "AIM_DOWNLOADER_PROTOCOL",
        "As `--protocol`, but an unknown name is passed over with a warning.",
        "protocols",
        parse_protocols,
    ),
    Variable(
        "HF_HUB_DISABLE_XET",
        "1: `--protocol` is without XET, unless it is named.",
        "protocols",
        _without_xet,
    ),
    Variable("AIM_DOWNLOADER_CONNECTIONS", "As `--connections`.", "connections", int),
    Variable("AIM_DOWNLOADER_LIMIT_RATE", "As `--limit-rate`.", "limit_rate", parse_bytes),
    Variable("AIM_DOWNLOADER_STALL_TIMEOUT", "As `--stall-timeout`.", "stall_timeout", float),
    Variable("STALL_TIMEOUT", "The same, under another name.", "stall_timeout", float),
    Variable(
        "PROGRESS_INTERVAL",
        "Seconds between two reports of `job`, in its log and to the cluster (5).",
        "progress_interval",
        float,
    ),
    Variable(
        "AIM_DOWNLOADER_SHARD",
        "i/n, i from 0: this is one of n pods that share a model, each with its part of the files, "
        "in one folder. The first of them (0) waits for the others, and publishes.",
        "shard",
        Shard.parse,
    ),
    Variable("AIM_DOWNLOADER_SHARDS", "The same in an Indexed Job: how many pods share the work."),
    Variable("JOB_COMPLETION_INDEX", "Which one of them this is, from 0 (Kubernetes sets it)."),
    Variable("AIM_DOWNLOADER_LAYOUT", "As `--layout`.", "layout"),
    Variable("AIM_DOWNLOADER_FORMAT", "As `--format`.", "weight_format"),
    Variable(
        "AIM_DOWNLOADER_SCRATCH",
        "The folder for caches and logs of native engines, in place of a hidden one in DIR. "
        "What a run puts there goes with it.",
        "scratch",
    ),
    Variable(
        "AIM_DOWNLOADER_TELEMETRY",
        "1: let hf_xet report its transfers to the store.",
        "telemetry",
        _is_true,
    ),
    Variable("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY", "The proxy, `http://user:password@host:port`."),
    Variable("NO_PROXY", "Hosts that are asked without the proxy, with commas between them."),
    Variable("SSL_CERT_FILE, SSL_CERT_DIR", "The certificates to trust, in place of the system's."),
    Variable("REQUESTS_CA_BUNDLE", "More certificates to trust.", "ca_bundle"),
    Variable("CURL_CA_BUNDLE", "The same, under another name.", "ca_bundle"),
    Variable(
        "EXPECTED_SIZE_BYTES",
        "What the volume was made for: `job` warns where a model has more. A simulation's size.",
    ),
    Variable(
        "ARTIFACT_NAME, ARTIFACT_NAMESPACE",
        "The AIMArtifact whose status `job` keeps up to date; none without them.",
    ),
    Variable(
        "ARTIFACT_RESOURCE",
        "`aimmodelcaches` where it is an AIMModelCache, as it was called before (aimartifacts).",
    ),
    Variable(
        "KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT",
        "Where its API server is; Kubernetes sets them.",
    ),
    Variable(
        "AIM_DOWNLOADER_TERMINATION_LOG",
        "The file in which `job` says how it ended (`/dev/termination-log` where that exists).",
    ),
    Variable("AIM_DEBUG_CAUSE_HANG", "1: `job` hangs, until the stall timeout ends it."),
    Variable("AIM_DEBUG_CAUSE_FAILURE", "1: `job` fails at once, with exit code 1."),
    Variable(
        "AIM_DEBUG_SIMULATE_DOWNLOAD",
        "1: `job` writes EXPECTED_SIZE_BYTES of zeros (1 MiB), without a request.",
    ),
    Variable(
        "AIM_DEBUG_DOWNLOAD_DURATION, AIM_DEBUG_VERIFY_DURATION",
        "Seconds between its halves, and after them (10).",
    ),
    Variable("AIM_DEBUG_VERIFY_FAIL", "1: it fails at the end, with exit code 1."),
    Variable(
        "AIM_DEBUG_SIMULATE_HF_DOWNLOAD",
        "1: `job` simulates each protocol of the sequence for `hf://`, until one succeeds.",
    ),
    Variable("AIM_DEBUG_SIMULATE_HF_DURATION", "Seconds that each of them takes (2)."),
    Variable("AIM_DEBUG_SIMULATE_HF_FAIL_PROTOCOLS", "Those that fail, with commas between them."),
)


def config_from_environ(environ: Mapping[str, str], **flags: object) -> Config:
    """Build the settings: a flag that is not None beats the environment beats the default.

    Raises:
        ConfigError: a flag or variable cannot be used.
    """
    settings: dict[str, object] = {"ask_for_token": _may_be_logged_in(environ)}
    for variable in VARIABLES:
        text = environ.get(variable.name)
        if text and variable.setting and variable.setting not in settings:
            value = _read(variable, text)
            # A token of white space alone is none, and commas alone name no protocol.
            if value not in ("", ()):
                settings[variable.setting] = value
    if "shard" not in settings:
        settings["shard"] = _shard_of_job(environ)
    if flags.get("protocols") is None:
        named = parse_protocols(environ.get("AIM_DOWNLOADER_PROTOCOL", ""))
        settings["unknown_protocols"] = tuple(name for name in named if name not in PROTOCOLS)
    settings.update({name: value for name, value in flags.items() if value is not None})
    return Config(**settings)  # type: ignore[arg-type]  # names are Config's own; checked there


def _shard_of_job(environ: Mapping[str, str]) -> Shard | None:
    """Which pod of an Indexed Job this is; None where its pods share no work."""
    count = environ.get("AIM_DOWNLOADER_SHARDS", "").strip()
    if not count:
        return None
    index = environ.get("JOB_COMPLETION_INDEX", "").strip()
    if not index:
        raise ConfigError(
            f"AIM_DOWNLOADER_SHARDS={count}, but JOB_COMPLETION_INDEX does not say which this is",
            hint="set completionMode: Indexed in the Job, or name one: AIM_DOWNLOADER_SHARD=0/3",
        )
    for name, text in (("AIM_DOWNLOADER_SHARDS", count), ("JOB_COMPLETION_INDEX", index)):
        if not (text.isascii() and text.isdigit() and len(text) < 7):
            raise ConfigError(f"{name}={text!r} is not a number")
    return Shard(int(index), int(count))


def _read(variable: Variable, text: str) -> object:
    try:
        return variable.read(text)
    except ValueError:
        raise ConfigError(f"{variable.name}={text!r} is not a number") from None


def expected_size(environ: Mapping[str, str]) -> int | None:
    """How many bytes the volume was made for; None when nobody has said it.

    Raises:
        ConfigError: the variable is no number of bytes.
    """
    if not (text := environ.get("EXPECTED_SIZE_BYTES", "").strip()):
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ConfigError(f"EXPECTED_SIZE_BYTES={text!r} is not a number of bytes")
    return int(text) or None


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
