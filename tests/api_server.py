"""Stands for a Kubernetes API server on its bad days: one object behind TLS, and a script."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.integration.test_tls import Authority

WAIT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What is answered in place of the object."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


HANG, CLOSE = "hang", "close"


@dataclass(frozen=True)
class Patched:
    """A request that came."""

    when: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class ApiServerDouble:
    """Holds one object, of whose status it keeps the fields that ``kept`` names, or all.

    ``script`` has what happens to the next requests; then all goes well.
    """

    def __init__(
        self, authority: Authority, kept: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.status: dict[str, Any] = {}
        self.script: list[Answer | str] = []
        self.requests: list[Patched] = []
        self.kept = kept
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(authority.certificate, authority.key)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def patches(self) -> list[Any]:
        """What the requests so far wanted the status to become."""
        return [request.body["status"] for request in list(self.requests)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.let_go()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def let_go(self) -> None:
        """Close the connections on which nothing is answered."""
        self._closing.set()

    def wait_for(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not what():
            assert time.monotonic() < deadline, self.requests
            time.sleep(0.005)

    def take(self, request: Patched) -> Answer | None:
        """What to answer; None to close the connection."""
        with self._lock:
            self.requests.append(request)
            step = self.script.pop(0) if self.script else None
            if step is None:
                merge(self.status, request.body["status"])
                self._prune()
                return Answer(200, body=json.dumps({"status": self.status}).encode())
        if step == HANG:
            self._closing.wait()
        return step if isinstance(step, Answer) else None

    def _prune(self) -> None:
        if self.kept is not None:
            for part, names in self.kept.items():
                there = self.status.get(part, {})
                self.status[part] = {name: there[name] for name in names if name in there}


def merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """RFC 7386."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            merge(target.setdefault(name, {}), value)
        else:
            target[name] = value


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust us leaves in the midst of the handshake."""


def _handler(double: ApiServerDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_PATCH(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            request = Patched(
                time.monotonic(), "PATCH", self.path, dict(self.headers), json.loads(content)
            )
            answer = double.take(request)
            if answer is not None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            """Tests read what they want to know."""

    return Handler


def service_account(folder: Path, authority: Authority, token: str) -> Path:
    """The folder that a pod has for its service account."""
    folder.mkdir()
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(authority.bundle.read_bytes())
    return folder
