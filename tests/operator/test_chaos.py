"""The operator on bad days, before a real API server: in the end all is as the specs say.

Name a seed in AIM_TEST_SEED to see the same accidents again.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest

from operator_shim.objects import annotations_of, at, name_of, uid_of
from tests.cluster.client import Cluster, Namespace
from tests.cluster.rights import wait_until_rights_are_seen
from tests.operator.fake_node import ANSWER
from tests.operator.front import ApiFront, Mishap, Trap
from tests.operator.helm import Helm, need_helm
from tests.operator.kinds import CRDS, no_kinds, our_kinds
from tests.operator.land import Land, Node, Wish, reasons_of
from tests.operator.program import Program

KILLS = 30
MODELS = 20
IMAGE = ("--default-download-image", "registry.test/aim-downloader:1")
BUSY = json.dumps(
    {"kind": "Status", "code": 500, "reason": "InternalError", "message": "no leader"}
)
SLOW_DOWN = json.dumps(
    {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "slow down"}
)
TOO_OLD = json.dumps(
    {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
)
BROKEN_DOWN = json.dumps(
    {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "no leader"}}
)

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="class")
def random() -> Random:
    seed = int(os.environ.get("AIM_TEST_SEED") or SystemRandom().randrange(2**32))
    print(f"AIM_TEST_SEED={seed}")
    return Random(seed)


@pytest.fixture(scope="class")
def kinds(control_plane: Cluster) -> Iterator[Cluster]:
    with our_kinds(control_plane) as cluster:
        yield cluster


@pytest.fixture(scope="class")
def space(kinds: Cluster) -> Iterator[Namespace]:
    with kinds.namespace() as namespace:
        yield namespace


@pytest.fixture(scope="class")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="class")
def front(kinds: Cluster, folder: Path) -> Iterator[ApiFront]:
    with ApiFront(kinds, folder) as front:
        # There is no kubelet that could be asked for what a size Job has printed.
        front.trap("/log?", 200, ANSWER)
        yield front


@pytest.fixture(scope="class")
def land(space: Namespace, random: Random) -> Iterator[Land]:
    with Node(space, random), Land(space) as land:
        yield land


def flags(land: Land, *more: str) -> tuple[str, ...]:
    return ("--namespaces", land.space.name, *IMAGE, *more)


# -- killed ------------------------------------------------------------------------------------


class Users:
    """They make, change and drop models, one deed after another."""

    def __init__(self, land: Land, random: Random) -> None:
        self._land = land
        self._random = random
        self._made = 0

    def do_something(self) -> None:
        if self._made < MODELS:
            self._make(f"model-{self._made}")
            self._made += 1
        if self._land.wishes:
            deed = self._random.choice(
                [self._resize, self._set, self._cure, self._note, self._retry, self._anew]
            )
            deed(self._random.choice(list(self._land.wishes)))
        if self._random.random() < 0.15 and len(self._land.wishes) > 3:
            self._land.drop(self._random.choice(list(self._land.wishes)))
        if self._random.random() < 0.15:
            self._land.configure(CONFIG=str(self._random.randrange(3)))

    def _make(self, name: str) -> None:
        fate = self._random.choice(["0", "0", "0", "75 0", "66", "77"])
        size = self._random.choice([None, "1Gi", "2Gi"])
        image = self._random.choice([None, None, "registry.test/missing:1"])
        self._land.make(name, Wish(size, {"FATE": fate}, image))
        if image:
            # Not all that cannot be pulled is to stay so.
            self._land.wishes[name].image = "registry.test/other:1"
            threading.Timer(self._random.uniform(1, 20), self._correct, [name]).start()

    def _correct(self, name: str) -> None:
        if name in self._land.wishes:
            self._land.change(name)

    def _resize(self, name: str) -> None:
        self._land.wishes[name].size = f"{self._random.randint(1, 4)}Gi"
        self._land.change(name)

    def _set(self, name: str) -> None:
        self._land.wishes[name].env["ANY"] = str(self._random.random())
        self._land.change(name)

    def _cure(self, name: str) -> None:
        self._land.wishes[name].env["FATE"] = "0"
        self._land.change(name)

    def _note(self, name: str) -> None:
        self._land.wishes[name].annotations["any"] = str(self._random.random())
        self._land.change(name)

    def _retry(self, name: str) -> None:
        self._land.wishes[name].annotations["aim.eai.amd.com/retry"] = str(self._random.random())
        self._land.change(name)

    def _anew(self, name: str) -> None:
        """Dropped, and made again under the same name."""
        wish = self._land.wishes[name]
        self._land.drop(name)
        self._land.make(name, wish)


class Killer:
    """Kills the operator at random: after a while, or in the middle of a write."""

    def __init__(self, front: ApiFront, random: Random) -> None:
        self._random = random
        self._left = 0
        self._how = Mishap.CUT
        self._begun = threading.Event()
        self._killed = threading.Event()
        self._heard = 0.0
        self.deaths = 0
        self.in_writes = 0
        self._program: Program | None = None
        front.meddle = self._meddle

    def wait_for(self, program: Program) -> None:
        """Returns when it is dead."""
        self._how = self._random.choice([Mishap.CUT, Mishap.LOST])
        self._left = self._random.randint(1, 8)
        self._begun.clear()
        self._killed.clear()
        self._program = program
        # A busy machine takes its time to start it; now and then it dies before.
        if self._random.random() < 0.8:
            self._begun.wait(20)
        # It may have nothing to write; it is slow where it still asks for something.
        self._heard = time.monotonic()
        pause, patience = self._random.uniform(0.4, 2.5), self._heard + 20
        while time.monotonic() < min(self._heard + pause, patience) and not self._killed.wait(0.02):
            pass
        self._program = None
        program.process.kill()
        program.process.wait()
        self.deaths += 1

    def _meddle(self, line: str) -> Mishap | None:
        program = self._program
        self._heard = time.monotonic()
        self._begun.set()
        if program is None or line.startswith("GET "):
            return None
        self._left -= 1
        if self._left:
            return None
        self._program = None
        self.in_writes += 1
        program.process.kill()
        self._killed.set()
        return self._how


def test_killed_again_and_again_while_models_come_change_and_go(
    front: ApiFront, land: Land, random: Random, folder: Path
) -> None:
    users, killer = Users(land, random), Killer(front, random)
    # Chance may want more than so many for enough of them to be in a write.
    while killer.deaths < KILLS or (killer.in_writes < KILLS / 6 and killer.deaths < 3 * KILLS):
        users.do_something()
        with Program(front.kubeconfig, folder, *flags(land)) as program:
            killer.wait_for(program)
    assert killer.in_writes >= KILLS / 6
    with Program(front.kubeconfig, folder, *flags(land, "--resync", "5")) as program:
        took = land.wait_until_settled()
        print(
            f"settled in {took:.1f} s; {killer.in_writes} of {killer.deaths} deaths were in a write"
        )
        expect_calm(front)
        expect_no_fault_of_ours(program)


def expect_calm(front: ApiFront, seconds: float = 3.0) -> None:
    """Soon nothing is written any more."""
    patience = time.monotonic() + 120
    before, since = front.writes, time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.1)
        if (now := front.writes) != before:
            assert time.monotonic() < patience, now[len(before) :]
            before, since = now, time.monotonic()


def expect_no_fault_of_ours(program: Program) -> None:
    told = [line for line in program.lines() if line["level"] != "debug"]
    assert not [line for line in told if "Traceback" in str(line)]


# -- an API server in trouble ------------------------------------------------------------------

BAD_S = 4.0
GONE_S = 60.0
"""So long that whatever waits longer each time does so."""


def gone(front: ApiFront, _: Random, over: threading.Event) -> None:
    front.close_door()
    over.wait()
    front.open_door()


def watches_are_cut(front: ApiFront, random: Random, over: threading.Event) -> None:
    while not over.wait(random.uniform(0.1, 0.5)):
        front.cut_watches()


def watches_are_silent(front: ApiFront, _: Random, over: threading.Event) -> None:
    front.hush_watches()
    over.wait()


def watches_are_too_old(front: ApiFront, random: Random, over: threading.Event) -> None:
    def meddle(line: str) -> Trap | None:
        if "watch=true" in line and not over.is_set() and random.random() < 0.7:
            return Trap("", 200, TOO_OLD)
        return None

    front.meddle = meddle
    front.cut_watches()
    over.wait()


def watches_tell_of_errors(front: ApiFront, random: Random, over: threading.Event) -> None:
    def meddle(line: str) -> Trap | None:
        if "watch=true" in line and not over.is_set() and random.random() < 0.3:
            return Trap("", 200, BROKEN_DOWN)
        return None

    front.meddle = meddle
    front.cut_watches()
    over.wait()


def it_is_throttled(front: ApiFront, random: Random, over: threading.Event) -> None:
    def meddle(_: str) -> Trap | None:
        if not over.is_set() and random.random() < 0.3:
            return Trap("", 429, SLOW_DOWN, headers={"Retry-After": "1"})
        return None

    front.meddle = meddle
    over.wait()


def requests_fail_and_answers_are_lost(
    front: ApiFront, random: Random, over: threading.Event
) -> None:
    def meddle(_: str) -> Mishap | Trap | None:
        chance = 1.0 if over.is_set() else random.random()
        if chance < 0.15:
            return Trap("", 500, BUSY)
        if chance < 0.3:
            return Mishap.CUT
        return Mishap.LOST if chance < 0.45 else None

    front.meddle = meddle
    over.wait()


@pytest.mark.parametrize(
    ("weather", "seconds"),
    [
        (gone, GONE_S),
        (watches_are_cut, BAD_S),
        (watches_are_silent, BAD_S),
        (watches_are_too_old, BAD_S),
        (watches_tell_of_errors, BAD_S),
        (it_is_throttled, BAD_S),
        (requests_fail_and_answers_are_lost, BAD_S),
    ],
)
def test_an_api_server_in_trouble_while_models_come_change_and_go(
    front: ApiFront,
    land: Land,
    random: Random,
    folder: Path,
    weather: Callable[[ApiFront, Random, threading.Event], None],
    seconds: float,
) -> None:
    over = threading.Event()
    for number in range(6):
        fate = "66" if number == 3 else "0"
        land.make(f"model-{number}", Wish(random.choice([None, "1Gi"]), {"FATE": fate}))
    with Program(front.kubeconfig, folder, *flags(land, "--resync", "5")) as program:
        program.wait_until_it_watches()
        bad = threading.Thread(target=weather, args=(front, random, over))
        bad.start()
        time.sleep(seconds / 2)
        land.drop("model-0")
        land.make("later", Wish(None, {}))
        land.wishes["model-1"].size = "3Gi"
        land.change("model-1")
        time.sleep(seconds / 2)
        over.set()
        bad.join()
        took = land.wait_until_settled()
        print(f"settled {took:.1f} s after the trouble was over")
        expect_calm(front)
        expect_no_fault_of_ours(program)
        # One for each object and what is wrong with it; the watches say one each.
        told = [line["message"] for line in program.troubles()]
        assert len(told) < 60, told


# -- two of them -------------------------------------------------------------------------------

ANOTHER = ("--default-download-image", "registry.test/another:1", "--access-mode", "ReadWriteOnce")
BROKEN = ("--default-download-image", "registry.test/missing:1")


@pytest.mark.parametrize(
    ("second", "same_end"),
    [((), True), (ANOTHER, True), (BROKEN, False)],
    ids=["the same options", "other options", "an image that is not there"],
)
def test_two_at_the_same_time_by_mistake_do_not_fight(
    front: ApiFront, land: Land, folder: Path, second: tuple[str, ...], same_end: bool
) -> None:
    with (
        Program(front.kubeconfig, folder, *flags(land, "--resync", "1")) as one,
        Program(front.kubeconfig, folder, *flags(land, "--resync", "1"), *second) as two,
    ):
        for program in (one, two):
            program.wait_until_it_watches()
        for number, fate in enumerate(("0", "0", "0", "66", "77")):
            land.make(f"model-{number}", Wish(None if number else "1Gi", {"FATE": fate}))
        if same_end:
            land.wait_until_settled()
        expect_calm(front, 5.0)
        for program in (one, two):
            expect_no_fault_of_ours(program)
    print(f"{len(front.writes)} writes")
    assert len(front.writes) < 300


# -- a namespace that goes ---------------------------------------------------------------------


def test_a_namespace_that_is_deleted_in_the_middle_of_downloads_goes(
    kinds: Cluster, front: ApiFront, random: Random, folder: Path
) -> None:
    name = f"test-{random.randrange(2**32):08x}"
    kinds.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    with Node(Namespace(kinds, name), random), Land(Namespace(kinds, name)) as land:
        kinds.wait_for(lambda: kinds.get("serviceaccount", "default", name))
        with Program(front.kubeconfig, folder, *flags(land, "--resync", "1")) as program:
            program.wait_until_it_watches()
            for number in range(4):
                land.make(f"model-{number}", Wish("1Gi", {"FATE": "stays"}))
            kinds.wait_for(lambda: running(land) == 4, what="four downloads")
            kinds.kubectl("delete", "namespace", name, "--wait=false")
            kinds.wait_for(
                lambda: not kinds.kubectl("get", "ns", "--ignore-not-found", name),
                timeout=150,
                what="the namespace is gone",
            )
            expect_calm(front)
            expect_no_fault_of_ours(program)
            assert program.troubles() == []


def running(land: Land) -> int:
    """How many pods run."""
    return sum(at(pod, "status.phase") == "Running" for pod in land.all("Pod"))


# -- rights that are taken away ----------------------------------------------------------------


@pytest.fixture(scope="class")
def role(space: Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The Role of the operator's account, as the chart has it."""
    where: Any = {"name": f"of-{space.name}", "namespace": space.name}
    options = ("--set", "crds.install=false", "--set", f"namespaces={{{space.name}}}")
    need_helm()
    rendered = Helm(folder).template(*options, **where)
    space.kubectl("apply", "-f", "-", input=rendered)
    wait_until_rights_are_seen(space)
    yield space.get("role", f"of-{space.name}-aim-operator")
    space.kubectl("delete", "--wait=false", "-f", "-", input=rendered)


