"""The command `job`: where to, with which settings, and what ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aim_downloader.errors import AllProtocolsFailedError, DownloadError, StorageError
from aim_downloader.events import Event, RunCancelled
from aim_downloader.reporters.quiet import QuietReporter
from aim_downloader.reporters.together import Together
from tests.unit.test_cli import URI, Core, run


@pytest.mark.parametrize(
    ("words", "environ", "asked"),
    [
        ([URI], {}, [(URI, "/cache")]),
        ([URI], {"TARGET_DIR": ""}, [(URI, "/cache")]),
        ([URI], {"TARGET_DIR": "/mnt/models"}, [(URI, "/mnt/models")]),
        ([URI, "here"], {"TARGET_DIR": "/mnt/models"}, [(URI, "here")]),
        ([URI, "a", "hf://gpt2", "b"], {}, [(URI, "a"), ("hf://gpt2", "b")]),
        # Whether it is one the core finds out, when the others are tried too.
        (["s3://bucket/model", "a", URI, "b"], {}, [("s3://bucket/model", "a"), (URI, "b")]),
    ],
)
def test_where_to(words: list[str], environ: dict[str, str], asked: list[tuple[str, str]]) -> None:
    core = Core()
    assert run("job", *words, core=core, environ=environ) == 0
    assert core.asked == asked


@pytest.mark.parametrize(
    ("command", "origin"), [("job", False), ("check-size", False), ("download", True)]
)
def test_where_it_came_from_is_left_by_downloads_alone(command: str, origin: bool) -> None:
    core = Core()
    assert run(command, URI, core=core) == 0
    assert core.config.origin is origin


@pytest.mark.parametrize("words", [[URI, "hf://gpt2"], [URI, "a", "hf://gpt2", "a"]])
def test_two_models_cannot_be_in_one_folder(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    core = Core()
    assert run("job", *words, core=core) == 2
    assert "two models cannot be in one folder" in capsys.readouterr().err
    assert core.asked == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(StorageError("read-only"), 73), (AllProtocolsFailedError("x", []), 69)],
)
def test_the_first_failure_decides(
    error: DownloadError, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told"
    core = Core(error=error, fails="gpt2")
    environ = {"AIM_DOWNLOADER_TERMINATION_LOG": str(told)}
    assert run("job", "hf://gpt2", "a", URI, "b", core=core, environ=environ) == code
    assert [uri for uri, _ in core.asked] == ["hf://gpt2", URI]
    assert capsys.readouterr().err.splitlines()[-1 if not error.hint else -2].startswith("error: ")
    assert json.loads(told.read_text())["error"] == type(error).__name__


class Broken(Core):
    """Fails as nobody foresaw."""

    def _fail(self, uri: str = "") -> None:
        raise TypeError("model config.json not found in a place")


@pytest.mark.parametrize("command", ["job", "check-size"])
def test_what_nobody_foresaw_is_told_with_its_traceback(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told"
    environ = {"AIM_DOWNLOADER_TERMINATION_LOG": str(told)}
    assert run(command, URI, core=Broken(), environ=environ) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Traceback (most recent call last):\n")
    assert "\nTypeError: " in said.err
    assert "not found" not in said.err  # which would be taken for a model that does not exist
    if command == "job":
        assert json.loads(told.read_text())["error"] == "TypeError"


class Kept(QuietReporter):
    """Notes what happens to it."""

    def __init__(self, notes: list[object]) -> None:
        self._notes = notes

    def __exit__(self, *error: object) -> None:
        self._notes.append(error[1])

    def __call__(self, event: Event, /) -> None:
        self._notes.append(event)


def test_several_reporters_hear_of_all() -> None:
    first, second = list[object](), list[object]()
    event = RunCancelled(1, 2)
    with Together(Kept(first), Kept(second)) as together:
        together(event)
    assert first == second == [event, None]


def test_several_reporters_hear_of_what_ends_it() -> None:
    first, second = list[object](), list[object]()
    error = StorageError("read-only")
    with pytest.raises(StorageError), Together(Kept(first), Kept(second)):
        raise error
    assert first == second == [error]
