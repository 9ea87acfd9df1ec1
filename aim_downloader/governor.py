"""The rate governor of a run: what one worker hears of a busy server, all of them heed.

A server that names a time is left alone by everybody until then, and gets no more requests than it
says it grants. A refusal halves the number of connections in use, a stall takes a quarter of them,
and success gives them back one by one: for all servers together, as they may share what is scarce.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from aim_downloader.errors import DownloadError, StalledError, ThrottledError, TransferError
from aim_downloader.urls import origin

_GROW_AFTER = 2.0
_SPREAD = 0.1
_NAP = 1.0
_GLANCE = 0.1


class Ration(NamedTuple):
    """What a server grants: so many more requests until ``seconds`` have passed."""

    requests: int
    seconds: float


class Pause(NamedTuple):
    """Seconds to wait before a request, and why; no words when that is told already."""

    seconds: float
    reason: str

    @property
    def nap(self) -> float:
        """Seconds to sleep now: what others hear meanwhile may end the wait before its time."""
        return min(self.seconds, _NAP)


@dataclass(slots=True)
class _Quota:
    """What an origin says it grants: ``left`` requests from ``since`` on, until ``ends``.

    ``under_way`` were sent and are not answered yet. ``nothings`` counts the answers in a row that
    grant nothing more.
    """

    left: int = 0
    since: float = -math.inf
    ends: float = -math.inf
    under_way: int = 0
    nothings: int = 0
    told: bool = False

    def hear(self, ration: Ration, sent: float, now: float) -> None:
        """Learn from the answer to a request that was sent at that time."""
        self.nothings = 0 if ration.requests else self.nothings + 1
        # Answers overtake each other: of requests that were under way together the least is true.
        if sent > self.since or ration.requests < self.left or now >= self.ends:
            self.left, self.since, self.ends = ration.requests, now, now + ration.seconds
            self.told = False

    def wait(self, now: float) -> float:
        """Seconds until there may be a request to send."""
        # Who says "none" and goes on to answer does not mean it. If it does, it will refuse.
        if now >= self.ends or self.nothings > 1 or self.left > self.under_way:
            return 0.0
        # The answers to those under way tell what is left.
        return self.ends - now if self.left == 0 else min(_GLANCE, self.ends - now)


class _Gate:
    """What is known of one origin: until when it is closed, its quota, and what came of asking it.

    ``refusals`` are those since the last answer, which are told of ``told_until`` then.
    """

    def __init__(self) -> None:
        self.closed_until = self.told_until = -math.inf
        self.spread = 0.0
        self.quota = _Quota()
        self.refusals = 0
        self.given_up = False

    def close(self, seconds: float, now: float) -> None:
        if now + seconds > self.closed_until:
            self.closed_until, self.spread = now + seconds, seconds * _SPREAD

    def wait(self, now: float) -> float:
        return max(self.closed_until - now, self.quota.wait(now))


class Governor:
    """Shared by all workers of a run, from any thread. ``patience`` is the longest pause.

    ``connections`` are those that are configured, in all lanes; times in seconds.
    """

    def __init__(
        self,
        connections: int,
        patience: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = self._width = connections
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._gates: dict[str, _Gate] = {}
        self._origins: dict[tuple[str, str, int | None], _Gate] = {}
        self._running = 0
        self._changed = self._shrunk = -math.inf

    def allowed(self, connections: int) -> int:
        """How many of a lane's ``connections`` may be in use now; one at least."""
        return max(1, connections * self._width // self._connections)

    @contextlib.contextmanager
    def visit(self) -> Iterator[Visit]:
        """Walk through one request, its body included; how it fails is learned from.

        Raises:
            TransferError: a server refuses, and others have asked it in vain for long enough.
        """
        visit = Visit(self)
        with self._lock:
            self._running += 1
        try:
            yield visit
        except DownloadError as error:
            self._learn(error, visit.sent)
            raise
        finally:
            visit.close()
            with self._lock:
                self._running -= 1

    def now(self) -> float:
        """What the clock says."""
        return self._clock()

    def pause(self, url: str) -> Pause | None:
        """The wait before a request to this URL; None when it may be sent, and counts as sent."""
        with self._lock:
            now, gate = self._clock(), self._gate(url)
            quota, left = gate.quota, gate.wait(now)
            if left <= 0:
                quota.under_way += 1
                return None
            reason = ""
            if not quota.told and quota.left == 0 and quota.wait(now) > 0:
                reason, quota.told = f"{origin(url)[1]} grants no more requests for now", True
            # Those who wait for one moment must not come back in the same millisecond.
            spread = gate.spread if gate.closed_until > now else left * _SPREAD
            return Pause(left + min(left, spread) * random.random(), reason)

    def ended(self, url: str) -> None:
        """A request was answered, or never will be."""
        with self._lock:
            self._gate(url).quota.under_way -= 1

    def answered(self, url: str, sent: float, ration: Ration | None = None) -> None:
        """A request that was sent at that time was answered well, perhaps with a ration."""
        with self._lock:
            gate = self._gate(url)
            gate.refusals, gate.given_up = 0, False
            if ration is not None:
                seconds = min(ration.seconds, self._patience)
                gate.quota.hear(ration._replace(seconds=seconds), sent, self._clock())
        self.goes_well()

    def goes_well(self) -> None:
        """Answers or bytes come: now and then one more connection may be in use."""
        with self._lock:
            now = self._clock()
            if now - self._changed >= _GROW_AFTER and self._width < self._connections:
                self._width, self._changed = self._width + 1, now

    def give_up(self, error: ThrottledError, tries: int) -> None:
        """A worker has used up its tries: others need not use theirs if nobody has an answer."""
        with self._lock:
            gate = self._gate(error.url)
            gate.given_up = gate.refusals >= tries

    def is_news(self, error: BaseException, delay: float) -> bool:
        """Whether to tell of an error and the wait after it: of refusals together, one is told."""
        if not isinstance(error, ThrottledError):
            return True
        with self._lock:
            now, gate = self._clock(), self._gate(error.url)
            told = now < gate.told_until
            gate.told_until = max(gate.told_until, now + (0.0 if told else delay))
            return not told

    def _learn(self, error: DownloadError, sent: float) -> None:
        with self._lock:
            now = self._clock()
            if isinstance(error, StalledError):
                self._shrink(4, sent, now)
            if not isinstance(error, ThrottledError):
                return
            self._shrink(2, sent, now)
            gate = self._gate(error.url)
            gate.refusals += 1
            gate.close(min(error.retry_after or 0.0, self._patience), now)
        if gate.given_up:
            raise TransferError(str(error), hint=error.hint) from error

    def _shrink(self, part: int, sent: float, now: float) -> None:
        """Take one ``part`` of the connections, unless that was done since the request."""
        if sent <= self._shrunk:
            return
        used = min(self._width, self._running)
        self._width = max(1, used - max(1, used // part))
        self._changed = self._shrunk = now

    def _gate(self, url: str) -> _Gate:
        # Every request comes through here, to few hosts: of a URL its head is enough.
        head = "/".join(url.split("/", 3)[:3])
        gate = self._gates.get(head)
        if gate is None:
            # Several ways to write an origin lead to one gate.
            gate = self._gates[head] = self._origins.setdefault(origin(url), _Gate())
        return gate


class Visit:
    """One request, with its redirects. ``sent``: when the last of them was asked for."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._url: str | None = None
        self.sent = governor.now()

    def pauses(self, url: str, ration: Ration | None = None) -> Iterator[Pause]:
        """The waits before a request to this URL may be sent; there may be more after each.

        ``ration`` is what the redirect said that led here.
        """
        self.answered(ration)
        while (pause := self._governor.pause(url)) is not None:
            yield pause
        self._url, self.sent = url, self._governor.now()

    def answered(self, ration: Ration | None) -> None:
        """What was asked for last was answered well."""
        if self._url is not None:
            self._governor.answered(self._url, self.sent, ration)
            self.close()

    def close(self) -> None:
        """No answer is awaited any more."""
        if self._url is not None:
            self._governor.ended(self._url)
            self._url = None