@pytest.fixture(scope="class")
def program(front: ApiFront, land: Land, folder: Path, role: dict[str, Any]) -> Iterator[Program]:
    token = land.space.kubectl("create", "token", name_of(role)).strip()
    options = flags(land, "--resync", "2")
    with Program(front.kubeconfig_with(token=token), folder, *options) as program:
        program.wait_until_it_watches()
        yield program


class TestRights:
    """They are taken away while it runs, and given back."""

    @pytest.mark.parametrize(
        ("resource", "verb", "in_status"),
        [
            ("jobs", "create", "cannot apply Job"),
            ("persistentvolumeclaims", "create", "cannot apply PersistentVolumeClaim"),
            ("roles", "patch", ""),
            ("pods", "list", "cannot list Pod"),
            ("aimartifacts/status", "patch", ""),
            ("events", "create", ""),
            ("aimartifacts", "list", ""),
            ("", "", ""),
        ],
    )
    def test_what_is_taken_away_is_told_once_and_given_back_it_heals(
        self,
        program: Program,
        land: Land,
        role: dict[str, Any],
        resource: str,
        verb: str,
        in_status: str,
    ) -> None:
        since = program.mark()
        name = f"without-{verb}-{resource.replace('/', '-')}".strip("-") + "-x"
        taken = [rule for rule in map(_without(resource, verb), role["rules"]) if rule["verbs"]]
        self._rule(land, role, taken if resource else [])
        wait_until_rights_are_seen(land.space)
        land.make(name, Wish("1Gi"))
        program.wait_for(lambda: _warnings(program, since, "forbidden"), what="a warning")
        if in_status:
            program.wait_for(
                lambda: in_status in str(at(land.artifact(name), "status.conditions")),
                what=f"{in_status} in the status",
            )
            told = at(land.artifact(name), "status.status")
            # What we may not read leaves it as the last pass that ended has told it: here no class
            # is the default one, and the claim may have no volume yet.
            assert told in (("Degraded",) if verb == "create" else ("Pending", "Progressing"))
        time.sleep(3)
        warnings = _warnings(program, since, "forbidden")
        about = [line for line in warnings if name in line.get("object", "")]
        # A pass that fails in two ways tells of both.
        assert len(about) <= 2, about
        assert len([line for line in warnings if "Events are lost" in line["message"]]) <= 1
        assert len(warnings) < 25, warnings
        self._rule(land, role, role["rules"])
        land.wait_until_settled()

    def _rule(self, land: Land, role: dict[str, Any], rules: list[dict[str, Any]]) -> None:
        land.space.kubectl(
            "patch", "role", name_of(role), "--type=merge", "-p", json.dumps({"rules": rules})
        )


