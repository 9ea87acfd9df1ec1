"""When two sources are the same model."""

from typing import Any

import pytest

from operator_shim.sources import identity_of, sources_of

MIRROR = {"name": "HF_ENDPOINT", "value": "https://mirror.test"}
STORE = {"name": "AWS_ENDPOINT_URL", "value": "https://store.test"}
OTHER_STORE = {"name": "AWS_ENDPOINT_URL", "value": "https://other.test"}
HOST = {"name": "HOST", "value": "one.test"}
OTHER_HOST = {"name": "HOST", "value": "other.test"}
BY_HOST = {"name": "HF_ENDPOINT", "value": "https://$(HOST)"}
GGUF = {"name": "AIM_DOWNLOADER_FORMAT", "value": "gguf"}
TREE = {"name": "AIM_DOWNLOADER_LAYOUT", "value": "hf-cache"}
ZEROS = {"name": "AIM_DEBUG_SIMULATE_DOWNLOAD", "value": "1"}
TOKEN = {"name": "HF_TOKEN", "value": "mine"}
SECRET = {"valueFrom": {"secretKeyRef": {"name": "store", "key": "url"}}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("hf://org/m",), ("hf://org/m",), True),
        (("hf://org/m",), ("hf://org/m/",), True),
        (("hf://org/m",), ("hf://org/n",), False),
        (("hf://org/m",), ("hf://org/m@v1",), False),
        (("hf://org/m@v1",), ("hf://org/m@v2",), False),
        (("hf://org/m",), ("hf://org/m", [MIRROR]), False),
        (("hf://org/m", [MIRROR]), ("hf://org/m", [], [MIRROR]), True),
        (
            ("hf://org/m", [MIRROR | {"value": "https://mirror.test/"}]),
            ("hf://org/m", [MIRROR]),
            True,
        ),
        (("hf://org/m", [MIRROR | {"value": "https://huggingface.co"}]), ("hf://org/m",), True),
        (("hf://org/m", [MIRROR | {"value": ""}], [MIRROR]), ("hf://org/m",), True),
        (("hf://org/m", [STORE]), ("hf://org/m",), True),
        (("s3://bucket/m", [STORE]), ("s3://bucket/m", [OTHER_STORE]), False),
        (("s3://bucket/m", [STORE]), ("s3://bucket/m", [STORE, MIRROR]), True),
        (("s3://bucket/m", [STORE], [OTHER_STORE]), ("s3://bucket/m", [], [STORE]), True),
        (("s3://b/m", [STORE | SECRET]), ("s3://b/m", [STORE | SECRET]), True),
        (("s3://b/m", [{"name": "AWS_ENDPOINT_URL", **SECRET}]), ("s3://b/m",), False),
        # Of what a pod would make of a value both that and what it refers to count.
        (("hf://org/m", [HOST, BY_HOST]), ("hf://org/m", [HOST, BY_HOST]), True),
        (("hf://org/m", [HOST, BY_HOST]), ("hf://org/m", [OTHER_HOST, BY_HOST]), False),
        (("hf://org/m", [HOST | SECRET, BY_HOST]), ("hf://org/m", [HOST, BY_HOST]), False),
        (("hf://org/m", [BY_HOST], [HOST]), ("hf://org/m", [BY_HOST], [OTHER_HOST]), False),
        # Of one model other files, or in another way.
        (("hf://org/m", [GGUF]), ("hf://org/m",), False),
        (("hf://org/m", [GGUF]), ("hf://org/m", [], [GGUF]), True),
        (("hf://org/m", [TREE]), ("hf://org/m",), False),
        (("hf://org/m", [TREE | {"value": "plain"}]), ("hf://org/m",), True),
        (("hf://org/m", [ZEROS]), ("hf://org/m",), False),
        (("hf://org/m", [TOKEN]), ("hf://org/m",), True),
    ],
)
def test_two_sources_are_one_model_by_uri_revision_and_endpoint(
    one: Any, other: Any, *, same: bool
) -> None:
    assert (identity_of(*one) == identity_of(*other)) is same


def test_a_source_has_the_env_of_its_cache_below_its_own() -> None:
    token, other = {"name": "HF_TOKEN", "value": "source"}, {"name": "HF_TOKEN", "value": "cache"}
    entry = {"modelId": "org/m", "sourceUri": "hf://org/m", "env": [token], "size": "5Gi"}
    (found,) = sources_of([entry], [other, MIRROR], [])
    assert found.env == (token, MIRROR)
    assert found.identity.endpoint == "https://mirror.test"
    assert (found.models, found.uri, found.size) == (("org/m",), "hf://org/m", "5Gi")


def test_a_model_that_is_named_twice_is_wanted_once() -> None:
    entry = {"modelId": "org/m", "sourceUri": "hf://org/m"}
    assert len(sources_of([entry, {**entry, "env": [STORE]}], [], [])) == 1
    assert len(sources_of([entry, {**entry, "env": [MIRROR]}], [], [])) == 2


def test_a_model_of_two_names_is_wanted_once_and_has_both() -> None:
    entry = {"modelId": "org/m", "sourceUri": "hf://org/m"}
    (found,) = sources_of([entry, {**entry, "modelId": "org/alias"}, entry], [], [])
    assert found.models == ("org/m", "org/alias")
