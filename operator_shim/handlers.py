"""The watches: kopf hears of events, and each becomes a key in the queue.

Only ``kopf.on.event``: handlers of another kind would leave finalizers and annotations on objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any

import aiohttp
import kopf

from operator_shim.access import UNAUTHORIZED, Access, AccessError
from operator_shim.cluster import KINDS
from operator_shim.config import Options
from operator_shim.keys import CHILDREN, RUNTIME_CONFIGS, Key, concerned
from operator_shim.objects import (
    LABEL_ARTIFACT,
    Object,
    annotations_of,
    at,
    generation_of,
    is_deleted,
    labels_of,
)
from operator_shim.reconciler import Reconciler

_SETTLE_S = 0.1
"""One change makes several events; they become one pass."""

_AGAIN_S = 5.0

log = logging.getLogger(__name__)


async def keep_watching(reconciler: Reconciler, options: Options) -> None:
    """Watch what the cluster has of what concerns us, until cancelled."""
    loop = asyncio.get_running_loop()

    def hear(key: Key) -> None:
        # From kopf's thread.
        loop.call_soon_threadsafe(reconciler.queue.put, key, _SETTLE_S)

    while True:
        reconciler.served_others.clear()
        kinds = _watched(options.kinds, reconciler.served)
        changed = asyncio.create_task(reconciler.served_others.wait())
        if not kinds:
            await changed
            continue
        watch = _Watch(kinds, options, hear)
        waiting: set[asyncio.Future[Any]] = {changed, watch.ended}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            watch.stop()
        if watch.ended.done():
            log.warning("watching has ended, and begins again: %s", watch.ended.result())
            reconciler.look_soon()
            await asyncio.sleep(_AGAIN_S)


def _watched(kinds: Collection[str], served: Collection[str]) -> tuple[str, ...]:
    """The kinds whose events lead to a pass; none while there is nothing to reconcile."""
    reconciled = [kind for kind in kinds if kind in served]
    if not reconciled:
        return ()
    return (*reconciled, *(kind for kind in RUNTIME_CONFIGS if kind in served), *CHILDREN)


class _Watch:
    """Kopf on a thread and an event loop of its own.

    It takes the program's signals, and cancels all tasks of its loop when it ends.
    """

    def __init__(
        self, kinds: Collection[str], options: Options, hear: Callable[[Key], None]
    ) -> None:
        self._kinds = kinds
        self._options = options
        self._hear = hear
        self._caller = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.ended: asyncio.Future[str] = self._caller.create_future()
        """Why it has ended by itself."""
        # A daemon: the program does not wait for watches when it ends.
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    def stop(self) -> None:
        """Let it end, and do not wait for that."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._operate())
            why = "it was asked to"
        except Exception as error:  # noqa: BLE001  # a kind that is gone, or a fault of kopf's
            why = f"{type(error).__name__}: {error}"
        # The caller is closed when the program ends.
        with contextlib.suppress(RuntimeError):
            self._caller.call_soon_threadsafe(self._tell_end, why)

    def _tell_end(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)

    async def _operate(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(self._kinds),
            clusterwide=not self._options.namespaces,
            namespaces=self._options.namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, backoff=_AGAIN_S)(_login(self._options.kubeconfig))
        for kind in self._kinds:
            where = KINDS[kind]
            kopf.on.event(
                group=where.group,
                version=where.version,
                plural=where.plural,
                id=kind,
                registry=registry,
            )(self._listener(kind))
        return registry

    def _listener(self, kind: str) -> Callable[..., Awaitable[None]]:
        async def listen(event: Any, memo: kopf.Memo, **_: Any) -> None:
            object_: Object = event["object"]
            if kind in self._options.kinds and event["type"] != "DELETED":
                # Its pods tell their progress in its status, and we all else: no news for us.
                state = _without_status(object_)
                if event["type"] == "MODIFIED" and memo.get("state") == state:
                    return
                memo["state"] = state
            if key := concerned(kind, object_):
                self._hear(key)

        return listen


def _without_status(object_: Object) -> tuple[object, ...]:
    """What changes when somebody wants something of an object, rather than tells how it is."""
    return (
        generation_of(object_),
        is_deleted(object_),
        labels_of(object_),
        annotations_of(object_),
        at(object_, "metadata.ownerReferences", []),
    )


def _login(kubeconfig: str | None) -> Callable[..., Awaitable[kopf.AiohttpSession]]:
    async def login(**_: object) -> kopf.AiohttpSession:
        access = await Access.load(kubeconfig)
        session = access.session(_patiently)
        return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

    return login


async def _patiently(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Let a token that is refused look like a server out of reach: kopf tries again then.

    Else it closes the session under the watches that use it, and never comes to its end.
    """
    try:
        answer = await handler(request)
    except AccessError as error:
        raise aiohttp.ClientConnectionError(str(error)) from error
    if answer.status == UNAUTHORIZED:
        answer.release()
        raise aiohttp.ClientConnectionError("the API server does not accept our token")
    return answer


def _settings(kinds: Collection[str]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # we know which kinds there are; needs no role for that
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.idle_timeout = 1
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Patience()
    # A server ends watches after a time of its own choice; a connection that died says nothing.
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 90
    settings.watching.reconnect_backoff = 1
    for kind in set(kinds).intersection(CHILDREN):
        where = KINDS[kind]
        selected = (where.group, where.version, where.plural)
        settings.watching.label_selectors[selected] = LABEL_ARTIFACT
    return settings


class _Patience:
    """Seconds between tries of a request that failed; there is no last one."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 1, 2, 3, 5, 8, 13), itertools.repeat(21))
