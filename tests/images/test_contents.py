"""What is in the image, what is not, and how it wants to be started."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from aim_downloader._version import __version__
from tests.images.build import ROOT
from tests.images.image import Image, Runs

USER = 1000

# What Python says of what is installed: the name, the version, and whether the terms are there.
INSTALLED = """
import importlib.metadata, json
rows = []
for found in importlib.metadata.distributions():
    has_terms = any("licen" in file.name.lower() for file in found.files)
    rows.append([found.metadata["Name"], found.version, has_terms])
print(json.dumps(rows))
"""


def tree(image: Image) -> Iterator[tuple[str, os.stat_result]]:
    for path in image.root.rglob("*"):
        yield f"/{path.relative_to(image.root)}", path.lstat()


def test_it_is_started_as_the_contract_says(image: Image) -> None:
    assert image.config["User"] == "1000:1000"
    assert image.config["WorkingDir"] == "/cache"
    python = ["/opt/aim/bin/python", "-P"]
    assert image.config["Entrypoint"] == [*python, "-m", "aim_downloader", "job"]
    assert image.environment["TARGET_DIR"] == "/cache"


def test_the_programs_see_user_and_folder(runs: Runs) -> None:
    code = "import os; print(os.getuid(), os.getgid(), os.getgroups(), os.getcwd())"
    done = runs.run("-c", code, command=("python",))
    assert done.stdout == "1000 1000 [] /cache\n", done.said


def test_it_bears_labels(image: Image) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): text
        for name, text in image.config["Labels"].items()
    }
    assert labels["title"] == "aim_downloader"
    assert labels["description"]
    assert labels["licenses"] == "MIT"
    assert labels["version"] == __version__


def test_it_is_small(image: Image) -> None:
    sizes = {(known.st_dev, known.st_ino): known.st_size for _, known in tree(image)}
    assert sum(sizes.values()) <= 250_000_000


@pytest.mark.parametrize(
    "tool",
    ["kubectl", "curl", "wget", "pip", "pip3", "s3cmd", "aws", "git", "gcc", "uv", "hatchling"],
)
def test_it_has_no_tool_that_it_does_not_use(image: Image, tool: str) -> None:
    folders = image.environment["PATH"].split(":")
    assert not [folder for folder in folders if (image.root / folder[1:] / tool).exists()]


def test_its_own_program_is_the_only_one_beside_python(image: Image) -> None:
    names = {path.name for path in (image.root / "opt/aim/bin").iterdir()}
    assert names == {"aim-downloader", "python", "python3", "python3.13"}


@pytest.mark.parametrize("module", ["pip", "ensurepip", "setuptools", "hatchling"])
def test_it_cannot_install_anything(runs: Runs, module: str) -> None:
    done = runs.run("-c", f"import {module}", command=("python",))
    assert "ModuleNotFoundError" in done.stderr, done.said


def test_only_its_volume_is_writable(image: Image) -> None:
    writable = {
        name
        for name, known in tree(image)
        if not stat.S_ISLNK(known.st_mode) and (known.st_uid == USER or known.st_mode & 0o002)
    }
    # Debian's folders for everybody; with a read-only root nothing can be written there either.
    assert writable - {"/tmp", "/var/tmp", "/run/lock"} == {"/cache"}


def test_a_read_only_root_is_one(runs: Runs) -> None:
    code = "import pathlib, sys; pathlib.Path(sys.argv[1], 'x').touch()"
    for folder in ("/tmp", "/var/tmp", "/opt/aim", "/dev"):
        done = runs.run("-c", code, folder, command=("python",))
        assert re.search("Read-only file system|Permission denied", done.stderr), done.said


def test_nothing_gives_privileges(image: Image) -> None:
    assert not [
        name
        for name, known in tree(image)
        if stat.S_ISREG(known.st_mode) and known.st_mode & (stat.S_ISUID | stat.S_ISGID)
    ]


def test_the_user_has_a_name_and_no_home(runs: Runs) -> None:
    code = "import pwd, os; print(*pwd.getpwuid(os.getuid()))"
    done = runs.run("-c", code, command=("python",))
    assert done.stdout == "aim x 1000 1000  /nonexistent /usr/sbin/nologin\n", done.said


def test_the_libraries_are_the_locked_ones(runs: Runs) -> None:
    done = runs.run("-c", INSTALLED, command=("python",))
    installed = {normal(name): version for name, version, _ in json.loads(done.stdout)}
    lock = (ROOT / "requirements.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9_.-]+)==([^ ;]+)", lock, re.MULTILINE))
    assert installed.pop("aim-downloader") == __version__
    assert installed.keys() >= {"aiohttp", "hf-transfer", "hf-xet", "urllib3"}
    assert installed == {name: locked[name] for name in installed}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_terms_of_use_are_there(runs: Runs, image: Image) -> None:
    done = runs.run("-c", INSTALLED, command=("python",))
    assert not [name for name, _, has_terms in json.loads(done.stdout) if not has_terms]
    packages = debian_packages(image)
    assert {"python3-minimal", "ca-certificates", "libc6"} <= packages.keys()
    share = image.root / "usr/share/doc"
    assert not [name for name in packages if not (share / name / "copyright").exists()]


def debian_packages(image: Image) -> dict[str, str]:
    status = (image.root / "var/lib/dpkg/status").read_text()
    return dict(re.findall(r"^Package: (.*)\n(?:.*\n)*?Version: (.*)$", status, re.MULTILINE))


def test_the_native_engines_load(runs: Runs) -> None:
    code = "import hf_transfer, hf_xet; print('loaded')"
    done = runs.run("-c", code, command=("python",))
    # hf_xet says there too that it found no place for its own log.
    assert done.stdout.endswith("loaded\n"), done.said


def test_all_bytecode_is_there_and_taken_as_it_is(image: Image) -> None:
    """A start never compiles, whatever has become of the sources' times."""
    for folder in ("opt/aim/lib", "usr/lib/python3.13"):
        sources = list((image.root / folder).rglob("*.py"))
        assert sources
        assert not [str(path) for path in sources if bytecode_flags(path) != 1]


def bytecode_flags(source: Path) -> int | None:
    """1: to be taken without a look at the source."""
    path = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
    return int.from_bytes(path.read_bytes()[4:8], "little") if path.exists() else None


def test_a_start_compiles_nothing(runs: Runs) -> None:
    done = runs.run("-v", "-m", "aim_downloader", "job", command=("python",))
    assert "aim_downloader/cli/job" in done.stderr, done.said
    assert re.findall(r"# code object from '[^']*\.py'", done.stderr) == []
