"""The operator's image: what is in it, and that its program runs as in the pod of the chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from operator_shim.__main__ import command
from tests.images.build import OPERATOR
from tests.images.image import Image, Runs
from tests.images.need import need_image

MOST_MB = 250


@pytest.fixture(scope="module")
def image() -> Image:
    return need_image(OPERATOR)


@pytest.fixture
def runs(image: Image, tmp_path: Path) -> Iterator[Runs]:
    with Runs(image, tmp_path) as runs:
        yield runs


def test_its_program_runs_as_a_user_without_rights(image: Image, runs: Runs) -> None:
    assert (image.config["User"], image.config["WorkingDir"]) == ("1000:1000", "/")
    done = runs.run("--help", volumes={})
    assert done.code == 0, done.said
    assert all(option.opts[0] in done.stdout for option in command.params)


def test_what_it_cannot_use_is_told_in_one_line(runs: Runs) -> None:
    wrong = {"AIM_OPERATOR_KINDS": "AIMNothing"}
    done = runs.run(volumes={}, environment=wrong)
    assert done.code == 2, done.said
    assert len(done.stderr.splitlines()) == 1
    assert "AIMNothing" in done.stderr


def test_nothing_of_the_downloader_is_in_it(image: Image) -> None:
    packages = next(image.root.glob("opt/aim/lib/python3*/site-packages"))
    assert (packages / "operator_shim").is_dir()
    assert not (packages / "aim_downloader").exists()
    assert not list(packages.glob("hf_*"))
    files = [path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MOST_MB * 1_000_000
    assert not [path for path in files if path.stat().st_mode & 0o6000]
