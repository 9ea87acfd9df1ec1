"""The chart, and the manifests that are made of it: what they install, leave alone, and allow."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]

from aim_downloader import __version__
from deploy.manifests import CHART, HERE, manifests
from operator_shim.__main__ import command
from tests.cluster import Cluster
from tests.cluster.client import KubectlError, Namespace
from tests.operator.helm import Helm, HelmError, need_helm
from tests.operator.kinds import CRDS, NAMES, custom, no_kinds, our_kinds

OF_AIM_ENGINE = Path(__file__).parents[1] / "cluster" / "crds" / "aimartifact.yaml"
ARTIFACTS = "aimartifacts.aim.eai.amd.com"

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    need_helm()
    return Helm(tmp_path)


# -- what is rendered ------------------------------------------------------------------------------


def test_the_chart_has_no_faults(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART)


def test_the_manifests_are_those_of_the_chart() -> None:
    for name, text in manifests(need_helm()).items():
        assert (HERE / name).read_text("utf-8") == text, f"{name} is old: make manifests"


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def variables(deployment: dict[str, Any]) -> dict[str, str]:
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"].removeprefix("AIM_OPERATOR_"): each["value"] for each in container["env"]}


@pytest.mark.parametrize(
    ("options", "variable", "value"),
    [
        ((), "NAMESPACES", None),
        (("namespaces={a,b}",), "NAMESPACES", "a,b"),
        ((), "KINDS", "AIMArtifact"),
        (("kinds.AIMArtifact=false",), "KINDS", "none"),
        ((), "DEFAULT_DOWNLOAD_IMAGE", f"aim-downloader:{__version__}"),
        (("options.defaultDownloadImage=x/y:1",), "DEFAULT_DOWNLOAD_IMAGE", "x/y:1"),
        ((), "KEEP_ENGINE_IMAGE", "false"),
        (("options.keepEngineImage=true",), "KEEP_ENGINE_IMAGE", "true"),
        ((), "ACCESS_MODE", "ReadWriteMany"),
        (("options.accessMode=ReadWriteOnce",), "ACCESS_MODE", "ReadWriteOnce"),
        ((), "RESOURCES", None),
        (("options.downloadResources.limits.cpu=2",), "RESOURCES", '{"limits":{"cpu":2}}'),
        (("options.resyncSeconds=60",), "RESYNC", "60"),
        (("options.workers=2",), "WORKERS", "2"),
        (("options.logFormat=json",), "LOG_FORMAT", "json"),
        (("options.logLevel=debug",), "LOG_LEVEL", "debug"),
    ],
)
def test_values_become_options(
    helm: Helm, options: tuple[str, ...], variable: str, value: str | None
) -> None:
    given = [f"--set={option}" for option in options]
    assert variables(helm.objects(*given)["Deployment"]).get(variable) == value


def settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the operator understands of these variables; each must be one of its own."""
    known = {each.envvar: each.name for each in command.params if isinstance(each, click.Option)}
    with pytest.MonkeyPatch.context() as patch:
        for name in known.keys() | environ.keys():
            patch.delenv(str(name), raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        found: dict[str, Any] = command.make_context("operator", []).params
    return found if not environ else {str(known[name]): found[str(known[name])] for name in environ}


def test_the_operator_understands_what_it_is_given(helm: Helm) -> None:
    given = variables(helm.objects()["Deployment"])
    understood = settings({f"AIM_OPERATOR_{name}": value for name, value in given.items()})
    image = understood.pop("default_download_image")
    # Else what the operator does by itself.
    assert understood == {name: settings({})[name] for name in understood}
    assert image == f"aim-downloader:{__version__}"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("kinds.AIMArtefact=true", "'AIMArtefact' not allowed"),
        ("kinds.AIMArtifact=on", "got string, want boolean"),
        ("namespaces=a", "got string, want array"),
        ("namespaces={A_b}", "does not match pattern"),
        ("options.accessMode=RWX", "must be one of 'ReadWriteMany'"),
        ("options.resyncSeconds=0", "minimum: got 0, want 10"),
        ("options.workers=0", "minimum: got 0, want 1"),
        ("image.repository=", "minLength: got 0, want 1"),
        ("replicas=2", "'replicas' not allowed"),
    ],
)
def test_values_that_cannot_be_are_refused(helm: Helm, option: str, said: str) -> None:
    with pytest.raises(HelmError) as refusal:
        helm.objects("--set", option)
    assert said in str(refusal.value)


