"""The cluster of the tests is a real one: what it promises to tests holds."""

import pytest

from tests.cluster import Cluster, KubectlError
from tests.cluster.client import Namespace
from tests.cluster.manifests import container, job, pod, pod_spec

# The cluster may have to be made first.
pytestmark = pytest.mark.timeout(400)

MIB = 1024 * 1024


def run(namespace: Namespace, image: str, script: str, memory: str = "512Mi") -> dict[str, object]:
    """Runs a script in a pod to its end, with the claim `data` at /data when there is one."""
    claims = [each["metadata"]["name"] for each in namespace.listed("persistentvolumeclaims")]
    main = container(
        image, arguments=["-c", script], mounts={name: f"/{name}" for name in claims}, memory=memory
    )
    namespace.apply(pod("one", pod_spec(main, claims=claims)))
    return namespace.wait_for_end("one")


def test_the_control_plane_answers(control_plane: Cluster) -> None:
    with control_plane.namespace() as namespace:
        namespace.kubectl("create", "configmap", "some", "--from-literal=key=value")
        assert namespace.get("configmap", "some")["data"] == {"key": "value"}


def test_the_node_is_ready(cluster: Cluster) -> None:
    assert [node["metadata"]["name"] for node in cluster.listed("nodes")] == ["node"]


def test_what_a_pod_says_can_be_read(namespace: Namespace, shell: str) -> None:
    end = run(namespace, shell, "echo hello; echo because >/dev/termination-log; exit 7")
    assert (end["exitCode"], end["reason"], end["message"]) == (7, "Error", "because\n")
    assert namespace.logs("one") == "hello\n"


def test_a_careless_pod_is_refused(namespace: Namespace, shell: str) -> None:
    careless = container(shell) | {"securityContext": {}}
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        namespace.apply(pod("one", pod_spec(careless)))


def test_a_job_tries_again(namespace: Namespace, shell: str) -> None:
    namespace.claim("data")
    script = "[ -e /data/tried ] || { : >/data/tried; exit 3; }"
    main = container(shell, arguments=["-c", script], mounts={"data": "/data"})
    namespace.apply(job("some", pod_spec(main, claims=["data"]), backoffLimit=1))
    assert namespace.wait_for_job("some") == "Complete"
    assert [each["status"]["phase"] for each in namespace.pods_of("some")] == [
        "Failed",
        "Succeeded",
    ]


def test_a_claim_is_a_folder_that_uid_1000_may_write(namespace: Namespace, shell: str) -> None:
    namespace.claim("data")
    assert run(namespace, shell, "echo written >/data/file")["exitCode"] == 0
    file = namespace.volume("data") / "file"
    assert (file.read_text(), file.stat().st_uid) == ("written\n", 1000)


def test_a_small_volume_really_fills_up(namespace: Namespace, shell: str) -> None:
    namespace.claim("data", "8Mi", small=True)
    script = "while printf %65536s x || exit 28; do :; done >/data/file"
    assert run(namespace, shell, script)["exitCode"] == 28
    assert 6 * MIB < (namespace.volume("data") / "file").stat().st_size < 8 * MIB


def test_a_limit_of_memory_really_kills(namespace: Namespace, shell: str) -> None:
    script = "x=$(printf %1048576s x); while :; do x=$x$x; done"
    end = run(namespace, shell, script, memory="32Mi")
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_a_volume_goes_with_its_claim(cluster: Cluster, shell: str) -> None:
    with cluster.namespace() as namespace:
        namespace.claim("data", "8Mi", small=True)
        folder = namespace.volume("data")
    cluster.wait_for(lambda: not folder.exists(), what="the folder is gone")
