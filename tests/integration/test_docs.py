"""The commands that the documentation shows do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aim_downloader.environment import VARIABLES
from aim_downloader.errors import EXIT_CODES, DownloadError
from docs import reference
from tests.hub import HubServer

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
    return [line for line in shown if not line.startswith("make ")]


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
        timeout=60,
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


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / page for page in PAGES] + sorted(ROOT.glob("docs/decisions/*.md"))
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not broken
