"""Bad days on a real node: each has a state, a reason, words that help, and a way back to Ready.

All begin at the same time, as most of a bad day is waiting. What has no test here, and why: pods
that a level of pod security refuses (ours meet the strictest; a policy stands for it); the node
itself going (all tests share it: test_nodes has one that is made up).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.cluster.client import Namespace
from tests.cluster.hub import hub_for_pods
from tests.cluster.programs import program
from tests.cluster.volumes import FIXED, FOLDERS, ONE_NODE, SMALL, WAITING, storage_class
from tests.hub import HubServer
from tests.images.build import DOWNLOADER, OPERATOR
from tests.images.need import need_image
from tests.operator.helm import Helm
from tests.operator.kinds import our_kinds
from tests.operator.platform import READY_S, Platform, conditions, installed, message
from tests.operator.registry import PASSWORD, USER, Registry, registry_for_node

# The cluster and the images may have to be made first.
pytestmark = pytest.mark.timeout(900)

MIB = 1024 * 1024
MODEL = "org/model"
WEIGHTS = random.Random(8).randbytes(12 * MIB)
SMALL_MODEL = {"model.safetensors": WEIGHTS[: 2 * MIB]}
KEPT, KEPT_MODEL = "org/kept", {"kept.safetensors": WEIGHTS[: 2 * MIB]}
# What has more than a Gi does not fit onto the smallest claim.
LARGE, LARGE_BYTES = "org/large", 1100 * MIB
DISTURBED_AT = 5 * MIB
"""Of a download that is slow, so much has come when it is disturbed."""
OURS, OF_ARTIFACT = "aim.test/of", "aim.eai.amd.com/cache.name"
POLICY, BINDING = "validatingadmissionpolicy", "validatingadmissionpolicybinding"
PARTS = ("RuntimeConfigReady", "CachePvcReady", "DownloadJobReady", "DownloadJobPodsReady")

Object = dict[str, Any]


# -- the stage ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Where all of it happens."""

    platform: Platform
    poor: Platform
    """A namespace whose quota allows no pods."""
    limited: Platform
    """A namespace whose containers may have little memory."""
    slow: HubServer
    registry: Registry
    seen: Path
    """Each state that an artifact was ever in: name, status, state of its Job."""

    def states(self, name: str) -> list[tuple[str, str]]:
        """The status, and what is said of the download Job, as often as either changed."""
        rows = [line.split("|") for line in self.seen.read_text("utf-8").splitlines()]
        # The last one may be half written.
        found = [(row[1], row[2].strip()) for row in rows if len(row) == 3 and row[0] == name]
        assert found
        return found


@pytest.fixture(scope="module")
def stage(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("bad-days")
    for recipe in (OPERATOR, DOWNLOADER):
        cluster.import_image(need_image(recipe).archive)
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(our_kinds(cluster))
        operators, main, poor, limited = (enter(cluster.namespace()) for _ in range(4))
        hub = enter(hub_for_pods(cluster, {MODEL: SMALL_MODEL}, None))
        hub.add_repo(KEPT, KEPT_MODEL)
        hub.add_repo(LARGE, {"large.safetensors": sparse(folder / "large", LARGE_BYTES)})
        slow = {f"org/{name}": {f"{name}.safetensors": WEIGHTS} for name in SLOW}
        stage = Stage(
            Platform(main, operators, hub),
            Platform(poor, operators, hub),
            Platform(limited, operators, hub),
            enter(hub_for_pods(cluster, slow, None)),
            enter(registry_for_node(cluster, need_image(DOWNLOADER).archive)),
            folder / "seen",
        )
        stage.slow.pace(len(SLOW) * 0.2 * MIB)
        enter(cleared(main))
        prepare(stage)
        enter(watched(main, stage.seen))
        enter(installed(Helm(folder), operators, main, poor, limited))
        begin(stage)
        yield stage


@contextmanager
def cleared(main: Namespace) -> Iterator[None]:
    """What the tests have made that is in no namespace goes again; it bears the name of theirs."""
    try:
        yield
    finally:
        kinds = f"storageclass,{POLICY},{BINDING}"
        main.cluster.kubectl("delete", kinds, "-l", f"{OURS}={main.name}")


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as opened:
        opened.truncate(size)
    return path


def prepare(stage: Stage) -> None:
    for platform in (stage.platform, stage.poor, stage.limited):
        platform.configure("default")
    stage.platform.configure("unclassed", storage="")
    # By which each MiB is on the volume as soon as it has come.
    in_turn = {"name": "AIM_DOWNLOADER_PROTOCOL", "value": "HTTP"}
    replace(stage.platform, hub=stage.slow).configure("slow", in_turn)
    stage.poor.namespace.kubectl("create", "quota", "none", "--hard=pods=0")
    limit = {"type": "Container", "max": {"memory": "256Mi"}}
    stage.platform.namespace.cluster.apply(
        of_these_tests(stage, storage_class(elsewhere(stage), waits=True, only_on="elsewhere")),
        *(of_these_tests(stage, each) for each in policy(stage)),
    )
    stage.limited.namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "little"},
            "spec": {"limits": [limit]},
        }
    )


