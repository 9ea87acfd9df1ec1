"""Container images of a few files, without any tool to build images."""

import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LIBRARY = re.compile(r"(?:^\s*|=> )(/\S+)", re.MULTILINE)


def program_image(name: str, program: Path) -> bytes:
    """A docker-archive of an image that starts this program of the machine.

    The libraries that it is linked with are in there, too.
    """
    files = {str(path): path.read_bytes() for path in (program, *_libraries(program))}
    layer = _tar(files, mode=0o755)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [str(program)], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": config,
        "layer.tar": layer,
    }
    return _tar(parts, mode=0o644)


def _libraries(program: Path) -> list[Path]:
    # It fails, and names none, for a program that is linked statically.
    told = subprocess.run(["ldd", program], capture_output=True, check=False, text=True)
    return [Path(found) for found in _LIBRARY.findall(told.stdout)]


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size = len(data)
            entry.mode = mode
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
