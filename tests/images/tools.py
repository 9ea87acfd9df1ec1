"""How the tools of the build are called: nothing that they start or mount outlives them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

# All their processes end with them, and their mounts are seen by nobody else.
ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where the tools are looked for, also by those who are not root."""

NONE: Mapping[str, str] = {}


class BuildError(Exception):
    """A tool has failed: which one, and why."""


class NoBaseError(BuildError):
    """There is no base image to build on, as without a network."""


def run(*words: str | Path, cwd: Path | None = None, variables: Mapping[str, str] = NONE) -> str:
    """Returns what was said on stdout.

    Raises:
        BuildError: it has failed.
    """
    done = subprocess.run(
        [*ALONE, *words],
        check=False,
        cwd=cwd,
        env={**os.environ, "PATH": PATH, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BuildError(f"{words[0]} failed ({_complaint(done.stderr + done.stdout)})")
    return done.stdout.strip()


def _complaint(said: str) -> str:
    """The first line that looks like one, else the last one that says anything."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("make")]
    complaints = [line for line in lines if line.lower().startswith(("e:", "error", "/bin/sh:"))]
    return (complaints or lines[-1:] or ["it said nothing"])[0][:300]


class Buildah:
    """buildah, with images in ``storage`` alone, whatever is configured on this machine."""

    def __init__(self, storage: Path, work: Path) -> None:
        settings = work / "storage.conf"
        settings.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{storage}"\nrunroot = "{work}/run"\n'
        )
        # With chroot for isolation it also works where no container may be started.
        self.environment = {
            "CONTAINERS_STORAGE_CONF": str(settings),
            "BUILDAH_ISOLATION": "chroot",
        }

    def __call__(self, *words: str | Path) -> str:
        return run("buildah", *words, variables=self.environment)

    def load(self, archive: Path) -> None:
        self("pull", "--quiet", f"docker-archive:{archive}")

    def save(self, name: str, archive: Path) -> None:
        """Writes a file that docker, podman and containerd load."""
        self("push", "--quiet", name, f"docker-archive:{archive}:{name}")
