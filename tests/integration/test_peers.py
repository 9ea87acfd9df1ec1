"""What a download leaves is understood by others."""

import subprocess
from pathlib import Path

from tests.hub import HubServer
from tests.integration.support import HIDDEN, SUMS, Downloader, Files


def test_sha256sum_accepts_and_finds_damage(downloader: Downloader, target: Path) -> None:
    downloader.run(target)
    check = ["sha256sum", "--check", "--strict", SUMS]
    assert subprocess.run(check, cwd=target, check=False).returncode == 0
    (target / "config.json").write_bytes(b"[]")
    assert subprocess.run(check, cwd=target, check=False).returncode == 1


async def test_the_same_content_has_the_same_sums_wherever_it_comes_from(
    hub: HubServer, downloader: Downloader, tmp_path: Path, files: Files
) -> None:
    backwards = dict(reversed(list(files.items())))
    hub.add_repo("elsewhere/copy", {"old.txt": b"old"}).commit({**backwards, "old.txt": None})
    await downloader(tmp_path / "a")
    await downloader(tmp_path / "b", "hf://elsewhere/copy", connections=1)
    sums = [(tmp_path / name / HIDDEN / "SHA256SUMS").read_bytes() for name in "ab"]
    assert sums[0] == sums[1]
    assert len(sums[0].splitlines()) == len(files)