@contextmanager
def watched(namespace: Namespace, to: Path) -> Iterator[None]:
    """Writes down each state of each artifact."""
    job = '.status.conditions[?(@.type=="DownloadJobReady")].reason'
    # Not tabs, of which columns would be made.
    row = f'{{.metadata.name}}|{{.status.status}}|{{{job}}}{{"\\n"}}'
    command = [program("kubectl"), "get", "aimartifacts", "--watch", "-o", f"jsonpath={row}"]
    environment = {"KUBECONFIG": str(namespace.cluster.kubeconfig), "HOME": str(to.parent)}
    with (
        to.open("wb") as out,
        subprocess.Popen([*command, "-n", namespace.name], env=environment, stdout=out) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def late_class(stage: Stage) -> str:
    """A storage class that nobody has made yet."""
    return f"late-{stage.platform.namespace.name}"


def elsewhere(stage: Stage) -> str:
    """A storage class whose volumes are on nodes that are not there."""
    return f"elsewhere-{stage.platform.namespace.name}"


def policy(stage: Stage) -> tuple[Object, Object]:
    """A policy that refuses the pods of one artifact, and what puts it in force."""
    name = f"policy-{stage.platform.namespace.name}"
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"]}
    of_it = f"object.metadata.?labels[?'{OF_ARTIFACT}'].orValue('') != 'policy'"
    refuses = {
        "matchConstraints": {"resourceRules": [{**pods, "resources": ["pods"]}]},
        "validations": [{"expression": of_it, "message": "pods need a label team"}],
    }
    here = {"matchLabels": {"kubernetes.io/metadata.name": stage.platform.namespace.name}}
    in_force = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": here},
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    return (
        {**kind, "kind": "ValidatingAdmissionPolicy", "spec": refuses},
        {**kind, "kind": "ValidatingAdmissionPolicyBinding", "spec": in_force},
    )


def of_these_tests(stage: Stage, object_: Mapping[str, Any]) -> Object:
    """The same, with the label by which it is found again."""
    labels = {OURS: stage.platform.namespace.name}
    return {**object_, "metadata": {**object_["metadata"], "labels": labels}}


# -- days on which nothing starts --------------------------------------------------------------


@dataclass(frozen=True)
class Day:
    """What is wrong with an artifact, what is told of it, and what helps."""

    spec: Callable[[Stage], Object]
    status: str
    reason: str
    """Of Ready."""
    part: tuple[str, str]
    """The condition that is to blame, and its reason; which is the event's, too."""
    words: Sequence[str]
    """What the message names, and what it advises."""
    cure: Callable[[Stage, str], object]
    where: Callable[[Stage], Platform] = lambda stage: stage.platform


PODS, CLAIM = "DownloadJobPodsReady", "CachePvcReady"


def patch(**spec: object) -> Callable[[Stage, str], object]:
    """Corrects the spec."""

    def correct(stage: Stage, name: str) -> None:
        change = json.dumps({"spec": spec})
        stage.platform.namespace.kubectl("patch", "aimart", name, "--type=merge", "-p", change)

    return correct


def put_claim_aside(stage: Stage, name: str) -> None:
    claim = stage.platform.artifact(name)["status"]["persistentVolumeClaim"]
    stage.platform.namespace.kubectl("delete", "pvc", claim, "--timeout=150s")


def both(*cures: Callable[[Stage, str], object]) -> Callable[[Stage, str], object]:
    return lambda stage, name: [cure(stage, name) for cure in cures]


def give_password(stage: Stage, name: str) -> None:
    login = ("--docker-username", USER, "--docker-password", PASSWORD)
    server = ("--docker-server", stage.registry.address)
    stage.platform.namespace.kubectl(
        "create", "secret", "docker-registry", "login", *server, *login
    )
    patch(imagePullSecrets=[{"name": "login"}])(stage, name)


def make_secret(stage: Stage, name: str) -> None:
    stage.platform.namespace.kubectl("create", "secret", "generic", name, "--from-literal=token=x")


def make_class(stage: Stage, name: str) -> None:
    made = of_these_tests(stage, storage_class(late_class(stage)))
    stage.platform.namespace.cluster.apply(made)


def lift_policy(stage: Stage, name: str) -> None:
    binding = policy(stage)[1]["metadata"]["name"]
    stage.platform.namespace.cluster.kubectl("delete", BINDING, binding)


def annotate(**values: str) -> Callable[[Stage, str], object]:
    words = [f"aim.eai.amd.com/{name.replace('_', '-')}={value}" for name, value in values.items()]
    return lambda stage, name: stage.platform.namespace.kubectl("annotate", "aimart", name, *words)


def of_secret(name: str) -> Object:
    return {"name": "SOME", "valueFrom": {"secretKeyRef": {"name": name, "key": "token"}}}


MODEST = {"limits": {"memory": "200Mi"}, "requests": {"cpu": "10m", "memory": "64Mi"}}
GREEDY = {"requests": {"cpu": "500"}}

DAYS: Mapping[str, Day] = {
    "image-missing": Day(
        lambda stage: {"modelDownloadImage": stage.registry.absent},
        "Failed",
        "ReferenceNotFound",
        (PODS, "ImageNotFound"),
        ("downloader:typo", "correct spec.modelDownloadImage"),
        patch(modelDownloadImage=DOWNLOADER.name),
    ),
    "image-private": Day(
        lambda stage: {"modelDownloadImage": stage.registry.image},
        "Failed",
        "AuthError",
        (PODS, "ImagePullAuthFailure"),
        ("spec.imagePullSecrets",),
        give_password,
    ),
    "registry-away": Day(
        lambda _: {"modelDownloadImage": "127.0.0.1:1/aim/downloader:1"},
        "Degraded",
        "InfrastructureError",
        (PODS, "ImagePullBackOff"),
        ("connection refused", "reaches the registry"),
        patch(modelDownloadImage=DOWNLOADER.name),
    ),
    "secret-missing": Day(
        lambda _: {"env": [of_secret("secret-missing")]},
        "Failed",
        "ReferenceNotFound",
        (PODS, "CreateContainerConfigError"),
        ("Secret 'secret-missing' does not exist", "create it in this namespace"),
        make_secret,
    ),
    "no-room": Day(
        lambda _: {"resources": GREEDY},
        "Pending",
        "Progressing",
        (PODS, "FailedScheduling"),
        ("Insufficient cpu", "ask for less"),
        patch(resources=MODEST),
    ),
    "class-missing": Day(
        lambda stage: {"storageClassName": late_class(stage)},
        "Pending",
        "StorageClassNotFound",
        (CLAIM, "StorageClassNotFound"),
        ("late-test-", "create that class"),
        make_class,
    ),
    "class-none": Day(
        lambda _: {"runtimeConfigName": "unclassed"},
        "Pending",
        "NoDefaultStorageClass",
        (CLAIM, "NoDefaultStorageClass"),
        ("spec.storageClassName", "kubectl delete pvc"),
        both(patch(storageClassName=FOLDERS), put_claim_aside),
    ),
    "class-refuses": Day(
        lambda _: {"storageClassName": ONE_NODE},
        "Pending",
        "PvcProvisioningFailed",
        (CLAIM, "PvcProvisioningFailed"),
        ("ReadWriteOnce alone", "aim.eai.amd.com/access-mode"),
        both(annotate(access_mode="ReadWriteOnce"), put_claim_aside),
    ),
    # As most clouds are: nothing is made, nor refused, before the first pod has a node.
    "class-waits": Day(
        lambda _: {"storageClassName": WAITING},
        "Pending",
        "PvcProvisioningFailed",
        (CLAIM, "PvcProvisioningFailed"),
        ("ReadWriteOnce alone", "aim.eai.amd.com/access-mode"),
        both(annotate(access_mode="ReadWriteOnce"), put_claim_aside),
    ),
    "volume-elsewhere": Day(
        lambda stage: {"storageClassName": elsewhere(stage)},
        "Pending",
        "Progressing",
        (PODS, "FailedScheduling"),
        ("available persistent volumes to bind", "no node can have a volume of its class"),
        both(patch(storageClassName=FOLDERS), put_claim_aside),
    ),
    "policy": Day(
        lambda _: {},
        "Degraded",
        "InfrastructureError",
        (PODS, "FailedCreate"),
        ("pods need a label team", "see what that policy asks for"),
        lift_policy,
    ),
    "quota": Day(
        lambda _: {},
        "Pending",
        "Progressing",
        (PODS, "FailedCreate"),
        ("exceeded quota: none",),
        lambda stage, _: stage.poor.namespace.kubectl("delete", "quota", "none"),
        lambda stage: stage.poor,
    ),
    "limits": Day(
        lambda _: {},
        "Degraded",
        "InfrastructureError",
        (PODS, "FailedCreate"),
        ("maximum memory usage per Container is 256Mi", "aim.eai.amd.com/resources"),
        lambda stage, name: patch(resources=MODEST)(replace(stage, platform=stage.limited), name),
        lambda stage: stage.limited,
    ),
}


# -- days on which a download is disturbed -----------------------------------------------------


def delete_job(stage: Stage, name: str) -> None:
    stage.platform.namespace.kubectl("delete", job_of(stage, name), "--wait=false")


def evict(stage: Stage, name: str) -> None:
    namespace, pod = stage.platform.namespace, pod_of(stage, name)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace.name},
    }
    where = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", "--raw", where, "-f", "-", input=json.dumps(eviction))


