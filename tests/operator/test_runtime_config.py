"""Runtime configs: a namespaced one over the cluster's, by what is present."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operator_shim.objects import Object
from operator_shim.runtime_config import Missing, RuntimeConfig, merged_env, propagated, resolve


def config(**spec: Any) -> Object:
    return {"metadata": {"name": "default"}, "spec": spec}


def storage(**fields: Any) -> Object:
    return config(storage=fields)


def resolved(namespaced: Object | None, cluster: Object | None) -> RuntimeConfig:
    got = resolve("default", namespaced, cluster)
    assert isinstance(got, RuntimeConfig)
    return got


@pytest.mark.parametrize("name", ["", "default"])
def test_without_a_default_config_the_defaults_hold(name: str) -> None:
    assert resolve(name, None, None) == RuntimeConfig(None, 10, (), found="")


def test_another_config_that_is_nowhere_is_missing_and_named() -> None:
    got = resolve("fast", None, None)
    assert isinstance(got, Missing)
    assert got.name == "fast"
    for word in ("AIMRuntimeConfig 'fast'", "AIMClusterRuntimeConfig 'fast'", "runtimeConfigName"):
        assert word in got.message


@pytest.mark.parametrize("name", ["", "default", "fast"])
def test_one_of_the_two_objects_is_enough(name: str) -> None:
    one, called = storage(pvcHeadroomPercent=7), name or "default"
    for pair, found in (
        ((one, None), f"AIMRuntimeConfig {called}"),
        ((None, one), f"AIMClusterRuntimeConfig {called}"),
    ):
        assert resolve(name, *pair) == RuntimeConfig(headroom_percent=7, found=found)


def test_of_two_it_is_said_which_goes_before_the_other() -> None:
    both = resolved(config(), config())
    assert both.found == "AIMRuntimeConfig default over AIMClusterRuntimeConfig default"


@pytest.mark.parametrize(
    ("namespaced", "cluster", "headroom"),
    [
        (storage(pvcHeadroomPercent=20), storage(pvcHeadroomPercent=15), 20),
        (storage(pvcHeadroomPercent=0), storage(pvcHeadroomPercent=15), 0),
        (storage(defaultStorageClassName="x"), storage(pvcHeadroomPercent=15), 15),
        (storage(), storage(pvcHeadroomPercent=15), 15),
        (config(), storage(pvcHeadroomPercent=15), 15),
        ({"metadata": {}}, storage(pvcHeadroomPercent=15), 15),
        (storage(pvcHeadroomPercent=None), storage(pvcHeadroomPercent=15), 15),
        (config(), config(), 10),
        (config(pvcHeadroomPercent=0), storage(pvcHeadroomPercent=15), 0),
        (storage(defaultStorageClassName="x"), config(pvcHeadroomPercent=15), 15),
        (config(pvcHeadroomPercent=5, storage={"pvcHeadroomPercent": 6}), None, 6),
        (config(pvcHeadroomPercent=5, storage={"pvcHeadroomPercent": 0}), None, 0),
        (config(pvcHeadroomPercent=5, storage={"defaultStorageClassName": "x"}), None, 5),
    ],
)
def test_the_headroom_that_is_present_counts(
    namespaced: Object, cluster: Object | None, headroom: int
) -> None:
    assert resolved(namespaced, cluster).headroom_percent == headroom


@pytest.mark.parametrize(
    ("namespaced", "cluster", "storage_class"),
    [
        (storage(defaultStorageClassName="a"), storage(defaultStorageClassName="b"), "a"),
        (storage(pvcHeadroomPercent=3), storage(defaultStorageClassName="b"), "b"),
        # Empty is the cluster's default class, whatever the cluster's config says.
        (storage(defaultStorageClassName=""), storage(defaultStorageClassName="b"), None),
        (config(defaultStorageClassName="old"), storage(defaultStorageClassName="b"), "old"),
        (storage(pvcHeadroomPercent=3), config(defaultStorageClassName="old"), "old"),
        (
            config(defaultStorageClassName="old", storage={"defaultStorageClassName": "new"}),
            None,
            "new",
        ),
        (config(), None, None),
    ],
)
def test_the_class_that_is_present_counts(
    namespaced: Object, cluster: Object | None, storage_class: str | None
) -> None:
    assert resolved(namespaced, cluster).storage_class == storage_class


def env(**values: str) -> list[Object]:
    return [{"name": name, "value": value} for name, value in values.items()]


def test_env_merges_by_name_and_an_entry_is_replaced_as_a_whole() -> None:
    secret: Object = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    cluster = config(env=env(PROXY="p", TOKEN="plain"))
    namespaced = config(env=[secret, *env(EXTRA="e")])
    assert resolved(namespaced, cluster).env == (*env(PROXY="p"), secret, *env(EXTRA="e"))


def test_an_empty_value_overrides() -> None:
    assert merged_env(env(A=""), env(A="x")) == (*env(A=""),)


def test_an_empty_list_of_env_leaves_the_clusters() -> None:
    assert resolved(config(env=[]), config(env=env(A="x"))).env == (*env(A="x"),)


def test_an_override_stands_where_the_lowest_layer_has_it() -> None:
    base = env(HOST="h", URL="http://$(HOST)")
    assert merged_env(env(HOST="mine"), base) == (*env(HOST="mine", URL="http://$(HOST)"),)


@pytest.mark.parametrize(
    ("upper", "lower", "merged"),
    [
        ('{"a":1}', '{"b":2}', '{"a":1,"b":2}'),
        ('{"a":{"x":1}}', '{"a":{"x":0,"y":2},"b":3}', '{"a":{"x":1,"y":2},"b":3}'),
        ('{"a":[1]}', '{"a":[2,3]}', '{"a":[1]}'),
        ('{"a":0}', '{"a":{"x":1}}', '{"a":0}'),
        ('{"a":null}', '{"a":1}', '{"a":null}'),
        ("--flag", '{"a":1}', "--flag"),
        ('{"a":1}', "--flag", '{"a":1}'),
        ("[1]", '{"a":1}', "[1]"),
        ("", '{"a":1}', ""),
    ],
)
def test_engine_args_merge_as_json_objects(upper: str, lower: str, merged: str) -> None:
    got = merged_env(env(AIM_ENGINE_ARGS=upper), env(AIM_ENGINE_ARGS=lower))
    assert got == (*env(AIM_ENGINE_ARGS=merged),)


def test_engine_args_from_a_secret_replace_others() -> None:
    secret: Object = {"name": "AIM_ENGINE_ARGS", "valueFrom": {"secretKeyRef": {"name": "s"}}}
    assert merged_env([secret], env(AIM_ENGINE_ARGS='{"a":1}')) == (secret,)


def test_merging_leaves_the_layers_as_they_are() -> None:
    layers = [env(AIM_ENGINE_ARGS='{"a":1}'), env(AIM_ENGINE_ARGS='{"b":1}')]
    before = json.dumps(layers)
    merged_env(*layers)
    assert json.dumps(layers) == before


ENTRIES = st.lists(
    st.builds(lambda name, value: {"name": name, "value": value}, *[st.sampled_from("ABC")] * 2),
    unique_by=lambda entry: entry["name"],
)


@given(st.lists(ENTRIES, max_size=4))
def test_each_name_is_there_once_with_the_value_of_its_first_layer(
    layers: list[list[Object]],
) -> None:
    merged = {entry["name"]: entry["value"] for entry in merged_env(*layers)}
    assert len(merged) == len(merged_env(*layers))
    assert merged == {e["name"]: e["value"] for layer in reversed(layers) for e in layer}


OURS = {"aim.eai.amd.com/service.name": "qwen"}
LABELS = {
    **OURS,
    "team": "ml",
    "team-b": "x",
    "example.com/team": "ml",
    "example.com/cost": "7",
    "aim.eai.amd.community/x": "y",
}


@pytest.mark.parametrize(
    ("globs", "keys"),
    [
        (["team"], {"team"}),
        (["team*"], {"team", "team-b"}),
        (["*"], {"team", "team-b"}),  # a star stays between two slashes
        (["*/team"], {"example.com/team"}),
        (["example.com/*"], {"example.com/team", "example.com/cost"}),
        (["*/*"], set(LABELS) - {"team", "team-b"} - set(OURS)),
        (["tea?"], {"team"}),
        (["example?com/team"], {"example.com/team"}),
        (["example.com?team"], set()),
        (["[st]eam"], {"team"}),
        (["[^t]eam"], set()),
        (["team-[a-c]"], {"team-b"}),
        (["TEAM"], set()),
        (["[", "te[am", ""], set()),
        (["*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"], set()),
        (["team", "example.com/cost"], {"team", "example.com/cost"}),
        ([], set()),
    ],
)
def test_labels_that_a_glob_fits_go_to_the_children(globs: list[str], keys: set[str]) -> None:
    settings = {"enabled": True, "match": globs}
    got = propagated(LABELS, resolved(config(labelPropagation=settings), None))
    assert got == {**OURS, **{key: LABELS[key] for key in keys}}


def test_a_hostile_glob_takes_no_time() -> None:
    hostile = RuntimeConfig(propagate_labels=True, propagated_keys=("*a" * 100 + "b",))
    assert propagated({"a" * 63: "x"}, hostile) == {}


@pytest.mark.parametrize(
    ("namespaced", "cluster", "keys"),
    [
        ({}, {"match": ["team"]}, set()),
        ({}, {"enabled": True, "match": ["team"]}, {"team"}),
        ({"enabled": False}, {"enabled": True, "match": ["team"]}, set()),
        ({"enabled": True}, {"enabled": False, "match": ["team"]}, {"team"}),
        ({"match": []}, {"enabled": True, "match": ["team"]}, set()),
        ({"match": ["*/cost"]}, {"enabled": True, "match": ["team"]}, {"example.com/cost"}),
    ],
)
def test_propagation_merges_field_by_field(
    namespaced: Object, cluster: Object, keys: set[str]
) -> None:
    both = resolved(config(labelPropagation=namespaced), config(labelPropagation=cluster))
    assert propagated(LABELS, both) == {**OURS, **{key: LABELS[key] for key in keys}}
