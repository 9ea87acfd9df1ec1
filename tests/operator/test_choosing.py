"""Which model, which template and which mode a service means."""

from __future__ import annotations

import pytest

from operator_shim.caching_mode import deprecations, mode_of
from operator_shim.choosing import choose
from operator_shim.models import find_model, same_image
from operator_shim.objects import Object, name_of
from tests.operator.service_land import IMAGE, chat, model, template

CLUSTER_MODEL, CLUSTER_TEMPLATE = "AIMClusterModel", "AIMClusterServiceTemplate"


@pytest.mark.parametrize(
    ("spec", "mode", "told"),
    [
        ({}, "Shared", []),
        ({"caching": {}}, "Shared", []),
        ({"caching": {"mode": "Shared"}}, "Shared", []),
        ({"caching": {"mode": "Dedicated"}}, "Dedicated", []),
        ({"caching": {"mode": "Always"}}, "Shared", ["write Shared"]),
        ({"caching": {"mode": "Auto"}}, "Shared", ["write Shared"]),
        ({"caching": {"mode": "Never"}}, "Dedicated", ["write Dedicated"]),
        ({"cacheModel": True}, "Shared", ["write caching: {mode: Shared}"]),
        ({"cacheModel": False}, "Dedicated", ["write caching: {mode: Dedicated}"]),
        ({"caching": {"mode": "Shared"}, "cacheModel": False}, "Shared", ["caching goes before"]),
        ({"caching": {}, "cacheModel": False}, "Shared", ["caching goes before"]),
        (
            {"caching": {"mode": "Never"}, "cacheModel": True},
            "Dedicated",
            ["write Dedicated", "caching goes before"],
        ),
    ],
)
def test_older_words_mean_what_they_meant(spec: Object, mode: str, told: list[str]) -> None:
    service = chat(spec=spec)
    assert mode_of(service) == mode
    notes = deprecations(service)
    assert len(notes) == len(told)
    assert all(words in note for words, note in zip(told, notes, strict=True))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (IMAGE, IMAGE, True),
        (IMAGE, f"docker.io/{IMAGE}", True),
        ("vllm", "docker.io/library/vllm:latest", True),
        ("org/model", "org/model:latest", True),
        ("org/model:1", "org/model:2", False),
        ("ghcr.io/org/model:1", "org/model:1", False),
        ("localhost:5000/model", "localhost:5000/model:latest", True),
        ("org/model@sha256:1", "org/model", False),
    ],
)
def test_images_are_compared_by_what_they_mean(one: str, other: str, same: bool) -> None:
    assert same_image(one, other) == same
    assert same_image(other, one) == same


def named(spec: Object, *models: Object, status: Object | None = None) -> str:
    service = {**chat(spec={"model": spec}), "status": status or {}}
    found = find_model(service, None, models).model
    return f"{found['kind']} {name_of(found)}" if found else ""


@pytest.mark.parametrize(
    ("spec", "models", "expected"),
    [
        ({"name": "a"}, [model("a"), model("a", kind=CLUSTER_MODEL)], "AIMModel a"),
        ({"name": "a"}, [model("a", kind=CLUSTER_MODEL), model("b")], "AIMClusterModel a"),
        ({"name": "c"}, [model("a")], ""),
        ({"image": IMAGE}, [model("b", kind=CLUSTER_MODEL), model("z")], "AIMModel z"),
        ({"image": IMAGE}, [model("b"), model("a")], "AIMModel a"),
        ({"image": IMAGE}, [model("b"), model("a", state="Failed")], "AIMModel b"),
        ({"image": IMAGE}, [model("a", image="org/other:1")], ""),
        ({"custom": {"baseImage": IMAGE}}, [model("a")], ""),
    ],
)
def test_a_model_is_found_by_name_or_image(
    spec: Object, models: list[Object], expected: str
) -> None:
    assert named(spec, *models) == expected
    assert named(spec, *reversed(models)) == expected


def test_who_has_a_model_stays_with_it() -> None:
    first, used = model("a"), model("b")
    first["metadata"]["uid"], used["metadata"]["uid"] = "1", "2"
    assert named({"image": IMAGE}, first, used) == "AIMModel a"
    status = {"resolvedModel": {"uid": "2"}}
    assert named({"image": IMAGE}, first, used, status=status) == "AIMModel b"


def test_the_template_says_which_model_where_the_service_does_not() -> None:
    found = find_model(chat(spec={}), template(), [model("qwen")])
    assert found.model
    assert "say which model" in find_model(chat(spec={}), None, [model("qwen")]).problem


T, C = "AIMServiceTemplate", CLUSTER_TEMPLATE


def told(name: str, kind: str = T, state: str = "Ready", profile: str = "", **spec: str) -> Object:
    return template(name, state, profile, kind, **spec)