# -- what it brings into a cluster -----------------------------------------------------------------


def versions(cluster: Cluster) -> dict[str, str]:
    """The kinds that are there, each with what changes when it is made anew or otherwise."""
    found = cluster.listed("crd")
    return {
        each["metadata"]["name"]: each["metadata"]["uid"] + json.dumps(each["spec"])
        for each in found
        if each["spec"]["group"] == "aim.eai.amd.com"
    }


def test_what_is_rendered_applies_to_a_cluster_without_kinds(
    helm: Helm, control_plane: Cluster
) -> None:
    with no_kinds(control_plane) as namespace:
        rendered = helm.template(name=f"of-{namespace.name}", namespace=namespace.name)
        first = namespace.kubectl("apply", "-f", "-", input=rendered)
        again = namespace.kubectl("apply", "-f", "-", input=rendered)
        assert set(versions(control_plane)) == set(NAMES)
        of_cluster = f"clusterrole/of-{namespace.name}-aim-operator"
        namespace.kubectl("delete", of_cluster, of_cluster.replace("role", "rolebinding"))
    assert {line.split()[-1] for line in first.splitlines()} == {"created"}
    assert {line.split()[-1] for line in again.splitlines()} == {"unchanged"}


@pytest.fixture
def installed_beside_aim_engine(
    helm: Helm, control_plane: Cluster
) -> Iterator[tuple[Helm, Namespace]]:
    with no_kinds(control_plane) as namespace:
        namespace.kubectl("apply", "-f", str(OF_AIM_ENGINE))
        yield Helm(helm.home, control_plane.kubeconfig), namespace


def test_kinds_of_aim_engine_are_left_as_they_are(
    installed_beside_aim_engine: tuple[Helm, Namespace],
) -> None:
    helm, namespace = installed_beside_aim_engine
    before = versions(namespace.cluster)[ARTIFACTS]
    where = ("--namespace", namespace.name)
    release = f"of-{namespace.name}"
    said = helm.run("install", release, CHART, *where)
    after = versions(namespace.cluster)
    notes, kinds = told(said), rendered(helm, release, where)
    upgraded = told(helm.run("upgrade", release, CHART, *where, "--set", "options.workers=2"))
    kinds_then = rendered(helm, release, where)
    helm.run("uninstall", release, *where)
    left = versions(namespace.cluster)
    assert after[ARTIFACTS] == before
    assert set(after) == set(NAMES)
    assert notes == upgraded == "aimartifacts"
    # Those of the release go on to be the release's.
    assert kinds == kinds_then == set(NAMES) - {ARTIFACTS}
    assert left == after


def test_kinds_outlive_their_release_and_are_taken_up_again_by_it(
    helm: Helm, control_plane: Cluster
) -> None:
    with no_kinds(control_plane) as namespace:
        helm = Helm(helm.home, control_plane.kubeconfig)
        where = ("--namespace", namespace.name)
        owned = []
        for release in ("first", "first", "second"):
            helm.run("install", f"{release}-of-{namespace.name}", CHART, *where)
            owned.append(rendered(helm, f"{release}-of-{namespace.name}", where))
            helm.run("uninstall", f"{release}-of-{namespace.name}", *where)
        left = versions(control_plane)
    assert owned == [set(NAMES), set(NAMES), set()]
    assert set(left) == set(NAMES)


def told(notes: str) -> str:
    """The kinds that are left as they are, as the notes have it."""
    match = re.search(r"left as they are:\s+(.+)\n", notes)
    return match[1] if match else ""


def rendered(helm: Helm, release: str, where: tuple[str, ...]) -> set[str]:
    """The kinds that belong to a release."""
    objects = yaml.safe_load_all(helm.run("get", "manifest", release, *where))
    definition = "CustomResourceDefinition"
    return {each["metadata"]["name"] for each in objects if each["kind"] == definition}


