"""The volumes of the tests are as those of a cluster: some grow, some do not, some are refused."""

import os
import time
from pathlib import Path

import pytest

from tests.cluster import KubectlError
from tests.cluster.client import Namespace
from tests.cluster.manifests import container, pod, pod_spec
from tests.cluster.volumes import FIXED, FOLDERS, ONE_NODE, SMALL, WAITING

# The cluster may have to be made first.
pytestmark = pytest.mark.timeout(400)

MIB = 1024 * 1024
LARGER = '{"spec": {"resources": {"requests": {"storage": "64Mi"}}}}'


def ask_for_more(namespace: Namespace, claim: str) -> None:
    namespace.kubectl("patch", "persistentvolumeclaim", claim, "--patch", LARGER)


def room(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize


def capacity(namespace: Namespace, claim: str) -> str:
    found: str = namespace.get("persistentvolumeclaim", claim)["status"]["capacity"]["storage"]
    return found


def test_a_volume_grows_once_nobody_uses_it(namespace: Namespace) -> None:
    namespace.claim("data", "8Mi", storage=SMALL)
    folder = namespace.volume("data")
    with (folder / "file").open("wb") as used:
        used.write(b"before")
        ask_for_more(namespace, "data")
        time.sleep(1)
        assert (capacity(namespace, "data"), room(folder) < 8 * MIB) == ("8Mi", True)
    namespace.cluster.wait_for(lambda: capacity(namespace, "data") == "64Mi", what="it grows")
    assert 48 * MIB < room(folder) < 64 * MIB
    assert (folder / "file").read_bytes() == b"before"
    name = namespace.get("persistentvolumeclaim", "data")["spec"]["volumeName"]
    volume = namespace.cluster.get("persistentvolume", name)
    assert volume["spec"]["capacity"] == {"storage": "64Mi"}


@pytest.mark.parametrize("storage", [FIXED, FOLDERS])
def test_a_volume_of_a_class_that_does_not_grow(namespace: Namespace, storage: str) -> None:
    namespace.claim("data", "8Mi", storage=storage)
    namespace.volume("data")
    with pytest.raises(KubectlError, match="must support resize"):
        ask_for_more(namespace, "data")


def test_a_class_says_no_by_an_event(namespace: Namespace) -> None:
    namespace.claim("data", storage=ONE_NODE)
    assert "ReadWriteOnce alone" in told(namespace, "ProvisioningFailed")
    assert namespace.get("persistentvolumeclaim", "data")["status"]["phase"] == "Pending"


def test_a_class_waits_for_the_first_pod(namespace: Namespace, shell: str) -> None:
    namespace.claim("data", "8Mi", storage=WAITING, mode="ReadWriteOnce")
    assert "waiting for first consumer" in told(namespace, "WaitForFirstConsumer")
    assert namespace.get("persistentvolumeclaim", "data")["status"]["phase"] == "Pending"
    main = container(shell, arguments=["-c", "echo here >/data/file"], mounts={"data": "/data"})
    namespace.apply(pod("first", pod_spec(main, claims=["data"])))
    assert namespace.wait_for_end("first")["exitCode"] == 0
    assert (namespace.volume("data") / "file").read_text() == "here\n"
    name = namespace.get("persistentvolumeclaim", "data")["spec"]["volumeName"]
    volume = namespace.cluster.get("persistentvolume", name)
    [term] = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert [each["values"] for each in term["matchExpressions"]] == [["node"]]


def told(namespace: Namespace, reason: str) -> str:
    """The message of an event about the claim, once there is one."""
    chosen = ("--field-selector", f"involvedObject.name=data,reason={reason}")
    return namespace.cluster.wait_for(
        lambda: namespace.kubectl("get", "events", *chosen, "--output=jsonpath={..message}"),
        what=f"the event {reason}",
    )
