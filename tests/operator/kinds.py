"""The kinds of `deploy/` in a cluster. As it has but one of each, tests share them or are alone."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import yaml  # type: ignore[import-untyped]

from deploy.manifests import HERE
from tests.cluster.client import Cluster, Namespace

CRDS = HERE / "crds.yaml"
_LABEL = "app.kubernetes.io/name=aim-operator"
_HELD = '{range .items[?(@.metadata.finalizers)]}{.metadata.namespace}:{.metadata.name}{"\\n"}{end}'
_RELEASED = '{"metadata": {"finalizers": null}}'


def definitions() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of `deploy/crds.yaml`."""
    return [each for each in yaml.safe_load_all(CRDS.read_text("utf-8")) if each]


NAMES = [each["metadata"]["name"] for each in definitions()]


@contextmanager
def our_kinds(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with our kinds in it, for several tests at once."""
    with _lock(cluster) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not _are_there(cluster):
            fcntl.flock(lock, fcntl.LOCK_EX)
            _install(cluster)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield cluster


@contextmanager
def no_kinds(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace in a cluster that has none of the kinds, and no other test that uses them."""
    with _lock(cluster) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove(cluster)
        with cluster.namespace() as namespace:
            yield namespace
        _remove(cluster)


def _lock(cluster: Cluster) -> IO[bytes]:
    # The one of tests/cluster/artifacts.py, whose kind is one of these.
    return cluster.kubeconfig.with_name("artifacts.lock").open("wb")


def _are_there(cluster: Cluster) -> bool:
    found = cluster.kubectl("get", "crd", "-l", _LABEL, "-o", "name")
    return len(found.split()) == len(NAMES)


def _install(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", str(CRDS))
    made = (f"crd/{name}" for name in NAMES)
    cluster.kubectl("wait", "--for=condition=Established", *made, "--timeout=150s")
    # A kind that was another's is in force a little later.
    cluster.wait_for(lambda: _keeps_shards(cluster))


def _keeps_shards(cluster: Cluster) -> bool:
    probe = custom("AIMArtifact", "probe", {"sourceUri": "hf://org/model", "shards": 1})
    return "shards" in taken(cluster, probe)["spec"]


def _remove(cluster: Cluster) -> None:
    _free(cluster)
    cluster.kubectl("delete", "crd", "--ignore-not-found", *NAMES)


def _free(cluster: Cluster) -> None:
    """Takes off finalizers: what tests have left waits for an operator that is no more."""
    there = cluster.kubectl("get", "crd", "-o", "name").split()
    for name in NAMES:
        if f"customresourcedefinition.apiextensions.k8s.io/{name}" not in there:
            continue
        # Not their JSON: a test makes one that is too deep for it.
        shown = cluster.kubectl("get", name, "--all-namespaces", "-o", f"jsonpath={_HELD}")
        for place, held in (line.split(":") for line in shown.splitlines()):
            where = ("--namespace", place) if place else ()
            cluster.kubectl("patch", name, held, *where, "--type=merge", "--patch", _RELEASED)


def taken(cluster: Cluster, manifest: Any) -> dict[str, Any]:
    """The object as the API server would store it, with what it adds and without what it drops."""
    how = ("--dry-run=server", "-o", "json", "--validate=false")
    said = cluster.kubectl("create", *how, "-f", "-", input=json.dumps(manifest))
    found: dict[str, Any] = json.loads(said)
    return found


def custom(kind: str, name: str, spec: Any) -> dict[str, Any]:
    """The manifest of an object of ours."""
    return {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