def test_kinds_are_made_of_the_manifest_where_they_are_not_there(control_plane: Cluster) -> None:
    with no_kinds(control_plane) as namespace:
        namespace.kubectl("apply", "-f", str(OF_AIM_ENGINE))
        before = versions(control_plane)[ARTIFACTS]
        with pytest.raises(KubectlError) as refusal:
            namespace.kubectl("create", "-f", str(CRDS))
        after = versions(control_plane)
        namespace.kubectl("replace", "-f", str(CRDS))
        replaced = versions(control_plane)
    assert "already exists" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert after[ARTIFACTS] == before
    assert set(after) == set(NAMES)
    assert replaced[ARTIFACTS] != before


def test_the_pod_keeps_to_the_restricted_level(helm: Helm, control_plane: Cluster) -> None:
    template = helm.objects()["Deployment"]["spec"]["template"]
    template["spec"]["serviceAccountName"] = "default"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": template["spec"]}
    with control_plane.namespace() as namespace:
        namespace.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod))
    [container] = template["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


# -- what the operator may do ----------------------------------------------------------------------

READ = frozenset({"get", "list", "watch"})
IN_NAMESPACES = {
    "aimartifacts.aim.eai.amd.com": READ | {"patch"},
    "aimartifacts.aim.eai.amd.com/status": {"patch"},
    "aimruntimeconfigs.aim.eai.amd.com": READ,
    "persistentvolumeclaims": READ | {"create", "patch"},
    "jobs.batch": READ | {"create", "patch", "delete"},
    "serviceaccounts": {"get", "create", "patch"},
    "roles.rbac.authorization.k8s.io": {"get", "create", "patch"},
    "rolebindings.rbac.authorization.k8s.io": {"get", "create", "patch"},
    "pods": READ,
    "pods/log": {"get"},
    "events": {"list", "create"},
}
IN_THE_CLUSTER = {"aimclusterruntimeconfigs.aim.eai.amd.com": READ}
EVERYWHERE = {**IN_NAMESPACES, **IN_THE_CLUSTER}


@dataclass(frozen=True)
class Account:
    """The operator's account in a cluster."""

    namespace: Namespace
    name: str

    @property
    def user(self) -> str:
        return f"--as=system:serviceaccount:{self.namespace.name}:{self.name}"

    def rights(self, namespace: Namespace) -> dict[str, set[str]]:
        """What it may do in a namespace beyond what every account may, by resource."""
        rights = _rights(namespace, self.user)
        common = _rights(namespace, self.user.replace(self.name, "nobody"))
        return {resource: rights[resource] for resource in rights.keys() - common.keys()}


def _rights(namespace: Namespace, user: str) -> dict[str, set[str]]:
    lines = namespace.kubectl("auth", "can-i", "--list", "--no-headers", user).splitlines()
    found = [re.match(r"(\S+) .*\[([^\[]*)\]$", line) for line in lines]
    return {match[1]: set(match[2].split()) for match in found if match}


@pytest.fixture
def account(helm: Helm, control_plane: Cluster) -> Iterator[Account]:
    with control_plane.namespace() as namespace:
        yield from installed(helm, namespace)


@pytest.fixture
def account_of_one_namespace(helm: Helm, control_plane: Cluster) -> Iterator[Account]:
    with control_plane.namespace() as namespace:
        yield from installed(helm, namespace, "--set", f"namespaces={{{namespace.name}}}")


def installed(helm: Helm, namespace: Namespace, *options: str) -> Iterator[Account]:
    where: dict[str, Any] = {"name": f"of-{namespace.name}", "namespace": namespace.name}
    rendered = helm.template("--set", "crds.install=false", *options, **where)
    namespace.kubectl("apply", "-f", "-", input=rendered)
    yield Account(namespace, f"of-{namespace.name}-aim-operator")
    namespace.kubectl("delete", "--wait=false", "-f", "-", input=rendered)


def test_it_may_do_what_it_does_and_no_more(account: Account, control_plane: Cluster) -> None:
    with control_plane.namespace() as other:
        assert account.rights(other) == EVERYWHERE


def test_for_kinds_that_are_switched_off_it_may_do_nothing(
    helm: Helm, control_plane: Cluster
) -> None:
    with control_plane.namespace() as namespace:
        for account in installed(helm, namespace, "--set", "kinds.AIMArtifact=false"):
            assert account.rights(namespace) == {}


def test_with_a_list_of_namespaces_it_may_do_it_only_there(
    account_of_one_namespace: Account, control_plane: Cluster
) -> None:
    account = account_of_one_namespace
    assert account.rights(account.namespace) == EVERYWHERE
    with control_plane.namespace() as other:
        assert account.rights(other) == IN_THE_CLUSTER


OF_ARTIFACT = {"apiGroups": ["aim.eai.amd.com"], "resourceNames": ["any"]}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({**OF_ARTIFACT, "resources": ["aimartifacts/status"], "verbs": ["patch"]}, None),
        (
            {**OF_ARTIFACT, "resources": ["aimartifacts/status"], "verbs": ["update"]},
            "not currently held",
        ),
        ({**OF_ARTIFACT, "resources": ["aimartifacts"], "verbs": ["delete"]}, "not currently held"),
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, "not currently held"),
    ],
)
def test_it_may_grant_the_status_of_an_artifact_and_no_more(
    account: Account, rule: dict[str, Any], said: str | None
) -> None:
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    role = json.dumps({**kind, "metadata": {"name": "any"}, "rules": [rule]})
    create = ("create", "--dry-run=server", account.user, "-f", "-")
    if said is None:
        account.namespace.kubectl(*create, input=role)
        return
    with pytest.raises(KubectlError) as refusal:
        account.namespace.kubectl(*create, input=role)
    assert said in str(refusal.value)


