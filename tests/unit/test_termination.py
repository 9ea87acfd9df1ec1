"""The termination message: one JSON object that says what became of a Job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader import errors, events
from aim_downloader.http_client.rules import PROXY_HINT
from aim_downloader.reporters.termination import LIMIT, TerminationMessage, termination_path
from tests.unit.test_job_log import (
    COMMIT,
    PLANNED,
    PUBLISHED,
    RESOLVED,
    SAMPLE,
    URI,
    Clock,
    cancelled,
    committed,
    started,
)

rounds: Callable[[Any], Any] = settings(deadline=None, max_examples=100, print_blob=True)


def message_of(
    path: Path, told: Sequence[events.Event], code: int = 0, error: Exception | None = None
) -> dict[str, Any]:
    clock = Clock()
    with TerminationMessage(path, clock=clock) as message:
        for event in told:
            message(event)
        clock.now += 2.5
        message.write(code, error)
    content = path.read_bytes()
    assert len(content) <= LIMIT
    found: dict[str, Any] = json.loads(content)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "termination-log"


# -- what it says ----------------------------------------------------------------------------------


def test_a_run_that_is_complete(path: Path) -> None:
    told = [RESOLVED, PLANNED, started("a.bin", "XET", 1), SAMPLE, committed("a.bin"), PUBLISHED]
    assert message_of(path, told) == {
        "outcome": "complete",
        "exitCode": 0,
        "error": None,
        "message": "",
        "hint": "",
        "protocol": "XET",
        "bytes": 900,
        "bytesReceived": 900,
        "totalBytes": 900,
        "seconds": 2.5,
        "revision": COMMIT,
        "uri": URI,
    }


def test_a_run_that_failed_half_way(path: Path) -> None:
    error = errors.InsufficientSpaceError("the disk is full", hint="free some space")
    failed = events.RunFailed("InsufficientSpaceError", "the disk is full", "", 73)
    assert message_of(path, [RESOLVED, PLANNED, SAMPLE, failed], 73, error) == {
        "outcome": "failed",
        "exitCode": 73,
        "error": "InsufficientSpaceError",
        "message": "the disk is full",
        "hint": "free some space",
        "protocol": None,
        "bytes": 378,
        "bytesReceived": 378,
        "totalBytes": 900,
        "seconds": 2.5,
        "revision": COMMIT,
        "uri": URI,
    }


def test_a_model_that_would_not_fit_is_told_with_all_its_bytes(path: Path) -> None:
    error = errors.InsufficientSpaceError("/cache is too small", model_bytes=900)
    failed = events.RunFailed("InsufficientSpaceError", "/cache is too small", "", 73)
    assert message_of(path, [RESOLVED, failed], 73, error)["totalBytes"] == 900


@pytest.mark.parametrize(
    ("code", "error", "outcome"),
    [
        (0, None, "complete"),
        (143, cancelled(143), "cancelled"),
        (130, cancelled(130), "cancelled"),
        (69, errors.AllProtocolsFailedError("a", []), "failed"),
        (1, ZeroDivisionError("what"), "failed"),
        (1, None, "failed"),
    ],
)
def test_outcomes(path: Path, code: int, error: Exception | None, outcome: str) -> None:
    told = message_of(path, [], code, error)
    assert (told["outcome"], told["exitCode"]) == (outcome, code)
    assert told["error"] == (type(error).__name__ if error else None)


@pytest.mark.parametrize(
    ("told", "protocol"),
    [
        ([], None),
        ([committed("small.json")], None),
        ([started("a", "XET", 1)], "XET"),
        ([started("a", "XET", 1), started("a", "HTTP", 2)], "HTTP"),
        ([started("a", "XET", 1), started("b", "HTTP", 2), committed("a")], "XET"),
        ([started("a", "XET", 1), committed("a"), committed("small.json")], "XET"),
        ([started("a", "XET", 1), committed("a"), started("b", "HTTP", 2)], "XET"),
        # The last one is a large file that lies in git.
        (
            [
                *(started("a", "XET", 1), committed("a"), started("b", "HTTP", 1)),
                events.FileCommitted("b", 499, "sha256:00"),
            ],
            "XET",
        ),
        ([started("a", "XET", 1), started("a", "HTTP", 2), committed("a")], "HTTP"),
    ],
)
def test_the_protocol_is_the_one_that_brought_the_most(
    path: Path, told: list[events.Event], protocol: str | None
) -> None:
    assert message_of(path, told)["protocol"] == protocol


OTHER = events.SnapshotResolved("hf://org/other", "f" * 40, 1, 10)
NOT_LISTED = events.RunFailed("SnapshotNotFoundError", "no", "", 66)


@pytest.mark.parametrize(
    ("told", "sums", "uri"),
    [
        ([RESOLVED, PLANNED, PUBLISHED, OTHER, PLANNED, PUBLISHED], (1800, 1800), OTHER.uri),
        ([RESOLVED, PLANNED, PUBLISHED, OTHER, PLANNED, SAMPLE], (1278, 1278), OTHER.uri),
        ([RESOLVED, PLANNED, SAMPLE, NOT_LISTED, OTHER, PUBLISHED], (1278, 1278), URI),
        ([RESOLVED, PLANNED, SAMPLE, events.RunCancelled(387, 900)], (387, 378), URI),
        # What was read before there was a plan is not what is there and right.
        ([RESOLVED, SAMPLE, PLANNED], (0, 378), URI),
    ],
)
def test_several_models_are_summed_up_and_the_first_that_failed_is_named(
    path: Path, told: list[events.Event], sums: tuple[int, int], uri: str
) -> None:
    found = message_of(path, told)
    assert (found["bytes"], found["bytesReceived"]) == sums
    assert found["uri"] == uri


def test_a_model_that_cannot_be_listed_is_named(path: Path) -> None:
    message = TerminationMessage(path)
    message.about(URI)
    message(NOT_LISTED)
    message.about(OTHER.uri)
    message.write(66, errors.SnapshotNotFoundError("no"))
    told = json.loads(path.read_bytes())
    assert (told["uri"], told["revision"]) == (URI, None)


def test_the_model_that_was_cancelled_is_named(path: Path) -> None:
    """Also behind one that failed: the outcome is that of the one, so all else is, too."""
    message = TerminationMessage(path)
    message.about("hf://org/gone")
    message(NOT_LISTED)
    message.about(URI)
    message(RESOLVED)
    message.write(143, cancelled(143))
    told = json.loads(path.read_bytes())
    assert (told["outcome"], told["uri"], told["revision"]) == ("cancelled", URI, COMMIT)


def test_a_model_that_was_there_is_named_with_its_commit(path: Path) -> None:
    """Nobody had to be asked what its revision is."""
    message = TerminationMessage(path)
    message.about(URI)
    message(PUBLISHED)
    message.write(0, None)
    told = json.loads(path.read_bytes())
    assert (told["uri"], told["revision"]) == (URI, COMMIT)


# -- how much, and what not ------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["a", "ü", '"', "\\", "\N{HUGGING FACE}", "\n", "\ud800"])
@pytest.mark.parametrize("where", ["message", "hint", "uri"])
def test_long_words_are_shortened(path: Path, where: str, character: str) -> None:
    words = {"message": "m", "hint": "h", "uri": "u"} | {where: character * 5000}
    told = message_of(
        path,
        [events.SnapshotResolved(words["uri"], COMMIT, 1, 1)],
        66,
        errors.SnapshotNotFoundError(words["message"], hint=words["hint"]),
    )
    assert told[where].endswith("…")
    assert len(told[where].encode()) >= 300
    others = {name: told[name] for name in words if name != where}
    assert others == {name: words[name] for name in others}


@given(st.text(max_size=3000), st.text(max_size=3000), st.text(max_size=3000))
@rounds
def test_whatever_is_said_it_fits_and_is_json(
    tmp_path_factory: pytest.TempPathFactory, message: str, hint: str, uri: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fits"
    long = errors.DownloadError(message * 3, hint=hint * 3)
    told = message_of(path, [events.SnapshotResolved(uri * 3, COMMIT, 1, 1)], 1, long)
    assert told["error"] == "DownloadError"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://hub/a?X-Signature=abc answered 403", "https://hub/a?… answered 403"),
        ("https://me:pass@hub/a is no URL", "https:… is no URL"),
        ("'hf://me:pass@org/model' is no URI", "'hf:…' is no URI"),
        ("sent Bearer abc.def", "sent …"),
        ("the token hf_abcdefghijklmnop is bad", "the token … is bad"),
        ("hf://org/model@main has no files", "hf://org/model@main has no files"),
        ("model-0001-of-0002-with-a-name-that-is-very-very-long.bin", None),
        ("https://token@hub/a is no URL", "https:… is no URL"),
        ("https://me:pa/ss@hub/a is no URL", "https:… is no URL"),
        ("https://cdn/a?… answered 403", None),
        (PROXY_HINT, None),
        (f"http://hub/m/resolve/{COMMIT}/a.bin answered 404", None),
        ("write it as https://host[:port][/path], and the token into HF_TOKEN", None),
    ],
)
def test_secrets_are_left_out(path: Path, said: str, shown: str | None) -> None:
    told = message_of(
        path,
        [events.SnapshotResolved(said, COMMIT, 1, 1)],
        1,
        errors.DownloadError(said, hint=said),
    )
    assert {told["message"], told["hint"], told["uri"]} == {shown or said}


# -- where it goes ---------------------------------------------------------------------------------


def test_it_is_written_in_place_and_over_what_was_there(path: Path) -> None:
    """Kubernetes binds this very file into the container."""
    path.write_text("x" * 9000)
    before = path.stat().st_ino
    message_of(path, [])
    assert path.stat().st_ino == before


@pytest.mark.parametrize("name", ["", "no/such/folder/log", "nul\0"])
def test_what_cannot_be_written_is_told_and_ends_nothing(tmp_path: Path, name: str) -> None:
    told: list[str] = []
    TerminationMessage(tmp_path / name, tell=told.append).write(0, None)
    assert len(told) == 1
    assert told[0].startswith("The termination message cannot be written: ")


def test_nobody_wants_it() -> None:
    told: list[str] = []
    TerminationMessage(None, tell=told.append).write(0, None)
    assert told == []


def test_by_default_trouble_is_told_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TerminationMessage(tmp_path).write(0, None)
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line


@pytest.mark.parametrize(
    ("environ", "exists", "where"),
    [
        ({"AIM_DOWNLOADER_TERMINATION_LOG": "/some/log"}, True, "/some/log"),
        ({"AIM_DOWNLOADER_TERMINATION_LOG": "/some/log"}, False, "/some/log"),
        ({"AIM_DOWNLOADER_TERMINATION_LOG": ""}, False, None),
        ({}, True, "of kubernetes"),
        ({}, False, None),
    ],
)
def test_where_it_goes(
    tmp_path: Path, environ: dict[str, str], exists: bool, where: str | None
) -> None:
    made = tmp_path / "termination-log"
    if exists:
        made.touch()
    expected = made if where == "of kubernetes" else where and Path(where)
    assert termination_path(environ, made) == expected


def test_kubernetes_makes_it_in_dev() -> None:
    made = Path("/dev/termination-log")
    assert termination_path({}) == (made if made.exists() else None)
