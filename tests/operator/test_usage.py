"""When a model was last used: which pods count, how often it is written, and by whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operator_shim.cluster import ApiError
from operator_shim.config import Options
from operator_shim.keys import ARTIFACT, MODEL_CACHE, Key
from operator_shim.objects import Object, timestamp
from operator_shim.usage import claims_in_use, is_due, note_usage
from tests.operator.fakes import START, FakeCluster, artifact

OPTIONS = Options(namespaces=("models",), kinds=frozenset({ARTIFACT, MODEL_CACHE}))
READY = {"status": "Ready", "persistentVolumeClaim": "demo-cache"}
OF_ARTIFACT = {"aim.eai.amd.com/cache.name": "demo"}


def pod(*claims: str, labels: dict[str, str] | None = None, name: str = "any") -> Object:
    volumes: list[Object] = [
        {"name": f"v{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(claims)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "models", "labels": labels or {}},
        "spec": {"volumes": [{"name": "scratch", "emptyDir": {}}, *volumes]},
        "status": {"phase": "Running"},
    }


# -- which pods count ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pods", "claims"),
    [
        ([], set()),
        ([{"kind": "Pod", "metadata": {"name": "bare"}, "spec": {}}], set()),
        ([pod()], set()),
        ([pod("a", "b"), pod("b", "c")], {"a", "b", "c"}),
        # One that serves a model, whatever labels it has been given.
        ([pod("a", labels=OF_ARTIFACT)], {"a"}),
        ([pod("a", labels={"aim.eai.amd.com/component": "download"})], {"a"}),
        # Those that bring a model do not use it.
        ([pod("a", labels={**OF_ARTIFACT, "aim.eai.amd.com/component": "download"})], set()),
        ([pod("a", labels={**OF_ARTIFACT, "aim.eai.amd.com/component": "check-size"})], set()),
    ],
)
def test_claims_that_pods_mount_are_in_use(pods: list[Object], claims: set[str]) -> None:
    assert set(claims_in_use(pods)) == claims


NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def used(**ago: float) -> Object:
    return {**READY, "lastUsed": timestamp(NOW - timedelta(**ago))}


@pytest.mark.parametrize(
    ("status", "metadata", "due"),
    [
        (None, {}, False),
        ({"status": "Progressing"}, {}, False),
        (READY, {}, True),
        ({**READY, "status": "Failed"}, {}, True),  # somebody mounts it nevertheless
        (READY, {"deletionTimestamp": timestamp(NOW)}, False),
        (used(seconds=1), {}, False),
        (used(minutes=59), {}, False),
        (used(hours=1), {}, True),
        (used(days=30), {}, True),
        # What nobody can have written who knew the time.
        (used(days=-3000), {}, True),
        ({**READY, "lastUsed": "yesterday"}, {}, True),
        ({**READY, "lastUsed": "0000-01-31T12:00:00Z"}, {}, True),
    ],
)
def test_it_is_told_once_in_an_hour(status: Any, metadata: Any, *, due: bool) -> None:
    assert is_due(artifact(status=status, **metadata), NOW) is due


# -- what is written -------------------------------------------------------------------------------


class Served(FakeCluster):
    """One with the kinds that it is told to have; it counts its lists of pods."""

    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self.kinds = frozenset(kinds)
        self.lists = 0

    async def served(self) -> frozenset[str]:
        return self.kinds

    async def listed(
        self, kind: str, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        if kind == "Pod" and not selector:
            assert fields == "status.phase=Running"
            self.lists += 1
        return await super().listed(kind, namespace, selector, fields)

    async def note_usage(self, options: Options = OPTIONS) -> None:
        await note_usage(self, options, lambda: self.now)

    def last_used(self, kind: str = ARTIFACT) -> str | None:
        found: str | None = self.objects[Key(kind, "models", "demo")]["status"].get("lastUsed")
        return found


async def test_a_model_in_use_is_told_so_once_an_hour() -> None:
    cluster = Served(ARTIFACT, MODEL_CACHE)
    cluster.put(artifact(status=READY))
    cluster.put(pod("demo-cache"))
    told = []
    for _ in range(30):
        await cluster.note_usage()
        told.append(cluster.last_used())
        cluster.wait(minutes=5)
    assert [moment for moment in dict.fromkeys(told) if moment] == [
        timestamp(START + timedelta(hours=hours)) for hours in range(3)
    ]
    assert cluster.writes.total() == 3


async def test_one_that_nobody_mounts_is_not() -> None:
    cluster = Served(ARTIFACT, MODEL_CACHE)
    cluster.put(artifact(status=READY))
    cluster.put(pod("another"))
    await cluster.note_usage()
    assert cluster.last_used() is None
    assert cluster.writes.total() == 0


async def test_an_older_model_cache_is_told_as_well_and_pods_are_listed_once() -> None:
    cluster = Served(ARTIFACT, MODEL_CACHE)
    cluster.put(artifact(status=READY))
    older = {**READY, "status": "Available", "persistentVolumeClaim": "older"}
    cluster.put({**artifact(status=older), "kind": MODEL_CACHE})
    cluster.put(pod("demo-cache", "older"))
    await cluster.note_usage()
    assert cluster.last_used() == cluster.last_used(MODEL_CACHE) == timestamp(START)
    assert cluster.lists == 1


@pytest.mark.parametrize(
    ("kinds", "served"),
    [
        ({MODEL_CACHE}, (ARTIFACT, MODEL_CACHE)),  # another operator looks after artifacts
        ({ARTIFACT}, ()),
    ],
)
async def test_kinds_that_are_not_ours_or_not_there_are_left_alone(
    kinds: set[str], served: tuple[str, ...]
) -> None:
    cluster = Served(*served)
    cluster.put(artifact(status=READY))
    cluster.put(pod("demo-cache"))
    await cluster.note_usage(Options(namespaces=("models",), kinds=frozenset(kinds)))
    assert cluster.last_used() is None
    assert cluster.lists == 0


class Closed(Served):
    """One that lets nobody list the pods of the first of two namespaces."""

    async def listed(
        self, kind: str, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        if kind == "Pod" and namespace == "closed":
            raise ApiError("cannot list Pod closed", 403, "Forbidden", "not for you")
        return await super().listed(kind, namespace, selector, fields)


async def test_a_namespace_that_is_closed_to_us_keeps_no_other_from_being_told() -> None:
    cluster = Closed(ARTIFACT)
    closed = artifact(status=READY)
    closed["metadata"]["namespace"] = "closed"
    cluster.put(closed)
    cluster.put(artifact(status=READY))
    cluster.put(pod("demo-cache"))
    with pytest.raises(ApiError, match="closed"):
        await cluster.note_usage(Options(namespaces=("closed", "models")))
    assert cluster.last_used() == timestamp(START)


async def test_the_next_status_of_the_operator_leaves_it() -> None:
    cluster = Served(ARTIFACT)
    cluster.put(artifact({"size": "1Gi"}))
    await cluster.settle()
    cluster.bind()
    cluster.put(pod(cluster.status["persistentVolumeClaim"]))
    await cluster.note_usage()
    cluster.wait(minutes=1)
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert cluster.last_used() == timestamp(START)
