"""The operator as a program, before a real API server: what wakes it, and what ends it."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.client import Cluster, Namespace
from tests.fair_time import fair_time
from tests.operator.front import ApiFront
from tests.operator.kinds import CRDS, custom, no_kinds
from tests.operator.program import Program

PAUSED = {"aim.eai.amd.com/reconciliation-paused": "true"}
LABEL = "aim.eai.amd.com/cache.name"
SECURE = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

GRACE_S = 25.0
"""Kubernetes kills after 30."""

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def watching(kinds: Cluster, space: Namespace, tmp_path: Path) -> Iterator[Program]:
    """The operator, which has noticed all that there is in the namespace."""
    with Program(kinds.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_until_ready()
        program.wait_until_it_watches()
        yield program


@pytest.fixture
def front(kinds: Cluster, tmp_path: Path) -> Iterator[ApiFront]:
    with ApiFront(kinds, tmp_path) as front:
        yield front


def artifact(name: str, *, paused: bool = False, **spec: Any) -> dict[str, Any]:
    manifest = custom("AIMArtifact", name, {"sourceUri": "hf://org/model", **spec})
    if paused:
        manifest["metadata"]["annotations"] = PAUSED
    return manifest


def key(space: Namespace, name: str) -> str:
    return f"AIMArtifact {space.name}/{name}"


def marked(kind: str, name: str, labels: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    version = "batch/v1" if kind == "Job" else "v1"
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def pod_spec() -> dict[str, Any]:
    container = {"name": "c", "image": "none", "securityContext": SECURE}
    return {"containers": [container], "restartPolicy": "Never", "nodeSelector": {"no": "node"}}


CHILDREN: dict[str, dict[str, Any]] = {
    "PersistentVolumeClaim": {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "none-such",
    },
    "Job": {"suspend": True, "template": {"spec": pod_spec()}},
    "Pod": pod_spec(),
}


# -- what wakes it -----------------------------------------------------------------------------


def test_an_artifact_that_is_made_changed_annotated_or_deleted(
    watching: Program, space: Namespace
) -> None:
    mine = key(space, "mine")
    changes: list[Callable[[], object]] = [
        lambda: space.apply(artifact("mine", paused=True)),
        lambda: space.apply(artifact("mine", paused=True, size="1Gi")),
        lambda: space.kubectl("annotate", "aimartifact", "mine", "any=thing"),
        lambda: space.kubectl("label", "aimartifact", "mine", "any=thing"),
        lambda: space.kubectl("delete", "aimartifact", "mine"),
    ]
    for change in changes:
        since = watching.mark()
        change()
        watching.wait_for_pass(mine, since)


def test_an_object_nested_as_deep_as_the_server_takes_it_stops_nobody(
    watching: Program, space: Namespace, tmp_path: Path
) -> None:
    deep = "9" * 9
    for _ in range(5000):
        deep = f'{{"a":{deep}}}'
    spec = {"model": {"image": "registry.test/serves:1"}, "overrides": "DEEP"}
    manifest = tmp_path / "deep.json"
    text = json.dumps(custom("AIMService", "deep", spec)).replace('"DEEP"', deep)
    manifest.write_text(text, "utf-8")
    since = watching.mark()
    space.kubectl("create", "-f", str(manifest))
    watching.wait_for_pass(f"AIMService {space.name}/deep", since)
    since = watching.mark()
    space.apply(artifact("mine", paused=True))
    watching.wait_for_pass(key(space, "mine"), since)
    assert not watching.said("Recursion")
    assert not watching.said("watching has ended")


@pytest.mark.parametrize("kind", CHILDREN)
def test_a_child_wakes_its_artifact_when_it_is_made_changed_or_deleted(
    watching: Program, space: Namespace, kind: str
) -> None:
    # The artifact is not there, so that nothing but the child can be why.
    name = f"of-{kind.lower()}"
    since = watching.mark()
    space.apply(marked(kind, name, {LABEL: name}, CHILDREN[kind]))
    watching.wait_for_pass(key(space, name), since)
    since = watching.mark()
    space.kubectl("annotate", kind, name, "any=thing")
    watching.wait_for_pass(key(space, name), since)
    since = watching.mark()
    space.kubectl("delete", kind, name, "--wait=false")
    watching.wait_for_pass(key(space, name), since)


def test_a_childs_owner_counts_where_its_label_is_cut(watching: Program, space: Namespace) -> None:
    long = "a-name-of-many-words-" * 4 + "which-no-label-can-hold"
    space.apply(artifact(long, paused=True))
    uid = space.get("aimartifact", long)["metadata"]["uid"]
    claim = marked("PersistentVolumeClaim", "cut", {LABEL: long[:63].strip("-")}, {})
    claim["spec"] = CHILDREN["PersistentVolumeClaim"]
    owner = {"apiVersion": "aim.eai.amd.com/v1alpha1", "kind": "AIMArtifact", "name": long}
    claim["metadata"]["ownerReferences"] = [{**owner, "uid": uid, "controller": True}]
    watching.wait_for_pass(key(space, long))
    since = watching.mark()
    space.apply(claim)
    watching.wait_for_pass(key(space, long), since)


def test_what_has_no_mark_of_ours_and_what_pods_tell_in_a_status_wakes_nobody(
    watching: Program, space: Namespace
) -> None:
    space.apply(artifact("told", paused=True))
    watching.wait_for_pass(key(space, "told"))
    since = watching.mark()
    space.apply(marked("Pod", "strange", {"app": "other"}, pod_spec()))
    patch = ["--subresource=status", "--type=merge", "-p"]
    progress = json.dumps({"status": {"progress": {"percentage": 7}}})
    space.kubectl("patch", "aimartifact", "told", *patch, progress)
    # What comes later is noticed, so the others would have been.
    for fence in ("Pod", "PersistentVolumeClaim"):
        space.apply(
            marked(fence, f"fence-{fence.lower()}", {LABEL: "fence"}, {})
            | {"spec": CHILDREN[fence]}
        )
    space.apply(artifact("later", paused=True))
    watching.wait_for_pass(key(space, "fence"), since)
    watching.wait_for_pass(key(space, "later"), since)
    assert not watching.passes(key(space, "told"), since)
    assert not watching.passes(key(space, "strange"))


def test_a_runtime_config_wakes_those_who_follow_it(watching: Program, space: Namespace) -> None:
    space.apply(
        artifact("by-default", paused=True),
        artifact("by-name", paused=True, runtimeConfigName="special"),
        artifact("by-empty-name", paused=True, runtimeConfigName=""),
    )
    names = ("by-default", "by-name", "by-empty-name")
    for name in names:
        watching.wait_for_pass(key(space, name))
    for config, followers in (("special", {"by-name"}), ("default", set(names) - {"by-name"})):
        since = watching.mark()
        space.apply(custom("AIMRuntimeConfig", config, {}))
        for name in followers:
            watching.wait_for_pass(key(space, name), since)
        woken = {name for name in names if watching.passes(key(space, name), since)}
        assert woken == followers


def test_a_cluster_runtime_config_wakes_those_who_follow_it_in_the_namespaces_that_are_ours(
    kinds: Cluster, watching: Program, space: Namespace
) -> None:
    name = f"wide-{space.name}"
    with kinds.namespace() as another:
        for place in (another, space):
            place.apply(artifact("wide", paused=True, runtimeConfigName=name))
        watching.wait_for_pass(key(space, "wide"))
        since = watching.mark()
        space.apply(custom("AIMClusterRuntimeConfig", name, {}))
        try:
            watching.wait_for_pass(key(space, "wide"), since)
            since = watching.mark()
        finally:
            space.kubectl("delete", "aimclusterruntimeconfig", name)
        watching.wait_for_pass(key(space, "wide"), since)
        assert not watching.passes(key(another, "wide"))


# -- what it leaves alone ----------------------------------------------------------------------


def test_what_is_paused_is_left_alone_until_it_is_not_and_nothing_bears_a_mark_of_kopfs(
    kinds: Cluster, space: Namespace, tmp_path: Path
) -> None:
    space.apply(artifact("model", paused=True), custom("AIMRuntimeConfig", "default", {}))
    with Program(kinds.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_for_pass(key(space, "model"))
        since = program.mark()
        space.kubectl("annotate", "aimartifact", "model", "any=thing")
        program.wait_for_pass(key(space, "model"), since)
        assert space.listed("jobs") == []
        assert "status" not in space.get("aimartifact", "model")
        space.kubectl("annotate", "aimartifact", "model", f"{next(iter(PAUSED))}-")
        jobs = program.wait_for(lambda: space.listed("jobs"), what="a Job")
        program.wait_for(lambda: "status" in space.get("aimartifact", "model"), what="a status")
        # More is made than the Job; it is told of, too.
        objects = [*jobs, *space.listed("aimartifacts"), *space.listed("aimruntimeconfigs")]
    assert {each["kind"] for each in objects} == {"Job", "AIMArtifact", "AIMRuntimeConfig"}
    for each in objects:
        assert "kopf" not in json.dumps(each).lower(), each
        if each["kind"] != "Job":
            assert not each["metadata"].get("finalizers")
    assert not [event for event in space.listed("events") if "kopf" in json.dumps(event).lower()]


def test_namespaces_that_were_not_named_are_left_alone(
    kinds: Cluster, space: Namespace, tmp_path: Path
) -> None:
    with (
        kinds.namespace() as named,
        kinds.namespace() as second,
        Program(
            kinds.kubeconfig, tmp_path, "--namespaces", f"{named.name}, {second.name}"
        ) as program,
    ):
        program.wait_until_it_watches()
        for each in (space, named, second):
            each.apply(artifact("model", paused=True))
        program.wait_for_pass(key(named, "model"))
        program.wait_for_pass(key(second, "model"))
        assert not program.passes(key(space, "model"))
        assert space.name not in program.text()


def test_kinds_that_are_switched_off_are_not_even_watched(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    space.apply(artifact("model"))
    flags = ("--kinds", "none", "--namespaces", space.name, "--resync", "1")
    with Program(front.kubeconfig, tmp_path, *flags) as program:
        program.wait_until_ready()
        looks = len(front.seen("GET /apis/aim.eai.amd.com/v1alpha1"))
        program.wait_for(
            lambda: len(front.seen("GET /apis/aim.eai.amd.com/v1alpha1")) > looks, what="a look"
        )
        assert program.said("looking after nothing")
        assert not program.said("a pass begins")
        groups = ("aim.eai.amd.com/v1alpha1", "serving.kserve.io/v1beta1")
        assert {line.split("?")[0] for line in front.requests} == {
            f"GET /apis/{group}" for group in groups
        }


def test_no_secret_is_read_and_children_are_chosen_at_the_server(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    with Program(front.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_until_it_watches()
        space.apply(artifact("model", env=[{"name": "HF_TOKEN", "value": "hf_of_somebody"}]))
        program.wait_for(lambda: space.listed("jobs"), what="a Job")
        program.wait_for(lambda: front.watching >= 6, what="watches")
        assert "hf_of_somebody" not in program.text()
    assert not [line for line in front.requests if "secret" in line.lower()]
    watches = [line for line in front.requests if "watch=true" in line]
    for plural in ("pods", "persistentvolumeclaims", "jobs"):
        assert all("labelSelector=" in line for line in watches if f"/{plural}?" in line)
    # Roles need not allow to look at what the operator knows already.
    assert not front.seen("customresourcedefinitions")
    assert not front.seen("/api/v1/namespaces?")


# -- probes, beginning and end -----------------------------------------------------------------


def test_probes_are_answered(watching: Program) -> None:
    assert watching.probe("/healthz")[0] == 200
    assert watching.probe("/readyz") == (200, "ready\n")
    assert watching.probe("/anything")[0] == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_soon_and_well(
    kinds: Cluster, space: Namespace, tmp_path: Path, number: signal.Signals
) -> None:
    with Program(kinds.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_until_it_watches()
        begun = fair_time()
        assert program.end_by(number) == 0
        assert fair_time() - begun < GRACE_S
        assert "Traceback" not in program.text()
        assert program.said("asked to end")


def test_killed_and_started_again_it_goes_on(
    kinds: Cluster, space: Namespace, tmp_path: Path
) -> None:
    space.apply(artifact("model"))
    with Program(kinds.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        jobs = program.wait_for(lambda: space.listed("jobs"), what="a Job")
        program.process.kill()
    space.apply(artifact("meanwhile", paused=True))
    with Program(kinds.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_for_pass(key(space, "meanwhile"))
        program.wait_for_pass(key(space, "model"))
        program.wait_for(lambda: "status" in space.get("aimartifact", "model"), what="a status")
        uids = [each["metadata"]["uid"] for each in space.listed("jobs")]
        assert uids == [each["metadata"]["uid"] for each in jobs]


def test_without_our_kinds_it_says_so_once_and_waits_for_them(
    control_plane: Cluster, tmp_path: Path
) -> None:
    with (
        no_kinds(control_plane) as space,
        Program(
            control_plane.kubeconfig, tmp_path, "--resync", "1", "--namespaces", space.name
        ) as program,
    ):
        program.wait_for(lambda: program.said("AIMArtifact", "warning"), what="a warning")
        time.sleep(2.5)  # two looks more
        assert len(program.troubles()) == 1
        assert program.probe("/readyz")[0] == 503
        assert program.probe("/healthz")[0] == 200
        control_plane.kubectl("apply", "-f", str(CRDS))
        program.wait_until_ready()
        program.wait_until_it_watches()
        space.apply(artifact("model", paused=True))
        program.wait_for_pass(key(space, "model"))


# -- bad days ----------------------------------------------------------------------------------


def test_watches_that_are_cut_are_taken_up_again_and_nothing_is_missed(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    flags = ("--namespaces", space.name, "--kinds", "AIMArtifact")
    with Program(front.kubeconfig, tmp_path, *flags) as program:
        # Who has not heard the beginning of an answer has a request that failed, and says so.
        program.wait_for(lambda: begun(program) == 6, what="watches")
        assert front.cut_watches() == 6
        space.apply(artifact("while-it-was-cut", paused=True))
        program.wait_for_pass(key(space, "while-it-was-cut"))
        assert not program.troubles()


def begun(program: Program) -> int:
    """How many watches have heard the beginning of their answers."""
    counted = r'api_requests_total\{code="200",kind="\w+",verb="watch"\} (\d+)'
    return sum(map(int, re.findall(counted, program.probe("/metrics")[1])))


def test_an_api_server_that_is_gone_for_a_while(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    flags = ("--namespaces", space.name, "--resync", "1")
    with Program(front.kubeconfig, tmp_path, *flags) as program:
        program.wait_until_ready()
        front.go_down()
        program.wait_for(lambda: program.said("out of reach", "warning"), what="a warning")
        assert program.probe("/readyz")[0] == 503
        assert program.probe("/healthz")[0] == 200
        space.apply(artifact("meanwhile", paused=True))
        time.sleep(3)  # several looks more
        troubles = [line for line in program.lines() if line["level"] != "debug"]
        assert len([line for line in troubles if "out of reach" in line["message"]]) == 1
        # In the words of each way in which a connection ends, and not for each watch.
        assert len([line for line in troubles if "watching is tried again" in line["message"]]) < 6
        front.come_up()
        program.wait_for_pass(key(space, "meanwhile"))
        program.wait_until_ready()


def test_it_begins_while_the_api_server_is_gone(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    kubeconfig = front.kubeconfig
    front.go_down()
    space.apply(artifact("model", paused=True))
    flags = ("--namespaces", space.name, "--resync", "1")
    with Program(kubeconfig, tmp_path, *flags) as program:
        program.wait_for(lambda: program.said("out of reach", "warning"), what="a warning")
        front.come_up()
        program.wait_for_pass(key(space, "model"))


def test_a_pass_that_fails_is_told_once_with_the_objects_name_and_tried_again(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    body = '{"reason": "InternalError", "message": "no leader"}'
    trap = front.trap(f"GET /apis/batch/v1/namespaces/{space.name}/jobs/", 500, body)
    space.apply(artifact("model"))
    with Program(front.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_for(lambda: program.passes(key(space, "model")) >= 3, what="three passes")
        [told] = program.said("no leader", "warning")
        assert told["object"] == key(space, "model")
        assert "cannot get Job" in told["message"]
        assert "Traceback" not in program.text()
        front.release(trap)
        program.wait_for(lambda: space.listed("jobs"), what="a Job")
        program.wait_for(lambda: program.said("all is well again"), what="relief")


def test_who_may_not_watch_is_told_so_and_goes_on_trying(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    body = json.dumps({"kind": "Status", "code": 403, "message": "pods is forbidden"})
    trap = front.trap(f"/namespaces/{space.name}/pods?", 403, body)
    with Program(front.kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_for(lambda: program.said("pods is forbidden", "error"), what="the reason")
        front.release(trap)
        program.wait_for(lambda: front.seen("pods?allow") or front.seen("watch=true"))
        since = program.mark()
        space.apply(marked("Pod", "one", {LABEL: "later"}, pod_spec()))
        program.wait_for_pass(key(space, "later"), since)


def test_a_token_that_the_watches_are_refused_with_is_read_again(
    front: ApiFront, space: Namespace, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(front.token)
    kubeconfig = front.kubeconfig_with(tokenFile=str(token))
    with Program(kubeconfig, tmp_path, "--namespaces", space.name) as program:
        program.wait_for(lambda: front.watching >= 6, what="watches")
        # The server no longer knows it, and there is no other for a while.
        trap = front.trap("", 401, '{"code": 401, "message": "expired"}')
        token.unlink()
        refused = len(front.requests)
        front.cut_watches()
        program.wait_for(lambda: len(front.requests) >= refused + 6, what="refusals")
        front.release(trap)
        token.write_text(front.token)
        space.apply(artifact("later", paused=True))
        program.wait_for_pass(key(space, "later"))
        assert not [line for line in program.lines() if "Traceback" in str(line)]
