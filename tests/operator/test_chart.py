"""The chart, and the manifests that are made of it: what they install, leave alone, and allow."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
import pytest
import yaml  # type: ignore[import-untyped]

from aim_downloader import __version__
from deploy.manifests import CHART, HERE, manifests
from operator_shim import config
from operator_shim.__main__ import command
from operator_shim.objects import LABEL_SERVICE, name_of
from tests.cluster import Cluster
from tests.cluster.client import KubectlError, Namespace
from tests.cluster.rights import wait_until_rights_are_seen
from tests.operator.fake_node import FakeNode
from tests.operator.helm import Helm, HelmError, need_helm
from tests.operator.kinds import CRDS, NAMES, custom, no_kinds, our_kinds

OF_AIM_ENGINE = Path(__file__).parents[1] / "cluster" / "crds" / "aimartifact.yaml"
ARTIFACTS = "aimartifacts.aim.eai.amd.com"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
KINDS: tuple[str, ...] = tuple(VALUES["kinds"])

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


def test_a_release_notes_all_kinds_that_it_brings(helm: Helm) -> None:
    objects = [each for each in yaml.safe_load_all(helm.template()) if each]
    [deployment] = [each for each in objects if each["kind"] == "Deployment"]
    noted = deployment["metadata"]["annotations"]["aim.eai.amd.com/kinds-of-release"].split(",")
    assert sorted(f"{each}.aim.eai.amd.com" for each in noted) == sorted(NAMES)


def test_every_kind_is_kept_whatever_brings_it(helm: Helm) -> None:
    for text in (CRDS.read_text("utf-8"), helm.template()):
        objects = [each for each in yaml.safe_load_all(text) if each]
        kinds = [each for each in objects if each["kind"] == "CustomResourceDefinition"]
        assert len(kinds) == len(NAMES)
        for each in kinds:
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_each_kind_has_a_switch() -> None:
    assert VALUES["kinds"] == dict.fromkeys(config.KINDS, True)


def variables(deployment: dict[str, Any]) -> dict[str, str]:
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"].removeprefix("AIM_OPERATOR_"): each["value"] for each in container["env"]}


def only(*kinds: str) -> tuple[str, ...]:
    """The values by which these kinds are on, and no others."""
    return tuple(f"kinds.{kind}={str(kind in kinds).lower()}" for kind in KINDS)


@pytest.mark.parametrize(
    ("options", "variable", "value"),
    [
        ((), "NAMESPACES", None),
        (("namespaces={a,b}",), "NAMESPACES", "a,b"),
        ((), "KINDS", ",".join(sorted(KINDS))),
        (only("AIMModelCache"), "KINDS", "AIMModelCache"),
        (only(), "KINDS", "none"),
        ((), "DEFAULT_DOWNLOAD_IMAGE", f"aim-downloader:{__version__}"),
        (("options.defaultDownloadImage=x/y:1",), "DEFAULT_DOWNLOAD_IMAGE", "x/y:1"),
        ((), "KEEP_ENGINE_IMAGE", "false"),
        (("options.keepEngineImage=true",), "KEEP_ENGINE_IMAGE", "true"),
        ((), "ACCESS_MODE", "ReadWriteMany"),
        (("options.accessMode=ReadWriteOnce",), "ACCESS_MODE", "ReadWriteOnce"),
        ((), "SHARED_CACHE_OWNER", "template"),
        (("options.sharedCacheOwner=none",), "SHARED_CACHE_OWNER", "none"),
        ((), "RESOURCES", None),
        (("options.downloadResources.limits.cpu=2",), "RESOURCES", '{"limits":{"cpu":2}}'),
        ((), "POD", None),
        (("options.downloadPod.priorityClassName=low",), "POD", '{"priorityClassName":"low"}'),
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
    assert sorted(understood.pop("kinds")) == sorted(KINDS)
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
        ("options.sharedCacheOwner=service", "must be one of 'template', 'none'"),
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


def bare(text: str) -> str:
    """The same manifests with nothing in their metadata but the name."""
    found = [each for each in yaml.safe_load_all(text) if each]
    plain = [{**each, "metadata": {"name": name_of(each)}} for each in found]
    bared: str = yaml.safe_dump_all(plain)
    return bared


REPLACED: dict[str, tuple[tuple[str, ...], Callable[[str], str]]] = {
    "as the docs say": (("apply", "--server-side", "--force-conflicts"), str),
    "by replace": (("replace",), str),
    "by manifests of others": (("replace",), bare),
}


@pytest.mark.parametrize("how", REPLACED)
def test_kinds_that_were_replaced_by_hand_stay_and_stay_of_the_release(
    helm: Helm, control_plane: Cluster, how: str
) -> None:
    command, written = REPLACED[how]
    with no_kinds(control_plane) as namespace:
        helm = Helm(helm.home, control_plane.kubeconfig)
        release, where = f"of-{namespace.name}", ("--namespace", namespace.name)
        helm.run("install", release, CHART, *where)
        before = uids(control_plane)
        model = custom("AIMArtifact", "gpt2", {"sourceUri": "hf://org/model"})
        namespace.apply(model)
        uid = namespace.get("aimartifact", "gpt2")["metadata"]["uid"]
        manifests_ = written(CRDS.read_text("utf-8"))
        control_plane.kubectl(*command, "-f", "-", input=manifests_)
        for _ in range(2):
            helm.run("upgrade", release, CHART, *where, "--reset-then-reuse-values")
        owned = rendered(helm, release, where)
        upgraded = uids(control_plane)
        helm.run("uninstall", release, *where)
        left = uids(control_plane)
        artifact = namespace.get("aimartifact", "gpt2")
    assert upgraded == left == before
    assert owned == set(NAMES)
    assert artifact["metadata"]["uid"] == uid
    assert "deletionTimestamp" not in artifact["metadata"]


def test_no_upgrade_lets_a_kind_go_that_is_not_marked_to_be_kept(
    helm: Helm, control_plane: Cluster
) -> None:
    with no_kinds(control_plane) as namespace:
        helm = Helm(helm.home, control_plane.kubeconfig)
        release, where = f"of-{namespace.name}", ("--namespace", namespace.name)
        helm.run("install", release, CHART, *where)
        before = uids(control_plane)
        control_plane.kubectl("replace", "-f", "-", input=bare(CRDS.read_text("utf-8")))
        upgrade = ("upgrade", release, CHART, *where, "--set", "crds.install=false")
        for _ in NAMES:
            with pytest.raises(HelmError) as refusal:
                helm.run(*upgrade)
            marking = re.search(r"first do `kubectl ([^`]+)`", str(refusal.value))
            assert marking
            control_plane.kubectl(*marking[1].split())
        helm.run(*upgrade)
        left = uids(control_plane)
        helm.run("uninstall", release, *where)
    assert left == before


def uids(cluster: Cluster) -> dict[str, str]:
    """The kinds that are there, and are not about to go."""
    return {
        name_of(each): each["metadata"]["uid"]
        for each in cluster.listed("crd")
        if each["spec"]["group"] == "aim.eai.amd.com"
        and "deletionTimestamp" not in each["metadata"]
    }


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
        namespace.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
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

Rights: TypeAlias = dict[str, frozenset[str]]


def rights(**table: str) -> Rights:
    """Verbs by resource; what begins with `aim` is of our own group, two underlines are a slash."""
    found = {}
    for name, verbs in table.items():
        resource, _, below = name.partition("__")
        resource += OF_GROUP.get(resource, ".aim.eai.amd.com" if name.startswith("aim") else "")
        found[f"{resource}/{below}".rstrip("/")] = frozenset(verbs.split())
    return found


OF_GROUP = {
    "jobs": ".batch",
    "deployments": ".apps",
    "roles": ".rbac.authorization.k8s.io",
    "rolebindings": ".rbac.authorization.k8s.io",
    "storageclasses": ".storage.k8s.io",
    "inferenceservices": ".serving.kserve.io",
}
READ = "get list watch"
DOWNLOADS = rights(
    persistentvolumeclaims=f"{READ} create patch",
    jobs=f"{READ} create patch delete",
    serviceaccounts="get create patch",
    roles="get create patch",
    rolebindings="get create patch",
    pods=READ,
    pods__log="get",
)
OF_ALL = rights(aimruntimeconfigs=READ, events="list create")
IN_NAMESPACES = {
    "AIMArtifact": DOWNLOADS | rights(aimartifacts=f"{READ} patch", aimartifacts__status="patch"),
    "AIMModelCache": DOWNLOADS
    | rights(aimmodelcaches=f"{READ} patch", aimmodelcaches__status="patch"),
    "AIMTemplateCache": rights(
        aimtemplatecaches=f"{READ} patch",
        aimtemplatecaches__status="patch",
        aimartifacts=f"{READ} create patch delete",
        aimmodelcaches=READ,
        aimservicetemplates=READ,
        namespaces="get",
    ),
    "AIMServiceTemplate": rights(
        aimservicetemplates=READ,
        aimservicetemplates__status="patch",
        aimtemplatecaches=f"{READ} create patch",
    ),
    "AIMClusterServiceTemplate": {},
    "AIMService": rights(
        aimservices=f"{READ} patch",
        aimservices__status="patch",
        aimtemplatecaches=f"{READ} create patch delete",
        aimservicetemplates=READ,
        aimmodels=READ,
        inferenceservices=f"{READ} create patch",
        deployments=f"{READ} create patch",
        services="get create patch",
        pods="list",
        namespaces="get",
    ),
}
OF_THE_CLUSTER = rights(aimclusterruntimeconfigs=READ)
IN_THE_CLUSTER = {
    "AIMArtifact": rights(storageclasses="get list"),
    "AIMModelCache": rights(storageclasses="get list"),
    "AIMTemplateCache": rights(storageclasses="get list", aimclusterservicetemplates=READ),
    "AIMServiceTemplate": {},
    "AIMClusterServiceTemplate": rights(
        aimclusterservicetemplates=READ, aimclusterservicetemplates__status="patch"
    ),
    "AIMService": rights(aimclusterservicetemplates=READ, aimclustermodels=READ),
}


def together(*tables: Rights) -> Rights:
    """What several tables allow."""
    resources = {resource for table in tables for resource in table}
    none: frozenset[str] = frozenset()
    return {each: none.union(*(table.get(each, none) for table in tables)) for each in resources}


def in_the_cluster(*kinds: str) -> Rights:
    return together(OF_THE_CLUSTER, *(IN_THE_CLUSTER[kind] for kind in kinds))


def everywhere(*kinds: str) -> Rights:
    of_kinds = (IN_NAMESPACES[kind] for kind in kinds)
    return together(OF_ALL, in_the_cluster(*kinds), *of_kinds)


@dataclass(frozen=True)
class Account:
    """The operator's account in a cluster."""

    namespace: Namespace
    name: str

    @property
    def user(self) -> str:
        return f"--as=system:serviceaccount:{self.namespace.name}:{self.name}"

    def rights(self, namespace: Namespace) -> Rights:
        """What it may do in a namespace beyond what every account may, by resource."""
        rights = _rights(namespace, self.user)
        common = _rights(namespace, self.user.replace(self.name, "nobody"))
        return {resource: rights[resource] for resource in rights.keys() - common.keys()}


