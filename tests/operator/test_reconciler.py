"""Passes that fail, in memory: whose fault it is, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from operator_shim import artifact, service, template, template_cache
from operator_shim.cluster import ApiError
from operator_shim.objects import Object, condition_of
from operator_shim.reconciler import Reconciler
from tests.operator import cache_land, fakes, service_land
from tests.operator.fakes import KEY, OPTIONS, FakeCluster
from tests.operator.virtual_time import run

PASSES = {
    "AIMArtifact": artifact.reconcile,
    "AIMModelCache": artifact.reconcile,
    "AIMTemplateCache": template_cache.reconcile,
    "AIMServiceTemplate": template.reconcile,
    "AIMClusterServiceTemplate": template.reconcile,
    "AIMService": service.reconcile,
}


def with_artifact() -> FakeCluster:
    return fakes.cluster_with(fakes.artifact({"size": "10Gi"}))


def with_template() -> FakeCluster:
    spec = {"modelSources": [cache_land.ONE], "caching": {"enabled": True}}
    return cache_land.land(cache_land.made_by_users("AIMServiceTemplate", "qwen", spec))


EACH = {
    "AIMArtifact": with_artifact,
    "AIMTemplateCache": cache_land.land,
    "AIMServiceTemplate": with_template,
    "AIMService": service_land.service_land,
}


def work(cluster: FakeCluster, seconds: float = 90) -> None:
    """The operator is at work for so long."""

    async def working() -> None:
        task = asyncio.create_task(Reconciler(cluster, OPTIONS, PASSES).run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()

    run(working())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize("there", EACH.values(), ids=EACH)
def test_that_a_namespace_ends_is_nobodys_fault(
    there: Callable[[], FakeCluster], caplog: pytest.LogCaptureFixture
) -> None:
    cluster, tries = there(), []

    def ends(wanted: Object) -> ApiError | None:
        if "status" in wanted:
            return None
        tries.append(wanted["kind"])
        why = "forbidden: unable to create new content in it because it is being terminated"
        return ApiError(f"cannot apply {wanted['kind']}", 403, "Forbidden", why)

    cluster.refuse = ends
    work(cluster)
    # Once and an Event that is lost, not again and again.
    assert 1 <= len(tries) <= 4, tries
    assert warnings(caplog) == []


def test_words_of_a_user_end_no_namespace() -> None:
    said = "Invalid value: because it is being terminated"
    assert not ApiError("cannot apply Job", 422, "Invalid", said).of_ending_namespace
    assert ApiError("cannot apply Job", 422, "Invalid", said).refused


class OutOfReach(FakeCluster):
    """It is so in several words, by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    async def served(self) -> frozenset[str]:
        self.tries += 1
        why = "Server disconnected" if self.tries % 2 else "Connection reset by peer"
        raise ApiError("cannot list the kinds", 0, "Unreachable", why)


def test_a_server_out_of_reach_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    cluster = OutOfReach()
    work(cluster)
    assert cluster.tries > 3
    (said,) = warnings(caplog)
    assert "Server disconnected" in said


def test_another_refusal_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    cluster, tries = with_artifact(), []

    def full(wanted: Object) -> ApiError | None:
        tries.append(wanted["kind"])
        denied = ApiError("cannot apply Job", 403, "Forbidden", "exceeded quota: jobs")
        return denied if wanted["kind"] == "Job" else None

    cluster.refuse = full
    work(cluster)
    assert tries.count("Job") > 3
    event, passed = warnings(caplog)
    assert event.startswith("InfrastructureError: the API server refuses")
    assert passed.startswith("the pass failed")
    assert "exceeded quota" in event
    assert "exceeded quota" in passed
    assert cluster.objects[KEY]["status"]["status"] == "Degraded"


class Unreadable(service_land.ServiceLand):
    """Nobody lets us list some kinds."""

    allowed = False

    async def listed(
        self, kind: str, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        if kind in {"Pod", "AIMArtifact", "AIMModel"} and not self.allowed:
            raise ApiError(f"cannot list {kind}", 403, "Forbidden", "not for you")
        return await super().listed(kind, namespace, selector, fields)


@pytest.mark.parametrize(
    ("made", "unread"),
    [
        (fakes.artifact({"size": "10Gi"}), "Pod"),
        (cache_land.cache(), "AIMArtifact"),
        (service_land.chat(), "AIMModel"),
    ],
)
def test_what_we_may_not_read_is_told_in_the_status_and_taken_back(
    made: Object, unread: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Unreadable()
    for each in (cache_land.namespace(), cache_land.service_template(), made):
        cluster.put(each)
    work(cluster)
    [there] = cluster.of_kind(made["kind"])
    told = condition_of(there, "DependenciesReachable") or {}
    assert (told["status"], told["reason"]) == ("False", "InfrastructureError")
    assert f"cannot list {unread}: not for you; the operator's role lacks this" in told["message"]
    assert len(warnings(caplog)) == 1
    writes = cluster.writes["apply status"]
    work(cluster)
    assert cluster.writes["apply status"] == writes
    cluster.allowed = True
    work(cluster)
    [there] = cluster.of_kind(made["kind"])
    assert fakes.reasons(there["status"])["DependenciesReachable"] == "True Reachable"


def test_a_model_that_is_there_stays_ready_though_its_pods_cannot_be_read() -> None:
    cluster = Unreadable()
    cluster.allowed = True
    cluster.put(fakes.artifact({"size": "10Gi"}))
    work(cluster)
    cluster.bind()
    work(cluster)
    cluster.succeed()
    work(cluster)
    cluster.allowed = False
    work(cluster)
    assert cluster.status["status"] == "Ready"
    assert fakes.reasons(cluster.status) | {
        "Ready": "True AllComponentsReady",
        "DependenciesReachable": "False InfrastructureError",
    } == fakes.reasons(cluster.status)