def lose_node(stage: Stage, name: str) -> None:
    how = ("--force", "--grace-period=0", "--wait=false")
    stage.platform.namespace.kubectl("delete", "pod", pod_of(stage, name), *how)


def set_deadline(stage: Stage, name: str) -> None:
    change = json.dumps({"spec": {"activeDeadlineSeconds": 1}})
    stage.platform.namespace.kubectl("patch", job_of(stage, name), "-p", change)


def fill(stage: Stage, name: str) -> None:
    """Somebody else's file takes all the room that there is."""
    with (stage.platform.volume(name) / "of-somebody-else").open("wb", buffering=0) as opened:
        room = os.statvfs(opened.fileno())
        os.posix_fallocate(opened.fileno(), 0, (room.f_bavail - 64) * room.f_frsize)
        opened.seek(0, os.SEEK_END)
        try:
            while opened.write(bytes(4096)):
                pass
        except OSError:
            return


def job_of(stage: Stage, name: str) -> str:
    label = f"aim.eai.amd.com/cache.name={name},aim.eai.amd.com/component=download"
    found = stage.platform.namespace.kubectl("get", "jobs", "-l", label, "-o", "name")
    return found.strip()


def pod_of(stage: Stage, name: str) -> str:
    job = job_of(stage, name).partition("/")[2]
    pod: str = stage.platform.namespace.pods_of(job)[-1]["metadata"]["name"]
    return pod


