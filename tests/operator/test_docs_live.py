"""The commands that the pages on the operator and on caching show, at a real API server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from operator_shim.objects import name_of, timestamp
from tests.cluster.client import Cluster, Namespace
from tests.cluster.programs import search_path
from tests.operator.helm import need_helm
from tests.operator.kinds import NAMES, custom, no_kinds, taken
from tests.operator.program import Program

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
FINALIZER = "aim.eai.amd.com/artifactcleanup"
COMMAND_S = 150.0
EXAMPLES_OF_OURS = ("artifact.yaml", "service.yaml", "service-template.yaml", "template-cache.yaml")
QUIET_S = 5.0

# Others may be alone in the cluster for a while.
pytestmark = pytest.mark.timeout(600)


class Shell:
    """That of somebody who works in a namespace, in a folder with the project in it."""

    def __init__(self, namespace: Namespace, folder: Path, also: Sequence[str] = ()) -> None:
        self.namespace = namespace
        self.folder = folder
        for name in ("docs", "deploy"):
            (folder / name).symlink_to(ROOT / name)
        config = shutil.copy(namespace.cluster.kubeconfig, folder / "kubeconfig")
        path = ":".join((*also, search_path(os.environ)))
        self.environment = {"KUBECONFIG": str(config), "PATH": path, "HOME": str(folder)}
        self.run(f"kubectl config set-context --current --namespace={namespace.name}")

    def run(self, command: str) -> str:
        """What it prints; it must do well."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=COMMAND_S,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


