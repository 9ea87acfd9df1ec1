"""Kubernetes objects are read without trusting that anything is there."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operator_shim.objects import (
    Object,
    annotations_of,
    at,
    has_condition,
    is_controlled_by,
    is_deleted,
    labels_of,
    moment,
    name_of,
    timestamp,
    uid_of,
)


@pytest.mark.parametrize(
    ("object_", "path", "found"),
    [
        ({"spec": {"size": "1Gi"}}, "spec.size", "1Gi"),
        ({"spec": {"size": 0}}, "spec.size", 0),
        ({"spec": {"size": ""}}, "spec.size", ""),
        ({"spec": {"on": False}}, "spec.on", False),
        ({"spec": {"size": None}}, "spec.size", "else"),
        ({"spec": {}}, "spec.size", "else"),
        ({"spec": None}, "spec.size", "else"),
        ({"spec": "text"}, "spec.size", "else"),
        ({}, "spec.size", "else"),
    ],
)
def test_what_is_not_there_is_the_default(object_: Object, path: str, found: object) -> None:
    assert at(object_, path, "else") == found


def test_an_object_without_anything_can_be_read() -> None:
    assert (name_of({}), uid_of({}), labels_of({}), annotations_of({})) == ("", "", {}, {})
    assert not is_deleted({})
    assert not is_controlled_by({}, "")
    assert not has_condition({}, "Ready")


def test_labels_can_be_changed_without_changing_the_object() -> None:
    object_: Object = {"metadata": {"labels": {"a": "1"}}}
    labels_of(object_)["a"] = "2"
    assert object_ == {"metadata": {"labels": {"a": "1"}}}


@pytest.mark.parametrize(
    ("owner", "controls"),
    [
        ({"uid": "u", "controller": True}, True),
        ({"uid": "u", "controller": False}, False),
        ({"uid": "u"}, False),
        ({"uid": "v", "controller": True}, False),
    ],
)
def test_only_a_controller_controls(owner: Object, controls: bool) -> None:
    assert is_controlled_by({"metadata": {"ownerReferences": [owner]}}, "u") is controls


@pytest.mark.parametrize(
    ("status", "holds"), [("True", True), ("False", False), ("Unknown", False)]
)
def test_a_condition_holds_only_when_it_is_true(status: str, holds: bool) -> None:
    object_ = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
    assert has_condition(object_, "Ready") is holds
    assert not has_condition(object_, "Other")


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T10:00:00Z",
        "2026-01-31T10:00:00.000000Z",
        "2026-01-31T11:00:00+01:00",
        "2026-01-31T10:00:00",
        "2026-01-31t10:00:00z",
    ],
)
def test_a_time_is_read_as_kubernetes_writes_it(text: str) -> None:
    assert moment(text) == datetime(2026, 1, 31, 10, tzinfo=UTC)


def test_a_leap_second_is_the_one_before() -> None:
    assert moment("2026-01-31T09:59:60Z") == moment("2026-01-31T09:59:59Z")


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="SOON"):
        moment("soon")


@given(st.integers(0, 10**16), st.sampled_from([UTC, timezone(timedelta(hours=-5))]))
def test_a_time_is_written_in_utc_to_the_second(microseconds: int, zone: timezone) -> None:
    when = datetime(2000, 1, 1, tzinfo=zone) + timedelta(microseconds=microseconds)
    assert timestamp(when).endswith("Z")
    assert moment(timestamp(when)) == when.replace(microsecond=0)
