"""A registry with one image, which asks for a password; all other images are unknown to it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.cluster.client import Cluster

USER, PASSWORD = "reader", "of-a-secret"

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_ALLOWED = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass(frozen=True)
class Registry:
    """Where it is."""

    address: str

    @property
    def image(self) -> str:
        """The one that it has."""
        return f"{self.address}/private/downloader:1"

    @property
    def absent(self) -> str:
        return f"{self.address}/public/downloader:typo"


@contextmanager
def registry_for_node(cluster: Cluster, archive: Path) -> Iterator[Registry]:
    """A registry that the node reaches, with the image of a docker-archive."""
    blobs, manifest = _blobs(archive)
    handler = type("Handler", (_Handler,), {"shelf": _Shelf(archive, blobs, manifest)})
    # The node takes plain HTTP from itself alone.
    with cluster.network():
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Registry(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class _Shelf:
    """The image, by its parts."""

    archive: Path
    blobs: Mapping[str, str]
    """The name in the archive of each blob, by digest."""
    manifest: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: _Shelf

    def do_GET(self) -> None:
        match self.path.split("/")[2:]:
            case [""]:
                self._answer(200, b"{}")
            case ["private", *_] if self.headers.get("Authorization") != _ALLOWED:
                self._answer(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}')
            case ["private", "downloader", "manifests", _]:
                self._answer(200, self.shelf.manifest, _MANIFEST)
            case ["private", "downloader", "blobs", digest] if digest in self.shelf.blobs:
                self._send(self.shelf.blobs[digest])
            case _:
                self._answer(404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, name: str) -> None:
        with tarfile.open(self.shelf.archive) as opened:
            self._begin(200, opened.getmember(name).size, "application/octet-stream")
            blob = opened.extractfile(name)
            if blob and self.command == "GET":
                shutil.copyfileobj(blob, self.wfile)

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self._begin(status, len(body), kind)
        if self.command == "GET":
            self.wfile.write(body)

    def _begin(self, status: int, length: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
        if kind == _MANIFEST:
            self.send_header("Docker-Content-Digest", _digest(self.shelf.manifest))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _blobs(archive: Path) -> tuple[dict[str, str], bytes]:
    """The name in the archive of each blob, by digest; and the image's manifest."""
    with tarfile.open(archive) as opened:
        [told] = json.loads(_read(opened, "manifest.json"))
        config = _read(opened, told["Config"])
        digests: list[str] = json.loads(config)["rootfs"]["diff_ids"]
        layers = dict(zip(digests, told["Layers"], strict=True))
        sizes = {digest: opened.getmember(name).size for digest, name in layers.items()}
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _described(_CONFIG, _digest(config), len(config)),
        "layers": [_described(_LAYER, digest, sizes[digest]) for digest in digests],
    }
    return {_digest(config): told["Config"], **layers}, json.dumps(manifest).encode()


def _described(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file
    return file.read()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
