"""The image of a model, for services: it starts by itself and reads all models that it finds."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

NAME = "localhost/aim-model:test"
_PYTHON = "/opt/aim/bin/python"
_PROGRAM = """
import hashlib, http.server, json, os, pathlib

found, cache = {}, pathlib.Path(os.environ["AIM_CACHE_PATH"])
for path in sorted(cache.rglob("*")):
    if path.is_file():
        found[str(path.relative_to(cache))] = hashlib.sha256(path.read_bytes()).hexdigest()
writable = [str(each) for each in cache.rglob("*") if each.is_dir() and os.access(each, os.W_OK)]
told = json.dumps({"files": found, "writable": writable, "shm": os.access("/dev/shm", os.W_OK)})
print(told, flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(told.encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def model_image(base: Path, archive: Path) -> None:
    """Writes the docker-archive of such an image, made from another one's that has Python."""
    with tarfile.open(base) as there:
        [manifest] = json.loads(_read(there, "manifest.json"))
        config = json.loads(_read(there, manifest["Config"]))
        layer = _tar({"model.py": _PROGRAM.encode()})
        config["config"] |= {"Entrypoint": [_PYTHON, "-u", "/model.py"], "Cmd": None}
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        config.pop("history", None)
        parts = {
            "manifest.json": json.dumps(
                [
                    {
                        "Config": "model.json",
                        "RepoTags": [NAME],
                        "Layers": [*manifest["Layers"], "model.tar"],
                    }
                ]
            ).encode(),
            "model.json": json.dumps(config).encode(),
            "model.tar": layer,
        }
        with tarfile.open(archive, "w") as made:
            for name in manifest["Layers"]:
                made.addfile(there.getmember(name), there.extractfile(name))
            for name, content in parts.items():
                _add(made, name, content)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    assert found, name
    return found.read()


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            _add(archive, name, data)
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))
