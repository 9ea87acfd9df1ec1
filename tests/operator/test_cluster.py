"""The door to the Kubernetes API, against a real API server; and before it a front for bad days."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from operator_shim.access import Access, AccessError
from operator_shim.cluster import KINDS, ApiError
from operator_shim.cluster import Cluster as Door
from operator_shim.keys import Key
from tests.cluster.client import Cluster, Namespace
from tests.operator.front import ApiFront
from tests.operator.kinds import custom

MANAGER = "aim-artifact-controller"

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def door(kinds: Cluster) -> AsyncIterator[Door]:
    async with door_by(kinds.kubeconfig) as door:
        yield door


@pytest.fixture
def front(kinds: Cluster, tmp_path: Path) -> Iterator[ApiFront]:
    with ApiFront(kinds, tmp_path) as front:
        yield front


@asynccontextmanager
async def door_by(kubeconfig: Path) -> AsyncIterator[Door]:
    async with Door(await Access.load(str(kubeconfig))) as door:
        yield door


def artifact(space: Namespace, name: str = "model", **metadata: Any) -> dict[str, Any]:
    manifest = custom("AIMArtifact", name, {"sourceUri": "hf://org/model"})
    manifest["metadata"] |= {"namespace": space.name, **metadata}
    return manifest


def account(space: Namespace, name: str = "one", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": space.name, "labels": labels},
    }


def failure(caught: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return caught.value.status, caught.value.reason


# -- reads -------------------------------------------------------------------------------------


async def test_an_object_is_read_or_is_not_there(door: Door, space: Namespace) -> None:
    space.apply(artifact(space))
    found = await door.get("AIMArtifact", "model", space.name)
    assert found
    assert found["spec"]["sourceUri"] == "hf://org/model"
    assert await door.get("AIMArtifact", "another", space.name) is None
    assert await door.get("AIMClusterRuntimeConfig", "another") is None
    assert await door.get("Namespace", space.name)


@pytest.mark.parametrize("name", ["", ".", "..", "one/status", "..%2Fone", "../aimartifacts/model"])
async def test_there_is_nothing_of_a_name_that_no_object_can_have(
    front: ApiFront, space: Namespace, name: str
) -> None:
    space.apply(artifact(space))
    async with door_by(front.kubeconfig) as door:
        assert await door.get("AIMRuntimeConfig", name, space.name) is None
        assert await door.get("AIMClusterRuntimeConfig", name) is None
    assert not front.seen("GET ")


async def test_objects_are_listed_by_namespace_label_and_field(
    door: Door, space: Namespace
) -> None:
    space.apply(account(space, "red", colour="red"), account(space, "blue", colour="blue"))
    every = await door.listed("ServiceAccount", space.name)
    assert {each["metadata"]["name"] for each in every} == {"default", "red", "blue"}
    assert {(each["kind"], each["apiVersion"]) for each in every} == {("ServiceAccount", "v1")}
    by_label = await door.listed("ServiceAccount", space.name, "colour=red")
    assert [each["metadata"]["name"] for each in by_label] == ["red"]
    by_field = await door.listed("ServiceAccount", space.name, fields="metadata.name=blue")
    assert [each["metadata"]["name"] for each in by_field] == ["blue"]
    assert len(await door.listed("ServiceAccount")) > len(every)


async def test_keys_come_without_what_the_objects_hold_and_in_pages(
    front: ApiFront, space: Namespace
) -> None:
    space.apply(*(artifact(space, f"model-{number:04}") for number in range(502)))
    async with door_by(front.kubeconfig) as door:
        keys = await door.keys("AIMArtifact", space.name)
    assert keys == [Key("AIMArtifact", space.name, f"model-{n:04}") for n in range(502)]
    assert len(front.seen("continue=")) == 1


async def test_where_there_is_none_nothing_is_listed(door: Door, space: Namespace) -> None:
    assert await door.keys("AIMArtifact", space.name) == []
    assert await door.listed("AIMArtifact", space.name) == []


async def test_a_list_that_has_grown_too_old_between_two_pages_is_begun_anew(
    front: ApiFront, space: Namespace
) -> None:
    space.apply(*(account(space, f"account-{number:04}") for number in range(501)))
    front.trap("continue=", 410, '{"reason": "Expired", "message": "too old"}', times=1)
    async with door_by(front.kubeconfig) as door:
        found = await door.listed("ServiceAccount", space.name)
    assert len(found) == len({each["metadata"]["name"] for each in found}) == 502
    assert len(front.seen("continue=")) == 2


async def test_which_kinds_of_the_group_are_served(door: Door) -> None:
    assert {"AIMArtifact", "AIMRuntimeConfig", "AIMClusterRuntimeConfig"} <= await door.served()


async def test_a_pod_that_has_no_log_yet_or_is_not_there_has_no_lines(
    door: Door, space: Namespace
) -> None:
    security = {
        "runAsNonRoot": True,
        "runAsUser": 1,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "c", "image": "none", "securityContext": security}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    # Nowhere to run.
    space.apply({**pod, "spec": {"containers": [container], "nodeSelector": {"no": "node"}}})
    assert await door.logs("p", space.name, "c") == []
    assert await door.logs("q", space.name, "c") == []


async def test_the_last_lines_of_a_log(front: ApiFront, space: Namespace) -> None:
    front.trap("/pods/p/log?container=c&tailLines=2", 200, "one\ntwo\n")
    async with door_by(front.kubeconfig) as door:
        assert await door.logs("p", space.name, "c", lines=2) == ["one", "two"]


# -- writes ------------------------------------------------------------------------------------


async def test_applied_again_it_stays_as_it_is_and_what_others_have_set_stays_too(
    door: Door, space: Namespace
) -> None:
    first = await door.apply(account(space, mine="1"), MANAGER)
    space.kubectl("label", "serviceaccount", "one", "theirs=1")
    before = await door.get("ServiceAccount", "one", space.name)
    again = await door.apply(account(space, mine="1"), MANAGER)
    assert before
    assert again["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert again["metadata"]["uid"] == first["metadata"]["uid"]
    changed = await door.apply(account(space, other="1"), MANAGER)
    assert changed["metadata"]["labels"] == {"theirs": "1", "other": "1"}
    managers = {each["manager"] for each in changed["metadata"]["managedFields"]}
    assert MANAGER in managers


async def test_what_is_there_already_is_not_made_again(door: Door, space: Namespace) -> None:
    made = await door.create(account(space, mine="1"), MANAGER)
    assert made
    assert [each["manager"] for each in made["metadata"]["managedFields"]] == [MANAGER]
    assert await door.create(account(space, mine="2"), "somebody") is None
    there = await door.get("ServiceAccount", "one", space.name)
    assert there
    assert there["metadata"]["labels"] == {"mine": "1"}
    nowhere = {**account(space), "metadata": {"name": "one", "namespace": "not-there"}}
    with pytest.raises(ApiError) as caught:
        await door.create(nowhere, MANAGER)
    assert failure(caught) == (404, "NotFound")


async def test_fields_of_a_spec_are_changed_and_taken_away(door: Door, space: Namespace) -> None:
    manifest = artifact(space)
    env = [{"name": "ONE", "value": "1"}, {"name": "TWO", "value": "2"}]
    manifest["spec"] |= {"env": env, "runtimeConfigName": "mine"}
    made = await door.create(manifest, MANAGER)
    assert made
    wanted = {"env": [{"name": "TWO", "value": "3"}], "runtimeConfigName": None}
    changed = await door.patch_spec(made, wanted, MANAGER)
    assert changed["spec"] == {**artifact(space)["spec"], "env": wanted["env"]}
    assert {each["manager"] for each in changed["metadata"]["managedFields"]} == {MANAGER}
    anew = {**made, "metadata": {**made["metadata"], "uid": "another"}}
    with pytest.raises(ApiError) as caught:
        await door.patch_spec(anew, {"env": []}, MANAGER)
    assert failure(caught) == (422, "Invalid")


async def test_a_status_leaves_the_spec_alone_and_what_a_pod_has_patched(
    door: Door, space: Namespace
) -> None:
    space.apply(artifact(space))
    space.kubectl(
        *("patch", "aimartifact", "model", "--subresource=status", "--type=merge"),
        *("-p", '{"status": {"progress": {"percentage": 7}}}'),
    )
    status = {"status": "Progressing"}
    manifest = {**artifact(space), "spec": {"sourceUri": "hf://not/this"}, "status": status}
    applied = await door.apply_status(manifest, MANAGER)
    assert applied["spec"]["sourceUri"] == "hf://org/model"
    assert applied["status"]["progress"] == {"percentage": 7}
    assert applied["status"]["status"] == "Progressing"


async def test_without_force_what_another_has_set_is_a_conflict(
    door: Door, space: Namespace
) -> None:
    await door.apply(account(space, colour="red"), "somebody")
    with pytest.raises(ApiError) as caught:
        await door.apply(account(space, colour="blue"), MANAGER, force=False)
    assert failure(caught) == (409, "Conflict")
    taken = await door.apply(account(space, colour="blue"), MANAGER)
    assert taken["metadata"]["labels"] == {"colour": "blue"}


async def test_applied_to_one_that_was_made_anew_or_is_gone_is_refused(
    door: Door, space: Namespace
) -> None:
    manifest = account(space)
    first = await door.apply(manifest, MANAGER)
    manifest["metadata"]["uid"] = first["metadata"]["uid"]
    await door.apply(manifest, MANAGER)
    await door.delete("ServiceAccount", "one", space.name)
    await door.apply(account(space), MANAGER)
    with pytest.raises(ApiError) as caught:
        await door.apply(manifest, MANAGER)
    assert failure(caught) == (422, "Invalid")
    assert "metadata.uid" in str(caught.value)
    await door.delete("ServiceAccount", "one", space.name)
    with pytest.raises(ApiError) as caught:
        await door.apply(manifest, MANAGER)
    assert failure(caught) == (409, "Conflict")


async def test_finalizers_are_changed_only_on_what_is_as_it_was_read(
    door: Door, space: Namespace
) -> None:
    space.apply(artifact(space))
    before = await door.get("AIMArtifact", "model", space.name)
    assert before
    theirs, mine = "example.com/theirs", "example.com/mine"
    held = await door.patch_finalizers({**before, "kind": "AIMArtifact"}, [theirs, mine])
    assert held["metadata"]["finalizers"] == [theirs, mine]
    with pytest.raises(ApiError) as caught:
        await door.patch_finalizers({**before, "kind": "AIMArtifact"}, [])
    assert failure(caught) == (409, "Conflict")
    freed = await door.patch_finalizers(held, [theirs])
    assert freed["metadata"]["finalizers"] == [theirs]
    await door.patch_finalizers(freed, [])


async def test_what_has_changed_since_it_was_listed_is_not_deleted(
    door: Door, space: Namespace
) -> None:
    space.apply(artifact(space))
    [before] = await door.listed("AIMArtifact", space.name)
    uid, version = before["metadata"]["uid"], before["metadata"]["resourceVersion"]
    await door.apply_status({**artifact(space), "status": {"status": "Ready"}}, MANAGER)
    with pytest.raises(ApiError) as caught:
        await door.delete("AIMArtifact", "model", space.name, uid, version)
    assert failure(caught) == (409, "Conflict")
    [now] = await door.listed("AIMArtifact", space.name)
    version = now["metadata"]["resourceVersion"]
    assert await door.delete("AIMArtifact", "model", space.name, uid, version)


async def test_a_write_that_met_another_is_made_again_at_once(
    front: ApiFront, space: Namespace
) -> None:
    body = '{"reason": "Conflict", "message": "the object has been modified"}'
    front.trap("PATCH ", 409, body, times=1)
    async with door_by(front.kubeconfig) as door:
        await door.apply(account(space), MANAGER)
        assert len(front.seen("PATCH ")) == 2
        front.trap("PATCH ", 409, body)
        with pytest.raises(ApiError) as caught:
            await door.apply(account(space), MANAGER)
    assert failure(caught) == (409, "Conflict")
    assert len(front.seen("PATCH ")) == 4


async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(
    front: ApiFront, space: Namespace
) -> None:
    body = '{"reason": "TooManyRequests", "message": "slow down"}'
    front.trap("PATCH ", 429, body, times=1, headers={"Retry-After": "2"})
    async with door_by(front.kubeconfig) as door:
        begun = time.monotonic()
        await door.apply(account(space), MANAGER)
    assert time.monotonic() - begun >= 2
    assert len(front.seen("PATCH ")) == 2


async def test_a_server_that_stays_busy_is_asked_again_later(
    front: ApiFront, space: Namespace
) -> None:
    body = '{"reason": "TooManyRequests", "message": "slow down"}'
    front.trap("GET /api/v1", 429, body, times=3, headers={"Retry-After": "0"})
    front.trap("GET /apis", 429, body, times=2, headers={"Retry-After": "0"})
    front.trap("GET /apis", 429, body, headers={"Retry-After": "1"})
    async with door_by(front.kubeconfig) as door:
        with pytest.raises(ApiError) as caught:
            await door.get("ServiceAccount", "one", space.name)
        assert (caught.value.status, caught.value.wait) == (429, 0)
        assert len(front.seen("GET /api/v1")) == 3
        with pytest.raises(ApiError) as caught:
            await door.get("Job", "one", space.name)
    assert (caught.value.status, caught.value.wait) == (429, 1)


async def test_deleted_once_only_and_only_the_one_that_was_meant(
    door: Door, space: Namespace
) -> None:
    made = await door.apply(account(space), MANAGER)
    with pytest.raises(ApiError) as caught:
        await door.delete("ServiceAccount", "one", space.name, uid="another")
    assert failure(caught) == (409, "Conflict")
    assert await door.delete("ServiceAccount", "one", space.name, uid=made["metadata"]["uid"])
    assert not await door.delete("ServiceAccount", "one", space.name)


async def test_events_tell_of_an_object(door: Door, space: Namespace) -> None:
    made = await door.apply(artifact(space), MANAGER)
    for message in ("first", "second"):
        await door.post_event(made, "Warning", "Downloading", message)
    told = await door.events_of(made["metadata"]["uid"], space.name)
    assert sorted(each["message"] for each in told) == ["first", "second"]
    assert "Downloading" in space.kubectl("describe", "aimartifact", "model")


async def test_requests_are_counted(door: Door, space: Namespace) -> None:
    await door.get("Job", "none", space.name)
    await door.get("Job", "none", space.name)
    await door.apply(account(space), MANAGER)
    assert door.requests == {("get", "Job"): 2, ("apply", "ServiceAccount"): 1}


# -- refusals ----------------------------------------------------------------------------------


async def test_what_the_kind_does_not_allow_is_said_with_its_field(
    door: Door, space: Namespace
) -> None:
    manifest = {**artifact(space), "spec": {"sourceUri": "ftp://org/model"}}
    with pytest.raises(ApiError) as caught:
        await door.apply(manifest, MANAGER)
    assert failure(caught) == (422, "Invalid")
    assert "spec.sourceUri" in str(caught.value)
    assert f"cannot apply AIMArtifact {space.name}/model: " in str(caught.value)


async def test_into_a_namespace_that_is_not_there(door: Door) -> None:
    manifest = account(Namespace(None, "not-there"))  # type: ignore[arg-type]  # its name alone
    with pytest.raises(ApiError) as caught:
        await door.apply(manifest, MANAGER)
    assert failure(caught) == (404, "NotFound")


async def test_who_may_not_is_told_what_is_lacking(front: ApiFront, space: Namespace) -> None:
    space.kubectl("create", "serviceaccount", "nobody")
    token = space.kubectl("create", "token", "nobody").strip()
    async with door_by(front.kubeconfig_with(token=token)) as door:
        with pytest.raises(ApiError) as caught:
            await door.get("Job", "one", space.name)
    assert failure(caught) == (403, "Forbidden")
    assert 'cannot get resource "jobs"' in str(caught.value)
    assert "role" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "body", "reason", "message"),
    [
        (429, '{"reason": "TooManyRequests", "message": "slow down"}', "TooManyRequests", "slow"),
        (500, '{"reason": "InternalError", "message": "etcd"}', "InternalError", "etcd"),
        (502, "<html>Bad\nGateway</html>", "", "<html>Bad Gateway</html>"),
        (503, "", "", "HTTP status 503"),
        (504, '["no", "status"]', "", '["no", "status"]'),
        (200, "this is no JSON", "Unreachable", ""),
    ],
)
async def test_a_server_in_trouble(
    front: ApiFront, status: int, body: str, reason: str, message: str
) -> None:
    front.trap("GET ", status, body)
    async with door_by(front.kubeconfig) as door:
        with pytest.raises(ApiError) as caught:
            await door.get("Job", "one", "default")
    assert caught.value.status == (status if status != 200 else 0)
    assert caught.value.reason == reason
    assert message in str(caught.value)


async def test_a_server_that_is_gone_for_a_while(front: ApiFront, space: Namespace) -> None:
    async with door_by(front.kubeconfig) as door:
        front.go_down()
        with pytest.raises(ApiError) as caught:
            await door.get("Namespace", space.name)
        assert failure(caught) == (0, "Unreachable")
        assert "out of reach" in caught.value.hint
        front.come_up()
        assert await door.get("Namespace", space.name)


# -- who we say we are -------------------------------------------------------------------------


async def test_a_token_that_was_replaced_is_read_again(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(front.token)
    async with door_by(front.kubeconfig_with(tokenFile=str(token))) as door:
        assert await door.get("Namespace", space.name)
        # The server no longer knows the one that is in use.
        front.trap("GET ", 401, times=1)
        assert await door.get("Namespace", space.name)


async def test_a_token_that_nobody_knows(front: ApiFront, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("unknown")
    async with door_by(front.kubeconfig_with(tokenFile=str(token))) as door:
        with pytest.raises(ApiError) as caught:
            await door.get("Namespace", "default")
        assert failure(caught) == (401, "Unauthorized")
        token.unlink()
        with pytest.raises(ApiError) as caught:
            await door.get("Namespace", "default")
        assert failure(caught) == (401, "Unauthorized")
        token.write_text(front.token)
        assert await door.get("Namespace", "default")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "clusters: nonsense", '{"current-context": "lost", "contexts": []}']
)
async def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(AccessError, match=str(path)) as caught:
        await Access.load(str(path))
    assert "--kubeconfig" in caught.value.hint


async def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AccessError):
        await Access.load(str(tmp_path / "none"))


def test_every_kind_has_its_path() -> None:
    assert KINDS["Pod"].path("ns", "p", "log") == "/api/v1/namespaces/ns/pods/p/log"
    assert KINDS["Job"].path() == "/apis/batch/v1/jobs"
    config = KINDS["AIMClusterRuntimeConfig"].path("ignored", "default")
    assert config == "/apis/aim.eai.amd.com/v1alpha1/aimclusterruntimeconfigs/default"
    assert KINDS["Job"].path("ns", "../x") == "/apis/batch/v1/namespaces/ns/jobs/..%2Fx"