SLOW: Mapping[str, tuple[Callable[[Stage, str], None], Object]] = {
    "job-deleted": (delete_job, {}),
    "evicted": (evict, {}),
    "node-lost": (lose_node, {}),
    "too-late": (set_deadline, {}),
    "full-grows": (fill, {"storageClassName": SMALL}),
    "full-waiting": (fill, {"storageClassName": WAITING, "accessMode": "ReadWriteOnce"}),
    "full-fixed": (fill, {"storageClassName": FIXED}),
}
"""What is done to each, in the midst of its download; and its spec."""


def begin(stage: Stage) -> None:
    """All of them."""
    small = {"size": "2Mi"}
    for name, (_, spec) in SLOW.items():
        stage.platform.create(
            name, f"hf://org/{name}", size="12Mi", runtimeConfigName="slow", **spec
        )
    for name, day in DAYS.items():
        day.where(stage).create(name, f"hf://{MODEL}", **small, **day.spec(stage))
    stage.platform.create("oom", f"hf://{MODEL}", **small, resources={"limits": {"memory": "24Mi"}})
    stage.platform.create("claim-lost", f"hf://{KEPT}", **small)
    stage.platform.create("claim-deleted", f"hf://{MODEL}", **small)
    # It says less than it has.
    stage.platform.create("size-wrong", f"hf://{LARGE}", size="900Mi", storageClassName=SMALL)


