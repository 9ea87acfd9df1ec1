"""Flags beat environment beats defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from aim_downloader.config import DEFAULT_ENDPOINT, Config
from aim_downloader.environment import config_from_environ, hf_cache
from aim_downloader.errors import ConfigError

DEFAULT = ("XET", "HF_TRANSFER")


def test_a_slash_behind_the_endpoint_means_nothing() -> None:
    assert Config(endpoint="http://mirror/hub/").endpoint == "http://mirror/hub"


def test_defaults(tmp_path: Path) -> None:
    assert config_from_environ({"HF_HOME": str(tmp_path)}) == Config(ask_for_token=False)
    assert Config().endpoint == DEFAULT_ENDPOINT


@pytest.mark.parametrize(
    ("environ", "flags", "field", "expected"),
    [
        ({"HF_ENDPOINT": "http://mirror"}, {}, "endpoint", "http://mirror"),
        ({"HF_ENDPOINT": "http://mirror/"}, {}, "endpoint", "http://mirror"),
        ({"HF_ENDPOINT": ""}, {}, "endpoint", DEFAULT_ENDPOINT),
        ({"HF_ENDPOINT": "http://a"}, {"endpoint": "http://b"}, "endpoint", "http://b"),
        ({"HF_ENDPOINT": "http://a"}, {"endpoint": None}, "endpoint", "http://a"),
        ({"HF_TOKEN": " hf_x\n"}, {}, "token", "hf_x"),
        ({"HF_TOKEN": "  "}, {}, "token", None),
        ({"HF_TOKEN": "hf_x"}, {"token": "hf_y"}, "token", "hf_y"),
        ({"AIM_DOWNLOADER_CONNECTIONS": "4"}, {}, "connections", 4),
        ({"AIM_DOWNLOADER_CONNECTIONS": "4"}, {"connections": 8}, "connections", 8),
        ({"AIM_DOWNLOADER_CONNECTIONS": ""}, {}, "connections", 16),
        ({"STALL_TIMEOUT": "30"}, {}, "stall_timeout", 30.0),
        ({"STALL_TIMEOUT": "3", "AIM_DOWNLOADER_STALL_TIMEOUT": "1.5"}, {}, "stall_timeout", 1.5),
        ({"PROGRESS_INTERVAL": "0.5"}, {}, "progress_interval", 0.5),
        ({"PROGRESS_INTERVAL": ""}, {}, "progress_interval", 5.0),
        ({"AIM_DOWNLOADER_LIMIT_RATE": "10M"}, {}, "limit_rate", 10 * 1024**2),
        ({"AIM_DOWNLOADER_LIMIT_RATE": "10M"}, {"limit_rate": 2000}, "limit_rate", 2000),
        ({"AIM_DOWNLOADER_LAYOUT": "hf-cache"}, {}, "layout", "hf-cache"),
        ({"AIM_DOWNLOADER_LAYOUT": "hf-cache"}, {"layout": "plain"}, "layout", "plain"),
        ({"AIM_DOWNLOADER_PROTOCOL": "HTTP"}, {}, "protocols", ("HTTP",)),
        ({"AIM_DOWNLOADER_PROTOCOL": " xet,Http, ,XET "}, {}, "protocols", ("XET", "HTTP", "XET")),
        ({"AIM_DOWNLOADER_PROTOCOL": ""}, {}, "protocols", DEFAULT),
        ({"AIM_DOWNLOADER_PROTOCOL": " , "}, {}, "protocols", DEFAULT),
        ({"AIM_DOWNLOADER_PROTOCOL": "XET,FOO,http"}, {}, "protocols", ("XET", "FOO", "HTTP")),
        ({"AIM_DOWNLOADER_PROTOCOL": "FOO"}, {"protocols": ("XET",)}, "protocols", ("XET",)),
        ({"HF_HUB_DISABLE_XET": "1"}, {}, "protocols", ("HF_TRANSFER",)),
        ({"HF_HUB_DISABLE_XET": "0"}, {}, "protocols", DEFAULT),
        ({"HF_HUB_DISABLE_XET": "1", "AIM_DOWNLOADER_PROTOCOL": "XET"}, {}, "protocols", ("XET",)),
        (
            {"HF_HUB_DISABLE_XET": "1", "AIM_DOWNLOADER_PROTOCOL": ","},
            {},
            "protocols",
            ("HF_TRANSFER",),
        ),
        ({"HF_HUB_DISABLE_XET": "1"}, {"protocols": ("XET",)}, "protocols", ("XET",)),
        ({"AIM_DOWNLOADER_SCRATCH": "/scratch"}, {}, "scratch", "/scratch"),
        ({}, {}, "scratch", None),
        ({"AIM_DOWNLOADER_TELEMETRY": "1"}, {}, "telemetry", True),
        ({}, {}, "telemetry", False),
        ({"HF_HUB_OFFLINE": "1"}, {}, "offline", True),
        ({"HF_HUB_OFFLINE": "Yes"}, {}, "offline", True),
        ({"HF_HUB_OFFLINE": "0"}, {}, "offline", False),
        ({}, {"include": ("*.json",)}, "include", ("*.json",)),
        ({}, {"clean": True}, "clean", True),
    ],
)
def test_where_a_setting_comes_from(
    environ: dict[str, str], flags: dict[str, object], field: str, expected: object
) -> None:
    assert getattr(config_from_environ(environ, **flags), field) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/models/cache"}, "/models/cache"),
        ({"HF_HUB_CACHE": "/models/cache", "HF_HOME": "/hf"}, "/models/cache"),
        ({"HF_HOME": "/hf"}, "/hf/hub"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hub"),
        ({"HF_HUB_CACHE": ""}, str(Path("~/.cache/huggingface/hub").expanduser())),
    ],
)
def test_where_the_cache_of_huggingface_hub_is(environ: dict[str, str], expected: str) -> None:
    assert str(hf_cache(environ)) == expected


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        ({}, {"connections": 0}, "must be 1 to 256"),
        ({}, {"connections": 257}, "must be 1 to 256"),
        ({"AIM_DOWNLOADER_CONNECTIONS": "many"}, {}, "AIM_DOWNLOADER_CONNECTIONS='many'"),
        ({"STALL_TIMEOUT": "0"}, {}, "must be above 0"),
        ({"STALL_TIMEOUT": "nan"}, {}, "must be above 0"),
        ({"PROGRESS_INTERVAL": "0"}, {}, "PROGRESS_INTERVAL is 0.0: it must be above 0"),
        ({"PROGRESS_INTERVAL": "often"}, {}, "PROGRESS_INTERVAL='often' is not a number"),
        ({"HF_ENDPOINT": "ftp://hub"}, {}, "not an http"),
        ({"AIM_DOWNLOADER_LIMIT_RATE": "fast"}, {}, "AIM_DOWNLOADER_LIMIT_RATE='fast'"),
        ({}, {"limit_rate": 1023}, "must be 1K"),
        ({}, {"limit_rate": "10M"}, "limit_rate is '10M': it must be a number"),
        ({}, {"protocols": ("FOO",)}, "no protocol has the name FOO"),
        ({}, {"protocols": ("XET", "FOO", "BAR")}, "no protocol has the name FOO, BAR"),
        ({}, {"protocols": ()}, "no protocol is named"),
        ({}, {"protocols": "XET"}, "must be a list of names"),
        # What the environment may name, a flag may not.
        ({"AIM_DOWNLOADER_PROTOCOL": "XET,FOO"}, {"protocols": ("FOO", "XET")}, "the name FOO"),
        ({"AIM_DOWNLOADER_PROTOCOL": "FOO,BAR"}, {}, "no protocol has the name FOO, BAR"),
        ({"AIM_DOWNLOADER_LAYOUT": "zip"}, {}, "must be plain or hf-cache"),
        ({}, {"layout": "hf-cache", "prune": True}, "--prune is for a plain folder"),
    ],
)
def test_what_cannot_work_is_refused(
    environ: dict[str, str], flags: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config_from_environ(environ, **flags)
    assert caught.value.exit_code == 2


def test_a_config_does_not_show_its_token() -> None:
    assert "hf_secret" not in repr(config_from_environ({"HF_TOKEN": "hf_secret"}))


def test_protocols_may_be_named_in_small_letters() -> None:
    assert Config(protocols=["xet", "http"]).protocols == ("XET", "HTTP")


def test_a_config_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Config(), "connections", 3)  # noqa: B010  # mypy would refuse the plain form


@pytest.mark.parametrize(
    ("variables", "token", "asked"),
    [
        ({}, "home/token", True),
        ({}, None, False),
        ({"HF_TOKEN_PATH": "{}/mine"}, "mine", True),
        ({"HF_TOKEN_PATH": "{}/mine"}, "home/token", False),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "{}/cache"}, "cache/huggingface/token", True),
        ({"HF_OIDC_RESOURCE": "model"}, None, True),
    ],
)
def test_huggingface_hub_is_asked_for_a_token_only_where_it_may_have_one(
    tmp_path: Path, variables: dict[str, str], token: str | None, asked: bool
) -> None:
    if token:
        (tmp_path / token).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / token).write_text("hf_x")
    environ = {"HF_HOME": "{}/home", **variables}
    environ = {name: value.format(tmp_path) for name, value in environ.items()}
    assert config_from_environ(environ).ask_for_token is asked
