"""Template caches on a real API server, with the operator as a program of its own.

Objects are those that users apply; what becomes of artifacts is told by hand, as no Job runs here.
Each test has a name of its own for its objects and its models, as all share two namespaces.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from operator_shim.names import claim_name
from operator_shim.objects import Object, annotations_of, at, labels_of, name_of, uid_of
from tests.cluster.artifacts import set_status
from tests.cluster.client import Cluster, Namespace
from tests.operator.fakes import reasons
from tests.operator.kinds import custom, our_kinds
from tests.operator.line import Line
from tests.operator.program import Program, looking_after

KINDS = "AIMTemplateCache,AIMServiceTemplate,AIMClusterServiceTemplate"
FINALIZER = "aim.eai.amd.com/artifactcleanup"
TOKEN = [{"name": "HF_TOKEN", "value": "t"}]

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


class Place:
    """What a test has in a namespace, all under its own name."""

    def __init__(self, space: Namespace, line: Line) -> None:
        self.space = space
        self.line = line
        self.name = f"t{secrets.token_hex(4)}"

    # -- what users apply ----------------------------------------------------------------------

    def source(self, what: str = "one") -> dict[str, str]:
        model = f"{self.name}/{what}"
        return {"modelId": model, "sourceUri": f"hf://{model}"}

    def template(self, *what: str, kind: str = "AIMServiceTemplate", **spec: Any) -> Object:
        sources = [self.source(each) for each in what or ("one",)]
        return custom(kind, self.name, {"modelName": "m", "modelSources": sources, **spec})

    def cache(self, suffix: str = "", **spec: Any) -> Object:
        wanted = {"templateName": self.name, "templateScope": "Namespace", **spec}
        return custom("AIMTemplateCache", self.name + suffix, wanted)

    def artifact(self, suffix: str, what: str = "one", **spec: Any) -> Object:
        wanted = {"sourceUri": self.source(what)["sourceUri"], **spec}
        return custom("AIMArtifact", self.name + suffix, wanted)

    def apply(self, *objects: Object) -> None:
        self.space.apply(*objects)

    def delete(self, suffix: str = "", kind: str = "aimtemplatecache") -> None:
        self.space.kubectl("delete", kind, self.name + suffix, "--timeout=150s")

    # -- what there is -------------------------------------------------------------------------

    def artifacts(self) -> dict[str, Object]:
        """Those of this test, by model."""
        found = self.line.listed("AIMArtifact", self.space.name)
        prefix = f"hf://{self.name}/"
        return {
            at(each, "spec.sourceUri").removeprefix(prefix): each
            for each in found
            if at(each, "spec.sourceUri").startswith(prefix)
        }

    def status(self, suffix: str = "") -> Object:
        found = self.line.get("AIMTemplateCache", self.space.name, self.name + suffix)
        return found.get("status", {})  # type: ignore[no-any-return]

    def becomes(
        self, what: str, state: str, reason: str = "Progressing", message: str = ""
    ) -> None:
        """An artifact gets to a state, as its operator tells it."""
        artifact = self.artifacts()[what]
        ready = {
            "type": "Ready",
            "status": "True" if state == "Ready" else "False",
            "reason": reason,
            "message": message,
            "lastTransitionTime": "2026-01-31T10:00:00Z",
        }
        claim = claim_name(name_of(artifact), uid_of(artifact))
        told = {"status": state, "conditions": [ready], "persistentVolumeClaim": claim}
        self.line.tell("AIMArtifact", artifact, told)

    # -- waiting -------------------------------------------------------------------------------

    def until(self, look: Callable[[], Any], what: str = "") -> Any:
        return self.space.cluster.wait_for(look, what=what)

    def until_made(self, *what: str) -> None:
        wanted = set(what or ("one",))
        self.until(lambda: set(self.artifacts()) == wanted, f"artifacts of {wanted}")

    def until_state(self, state: str, reason: str = "", suffix: str = "") -> Object:
        def is_so() -> Object:
            status = self.status(suffix)
            told = reasons(status)["Ready"] if status else ""
            return status if status.get("status") == state and told.endswith(reason) else {}

        found: Object = self.until(is_so, f"{self.name}{suffix} is {state}")
        return found

    def until_listed(self, suffix: str = "") -> None:
        """The cache has named an artifact as its own."""
        self.until(lambda: self.status(suffix).get("artifacts"))

    def message(self, suffix: str = "") -> str:
        told = self.status(suffix)["conditions"]
        return str(next(each["message"] for each in told if each["type"] == "Ready"))


@pytest.fixture(scope="module")
def spaces(control_plane: Cluster) -> Iterator[tuple[Namespace, Namespace]]:
    with our_kinds(control_plane) as cluster, cluster.namespace() as a, cluster.namespace() as b:
        yield a, b


@pytest.fixture(scope="module")
def operator(
    spaces: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    with looking_after(spaces, KINDS, tmp_path_factory.mktemp("operator")) as program:
        yield program


@pytest.fixture(scope="module")
def line(spaces: tuple[Namespace, Namespace]) -> Iterator[Line]:
    with closing(Line(spaces[0].cluster)) as line:
        yield line


@pytest.fixture
def place(operator: Program, spaces: tuple[Namespace, Namespace], line: Line) -> Place:
    assert operator.process.poll() is None
    return Place(spaces[0], line)


# -- from a template to its models -------------------------------------------------------------


def test_a_template_and_its_cache_go_from_nothing_to_ready(place: Place) -> None:
    place.apply(place.template("one", "two"), place.cache(env=TOKEN))
    place.until_made("one", "two")
    place.becomes("one", "Ready")
    status = place.until_state("Progressing")
    assert reasons(status)["ServiceTemplateReady"] == "True AllComponentsReady"
    place.becomes("two", "Ready")
    status = place.until_state("Ready", "AllComponentsReady")
    assert {each["model"]: each["status"] for each in status["artifacts"].values()} == {
        f"{place.name}/one": "Ready",
        f"{place.name}/two": "Ready",
    }
    assert {each["persistentVolumeClaim"] for each in status["artifacts"].values()} == {
        claim_name(name_of(each), uid_of(each)) for each in place.artifacts().values()
    }
    assert status["observedGeneration"] == 1
    assert status["resolvedTemplateKind"] == "AIMServiceTemplate"
    cache = place.space.get("aimtemplatecache", place.name)
    assert cache["metadata"]["finalizers"] == [FINALIZER]
    assert set(annotations_of(cache)) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    about = f"involvedObject.kind=AIMTemplateCache,involvedObject.name={place.name}"
    for reason in ("ArtifactCreated", "Ready"):
        # They are written after the status.
        command = ("get", "events", "-o", "name", "--field-selector", f"{about},reason={reason}")
        place.until(lambda: place.space.kubectl(*command), f"an event {reason}")  # noqa: B023


def test_a_template_of_the_cluster_is_found_when_its_scope_says_so_or_says_nothing(
    place: Place,
) -> None:
    cluster = place.space.cluster
    template = place.template(kind="AIMClusterServiceTemplate")
    cluster.kubectl("apply", "-f", "-", input=json.dumps(template))
    try:
        place.apply(
            place.cache("-cluster", templateScope="Cluster"),
            custom("AIMTemplateCache", f"{place.name}-any", {"templateName": place.name}),
            place.cache("-namespace"),
        )
        for suffix in ("-cluster", "-any"):
            status = place.until_state("Progressing", suffix=suffix)
            assert status["resolvedTemplateKind"] == "AIMClusterServiceTemplate"
        place.until_state("Failed", "ReferenceNotFound", "-namespace")
        assert len(place.artifacts()) == 1
    finally:
        cluster.kubectl("delete", "aimclusterservicetemplate", place.name)


def test_a_missing_template_is_told_and_healed_when_it_comes(place: Place) -> None:
    place.apply(place.cache(templateScope="Unknown"))
    place.until_state("Failed", "ReferenceNotFound")
    assert "create one" in place.message()
    place.apply(place.template())
    place.until_made("one")
    place.until_state("Progressing")


def test_a_missing_runtime_config_is_told_and_healed_when_it_comes(place: Place) -> None:
    place.apply(place.template(), place.cache(runtimeConfigName=place.name))
    place.until_state("Failed", "ReferenceNotFound")
    place.apply(custom("AIMRuntimeConfig", place.name, {}))
    place.until_made("one")
    reference = place.until_state("Progressing")["resolvedRuntimeConfig"]
    assert (reference["kind"], reference["scope"]) == ("AIMRuntimeConfig", "Namespace")


def test_a_cache_of_the_older_way_is_understood(place: Place) -> None:
    place.apply(
        place.template(), custom("AIMTemplateCache", place.name, {"templateRef": place.name})
    )
    place.until_made("one")
    status = place.until(lambda: place.status() if place.status().get("modelCaches") else None)
    assert status["modelCaches"] == status["artifacts"]


def test_a_model_that_fails_is_told_in_one_look(place: Place) -> None:
    place.apply(place.template(), place.cache())
    place.until_made("one")
    place.becomes("one", "Failed", "AuthError", "the Hub says 401: give it a token")
    status = place.until_state("Failed", "AuthError")
    assert reasons(status)["AuthValid"] == "False AuthError"
    assert "the Hub says 401: give it a token" in place.message()


def test_models_that_a_template_gains_and_loses(place: Place) -> None:
    place.apply(place.template("one"), place.cache())
    place.until_made("one")
    place.apply(place.template("two"))
    place.until_made("one", "two")

    def models() -> list[str]:
        return [each["model"] for each in place.status()["artifacts"].values()]

    place.until(lambda: models() == [f"{place.name}/two"], "the first has left the status")


# -- reuse -------------------------------------------------------------------------------------


def test_of_artifacts_that_users_made_the_best_is_used(place: Place) -> None:
    states = {"-a": "Failed", "-mine": "Ready", "-z": "Progressing"}
    place.apply(*map(place.artifact, states))
    for suffix, state in states.items():
        made = place.space.get("aimartifact", place.name + suffix)
        claim = claim_name(name_of(made), uid_of(made))
        place.line.tell("AIMArtifact", made, {"status": state, "persistentVolumeClaim": claim})
    place.apply(place.template(), place.cache())
    status = place.until_state("Ready")
    assert list(status["artifacts"]) == [f"{place.name}-mine"]
    uri = place.source()["sourceUri"]
    there = place.line.listed("AIMArtifact", place.space.name)
    assert len([each for each in there if at(each, "spec.sourceUri") == uri]) == len(states)


def test_a_model_cache_of_the_older_kind_is_used(place: Place) -> None:
    older = custom("AIMModelCache", place.name, {"sourceUri": place.source()["sourceUri"]})
    place.apply(older)
    claim = f"{place.name}-cache"
    patch = {"status": {"status": "Available", "persistentVolumeClaim": claim}}
    how = ("--subresource=status", "--type=merge", "-p", json.dumps(patch))
    place.space.kubectl("patch", "aimmodelcache", place.name, *how)
    place.apply(place.template(), place.cache())
    status = place.until_state("Ready")
    assert status["artifacts"][place.name]["persistentVolumeClaim"] == claim
    assert not place.artifacts()


def test_a_second_cache_of_the_same_models_waits_for_what_the_first_has_begun(
    place: Place,
) -> None:
    place.apply(place.template(), place.cache())
    place.until_made("one")
    other = {**place.template(), "metadata": {"name": f"{place.name}-other"}}
    place.apply(other, place.cache("-2", templateName=f"{place.name}-other"))
    place.until_listed("-2")
    place.becomes("one", "Ready")
    for suffix in ("", "-2"):
        place.until_state("Ready", suffix=suffix)
    assert len(place.artifacts()) == 1


def test_another_endpoint_is_another_model(place: Place) -> None:
    mirror = [{"name": "HF_ENDPOINT", "value": "https://mirror.test"}]
    place.apply(place.artifact("-mine"))
    place.becomes("one", "Ready")
    place.apply(place.template(), place.cache(env=mirror))
    place.until_state("Progressing")
    uri = place.source()["sourceUri"]
    found = [
        each for each in place.space.listed("aimartifacts") if at(each, "spec.sourceUri") == uri
    ]
    assert len(found) == 2


def test_the_default_class_by_name_is_the_class_of_an_artifact_that_names_none(
    place: Place,
) -> None:
    cluster = place.space.cluster
    note = {"storageclass.kubernetes.io/is-default-class": "true"}
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
    metadata = {"name": place.name, "annotations": note}
    cluster.apply({**kind, "metadata": metadata, "provisioner": "none.test/none"})
    try:
        place.apply(place.artifact("-mine"))
        place.becomes("one", "Ready")
        place.apply(place.template(), place.cache(storageClassName=place.name))
        place.until_state("Ready")
    finally:
        cluster.kubectl("delete", "storageclass", place.name)


def test_what_an_artifact_names_that_is_not_its_own_claim_is_not_mounted(place: Place) -> None:
    place.apply(place.artifact("-mine"), place.template(), place.cache())
    place.becomes("one", "Ready")
    place.until_state("Ready")
    set_status(place.space, f"{place.name}-mine", {"persistentVolumeClaim": "postgres-data"})
    status = place.until_state("Progressing")
    [entry] = status["artifacts"].values()
    assert "persistentVolumeClaim" not in entry
    assert "names no claim of its own" in place.message()


# -- dedicated ---------------------------------------------------------------------------------


def test_a_dedicated_cache_has_artifacts_of_its_own_that_go_with_it(place: Place) -> None:
    place.apply(place.artifact("-mine"))
    place.becomes("one", "Ready")
    place.apply(place.template(), place.cache(mode="Dedicated"))

    def own() -> Object | None:
        uid = uid_of(place.space.get("aimtemplatecache", place.name))
        return next(
            (
                each
                for each in place.space.listed("aimartifacts")
                if at(each, "metadata.ownerReferences", [{}])[0].get("uid") == uid
            ),
            None,
        )

    made = place.until(own, "its own artifact")
    assert at(made, "metadata.ownerReferences")[0]["controller"] is True
    claim = claim_name(name_of(made), uid_of(made))
    set_status(place.space, name_of(made), {"status": "Ready", "persistentVolumeClaim": claim})
    place.until_state("Ready")
    place.delete()
    gone = name_of(made)
    place.until(
        lambda: gone not in {name_of(each) for each in place.space.listed("aimartifacts")},
        "its artifact is gone, though Ready",
    )
    assert name_of(place.artifacts()["one"]) == f"{place.name}-mine"


# -- deletion ----------------------------------------------------------------------------------


def test_deleted_models_that_are_there_stay_and_others_go(place: Place) -> None:
    place.apply(place.template("one", "two", "three"), place.cache())
    place.until_made("one", "two", "three")
    place.becomes("one", "Ready")
    place.becomes("two", "Failed", "AuthError")
    place.delete()
    place.until_made("one")


def test_deleted_what_another_cache_waits_for_stays(place: Place) -> None:
    place.apply(place.template(), place.cache(), place.cache("-2"))
    place.until_made("one")
    for suffix in ("", "-2"):
        place.until_listed(suffix)
    uid = uid_of(place.artifacts()["one"])
    labels = labels_of(place.artifacts()["one"])
    creator = labels["aim.eai.amd.com/template-cache.name"].removeprefix(place.name)
    other = "-2" if not creator else ""
    place.delete(creator)
    assert uid_of(place.artifacts()["one"]) == uid
    place.becomes("one", "Ready")
    place.until_state("Ready", suffix=other)


def test_deleted_and_made_again_it_uses_what_is_there(place: Place) -> None:
    place.apply(place.template(), place.cache())
    place.until_made("one")
    place.becomes("one", "Ready")
    place.until_state("Ready")
    uid = uid_of(place.artifacts()["one"])
    place.delete()
    place.apply(place.cache())
    place.until_state("Ready")
    assert uid_of(place.artifacts()["one"]) == uid


def test_an_artifact_that_is_deleted_is_made_again(place: Place) -> None:
    place.apply(place.template(), place.cache())
    place.until_made("one")
    place.becomes("one", "Ready")
    place.until_state("Ready")
    uid = uid_of(place.artifacts()["one"])
    place.space.kubectl("delete", "aimartifact", name_of(place.artifacts()["one"]))
    place.until(lambda: uid_of(place.artifacts().get("one", {})) not in ("", uid))
    place.until_state("Progressing")


def test_a_paused_cache_is_left_alone_and_still_cleaned_up(place: Place, operator: Program) -> None:
    place.apply(place.template(), place.cache())
    place.until_made("one")
    place.until_state("Progressing")

    def annotate(note: str) -> None:
        before = operator.mark()
        place.space.kubectl("annotate", "aimtemplatecache", place.name, note)
        operator.wait_for_pass(f"AIMTemplateCache {place.space.name}/{place.name}", before)

    annotate("aim.eai.amd.com/reconciliation-paused=true")
    place.becomes("one", "Failed", "AuthError")
    # A second pass begins when the first is over.
    annotate("example.com/first=x")
    annotate("example.com/second=x")
    assert place.status()["status"] == "Progressing"
    place.delete()
    place.until(lambda: not place.artifacts(), "what it made is gone")


def test_others_finalizers_stay_in_the_list(place: Place) -> None:
    theirs = "others.test/theirs"
    cache = place.cache()
    cache["metadata"]["finalizers"] = [theirs]
    place.apply(place.template(), cache)
    place.until_made("one")
    where = ("get", "aimtemplatecache", place.name, "-o", "jsonpath={.metadata.finalizers}")
    assert json.loads(place.space.kubectl(*where)) == [theirs, FINALIZER]
    place.space.kubectl("delete", "aimtemplatecache", place.name, "--wait=false")
    place.until(lambda: json.loads(place.space.kubectl(*where)) == [theirs])
    patch = ("--type=json", "-p", '[{"op": "remove", "path": "/metadata/finalizers"}]')
    place.space.kubectl("patch", "aimtemplatecache", place.name, *patch)


def test_a_namespace_that_is_deleted_is_not_held_up(
    operator: Program, spaces: tuple[Namespace, Namespace], line: Line
) -> None:
    place = Place(spaces[1], line)
    assert operator.process.poll() is None
    place.apply(place.template(), place.cache(), place.cache("-own", mode="Dedicated"))
    place.until_listed()
    place.until_listed("-own")
    place.space.kubectl("delete", "namespace", place.space.name, "--wait=false")
    cluster = place.space.cluster

    def is_gone() -> bool:
        names = cluster.kubectl("get", "namespaces", "-o", "name")
        return f"namespace/{place.space.name}\n" not in names

    cluster.wait_for(is_gone, 150, "the namespace is gone")
    # As the one who made it deletes it in the end.
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.space.name}})


# -- templates ---------------------------------------------------------------------------------


def test_a_template_that_names_its_models_becomes_ready_and_keeps_what_else_it_has(
    place: Place,
) -> None:
    place.apply(place.template(hardware={"gpu": {"model": "MI300X"}}))

    def told() -> Object | None:
        found = place.space.get("aimservicetemplate", place.name)
        return found if at(found, "status.status") == "Ready" else None

    template = place.until(told, "the template is Ready")
    assert template["status"]["modelSources"] == [place.source()]
    assert reasons(template["status"])["Discovered"] == "True InlineModelSources"
    assert template["spec"]["hardware"] == {"gpu": {"model": "MI300X"}}
    empty = json.dumps({"spec": {"modelSources": []}})
    place.space.kubectl("patch", "aimservicetemplate", place.name, "--type=merge", "-p", empty)
    place.until(
        lambda: (
            "modelSources"
            not in place.space.get("aimservicetemplate", place.name).get("status", {})
        ),
        "nothing is told any more",
    )


def test_a_template_without_models_of_its_own_is_not_touched(
    place: Place, operator: Program
) -> None:
    place.apply(custom("AIMServiceTemplate", place.name, {"modelName": "m"}), place.cache())
    place.until_state("Pending")
    assert "spec.modelSources" in place.message()
    operator.wait_for_pass(f"AIMServiceTemplate {place.space.name}/{place.name}")
    assert "status" not in place.space.get("aimservicetemplate", place.name)


def test_a_template_whose_status_another_tells_keeps_it(place: Place) -> None:
    place.apply(custom("AIMServiceTemplate", place.name, {"modelName": "m"}))
    for number, state in enumerate(("NotAvailable", "Failed", "Degraded")):
        patch = {"status": {"status": state}}
        how = ("--subresource=status", "--type=merge", "-p", json.dumps(patch))
        place.space.kubectl("patch", "aimservicetemplate", place.name, *how)
        if not number:
            place.apply(place.template(), place.cache())
        place.until_state(state)
        template = place.space.get("aimservicetemplate", place.name)
        assert template["status"] == {"status": state}


def test_who_tells_something_else_of_a_template_does_not_keep_us_from_it(place: Place) -> None:
    place.apply(custom("AIMServiceTemplate", place.name, {"modelName": "m"}))
    patch = {"status": {"hardwareSummary": "8 x MI300X"}}
    how = ("--subresource=status", "--type=merge", "-p", json.dumps(patch))
    place.space.kubectl("patch", "aimservicetemplate", place.name, *how)
    place.apply(place.template())

    def told() -> Object | None:
        status: Object = place.space.get("aimservicetemplate", place.name)["status"]
        return status if status.get("status") == "Ready" else None

    assert place.until(told, "the template is Ready")["hardwareSummary"] == "8 x MI300X"


def test_a_template_that_asks_for_a_cache_gets_one_that_goes_with_it(place: Place) -> None:
    place.apply(place.template(caching={"enabled": True, "env": TOKEN}))
    place.until_made("one")
    cache = place.space.get("aimtemplatecache", place.name)
    (owner,) = cache["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"]) == ("AIMServiceTemplate", True)
    assert at(place.artifacts()["one"], "spec.env") == TOKEN
    template = "aim.eai.amd.com/service-template.name"
    assert labels_of(place.artifacts()["one"])[template] == place.name
    place.delete()
    place.until(lambda: uid_of(place.space.get("aimtemplatecache", place.name)) != uid_of(cache))
    place.delete(kind="aimservicetemplate")

    def caches() -> set[str]:
        return {name_of(each) for each in place.space.listed("aimtemplatecaches")}

    place.until(lambda: place.name not in caches(), "its cache is gone")
    place.until(lambda: not place.artifacts(), "what was not Ready is gone")
