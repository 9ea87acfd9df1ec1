"""`python -m tests.images` builds whole or not at all, and says what is left out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import base
from tests.images.build import NAME, ROOT, why_not
from tests.images.need import need_image
from tests.integration.support import wait_until

# Stands for debootstrap, with which every build begins.
SLOW = '#!/bin/sh\necho $$ >"$0.began"\nexec sleep 60\n'
BROKEN = "#!/bin/sh\necho 'E: no such suite' >&2\nexit 1\n"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The commands of a build that begins here, but none that could build."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "sleep", "unshare"):
        (folder / name).symlink_to(shutil.which(name) or "/nowhere")
    return folder


def add(tools: Path, **scripts: str) -> None:
    for name, script in {"buildah": BROKEN, "make": BROKEN, **scripts}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)


def start(tools: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.images"],
        cwd=ROOT,
        env={
            "PATH": str(tools),
            "XDG_CACHE_HOME": str(tools.parent / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(tools: Path) -> list[str]:
    place = tools.parent / "cache" / "aim-downloader-tests" / "images"
    return [path.name for path in place.glob("*") if path.name != "lock"]


need_tools = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.mark.parametrize("everywhere", [False, True], ids=["here", "where everything must run"])
def test_without_the_means_it_says_so_in_one_line(tools: Path, *, everywhere: bool) -> None:
    if os.geteuid() == 0:
        (tools / "unshare").unlink()
    process = start(tools, **({"CI": "true"} if everywhere else {}))
    said, _ = process.communicate(timeout=100)
    assert process.returncode == (1 if everywhere else 0), said
    assert said.startswith("tests/images: tests of the image are left out: ")
    assert len(said.splitlines()) == 1


@need_tools
def test_a_build_that_fails_says_why_and_leaves_nothing(tools: Path) -> None:
    add(tools, debootstrap=BROKEN)
    process = start(tools, CI="true")
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1, said
    assert "debootstrap failed (E: no such suite)" in said.splitlines()[-1]
    assert left_behind(tools) == []


@need_tools
def test_without_a_base_it_is_left_out(tools: Path) -> None:
    add(tools, debootstrap=BROKEN)
    process = start(tools)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert said.splitlines()[-1].endswith("left out: debootstrap failed (E: no such suite).")


@need_tools
def test_what_cannot_be_built_of_our_own_is_not_left_out(tools: Path) -> None:
    add(tools, debootstrap=BROKEN)
    place = tools.parent / "cache" / "aim-downloader-tests" / "images"
    (place / f"{base.key()}.storage").mkdir(parents=True)
    (place / f"{base.key()}.tar").touch()
    process = start(tools)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1, said
    assert said.splitlines()[-1].endswith("cannot be built: make failed (E: no such suite).")


@need_tools
def test_a_build_that_is_ended_leaves_nothing(tools: Path) -> None:
    add(tools, debootstrap=SLOW)
    process = start(tools)
    began = tools / "debootstrap.began"
    wait_until(lambda: began.exists() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert left_behind(tools) == []


def test_where_the_image_is_told_also_when_nothing_was_to_be_done() -> None:
    image = need_image()
    command = [sys.executable, "-m", "tests.images"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == f"tests/images: {image.archive} holds {NAME}."
