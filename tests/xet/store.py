"""`XetStore`: the real Xet store, `local_cas_server`, in a process of its own, with uploads."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from aim_downloader.demo.content import Content

UPLOADER = Path(__file__).with_name("upload.py")
VERSION = "1.8.0"
START_S = 60.0
STOP_S = 10.0
UPLOAD_S = 600.0
ATTEMPTS = 3

# Ends the server when its standard input does: also when whoever started it was killed.
KEEPER = '"$@" & read -r _; kill $!; wait'


def server_path() -> Path:
    """Where `tests/setup-servers` puts the server."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "aim-downloader-tests", f"xet-client-{VERSION}", "bin", "local_cas_server")


class XetStore:
    """`with XetStore(folder) as store:`; a later one on the same folder has the same contents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._memory = folder / "hashes.json"
        self._hashes: dict[str, str] = {}
        self.endpoint = ""

    @property
    def xorbs(self) -> Path:
        """The folder with the files `default.{hash of the xorb}`."""
        return self._folder / "xorbs"

    def xorb(self, xorb_hash: str) -> Path:
        return self.xorbs / f"default.{xorb_hash}"

    def upload(self, content: bytes | Path) -> str:
        """Uploads a content unless that was done before, and gives its Xet hash."""
        return self.hash_of(Content(content))

    def hash_of(self, content: Content) -> str:
        self.take([content])
        return self._hashes[content.sha256]

    def take(self, contents: Iterable[Content]) -> None:
        """Uploads all that it has not had before, in one go."""
        new = {each.sha256: each for each in contents if each.sha256 not in self._hashes}
        if not new:
            return
        with tempfile.TemporaryDirectory(prefix="aim-xet-upload-") as scratch:
            paths = {sha256: _file(each, Path(scratch)) for sha256, each in new.items()}
            self._hashes |= _upload(self.endpoint, paths, Path(scratch))
        self._memory.write_text(json.dumps(self._hashes), encoding="utf-8")

    def reconstruction(self, xet_hash: str) -> Mapping[str, Any]:
        """What the store says of how a file is put together (version 2)."""
        answer: Mapping[str, Any] = json.loads(
            _get(f"{self.endpoint}/v2/reconstructions/{xet_hash}")
        )
        return answer

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._memory.exists():
            self._hashes = json.loads(self._memory.read_text("utf-8"))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start()
                return self
            except TimeoutError:  # most likely somebody else took the port
                self._stop()
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        server: list[str | Path] = [server_path(), "--data-directory", self._folder]
        self._process = subprocess.Popen(
            ["sh", "-c", KEEPER, "sh", *server, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                _get(f"{self.endpoint}/health")
                return
            time.sleep(0.01)
        raise TimeoutError("the Xet store did not start")

    def _stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        stdin: IO[bytes] | None = process.stdin
        assert stdin is not None
        stdin.close()
        process.wait(STOP_S)


def _file(content: Content, scratch: Path) -> Path:
    if isinstance(content.data, Path):
        return content.data
    path = scratch / content.sha256
    path.write_bytes(content.data)
    return path


def _upload(endpoint: str, paths: Mapping[str, Path], scratch: Path) -> dict[str, str]:
    """From sha256 and path to sha256 and Xet hash, by a child: hf_xet reads its settings once."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("HF_") and not _is_proxy(n)}
    # A cache of its own: hf_xet leaves out what it remembers to have uploaded to this address.
    fresh = {"HF_XET_CACHE": str(scratch / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-P", UPLOADER, endpoint],
        input=json.dumps({sha256: str(path) for sha256, path in paths.items()}),
        stdout=subprocess.PIPE,
        env=kept | fresh,
        check=True,
        text=True,
        timeout=UPLOAD_S,
    )
    hashes: dict[str, str] = json.loads(done.stdout)
    return hashes


def _is_proxy(name: str) -> bool:
    return name.lower().endswith("_proxy")


def _get(url: str) -> bytes:
    # Past any proxy of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=START_S) as answer:
        body: bytes = answer.read()
        return body


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port