def _without(resource: str, verb: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def changed(rule: dict[str, Any]) -> dict[str, Any]:
        if resource not in rule["resources"]:
            return rule
        return {**rule, "verbs": [each for each in rule["verbs"] if each != verb]}

    return changed


def _warnings(program: Program, since: int, text: str) -> list[dict[str, Any]]:
    return [line for line in program.troubles(since) if text in line["message"]]


# -- edited by hand ----------------------------------------------------------------------------

RUNS, FAILED, READY, NO_IMAGE = "runs", "failed", "ready", "no image"
RIGHTS = ("ServiceAccount", "Role", "RoleBinding")
WISHES = {
    RUNS: Wish("1Gi", {"FATE": "stays"}),
    FAILED: Wish("1Gi", {"FATE": "66"}),
    READY: Wish("1Gi"),
    NO_IMAGE: Wish(None, {}, "registry.test/missing:1"),
}
FALSE_READY = {
    "type": "Ready",
    "status": "True",
    "reason": "AllComponentsReady",
    "message": "trust me",
    "lastTransitionTime": "2099-01-01T00:00:00Z",
}


class Place:
    """One artifact of the table, and what belongs to it."""

    def __init__(self, land: Land, name: str) -> None:
        self.land = land
        self.name = name
        self.job_before = ""

    @property
    def artifact(self) -> dict[str, Any]:
        return self.land.artifact(self.name)

    @property
    def status(self) -> Any:
        return at(self.artifact, "status.status")

    @property
    def reasons(self) -> dict[str, str]:
        return reasons_of(at(self.artifact, "status", {}))

    def own(self, kind: str) -> list[dict[str, Any]]:
        wanted = f"{self.name}-"
        return [each for each in self.land.all(kind) if name_of(each).startswith(wanted)]

    def edit(self, kind: str, patch: Any, part: str = "") -> None:
        for each in [self.artifact] if kind == "AIMArtifact" else self.own(kind):
            self.land.edit(kind, name_of(each), patch, part)

    @property
    def stage(self) -> str:
        reasons = self.reasons
        if "False ImageNotFound" in reasons.values():
            return NO_IMAGE
        if reasons.get("Ready") in ("True AllComponentsReady", "False InvalidSpec"):
            return READY if self.status == "Ready" else FAILED
        return RUNS if reasons.get("DownloadJobPodsReady") == "True PodsReady" else ""


def says_ready(place: Place) -> None:
    status = {"status": "Ready", "conditions": [FALSE_READY]}
    place.edit("AIMArtifact", {"status": status}, "/status")


def wiped(place: Place) -> None:
    path = f"/apis/aim.eai.amd.com/v1alpha1/namespaces/{place.land.space.name}/aimartifacts"
    replace = ("replace", "--raw", f"{path}/{place.name}/status", "-f", "-")

    def wipe() -> str:
        whole = {**place.artifact, "status": {}}
        return place.land.space.kubectl(*replace, input=json.dumps(whole))

    # The operator may be quicker.
    place.land.space.cluster.wait_for(wipe)


def noted(text: str | None) -> Callable[[Place], None]:
    annotations = {"aim.eai.amd.com/retry-state": text}
    return lambda place: place.edit("AIMArtifact", {"metadata": {"annotations": annotations}})


def marked(kind: str, field: str, value: Any) -> Callable[[Place], None]:
    return lambda place: place.edit(kind, {"metadata": {field: value}})


def suspended(place: Place) -> None:
    place.edit("Job", {"spec": {"suspend": True}})


def deleted(*kinds: str) -> Callable[[Place], None]:
    def delete(place: Place) -> None:
        for kind in kinds:
            for each in place.own(kind):
                place.land.space.kubectl("delete", kind, name_of(each), "--wait=false")

    return delete


def held_and_deleted(place: Place) -> None:
    """A finalizer of somebody's holds it; then its Job goes."""
    place.edit("AIMArtifact", {"metadata": {"finalizers": ["example.com/hold"]}})
    place.land.space.kubectl("delete", "aimartifact", place.name, "--wait=false")
    deleted("Job")(place)


def job_held_and_tried_again(place: Place) -> None:
    place.edit("Job", {"metadata": {"finalizers": ["example.com/hold"]}})
    place.edit("AIMArtifact", {"metadata": {"annotations": {"aim.eai.amd.com/retry": "1"}}})


def is_not_believed(stage: str) -> Callable[[Place], bool]:
    return lambda place: (
        place.stage == stage and "trust me" not in str(at(place.artifact, "status.conditions"))
    )


def is_again(stage: str) -> Callable[[Place], bool]:
    def holds(place: Place) -> bool:
        note = annotations_of(place.artifact).get("aim.eai.amd.com/retry-state", "")
        return place.stage == stage and ('"permanent"' in note) is (stage == FAILED)

    return holds


def is_ours_again(kind: str) -> Callable[[Place], bool]:
    def holds(place: Place) -> bool:
        owner = uid_of(place.artifact)
        return all(
            at(each, "metadata.labels", {}).get("aim.eai.amd.com/cache.name") == place.name
            and [one["uid"] for one in at(each, "metadata.ownerReferences", [])] == [owner]
            for each in place.own(kind)
        )

    return holds


def goes_on(place: Place) -> bool:
    return place.stage == RUNS and [uid_of(each) for each in place.own("Job")] == [place.job_before]


def goes_on_with_its_account(place: Place) -> bool:
    works = any(at(pod, "status.phase") == "Running" for pod in place.own("Pod"))
    return goes_on(place) and works and all(place.own(kind) for kind in RIGHTS)


def runs_with_another_job(place: Place) -> bool:
    there = [uid_of(each) for each in place.own("Job")]
    return (
        place.stage == RUNS
        and len(there) == 1
        and there != [place.job_before]
        and all(place.own(kind) for kind in RIGHTS)
    )


def says_suspended(place: Place) -> bool:
    return "Suspended" in place.reasons.get("DownloadJobReady", "")


def nothing_is_made(place: Place) -> bool:
    if place.own("Job") or uid_of(place.artifact) == "":
        return False
    time.sleep(3)  # a resync and more
    if place.own("Job"):
        return False
    place.edit("AIMArtifact", {"metadata": {"finalizers": None}})
    return True


def waits_for_it(place: Place) -> bool:
    if "being removed" not in str(at(place.artifact, "status.conditions")):
        return False
    assert [uid_of(each) for each in place.own("Job")] == [place.job_before]
    place.edit("Job", {"metadata": {"finalizers": None}})
    return True


def never_mind(place: Place) -> bool:
    told = [each["type"] for each in at(place.artifact, "status.conditions", [])]
    return place.status == "Ready" and "Theirs" in told


def theirs(place: Place) -> None:
    place.edit("AIMArtifact", {"metadata": {"labels": {"theirs": "1"}, "annotations": {"t": "1"}}})
    mine = at(place.artifact, "status.conditions")
    status = {"conditions": [*mine, {**FALSE_READY, "type": "Theirs"}], "observedGeneration": 99}
    place.edit("AIMArtifact", {"status": status}, "/status")


BY_HAND: dict[str, tuple[str, Callable[[Place], None], Callable[[Place], bool]]] = {
    "ready-while-it-runs": (RUNS, says_ready, is_not_believed(RUNS)),
    "ready-while-it-failed": (FAILED, says_ready, is_not_believed(FAILED)),
    "ready-without-a-claim": (NO_IMAGE, says_ready, is_not_believed(NO_IMAGE)),
    "wiped-ready": (READY, wiped, is_again(READY)),
    "wiped-failed": (FAILED, wiped, is_again(FAILED)),
    "wiped-at-work": (RUNS, wiped, is_again(RUNS)),
    "others-conditions": (READY, theirs, never_mind),
    "note-cut": (FAILED, noted('{"class":"perm'), is_again(FAILED)),
    "note-of-nonsense": (FAILED, noted('[{"class":1e999}]'), is_again(FAILED)),
    "note-removed": (FAILED, noted(None), is_again(FAILED)),
    "note-on-ready": (READY, noted("any"), is_again(READY)),
    "claim-disowned": (
        *(RUNS, marked("PersistentVolumeClaim", "ownerReferences", None)),
        is_ours_again("PersistentVolumeClaim"),
    ),
    "claim-unlabelled": (
        *(READY, marked("PersistentVolumeClaim", "labels", None)),
        is_ours_again("PersistentVolumeClaim"),
    ),
    "job-disowned": (RUNS, marked("Job", "ownerReferences", None), is_ours_again("Job")),
    "job-unlabelled": (RUNS, marked("Job", "labels", None), is_ours_again("Job")),
    "job-other-inputs": (
        *(RUNS, marked("Job", "annotations", {"aim.eai.amd.com/inputs": "0"})),
        goes_on,
    ),
    "job-other-claim": (
        *(RUNS, marked("Job", "annotations", {"aim.eai.amd.com/claim-uid": "0"})),
        runs_with_another_job,
    ),
    "job-suspended": (RUNS, suspended, says_suspended),
    "account-and-job-deleted": (RUNS, deleted(*RIGHTS, "Job"), runs_with_another_job),
    "account-and-pod-deleted": (RUNS, deleted(*RIGHTS, "Pod"), goes_on_with_its_account),
    "held-by-others": (RUNS, held_and_deleted, nothing_is_made),
    "job-held-by-others": (FAILED, job_held_and_tried_again, waits_for_it),
}
"""What it was like, what somebody did, and what is right then."""


@pytest.fixture(scope="class")
def places(front: ApiFront, land: Land, folder: Path) -> Iterator[dict[str, Place]]:
    places = {name: Place(land, name) for name in BY_HAND}
    with Program(front.kubeconfig, folder, *flags(land, "--resync", "2")) as program:
        program.wait_until_it_watches()
        for name, (stage, _, _) in BY_HAND.items():
            land.make(name, WISHES[stage])
        for name, (stage, edit, _) in BY_HAND.items():
            place = places[name]
            land.space.cluster.wait_for(lambda: place.stage == stage, what=f"{name} {stage}")  # noqa: B023
            jobs = [each for each in place.own("Job") if "download" in name_of(each)]
            place.job_before = uid_of(jobs[0]) if jobs else ""
            edit(place)
        yield places
        expect_no_fault_of_ours(program)


class TestByHand:
    """What people edit; the next look at all objects is the latest at which it is put right."""

    @pytest.mark.parametrize("name", BY_HAND)
    def test_what_was_edited(self, places: dict[str, Place], name: str) -> None:
        place = places[name]
        is_right = BY_HAND[name][2]
        try:
            place.land.space.cluster.wait_for(lambda: is_right(place))
        except TimeoutError as error:
            own = [name_of(each) for kind in ("Job", "Pod", *RIGHTS) for each in place.own(kind)]
            raise AssertionError(f"{place.artifact} {own}") from error


# -- kinds that go -----------------------------------------------------------------------------


def test_a_kind_that_is_deleted_and_made_again(
    control_plane: Cluster, random: Random, folder: Path
) -> None:
    with (
        no_kinds(control_plane) as space,
        ApiFront(control_plane, folder) as front,
        Node(space, random),
        Land(space) as land,
    ):
        front.trap("/log?", 200, ANSWER)
        install = ("apply", "-f", str(CRDS))
        established = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=150s")
        control_plane.kubectl(*install)
        control_plane.kubectl(*established)
        options = flags(land, "--resync", "300")
        with Program(front.kubeconfig, folder, *options) as program:
            program.wait_until_it_watches()
            land.make("before", Wish("1Gi"))
            land.wait_until_settled()
            control_plane.kubectl("delete", "crd", "aimartifacts.aim.eai.amd.com")
            program.wait_for(
                lambda: program.said("knows no AIMArtifact", "warning"), what="a warning"
            )
            assert program.probe("/readyz")[0] == 503
            time.sleep(3)
            assert len(program.troubles()) <= 2, program.troubles()
            control_plane.kubectl(*install)
            control_plane.kubectl(*established)
            program.wait_until_ready()
            del land.wishes["before"]
            land.make("after", Wish("1Gi"))
            program.wait_for(
                lambda: at(land.artifact("after"), "status.status") == "Ready",
                what="a model that came later",
            )
            expect_no_fault_of_ours(program)