# -- what is seen ------------------------------------------------------------------------------


def events(platform: Platform, name: str) -> dict[str, str]:
    """Kind of each reason that was told of an artifact."""
    chosen = f"involvedObject.name={name},involvedObject.kind=AIMArtifact"
    found = platform.namespace.kubectl("get", "events", "--field-selector", chosen, "-o", "json")
    return {each["reason"]: each["type"] for each in json.loads(found)["items"]}


def wait_for_event(platform: Platform, name: str, reason: str, kind: str = "Warning") -> None:
    # It is written after the status.
    platform.namespace.cluster.wait_for(
        lambda: events(platform, name).get(reason) == kind,
        timeout=90,
        what=f"{name} has the event {reason}: {events(platform, name)}",
    )


def assert_ready(platform: Platform, name: str, files: Mapping[str, bytes]) -> Object:
    """It is Ready, of a model that is there, and nothing is left of what was wrong."""
    ready = platform.wait_for(name, "Ready")
    folder = platform.volume(name)
    found = {path: sha256((folder / path).read_bytes()) for path in files}
    assert found == {path: sha256(data) for path, data in files.items()}
    doubtful = {"SizeValid"}
    false = {kind for kind, (status, _) in conditions(ready).items() if status != "True"}
    assert false <= doubtful, ready["status"]["conditions"]
    return ready


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def slow_model(name: str) -> dict[str, bytes]:
    return {f"{name}.safetensors": WEIGHTS}


def attempts(artifact: Object) -> int:
    """So many failures are counted."""
    noted = artifact["metadata"].get("annotations", {}).get("aim.eai.amd.com/retry-state")
    return json.loads(noted)["attempts"] if noted else 0


@pytest.fixture(scope="module")
def disturbed(stage: Stage) -> Stage:
    """Each slow download has been disturbed, and they are slow no longer."""
    left = dict(SLOW)
    deadline = time.monotonic() + READY_S
    while left:
        assert time.monotonic() < deadline, left
        for name in list(left):
            if stage.slow.bytes_sent(f"{name}.safetensors") >= DISTURBED_AT:
                disturb, _ = left.pop(name)
                disturb(stage, name)
        time.sleep(0.2)
    stage.slow.pace(None)
    return stage


@pytest.fixture(scope="module")
def cured(stage: Stage) -> Stage:
    """What was wrong has been corrected, for all of them at the same time."""
    for name, day in DAYS.items():
        day.cure(stage, name)
    return stage


