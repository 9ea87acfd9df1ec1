"""When a failed download is tried again."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operator_shim.retrying import Failure, RetryState, after_failure, due, inputs_hash, load

NOW = datetime(2026, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def failed(times: int, failure: Failure, *, name: str = "demo", inputs: str = "i") -> RetryState:
    state = None
    for number in range(times):
        state = after_failure(state, failure, inputs, NOW, name=name, job=f"job-{number}")
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("times", "least"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 50), (1000, 50)]
)
def test_what_passes_is_tried_again_after_a_minute_and_each_time_later_up_to_an_hour(
    times: int, least: int
) -> None:
    state = failed(times, Failure.TRANSIENT)
    assert state.attempts == times
    assert state.next is not None
    assert least * MINUTE <= state.next - NOW <= min(least * MINUTE * 1.2, HOUR) + SECOND


@pytest.mark.parametrize("failure", [Failure.ACCESS, Failure.STORAGE])
def test_access_and_room_are_asked_for_each_hour(failure: Failure) -> None:
    for times in (1, 5):
        state = failed(times, failure)
        assert state.attempts == times
        assert state.next is not None
        assert 50 * MINUTE <= state.next - NOW <= HOUR + SECOND


def test_what_only_a_change_cures_waits_for_one() -> None:
    state = failed(1, Failure.PERMANENT)
    assert state.next is None
    assert due(state, "i", NOW + 1000 * HOUR) is False
    assert due(state, "another", NOW) is True


def test_the_clusters_own_trouble_counts_no_attempt() -> None:
    twice = failed(2, Failure.TRANSIENT)
    state = after_failure(twice, Failure.INFRASTRUCTURE, "i", NOW, name="demo", job="evicted")
    assert state.attempts == 2
    assert state.next is not None
    assert MINUTE <= state.next - NOW <= 2 * MINUTE
    assert failed(3, Failure.INFRASTRUCTURE).attempts == 0


@pytest.mark.parametrize("failure", [each for each in Failure if each is not Failure.PERMANENT])
def test_it_is_due_when_the_time_has_come_and_at_once_for_other_inputs(failure: Failure) -> None:
    state = failed(1, failure)
    assert state.next is not None
    assert due(None, "i", NOW) is True
    assert due(state, "i", NOW) == state.next
    assert due(state, "i", state.next - SECOND) == state.next
    assert due(state, "i", state.next) is True
    assert due(state, "i", state.next + HOUR) is True
    assert due(state, "another", NOW) is True


def test_a_time_that_no_state_of_ours_can_have_is_not_waited_for() -> None:
    # A clock was ahead, or a hand at work. Later it would be as far away again.
    for far in (NOW + 3 * HOUR, NOW.replace(year=9999)):
        state = replace(failed(1, Failure.TRANSIENT), next=far)
        assert due(state, "i", NOW) is True


def test_attempts_without_end_are_not_told_with_all_their_digits() -> None:
    facts = json.loads(failed(1, Failure.TRANSIENT).dump())
    state = load(json.dumps({**facts, "attempts": 10**300}))
    assert state is not None
    assert state.attempts == 9999
    after = after_failure(state, Failure.TRANSIENT, "i", NOW, name="demo", job="next")
    assert after.attempts == 9999
    assert load(after.dump()) == after


def test_another_input_begins_to_count_anew() -> None:
    state = after_failure(
        failed(5, Failure.TRANSIENT), Failure.TRANSIENT, "another", NOW, name="demo", job="new"
    )
    assert (state.attempts, state.inputs) == (1, "another")


def test_a_job_that_is_seen_twice_counts_once() -> None:
    state = failed(2, Failure.TRANSIENT)
    again = after_failure(state, Failure.TRANSIENT, "i", NOW + HOUR, name="demo", job=state.job)
    assert again == state


def test_artifacts_that_fail_together_come_again_one_by_one_and_always_at_the_same_time() -> None:
    times = {failed(3, Failure.TRANSIENT, name=f"model-{n}").next for n in range(50)}
    assert len(times) > 20
    assert failed(3, Failure.TRANSIENT) == failed(3, Failure.TRANSIENT)


MOMENTS = st.integers(0, 10**16).map(
    lambda microseconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)


@given(st.sampled_from(Failure), st.integers(1, 9), st.text(), st.text(), MOMENTS)
def test_a_state_survives_its_annotation(
    failure: Failure, times: int, inputs: str, job: str, now: datetime
) -> None:
    state = None
    for number in range(times):
        state = after_failure(state, failure, inputs, now, name="demo", job=f"{job}{number}")
    assert state is not None
    assert load(state.dump()) == state


def test_the_annotation_is_readable() -> None:
    told = {"reason": "PodFailed"}
    next_ = NOW.replace(microsecond=0)
    state = RetryState(Failure.TRANSIENT, 3, next_, "9f0c", "uid", "DownloadJob", "pvc/42", told)
    assert state.dump() == (
        '{"class":"transient","attempts":3,"next":"2026-01-31T10:00:00Z",'
        '"inputs":"9f0c","job":"uid","of":"DownloadJob","volume":"pvc/42",'
        '"told":{"reason":"PodFailed"}}'
    )


@pytest.mark.parametrize(
    "annotation",
    [
        *(None, "", "x", "null", "[]", "{}", '{"class":"transient"}'),
        {"class": "odd"},
        {"attempts": "x"},
        {"attempts": float("inf")},
        {"next": "soon"},
        {"next": 7},
        {"next": "9999-12-31T23:59:59-23:00"},
        '{"class":' * 40_000,
        {"told": []},
        {"told": None},
    ],
)
def test_an_annotation_that_cannot_be_read_is_none(annotation: object) -> None:
    right = json.loads(failed(1, Failure.TRANSIENT).dump())
    assert load(json.dumps(right)) is not None
    odd = json.dumps({**right, **annotation}) if isinstance(annotation, dict) else annotation
    assert load(odd) is None  # type: ignore[arg-type]  # a text, or None


def test_what_found_no_room_is_due_on_another_volume_and_nothing_else_is() -> None:
    for failure in Failure:
        state = after_failure(None, failure, "i", NOW, name="demo", job="job", volume="pvc/11")
        assert due(state, "i", NOW, "pvc/11") is not True
        assert (due(state, "i", NOW, "pvc/22") is True) is (failure is Failure.STORAGE)


def test_one_job_counts_nothing_for_the_other() -> None:
    one = after_failure(None, Failure.TRANSIENT, "i", NOW, name="demo", job="1", of="CheckSizeJob")
    for of, attempts in (("CheckSizeJob", 2), ("DownloadJob", 1)):
        after = after_failure(one, Failure.TRANSIENT, "i", NOW, name="demo", job="2", of=of)
        assert after.attempts == attempts


def test_of_what_was_told_so_much_is_kept_as_an_annotation_should_hold() -> None:
    told = {"reason": "PodFailed", "message": "x" * 5000}
    state = after_failure(None, Failure.TRANSIENT, "i", NOW, name="demo", job="1", told=told)
    assert len(state.dump()) < 2000
    assert load(state.dump()) == state


def test_inputs_that_say_the_same_have_the_same_hash() -> None:
    assert inputs_hash({"a": 1, "b": None}, "x") == inputs_hash({"b": None, "a": 1}, "x")
    assert inputs_hash("a", "b") != inputs_hash("ab")
    assert inputs_hash("spec", None) != inputs_hash("spec", "please")
