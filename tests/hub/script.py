"""The script of faults: which fault meets which request, and how often."""

import threading
from dataclasses import dataclass

from aiohttp import web

from aim_downloader.demo.reply import Reply, Subject, Where
from tests.hub.delivery import Delivery
from tests.hub.faults import DamagedByte, ExpiredUrl, Fault

CONTENT_STATUS = (200, 206)


@dataclass
class ScriptedFault:
    """A fault and the requests it is for. `fired` tells how many it has met."""

    kind: Fault
    path: str | None = None
    where: Where | None = None
    times: int | None = 1
    at: int | None = None
    repo: str | None = None
    method: str = "GET"
    skip: int = 0
    fired: int = 0

    def takes(self, request: web.Request, subject: Subject, reply: Reply) -> bool:
        """Whether this request is one to spoil; counts it when it is."""
        if not self._concerns(request, subject, reply):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.fired >= self.times:
            return False
        self.fired += 1
        return True

    def apply(self, delivery: Delivery, request: web.Request) -> Delivery:
        begin = 0 if self.at is None else self.at - delivery.reply.start
        return self.kind.apply(delivery, request, begin)

    def _concerns(self, request: web.Request, subject: Subject, reply: Reply) -> bool:
        return (
            self.where in (None, subject.where)
            and self.repo in (None, subject.repo)
            and self.method in ("*", request.method)
            and self._names(request, subject)
            and self._covers(reply)
        )

    def _names(self, request: web.Request, subject: Subject) -> bool:
        if self.path is None:
            return True
        if subject.where == "api":
            return self.path in request.path
        return self.path == subject.file

    def _covers(self, reply: Reply) -> bool:
        offset = self.kind.offset if isinstance(self.kind, DamagedByte) else self.at
        if offset is None:
            return True
        return reply.status in CONTENT_STATUS and reply.start <= offset < reply.stop


class Script:
    """All scripted faults; a request meets every one that it fits, in the order of scripting."""

    def __init__(self) -> None:
        self._faults: list[ScriptedFault] = []
        self._expired: set[str] = set()
        self._lock = threading.Lock()

    def add(self, fault: ScriptedFault) -> ScriptedFault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def spoil(self, request: web.Request, subject: Subject, reply: Reply) -> Delivery:
        """The delivery of a reply, with every fault applied that this request meets."""
        delivery = Delivery(reply)
        with self._lock:
            met = [fault for fault in self._faults if fault.takes(request, subject, reply)]
        for fault in met:
            delivery = fault.apply(delivery, request)
        return self._with_expiry(delivery, request)

    def _with_expiry(self, delivery: Delivery, request: web.Request) -> Delivery:
        signature = request.query.get("Signature", "")
        if delivery.expire_url:
            self._expired.add(signature)
        if signature in self._expired:
            return ExpiredUrl().apply(delivery, request, 0)
        return delivery
