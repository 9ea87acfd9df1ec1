"""The one door to the Kubernetes API: objects in, objects out, one kind of error."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from operator_shim.access import UNAUTHORIZED, Access, AccessError
from operator_shim.keys import (
    CLUSTER_MODEL,
    CLUSTER_RUNTIME_CONFIG,
    CLUSTER_TEMPLATE,
    OURS,
    Key,
    key_of,
)
from operator_shim.objects import GROUP, VERSION, Object, at, name_of, namespace_of, timestamp

_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
_PAGE = 500
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_METADATA_ONLY = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_LOG_BYTES = 256 * 1024
_FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE, _BUSY = 403, 404, 409, 410, 429
_READS = ("cannot get ", "cannot list ", "cannot log ")
_REFUSALS = (400, 403, 404, 413, 422)
# A webhook that is out of reach says no, too; and so it calls values that it cannot read.
_REFUSES_IN_500 = ("webhook", "typed patch object", "failed to convert new object")
_TRIES_WHEN_BUSY = 3
_LONGEST_WAIT = 10.0

_HINTS = {
    0: "the API server is out of reach: this is tried again",
    429: "the API server has too much to do: this is tried again",
    401: "the token is not accepted: it may have expired, or its account is gone",
    403: "the operator's role lacks this: apply its manifests again",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind is found."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As an object says it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of all its objects, or of one."""
        words = ["apis", self.group] if self.group else ["api"]
        words.append(self.version)
        if self.namespaced and namespace:
            words += ["namespaces", namespace]
        words += [self.plural, name, subresource]
        return "/" + "/".join(quote(word, safe="") for word in words if word)


_KSERVE = "serving.kserve.io"
_CLUSTER_WIDE = (CLUSTER_TEMPLATE, CLUSTER_MODEL, CLUSTER_RUNTIME_CONFIG)

KINDS: Mapping[str, Resource] = {
    **{
        kind: Resource(GROUP, VERSION, f"{kind.lower()}s", namespaced=kind not in _CLUSTER_WIDE)
        for kind in OURS
    },
    "InferenceService": Resource(_KSERVE, "v1beta1", "inferenceservices"),
    "Deployment": Resource("apps", "v1", "deployments"),
    "Service": Resource("", "v1", "services"),
    "PersistentVolumeClaim": Resource("", "v1", "persistentvolumeclaims"),
    "Pod": Resource("", "v1", "pods"),
    "Event": Resource("", "v1", "events"),
    "ServiceAccount": Resource("", "v1", "serviceaccounts"),
    "Namespace": Resource("", "v1", "namespaces", namespaced=False),
    "Job": Resource("batch", "v1", "jobs"),
    "Role": Resource("rbac.authorization.k8s.io", "v1", "roles"),
    "RoleBinding": Resource("rbac.authorization.k8s.io", "v1", "rolebindings"),
    "StorageClass": Resource("storage.k8s.io", "v1", "storageclasses", namespaced=False),
}


KIND_OF_KINDS = "APIResourceList"
"""What the API server answers when it is asked which kinds it has."""
_OPTIONAL = (*OURS, "InferenceService")
"""What a cluster may or may not have."""


class ApiError(Exception):
    """The API server refused something, or could not be asked."""

    def __init__(
        self, what: str, status: int, reason: str, message: str, wait: float = 0.0
    ) -> None:
        super().__init__(f"{what}: {message}")
        self.of_read = what.startswith(_READS)
        """Whether something could not be read; else it could not be written."""
        self.status = status
        """That of HTTP; 0 where no answer came."""
        self.reason = reason
        """One word, as the server has it: Conflict, AlreadyExists, Invalid, ..."""
        self.hint = _HINTS.get(status, "")
        self.wait = wait
        """So many seconds the server wants to be left alone."""

    @property
    def refused(self) -> bool:
        """Whether the server has understood, and says no: a quota, a policy, a right of ours.

        That a namespace ends is no refusal: there is nobody left to be told.
        """
        of_server = self.status == 500 and any(words in str(self) for words in _REFUSES_IN_500)
        return (self.status in _REFUSALS or of_server) and not self.of_ending_namespace

    @property
    def of_ending_namespace(self) -> bool:
        """Whether nothing can be made any more, as all that is there goes with its namespace."""
        return self.status == _FORBIDDEN and "it is being terminated" in str(self)

    @property
    def conflict(self) -> bool:
        """Whether the object is not, or no longer, the one that was meant."""
        return self.status == _CONFLICT


