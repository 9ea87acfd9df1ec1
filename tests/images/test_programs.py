"""The image's programs, started by those who swap the image for ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hub import HubServer
from tests.images.image import Runs
from tests.integration.support import TOKEN, Files, assert_right, names_below

URI = "hf://org/model"
INITIALIZER = "/storage-initializer/scripts/initializer-entrypoint"
SUMS = ".aim-downloader/SHA256SUMS"


def environment_of(hub: HubServer, **more: str | None) -> dict[str, str | None]:
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, **more}


def assert_model(folder: Path, files: Files) -> None:
    """Exactly the model, readable for whoever runs it."""
    assert names_below(folder) == {*files, SUMS}
    for name, content in files.items():
        assert_right(folder / name, content)
        assert (folder / name).stat().st_uid == 1000


@pytest.mark.parametrize(
    "scratch",
    [
        {},
        {"HOME": "/nonexistent"},
        {"HF_HOME": "/nowhere/hf", "TMPDIR": "/nowhere/tmp", "XDG_CACHE_HOME": "/nowhere"},
    ],
    ids=["unset", "home-of-the-image's-user", "not-to-be-written"],
)
def test_a_uri_alone_comes_into_cache(
    runs: Runs, hub: HubServer, files: Files, scratch: dict[str, str | None]
) -> None:
    done = runs.run(URI, environment=environment_of(hub, **scratch))
    assert done.code == 0, done.said
    assert_model(runs.cache, files)


@pytest.mark.parametrize("protocol", ["HTTP", "HF_TRANSFER", "XET"])
def test_each_protocol_works_with_nothing_writable_but_the_volume(
    runs: Runs, xet_hub: HubServer, files: Files, protocol: str
) -> None:
    environment = environment_of(xet_hub, HF_TOKEN=None, AIM_DOWNLOADER_PROTOCOL=protocol)
    done = runs.run(URI, environment=environment)
    assert done.code == 0, done.said
    assert_model(runs.cache, files)


def test_the_target_is_named_by_the_environment(runs: Runs, hub: HubServer, files: Files) -> None:
    target = runs.volume("target")
    environment = environment_of(hub, TARGET_DIR="/mnt/models/here")
    done = runs.run(URI, volumes={"/mnt/models": target}, environment=environment)
    assert done.code == 0, done.said
    assert_model(target / "here", files)


def test_kserve_starts_it_with_pairs(runs: Runs, hub: HubServer, files: Files) -> None:
    one, two = runs.volume("one"), runs.volume("two")
    done = runs.run(
        *(URI, "/mnt/models", "hf://org/other", "/mnt/adapters"),
        volumes={"/mnt/models": one, "/mnt/adapters": two},
        environment=environment_of(hub),
    )
    assert done.code == 0, done.said
    assert_model(one, files)
    assert_model(two, {"config.json": b"{}"})


@pytest.mark.parametrize(
    "command", [(INITIALIZER,), ("python", INITIALIZER)], ids=["itself", "by-python"]
)
def test_the_initializer_brings_src_to_dest(
    runs: Runs, hub: HubServer, files: Files, command: tuple[str, ...]
) -> None:
    target = runs.volume("target")
    words = (URI, "/mnt/models")
    environment = environment_of(hub, TARGET_DIR="/not/this")
    volumes = {"/mnt/models": target}
    done = runs.run(*words, command=command, volumes=volumes, environment=environment)
    assert done.code == 0, done.said
    assert_model(target, files)


def test_the_size_is_the_last_line(runs: Runs, hub: HubServer, files: Files) -> None:
    done = runs.run(URI, command=("/check-size.sh",), volumes={}, environment=environment_of(hub))
    assert done.code == 0, done.said
    size = sum(len(content) for content in files.values() if isinstance(content, bytes))
    assert json.loads(done.stdout.splitlines()[-1]) == {"url": URI, "sizeBytes": size}


@pytest.mark.parametrize("uri", ["hf://org/missing", "no-uri"])
def test_a_size_that_cannot_be_known_is_no_output(runs: Runs, hub: HubServer, uri: str) -> None:
    done = runs.run(uri, command=("/check-size.sh",), volumes={}, environment=environment_of(hub))
    assert done.code not in {0, 125, 126, 127}, done.said
    assert done.stdout == ""
    assert uri in done.stderr or "org/missing" in done.stderr


@pytest.mark.parametrize("variable", ["1", None], ids=["by environment", "by flag"])
def test_files_of_the_model_are_never_run(
    runs: Runs, hub: HubServer, files: Files, variable: str | None
) -> None:
    """A second run starts in a folder that holds a `click.py`."""
    environment = environment_of(hub) | {"PYTHONSAFEPATH": variable}
    for _ in range(2):
        done = runs.run(URI, environment=environment)
        assert done.code == 0, done.said
    initializer = ("/storage-initializer/scripts/initializer-entrypoint",)
    for command, words in [(("/check-size.sh",), (URI,)), (initializer, (URI, "/cache"))]:
        done = runs.run(*words, command=command, environment=environment)
        assert done.code == 0, done.said
    done = runs.run(
        URI, command=("python", "-m", "aim_downloader", "size"), environment=environment_of(hub)
    )
    assert done.code == 0, done.said


def test_what_is_not_writable_is_said(runs: Runs, hub: HubServer) -> None:
    done = runs.run(URI, volumes={}, environment=environment_of(hub))
    assert done.code == 73, done.said
    assert "/cache" in done.stderr
    assert "hint: the file system is read-only" in done.stderr
    assert "mount a volume there" in done.stderr
