"""What a status says, when it is written, and what people are told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from operator_shim.objects import Object, timestamp
from operator_shim.observed import Found, observe
from operator_shim.status import events_of, status_of
from operator_shim.telling import differs
from tests.operator.fakes import OPTIONS, START, artifact, reasons

NOW = START + timedelta(minutes=5)


def told(kind: str, status: str, reason: str, message: str = "") -> Object:
    stamp = timestamp(START)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp,
    }


def status(found: Object, **more: Any) -> Object:
    return status_of(observe(Found(found, **more), OPTIONS, NOW))


@pytest.mark.parametrize(
    ("owners", "mode"), [([], "Shared"), ([{"uid": "cache", "controller": True}], "Dedicated")]
)
def test_the_mode_is_told_by_the_owners(owners: list[Object], mode: str) -> None:
    assert status(artifact(ownerReferences=owners))["mode"] == mode


def test_the_generation_that_was_seen_is_told_by_the_status_and_each_condition() -> None:
    made = status(artifact(generation=7))
    assert made["observedGeneration"] == 7
    assert {each["observedGeneration"] for each in made["conditions"]} == {7}


@pytest.mark.parametrize(
    ("before", "moves"),
    [
        (told("Ready", "False", "Progressing", "other words"), False),
        (told("Ready", "False", "AuthError"), True),
        (told("Ready", "True", "Progressing"), True),
    ],
)
def test_the_time_of_a_condition_moves_with_its_status_or_reason(
    before: Object, moves: bool
) -> None:
    made = status(artifact(status={"conditions": [before]}))
    ready = next(each for each in made["conditions"] if each["type"] == "Ready")
    assert ready["lastTransitionTime"] == timestamp(NOW if moves else START)


def test_progress_and_download_are_the_pods_while_nothing_has_ended() -> None:
    made = status(artifact())
    assert not {"progress", "download"} & set(made)


@pytest.mark.parametrize("doubt", ["True", "False"])
def test_doubts_are_told_as_past_once_they_are_over(doubt: str) -> None:
    kinds = {
        "AuthValid": "True AuthenticationValid",
        "ConfigValid": "True ConfigurationValid",
        "DependenciesReachable": "True Reachable",
    }
    before = [told(kind, doubt, "Whatever") for kind in kinds]
    made = reasons(status(artifact(status={"conditions": before})))
    assert {kind: made[kind] for kind in kinds} == kinds
    assert not set(kinds) & set(reasons(status(artifact())))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({"status": "Ready", "progress": {"percentage": 3, "more": 1}}, False),
        ({"status": "Ready", "progress": {"percentage": 3}, "theirs": 1}, False),
        ({"status": "Ready", "progress": {"percentage": 4}}, True),
        ({"status": "Ready"}, True),
        ({"status": "Failed", "progress": {"percentage": 3}}, True),
        ({}, True),
    ],
)
def test_what_others_have_told_is_no_difference(before: Object, expected: bool) -> None:
    assert differs({"status": "Ready", "progress": {"percentage": 3}}, before) is expected


def test_conditions_of_others_are_no_difference_and_ours_are() -> None:
    mine, theirs = told("Ready", "True", "AllComponentsReady"), told("Theirs", "True", "Any")
    assert not differs({"conditions": [mine]}, {"conditions": [theirs, mine]})
    changed = {**mine, "message": "new"}
    assert differs({"conditions": [changed]}, {"conditions": [theirs, mine]})


def at_state(state: str, *conditions: Object, **more: Any) -> Object:
    return {"status": {"status": state, "conditions": list(conditions), **more}}


WORKING = at_state("Progressing", told("Ready", "False", "Progressing", "at work"))
DONE = at_state("Ready", told("Ready", "True", "AllComponentsReady", "the model is there"))
FULL = at_state(
    "Failed",
    told("Ready", "False", "StorageFull", "no room"),
    told("DownloadJobPodsReady", "False", "StorageFull", "no room"),
)
NO_NODE = at_state(
    "Pending",
    told("Ready", "False", "Progressing", "no node"),
    told("DownloadJobPodsReady", "False", "FailedScheduling", "no node"),
)
RETRYING = at_state(
    "Progressing",
    told("DownloadJobPodsReady", "False", "PodFailed", "boom; another pod is about to start"),
)


@pytest.mark.parametrize(
    ("before", "after", "notes"),
    [
        ({}, WORKING, []),
        (WORKING, WORKING, []),
        (WORKING, DONE, [("Normal", "Ready", "the model is there")]),
        (DONE, DONE, []),
        (DONE, WORKING, [("Warning", "ModelLost", "at work")]),
        (WORKING, FULL, [("Warning", "StorageFull", "no room")]),
        (FULL, FULL, []),
        (WORKING, NO_NODE, [("Warning", "FailedScheduling", "no node")]),
        (NO_NODE, WORKING, []),
        (WORKING, RETRYING, [("Warning", "Retrying", "boom; another pod is about to start")]),
        (RETRYING, RETRYING, []),
        (
            WORKING,
            at_state("Progressing", discoveredSizeBytes=2**30),
            [("Normal", "SizeDiscovered", "the model has 1 GiB to download")],
        ),
    ],
)
def test_what_people_are_told(
    before: Object, after: Object, notes: list[tuple[str, str, str]]
) -> None:
    said = events_of(before, after)
    assert [(note.kind, note.reason, note.message) for note in said] == notes
