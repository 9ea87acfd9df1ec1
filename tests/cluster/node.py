"""The node: containerd and a kubelet, beside a control plane, in the same enclosure."""

import json
from pathlib import Path

from tests.cluster.addresses import NO_DNS, NODE, PODS
from tests.cluster.control_plane import ControlPlane, wait_until
from tests.cluster.enclosure import Enclosure, run_inside
from tests.cluster.images import program_image
from tests.cluster.programs import CNI, program

NAME = "node"
SOCKET = "unix:///run/containerd/containerd.sock"
PAUSE = "aim.test/pause:1"


class Node:
    """What runs pods."""

    def __init__(self, enclosure: Enclosure, control_plane: ControlPlane) -> None:
        self._enclosure = enclosure
        self._control_plane = control_plane
        self._folder = enclosure.folder / "node"

    def start(self) -> None:
        """Returns when the node is ready for pods.

        Raises:
            RuntimeError: A part ended, or was not ready in time; the end of its log is told.
        """
        self._write_settings()
        containerd = (
            "containerd",
            self._enclosure.start(
                "containerd", [program("containerd"), "--config", self._folder / "containerd.toml"]
            ),
        )
        wait_until(self._enclosure, self._containerd_answers, [containerd])
        pause = self._folder / "pause.tar"
        pause.write_bytes(program_image(PAUSE, Path(program("pause"))))
        import_image(self._enclosure.pid, pause)
        kubelet = (
            "kubelet",
            self._enclosure.start(
                "kubelet",
                [
                    program("kubelet"),
                    f"--config={self._folder / 'kubelet.yaml'}",
                    f"--kubeconfig={self._control_plane.kubeconfig_inside}",
                    f"--node-ip={NODE}",
                    f"--hostname-override={NAME}",
                ],
            ),
        )
        wait_until(self._enclosure, self._is_ready, [kubelet, containerd])

    def _containerd_answers(self) -> bool:
        try:
            self._enclosure.run("ctr", "version")
        except RuntimeError:
            return False
        return True

    def _is_ready(self) -> bool:
        node = self._control_plane.ask(f"/api/v1/nodes/{NAME}") or {}
        conditions = node.get("status", {}).get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return ready and not node["spec"].get("taints")

    def _write_settings(self) -> None:
        self._folder.mkdir()
        (self._folder / "cni").mkdir()
        (self._folder / "cni" / "10-pods.conflist").write_text(json.dumps(_network()))
        (self._folder / "containerd.toml").write_text(_containerd(self._folder))
        (self._folder / "kubelet.yaml").write_text(json.dumps(_kubelet(self._enclosure.group)))
        for parent in _control_groups():
            _make_group(parent, self._enclosure.group)


def import_image(pid: int, archive: Path) -> None:
    """Gives the node the image of a docker-archive."""
    run_inside(pid, "ctr", "--namespace=k8s.io", "images", "import", archive)


def _network() -> object:
    ipam = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


def _containerd(folder: Path) -> str:
    return f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # A container of ours may itself be forbidden to lower scores.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _kubelet(group: str) -> object:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE,
        "containerRuntimeEndpoint": SOCKET,
        # Below a group of our own: another cluster on this machine has another.
        "cgroupRoot": f"/{group}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        # What else fills this machine is no reason to send pods away, nor images.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "clusterDNS": [NO_DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "serializeImagePulls": False,
    }


def _control_groups() -> list[Path]:
    """The hierarchies of control groups: one in version 2, several in version 1."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return [each for each in top.iterdir() if each.is_dir() and not each.is_symlink()]


def _make_group(parent: Path, name: str) -> None:
    group = parent / name
    group.mkdir()
    for setting in ("cpuset.mems", "cpuset.cpus"):  # version 1 lets nobody in while they are empty
        if (parent / setting).exists() and not (parent / "cgroup.controllers").exists():
            (group / setting).write_text((parent / setting).read_text())