# -- the tests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["job-deleted", "evicted", "node-lost"])
def test_a_download_goes_on_when_its_pod_is_taken_away(disturbed: Stage, name: str) -> None:
    ready = assert_ready(disturbed.platform, name, slow_model(name))
    # Degraded, as long as the pod that is taken away is still there.
    went = {status for status, _ in disturbed.states(name)}
    assert went <= {"", "Progressing", "Degraded", "Ready"}
    # A pod may be gone before anybody has looked; see test_nodes for what is told of one.
    if name == "job-deleted":
        wait_for_event(disturbed.platform, name, "JobLost")
    assert attempts(ready) == 0
    assert disturbed.slow.bytes_sent(f"{name}.safetensors") < 1.5 * len(WEIGHTS)


@pytest.mark.parametrize("name", ["full-grows", "full-waiting"])
def test_a_volume_that_is_full_grows(disturbed: Stage, name: str) -> None:
    platform = disturbed.platform
    ready = assert_ready(platform, name, slow_model(name))
    assert {status for status, _ in disturbed.states(name)} <= {"", "Progressing", "Ready"}
    assert ready["status"]["allocatedSize"] == "2Gi"
    claim = platform.namespace.get("pvc", ready["status"]["persistentVolumeClaim"])
    assert claim["status"]["capacity"]["storage"] == "2Gi"
    # What had come before is not fetched again.
    assert disturbed.slow.bytes_sent(f"{name}.safetensors") < 1.5 * len(WEIGHTS)
    assert (platform.volume(name) / "of-somebody-else").exists()


def test_a_volume_that_is_full_and_cannot_grow(disturbed: Stage) -> None:
    name, platform = "full-fixed", disturbed.platform
    failed = platform.wait_for(name, "Failed")
    assert conditions(failed)["Ready"] == ("False", "StorageFull")
    assert conditions(failed)[PODS] == ("False", "StorageFull")
    assert conditions(failed)[CLAIM] == ("False", "ExpansionNotAllowed")
    for words in ("allowVolumeExpansion", "kubectl delete pvc", FIXED):
        assert words in message(failed)
    wait_for_event(platform, name, "ExpansionNotAllowed")
    patch(size="1500Mi")(disturbed, name)
    put_claim_aside(disturbed, name)
    assert_ready(platform, name, slow_model(name))


def test_a_job_with_a_deadline(disturbed: Stage) -> None:
    name, platform = "too-late", disturbed.platform
    # For a minute; the tests before this one may take longer.
    over = ("Failed", "JobDeadlineExceeded")
    platform.namespace.cluster.wait_for(lambda: over in disturbed.states(name), READY_S)
    wait_for_event(platform, name, "JobDeadlineExceeded")
    assert "it is tried again at" in platform.namespace.kubectl("describe", "aimart", name)
    annotate(retry="now")(disturbed, name)
    assert_ready(platform, name, slow_model(name))
    assert disturbed.slow.bytes_sent(f"{name}.safetensors") < 1.5 * len(WEIGHTS)


@pytest.mark.parametrize("name", DAYS)
def test_what_hinders_it_is_told(stage: Stage, name: str) -> None:
    day = DAYS[name]
    platform = day.where(stage)
    if name == "class-none" and has_default_class(stage):
        pytest.skip("this cluster has a default storage class")

    def says_so(artifact: Object) -> bool:
        return bool(artifact.get("status")) and conditions(artifact).get(day.part[0]) == (
            "False",
            day.part[1],
        )

    told = platform.wait_until(name, says_so, f"{name}: {day.part}")
    assert told["status"]["status"] == day.status
    assert conditions(told)["Ready"] == ("False", day.reason)
    for words in day.words:
        assert words in message(told)
    assert attempts(told) == 0
    wait_for_event(platform, name, day.part[1])


