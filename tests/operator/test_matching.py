"""Which artifact a cache uses for a model, and whether it uses one at all."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from operator_shim.matching import Shelf, Wanted, default_class_of
from operator_shim.objects import Object, name_of
from operator_shim.ranking import state_of, worst
from operator_shim.runtime_config import RuntimeConfig
from operator_shim.sources import sources_of
from tests.operator.cache_land import ONE, artifact, model_cache

(SOURCE,) = sources_of([ONE], [], [])
ANY = Wanted(None, "")
OWNED: Any = {"ownerReferences": [{"uid": "u", "controller": True}]}
MIRROR = {"env": [{"name": "HF_ENDPOINT", "value": "https://mirror.test"}]}
CLASS = {"storageClassName": "fast"}
CONFIGS = {"of-fast": RuntimeConfig(storage_class="fast")}
MIRRORED = {"mirrored": RuntimeConfig(env=tuple(MIRROR["env"]))}


def shelf(*artifacts: Object, default_class: str = "") -> Shelf:
    configs = CONFIGS | MIRRORED
    return Shelf(artifacts, lambda name: configs.get(name, RuntimeConfig()), default_class)


@pytest.mark.parametrize(
    ("candidate", "wanted", "used"),
    [
        (artifact("a", "hf://org/one"), ANY, True),
        (artifact("a", "hf://org/other"), ANY, False),
        (artifact("a", "hf://org/one@v1"), ANY, False),
        (artifact("a", "hf://org/one", spec=MIRROR), ANY, False),
        (artifact("a", "hf://org/one", spec={"runtimeConfigName": "mirrored"}), ANY, False),
        (artifact("a", "hf://org/one", deletionTimestamp="2026-01-31T10:00:00Z"), ANY, False),
        # A shared cache takes what belongs to nobody, a dedicated one what belongs to it.
        (artifact("a", "hf://org/one", **OWNED), ANY, False),
        (artifact("a", "hf://org/one", **OWNED), Wanted("u", ""), True),
        (artifact("a", "hf://org/one", **OWNED), Wanted("v", ""), False),
        (artifact("a", "hf://org/one"), Wanted("u", ""), False),
        # A cache without a class takes any; a class is the same by whatever way it is named.
        (artifact("a", "hf://org/one", spec=CLASS), ANY, True),
        (artifact("a", "hf://org/one", spec=CLASS), Wanted(None, "fast"), True),
        (artifact("a", "hf://org/one", spec=CLASS), Wanted(None, "standard"), False),
        (artifact("a", "hf://org/one"), Wanted(None, "standard"), True),
        (artifact("a", "hf://org/one"), Wanted(None, "fast"), False),
        (
            artifact("a", "hf://org/one", spec={"runtimeConfigName": "of-fast"}),
            Wanted(None, "fast"),
            True,
        ),
    ],
)
def test_what_is_there_is_used(candidate: Object, wanted: Wanted, *, used: bool) -> None:
    found = shelf(candidate, default_class="standard").holder(SOURCE, wanted)
    assert (found is not None) is used


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("Ready", "Progressing"),
        ("Available", "Progressing"),
        ("Progressing", "Pending"),
        ("Pending", "Degraded"),
        ("Degraded", "NotAvailable"),
        ("NotAvailable", "Failed"),
    ],
)
def test_of_several_the_best_is_used(better: str, worse: str) -> None:
    both = [artifact("x", "hf://org/one", worse), artifact("y", "hf://org/one", better)]
    for order in (both, both[::-1]):
        found = shelf(*order).holder(SOURCE, ANY)
        assert found is not None
        assert name_of(found) == "y"


def test_one_that_names_the_claim_of_another_is_no_better_than_one_on_its_way() -> None:
    liar, true = artifact("x", "hf://org/one", "Ready"), artifact("y", "hf://org/one", "Ready")
    liar["status"]["persistentVolumeClaim"] = true["status"]["persistentVolumeClaim"]
    for order in ([liar, true], [true, liar]):
        assert shelf(*order).holder(SOURCE, ANY) is true


def test_of_equals_the_first_is_used_so_an_artifact_before_a_model_cache() -> None:
    older = model_cache("m", "hf://org/one")
    found = shelf(artifact("a", "hf://org/one", "Ready"), older).holder(SOURCE, ANY)
    assert found is not None
    assert found["kind"] == "AIMArtifact"
    found = shelf(artifact("a", "hf://org/one", "Failed"), older).holder(SOURCE, ANY)
    assert found is not None
    assert found["kind"] == "AIMModelCache"


def test_of_equals_it_is_the_one_in_use_else_the_one_that_was_mounted_last() -> None:
    def told(name: str, used: str) -> Object:
        made = artifact(name, "hf://org/one", "Ready", uid=name)
        made["status"] |= {"lastUsed": used} if used else {}
        return made

    never, once, lately = (
        told("a", ""),
        told("b", "2026-01-31T10:00:00Z"),
        told("c", "2026-02-01T10:00:00Z"),
    )
    for order in permutations((never, once, lately)):
        assert shelf(*order).holder(SOURCE, ANY) is lately
        assert shelf(*order).holder(SOURCE, Wanted(None, "", ("b",))) is once


def test_the_default_class_is_the_newest_that_says_so() -> None:
    def class_(name: str, made: str, said: str) -> Object:
        notes = {"storageclass.kubernetes.io/is-default-class": said}
        return {"metadata": {"name": name, "creationTimestamp": made, "annotations": notes}}

    old, new = (
        class_("old", "2026-01-01T00:00:00Z", "true"),
        class_("new", "2026-02-01T00:00:00Z", "true"),
    )
    other = class_("other", "2026-03-01T00:00:00Z", "false")
    assert default_class_of([new, other, old]) == "new"
    assert default_class_of([other]) == ""
    twin = class_("also-new", "2026-02-01T00:00:00Z", "true")
    assert default_class_of([new, twin]) == default_class_of([twin, new]) == "also-new"


def test_states_are_ordered_by_how_desirable_they_are() -> None:
    assert worst(["Ready", "Progressing", "Failed"]) == "Failed"
    assert worst(["Ready", "Pending", "Progressing"]) == "Pending"
    assert worst([]) == "Ready"
    assert state_of({"status": {"status": "Available"}}) == "Ready"
    assert state_of({}) == state_of({"status": {"status": "Odd"}}) == "Progressing"
