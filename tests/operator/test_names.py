"""Names that AIM Engine gives: what it has made must be found again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operator_shim.names import (
    account_name,
    claim_name,
    derived_name,
    download_job_name,
    label_value,
    size_job_name,
    source_label,
)

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TINY = "hf://sshleifer/tiny-gpt2"
LLAMA = "hf://amd/Llama-3.1-8B-Instruct-FP8-KV"
LONG = "s3://some-bucket/very/long/prefix/that/keeps/going/on/and/on/model"
TOKEN = [{"name": "HF_TOKEN", "value": "my-token"}]
DNS_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
LABEL_VALUE = r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?"


@pytest.mark.parametrize(
    ("named", "name"),
    [
        (claim_name("demo", UID), "demo-cache-9179ba0d"),
        (download_job_name("demo", UID), "demo-download-9179ba0d"),
        (size_job_name("demo", UID), "demo-check-size-9179ba0d"),
        (claim_name("a" * 70, UID), "a" * 48 + "-cache-9179ba0d"),
        (derived_name([TINY], [TINY, None, ""], digits=10), "hf---sshleifer-tiny-gpt2-fc6a9647bb"),
        (derived_name([TINY], [TINY, TOKEN, ""], digits=10), "hf---sshleifer-tiny-gpt2-8b6a4bfd16"),
        (
            derived_name([LLAMA], [LLAMA, None, "longhorn"], digits=10),
            "hf---amd-llama-3-1-8b-instruct-fp8-kv-08115ccc5f",
        ),
        (
            derived_name([LLAMA], [LLAMA, None, "longhorn", "dedicated", "tc1"], digits=10),
            "hf---amd-llama-3-1-8b-instruct-fp8-kv-f3edb8e403",
        ),
        (
            derived_name([LONG], [LONG, None, ""], digits=10),
            "s3---some-bucket-very-long-prefix-that-keeps-going-o-bddce1ecc5",
        ),
        (derived_name(["qwen-template"], ["ml-team"]), "qwen-template-a04542d9"),
        (derived_name(["qwen-template", "qwen-chat"], [UID]), "qwen-template-qwen-chat-9179ba0d"),
        (derived_name(["qwen-chat"], ["ml-team"]), "qwen-chat-a04542d9"),
    ],
)
def test_a_name_is_the_one_that_aim_engine_gives(named: str, name: str) -> None:
    assert named == name


def test_env_is_hashed_in_the_order_of_its_type_whatever_order_the_server_gives() -> None:
    by_type = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    by_letter = {"valueFrom": {"secretKeyRef": {"key": "k", "name": "s"}}, "name": "A", "value": ""}
    assert derived_name(["x"], [[by_type]]) == derived_name(["x"], [[by_letter]])
    two = [{"name": "A"}, {"name": "B"}]
    assert derived_name(["x"], [two]) != derived_name(["x"], [two[::-1]])


def test_an_input_is_hashed_with_the_escapes_of_go() -> None:
    # The beginning of the sha256 of "\u003ca\u003e\u0026ü\u2028", quotes included.
    assert derived_name(["x"], ["<a>&ü\u2028"]) == "x-5685ca96"


@pytest.mark.parametrize(
    ("parts", "limit", "name"),
    [
        (["Ünï_cödé.X"], 63, "n--c-d--x"),
        (["--a--"], 63, "a"),
        (["???"], 63, "part"),
        (["", "b"], 63, "part-b"),
        (["aaaa", "bbbb"], 17, "aaa-bbbb"),  # the first of two that are equally long
        (["aa-bbbb", "c"], 13, "aa-c"),  # no dash is left at a cut
        (["aaa", "bbb"], 9, ""),
    ],
)
def test_parts_are_sanitized_and_the_longest_is_cut(
    parts: list[str], limit: int, name: str
) -> None:
    assert derived_name(parts, [UID], limit=limit) == "-".join(filter(None, [name, "9179ba0d"]))


@given(st.lists(st.text(), min_size=1, max_size=4), st.text(), st.integers(8, 63))
def test_every_name_is_valid_and_short_enough(parts: list[str], hashed: str, limit: int) -> None:
    name = derived_name(parts, [hashed], limit=limit)
    assert len(name) <= limit
    assert re.fullmatch(DNS_LABEL, name)


def test_what_belongs_to_one_artifact_has_names_of_its_own() -> None:
    named = {make("demo", UID) for make in (download_job_name, size_job_name, account_name)}
    assert len(named) == 3
    assert account_name("demo", UID) != account_name("demo", UID.replace("0f8", "1f8"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("demo", "demo"),
        ("demo.v1_x-Y", "demo.v1_x-Y"),
        ("a" * 63, "a" * 63),
        ("org/name", "org_name"),
        ("  odd  ", "odd"),
        ("", ""),
        ("a" * 64, "a" * 54 + "-ffe054fe"),
    ],
)
def test_a_label_says_what_it_can_of_a_text(text: str, value: str) -> None:
    assert label_value(text) == value


def test_two_long_names_with_the_same_beginning_have_labels_of_their_own() -> None:
    assert label_value("a" * 70 + "x") != label_value("a" * 70 + "y")


@given(st.text(st.sampled_from("aZ0._-/ü "), max_size=90))
def test_every_label_is_valid(text: str) -> None:
    for value in (label_value(text), source_label(text)):
        assert len(value) <= 63
        assert re.fullmatch(LABEL_VALUE, value)


@pytest.mark.parametrize(
    ("uri", "value"),
    [
        ("hf://amd/Llama-3.1-8B", "amd_llama-3.1-8b"),
        ("s3://bucket/a//b/", "bucket_a_b"),
        (f"hf://amd/{'x' * 58}.y", f"amd_{'x' * 58}"),
    ],
)
def test_the_source_is_a_label_without_its_scheme(uri: str, value: str) -> None:
    assert source_label(uri) == value
