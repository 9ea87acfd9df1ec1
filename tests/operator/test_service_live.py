"""Services on a real API server, with the operator as a program of its own.

Objects are those that users apply. No node is there, and KServe is a kind without a controller:
what becomes of artifacts and servers is told by hand. Each test has names of its own.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from operator_shim.names import claim_name, derived_name
from operator_shim.objects import (
    Object,
    annotations_of,
    at,
    is_controlled_by,
    labels_of,
    name_of,
    uid_of,
)
from tests.cluster.client import Cluster, KubectlError, Namespace
from tests.cluster.fixtures import leave_out, meeting
from tests.cluster.programs import trouble
from tests.cluster.sharing import shared
from tests.operator.fakes import reasons
from tests.operator.kinds import custom, our_kinds
from tests.operator.line import Line
from tests.operator.program import Program, looking_after

KSERVE = Path(__file__).parents[1] / "cluster" / "crds" / "inferenceservice.yaml"
CRD_OF_KSERVE = "crd/inferenceservices.serving.kserve.io"
KINDS = "AIMService,AIMTemplateCache,AIMServiceTemplate,AIMClusterServiceTemplate"
FINALIZER = "aim.eai.amd.com/template-cache-cleanup"
SHARED = {"mode": "Shared"}
DEDICATED = {"mode": "Dedicated"}
PAUSED = "aim.eai.amd.com/reconciliation-paused=true"
MERGE = ("--type=merge", "-p")

# Others may be alone in the cluster for a while.
pytestmark = pytest.mark.timeout(300)


class Place:
    """What a test has in a namespace, all under its own name."""

    def __init__(self, space: Namespace, line: Line) -> None:
        self.space = space
        self.line = line
        self.name = f"t{secrets.token_hex(4)}"
        self.image = f"org/{self.name}:1"
        self.cache_name = derived_name([self.name], [space.name])

    # -- what users apply ----------------------------------------------------------------------

    def model(self, kind: str = "AIMModel") -> Object:
        return custom(kind, self.name, {"image": self.image})

    def template(self, kind: str = "AIMServiceTemplate") -> Object:
        sources = [
            {"modelId": f"{self.name}/{each}", "sourceUri": f"hf://{self.name}/{each}"}
            for each in ("one", "two")
        ]
        return custom(kind, self.name, {"modelName": self.name, "modelSources": sources})

    def service(self, suffix: str = "", caching: Object | None = None, **spec: Any) -> Object:
        mode = {"caching": SHARED if caching is None else caching}
        wanted = {"model": {"image": self.image}, **mode, **spec}
        return custom("AIMService", self.name + suffix, wanted)

    def apply(self, *objects: Object) -> None:
        self.space.apply(*objects)

    def create_what_is_offered(self, condition: str, *options: str) -> None:
        """Hand kubectl what stands between the back-ticks of a condition's message."""
        offered = self.message(condition).split("`")[1::2]
        assert offered
        for each in offered:
            self.space.kubectl("apply", *options, "-f", "-", input=each)

    def delete(self, kind: str, suffix: str = "") -> None:
        self.space.kubectl("delete", kind, self.name + suffix, "--timeout=150s")

    # -- what there is -------------------------------------------------------------------------

    def get(self, suffix: str = "") -> Object:
        return self.line.get("AIMService", self.space.name, self.name + suffix)

    def told(self, suffix: str = "") -> dict[str, str]:
        status = self.get(suffix).get("status", {})
        return {"status": status["status"], **reasons(status)} if status else {}

    def message(self, kind: str = "Ready", suffix: str = "") -> str:
        told = self.get(suffix)["status"]["conditions"]
        return str(next(each["message"] for each in told if each["type"] == kind))

    def caches(self) -> list[Object]:
        found = self.line.listed("AIMTemplateCache", self.space.name)
        return [each for each in found if at(each, "spec.templateName") == self.name]

    def state_of_cache(self, name: str) -> str:
        found = self.line.get("AIMTemplateCache", self.space.name, name)
        return str(at(found, "status.status", ""))

    def artifacts(self) -> list[Object]:
        found = self.line.listed("AIMArtifact", self.space.name)
        return [each for each in found if self.name in at(each, "spec.sourceUri")]

    def claims(self) -> dict[str, str]:
        """What each of the artifacts, by its model, has its model in."""
        return {
            at(each, "spec.sourceUri").rpartition("/")[2]: claim_name(name_of(each), uid_of(each))
            for each in self.artifacts()
        }

    def server(self, suffix: str = "") -> Object:
        name = derived_name([self.name + suffix], [self.space.name])
        return self.line.get("InferenceService", self.space.name, name)

    def own_server(self, suffix: str = "") -> Object:
        server = self.server(suffix)
        return server if is_controlled_by(server, uid_of(self.get(suffix))) else {}

    # -- what becomes of it --------------------------------------------------------------------

    def download(self, state: str = "Ready") -> None:
        """All artifacts of the template that have not got to this state get there."""

        def made() -> list[Object]:
            waiting = [each for each in self.artifacts() if at(each, "status.status") != state]
            return waiting if len(waiting) > 1 else []

        for each in self.until(made, "two artifacts"):
            claim = claim_name(name_of(each), uid_of(each))
            told = {"status": state, "persistentVolumeClaim": claim}
            self.line.tell("AIMArtifact", each, told)

    def serve(self, suffix: str = "") -> None:
        """The server comes up."""
        # That of an earlier service of the name may still be there.
        server = self.until(lambda: self.own_server(suffix), "a server")
        ready = {"type": "Ready", "status": "True"}
        self.line.tell("InferenceService", server, {"conditions": [ready]})

    def run(self, *objects: Object) -> None:
        """From nothing to a service that runs."""
        self.apply(self.model(), self.template(), *(objects or (self.service(),)))
        self.download()
        self.serve()
        self.until_status("Running")

    # -- waiting -------------------------------------------------------------------------------

    def told_of(self, reason: str) -> str:
        """What the events of this reason say, each on a line."""
        about = f"involvedObject.kind=AIMService,involvedObject.name={self.name},reason={reason}"
        lines = 'jsonpath={range .items[*]}{.message}{"\\n"}{end}'
        command = ("get", "events", "-o", lines, "--field-selector", about)
        return str(self.space.kubectl(*command)).strip()

    def until_told_of(self, reason: str) -> str:
        """That, once there are some; events are written after the status."""
        return str(self.until(lambda: self.told_of(reason), f"an event {reason}"))

    def until(self, look: Callable[[], Any], what: str = "") -> Any:
        return self.space.cluster.wait_for(look, 120, what)

    def until_status(self, status: str, condition: str = "", suffix: str = "") -> None:
        def is_so() -> bool:
            told = self.told(suffix)
            return told.get("status") == status and condition in ("", told.get("CacheReady"))

        try:
            self.until(is_so, f"{self.name}{suffix} is {status} {condition}")
        except TimeoutError:
            print(self.space.kubectl("describe", "aimservice", self.name + suffix))
            raise


