"""Why a pod or a Job failed, or does not start, as the operator tells it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader import errors
from aim_downloader.reporters.termination import TerminationMessage as Writer
from operator_shim import phrases
from operator_shim.failures import outcome_of_code
from operator_shim.objects import Object
from operator_shim.outcome import (
    Outcome,
    needs_events,
    needs_log,
    outcome_of_job,
    outcome_of_pod,
    termination_message,
    worst,
)
from operator_shim.retrying import Failure
from tests import classification
from tests.fair_time import fair_time

SAID = {
    "outcome": "failed",
    "exitCode": 66,
    "error": "SnapshotNotFoundError",
    "message": "the repository does not exist",
    "hint": "check the name",
    "protocol": None,
    "bytes": 0,
    "bytesReceived": 12,
    "seconds": 0.146,
    "revision": None,
    "uri": "hf://openai-community/gpt22",
}


def ended(code: int, message: str = "", reason: str = "Error", **status: Any) -> Object:
    """A pod whose container ended so."""
    end = {"exitCode": code, "reason": reason, "message": message}
    containers = [{"name": "model-download", "image": "x", "state": {"terminated": end}}]
    return {"status": {"phase": "Failed", "containerStatuses": containers, **status}}


def ours(code: int, **said: Any) -> Object:
    """A pod of our image that ended so."""
    return ended(code, json.dumps({**SAID, "exitCode": code, **said}))


def waiting(reason: str, message: str = "", *, image: str = "x", init: bool = False) -> Object:
    """A pod that has a node, and whose container waits."""
    container = {"image": image, "state": {"waiting": {"reason": reason, "message": message}}}
    scheduled = {"type": "PodScheduled", "status": "True"}
    kind = "initContainerStatuses" if init else "containerStatuses"
    return {
        "metadata": {"uid": "u"},
        "status": {"phase": "Pending", "conditions": [scheduled], kind: [container]},
    }


def unscheduled(message: str, reason: str = "Unschedulable") -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"status": {"phase": "Pending", "conditions": [condition]}}


def event(reason: str, message: str, *, at: str = "2026-01-31T10:00:00Z", **more: Any) -> Object:
    about = {"uid": "u"}
    return {
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
        "involvedObject": about,
        **more,
    }


def found(outcome: Outcome | None) -> Outcome:
    assert outcome is not None
    return outcome


# --- our image ---


@pytest.mark.parametrize(
    ("code", "reason", "ready_reason", "failure"),
    [
        (1, "PodFailed", "PodFailed", Failure.TRANSIENT),
        (2, "PodFailed", "InvalidSpec", Failure.PERMANENT),
        (65, "PodFailed", "PodFailed", Failure.TRANSIENT),
        (66, "SourceNotFound", "InvalidSpec", Failure.PERMANENT),
        (69, "PodFailed", "PodFailed", Failure.TRANSIENT),
        (73, "StorageFull", "StorageFull", Failure.STORAGE),
        (75, "PodFailed", "PodFailed", Failure.TRANSIENT),
        (77, "AuthError", "AuthError", Failure.ACCESS),
        (130, "PodFailed", "PodFailed", Failure.INFRASTRUCTURE),
        (143, "PodFailed", "PodFailed", Failure.INFRASTRUCTURE),
    ],
)
def test_an_exit_code_of_ours_decides_and_our_own_words_are_told(
    code: int, reason: str, ready_reason: str, failure: Failure
) -> None:
    got = found(outcome_of_pod(ours(code, error="")))
    assert (got.reason, got.ready_reason, got.failure) == (reason, ready_reason, failure)
    assert (got.exit_code, got.status) == (code, "Failed")
    assert got.message == SAID["message"]
    assert got.hint.startswith("check the name; ")
    assert got.permanent == (code in {2, 66})


@pytest.mark.parametrize(
    ("code", "theirs", "expected"),
    [
        (77, "check the name; for a private model set HF_TOKEN", "check the name; under spec.env"),
        (77, "ask for access on its page, then set HF_TOKEN", "ask for access on its page; under"),
        (
            66,
            "check the name; for a private model set HF_TOKEN",
            "for a private model set HF_TOKEN",
        ),
        (75, "check the network", "check the network; proxies and HF_ENDPOINT are set under"),
        (75, "", "proxies and HF_ENDPOINT are set under spec.env"),
    ],
)
def test_what_helps_is_said_once(code: int, theirs: str, expected: str) -> None:
    hint = found(outcome_of_pod(ours(code, error="", hint=theirs))).hint
    assert expected in hint
    for word in ("HF_TOKEN", "HF_ENDPOINT"):
        assert hint.count(word) <= 1
    # When it is tried again says who knows the time.
    assert "tried again" not in hint


def test_every_exit_code_of_the_downloader_has_words_of_its_own() -> None:
    for code, known in errors.EXIT_CODES.items():
        if code == 0:
            continue
        outcome = outcome_of_code(code)
        assert outcome.exit_code == code
        assert outcome.hint
        assert (outcome.message == outcome_of_code(1).message) == (code == 1)
        assert known.again == "after a change" or not outcome.permanent


def test_a_code_that_nobody_knows_is_one_that_nobody_foresaw() -> None:
    got = found(outcome_of_pod(ours(99, message="", hint="")))
    assert (got.reason, got.exit_code, got.failure) == ("PodFailed", 99, Failure.TRANSIENT)
    assert "nobody foresaw" in got.message
    assert "log" in got.hint


@pytest.mark.parametrize(
    ("error", "reason", "failure"),
    [
        ("InsufficientSpaceError", "StorageFull", Failure.STORAGE),
        ("StorageError", "PodFailed", Failure.TRANSIENT),
    ],
)
def test_a_volume_that_may_not_be_written_to_is_not_a_full_one(
    error: str, reason: str, failure: Failure
) -> None:
    got = found(outcome_of_pod(ours(73, error=error)))
    assert (got.reason, got.ready_reason, got.failure) == (reason, reason, failure)


def test_what_the_downloader_writes_is_what_is_read(tmp_path: Any) -> None:
    path = tmp_path / "message"
    message = Writer(path)
    message.about("hf://org/model")
    message.write(77, errors.AccessDeniedError("gated", hint="ask for access"))
    got = termination_message(ended(77, path.read_text()))
    assert got is not None
    assert (got.outcome, got.exit_code, got.error) == ("failed", 77, "AccessDeniedError")
    assert (got.message, got.hint, got.uri) == ("gated", "ask for access", "hf://org/model")
    assert (got.protocol, got.revision, got.bytes) == ("", "", 0)


def test_a_complete_download_tells_its_figures_and_is_no_failure() -> None:
    pod = ours(0, outcome="complete", bytes=7, revision="654e", protocol="XET")
    pod["status"]["phase"] = "Succeeded"
    said = termination_message(pod)
    assert said is not None
    assert (said.bytes, said.bytes_received, said.revision, said.seconds) == (7, 12, "654e", 0.146)
    assert outcome_of_pod(pod) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "no json", "null", "[]", "{}", '{"outcome":"failed"}', '{"exitCode":66}'),
        '{"outcome":"odd","exitCode":66}',
        '{"outcome":["failed"],"exitCode":66}',
        '{"outcome":"failed","exitCode":true}',
        '{"outcome":"failed","exitCode":"66"}',
        "[" * 5000,
    ],
)
def test_a_message_that_is_not_ours_is_none(text: str) -> None:
    assert termination_message(ended(66, text)) is None
    assert found(outcome_of_pod(ended(66, text))).reason == "PodFailed"


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1, "7", None, 10**30, [], {}])
def test_figures_that_no_status_could_hold_are_left_out(odd: object) -> None:
    said = termination_message(ours(66, bytes=odd, bytesReceived=odd, seconds=odd))
    assert said is not None
    assert (said.bytes, said.bytes_received, said.seconds) == (0, 0, 0)


# --- other images ---


@pytest.mark.parametrize(
    ("line", "reason", "ready_reason", "failure"),
    [
        ("Repository Not Found: x", "SourceNotFound", "InvalidSpec", Failure.ACCESS),
        ("Cannot access gated repo: x", "AuthError", "AuthError", Failure.ACCESS),
        ("OSError: No space left on device", "StorageFull", "StorageFull", Failure.STORAGE),
        ("something else", "PodFailed", "PodFailed", Failure.TRANSIENT),
        ("pods is forbidden: x cannot get resource", "PodFailed", "PodFailed", Failure.TRANSIENT),
    ],
)
def test_the_log_of_another_image_decides(
    line: str, reason: str, ready_reason: str, failure: Failure
) -> None:
    pod = ended(1)
    assert needs_log(pod)
    for got in (outcome_of_pod(pod, ["begin", line]), outcome_of_pod(ended(1, f"begin\n{line}"))):
        outcome = found(got)
        assert (outcome.reason, outcome.ready_reason, outcome.failure) == (
            reason,
            ready_reason,
            failure,
        )
        assert line in outcome.message
        assert outcome.hint
        assert not outcome.permanent


LINES = st.lists(
    st.lists(st.sampled_from([*classification.PIECES, " ", "x", "S3", "404"]), max_size=6).map(
        "".join
    ),
    max_size=60,
)


@given(LINES)
def test_phrases_are_found_as_aim_engine_finds_them(lines: list[str]) -> None:
    assert phrases.classify(lines) == classification.classify(lines)
    shouted = [line.upper() for line in lines]
    assert phrases.classify(shouted) == classification.classify(shouted)


@pytest.mark.parametrize("phrase", classification.PHRASES, ids=" … ".join)
def test_each_phrase_is_found_alone(phrase: list[str]) -> None:
    line = " … ".join(phrase)
    assert phrases.classify([line]) == classification.classify([line]) is not None


def test_a_hostile_log_takes_no_time() -> None:
    begun = fair_time()
    assert phrases.classify([word * 4000 for word in ("invalid token ", "404 ", "s3")] * 16) is None
    # Regular expressions take minutes.
    assert fair_time() - begun < 10


def test_only_the_last_lines_count_and_what_is_told_of_them_is_short() -> None:
    assert found(outcome_of_pod(ended(1), ["No such file: ENOSPC", *["x"] * 50])).reason == (
        "PodFailed"
    )
    got = found(outcome_of_pod(ended(1), ["x" * 5000 + " ENOSPC"]))
    assert got.reason == "StorageFull"
    assert len(got.message) < 400
    assert got.message.endswith("ENOSPC")


@pytest.mark.parametrize(
    ("pod", "reason", "words", "failure"),
    [
        (ended(137, reason="OOMKilled"), "PodOOMKilled", "memory", Failure.TRANSIENT),
        (ended(137), "PodFailed", "killed", Failure.TRANSIENT),
        (ended(143), "PodFailed", "from outside", Failure.INFRASTRUCTURE),
        (ended(130), "PodFailed", "from outside", Failure.INFRASTRUCTURE),
        (ended(3, "odd"), "PodFailed", "exit code 3: odd", Failure.TRANSIENT),
        (ended(66), "PodFailed", "exit code 66", Failure.TRANSIENT),
        (
            ended(137, reason="DeadlineExceeded"),
            "PodDeadlineExceeded",
            "longer than it may",
            Failure.TRANSIENT,
        ),
        (
            {"status": {"phase": "Failed", "reason": "DeadlineExceeded"}},
            "PodDeadlineExceeded",
            "longer than it may",
            Failure.TRANSIENT,
        ),
        (
            ended(128, 'exec: "/x": no such file or directory', "StartError"),
            "PodFailed",
            'cannot be started: exec: "/x"',
            Failure.TRANSIENT,
        ),
        (
            {"status": {"phase": "Failed", "message": "odd words"}},
            "PodFailed",
            "odd words",
            Failure.TRANSIENT,
        ),
        ({"status": {"phase": "Failed"}}, "PodFailed", "no reason", Failure.TRANSIENT),
    ],
)
def test_else_the_kubelets_reason_decides(
    pod: Object, reason: str, words: str, failure: Failure
) -> None:
    got = found(outcome_of_pod(pod))
    assert (got.reason, got.failure, got.status) == (reason, failure, "Failed")
    assert words in got.message
    assert got.hint


def test_a_pod_that_was_killed_for_memory_is_not_judged_by_its_log() -> None:
    pod = ended(137, reason="OOMKilled")
    assert found(outcome_of_pod(pod, ["Repository Not Found"])).reason == "PodOOMKilled"
    assert not needs_log(pod)


def test_a_container_that_did_well_does_not_hide_the_one_that_failed() -> None:
    pod = ended(3, "bad")
    fine = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    pod["status"]["containerStatuses"].insert(0, fine)
    pod["status"]["initContainerStatuses"] = [fine]
    assert "exit code 3" in found(outcome_of_pod(pod)).message


# --- pods that were taken away ---


def disrupted(by: str, code: int = 143) -> Object:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": by, "message": "words"}
    return ended(code, conditions=[condition])


LOW = "The node was low on resource: memory."


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"status": {"phase": "Failed", "reason": "Evicted", "message": LOW}}, LOW),
        (disrupted("PreemptionByScheduler"), "higher priority"),
        (disrupted("DeletionByTaintManager"), "does not answer"),
        (disrupted("EvictionByEvictionAPI"), "drained"),
        (disrupted("DeletionByPodGC"), "its node is gone"),
        (disrupted("TerminationByKubelet", 137), "the node ended it"),
        (disrupted("SomethingNew"), "SomethingNew"),
        ({"status": {"phase": "Failed", "reason": "NodeLost"}}, "does not answer"),
        ({"status": {"phase": "Failed", "reason": "Terminated"}}, "shut down"),
        ({"status": {"phase": "Failed", "reason": "Preempting"}}, "higher priority"),
        ({"status": {"phase": "Failed", "reason": "OutOfcpu"}}, "no room"),
        ({"status": {"phase": "Unknown"}}, "does not answer"),
    ],
)
def test_a_pod_that_was_taken_away_did_not_fail_by_itself(pod: Object, words: str) -> None:
    got = found(outcome_of_pod(pod))
    assert (got.reason, got.ready_reason) == ("PodEvicted", "InfrastructureError")
    assert (got.status, got.failure) == ("Degraded", Failure.INFRASTRUCTURE)
    assert words in got.message
    assert "goes on where it stopped" in got.hint
    assert not needs_log(pod)


@pytest.mark.parametrize(
    "said",
    [
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
        'Container download exceeded its local ephemeral storage limit "1Gi".',
        'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi".',
    ],
)
def test_a_pod_that_wrote_too_much_beside_the_volume_has_failed(said: str) -> None:
    got = found(
        outcome_of_pod({"status": {"phase": "Failed", "reason": "Evicted", "message": said}})
    )
    assert (got.reason, got.status, got.failure) == ("PodEvicted", "Failed", Failure.TRANSIENT)
    assert "ephemeral storage" in got.hint


def test_a_disruption_that_is_over_is_none() -> None:
    pod = disrupted("PreemptionByScheduler", 3)
    pod["status"]["conditions"][0]["status"] = "False"
    assert "exit code 3" in found(outcome_of_pod(pod)).message


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_pod_that_is_about_to_be_taken_away_is_told_of(phase: str) -> None:
    pod = disrupted("PreemptionByScheduler")
    pod["status"].update(phase=phase, containerStatuses=[])
    assert found(outcome_of_pod(pod)).reason == "PodEvicted"


def test_our_own_words_count_more_than_an_eviction_unless_they_are_only_that_it_was_stopped() -> (
    None
):
    evicted = {"reason": "Evicted", "message": LOW}
    failed, cancelled = ours(77), ours(143, outcome="cancelled")
    for pod in (failed, cancelled):
        pod["status"].update(evicted)
    assert found(outcome_of_pod(failed)).reason == "AuthError"
    assert found(outcome_of_pod(cancelled)).reason == "PodEvicted"


# --- pods that do not start ---

PULL = 'Failed to pull image "reg.example.com/x:1": '


@pytest.mark.parametrize(
    ("pod", "reason", "ready_reason", "status", "hint"),
    [
        (
            waiting("ErrImagePull", f"{PULL}401 Unauthorized"),
            *("ImagePullAuthFailure", "AuthError", "Failed", "imagePullSecrets"),
        ),
        (
            waiting("ErrImagePull", f"{PULL}pull access denied, repository does not exist or may"),
            *("ImagePullAuthFailure", "AuthError", "Failed", "imagePullSecrets"),
        ),
        (
            waiting("ImagePullBackOff", f"Back-off: ErrImagePull: {PULL}no basic auth credentials"),
            *("ImagePullAuthFailure", "AuthError", "Failed", "imagePullSecrets"),
        ),
        (
            waiting("ErrImagePull", f"{PULL}reg.example.com/x:1: not found"),
            *("ImageNotFound", "ReferenceNotFound", "Failed", "modelDownloadImage"),
        ),
        (
            waiting("ErrImagePull", f"{PULL}manifest unknown", init=True),
            *("ImageNotFound", "ReferenceNotFound", "Failed", "modelDownloadImage"),
        ),
        (
            waiting("ErrImageNeverPull", "not present with pull policy of Never"),
            *("ImageNotFound", "ReferenceNotFound", "Failed", "modelDownloadImage"),
        ),
        (
            waiting("InvalidImageName", "couldn't parse image name"),
            *("ImageNotFound", "InvalidSpec", "Failed", "modelDownloadImage"),
        ),
        (
            waiting("ErrImagePull", f"{PULL}dial tcp: lookup reg.example.com: no such host"),
            *("ImagePullBackOff", "InfrastructureError", "Degraded", "registry"),
        ),
        (
            waiting("ErrImagePull", f"{PULL}429 toomanyrequests"),
            *("ImagePullBackOff", "InfrastructureError", "Degraded", "registry"),
        ),
        (
            # What an image is called is no reason.
            waiting("ErrImagePull", "Failed to pull a/denied:404: EOF", image="a/denied:404"),
            *("ImagePullBackOff", "InfrastructureError", "Degraded", "registry"),
        ),
        (
            waiting("ImagePullBackOff"),
            *("ImagePullBackOff", "InfrastructureError", "Degraded", "registry"),
        ),
        (
            waiting("CreateContainerConfigError", 'secret "hf-token" not found'),
            *("CreateContainerConfigError", "ReferenceNotFound", "Failed", "create it"),
        ),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image is root"),
            *("CreateContainerConfigError", "InvalidSpec", "Failed", "modelDownloadImage"),
        ),
        (
            waiting("CreateContainerError", "context deadline exceeded"),
            *("CreateContainerError", "InfrastructureError", "Degraded", "describe pod"),
        ),
        (
            unscheduled("0/3 nodes are available: 3 Insufficient cpu."),
            *("FailedScheduling", "Progressing", "Pending", "ask for less"),
        ),
        (
            unscheduled("0/1 nodes: pod has unbound immediate PersistentVolumeClaims."),
            *("FailedScheduling", "Progressing", "Pending", "describe pvc"),
        ),
        (
            unscheduled("0/1 nodes: 1 node(s) had volume node affinity conflict."),
            *("FailedScheduling", "Progressing", "Pending", "other nodes"),
        ),
        (
            unscheduled("0/1 nodes: 1 node(s) had untolerated taint {gpu: }."),
            *("FailedScheduling", "Progressing", "Pending", "add a node"),
        ),
        (
            unscheduled(
                "Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated"
            ),
            *("FailedScheduling", "Progressing", "Pending", "quota"),
        ),
        (
            unscheduled("words of tomorrow"),
            *("FailedScheduling", "Progressing", "Pending", "scheduler"),
        ),
    ],
)
def test_a_pod_that_does_not_start_says_what_it_waits_for(
    pod: Object, reason: str, ready_reason: str, status: str, hint: str
) -> None:
    got = found(outcome_of_pod(pod))
    assert (got.reason, got.ready_reason, got.status) == (reason, ready_reason, status)
    assert got.failure is Failure.INFRASTRUCTURE
    assert got.message
    assert hint in got.hint


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('secret "hf-token" not found', "Secret 'hf-token' does not exist"),
        ('configmap "proxy" not found', "ConfigMap 'proxy' does not exist"),
        ('Secrets "hf-token" not found', "Secret 'hf-token' does not exist"),
        ("couldn't find key token in Secret ml/hf-token", "Secret 'hf-token' has no key 'token'"),
        ("couldn't find key url in ConfigMap ml/proxy", "ConfigMap 'proxy' has no key 'url'"),
    ],
)
def test_what_is_missing_is_named(said: str, words: str) -> None:
    got = found(outcome_of_pod(waiting("CreateContainerConfigError", said)))
    assert got.message.startswith(words)


@pytest.mark.parametrize(
    ("reason", "message", "words", "hint"),
    [
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "ca": configmap "ca" not found',
            *("ConfigMap 'ca' does not exist", "storage"),
        ),
        ("FailedMount", "mount.nfs: Connection timed out", "timed out", "reached from the node"),
        ("FailedMount", "mount.nfs: Permission denied", "denied", "mount it"),
        ("FailedAttachVolume", "Multi-Attach error for volume", "Multi", "ReadWriteMany"),
        ("FailedCreatePodSandBox", "failed to set up network", "network", "network plugin"),
    ],
)
def test_a_pod_that_is_being_made_tells_by_its_events(
    reason: str, message: str, words: str, hint: str
) -> None:
    for pod in (waiting("ContainerCreating"), waiting("PodInitializing", init=True)):
        assert needs_events(pod)
        assert outcome_of_pod(pod) is None
        got = found(outcome_of_pod(pod, events=[event(reason, message)]))
        assert (got.reason, got.status, got.ready_reason) == (reason, "Pending", "Progressing")
        assert words in got.message
        assert hint in got.hint


def test_the_newest_warning_about_this_pod_counts() -> None:
    pod = waiting("ContainerCreating")
    old = event("FailedAttachVolume", "old", at="2026-01-31T09:00:00Z")
    new = event("FailedMount", "new", at="2026-01-31T11:00:00Z")
    others = event("FailedMount", "other", at="2026-01-31T12:00:00Z", involvedObject={"uid": "v"})
    normal = event("FailedMount", "x", at="2026-01-31T12:00:00Z", type="Normal")
    for events in ([old, new, others, normal], [normal, others, new, old]):
        assert found(outcome_of_pod(pod, events=events)).message == "new"
    assert outcome_of_pod(pod, events=[others, normal]) is None


def test_an_event_of_the_newer_kind_is_read_too() -> None:
    newer = {
        "type": "Warning",
        "reason": "FailedMount",
        "note": "timed out",
        "regarding": {"uid": "u"},
        "eventTime": "2026-01-31T10:00:00.000000Z",
    }
    assert found(outcome_of_pod(waiting("ContainerCreating"), events=[newer])).message == (
        "timed out"
    )


def test_why_an_image_is_not_pulled_again_stands_in_an_earlier_event() -> None:
    pod = waiting("ImagePullBackOff", 'Back-off pulling image "x"')
    assert needs_events(pod)
    got = found(outcome_of_pod(pod, events=[event("Failed", f"{PULL}401 Unauthorized")]))
    assert got.reason == "ImagePullAuthFailure"
    assert "401" in got.message


def test_the_same_is_not_said_again_by_each_event_about_an_image() -> None:
    error = 'failed to resolve reference "x": network is unreachable'
    pod = waiting("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {error}')
    texts = (
        'Back-off pulling image "x"',
        f'Failed to pull image "x": {error}',
        *("Error: ErrImagePull", "Error: ImagePullBackOff"),
    )
    got = found(outcome_of_pod(pod, events=[event("Failed", each) for each in texts]))
    assert got.message == f'Back-off pulling image "x": ErrImagePull: {error}'


@pytest.mark.parametrize(
    "pod",
    [
        {},
        {"status": {"phase": "Pending"}},
        {"status": {"phase": "Running"}},
        {"status": {"phase": "Succeeded"}},
        waiting("ContainerCreating"),
        waiting("PodInitializing"),
    ],
)
def test_a_pod_that_does_well_has_no_outcome(pod: Object) -> None:
    assert outcome_of_pod(pod) is None
    assert not needs_log(pod)


@pytest.mark.parametrize(
    "pod",
    [
        {},
        unscheduled("no"),
        {"status": {"phase": "Running"}},
        waiting("InvalidImageName", "x"),
        waiting("CreateContainerConfigError", "x"),
        ended(1),
    ],
)
def test_events_are_only_asked_for_where_the_pod_itself_is_silent(pod: Object) -> None:
    assert not needs_events(pod)


def test_the_log_is_only_asked_for_where_the_pod_itself_is_silent() -> None:
    assert not needs_log(ours(66))
    assert not needs_log({"status": {"phase": "Failed"}})
    assert needs_log(ended(66, "no json"))


# --- Jobs ---


def job(reason: str, message: str = "", kind: str = "Failed", status: str = "True") -> Object:
    condition = {"type": kind, "status": status, "reason": reason, "message": message}
    return {"status": {"conditions": [condition]}}


POLICY = "Container download for pod ml/x failed with exit code {} matching FailJob rule at index 1"


@pytest.mark.parametrize(
    ("failed", "reason", "failure", "code"),
    [
        (job("BackoffLimitExceeded"), "JobBackoffLimitExceeded", Failure.TRANSIENT, None),
        (job("DeadlineExceeded"), "JobDeadlineExceeded", Failure.TRANSIENT, None),
        (job("FailedIndexes", "Job has failed indexes"), "JobFailed", Failure.TRANSIENT, None),
        (job("PodFailurePolicy", POLICY.format(66)), "SourceNotFound", Failure.PERMANENT, 66),
        (job("PodFailurePolicy", POLICY.format(77)), "AuthError", Failure.ACCESS, 77),
        (job("PodFailurePolicy", "words of tomorrow"), "JobFailed", Failure.TRANSIENT, None),
        (job(""), "JobFailed", Failure.TRANSIENT, None),
    ],
)
def test_a_job_whose_pods_are_gone_says_what_it_can(
    failed: Object, reason: str, failure: Failure, code: int | None
) -> None:
    got = found(outcome_of_job(failed))
    assert (got.reason, got.failure, got.exit_code) == (reason, failure, code)
    assert got.message
    assert got.hint


@pytest.mark.parametrize(
    "fine",
    [{}, job("x", status="False"), job("x", kind="Complete"), job("x", kind="FailureTarget")],
)
def test_a_job_that_has_not_failed_has_no_outcome(fine: Object) -> None:
    assert outcome_of_job(fine) is None


@pytest.mark.parametrize(
    ("codes", "decides"),
    [
        ([], None),
        ([75, 77, 75], 77),  # one shard waits for another, which is denied
        ([77, 66], 66),
        ([73, 77, 69], 77),
        ([69, 73], 73),
        ([143, 69, 143], 69),
        ([69, 75], 75),  # of equals the last
    ],
)
def test_of_several_pods_the_one_that_is_hardest_to_cure_decides(
    codes: list[int], decides: int | None
) -> None:
    got = worst([None, *map(outcome_of_code, codes), None])
    assert (got and got.exit_code) == decides


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(list(SAID)), ANYTHING), st.integers(1, 255))
def test_whatever_a_pod_writes_there_is_something_to_say_of_it(
    said: dict[str, Any], code: int
) -> None:
    got = found(outcome_of_pod(ended(code, json.dumps({**SAID, **said}))))
    assert isinstance(got.message, str)
    assert got.message
    assert got.hint


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
@pytest.mark.parametrize(
    ("said", "told", "helps"),
    [
        ("401 Unauthorized", "ImagePullAuthFailure", "registry's password"),
        ("i/o timeout", "ImagePullBackOff", "reaches the registry"),
    ],
)
def test_a_secret_for_the_registry_that_is_missing_is_named(
    reason: str, said: str, told: str, helps: str
) -> None:
    pod = waiting(reason, f"{PULL}{said}")
    assert needs_events(pod)
    lacks = "Unable to retrieve some image pull secrets (nosuch); attempting to pull the image may"
    events = [
        event("FailedToRetrieveImagePullSecret", lacks),
        event("Failed", "Error: ErrImagePull", at="2026-01-31T10:00:09Z"),
    ]
    got = found(outcome_of_pod(pod, events=events))
    assert got.reason == told
    assert got.message.startswith("there is no Secret 'nosuch', which spec.imagePullSecrets names:")
    assert said in got.message
    assert got.hint.startswith("create it in this namespace, or correct that; ")
    assert helps in got.hint
    assert "nosuch" not in found(outcome_of_pod(pod, events=events[1:])).message
