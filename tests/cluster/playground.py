"""What a developer finds in a cluster: a Hub with a model, our images, the operator, examples."""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.cluster.client import Cluster
from tests.cluster.enclosure import run_inside
from tests.cluster.hub import hub_for_pods, store_for_pods, xet_for_pods
from tests.cluster.programs import built
from tests.cluster.volumes import FOLDERS, SMALL
from tests.hub import HubServer
from tests.images import build
from tests.images.tools import BuildError
from tests.operator.playground import operator
from tests.xet.store import server_path

MODEL = "openai-community/gpt2"
MIB = 1024 * 1024
DOCS = Path(__file__).parents[2] / "docs" / "examples"
EXAMPLES = ("job.yaml", "shared-job.yaml", "size.yaml")
# What `aim-downloader:latest` is for a node.
IMAGE = "docker.io/library/aim-downloader:latest"
_DEFAULT = "storageclass.kubernetes.io/is-default-class=true"

Say = Callable[[str], None]
Object = dict[str, Any]


@contextmanager
def furnished(cluster: Cluster, say: Say) -> Iterator[str]:
    """Gives what is to be read by whoever has started a cluster with a node."""
    cluster.kubectl("annotate", "storageclass", FOLDERS, _DEFAULT)
    has_image = bring_image(cluster, say)
    with hub_of(cluster) as hub:
        folder = cluster.kubeconfig.with_name("examples")
        write_examples(folder, hub.endpoint)
        more = operator(cluster, folder, hub.endpoint, say) if has_image else ""
        yield guide(cluster, folder, hub.endpoint, more, has_image=has_image)


def bring_image(cluster: Cluster, say: Say) -> bool:
    """Gives the node our image, under the name that the examples have for it."""
    trouble = build.why_not()
    try:
        archive = trouble or build.image_of_these_sources(say) / "image.tar"
    except BuildError as error:
        archive = str(error)
    if isinstance(archive, str):
        say(f"our image cannot be built here, so the examples find none: {archive}")
        return False
    cluster.import_image(archive)
    assert cluster.pid
    run_inside(cluster.pid, "ctr", "-n", "k8s.io", "images", "tag", "--force", build.NAME, IMAGE)
    return True


@contextmanager
def hub_of(cluster: Cluster) -> Iterator[HubServer]:
    """A Hub with a small model; over Xet, too, where the store was built."""
    random_bytes = random.Random(2).randbytes
    files: Mapping[str, bytes | Path] = {
        "model.safetensors": random_bytes(16 * MIB),
        "onnx/decoder_model.onnx": random_bytes(4 * MIB),
        "config.json": b'{"model_type": "gpt2"}\n',
        "README.md": b"# gpt2\n\nRandom bytes to try downloads with.\n",
    }
    with ExitStack() as stack:
        xet = None
        if server_path().exists():
            folder = cluster.kubeconfig.with_name("xet-store")
            store = stack.enter_context(store_for_pods(cluster, folder))
            xet = stack.enter_context(xet_for_pods(cluster, store))
        yield stack.enter_context(hub_for_pods(cluster, {MODEL: files}, xet))


def write_examples(folder: Path, endpoint: str) -> None:
    """Writes the examples of the docs, each container with the address of this Hub."""
    folder.mkdir()
    for name in EXAMPLES:
        objects: list[Object] = list(yaml.safe_load_all((DOCS / name).read_text("utf-8")))
        for each in objects:
            pod = each["spec"].get("template", each)["spec"]
            for container in pod.get("containers", ()):
                address = {"name": "HF_ENDPOINT", "value": endpoint}
                container.setdefault("env", []).append(address)
        (folder / name).write_text(yaml.safe_dump_all(objects, sort_keys=False), "utf-8")


def guide(
    cluster: Cluster, examples: Path, endpoint: str, operated: str, *, has_image: bool
) -> str:
    """What there is, and commands that can be copied as they are."""
    inside = f"--target={cluster.pid}"
    # Where kubectl is installed, that one does.
    path = "" if shutil.which("kubectl") else f"\nexport PATH={built()}:$PATH"
    without = "" if has_image else " (but pods wait for an image, see above)"
    more = {
        "again from the beginning": f"kubectl delete -f {examples}/job.yaml",
        "more examples": f"ls {examples}",
        "what the volumes hold": f"ls {cluster.kubeconfig.parent}/volumes/*",
        "a volume that can be full": f"storageClassName: {SMALL}",
        "a shell in its network": f"nsenter --net {inside} bash",
        "another image for its pods": f"nsenter --net --mount --pid {inside} "
        "ctr -n k8s.io images import ARCHIVE",
    }
    rows = "\n".join(f"  {what + ':':<27}  {how}" for what, how in more.items())
    return f"""
export KUBECONFIG={cluster.kubeconfig}{path}

Pods see no network but that of the cluster. There is a Hub in it, {endpoint}, with
the model {MODEL}. The examples of docs/container.md, with that address{without}:

kubectl apply -f {examples}/job.yaml
kubectl wait job/download-gpt2 --for=condition=Complete --timeout=5m
kubectl logs job/download-gpt2
kubectl describe pod --selector job-name=download-gpt2
{operated}
{rows}

Tests that are run with this KUBECONFIG use this cluster. Ctrl-C ends it, and all that is in it."""
