"""Advice in a container, where there are no flags to follow it by."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import aim_downloader
from aim_downloader import errors, events
from aim_downloader.reporters.by_variables import by_variables
from aim_downloader.reporters.job_log import JobLog
from aim_downloader.reporters.termination import TerminationMessage

KEPT = "1 file, 5 B, of an earlier revision is kept"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("more memory, or lower --connections", "more memory, or lower AIM_DOWNLOADER_CONNECTIONS"),
        ("name one with --format, or none", "name one with AIM_DOWNLOADER_FORMAT, or none"),
        (
            "weights in 2 formats: --format safetensors would save 5 GiB",
            "weights in 2 formats: AIM_DOWNLOADER_FORMAT=safetensors would save 5 GiB",
        ),
        ("then set HF_TOKEN or --token-file", "then set HF_TOKEN"),
        ("look at HF_TOKEN or --token-file; `hf auth whoami` says more", "look at HF_TOKEN"),
        ("the endpoint (HF_ENDPOINT, --endpoint) 'x'", "the endpoint (HF_ENDPOINT) 'x'"),
        ("of --protocol and AIM_DOWNLOADER_PROTOCOL are XET", "of AIM_DOWNLOADER_PROTOCOL are XET"),
        ("take a larger volume, or leave files out with --exclude", "take a larger volume"),
        (f"{KEPT}; --prune removes it", KEPT),
        ("4 quantisations: --include '*Q4*' takes 5 GiB", ""),
        ("--exclude 'a/*' would save 1 GiB; take heart, or rest", "take heart, or rest"),
        ("a--exclude b --excluded x-y -- z; or", None),
        ("hf://org/model, or else; nothing", None),
    ],
)
def test_flags_become_variables_or_are_left_out(words: str, told: str | None) -> None:
    assert by_variables(words) == (words if told is None else told)


def hints() -> Iterator[str]:
    """What the program may advise, as its sources have it."""
    for path in Path(aim_downloader.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                strings = (one for one in ast.walk(node.value) if isinstance(one, ast.Constant))
                yield from (one.value for one in strings if isinstance(one.value, str))


def test_no_hint_of_ours_names_a_flag_in_a_container() -> None:
    named = {hint for hint in hints() if " --" in f" {hint}"}
    assert len(named) > 5  # else this looks in the wrong place
    assert [hint for hint in named if "--" in by_variables(hint)] == []


def test_a_job_names_no_flag(tmp_path: Path) -> None:
    stream, told = io.StringIO(), tmp_path / "told"
    log, message = JobLog(stream), TerminationMessage(told)
    error = errors.ConfigError("--connections is 300", hint="lower --connections; --help helps")
    log(events.EarlierSettled(1, 5, 0, 0, ()))
    log.conclude(2, error)
    message.write(2, error)
    assert stream.getvalue().splitlines() == [
        KEPT,
        "error: AIM_DOWNLOADER_CONNECTIONS is 300",
        "hint: lower AIM_DOWNLOADER_CONNECTIONS",
    ]
    said = json.loads(told.read_text())
    assert said["message"] == "AIM_DOWNLOADER_CONNECTIONS is 300"
    assert said["hint"] == "lower AIM_DOWNLOADER_CONNECTIONS"
