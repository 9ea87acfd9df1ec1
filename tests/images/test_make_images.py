"""`make images`: who builds, with which words, and what it says when nobody can.

That it builds is seen in all tests of the image: the image is made by it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aim_downloader._version import __version__
from tests.images.build import ROOT, copy_sources

WORKING = "#!/bin/sh\n[ $1 = info ] || printf '%s\\n' ${0##*/} \"$@\"\n"
WITHOUT_DAEMON = "#!/bin/sh\n[ $1 = info ] || echo docker was called\nexit 1\n"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Where make looks for commands: no builder is among them."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("git", "sed"):
        if path := shutil.which(name):
            (folder / name).symlink_to(path)
    return folder


def add(tools: Path, name: str, script: str) -> None:
    (tools / name).write_text(script)
    (tools / name).chmod(0o755)


def make_images(tools: Path, *words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/make", "--no-print-directory", "images", *words],
        check=False,
        cwd=folder,
        env={"PATH": str(tools), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize(
    ("there", "word", "builder"),
    [
        ({"buildah": WORKING}, (), "buildah"),
        ({"docker": WORKING}, (), "docker"),
        ({"docker": WITHOUT_DAEMON, "buildah": WORKING}, (), "buildah"),
        ({"docker": WORKING, "buildah": WORKING}, ("BUILDER=buildah",), "buildah"),
    ],
)
def test_it_takes_the_builder_that_works(
    tools: Path, there: dict[str, str], word: tuple[str, ...], builder: str
) -> None:
    for name, script in there.items():
        add(tools, name, script)
    done = make_images(tools, *word)
    said, called = done.stdout.splitlines()[:2]
    assert done.returncode == 0, done.stderr
    assert said == f"Building aim-downloader:{__version__} with {builder} ..."
    assert called == builder


def test_the_builder_is_told_what_to_build(tools: Path, tmp_path: Path) -> None:
    add(tools, "docker", WORKING)
    certificates = tmp_path / "some, certificates.pem"
    certificates.touch()
    done = make_images(tools, "TAG=mine", f"CA={certificates}")
    words = done.stdout.splitlines()
    assert words[3:7] == ["--file", "Dockerfile.downloader", "--tag", "aim-downloader:mine"]
    assert f"id=ca,src={certificates}" in words
    assert f"org.opencontainers.image.version={__version__}" in words


def test_a_copy_without_git_is_built_as_well(tools: Path, tmp_path: Path) -> None:
    add(tools, "docker", WORKING)
    copy_sources(tmp_path / "copy")
    done = make_images(tools, folder=tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert "revision" not in done.stdout


@pytest.mark.parametrize(
    ("there", "words", "said"),
    [
        ({}, (), "images are built by docker, whose daemon must run, or by buildah"),
        ({"docker": WITHOUT_DAEMON}, (), "images are built by docker, whose daemon must run"),
        ({"docker": WORKING}, ("CA=/no/such.pem",), "/no/such.pem cannot be read: name a file"),
        ({"buildah": WORKING}, ("BUILDER=docker",), "docker cannot build images here"),
        (
            {"docker": WITHOUT_DAEMON, "buildah": WORKING},
            ("BUILDER=docker",),
            "its daemon does not answer",
        ),
        ({"docker": WORKING}, ("BUILDER=buildah",), "buildah cannot build images here"),
        ({"docker": WORKING}, ("BUILDER=podman",), "by docker or by buildah, and not by podman"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tools: Path, there: dict[str, str], words: tuple[str, ...], said: str
) -> None:
    for name, script in there.items():
        add(tools, name, script)
    done = make_images(tools, *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("inspected", "lines"),
    [("exit 1", 2), ("exit 0", 1)],
    ids=["without its base", "for another reason"],
)
@pytest.mark.parametrize("builder", ["docker", "buildah"])
def test_a_build_that_lacks_its_base_names_it(
    tools: Path, builder: str, inspected: str, lines: int
) -> None:
    script = f"case $* in info) ;; *inspect*) {inspected};; *) echo its words >&2; exit 125;; esac"
    add(tools, builder, f"#!/bin/sh\n{script}\n")
    done = make_images(tools)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert said[0] == "its words"
    assert len(said) == lines
    assert all("The base docker.io/library/debian:" in line for line in said[1:])