def _rights(namespace: Namespace, user: str) -> Rights:
    lines = namespace.kubectl("auth", "can-i", "--list", "--no-headers", user).splitlines()
    found = [re.match(r"(\S+) .*\[([^\[]*)\]$", line) for line in lines]
    return together(*({match[1]: frozenset(match[2].split())} for match in found if match))


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
    namespace.cluster.kubectl("apply", "-f", "-", input=rendered)
    wait_until_rights_are_seen(namespace)
    yield Account(namespace, f"of-{namespace.name}-aim-operator")
    namespace.cluster.kubectl("delete", "--wait=false", "-f", "-", input=rendered)


def test_it_may_do_what_it_does_and_no_more(account: Account, control_plane: Cluster) -> None:
    with control_plane.namespace() as other:
        assert account.rights(other) == everywhere(*KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_for_one_kind_it_may_do_what_that_needs(
    helm: Helm, control_plane: Cluster, kind: str
) -> None:
    options = [word for option in only(kind) for word in ("--set", option)]
    with control_plane.namespace() as namespace:
        for account in installed(helm, namespace, *options):
            assert account.rights(namespace) == everywhere(kind)


def test_with_all_kinds_switched_off_it_may_do_nothing(helm: Helm, control_plane: Cluster) -> None:
    options = [word for option in only() for word in ("--set", option)]
    with control_plane.namespace() as namespace:
        for account in installed(helm, namespace, *options):
            assert account.rights(namespace) == {}


def test_with_a_list_of_namespaces_it_may_do_it_only_there(
    account_of_one_namespace: Account, control_plane: Cluster
) -> None:
    account = account_of_one_namespace
    assert account.rights(account.namespace) == everywhere(*KINDS)
    with control_plane.namespace() as other:
        assert account.rights(other) == in_the_cluster(*KINDS)


OF_ARTIFACT = {"apiGroups": ["aim.eai.amd.com"], "resourceNames": ["any"]}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({**OF_ARTIFACT, "resources": ["aimartifacts/status"], "verbs": ["patch"]}, None),
        ({**OF_ARTIFACT, "resources": ["aimmodelcaches/status"], "verbs": ["patch"]}, None),
        (
            {**OF_ARTIFACT, "resources": ["aimartifacts/status"], "verbs": ["update"]},
            "not currently held",
        ),
        ({**OF_ARTIFACT, "resources": ["aimartifacts"], "verbs": ["update"]}, "not currently held"),
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
        process.wait(60)


MODEL: dict[str, Any] = {"modelId": "org/model", "sourceUri": "hf://org/other", "size": "1Gi"}
TEMPLATE = {"modelName": "qwen", "modelSources": [MODEL]}


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


def test_its_rights_are_enough_for_caches_and_services(
    account_of_one_namespace: Account, tmp_path: Path
) -> None:
    namespace = account_of_one_namespace.namespace
    cluster, node = namespace.cluster, FakeNode(namespace)
    of_cluster = f"of-{namespace.name}"
    with our_kinds(cluster), operator(account_of_one_namespace, tmp_path):
        namespace.apply(
            custom("AIMModelCache", "older", {"sourceUri": "hf://org/older", "size": "1Gi"}),
            custom("AIMModel", "qwen", {"image": "registry.test/qwen:1"}),
            custom("AIMServiceTemplate", "qwen", {**TEMPLATE, "caching": {"enabled": True}}),
            custom("AIMClusterServiceTemplate", of_cluster, TEMPLATE),
            custom("AIMTemplateCache", "lonely", {"templateName": "nobody"}),
            custom("AIMService", "shared", service("Shared")),
            custom("AIMService", "dedicated", service("Dedicated")),
        )
        ready = json.dumps({"status": {"status": "Ready"}})
        how = ("--subresource=status", "--type=merge", "--patch", ready)
        namespace.kubectl("patch", "aimmodel", "qwen", *how)
        cluster.wait_for(lambda: served(namespace, node), 120, "both are served")
        of_templates = namespace.get("aimclusterservicetemplate", of_cluster)
        namespace.kubectl("delete", "aimclusterservicetemplate", of_cluster)
        everything = "aimservice,aimtemplatecache,aimservicetemplate,aimartifact,aimmodelcache"
        namespace.kubectl("delete", everything, "--all", "--wait", "--timeout=150s")
    node.clear()
    assert of_templates["status"]["status"] == "Ready"
    assert "forbidden" not in (tmp_path / "log").read_text("utf-8").lower()


def service(mode: str) -> dict[str, Any]:
    return {
        "model": {"name": "qwen"},
        "template": {"name": "qwen"},
        "caching": {"mode": mode},
    }


def served(namespace: Namespace, node: FakeNode) -> bool:
    """Whether there is for both services what serves them; downloads go on meanwhile."""
    node.work()
    made = (namespace.listed(kind, LABEL_SERVICE) for kind in ("deployment", "service"))
    return [len(each) for each in made] == [2, 2]


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
