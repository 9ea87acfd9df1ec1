"""Starts an image's programs as Kubernetes would, without Kubernetes.

They have a mount namespace of their own in which the image's tree is read-only, the image's user
and no privilege, nothing of this machine's environment, and the volumes that they are given.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.images.tools import PATH
from tests.integration.support import Finished, Running

NO_VOLUMES: Mapping[str, Path] = {}

# Arguments: the tree, a folder for what is laid over it, the user, pairs of volume and place, "--",
# and the command. A volume's place is made as a container runtime makes it: above the tree.
_ENTER = """
set -e
tree=$1 over=$2 user=$3; shift 3
mount --make-rprivate /
mount -t tmpfs over "$over"
mkdir "$over/upper" "$over/work" "$over/root"
mount -t overlay -o "lowerdir=$tree,upperdir=$over/upper,workdir=$over/work" root "$over/root"
root=$over/root
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for name in full null random urandom zero; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then
        mkdir -p "$root$2"
    else
        mkdir -p "$root${2%/*}"
        : >"$root$2"
    fi
    mount --bind "$1" "$root$2"
    shift 2
done
shift
mount -o remount,ro "$root/dev"
mount -o remount,ro "$root"
exec setpriv --no-new-privs chroot "--userspec=$user" --groups= "$root" "$@"
"""


class Image:
    """An image in a folder, as ``build.py`` leaves it there."""

    def __init__(self, folder: Path) -> None:
        self.archive = folder / "image.tar"
        self.root = folder / "root"
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())["config"]
        self.environment = dict(line.split("=", 1) for line in self.config["Env"])

    def start(
        self,
        *words: str,
        scratch: Path,
        command: tuple[str, ...] | None = None,
        volumes: Mapping[str, Path] = NO_VOLUMES,
        environment: Mapping[str, str | None] = {},
        user: str | None = None,
    ) -> Running:
        """Starts the image's own program with these words, or another ``command`` of it.

        Volumes are folders and files by their place. ``None`` takes a variable away. ``scratch`` is
        a folder that belongs to this run alone.
        """
        scratch.mkdir()
        (over := scratch / "over").mkdir()
        known = {**self.environment, **environment}
        variables = [f"{name}={value}" for name, value in known.items() if value is not None]
        pairs = [str(word) for place, volume in volumes.items() for word in (volume, place)]
        argv = [
            *("unshare", "--mount", "sh", "-c", _ENTER, "sh"),
            *(str(self.root), str(over), user or self.config["User"], *pairs, "--"),
            *("/usr/bin/env", "-i", "-C", self.config["WorkingDir"], *variables),
            *(command or self.config["Entrypoint"]),
            *words,
        ]
        told = scratch / "run.told"
        with (
            told.with_suffix(".out").open("wb") as out,
            told.with_suffix(".err").open("wb") as err,
        ):
            process = subprocess.Popen(
                argv,
                env={"PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return Running(process, told)


class Runs:
    """Runs of one test: their volumes' default, their scratch folders, and their end."""

    def __init__(self, image: Image, folder: Path) -> None:
        self.image = image
        self._folder = folder
        self._running: list[Running] = []
        self.cache = folder / "cache"
        self.cache.mkdir()
        os.chown(self.cache, 1000, 1000)

    def volume(self, name: str) -> Path:
        """An empty folder that the image's user may write to."""
        path = self._folder / name
        path.mkdir()
        os.chown(path, 1000, 1000)
        return path

    def start(self, *words: str, volumes: Mapping[str, Path] | None = None, **how: Any) -> Running:
        """Starts it, with an empty volume at /cache where no others are named."""
        volumes = {"/cache": self.cache} if volumes is None else volumes
        scratch = self._folder / f"run-{len(self._running)}"
        running = self.image.start(*words, scratch=scratch, volumes=volumes, **how)
        self._running.append(running)
        return running

    def run(self, *words: str, timeout: float = 60.0, **how: Any) -> Finished:
        return self.start(*words, **how).finish(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for running in self._running:
            if not running.ended:
                running.kill()
