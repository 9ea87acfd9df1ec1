"""Which pass a key leads to, and the look at all objects every now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from operator_shim.acting import Acting
from operator_shim.cluster import KINDS, ApiError, Cluster
from operator_shim.config import Options
from operator_shim.keys import DOWNLOADS, USERS, Key
from operator_shim.metrics import Metrics, Vitals
from operator_shim.queue import Queue
from operator_shim.telling import Condition, written

Reconcile: TypeAlias = Callable[[Cluster, Key, Options], Awaitable[float | None]]
"""A pass over one object; it returns after how many seconds it wants to look again."""

TELLER = "aim-operator"
"""Who tells of what no pass could find out; their own tellers take it back."""

_PASS_S = 120.0
_NOT_READY_S = 10.0
_FORBIDDEN = 403
_AS_IT_GOES = (_FORBIDDEN, 404, 409, 422)
"""How writes are refused for an object that goes, or has gone, in the middle of a pass."""

log = logging.getLogger(__name__)


class Reconciler:
    """Works on the keys of the queue, and puts all of them into it every ``options.resync`` s."""

    def __init__(
        self, cluster: Cluster, options: Options, reconcilers: Mapping[str, Reconcile]
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._reconcilers = {kind: reconcilers[kind] for kind in options.kinds}
        self.queue: Queue[Key] = Queue(self._tell)
        self.served: frozenset[str] = frozenset()
        """The kinds of our group that the cluster had at the last look."""
        self.served_others = asyncio.Event()
        """Set when these have changed; for its one listener to clear."""
        self.ready = False
        """Whether the last look at all objects succeeded."""
        self.metrics = Metrics(self._vitals)
        self._succeeded = 0.0
        self._looked = time.monotonic()
        self._hurry = asyncio.Event()
        self._troubles: dict[Key | None, str] = {}

    @property
    def age(self) -> float:
        """Seconds since a look at all objects ended, well or not."""
        return time.monotonic() - self._looked

    @property
    def alive(self) -> bool:
        """Whether looks at all objects still come to an end."""
        return self.age < 3 * self._options.resync + 60

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run(self._work, self._options.workers))
            group.create_task(self._resync())

    def look_soon(self) -> None:
        """Look at all objects now, and at which kinds there are."""
        self._hurry.set()

    # -- one object ----------------------------------------------------------------------------

    async def _work(self, key: Key) -> float | None:
        log.debug("a pass begins", extra={"object": key})
        with self.metrics.reconciling(key.kind):
            async with asyncio.timeout(_PASS_S):
                delay = await self._pass(key)
        if self._troubles.pop(key, None):
            log.info("all is well again", extra={"object": key})
        return delay

    async def _pass(self, key: Key) -> float | None:
        try:
            return await self._reconcilers[key.kind](self._cluster, key, self._options)
        except ApiError as error:
            if error.status in _AS_IT_GOES and await self._is_going(key, error):
                return None
            if error.of_read and error.status == _FORBIDDEN and key.kind in (*DOWNLOADS, *USERS):
                await self._tell_unread(key, error)
            raise

    async def _tell_unread(self, key: Key, error: ApiError) -> None:
        """Let the object's status say what we may not read; all else in it stays as it was told."""
        said = f"{error}; {error.hint}; it is tried again"
        told = Condition("DependenciesReachable", False, "InfrastructureError", said)
        # Without the right to that, too, the log alone can say it.
        with contextlib.suppress(ApiError):
            if there := await self._cluster.get(key.kind, key.name, key.namespace):
                about = {**there, "kind": key.kind}
                status = {"conditions": [written(told, about, datetime.now(UTC))]}
                await Acting(self._cluster, about, TELLER).report(status)

    async def _is_going(self, key: Key, error: ApiError) -> bool:
        """Whether a pass failed for no other reason than that its object, or all there, goes."""
        if error.of_ending_namespace:
            return True
        return (
            error.status != _FORBIDDEN
            and await self._cluster.get(key.kind, key.name, key.namespace) is None
        )

    def _tell(self, key: Key, error: Exception, delay: float) -> None:
        """Say once what is wrong with an object; with a traceback where nobody foresaw it."""
        said = str(error) or type(error).__name__
        # Which of several requests fails first, and the words for it, may differ each time.
        trouble = f"{error.status} {error.reason}" if isinstance(error, ApiError) else said
        if self._troubles.get(key) == trouble:
            return
        self._troubles[key] = trouble
        foreseen = isinstance(error, ApiError | TimeoutError)
        log.warning(
            "the pass failed, the next one is in %.0f s: %s%s",
            delay,
            said,
            f" ({error.hint})" if isinstance(error, ApiError) and error.hint else "",
            exc_info=None if foreseen else error,
            extra={"object": key},
        )

    # -- all objects ---------------------------------------------------------------------------

    async def _resync(self) -> None:
        while True:
            try:
                await self._look()
            except ApiError as error:
                self.ready = False
                # Which of several requests fails first, and the words for it, may differ each time.
                said = f"{error}. {error.hint}".rstrip(". ")
                self._tell_of_all(said, f"{error.status} {error.reason}")
            self._looked = time.monotonic()
            pause = self._options.resync if self.ready else min(self._options.resync, _NOT_READY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _look(self) -> None:
        """Find out what there is, and put it into the queue."""
        begun = time.monotonic()
        served = await self._cluster.served()
        if served != self.served:
            self.served = served
            self.served_others.set()
        there = [kind for kind in self._reconcilers if kind in served]
        keys = [
            key
            for kind in there
            for place in _places(kind, self._options)
            for key in await self._cluster.keys(kind, place)
        ]
        for key in keys:
            self.queue.put(key)
        self.metrics.keep(set(keys), begun)
        missing = sorted(set(self._reconcilers) - served)
        self.ready = not missing
        if self.ready:
            self._succeeded = time.time()
        self._tell_of_all(
            f"the cluster knows no {' and no '.join(missing)}: apply the"
            " CustomResourceDefinitions; until then this waits"
            if missing
            else ""
        )
        log.debug("%d objects are looked at; requests: %s", len(keys), dict(self._cluster.requests))

    def _vitals(self) -> Vitals:
        return Vitals(len(self.queue), self._succeeded, self._options.resync, self._cluster.answers)

    def _tell_of_all(self, said: str, trouble: str = "") -> None:
        """Say it once for each trouble; where there is nothing to say, that is over."""
        trouble = trouble or said
        before = self._troubles.pop(None, "")
        if trouble:
            self._troubles[None] = trouble
        if trouble and trouble != before:
            log.warning("%s", said)
        elif before and not trouble:
            log.info("what was missing is there: all objects are looked at")


def _places(kind: str, options: Options) -> Sequence[str]:
    """The namespaces in which to list a kind; an empty name means all of them."""
    return (KINDS[kind].namespaced and options.namespaces) or ("",)
