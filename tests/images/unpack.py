"""The tree of an image, from the file that docker, podman and containerd load."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path


def unpack(archive: Path, folder: Path) -> None:
    """Makes the tree ``root`` and the configuration ``config.json``."""
    root = folder / "root"
    root.mkdir()
    with tarfile.open(archive) as outer:
        manifest = json.loads(_read(outer, "manifest.json"))[0]
        (folder / "config.json").write_bytes(_read(outer, manifest["Config"]))
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                # All of it, owners too; releases of 3.11 before the fourth know no filters.
                layer.extraction_filter = lambda member, _: member
                _lay(layer, root)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file
    return file.read()


def _lay(layer: tarfile.TarFile, root: Path) -> None:
    """Lays one layer over the others; a name that begins with .wh. removes what is below it."""
    for member in layer:
        path = root / member.name
        if path.name == ".wh..wh..opq":
            for old in path.parent.iterdir():
                _remove(old)
        elif path.name.startswith(".wh."):
            _remove(path.with_name(path.name.removeprefix(".wh.")))
        else:
            if path.is_symlink() or (path.exists() and not (path.is_dir() and member.isdir())):
                _remove(path)
            layer.extract(member, root)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
