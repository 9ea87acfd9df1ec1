"""From apply to Ready on a real API server with its own controllers; only the node is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from operator_shim.access import Access
from operator_shim.artifact import reconcile
from operator_shim.objects import Object, name_of, uid_of
from tests.cluster.artifacts import artifact, set_status
from tests.cluster.client import Cluster, Namespace
from tests.operator.fake_node import (
    OPTIONS,
    POLL_S,
    FakeNode,
    Operator,
    OperatorsDoor,
    is_ready,
    says,
)
from tests.operator.fakes import Killed, ended, ours, reasons
from tests.operator.kinds import our_kinds

ONCE = ("PersistentVolumeClaim", "ServiceAccount", "Role", "RoleBinding")
OWNED = "persistentvolumeclaims,jobs,pods,serviceaccounts,roles,rolebindings"

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def kinds(control_plane: Cluster) -> Iterator[Cluster]:
    with our_kinds(control_plane) as cluster:
        yield cluster


@pytest.fixture
async def operator(door: OperatorsDoor, space: Namespace, node: FakeNode) -> Operator:
    """That of an artifact whose download has its claim."""
    space.apply(artifact("demo") | {"spec": {"sourceUri": "hf://org/model", "size": "1Gi"}})
    operator = Operator(door, space)
    await operator.until(says("CachePvcReady", "True Ready"), node.bind)
    return operator


async def test_from_apply_to_ready(door: OperatorsDoor, space: Namespace, node: FakeNode) -> None:
    space.apply(artifact("demo"))
    operator = Operator(door, space)
    statuses: list[Object] = [{}]

    def comes_to_be_ready(status: Object) -> bool:
        statuses.append(status)
        return is_ready(status)

    status = await operator.until(comes_to_be_ready, node.work)
    assert status["displaySize"] == "8.5 GiB"
    assert status["allocatedSize"] == "10Gi"
    assert status["progress"]["displayPercentage"] == "100 %"
    assert status["observedGeneration"] == 1
    assert set(reasons(status).values()) <= {
        *("True AllComponentsReady", "True DefaultConfigNotFound", "True Ready"),
        *("True PodsReady", "True Verified"),
    }
    assert {what: many for what, many in door.writes.items() if what != "apply status"} == {
        "apply Job": 2,
        **dict.fromkeys((f"apply {kind}" for kind in ONCE), 1),
    }
    # It is written where it says something new, which depends on what each look happens to see.
    news = [after for before, after in pairwise(statuses) if after != before]
    assert door.writes["apply status"] == len(news), door.writes
    said = space.kubectl("describe", "aimartifact", "demo")
    events = {line.split()[1] for line in said.split("Events:")[1].splitlines() if "Normal" in line}
    assert events == {"JobCreated", "ClaimCreated", "SizeDiscovered", "Ready"}
    writes = door.writes.total()
    space.apply(artifact("demo"))
    for _ in range(3):
        await operator.look()
    assert door.writes.total() == writes


async def test_killed_before_any_write_and_started_anew(
    kinds: Cluster, space: Namespace, node: FakeNode
) -> None:
    numbers = range(13)
    space.apply(*(artifact(f"demo-{number}") for number in numbers))
    access = await Access.load(str(kinds.kubeconfig))

    async def live(number: int) -> tuple[Object, bool]:
        killed = False
        async with OperatorsDoor(access) as door:
            door.writes_left = number
            operator = Operator(door, space, f"demo-{number}")
            while True:
                try:
                    return await operator.until(is_ready), killed
                except Killed:
                    killed, door.writes_left = True, None

    async def nodes() -> None:
        while True:
            await asyncio.to_thread(node.work)
            await asyncio.sleep(POLL_S)

    working = asyncio.create_task(nodes())
    lives = await asyncio.gather(*map(live, numbers))
    working.cancel()
    assert [killed for _, killed in lives[:9]] == [True] * 9
    whole, _ = lives[-1]
    for number, (status, _) in enumerate(lives):
        assert reasons(status) == reasons(whole), number
        assert status["progress"] == whole["progress"]
        assert status["discoveredSizeBytes"] == whole["discoveredSizeBytes"]
    assert len(space.listed("persistentvolumeclaims")) == len(numbers)
    assert len(space.listed("jobs")) == 2 * len(numbers)


async def test_deleted_in_the_middle_all_that_it_owns_goes(
    door: OperatorsDoor, space: Namespace, node: FakeNode
) -> None:
    space.apply(artifact("demo") | {"spec": {"sourceUri": "hf://org/model", "size": "1Gi"}})
    operator = Operator(door, space)
    await operator.until(says("DownloadJobReady", "False JobRunning"))
    space.cluster.wait_for(lambda: node.pods("download"))
    space.kubectl("delete", "aimartifact", "demo")
    assert await reconcile(door, operator.key, OPTIONS) is None

    def owned() -> list[str]:
        found = [
            (each["kind"], name_of(each))
            for each in space.listed(OWNED, "aim.eai.amd.com/artifact.name=demo")
        ]
        return [f"{kind} {name}" for kind, name in found]

    space.cluster.wait_for(lambda: not owned(), what="all that was owned is gone")


async def test_what_the_pod_tells_survives_what_the_operator_tells(
    operator: Operator, space: Namespace, node: FakeNode
) -> None:
    space.cluster.wait_for(lambda: node.tell("download", {"phase": "Running"}))
    told = {
        "progress": {"percentage": 57, "displayPercentage": "57 %", "downloadedBytes": 570},
        "download": {"protocol": "XET", "attempt": 1, "message": "Downloading with XET"},
    }
    set_status(space, "demo", told)
    status = await operator.until(says("DownloadJobPodsReady", "True PodsReady"))
    assert {part: status[part] for part in told} == told
    set_status(space, "demo", {"progress": {"percentage": 100, "displayPercentage": "100 %"}})
    status = await operator.until(says("DownloadComplete", "True Verifying"))
    assert status["progress"]["downloadedBytes"] == 570
    node.tell("download", {"phase": "Succeeded"})
    status = await operator.until(is_ready)
    assert status["progress"]["downloadedBytes"] == status["progress"]["totalBytes"] == 2**30
    assert status["download"] == {**told["download"], "message": "Complete"}


async def test_a_pod_that_goes_when_it_has_told_little_leaves_a_status_that_can_be_written(
    operator: Operator, space: Namespace, node: FakeNode
) -> None:
    space.cluster.wait_for(lambda: node.tell("download", {"phase": "Running"}))
    set_status(space, "demo", {"progress": {"percentage": 3, "displayPercentage": "3 %"}})
    await operator.until(says("DownloadJobPodsReady", "True PodsReady"))
    space.kubectl("delete", "job", "--all", "--wait=true")
    space.cluster.wait_for(lambda: not space.listed("pods"))
    nothing = {"percentage": 0, "displayPercentage": "0 %"}
    assert (await operator.look())["progress"] == nothing
    space.cluster.wait_for(lambda: node.tell("download", {"phase": "Running"}))
    status = await operator.until(says("DownloadJobPodsReady", "True PodsReady"))
    assert status["progress"] == nothing


async def test_an_exit_code_that_is_final_ends_the_job_and_waits_for_a_change(
    operator: Operator, space: Namespace, node: FakeNode
) -> None:
    end = ours(66, "there is no such repository")
    space.cluster.wait_for(lambda: node.tell("download", _ended_at(end)))
    status = await operator.until(says("Ready", "False InvalidSpec"))
    assert status["status"] == "Failed"
    assert "there is no such repository" in _message(status, "Ready")
    uid = uid_of(space.listed("jobs")[0])
    await operator.look()
    assert uid_of(space.listed("jobs")[0]) == uid
    space.kubectl("annotate", "aimartifact", "demo", "aim.eai.amd.com/retry=1")
    status = await operator.until(is_ready, node.work)
    assert uid_of(space.listed("jobs")[0]) != uid
    assert status["progress"]["displayPercentage"] == "100 %"
    assert "retry-state" not in str(operator.artifact["metadata"].get("annotations"))


async def test_the_first_of_three_pods_may_fail(
    operator: Operator, space: Namespace, node: FakeNode
) -> None:
    space.cluster.wait_for(lambda: node.tell("download", _ended_at(ended(75))))
    status = await operator.until(says("DownloadJobPodsReady", "False PodFailed"))
    assert status["status"] == "Progressing"
    assert "exit code 75" in _message(status, "Ready")


async def test_shards_become_an_indexed_job(
    door: OperatorsDoor, space: Namespace, node: FakeNode
) -> None:
    spec = {"sourceUri": "hf://org/model", "size": "1Gi", "shards": 3}
    space.apply(artifact("demo") | {"spec": spec})
    operator = Operator(door, space)
    await operator.until(says("CachePvcReady", "True Ready"), node.bind)
    space.cluster.wait_for(lambda: len(node.pods("download")) == 3)
    await operator.until(is_ready, node.work)


def _ended_at(status: Object) -> Object:
    """The status of a container that ended, with all that the server asks for."""
    container = {
        **status["containerStatuses"][0],
        "imageID": "",
        "ready": False,
        "restartCount": 0,
    }
    return {**status, "containerStatuses": [container]}


def _message(status: Object, kind: str) -> str:
    return str(next(each for each in status["conditions"] if each["type"] == kind)["message"])