class Cluster:
    """Requests to the API server. Nothing is kept.

    Tried again at once is only what is busy (429), after the time that it asks for, and what
    another has written at the same moment (409). For all else the queue tries the pass again.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session = access.session()
        self.requests: Counter[tuple[str, str]] = Counter()
        """How many there were, by verb (get, list, apply, ...) and kind."""
        self.answers: Counter[tuple[str, str, int]] = Counter()
        """The same by what came of them, too: the status of HTTP, 0 where no answer came."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    # -- reads ---------------------------------------------------------------------------------

    async def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """An object; None where there is none of that name.

        Raises:
            ApiError: it cannot be read.
        """
        if not name or name in {".", ".."} or set(name) & set("/%"):
            # People may write such names; in a path they would mean something else.
            return None
        path = KINDS[kind].path(namespace, name)
        try:
            answer: Object = await self._ask("get", kind, namespace, name, "GET", path)
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return answer

    async def listed(
        self, kind: str, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        """All objects of a kind, of one namespace or of all, with these labels and fields.

        Raises:
            ApiError: they cannot be listed.
        """
        query = {"labelSelector": selector, "fieldSelector": fields}
        return await self._list(kind, namespace, query, _JSON)

    async def listed_if_known(self, kind: str, namespace: str = "") -> list[Object]:
        """The same; none where the cluster does not know the kind.

        Raises:
            ApiError: they cannot be listed.
        """
        try:
            return await self.listed(kind, namespace)
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return []
            raise

    async def keys(self, kind: str, namespace: str = "") -> list[Key]:
        """What objects of a kind there are, without what they hold.

        Raises:
            ApiError: they cannot be listed.
        """
        found = await self._list(kind, namespace, {}, _METADATA_ONLY)
        return [key_of(kind, each) for each in found]

    async def events_of(self, uid: str, namespace: str) -> list[Object]:
        """The events that speak of an object.

        Raises:
            ApiError: they cannot be listed.
        """
        return await self.listed("Event", namespace, fields=f"involvedObject.uid={uid}")

    async def logs(self, pod: str, namespace: str, container: str, lines: int = 50) -> list[str]:
        """The last lines that a container has printed; none where there is no such log.

        Raises:
            ApiError: they cannot be read.
        """
        path = KINDS["Pod"].path(namespace, pod, "log")
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(_LOG_BYTES)}
        try:
            text = await self._ask("log", "Pod", namespace, pod, "GET", path, query)
        except ApiError as error:
            if error.status in {400, 404}:  # it has not begun, or is gone
                return []
            raise
        return str(text).splitlines()

    async def served(self) -> frozenset[str]:
        """Which kinds of our group, and of KServe's, the server knows.

        Raises:
            ApiError: it cannot be asked.
        """
        groups = sorted({(each.group, each.version) for each in map(KINDS.get, _OPTIONAL) if each})
        return frozenset().union(*[await self._served(*group) for group in groups])

    async def _served(self, group: str, version: str) -> frozenset[str]:
        try:
            found = await self._ask(
                "get", KIND_OF_KINDS, "", group, "GET", f"/apis/{group}/{version}"
            )
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return frozenset()
            raise
        return frozenset(str(each["kind"]) for each in found["resources"])

    # -- writes --------------------------------------------------------------------------------

    async def create(self, object_: Object, manager: str) -> Object | None:
        """Make an object, as this field manager; None where there is one of its name already.

        Raises:
            ApiError: it was refused.
        """
        kind, namespace, name = key_of(object_["kind"], object_)
        path, query = KINDS[kind].path(namespace), {"fieldManager": manager}
        try:
            made: Object = await self._ask(
                "create", kind, namespace, name, "POST", path, query, object_
            )
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise
        return made

    async def apply(self, object_: Object, manager: str, *, force: bool = True) -> Object:
        """Server-side apply, as this field manager; what the server then has.

        With ``metadata.uid`` in it, one that was made anew meanwhile is refused (422), and one that
        is gone is not made again (409).

        Raises:
            ApiError: it was refused.
        """
        return await self._apply(object_, manager, force, "")

    async def apply_status(self, object_: Object, manager: str, *, force: bool = True) -> Object:
        """The same for the status alone.

        Raises:
            ApiError: it was refused.
        """
        return await self._apply(object_, manager, force, "status")

    async def patch_spec(self, object_: Object, spec: Object, manager: str) -> Object:
        """Let fields of a spec be as they are here; None: the field goes.

        Raises:
            ApiError: it was refused; 422 where it was made anew meanwhile.
        """
        kind, namespace, name = key_of(object_["kind"], object_)
        path, query = KINDS[kind].path(namespace, name), {"fieldManager": manager}
        body = {"metadata": {"uid": at(object_, "metadata.uid")}, "spec": spec}
        answer: Object = await self._ask(
            "patch", kind, namespace, name, "PATCH", path, query, body, content=_MERGE
        )
        return answer

    async def patch_finalizers(self, object_: Object, finalizers: Sequence[str]) -> Object:
        """Let an object have these finalizers, if it is still as it was read.

        Raises:
            ApiError: it was refused; 409 where it has changed since.
        """
        kind, namespace, name = key_of(object_["kind"], object_)
        metadata = {
            "finalizers": list(finalizers),
            "resourceVersion": at(object_, "metadata.resourceVersion"),
        }
        path, body = KINDS[kind].path(namespace, name), {"metadata": metadata}
        answer: Object = await self._ask(
            "patch", kind, namespace, name, "PATCH", path, body=body, content=_MERGE
        )
        return answer

    async def delete(
        self, kind: str, name: str, namespace: str = "", uid: str = "", version: str = ""
    ) -> bool:
        """Delete it, and then what it owns; False where it is not there.

        Args:
            kind: of the object.
            name: of the object.
            namespace: of the object.
            uid: it must have, if that is not empty.
            version: the ``resourceVersion`` that it must have, if that is not empty.

        Raises:
            ApiError: it was refused; 409 where it has not what it must have.
        """
        body: Object = {"propagationPolicy": "Background"}
        wanted = {"uid": uid, "resourceVersion": version}
        if preconditions := {field: value for field, value in wanted.items() if value}:
            body["preconditions"] = preconditions
        path = KINDS[kind].path(namespace, name)
        try:
            await self._ask("delete", kind, namespace, name, "DELETE", path, body=body)
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        return True

    async def post_event(self, about: Object, type: str, reason: str, message: str) -> None:  # noqa: A002
        """Tell what people read in ``kubectl describe``; type is Normal or Warning.

        Raises:
            ApiError: it was refused.
        """
        now, namespace = datetime.now(UTC), namespace_of(about) or "default"
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            # As kubectl's own library names events: the time makes them different.
            "metadata": {"name": f"{name_of(about)[:200]}.{time.time_ns():x}"},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": namespace_of(about),
                "name": name_of(about),
                "uid": at(about, "metadata.uid", ""),
            },
            "type": type,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "aim-operator"},
            "firstTimestamp": timestamp(now),
            "lastTimestamp": timestamp(now),
            "count": 1,
        }
        path = KINDS["Event"].path(namespace)
        await self._ask("create", "Event", namespace, name_of(about), "POST", path, body=event)

    async def _apply(self, object_: Object, manager: str, force: bool, subresource: str) -> Object:
        kind, namespace, name = key_of(object_["kind"], object_)
        path = KINDS[kind].path(namespace, name, subresource)
        query = {"fieldManager": manager, "force": str(force).lower()}
        verb = f"apply {subresource}".rstrip()
        asked = (verb, kind, namespace, name, "PATCH", path, query, object_)
        try:
            answer: Object = await self._ask(*asked)
        except ApiError as error:
            # Others have written meanwhile; what we have to say is no other for that.
            if error.status != _CONFLICT or not force:
                raise
            answer = await self._ask(*asked)
        return answer

    async def _list(
        self, kind: str, namespace: str, query: Mapping[str, str], accept: str
    ) -> list[Object]:
        path = KINDS[kind].path(namespace)
        found: list[Object] = []
        asked = {**query, "limit": str(_PAGE)}
        while True:
            try:
                answer = await self._ask(
                    "list", kind, namespace, "", "GET", path, asked, accept=accept
                )
            except ApiError as error:
                # The list has grown too old between two pages.
                if error.status == _GONE and asked.pop("continue", ""):
                    found.clear()
                    continue
                raise
            # What is listed lacks what all of it has.
            marks = {"apiVersion": KINDS[kind].api_version, "kind": kind}
            found += [{**each, **marks} for each in at(answer, "items", [])]
            asked["continue"] = at(answer, "metadata.continue", "")
            if not asked["continue"]:
                return found

    # -- requests ------------------------------------------------------------------------------

    async def _ask(  # noqa: PLR0913, PLR0917  # one place for all that a request may have
        self,
        verb: str,
        kind: str,
        namespace: str,
        name: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        accept: str = _JSON,
        content: str = "",
    ) -> Any:
        self.requests[verb, kind] += 1
        what = f"cannot {verb} {Key(kind, namespace, name)}".rstrip(" /")
        content = content or (_APPLY if method == "PATCH" else _JSON)
        headers = {"Accept": accept, "Content-Type": content}
        sent = {
            "params": {key: value for key, value in (query or {}).items() if value},
            "data": json.dumps(body) if body is not None else None,
            "headers": headers,
        }
        try:
            status, text, wait = await self._request(method, path, sent)
            self.answers[verb, kind, status] += 1
            for _ in range(_TRIES_WHEN_BUSY - 1):
                if status == _BUSY:
                    await asyncio.sleep(min(wait, _LONGEST_WAIT))
                    status, text, wait = await self._request(method, path, sent)
                    self.answers[verb, kind, status] += 1
            if status < 300:
                return json.loads(text) if verb != "log" else text
        except AccessError as error:
            raise ApiError(what, UNAUTHORIZED, "Unauthorized", str(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # OSError: also what takes too long.
            self.answers[verb, kind, 0] += 1
            why = str(error) or type(error).__name__
            raise ApiError(what, 0, "Unreachable", why) from error
        raise _refusal(what, status, text, wait)

    async def _request(
        self, method: str, path: str, sent: Mapping[str, Any]
    ) -> tuple[int, str, float]:
        """Status and text of the answer, and for how many seconds it asks to be left alone."""
        url = self._access.server + path
        async with self._session.request(
            method, url, timeout=_TIMEOUT, allow_redirects=False, **sent
        ) as answer:
            wait = answer.headers.get("Retry-After", "")
            seconds = float(wait) if wait.isascii() and wait.isdigit() else 1.0
            return answer.status, await answer.text("utf-8", "replace"), seconds


def _refusal(what: str, status: int, text: str, wait: float) -> ApiError:
    """What the server says in its own form, where that is what has answered."""
    try:
        said = json.loads(text)
        reason, message = str(said.get("reason") or ""), str(said["message"])
    except (AttributeError, KeyError, TypeError, ValueError):
        reason, message = "", " ".join(text.split())[:200]
    patience = wait if status == _BUSY else 0.0
    return ApiError(what, status, reason, message or f"HTTP status {status}", patience)