def commands(page: str, heading: str) -> list[str]:
    """The commands that are shown below a heading of a page, up to the next one of its rank."""
    text = (DOCS / page).read_text("utf-8")
    rank = heading.partition(" ")[0]
    below = text.partition(f"\n{heading}\n")[2]
    assert below, heading
    section = re.split(rf"^#{{1,{len(rank)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def tell(namespace: Namespace, kind: str, name: str, status: Mapping[str, Any]) -> None:
    how = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    namespace.kubectl("patch", kind, name, *how)


def kinds_of(cluster: Cluster) -> set[str]:
    return {name_of(each) for each in cluster.listed("crd")} & set(NAMES)


# -- the operator ----------------------------------------------------------------------------------


def test_it_is_installed_upgraded_and_uninstalled_as_shown(
    control_plane: Cluster, tmp_path: Path
) -> None:
    helm = str(Path(need_helm()).parent)
    installing = commands("operator.md", "## Install it")
    # Images are built elsewhere, and no node is here to run them.
    installing = [each for each in installing if not each.startswith("make ")]
    [install, rollout, *manifests] = installing
    assert "rollout status" in rollout
    [upgrade, *manifests_anew] = commands("operator.md", "## Upgrade it")
    [uninstall, by_hand, *deleting, forget] = commands("operator.md", "## Uninstall")
    with no_kinds(control_plane) as namespace:
        shell = Shell(namespace, tmp_path, also=(helm,))
        try:
            shell.run(install)
            shell.run("kubectl -n aim-operator get deployment aim-operator")
            put_a_model_and_a_cache(namespace)
            # Helm goes on with kinds that were brought up to date without it.
            shell.run(manifests_anew[0])
            shell.run(upgrade)
            kept = shell.run("kubectl -n aim-operator get deployment aim-operator -o yaml")
            shell.run(uninstall)
            kinds = kinds_of(control_plane)
            claims = namespace.listed("pvc")
            shell.run(by_hand)
            for command in deleting:
                shell.run(command)
            left = shell.run("kubectl get aim -o name").split()
            shell.run(forget)
            gone = kinds_of(control_plane)
            for command in (*manifests, *manifests_anew):
                shell.run(command)
            shell.run("kubectl delete --wait=false -f deploy/operator.yaml")
        finally:
            control_plane.kubectl(
                *("delete", "namespace,clusterrole,clusterrolebinding", "aim-operator"),
                *("--ignore-not-found", "--wait=false"),
            )
    assert "registry.example.com/aim-operator" in kept
    assert kinds == set(NAMES)
    assert [name_of(each) for each in claims] == ["of-gpt2"]
    assert not left
    assert not gone


def put_a_model_and_a_cache(namespace: Namespace) -> None:
    """An artifact with its claim, and a cache that waits for an operator to let it go."""
    namespace.kubectl("apply", "-f", str(EXAMPLES / "artifact.yaml"))
    namespace.claim("of-gpt2")
    artifact = namespace.get("aimartifact", "gpt2")
    owner = {
        **{key: artifact[key] for key in ("apiVersion", "kind")},
        **{key: artifact["metadata"][key] for key in ("name", "uid")},
        "controller": True,
    }
    patch = json.dumps({"metadata": {"ownerReferences": [owner]}})
    namespace.kubectl("patch", "pvc", "of-gpt2", "--type=merge", "-p", patch)
    cache = custom("AIMTemplateCache", "qwen", {"templateName": "qwen"})
    cache["metadata"]["finalizers"] = [FINALIZER]
    namespace.apply(cache)


def test_nothing_is_left_or_made_again_when_all_is_deleted_as_shown(
    control_plane: Cluster, tmp_path: Path
) -> None:
    [_, _, *deleting, _] = commands("operator.md", "## Uninstall")
    model = {"modelId": "org/model", "sourceUri": "hf://org/model"}
    template = {"modelName": "m", "modelSources": [model], "caching": {"enabled": True}}
    service = {"model": {"image": "org/m:1"}, "caching": {"mode": "Shared"}}
    with no_kinds(control_plane) as namespace:
        control_plane.kubectl("create", "-f", str(ROOT / "deploy" / "crds.yaml"))
        established = (f"crd/{name}" for name in NAMES)
        control_plane.kubectl("wait", "--for=condition=Established", *established, "--timeout=150s")
        shell = Shell(namespace, tmp_path)
        flags = (f"--namespaces={namespace.name}", "--resync=10")
        with Program(control_plane.kubeconfig, tmp_path, *flags) as operator:
            operator.wait_until_ready()
            namespace.apply(
                custom("AIMModel", "m", {"image": "org/m:1"}),
                custom("AIMServiceTemplate", "m", template),
                custom("AIMService", "chat", service),
                custom("AIMTemplateCache", "mine", {"templateName": "m", "mode": "Dedicated"}),
            )
            operator.wait_for(lambda: len(namespace.listed("aimartifact")) > 1, what="artifacts")
            for command in deleting:
                shell.run(command)
            time.sleep(QUIET_S)
            left = shell.run("kubectl get aimservices,aimtemplatecaches,aimartifacts -o name")
    assert not left


def test_a_model_is_tried_again_and_its_claim_deleted_as_shown(
    space: Namespace, tmp_path: Path
) -> None:
    space.kubectl("apply", "-f", str(EXAMPLES / "artifact.yaml"))
    space.claim("of-gpt2")
    tell(space, "aimartifact", "gpt2", {"status": "Failed", "persistentVolumeClaim": "of-gpt2"})
    shell = Shell(space, tmp_path)
    [annotate] = commands("operator.md", "### What is tried again")
    shell.run(annotate)
    [*_, until] = commands("operator.md", "## A model, from apply to Ready")
    assert shell.run(until).strip() == "Failed"
    [delete] = commands("operator.md", "## Storage")
    shell.run(delete)
    assert "aim.eai.amd.com/retry" in space.get("aimartifact", "gpt2")["metadata"]["annotations"]
    assert not space.listed("pvc")


# -- caching ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES_OF_OURS)
def test_an_example_is_taken_with_all_that_it_says(space: Namespace, name: str) -> None:
    for each in yaml.safe_load_all((EXAMPLES / name).read_text("utf-8")):
        stored = taken(space.cluster, each)
        assert each["spec"].items() <= stored["spec"].items()


def test_the_page_shows_the_service_of_the_example() -> None:
    page = (DOCS / "caching.md").read_text("utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    examples = yaml.safe_load_all((EXAMPLES / "service.yaml").read_text("utf-8"))
    assert next(each for each in examples if each["kind"] == "AIMService") in [
        yaml.safe_load(block) for block in blocks
    ]


def test_a_service_and_a_cache_are_asked_for_as_shown(space: Namespace, tmp_path: Path) -> None:
    shell = Shell(space, tmp_path)
    said = [
        shell.run(each) for each in commands("caching.md", "## A service, from apply to Running")
    ]
    recipe = "### Have a template's models in a namespace before they are needed"
    [apply, wait] = commands("caching.md", recipe)
    shell.run(apply)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "AllComponentsReady",
        "message": "",
        "lastTransitionTime": timestamp(datetime.now(UTC)),
    }
    tell(space, "aimtemplatecache", "qwen", {"status": "Ready", "conditions": [ready]})
    shell.run(wait)
    [find] = commands("caching.md", "### Find all that was made for a service")
    shell.run(find)
    assert any("qwen-chat" in each for each in said)
    for command in commands("../README.md", "## In a cluster"):
        shell.run(command)


def test_the_recipe_finds_what_nobody_uses(space: Namespace, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    used = {"old": now - timedelta(days=31), "new": now - timedelta(days=29), "never": None}
    for name, when in used.items():
        space.apply(custom("AIMArtifact", name, {"sourceUri": "hf://org/model"}))
        told = {"lastUsed": timestamp(when)} if when else {}
        tell(space, "aimartifact", name, {"status": "Ready", **told})
    shell = Shell(space, tmp_path)
    [show, find, delete] = commands("caching.md", "### Clean up what nobody uses")
    assert "<none>" in shell.run(show)
    shell.run(find)
    assert (tmp_path / "unused").read_text("utf-8").split() == ["old"]
    shell.run(delete)
    assert {name_of(each) for each in space.listed("aimartifact")} == {"new", "never"}