@pytest.fixture(scope="module")
def cluster_with_kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of its own: in that of other tests services are to be served without KServe."""
    leave_out(trouble(node=False))
    with shared(meeting(tmp_path_factory, "kserve")) as share:
        cluster = share.control_plane()
        cluster.kubectl("apply", "--server-side", "-f", str(KSERVE))
        cluster.kubectl("wait", "--for=condition=Established", CRD_OF_KSERVE, "--timeout=150s")
        yield cluster


@pytest.fixture(scope="module")
def spaces(cluster_with_kserve: Cluster) -> Iterator[tuple[Namespace, Namespace]]:
    with our_kinds(cluster_with_kserve) as it, it.namespace() as a, it.namespace() as b:
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


# -- from a model to a service that runs -------------------------------------------------------


def test_the_example_of_the_documents_goes_from_nothing_to_running(place: Place) -> None:
    place.apply(place.service(replicas=2, routing={"enabled": True}))
    place.until_status("Failed")
    assert f"no AIMModel in namespace {place.space.name}" in place.message()
    # What the condition says to create can be created, word for word.
    place.create_what_is_offered("ModelReady")
    place.until(lambda: "create one, as `{" in place.message("TemplateReady"))
    place.create_what_is_offered("TemplateReady", "--dry-run=server")
    place.apply(place.template())
    place.until_status("Starting", "False CacheNotReady")
    assert f"hf://{place.name}/one" in place.message("CacheReady")
    place.download()
    place.serve()
    place.until_status("Running", "True CacheReady")

    service, [cache] = place.get(), place.caches()
    assert name_of(cache) == place.cache_name
    [owner] = cache["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], "controller" in owner) == (
        *("AIMServiceTemplate", place.name, False),
    )
    status = service["status"]
    assert status["cache"]["templateCacheRef"]["uid"] == uid_of(cache)
    assert status["resolvedModel"]["name"] == place.name
    assert status["resolvedTemplate"]["scope"] == "Namespace"
    assert service["metadata"]["finalizers"] == [FINALIZER]
    assert set(annotations_of(service)) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    assert service["spec"]["routing"] == {"enabled": True}
    shown = place.space.kubectl("get", "aimservice", place.name).split()
    assert shown[shown.index(place.name) : -1] == [place.name, "Running", *[place.name] * 2, "2"]
    for reason in ("CacheCreated", "ServerCreated", "Running"):
        place.until_told_of(reason)


def test_labels_lead_from_the_service_to_all_that_was_made_for_it(place: Place) -> None:
    place.run()
    [cache] = place.caches()
    artifacts = place.space.listed("aimartifacts", f"aim.eai.amd.com/service.name={place.name}")
    assert len(artifacts) == 2
    assert labels_of(cache)["aim.eai.amd.com/service.name"] == place.name
    assert labels_of(place.server())["aim.eai.amd.com/service"] == place.name


def test_models_are_mounted_where_the_image_looks_for_them(place: Place) -> None:
    template = place.template()
    first = template["spec"]["modelSources"][0]
    template["spec"]["modelSources"] += [first | {"modelId": f"{place.name}/alias"}]
    place.apply(place.model(), template, place.service())
    place.download()
    place.serve()
    pod = at(place.server(), "spec.predictor")
    [container] = pod["containers"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    claims = {each["name"]: each.get("persistentVolumeClaim") for each in pod["volumes"]}
    assert len(claims) == 3
    for name, what in (("one", "one"), ("two", "two"), ("alias", "one")):
        mount = mounts[f"/workspace/cache/{place.name}/{name}"]
        assert mount["readOnly"] is True
        assert claims[mount["name"]] == {"claimName": place.claims()[what], "readOnly": True}
    assert container["image"] == place.image


def test_models_and_templates_of_the_cluster_are_found_and_take_their_caches_along(
    place: Place,
) -> None:
    kinds = ("AIMClusterModel", "AIMClusterServiceTemplate")
    try:
        place.apply(place.model(kinds[0]), place.template(kinds[1]), place.service())
        place.download()
        place.serve()
        place.until_status("Running")
        [cache] = place.caches()
        assert at(cache, "spec.templateScope") == "Cluster"
        assert cache["metadata"]["ownerReferences"][0]["kind"] == kinds[1]
        assert place.get()["status"]["resolvedModel"]["scope"] == "Cluster"
        place.delete(kinds[1])
        place.until(lambda: not place.caches(), "the cache is gone")
        place.until_status("Degraded")
        assert len(place.artifacts()) == 2
    finally:
        for kind in kinds:
            place.space.kubectl("delete", kind, place.name, "--wait=false", "--ignore-not-found")


# -- caches ------------------------------------------------------------------------------------


def test_two_services_share_a_cache(place: Place) -> None:
    place.run()
    place.apply(place.service("-b", model={"name": place.name}))
    place.serve("-b")
    place.until_status("Running", suffix="-b")
    assert len(place.caches()) == 1
    assert place.get("-b")["status"]["cache"] == place.get()["status"]["cache"]


def test_a_service_made_with_a_template_that_has_a_cache_shares_it(place: Place) -> None:
    template = place.template()
    template["spec"] |= {"caching": {"enabled": True}}
    token = {"name": "HF_TOKEN", "value": "of the service"}
    place.apply(place.model(), template, place.service(env=[token]))
    place.download()
    place.serve()
    place.until_status("Running")
    assert len(place.artifacts()) == 2
    [cache] = place.caches()
    assert name_of(cache) == place.name


@pytest.mark.parametrize("caching", [DEDICATED, {"mode": "Never"}])
def test_a_dedicated_cache_is_made_beside_a_shared_one_and_goes_with_its_service(
    place: Place, caching: Object
) -> None:
    place.run()
    place.apply(place.service("-own", caching))
    place.download()
    place.serve("-own")
    place.until_status("Running", suffix="-own")
    service = place.get("-own")
    name = derived_name([place.name, f"{place.name}-own"], [uid_of(service)])
    [cache] = [each for each in place.caches() if name_of(each) == name]
    assert at(cache, "spec.mode") == "Dedicated"
    [owner] = cache["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (uid_of(service), True)
    place.delete("aimservice", "-own")
    place.until(lambda: [name_of(each) for each in place.caches()] == [place.cache_name])


@pytest.mark.parametrize("mode", ["Always", "Auto"])
def test_older_words_are_understood_and_told_once(place: Place, mode: str) -> None:
    place.apply(place.model(), place.template(), place.service(caching={"mode": mode}))
    place.until(place.caches)
    assert at(place.caches()[0], "spec.mode") == "Shared"
    place.until_told_of("DeprecatedField")
    # Events are written after the status, so at the third look those of the second are there.
    for replicas in (2, 3):
        patch = json.dumps({"spec": {"replicas": replicas}})
        place.space.kubectl("patch", "aimservice", place.name, *MERGE, patch)
        place.until(lambda: at(place.get(), "status.observedGeneration") == replicas)  # noqa: B023
    assert len(place.told_of("DeprecatedField").splitlines()) == 1
    assert place.told()["DeprecatedFields"] == "True DeprecatedField"


@pytest.mark.parametrize(("switch", "mode"), [(True, "Shared"), (False, "Dedicated")])
def test_the_older_switch_is_understood_and_told(place: Place, switch: bool, mode: str) -> None:
    spec = {"model": {"image": place.image}, "cacheModel": switch}
    place.apply(place.model(), place.template(), custom("AIMService", place.name, spec))
    place.until(place.caches)
    assert at(place.caches()[0], "spec.mode") == mode
    place.until(lambda: place.told().get("DeprecatedFields") == "True DeprecatedField")


def test_a_cache_that_a_user_made_is_used(place: Place) -> None:
    wanted = {"templateName": place.name, "templateScope": "Namespace"}
    place.apply(place.template(), custom("AIMTemplateCache", f"{place.name}-mine", wanted))
    place.download()
    place.apply(place.model(), place.service())
    place.serve()
    place.until_status("Running")
    assert [name_of(each) for each in place.caches()] == [f"{place.name}-mine"]


def test_a_cache_that_is_deleted_is_made_again_while_the_server_goes_on(place: Place) -> None:
    place.run()
    before, [old] = place.server(), place.caches()
    # Nothing is there any more: neither the cache nor what it has brought.
    its = place.artifacts()
    place.space.kubectl("delete", "aimtemplatecache", name_of(old), "--timeout=150s")
    place.space.kubectl("delete", "aimartifact", *map(name_of, its), "--timeout=150s")
    place.until_status("Degraded", "False CacheLost")
    assert place.server()["spec"] == before["spec"]
    assert "goes on with what it has" in place.message()
    place.download()
    place.until_status("Running", "True CacheReady")
    volumes = at(place.server(), "spec.predictor.volumes")
    claims = {at(each, "persistentVolumeClaim.claimName") for each in volumes}
    new_ones = place.claims()
    assert claims == {None, *new_ones.values()}
    said = f": it mounts {new_ones['one']}, {new_ones['two']} now"
    assert place.until_told_of("ServerChanged").endswith(said)
    [new] = place.caches()
    assert place.get()["status"]["cache"]["templateCacheRef"]["uid"] == uid_of(new) != uid_of(old)


def test_a_cache_that_is_deleted_is_ready_at_once_with_what_is_there(place: Place) -> None:
    place.run()
    [old], its = place.caches(), {uid_of(each) for each in place.artifacts()}
    place.space.kubectl("delete", "aimtemplatecache", name_of(old), "--timeout=150s")

    def uses_the_new_one() -> bool:
        used = at(place.get(), "status.cache.templateCacheRef.uid")
        return used != uid_of(old) and place.told().get("CacheReady") == "True CacheReady"

    place.until(uses_the_new_one)
    place.until_status("Running")
    assert {uid_of(each) for each in place.artifacts()} == its


def test_a_dedicated_cache_that_is_deleted_is_made_again(place: Place) -> None:
    place.run(place.service(caching=DEDICATED))
    [old] = place.caches()
    place.space.kubectl("delete", "aimtemplatecache", name_of(old), "--timeout=150s")
    place.until_status("Degraded", "False CacheCreating")
    place.until(lambda: place.caches() and uid_of(place.caches()[0]) != uid_of(old))
    place.download()
    place.until_status("Running", "True CacheReady")


def test_a_failed_cache_makes_the_service_fail_and_tells_why(place: Place) -> None:
    place.apply(place.model(), place.template(), place.service())
    place.download("Failed")
    place.until_status("Failed", "False CacheFailed")
    assert f"hf://{place.name}/" in place.message()
    place.download()
    place.until_status("Starting", "True CacheReady")


# -- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "stays"),
    [("Ready", True), ("Progressing", False), ("Pending", False), ("Failed", False)],
)
def test_deleted_it_leaves_only_a_cache_that_is_ready(
    place: Place, state: str, stays: bool
) -> None:
    place.apply(place.model(), place.template(), place.service())
    place.download(state)
    wanted = {
        "Ready": "True CacheReady",
        "Progressing": "False CacheNotReady",
        "Pending": "False CacheCreating",
        "Failed": "False CacheFailed",
    }[state]
    place.until(lambda: at(place.caches()[0], "status.status") == state, f"the cache is {state}")
    place.until(lambda: place.told().get("CacheReady") == wanted, wanted)
    place.delete("aimservice")
    if stays:
        assert [name_of(each) for each in place.caches()] == [place.cache_name]
    else:
        place.until(lambda: not place.caches(), "the cache is gone")
        place.until(lambda: not place.artifacts(), "its artifacts are gone")


def test_deleted_it_leaves_what_another_service_waits_for(place: Place) -> None:
    place.apply(place.model(), place.template(), place.service(), place.service("-b"))
    for suffix in ("", "-b"):
        place.until_status("Starting", "False CacheNotReady", suffix)
    place.delete("aimservice")
    place.download()
    place.serve("-b")
    place.until_status("Running", suffix="-b")
    assert [name_of(each) for each in place.caches()] == [place.cache_name]


def test_made_again_it_has_its_models_at_once(place: Place) -> None:
    place.run()
    before = [uid_of(each) for each in place.caches()]
    place.delete("aimservice")
    place.apply(place.service())
    place.serve()
    place.until_status("Running")
    assert [uid_of(each) for each in place.caches()] == before
    # What the first one has left is waited for: nobody is asked to delete it.
    place.until_told_of("Running")
    assert not place.told_of("ServerFailed")


def test_a_shared_cache_goes_with_its_template_and_one_of_a_users_stays(place: Place) -> None:
    place.run()
    mine = f"{place.name}-mine"
    wanted = {"templateName": place.name, "templateScope": "Namespace"}
    place.apply(custom("AIMTemplateCache", mine, wanted))
    place.until(lambda: place.state_of_cache(mine) == "Ready")
    place.delete("aimservicetemplate")
    place.until(lambda: [name_of(each) for each in place.caches()] == [mine], "ours is gone")
    place.until_status("Degraded")
    assert place.server()
    # What has come stays, and a cache that somebody else made says what is missing.
    assert [at(each, "status.status") for each in place.artifacts()] == ["Ready"] * 2
    place.until(lambda: place.state_of_cache(mine) == "Failed")
    told = reasons(place.caches()[0]["status"])
    assert told["ServiceTemplateReady"] == "False ReferenceNotFound"
    assert f"is for model '{place.name}': create one" in place.message()


def test_a_shared_cache_may_belong_to_nobody(
    spaces: tuple[Namespace, Namespace], line: Line, tmp_path: Path
) -> None:
    nobodys = ("--shared-cache-owner", "none")
    with (
        spaces[0].cluster.namespace() as space,
        looking_after([space], KINDS, tmp_path, *nobodys) as program,
    ):
        place = Place(space, line)
        place.apply(place.model(), place.template(), place.service())
        place.download()
        place.until(lambda: place.state_of_cache(place.cache_name) == "Ready")
        assert "ownerReferences" not in place.caches()[0]["metadata"]
        place.delete("aimservicetemplate")
        place.until(lambda: place.state_of_cache(place.cache_name) == "Failed")
        assert program.process.poll() is None


def test_a_paused_service_is_left_alone_and_still_cleaned_up(
    place: Place, operator: Program
) -> None:
    place.apply(place.model(), place.template(), place.service())
    place.until_status("Starting", "False CacheNotReady")
    key = f"AIMService {place.space.name}/{place.name}"
    before = operator.mark()
    place.space.kubectl("annotate", "aimservice", place.name, PAUSED)
    operator.wait_for_pass(key, before)
    place.download("Failed")
    place.until(lambda: place.state_of_cache(place.cache_name) == "Failed")
    # A second pass begins when the first is over.
    for note in ("first", "second"):
        before = operator.mark()
        place.space.kubectl("annotate", "aimservice", place.name, f"example.com/{note}=x")
        operator.wait_for_pass(key, before)
    assert place.told()["CacheReady"] == "False CacheNotReady"
    place.delete("aimservice")
    place.until(lambda: not place.caches(), "its cache is gone")


def test_finalizers_of_others_stay(place: Place) -> None:
    theirs = "example.com/theirs"
    service = place.service()
    service["metadata"]["finalizers"] = [theirs]
    place.apply(service)
    place.until(lambda: place.get()["metadata"]["finalizers"] == [theirs, FINALIZER])
    place.space.kubectl("delete", "aimservice", place.name, "--wait=false")
    place.until(lambda: place.get()["metadata"]["finalizers"] == [theirs])
    patch = ("--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    place.space.kubectl("patch", "aimservice", place.name, *patch)


def test_a_namespace_that_is_deleted_is_not_held_up(
    operator: Program, spaces: tuple[Namespace, Namespace], line: Line
) -> None:
    place = Place(spaces[1], line)
    assert operator.process.poll() is None
    own = place.service("-own", DEDICATED)
    place.apply(place.model(), place.template(), place.service(), own)
    for suffix in ("", "-own"):
        place.until_status("Starting", "False CacheNotReady", suffix)
    place.space.kubectl("delete", "namespace", place.space.name, "--wait=false")

    def is_gone() -> bool:
        names = place.space.cluster.kubectl("get", "namespaces", "-o", "name")
        return f"namespace/{place.space.name}\n" not in names

    place.space.cluster.wait_for(is_gone, 150, "the namespace is gone")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"caching": SHARED}, {"caching": DEDICATED}),
        ({"caching": SHARED}, {"caching": None}),
        ({}, {"caching": DEDICATED}),
    ],
)
def test_how_it_is_cached_cannot_be_changed_added_or_removed(
    place: Place, before: Object, after: Object
) -> None:
    place.apply(custom("AIMService", place.name, {"model": {"image": "a"}, **before}))
    patch = str({"spec": after}).replace("'", '"').replace("None", "null")
    with pytest.raises(KubectlError, match="caching is immutable"):
        place.space.kubectl("patch", "aimservice", place.name, "--type=merge", "-p", patch)
