"""The volumes of the tests are as those of a cluster: some grow, some do not, some are refused."""

import os
import time
from pathlib import Path

import pytest

from tests.cluster import KubectlError
from tests.cluster.client import Namespace
from tests.cluster.volumes import FIXED, FOLDERS, ONE_NODE, SMALL

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
    chosen = ("--field-selector", "involvedObject.name=data,reason=ProvisioningFailed")

    def told() -> str:
        return namespace.kubectl("get", "events", *chosen, "--output=jsonpath={..message}")

    assert "ReadWriteOnce alone" in namespace.cluster.wait_for(told, what="the event")
    assert namespace.get("persistentvolumeclaim", "data")["status"]["phase"] == "Pending"
