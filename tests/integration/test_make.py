"""The first command of a newcomer: `make run`, and what it says when Python is not as needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub import HubServer

ROOT = Path(__file__).parents[2]
PARTS = ["Makefile", "pyproject.toml", "requirements.txt", "requirements-dev.txt", "aim_downloader"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make run` needs of the project, without an environment."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, clone / part)
    return clone


def make(
    clone: Path, *words: str, path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/make", *words],
        check=False,
        cwd=clone,
        env={**os.environ, "PATH": path, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.timeout(420)
def test_make_run_downloads_a_model_from_nothing(clone: Path) -> None:
    base = Path(sys.base_prefix) / "bin" / "python3"
    done = make(clone, "run", f"PYTHON={base}")
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stderr
    assert is_whole(clone / "models" / "tiny-llama")

    # The environment is there now: a model of one's own takes no longer than its bytes.
    with HubServer() as hub:
        hub.add_repo("org/model", {"config.json": b"{}", "model.safetensors": b"weights"})
        words = ("URI=hf://org/model", "DIR=./models/mine", f"HF_ENDPOINT={hub.endpoint}")
        done = make(clone, "run", f"PYTHON={base}", *words)
    assert done.returncode == 0, done.stderr
    assert is_whole(clone / "models" / "mine")


def is_whole(folder: Path) -> bool:
    sums = ["sha256sum", "--quiet", "-c", ".aim-downloader/SHA256SUMS"]
    return subprocess.run(sums, cwd=folder, check=False).returncode == 0


def test_a_missing_python_is_said_in_one_line(clone: Path) -> None:
    done = make(clone, "run", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "no-such-python cannot be run: install it" in done.stderr


def test_a_python_without_venv_is_said_in_one_line(clone: Path) -> None:
    bare = clone / "bare-python"
    # A Python as Debian ships it without python3-venv: everything but ensurepip.
    bare.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "\n'
        "import runpy, sys\n"
        "sys.modules['ensurepip'] = None\n"
        "if sys.argv[1] == '-c':\n"
        "    code = sys.argv[2]; sys.argv[:] = sys.argv[1:2] + sys.argv[3:]; exec(code)\n"
        "elif sys.argv[1] == '-m':\n"
        "    name = sys.argv[2]; sys.argv[:] = sys.argv[2:]\n"
        "    runpy.run_module(name, run_name='__main__', alter_sys=True)\n"
        '" "$@"\n'
    )
    bare.chmod(0o755)
    done = make(clone, "run", f"PYTHON={bare}")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "python3-venv" in done.stderr
