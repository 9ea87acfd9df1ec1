"""The watches: kopf hears of events, and each becomes a key in the queue.

Only ``kopf.on.event``: handlers of another kind would leave finalizers and annotations on objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Any

import aiohttp
import kopf

from operator_shim.access import UNAUTHORIZED, Access, AccessError
from operator_shim.cluster import KIND_OF_KINDS, KINDS
from operator_shim.config import Options
from operator_shim.followers import FOLLOWED, Followers, asked, told
from operator_shim.keys import (
    CHILDREN,
    CLUSTER_RUNTIME_CONFIG,
    DOWNLOADS,
    RUNTIME_CONFIG,
    SERVERS,
    SERVICE,
    USERS,
    Key,
    keepers_of,
    key_of,
)
from operator_shim.logs import END
from operator_shim.metrics import Metrics
from operator_shim.objects import LABEL_ARTIFACT, LABEL_SERVICE, Object
from operator_shim.reconciler import Reconciler

_SETTLE_S = 0.1
"""One change makes several events; they become one pass."""

_AGAIN_S = 5.0
_NOT_FOUND = 404
_KIND_OF = {where.plural: kind for kind, where in KINDS.items()}

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
        watch = _Watch(kinds, options, hear, reconciler.metrics)
        waiting: set[asyncio.Future[Any]] = {changed, watch.ended}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            watch.stop()
        if watch.ended.done():
            log.warning("watching has ended, and begins again: %s", watch.ended.result())
            reconciler.metrics.restarted()
            reconciler.look_soon()
            await asyncio.sleep(_AGAIN_S)


def _watched(kinds: Collection[str], served: Collection[str]) -> tuple[str, ...]:
    """The kinds whose events lead to a pass; none while there is nothing to reconcile."""
    reconciled = set(kinds).intersection(served)
    if not reconciled:
        return ()
    wanted = reconciled | {RUNTIME_CONFIG, CLUSTER_RUNTIME_CONFIG}
    wanted |= {kind for kind, by in FOLLOWED.items() if reconciled.intersection(by)}
    if SERVICE in reconciled:
        wanted |= {"InferenceService"}
    theirs = {
        **dict.fromkeys(CHILDREN, not reconciled.isdisjoint(DOWNLOADS)),
        "Deployment": SERVICE in reconciled,
    }
    return (*sorted(wanted.intersection(served)), *(kind for kind in theirs if theirs[kind]))


class _Watch:
    """Kopf on a thread and an event loop of its own.

    It takes the program's signals, and cancels all tasks of its loop when it ends.
    """

    def __init__(
        self,
        kinds: Collection[str],
        options: Options,
        hear: Callable[[Key], None],
        metrics: Metrics,
    ) -> None:
        self._kinds = kinds
        self._options = options
        self._hear = hear
        self._metrics = metrics
        self._followers = Followers()
        self._caller = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._over = False
        self.ended: asyncio.Future[str] = self._caller.create_future()
        """Why it has ended by itself."""
        # A daemon: the program does not wait for watches when it ends.
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    def stop(self) -> None:
        """Let it end, and do not wait for that."""
        self._over = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        self._loop.set_exception_handler(self._unheard)
        faults = _Faults(self._end)
        logging.getLogger("kopf").addHandler(faults)
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._operate())
            why = "it was asked to"
        except Exception as error:  # noqa: BLE001  # a kind that is gone, or a fault of kopf's
            why = f"{type(error).__name__}: {error}"
        finally:
            logging.getLogger("kopf").removeHandler(faults)
        self._end(why)

    def _end(self, why: str) -> None:
        """It has ended, or is about to; from kopf's thread."""
        self._over = True
        # The caller is closed when the program ends.
        with contextlib.suppress(RuntimeError):
            self._caller.call_soon_threadsafe(self._tell_end, why)

    def _unheard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # What comes of tasks that kopf leaves behind when it ends is of no interest.
        if not self._over:
            loop.default_exception_handler(context)

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
        kopf.on.login(registry=registry, backoff=_AGAIN_S)(self._login)
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

    async def _login(self, **_: object) -> kopf.AiohttpSession:
        access = await Access.load(self._options.kubeconfig)
        session = access.session(self._counted, self._knowing, _patiently)
        return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

    async def _counted(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """What kopf asks for is counted like our own requests."""
        verb = "watch" if "watch" in request.url.query else "list"
        kind, code = _KIND_OF.get(request.url.name, KIND_OF_KINDS), 0
        try:
            answer = await handler(request)
            code = answer.status
        finally:
            self._caller.call_soon_threadsafe(self._metrics.answered, verb, kind, code)
        return answer

    async def _knowing(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A kind that is gone ends the watch: kopf would not, as it waits for its own tasks."""
        answer = await handler(request)
        if answer.status == _NOT_FOUND:
            self._end(f"the cluster no longer knows {request.url.name}")
        return answer

    def _listener(self, kind: str) -> Callable[..., Awaitable[None]]:
        async def listen(event: Any, memo: kopf.Memo, **_: Any) -> None:
            object_: Object = event["object"]
            if kind in (*DOWNLOADS, *USERS):
                event_type = event["type"] or ""
                self._caller.call_soon_threadsafe(self._metrics.see, kind, event_type, object_)
            if kind in (*CHILDREN, *SERVERS):
                keys: Iterable[Key] = keepers_of(object_)
            else:
                keys = self._news(kind, event["type"], object_, memo)
            for key in keys:
                if key.kind in self._options.kinds:
                    self._hear(key)

        return listen

    def _news(self, kind: str, what: str, object_: Object, memo: kopf.Memo) -> Iterator[Key]:
        """Who is to look at what has become of an object of ours."""
        # What it looks at from now on may have changed since it has looked.
        looks_further = False
        if what == "DELETED":
            self._followers.forget(kind, object_)
        elif kind in self._options.kinds:
            looks_further = self._followers.learn(kind, object_)
        now = asked(object_), told(object_)
        known = memo.get("state") if what == "MODIFIED" else None
        memo["state"] = now
        # Its pods tell their progress in its status, and we all else: no news for itself.
        if known is None or known[0] != now[0] or looks_further:
            yield key_of(kind, object_)
        if known is None or known != now:
            yield from self._followers.of(key_of(kind, object_))


class _Faults(logging.Handler):
    """Hears what of kopf's own tasks has failed: kopf tells its log at once, and ends much later.

    By then its other tasks have failed of that, too.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._tell = tell
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error and record.thread == self._thread and END in record.getMessage():
            self._tell(f"{type(error).__name__}: {error}")


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
    for kind in set(kinds).intersection((*CHILDREN, *SERVERS)):
        where = KINDS[kind]
        selected = (where.group, where.version, where.plural)
        label = LABEL_ARTIFACT if kind in CHILDREN else LABEL_SERVICE
        settings.watching.label_selectors[selected] = label
    return settings


class _Patience:
    """Seconds between tries of a request that failed; there is no last one."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 1, 2, 3, 5, 8, 13), itertools.repeat(21))