@pytest.mark.parametrize(
    ("templates", "spec", "expected"),
    [
        # Ready before all else, then as the other states rank.
        ([told("a", state="Progressing"), told("b", C)], {}, "b"),
        ([told("a", state="Failed"), told("b", state="Pending")], {}, "b"),
        ([told("a", state=""), told("b", state="Progressing")], {}, "b"),
        ([told("a", C, state=""), told("b", state="Pending")], {}, "b"),
        ([told("a", state="Progressing", profile="optimized"), told("b")], {}, "b"),
        # What is optimized before what is of the namespace.
        ([told("a"), told("b", C, profile="optimized")], {}, "b"),
        ([told("a", profile="preview"), told("b", profile="unoptimized")], {"x": 1}, "a"),
        # The namespace before the cluster, then the name.
        ([told("a", C), told("b")], {}, "b"),
        ([told("b"), told("a")], {}, "a"),
        ([told("a", modelName="another"), told("b")], {}, "b"),
        # By name, of whatever state, and no other model.
        ([told("a"), told("b", state="Pending")], {"name": "b"}, "b"),
        ([told("a"), told("b", modelName="x")], {"name": "b"}, ""),
        ([told("a"), told("b", modelName="")], {"name": "b"}, "b"),
        ([told("a", C), told("a", T, state="Failed")], {"name": "a"}, "a"),
        # What is not optimized only where that is allowed.
        ([told("a", profile="unoptimized"), told("b")], {}, "b"),
        ([told("a", profile="unoptimized")], {}, ""),
        ([told("a", profile="unoptimized")], {"x": 1}, "a"),
    ],
)
def test_the_best_template_is_chosen(templates: list[Object], spec: Object, expected: str) -> None:
    wanted = {"allowUnoptimized": True} if spec.pop("x", None) else spec
    service = chat(spec={"model": {"name": "qwen"}, "template": wanted})
    for order in (templates, list(reversed(templates))):
        chosen = choose(service, model(), order)
        assert name_of(chosen.template or {}) == expected
        assert bool(chosen.problem) == (not expected)


def test_of_two_that_bear_the_name_it_is_that_of_the_namespace() -> None:
    service = chat(spec={"model": {"name": "qwen"}, "template": {"name": "a"}})
    its, theirs = told("a", state="Failed"), told("a", C)
    for order in ([its, theirs], [theirs, its]):
        assert choose(service, model(), order).template is its


def test_a_template_of_another_model_is_not_used_and_those_that_fit_are_named() -> None:
    spec = {"model": {"name": "qwen"}, "template": {"name": "b"}}
    there = [told("c"), told("b", modelName="llama"), told("a")]
    chosen = choose(chat(spec=spec), model(), there)
    assert chosen.reason == "InvalidSpec"
    assert chosen.problem == (
        "AIMServiceTemplate b is for model 'llama', and the service is of model 'qwen': make the"
        " service anew with a template of that (a, c) in spec.template.name, or without one"
    )
    # Where it is not known which model the service means, nothing speaks against the template.
    assert choose(chat(spec=spec), None, there).template is there[1]


def test_of_models_with_one_image_it_is_that_of_the_template_that_is_named() -> None:
    first, its = model("a"), model("qwen", kind=CLUSTER_MODEL)
    service = chat(spec={"model": {"image": IMAGE}, "template": {"name": "qwen-template"}})
    assert find_model(service, template(), [first, its]).model is its
    assert find_model(service, None, [first, its]).model is first


def test_overrides_are_kept_to() -> None:
    fast, slow = told("a", metric="throughput"), told("b", metric="latency")
    spec = {"model": {"name": "qwen"}, "overrides": {"metric": "Latency"}}
    assert choose(chat(spec=spec), model(), [fast, slow]).template is slow
    problem = choose(chat(spec=spec), model(), [fast]).problem
    assert "has metric Latency: change spec.overrides" in problem


def test_who_has_a_template_stays_with_it() -> None:
    better, used = told("a", profile="optimized"), told("b")
    service = {**chat(), "status": {"resolvedTemplate": {"kind": T, "name": "b"}}}
    assert choose(service, model(), [better, used]).template is used
    assert choose(service, model(), [better, told("b", C)]).template is better
    # What was made from one is not exchanged when that is made anew: until then it is gone.
    gone = choose(service, model(), [better, told("b", C)], is_served=True)
    assert gone.template is None
    assert "AIMServiceTemplate b, from which what serves was made, is gone" in gone.problem
    assert choose(service, model(), [better, used], is_served=True).template is used
    # Of what AIM Engine has told not all need be there.
    used["metadata"]["uid"] = "2"
    service["status"] = {"resolvedTemplate": {"name": "b", "uid": "2"}}
    assert choose(service, model(), [better, used], is_served=True).template is used
    gone = choose(service, model(), [better], is_served=True)
    assert gone.problem.startswith("AIMServiceTemplate b, from which what serves was made")