def test_it_may_write_the_status_by_apply(account: Account) -> None:
    with our_kinds(account.namespace.cluster):
        artifact = custom("AIMArtifact", "any", {"sourceUri": "hf://org/model"})
        account.namespace.apply(artifact)
        status = {**artifact, "status": {"status": "Ready"}}
        del status["spec"]
        account.namespace.kubectl(
            "apply", "--server-side", "--subresource=status", "--validate=false", account.user,
            "-f", "-", input=json.dumps(status),
        )  # fmt: skip
        assert account.namespace.get("aimartifact", "any")["status"]["status"] == "Ready"


@contextmanager
def operator(account: Account, folder: Path) -> Iterator[None]:
    """An operator that is this account, and looks after its namespace alone."""
    namespace = account.namespace
    kubeconfig = yaml.safe_load(namespace.cluster.kubeconfig.read_text("utf-8"))
    token = namespace.kubectl("create", "token", account.name).strip()
    for user in kubeconfig["users"]:
        user["user"] = {"token": token}
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig), "utf-8")
    options = ["--namespaces", namespace.name, "--health-port", "0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "operator_shim", *options],
            env={**os.environ, "KUBECONFIG": str(folder / "kubeconfig")},
            cwd=HERE.parent,
            stderr=log,
            stdout=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_its_rights_are_enough_for_what_it_does(
    account_of_one_namespace: Account, tmp_path: Path
) -> None:
    namespace = account_of_one_namespace.namespace
    cluster = namespace.cluster
    with our_kinds(cluster), operator(account_of_one_namespace, tmp_path):
        spec = {"sourceUri": "hf://org/model", "size": "1Gi"}
        namespace.apply(custom("AIMArtifact", "any", spec))
        cluster.wait_for(lambda: namespace.listed("job"), what="there is a Job")
        cluster.wait_for(lambda: "status" in namespace.get("aimartifact", "any"))
        # What it made is deleted, and comes again.
        namespace.kubectl("delete", "job", "--all")
        cluster.wait_for(lambda: namespace.listed("job"), what="there is a Job again")
        for kind in ("pvc", "serviceaccount", "role", "rolebinding"):
            assert namespace.listed(kind, "aim.eai.amd.com/cache.name=any")
        cluster.wait_for(lambda: "JobCreated" in {e["reason"] for e in namespace.listed("events")})
    assert "forbidden" not in (tmp_path / "log").read_text("utf-8").lower()


# -- where Helm is missing -------------------------------------------------------------------------


@pytest.mark.parametrize(("everywhere", "ends"), [("", "Skipped"), ("true", "Failed")])
def test_what_is_left_out_without_helm_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, everywhere: str, ends: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", everywhere)
    with pytest.raises(BaseException, match="tests of the chart are left out") as ending:
        need_helm()
    assert ending.typename == ends
