"""Little memory: the real command in a real cgroup, with the page cache counted, to a real disk."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.measure import LAUNCH
from tests.hub import HubServer
from tests.integration.support import MIB, STALL_S, SUMS, URI, Command
from tests.kernel_memory import MemoryGroup, NoGroupError, memory_group, why_no_cache

VERSIONS = (1, 2)
GIB = 1024 * MIB
TIMEOUT_S = 100.0


def why_no_group(version: int) -> str | None:
    try:
        with memory_group(64 * MIB, version):
            return None
    except NoGroupError as error:
        return str(error)


def test_one_version_of_cgroups_can_be_tried_here() -> None:
    """Elsewhere the tests below are left out; where everything must run, that is a failure."""
    reasons = {version: why_no_group(version) for version in VERSIONS}
    if all(reasons.values()):
        assert os.environ.get("CI") != "true", reasons
        pytest.skip(f"{reasons}")


@pytest.fixture(params=VERSIONS, ids=lambda version: f"v{version}")
def version(request: pytest.FixtureRequest) -> int:
    version: int = request.param
    if reason := why_no_group(version):
        pytest.skip(reason)
    return version


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk with room for gigabytes, which do not stay."""
    if reason := why_no_cache(tmp_path):
        pytest.skip(reason)
    free = shutil.disk_usage(tmp_path).free
    if free < 6 * GIB:
        pytest.skip(f"{tmp_path} has {free // MIB} MiB free: 6 GiB are needed")
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@dataclass(frozen=True)
class Ended:
    """A command that has ended. ``peak`` is the most memory that its process itself had."""

    code: int
    said: str
    peak: int


def run_in(group: MemoryGroup, hub: HubServer, folder: Path, *words: str | Path) -> Ended:
    """Run the real command inside a group, and wait for its end."""
    report = folder / "report"
    command = [sys.executable, "-m", "aim_downloader", *map(str, words)]
    with Command(hub.endpoint, folder) as plain:
        # The launcher stays outside; it is small, and a child's peak begins with its parent's.
        ended = subprocess.run(
            [sys.executable, "-I", "-S", str(LAUNCH), str(report), *group.command(command)],
            env={**plain.environment, "AIM_DOWNLOADER_STALL_TIMEOUT": str(20 * STALL_S)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    told = json.loads(report.read_text())
    return Ended(told["code"], ended.stdout + ended.stderr, told["peak"])


def sparse(path: Path, size: int) -> Path:
    """A file that takes no room: it reads as zeros."""
    with path.open("wb") as opened:
        opened.truncate(size)
    return path


def assert_verified(hub: HubServer, target: Path) -> None:
    entries = hub.repo("org/model").commits[hub.repo("org/model").head].entries
    assert sorted((target / SUMS).read_text().splitlines()) == sorted(
        f"{entry.content.sha256}  {path}" for path, entry in entries.items()
    )
    for path, entry in entries.items():
        assert (target / path).stat().st_size == entry.content.size


def test_a_model_of_many_times_the_limit(
    version: int, hub: HubServer, disk: Path, roomy: Path
) -> None:
    hub.add_repo("org/model", {"model.safetensors": sparse(roomy / "origin", 4 * GIB)})
    with memory_group(512 * MIB, version) as group:
        ended = run_in(group, hub, disk, URI, disk / "target")
        assert ended.code == 0, ended.said
        assert_verified(hub, disk / "target")
        assert group.kills == 0
    assert "Memory is limited" not in ended.said
    assert ended.peak <= 160 * MIB


def test_what_is_hashed_does_not_stay_in_memory(
    version: int, hub: HubServer, disk: Path, roomy: Path
) -> None:
    """By one connection, which brings all in order: nothing waits to be read back."""
    hub.add_repo("org/model", {"model.safetensors": sparse(roomy / "origin", 1 * GIB)})
    with memory_group(512 * MIB, version) as group:
        ended = run_in(group, hub, disk, URI, disk / "target", "--connections", "1")
        assert ended.code == 0, ended.said
        assert_verified(hub, disk / "target")
        assert (group.kills, group.refusals) == (0, 0)
        assert group.peak <= 256 * MIB


def test_the_pages_of_many_files_share_the_limit(
    version: int, hub: HubServer, disk: Path, roomy: Path
) -> None:
    content = sparse(roomy / "origin", 96 * MIB)
    hub.add_repo("org/model", {f"model-{n:05d}.safetensors": content for n in range(16)})
    # Slow enough for all to be under way at once.
    hub.pace(300e6)
    with memory_group(512 * MIB, version) as group:
        ended = run_in(group, hub, disk, URI, disk / "target")
        assert ended.code == 0, ended.said
        assert_verified(hub, disk / "target")
        assert (group.kills, group.refusals) == (0, 0)


def test_buffers_follow_the_limit(version: int, hub: HubServer, disk: Path, roomy: Path) -> None:
    """As many connections as are asked for here would take more memory than there is."""
    content = sparse(roomy / "origin", 8 * MIB)
    hub.add_repo("org/model", {f"model-{n:05d}.safetensors": content for n in range(128)})
    # Slow enough for all connections that are allowed to join.
    hub.pace(150e6)
    with memory_group(64 * MIB, version) as group:
        ended = run_in(group, hub, disk, URI, disk / "target", "--connections", "128")
        assert ended.code == 0, ended.said
        assert_verified(hub, disk / "target")
        assert group.kills == 0
    told = "Memory is limited to 64 MiB here: 3 of 128 connections are used"
    assert ended.said.count(told) == 1, ended.said
