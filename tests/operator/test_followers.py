"""Who follows whom: what each kind looks at, and what is remembered of it."""

from typing import Any

import pytest

from operator_shim.followers import FOLLOWED, Followers, asked, interests, told
from operator_shim.keys import OURS, Key, key_of
from operator_shim.objects import ANNOTATION_PAUSED

HERE = "models"
DEFAULTS = {
    Key("AIMRuntimeConfig", HERE, "default"),
    Key("AIMClusterRuntimeConfig", "", "default"),
}

USED = {
    "resolvedModel": {"name": "m"},
    "resolvedTemplate": {"name": "t"},
    "cache": {"templateCacheRef": {"name": "c"}},
}


def thing(
    name: str, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": HERE}, "spec": spec or {}, "status": status}


def of_cluster(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {}}


def any_of(kind: str, place: str = HERE) -> Key:
    return Key(kind, place, "")


def templates(name: str) -> set[Key]:
    return {
        Key("AIMServiceTemplate", HERE, name),
        Key("AIMClusterServiceTemplate", "", name),
    }


@pytest.mark.parametrize(
    ("kind", "object_", "looks_at"),
    [
        ("AIMArtifact", thing("a"), DEFAULTS),
        ("AIMArtifact", thing("a", {"runtimeConfigName": ""}), DEFAULTS),
        (
            "AIMModelCache",
            thing("a", {"runtimeConfigName": "fast"}),
            {Key("AIMRuntimeConfig", HERE, "fast"), Key("AIMClusterRuntimeConfig", "", "fast")},
        ),
        (
            "AIMClusterServiceTemplate",
            of_cluster("t"),
            {Key("AIMClusterRuntimeConfig", "", "default")},
        ),
        (
            "AIMServiceTemplate",
            thing("t"),
            {*DEFAULTS, Key("AIMTemplateCache", HERE, "t")},
        ),
        (
            "AIMTemplateCache",
            thing("c", {"templateName": "t"}),
            {*DEFAULTS, *templates("t"), any_of("AIMArtifact"), any_of("AIMModelCache")},
        ),
        (
            "AIMTemplateCache",
            thing("c", {"templateRef": "old"}, {"status": "Progressing", "artifacts": {"m": {}}}),
            {*DEFAULTS, *templates("old"), any_of("AIMArtifact"), any_of("AIMModelCache")},
        ),
        (
            "AIMTemplateCache",
            thing("c", {"templateName": "t"}, {"status": "Ready", "artifacts": {"m": {}}}),
            {
                *(DEFAULTS | templates("t")),
                Key("AIMArtifact", HERE, "m"),
                Key("AIMModelCache", HERE, "m"),
            },
        ),
        (
            # Two of two kinds that bear the same name.
            "AIMTemplateCache",
            thing(
                "c",
                {"templateName": "t"},
                {"status": "Ready", "artifacts": {"m": {"name": "m"}, "m-old": {"name": "m"}}},
            ),
            {
                *(DEFAULTS | templates("t")),
                Key("AIMArtifact", HERE, "m"),
                Key("AIMModelCache", HERE, "m"),
            },
        ),
        (
            "AIMService",
            thing("s", {"template": {"name": "t"}, "model": {"name": "m"}}),
            {
                *(DEFAULTS | templates("t")),
                Key("AIMModel", HERE, "m"),
                Key("AIMClusterModel", "", "m"),
                any_of("AIMTemplateCache"),
            },
        ),
        (
            "AIMService",
            thing("s", {"model": {"image": "i"}}, {"status": "Starting", **USED}),
            {
                *(DEFAULTS | templates("")),
                any_of("AIMModel"),
                any_of("AIMClusterModel", ""),
                any_of("AIMTemplateCache"),
            },
        ),
        (
            "AIMService",
            thing("s", {"model": {"image": "i"}}, {"status": "Running", **USED}),
            {
                *(DEFAULTS | templates("t")),
                Key("AIMModel", HERE, "m"),
                Key("AIMClusterModel", "", "m"),
                Key("AIMTemplateCache", HERE, "c"),
            },
        ),
    ],
)
def test_what_each_kind_looks_at(kind: str, object_: dict[str, Any], looks_at: set[Key]) -> None:
    assert set(interests(kind, object_)) == looks_at


@pytest.mark.parametrize("kind", OURS)
def test_what_is_looked_at_is_watched(kind: str) -> None:
    for each in interests(kind, thing("x", {"templateName": "t"})):
        assert each.kind in FOLLOWED


def test_followers_are_those_that_are_known_and_no_others() -> None:
    followers = Followers()
    artifact = thing("m")
    leader = key_of("AIMArtifact", artifact)
    assert followers.of(leader) == set()
    followers.learn("AIMTemplateCache", thing("waits", {"templateName": "t"}))
    ready = {"status": "Ready", "artifacts": {"m": {}}}
    others = {"status": "Ready", "artifacts": {"other": {}}}
    followers.learn("AIMTemplateCache", thing("has", {"templateName": "t"}, ready))
    followers.learn("AIMTemplateCache", thing("has-another", {"templateName": "t"}, others))
    assert {each.name for each in followers.of(leader)} == {"waits", "has"}
    assert followers.of(leader._replace(namespace="elsewhere")) == set()


def test_what_has_changed_its_mind_or_is_gone_follows_no_longer() -> None:
    followers = Followers()
    slow, fast = (Key("AIMRuntimeConfig", HERE, name) for name in ("slow", "fast"))
    artifact = thing("m", {"runtimeConfigName": "slow"})
    followers.learn("AIMArtifact", artifact)
    followers.learn("AIMArtifact", artifact)
    assert followers.of(slow) == {key_of("AIMArtifact", artifact)}
    followers.learn("AIMArtifact", thing("m", {"runtimeConfigName": "fast"}))
    assert followers.of(slow) == set()
    assert followers.of(fast) == {key_of("AIMArtifact", artifact)}
    followers.forget("AIMArtifact", artifact)
    followers.forget("AIMArtifact", artifact)
    assert followers.of(fast) == set()


def test_who_begins_to_look_at_something_is_told_to_look() -> None:
    followers, ready = Followers(), {"status": "Ready", "artifacts": {"m": {}}}
    assert followers.learn("AIMTemplateCache", thing("c"))
    assert not followers.learn("AIMTemplateCache", thing("c", {}, ready))
    # An artifact that it waits for now may have come before it began to follow all of them.
    assert followers.learn("AIMTemplateCache", thing("c", {}, {"status": "Progressing"}))


def test_nobody_follows_itself() -> None:
    followers = Followers()
    cache = thing("t", {"templateName": "t"})
    followers.learn("AIMTemplateCache", cache)
    followers.learn("AIMServiceTemplate", thing("t"))
    assert {each.kind for each in followers.of(key_of("AIMTemplateCache", cache))} == {
        "AIMServiceTemplate"
    }


@pytest.mark.parametrize(
    ("change", "is_asked", "is_told"),
    [
        ({"metadata": {"generation": 2}}, True, False),
        ({"metadata": {"labels": {"a": "b"}}}, True, False),
        ({"metadata": {"annotations": {ANNOTATION_PAUSED: "true"}}}, True, True),
        ({"metadata": {"resourceVersion": "2"}}, False, False),
        ({"status": {"status": "Ready"}}, False, True),
        # A cache whose spec has changed counts again once its status is of that spec.
        ({"status": {"observedGeneration": 2}}, False, True),
        ({"status": {"persistentVolumeClaim": "c"}}, False, True),
        ({"status": {"modelSources": [{}]}}, False, True),
        # Services choose their template by it.
        ({"status": {"profile": {"metadata": {"type": "optimized"}}}}, False, True),
        ({"status": {"artifacts": {"m": {}}}}, False, True),
        ({"status": {"progress": {"percentage": 50}}}, False, False),
        ({"status": {"progress": {"percentage": 100}}}, True, False),
    ],
)
def test_what_wakes_an_object_itself_and_what_its_followers(
    change: dict[str, Any], *, is_asked: bool, is_told: bool
) -> None:
    before = thing("m", {}, {})
    after = before | {part: before[part] | fields for part, fields in change.items()}
    assert (asked(before) != asked(after)) is is_asked
    assert (told(before) != told(after)) is is_told
