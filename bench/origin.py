"""Where the bytes come from: nginx as the CDN, and `tests.hub` as the Hub, with a Xet store.

Each is a process of its own. nginx also sends the xorbs of the store.
"""

import contextlib
import grp
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.content import Model
from bench.measure import BenchError
from tests.xet.store import server_path

PROJECT = Path(__file__).parent.parent
CDN_HOST = "127.0.0.2"
XORB_HOST = "127.0.0.3"
# Debian keeps it where only root looks.
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
_START_S = 60.0

_NGINX_CONF = """\
{user}
worker_processes auto;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    log_format bytes '$body_bytes_sent';
    access_log {folder}/access.log bytes;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    server {{
        listen {host}:{port};
        location / {{ root {folder}/files; }}
    }}
    server {{
        listen {xorb_host}:{xorb_port};
        location / {{ root {folder}/store/xorbs; }}
    }}
}}
"""


def free_port(host: str) -> int:
    with socket.socket() as opened:
        opened.bind((host, 0))
        port: int = opened.getsockname()[1]
        return port


class Cdn:
    """nginx with the large files of all models, by sha256, and the xorbs of the Xet store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "access.log"
        self._xorb_port = free_port(XORB_HOST)
        self.port = free_port(CDN_HOST)
        self.url = f"http://{CDN_HOST}:{self.port}"
        self.store = folder / "store"
        self.xorbs = f"http://{XORB_HOST}:{self._xorb_port}"
        (folder / "files").mkdir()

    def add(self, model: Model) -> None:
        for file in model.files:
            link = self._folder / "files" / file.sha256
            if not link.exists():
                link.symlink_to(model.path(file))

    def sent(self) -> int:
        """Bytes of all bodies so far."""
        # A line is written when the answer has ended, a moment after the client knows.
        time.sleep(0.05)
        return sum(map(int, self._log.read_bytes().split()))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        if NGINX is None:
            raise BenchError("nginx is not installed")
        user = f"user {_name_of_user()} {_name_of_group()};" if os.geteuid() == 0 else ""
        conf = self._folder / "nginx.conf"
        conf.write_text(
            _NGINX_CONF.format(
                user=user,
                folder=self._folder,
                host=CDN_HOST,
                port=self.port,
                xorb_host=XORB_HOST,
                xorb_port=self._xorb_port,
            )
        )
        error_log = str(self._folder / "error.log")
        process = subprocess.Popen(
            [NGINX, "-p", str(self._folder), "-e", error_log, "-c", str(conf)]
        )
        try:
            _wait_for_port(process, CDN_HOST, self.port)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


@dataclass(frozen=True)
class Hub:
    """A running Hub. `log` is there when it has ended."""

    endpoint: str
    cdn: str
    log: Path

    def commit(self, model: Model) -> str:
        with urllib.request.urlopen(f"{self.endpoint}/api/models/{model.id}") as answer:
            commit: str = json.load(answer)["sha"]
            return commit

    def records(self) -> list[Mapping[str, Any]]:
        """The log: one record per request."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]


def why_no_xet() -> str | None:
    """What is missing for a Xet store; None when there can be one."""
    there = server_path().exists()
    return None if there else "there is no Xet store: tests/setup-servers builds it"


@contextlib.contextmanager
def hub(
    root: Path,
    log: Path,
    *,
    cdn: str | None = None,
    store: Path | None = None,
    xorbs: str | None = None,
    pace: float | None = None,
    port: int = 0,
) -> Iterator[Hub]:
    """A Hub for all models below `root`, with the Xet store in the folder `store`.

    Large files come from `cdn` and xorbs from `xorbs`, or from itself at a pace. What the store
    does not have yet is uploaded first.
    """
    command = [sys.executable, "-m", "tests.hub", "--root", str(root), "--log", str(log)]
    command += ["--endpoint-port", str(port)]
    command += ["--cdn-base", cdn] if cdn else []
    command += ["--xet", str(store)] if store and not why_no_xet() else []
    command += ["--xorbs-base", xorbs] if xorbs else []
    command += ["--pace", str(pace)] if pace else []
    errors = log.with_suffix(".err")
    # Not shown: it complains of each client that is killed.
    with errors.open("wb") as words:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=words, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise BenchError(f"the Hub did not start:\n{errors.read_text('utf-8', 'replace')}")
        ready = json.loads(line)
        yield Hub(ready["endpoint"], ready["cdn"], log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _name_of_user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _name_of_group() -> str:
    return grp.getgrgid(os.getegid()).gr_name


def _wait_for_port(process: "subprocess.Popen[bytes]", host: str, port: int) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.02)
    raise BenchError("nginx did not start")
