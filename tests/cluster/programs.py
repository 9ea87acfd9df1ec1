"""Where the programs of the cluster are, and which are missing."""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

VERSION = "1.34.4"
SOURCES = Path(__file__).with_name("kubernetes")
SOURCE_NAMES = ("go.mod", "go.sum", "main.go", "pause/main.go")
CNI = Path("/usr/lib/cni")  # where Debian's package puts the plugins
# Where system tools are, also for those whose PATH lacks it.
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
ENVTEST = ("etcd", "kube-apiserver", "kubectl")

_FOR_CONTROL_PLANE = (
    "openssl unshare nsenter ip mount etcd "
    "kube-apiserver kube-controller-manager kube-scheduler kubectl"
)
_FOR_NODE = "containerd ctr runc mkfs.ext4 e2fsck resize2fs kubelet pause"


def built() -> Path:
    """Where `tests/setup-servers` puts what it builds from these sources."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(b"".join((SOURCES / name).read_bytes() for name in SOURCE_NAMES))
    name = f"kubernetes-{VERSION}-{digest.hexdigest()[:12]}"
    return Path(cache, "aim-downloader-tests", name, "bin")


def search_path(environ: Mapping[str, str] = os.environ) -> str:
    """A PATH on which every program of the cluster is, if it is there at all."""
    return os.pathsep.join([str(built()), environ.get("PATH", os.defpath), SYSTEM])


def program(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """The path of a program, or its bare name when it is missing.

    What envtest brings comes from KUBEBUILDER_ASSETS when that is set.
    """
    assets = environ.get("KUBEBUILDER_ASSETS")
    folders = assets if assets and name in ENVTEST else search_path(environ)
    return shutil.which(name, path=folders) or name


def trouble(*, node: bool, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why no cluster can be started here; None when one can."""
    if platform.system() != "Linux":
        return "the cluster runs on Linux"
    if os.geteuid() != 0:
        return "only root can start the cluster"
    missing = list(_missing(node=node, environ=environ))
    if missing:
        return (
            f"the cluster lacks {', '.join(missing)}: tests/setup-system and tests/setup-servers "
            "bring them"
        )
    # Root in a container may be nobody special to the kernel.
    probe = subprocess.run(
        [program("unshare"), "--net", "--mount", "--pid", "--fork", "true"],
        check=False,
        capture_output=True,
        text=True,
    )
    if probe.returncode:
        return f"the kernel gives no namespaces for the cluster ({probe.stderr.strip()})"
    return None


def _missing(*, node: bool, environ: Mapping[str, str]) -> Iterator[str]:
    for name in f"{_FOR_CONTROL_PLANE} {_FOR_NODE if node else ''}".split():
        if not os.path.isabs(program(name, environ)):  # noqa: PTH117
            yield name
    if node and not (CNI / "bridge").exists():
        yield f"the plugins in {CNI}"
