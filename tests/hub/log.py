"""The request log: one record per request, kept up while its body is under way."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from aim_downloader.demo.reply import Subject, Where
from tests.fair_time import fair_time

SETTLE_S = 0.2
POLL_S = 0.002


@dataclass(frozen=True)
class RequestRecord:
    """One request and what was answered; `finished` is None while the answer is under way."""

    method: str
    where: Where
    host: str
    path: str
    """The path of the URL, percent-encoded as it was sent."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    repo: str
    file: str
    """The path of the file in its repository; empty for requests that are about no file."""
    range: str | None
    peer: tuple[str, int]
    """The client's address: requests on one connection share it."""
    status: int
    bytes_sent: int
    started: float
    finished: float | None

    @property
    def carries_content(self) -> bool:
        return bool(self.file) and self.where != "cas" and self.status in (200, 206)


@dataclass
class Exchange:
    """A request under way; only the server's thread changes it."""

    method: str
    subject: Subject
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    peer: tuple[str, int]
    status: int = 0
    bytes_sent: int = 0
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None

    def sent(self, count: int) -> None:
        self.bytes_sent += count

    def finish(self) -> None:
        self.finished = time.monotonic()

    def record(self) -> RequestRecord:
        return RequestRecord(
            method=self.method,
            where=self.subject.where,
            host=self.host,
            path=self.path,
            query=self.query,
            headers=self.headers,
            repo=self.subject.repo,
            file=self.subject.file,
            range=self.headers.get("Range"),
            peer=self.peer,
            status=self.status,
            bytes_sent=self.bytes_sent,
            started=self.started,
            finished=self.finished,
        )


class RequestLog:
    """All exchanges since the last `clear`, in the order in which they began."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []
        self._lock = threading.Lock()

    def begin(self, request: web.Request, subject: Subject) -> Exchange:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        exchange = Exchange(
            method=request.method,
            subject=subject,
            host=request.host,
            path=request.raw_path.partition("?")[0],
            query=dict(request.query),
            headers=request.headers,
            peer=peer or ("", 0),
        )
        with self._lock:
            self._exchanges.append(exchange)
        return exchange

    def settle(self) -> None:
        """Gives answers that the client has in full already the time to be written down."""
        if self._under_way():
            deadline = fair_time() + SETTLE_S
            while self._under_way() and fair_time() < deadline:
                pass  # the clock takes its time

    def _under_way(self) -> bool:
        with self._lock:
            return any(exchange.finished is None for exchange in self._exchanges)

    def records(self) -> list[RequestRecord]:
        with self._lock:
            exchanges = list(self._exchanges)
        return [exchange.record() for exchange in exchanges]

    def clear(self) -> None:
        with self._lock:
            self._exchanges.clear()
