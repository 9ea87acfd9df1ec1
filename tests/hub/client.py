"""A plain HTTP client for the tests, which keeps what came before an error."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urljoin, urlsplit

BLOCK = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What arrived: also the part of a body that an error cut short."""

    status: int
    headers: Message
    body: bytes
    seconds: float
    error: Exception | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def promised(self) -> int:
        return int(self.headers["Content-Length"])

    @property
    def next_page(self) -> str | None:
        link = self.headers["Link"]
        return link[1 : link.index(">")] if link else None


def fetch(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: str | None = None,
    timeout: float = 5,
) -> Answer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    started = time.monotonic()
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        arrived, error = _read(response)
        seconds = time.monotonic() - started
        return Answer(response.status, response.headers, arrived, seconds, error)
    finally:
        connection.close()


def follow(url: str, **options: Any) -> Answer:
    """The same, past redirects."""
    answer = fetch(url, **options)
    while answer.status in (302, 307):
        url = urljoin(url, answer.headers["Location"])
        answer = fetch(url, **options)
    return answer


def _read(response: http.client.HTTPResponse) -> tuple[bytes, Exception | None]:
    blocks = []
    try:
        while block := response.read1(BLOCK):
            blocks.append(block)
    except (OSError, http.client.HTTPException) as error:
        return b"".join(blocks), error
    return b"".join(blocks), None