def has_default_class(stage: Stage) -> bool:
    classes = stage.platform.namespace.cluster.listed("storageclasses")
    mark = "storageclass.kubernetes.io/is-default-class"
    return any(each["metadata"].get("annotations", {}).get(mark) == "true" for each in classes)


def test_a_limit_that_is_too_low(stage: Stage) -> None:
    failed = stage.platform.wait_for("oom", "Failed")
    assert conditions(failed)["Ready"] == ("False", "PodOOMKilled")
    assert conditions(failed)[PODS] == ("False", "PodOOMKilled")
    assert "raise its memory limit" in message(failed)
    # It is no failure before the Job has given up.
    over = {job for status, job in stage.states("oom") if status == "Failed"}
    assert over == {"JobBackoffLimitExceeded"}
    wait_for_event(stage.platform, "oom", "Retrying")
    wait_for_event(stage.platform, "oom", "PodOOMKilled")
    patch(resources=MODEST)(stage, "oom")
    assert_ready(stage.platform, "oom", SMALL_MODEL)


@pytest.mark.parametrize("name", DAYS)
def test_once_it_is_corrected_the_model_comes(cured: Stage, name: str) -> None:
    assert_ready(DAYS[name].where(cured), name, SMALL_MODEL)


def test_a_size_that_says_too_little(stage: Stage) -> None:
    ready = stage.platform.wait_for("size-wrong", "Ready")
    assert ready["status"]["allocatedSize"] == "2Gi"
    assert conditions(ready)["SizeValid"] == ("False", "SizeMismatch")
    assert "spec.size says 900 MiB, and the model has 1.1 GiB" in message(ready, "SizeValid")
    wait_for_event(stage.platform, "size-wrong", "SizeMismatch")
    assert "Failed" not in {status for status, _ in stage.states("size-wrong")}
    file = stage.platform.volume("size-wrong") / "large.safetensors"
    assert file.stat().st_size == LARGE_BYTES
    assert stage.platform.hub.bytes_sent("large.safetensors") < 1.1 * LARGE_BYTES


def test_a_model_whose_volume_goes_and_comes_back(stage: Stage) -> None:
    name, platform = "claim-lost", stage.platform
    ready = assert_ready(platform, name, KEPT_MODEL)
    cluster, volume = platform.namespace.cluster, volume_of(platform, name)
    cluster.kubectl("delete", "pv", volume["metadata"]["name"], "--wait=false")
    finalizers = ("--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    cluster.kubectl("patch", "pv", volume["metadata"]["name"], *finalizers)
    lost = platform.wait_for(name, "Degraded")
    assert conditions(lost)["Ready"] == ("False", "InfrastructureError")
    assert conditions(lost)[CLAIM] == ("False", "PvcLost")
    assert "bring its PersistentVolume back, or delete the claim" in message(lost)
    wait_for_event(platform, name, "PvcLost")

    for field in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"):
        volume["metadata"].pop(field, None)
    cluster.apply(volume | {"status": {}})
    again = assert_ready(platform, name, KEPT_MODEL)
    assert again["status"]["persistentVolumeClaim"] == ready["status"]["persistentVolumeClaim"]
    # It has not come a second time.
    assert platform.hub.bytes_sent("kept.safetensors") < 1.5 * len(KEPT_MODEL["kept.safetensors"])


def volume_of(platform: Platform, name: str) -> Object:
    claim = platform.artifact(name)["status"]["persistentVolumeClaim"]
    volume = platform.namespace.get("pvc", claim)["spec"]["volumeName"]
    return platform.namespace.cluster.get("pv", volume)


def test_a_model_whose_claim_is_deleted_is_downloaded_again(stage: Stage) -> None:
    name, platform = "claim-deleted", stage.platform
    assert_ready(platform, name, SMALL_MODEL)
    before = volume_of(platform, name)["metadata"]["name"]
    put_claim_aside(stage, name)
    wait_for_event(platform, name, "ModelLost")
    # The first that says Ready has the model.
    assert_ready(platform, name, SMALL_MODEL)
    assert volume_of(platform, name)["metadata"]["name"] != before
