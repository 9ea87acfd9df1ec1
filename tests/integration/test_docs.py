"""The commands that the documentation shows do what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aim_downloader.environment import VARIABLES
from aim_downloader.errors import EXIT_CODES, DownloadError
from docs import reference
from tests.hub import HubServer
from tests.integration.support import TOKEN, URI, Command

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))]
FILES: dict[str, bytes | Path] = {
    "README.md": b"# gpt2\n",
    "config.json": b'{"model_type": "gpt2"}',
    "model.safetensors": os.urandom(3_000_000),
    "pytorch_model.bin": os.urandom(3_000_001),
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with HubServer() as hub:
        hub.add_repo("openai-community/gpt2", FILES)
        yield hub.endpoint


def blocks(language: str) -> list[str]:
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    shown = [line[2:].partition("  #")[0] for line in lines if line.startswith("$ ")]
    # What is for a cluster is run in one: tests/cluster/test_examples.py, tests/operator.
    elsewhere = ("make ", "kubectl ", "until kubectl ", "helm ", "curl -s localhost:8080")
    return [line for line in shown if not line.startswith(elsewhere)]


def run(words: list[str], folder: Path, endpoint: str) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "HF_ENDPOINT": endpoint,
    }
    done = subprocess.run(
        words,
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


def test_the_shown_commands_work_one_after_the_other(tmp_path: Path, endpoint: str) -> None:
    assert len(commands()) > 3
    for command in commands():
        run(["sh", "-c", command], tmp_path, endpoint)


@pytest.mark.parametrize("code", blocks("python"))
def test_shown_python_works(code: str, tmp_path: Path, endpoint: str) -> None:
    run([sys.executable, "-W", "error", "-c", code], tmp_path, endpoint)


def test_the_reference_is_what_the_code_says() -> None:
    assert reference.PAGE.read_text("utf-8") == reference.reference(), "run `make docs`"


def test_every_variable_that_is_read_has_a_row() -> None:
    read = re.compile(r"""environ(?:\.get\(|\[)["']([A-Z_]+)["']""")
    paths = [path for path in ROOT.glob("aim_downloader/**/*.py") if "demo" not in path.parts]
    sources = "\n".join(path.read_text("utf-8") for path in paths)
    told = {name for one in VARIABLES for name in one.name.split(", ")}
    # Those that only say where huggingface_hub or a terminal is at home.
    assert set(read.findall(sources)) - told <= {"TERM", "XDG_CACHE_HOME"}


def test_every_error_ends_with_a_code_that_is_told() -> None:
    kinds = [DownloadError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 10
    assert {kind.exit_code for kind in kinds} <= EXIT_CODES.keys()


# --- in a cluster ---------------------------------------------------------------------------------

CONTAINER = (ROOT / "docs" / "container.md").read_text("utf-8")
COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
# Where somebody who works at a terminal has a token, and a cache.
OF_A_USER = {"HF_HUB_CACHE", "HF_TOKEN_PATH"}
# `verify` and Ctrl-C.
NO_END_OF_A_POD = {65, 130}


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the page on containers."""
    below = CONTAINER.partition(f"\n{heading}\n")[2]
    table = re.search(r"^\|.*?\n\n", below, re.MULTILINE | re.DOTALL)
    assert table, heading
    lines = table[0].splitlines()[2:-1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_container_is_told_of_every_variable_that_counts_there() -> None:
    told = {name for one in VARIABLES for name in one.name.split(", ")}
    shown = set(re.findall(r"`([A-Z][A-Z_]+)", CONTAINER.partition("\n## Variables\n")[2]))
    assert told - shown == OF_A_USER


def test_a_container_is_told_of_every_exit_code_of_a_pod() -> None:
    told = {code: known.again for code, known in EXIT_CODES.items() if code not in NO_END_OF_A_POD}
    assert {int(code): again for code, _, again in rows("### Exit codes")} == told


def test_the_example_ends_a_job_where_trying_again_cannot_help() -> None:
    job = (ROOT / "docs" / "examples" / "job.yaml").read_text("utf-8")
    [codes] = re.findall(r"^ +values: (\[.*\])$", job, re.MULTILINE)
    final = [code for code, known in EXIT_CODES.items() if known.again.startswith("after a change")]
    assert json.loads(codes) == final


def test_the_shown_lines_of_a_log_are_said(
    command: Command, target: Path, tmp_path: Path, hub: HubServer
) -> None:
    hub.add_repo("org/gated", FILES, gated="manual")
    sequence: dict[str, Any] = {
        "AIM_DOWNLOADER_PROTOCOL": "XET,HTTP",
        "PROGRESS_INTERVAL": "0.1",
    }
    simulated = {
        "AIM_DEBUG_SIMULATE_HF_DOWNLOAD": "1",
        "AIM_DEBUG_SIMULATE_HF_DURATION": "0",
        "AIM_DEBUG_SIMULATE_HF_FAIL_PROTOCOLS": "XET,HTTP",
    }
    hanging = {"AIM_DEBUG_CAUSE_HANG": "1", "AIM_DOWNLOADER_STALL_TIMEOUT": "0.2"}
    logs = [
        command.run("job", URI, target, **environment).stderr
        for environment in (sequence, sequence | simulated, hanging)
    ]
    logs += [
        command.run("job", uri, tmp_path / "none", HF_TOKEN=TOKEN).stderr
        for uri in ("hf://org/gone", "hf://org/gated")
    ]
    said = [line for log in logs for line in log.splitlines()]
    shown = [line for row in rows("### Log lines") for line in re.findall("`(.*?)`", row[0])]
    # It takes a full disk; tests/unit/test_phrases.py has it.
    shown.remove("No space left on device: …")
    unsaid = [line for line in shown if not any(pattern(line).fullmatch(one) for one in said)]
    assert not unsaid


def pattern(shown: str) -> re.Pattern[str]:
    """What a line is like that the page shows with N, X and … in it."""
    stands_for = {"N": r"[\d.]+", "X": "[A-Z_]+", "…": ".*"}
    pieces = re.split(r"(\bN(?=s\b|\W|$)|\bX\b|…)", shown)
    return re.compile("".join(stands_for.get(piece) or re.escape(piece) for piece in pieces))


def test_the_shown_message_has_the_fields_of_a_real_one(
    command: Command, target: Path, tmp_path: Path
) -> None:
    path = tmp_path / "message"
    assert command.run("job", URI, target, AIM_DOWNLOADER_TERMINATION_LOG=str(path)).code == 0
    real = list(json.loads(path.read_text("utf-8")))
    [example] = [json.loads(block) for block in blocks("json") if '"outcome"' in block]
    assert list(example) == real
    told = [row[0] for row in rows("### The termination message")]
    assert {name for cell in told for name in re.findall("`(.*?)`", cell)} == set(real)


def test_every_test_that_shows_a_difference_exists() -> None:
    named = re.findall(r"`(tests/\S+\.py)?::(test_\w+)`", COMPATIBILITY)
    assert len(named) > 12
    path = ""
    for at, name in named:
        path = at or path
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE)


# --- links ----------------------------------------------------------------------------------------


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / page for page in PAGES] + sorted(ROOT.glob("docs/decisions/*.md"))
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not broken
