"""What an AIMArtifact is told of a download, and what happens when it cannot be told."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aim_downloader import events
from aim_downloader.config import Config
from aim_downloader.errors import DownloadCancelledError
from aim_downloader.reporters.artifact_status import (
    ArtifactStatus,
    Fields,
    merge_patch,
    pruned,
    without,
)
from aim_downloader.reporters.kubernetes import KubernetesReporter, kubernetes_reporter
from aim_downloader.reporters.phrases import disarm
from aim_downloader.sharding import Shard
from tests.api_server import CLOSE, HANG, Answer, ApiServerDouble, service_account
from tests.classification import classify
from tests.fair_time import fair_time
from tests.integration.test_tls import Authority, another_authority, authority

__all__ = ["another_authority", "authority"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVED = events.SnapshotResolved("hf://org/model", COMMIT, files=3, bytes=2000)
PLANNED = events.PlanMade(
    target="/cache",
    files=2,
    bytes=1000,
    fetch_files=1,
    fetch_bytes=700,
    resumed_bytes=0,
    held_files=1,
    held_bytes=300,
    left_out_files=0,
    left_out_bytes=0,
    kept_files=0,
    kept_bytes=0,
    hint="",
)
SAMPLE = events.RunProgressed(
    bytes_done=578,
    bytes_total=1000,
    bytes_received=278,
    files_done=1,
    files_total=2,
    rate=42.6,
    eta=9.9,
    connections=8,
    verifying=False,
    active=(),
)
RECEIVED = replace(SAMPLE, bytes_done=1000, eta=0.0)
PUBLISHED = events.SnapshotPublished("/cache", COMMIT, 2, 1000, 700, 12.0)
EXHAUSTED = events.RunFailed("AllProtocolsFailedError", "model.bin: all failed", "", 69)
NO_SPACE = events.RunFailed("InsufficientSpaceError", "no room", "", 73)
CANCELLED = events.RunCancelled(578, 1000)


def started(protocol: str, attempt: int) -> events.FileStarted:
    return events.FileStarted("model.bin", 700, 0, protocol, attempt, 2)


def switched(failed: str, to: str) -> events.ProtocolSwitched:
    return events.ProtocolSwitched("model.bin", failed, to, "broken")


def after(*happened: events.Event) -> ArtifactStatus:
    status = ArtifactStatus(("XET", "HF_TRANSFER"))
    for event in happened:
        status = status.after(event)
    return status


# --- what the status says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happened", "percentage", "done", "total"),
    [
        ([], 0, None, None),
        ([RESOLVED], 0, None, None),
        # Reading through what is there says nothing of the model.
        ([RESOLVED, replace(SAMPLE, verifying=True)], 0, None, None),
        ([RESOLVED, PLANNED], 30, 300, 1000),
        ([RESOLVED, PLANNED, SAMPLE], 57, 578, 1000),
        ([RESOLVED, PLANNED, RECEIVED], 100, 1000, 1000),
        ([RESOLVED, PLANNED, replace(RECEIVED, bytes_done=1001)], 100, 1000, 1000),
        ([RESOLVED, PLANNED, replace(SAMPLE, bytes_done=999)], 99, 999, 1000),
        ([RESOLVED, PLANNED, RECEIVED, PUBLISHED], 100, 1000, 1000),
        ([RESOLVED, PLANNED, SAMPLE, EXHAUSTED], 57, 578, 1000),
        ([RESOLVED, PLANNED, SAMPLE, CANCELLED], 57, 578, 1000),
        ([PLANNED, PUBLISHED], 100, 1000, 1000),
        ([replace(PLANNED, bytes=0, held_bytes=0)], 0, 0, 0),
        ([PLANNED, PUBLISHED, RESOLVED], 0, None, None),
        ([PLANNED, PUBLISHED, PLANNED], 30, 300, 1000),
    ],
)
def test_progress_is_of_the_whole_model_and_100_when_its_bytes_are_there(
    happened: Sequence[events.Event], percentage: int, done: int | None, total: int | None
) -> None:
    progress = after(*happened).as_fields()["progress"]
    assert progress["percentage"] == percentage
    assert progress["displayPercentage"] == f"{percentage} %"
    assert (progress["downloadedBytes"], progress["totalBytes"]) == (done, total)


@pytest.mark.parametrize(
    ("happened", "rate", "remaining"),
    [
        ([PLANNED], None, None),
        ([PLANNED, SAMPLE], 43, 10),
        ([PLANNED, replace(SAMPLE, rate=0.0, eta=None)], 0, None),
        ([PLANNED, replace(SAMPLE, eta=-0.6)], 43, 0),
        ([PLANNED, SAMPLE, PUBLISHED], None, None),
        ([PLANNED, SAMPLE, EXHAUSTED], None, None),
        ([PLANNED, SAMPLE, CANCELLED], None, None),
    ],
)
def test_speed_and_remaining_time_are_there_while_bytes_come(
    happened: Sequence[events.Event], rate: int | None, remaining: int | None
) -> None:
    progress = after(*happened).as_fields()["progress"]
    assert (progress["bytesPerSecond"], progress["remainingSeconds"]) == (rate, remaining)


FIRST = [RESOLVED, PLANNED, started("XET", 1)]
SECOND = [*FIRST, switched("XET", "HF_TRANSFER"), started("HF_TRANSFER", 2)]


@pytest.mark.parametrize(
    ("happened", "protocol", "attempt", "message"),
    [
        ([RESOLVED, PLANNED], None, None, None),
        # A protocol outside of the sequence is no attempt.
        ([RESOLVED, PLANNED, started("HTTP", 0)], None, None, None),
        (FIRST, "XET", 1, "Downloading with XET"),
        ([*FIRST, SECOND[3]], "XET", 1, "Failed with XET"),
        ([*FIRST, events.ProtocolLeft("XET", "gone")], "XET", 1, "Failed with XET"),
        (SECOND, "HF_TRANSFER", 2, "Downloading with HF_TRANSFER"),
        # Other files may still be at an earlier place; the furthest is told.
        ([*SECOND, started("XET", 2)], "HF_TRANSFER", 2, "Downloading with HF_TRANSFER"),
        ([*SECOND, switched("XET", "")], "HF_TRANSFER", 2, "Downloading with HF_TRANSFER"),
        ([*SECOND, switched("HF_TRANSFER", "")], "HF_TRANSFER", 2, "Failed with HF_TRANSFER"),
        (
            [*SECOND, switched("HF_TRANSFER", ""), started("HF_TRANSFER", 2)],
            "HF_TRANSFER",
            2,
            "Downloading with HF_TRANSFER",
        ),
        ([*FIRST, SAMPLE], "XET", 1, "Downloading with XET"),
        ([*FIRST, RECEIVED], "XET", 1, "Verifying integrity..."),
        ([*FIRST, RECEIVED, PUBLISHED], "XET", 1, "Complete"),
        ([RESOLVED, PLANNED, PUBLISHED], None, None, "Complete"),
        ([*SECOND, EXHAUSTED], "HF_TRANSFER", 2, "All 2 attempts exhausted"),
        ([*FIRST, NO_SPACE], "XET", 1, "Failed with XET"),
        ([RESOLVED, NO_SPACE], None, None, None),
        ([*FIRST, SAMPLE, CANCELLED], "XET", 1, "Downloading with XET"),
    ],
)
def test_the_furthest_attempt_is_told(
    happened: Sequence[events.Event],
    protocol: str | None,
    attempt: int | None,
    message: str | None,
) -> None:
    assert after(*happened).as_fields()["download"] == {
        "protocol": protocol,
        "attempt": attempt,
        "totalAttempts": 2,
        "protocolSequence": "XET,HF_TRANSFER",
        "message": message,
        "revision": COMMIT if RESOLVED in happened else None,
    }


@pytest.mark.parametrize("failed", [EXHAUSTED, NO_SPACE])
def test_a_model_that_failed_is_told_of_also_when_another_follows(failed: events.Event) -> None:
    at_the_end = after(*FIRST, SAMPLE, failed)
    assert after(*FIRST, SAMPLE, failed, *FIRST, RECEIVED, PUBLISHED) == at_the_end


@pytest.mark.parametrize(
    ("known", "wanted", "patch"),
    [
        (None, {"a": 1, "b": None, "c": {"d": None}}, {"a": 1, "b": None, "c": {"d": None}}),
        ({}, {"a": 1, "b": None, "c": {"d": None}}, {"a": 1}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1, "foreign": 1}, {"a": None}, {"a": None}),
        ({"c": {"d": 1, "e": 2, "foreign": 3}}, {"c": {"d": 1, "e": 3}}, {"c": {"e": 3}}),
        ({"c": None}, {"c": {"d": 1}}, {"c": {"d": 1}}),
    ],
)
def test_a_patch_is_what_differs(known: Fields | None, wanted: Fields, patch: Fields) -> None:
    assert merge_patch(known, wanted) == patch


@pytest.mark.parametrize(
    ("patch", "answer", "places"),
    [
        ({"a": 1}, {"a": 1}, set()),
        ({"a": 1}, {"a": 2}, set()),  # somebody was quicker
        ({"a": None}, {}, set()),
        ({"a": 0, "b": 1}, {"b": 1}, {("a",)}),
        ({"c": {"d": 1, "e": 2}}, {"c": {"d": 1}}, {("c", "e")}),
        ({"c": {"d": 1}}, {}, {("c", "d")}),
    ],
)
def test_fields_that_a_kind_lacks_are_noticed(
    patch: Fields, answer: Fields, places: set[tuple[str, ...]]
) -> None:
    assert pruned(patch, answer) == places


def test_fields_are_left_out_by_their_place() -> None:
    fields = {"a": 1, "c": {"a": 2, "d": {"e": 3}}}
    assert without(fields, {("c", "a"), ("c", "d", "e")}) == {"a": 1, "c": {"d": {}}}


# --- how it is sent -------------------------------------------------------------------------------

OF_AIM_ENGINE = {
    "progress": ("percentage", "displayPercentage", "downloadedBytes", "totalBytes"),
    "download": ("protocol", "attempt", "totalAttempts", "protocolSequence", "message"),
}
NEVER = 60.0
OFTEN = 0.02
COMPLETE = {
    "progress": {
        "percentage": 100,
        "displayPercentage": "100 %",
        "downloadedBytes": 1000,
        "totalBytes": 1000,
    },
    "download": {
        "protocol": "XET",
        "attempt": 1,
        "totalAttempts": 2,
        "protocolSequence": "XET,HF_TRANSFER",
        "message": "Complete",
        "revision": COMMIT,
    },
}


@pytest.fixture
def server(authority: Authority) -> Iterator[ApiServerDouble]:
    with ApiServerDouble(authority) as server:
        yield server


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def account(tmp_path: Path, authority: Authority) -> Path:
    return service_account(tmp_path / "account", authority, "a-token")


def environment(server: ApiServerDouble) -> dict[str, str]:
    return {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.port),
        "ARTIFACT_NAMESPACE": "team",
        "ARTIFACT_NAME": "demo",
    }


class Reporters:
    """Makes reporters for a server, as a pod would."""

    def __init__(self, server: ApiServerDouble, account: Path, told: list[str]) -> None:
        self._server, self._account, self._told = server, account, told

    def __call__(self, interval: float, **more: float) -> KubernetesReporter:
        config = Config(progress_interval=interval)
        environ = environment(self._server)
        reporter = kubernetes_reporter(environ, config, self._told.append, self._account, **more)
        assert reporter is not None
        return reporter


@pytest.fixture
def reporting(server: ApiServerDouble, account: Path, told: list[str]) -> Reporters:
    return Reporters(server, account, told)


def of(patch: dict[str, Any], part: str) -> dict[str, Any]:
    found: dict[str, Any] = patch.get(part, {})
    return found


def test_the_first_patch_clears_what_an_earlier_pod_has_left_and_the_last_one_completes(
    server: ApiServerDouble, reporting: Reporters, told: list[str]
) -> None:
    server.status = {
        "status": "Progressing",
        "progress": {"percentage": 100, "downloadedBytes": 9, "bytesPerSecond": 9},
        "download": {"protocol": "HTTP", "attempt": 3, "message": "All 3 attempts exhausted"},
    }
    with reporting(NEVER) as report:
        server.wait_for(lambda: server.requests)
        server.wait_for(lambda: of(server.status, "progress").get("percentage") == 0)
        assert server.status == {
            "status": "Progressing",
            "progress": {"percentage": 0, "displayPercentage": "0 %"},
            "download": {"totalAttempts": 2, "protocolSequence": "XET,HF_TRANSFER"},
        }
        for event in (*FIRST, SAMPLE, RECEIVED, PUBLISHED):
            report(event)
        begun = fair_time()
    assert fair_time() - begun < 2  # no longer than the patch takes
    assert server.status == {"status": "Progressing", **COMPLETE}
    path = "/apis/aim.eai.amd.com/v1alpha1/namespaces/team/aimartifacts/demo/status"
    assert [request.path for request in server.requests] == [path, path]
    # What has not changed is not said again.
    assert "totalAttempts" not in of(server.patches[1], "download")
    assert told == []


def test_it_is_sent_no_more_often_than_at_the_interval(
    server: ApiServerDouble, reporting: Reporters
) -> None:
    with reporting(0.25) as report:
        report(PLANNED)
        for done in range(300, 360):
            report(replace(SAMPLE, bytes_done=done))
            time.sleep(0.02)
        before_the_end = len(server.requests)
    moments = [request.when for request in server.requests[:before_the_end]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert len(gaps) >= 2
    # It is the sender that waits; on the way here a request may lose some of that.
    assert sum(gaps) >= 0.2 * len(gaps)


def test_nothing_is_sent_where_nothing_changes(
    server: ApiServerDouble, reporting: Reporters
) -> None:
    with reporting(OFTEN) as report:
        report(PLANNED)
        server.wait_for(lambda: of(server.status, "progress").get("totalBytes"))
        sent = len(server.requests)
        report(PLANNED)
        time.sleep(10 * OFTEN)
    assert len(server.requests) == sent


def test_fields_that_the_kind_lacks_are_sent_once(authority: Authority, account: Path) -> None:
    with ApiServerDouble(authority, OF_AIM_ENGINE) as server:
        with Reporters(server, account, [])(OFTEN) as report:
            for event in FIRST:
                report(event)
            for done in range(500, 520):
                report(replace(SAMPLE, bytes_done=done, rate=float(done)))
                time.sleep(0.02)
            report(PUBLISHED)
        ours = [patch for patch in server.patches if of(patch, "progress").get("bytesPerSecond")]
        assert len(ours) == 1
        assert len(server.requests) > 3
        assert [of(patch, "download").get("revision") for patch in server.patches].count(
            COMMIT
        ) == 1
        ours_not = {name: COMPLETE["download"][name] for name in OF_AIM_ENGINE["download"]}
        assert server.status == {"progress": COMPLETE["progress"], "download": ours_not}


def test_what_others_change_is_put_right(server: ApiServerDouble, reporting: Reporters) -> None:
    with reporting(OFTEN) as report:
        report(PLANNED)
        server.wait_for(lambda: of(server.status, "progress").get("percentage") == 30)
        server.status["progress"]["percentage"] = 55
        server.status["conditions"] = [{"type": "Ready"}]
        # Any patch shows what the artifact says by now.
        report(replace(PLANNED, held_bytes=301))
        server.wait_for(lambda: of(server.status, "progress").get("percentage") == 30)
    assert server.status["progress"]["downloadedBytes"] == 301
    assert server.status["conditions"] == [{"type": "Ready"}]


@pytest.mark.parametrize(
    ("last", "message"),
    [(EXHAUSTED, "All 2 attempts exhausted"), (CANCELLED, "Downloading with XET")],
    ids=["failed", "cancelled"],
)
def test_the_last_state_is_sent_of_a_run_that_does_not_complete_too(
    server: ApiServerDouble, reporting: Reporters, last: events.Event, message: str
) -> None:
    with reporting(NEVER) as report:
        server.wait_for(lambda: server.status)
        for event in (*FIRST, SAMPLE, last):
            report(event)
    assert server.status["progress"]["downloadedBytes"] == 578
    assert server.status["download"]["message"] == message


# --- bad days -------------------------------------------------------------------------------------


def blames_nothing(line: str) -> bool:
    """Whether AIM Engine finds no cause of a failure in the line."""
    return disarm(line) == line


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (422, "422, it wants no patch of AIMArtifact team/demo"),
        (302, "302, it wants no patch of AIMArtifact team/demo"),
    ],
)
def test_what_will_not_be_granted_is_told_once_and_not_asked_again(
    server: ApiServerDouble, reporting: Reporters, told: list[str], status: int, line: str
) -> None:
    server.script = [Answer(status, {"Location": "https://127.0.0.1:1/"})]
    with reporting(OFTEN) as report:
        server.wait_for(lambda: told)
        for event in (*FIRST, SAMPLE):
            report(event)
            time.sleep(2 * OFTEN)
        report(PUBLISHED)
    assert len(server.requests) == 1
    assert told == [f"Kubernetes is not told of the progress: the API server answered {line}"]
    assert blames_nothing(told[0])


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (403, "403, no permission to patch the status of AIMArtifact team/demo"),
        (404, "404, it knows no AIMArtifact team/demo"),
    ],
)
def test_what_may_be_granted_later_is_told_once_and_asked_for_now_and_then(
    server: ApiServerDouble, reporting: Reporters, told: list[str], status: int, line: str
) -> None:
    server.script = [Answer(status)] * 3
    with reporting(OFTEN, second_look=0.1) as report:
        for event in (*FIRST, SAMPLE):
            report(event)
        server.wait_for(lambda: len(told) == 2)
        assert server.status["progress"]["percentage"] == 57
        report(PUBLISHED)
    assert server.status == COMPLETE
    refused = [request.when for request in server.requests[:4]]
    assert all(later - earlier >= 0.09 for earlier, later in itertools.pairwise(refused))
    assert told == [
        f"Kubernetes is not told of the progress: the API server answered {line}",
        "Kubernetes is told of the progress again",
    ]
    assert blames_nothing(told[0])


@pytest.mark.parametrize("status", [403, 404])
def test_nobody_waits_for_what_may_be_granted_later(
    server: ApiServerDouble, reporting: Reporters, told: list[str], status: int
) -> None:
    server.script = [Answer(status)] * 2
    with reporting(OFTEN) as report:
        server.wait_for(lambda: told)
        report(PUBLISHED)
        time.sleep(10 * OFTEN)
        assert len(server.requests) == 1
        begun = fair_time()
    assert fair_time() - begun < 1
    assert len(server.requests) == 2
    assert len(told) == 1


def test_what_was_granted_meanwhile_is_told_at_the_end(
    server: ApiServerDouble, reporting: Reporters, told: list[str]
) -> None:
    server.script = [Answer(403)]
    with reporting(OFTEN) as report:
        server.wait_for(lambda: told)
        for event in (*FIRST, PUBLISHED):
            report(event)
    assert server.status == COMPLETE


def test_an_artifact_that_was_made_anew_is_told_all_again(
    server: ApiServerDouble, reporting: Reporters
) -> None:
    with reporting(OFTEN, second_look=0.1) as report:
        for event in (*FIRST, SAMPLE):
            report(event)
        server.wait_for(lambda: of(server.status, "download").get("revision"))
        server.script = [Answer(404)]
        server.status = {}
        report(PUBLISHED)
        server.wait_for(lambda: of(server.status, "progress").get("percentage") == 100)
    assert server.status == COMPLETE


@pytest.mark.parametrize("interval", [float("inf"), 1e300])
def test_an_interval_without_end_leaves_the_first_and_the_last_word(
    server: ApiServerDouble, reporting: Reporters, interval: float
) -> None:
    with reporting(interval) as report:
        server.wait_for(lambda: server.status)
        for event in (*FIRST, SAMPLE, PUBLISHED):
            report(event)
    assert server.status == COMPLETE


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, body=b"{}"),
        Answer(200, body=b'{"status": "odd"}'),
        Answer(200, body=b"[" * 100_000),
    ],
    ids=["none", "no object", "too deep"],
)
def test_an_odd_answer_ends_nothing(
    server: ApiServerDouble, reporting: Reporters, answer: Answer
) -> None:
    server.script = [answer]
    with reporting(OFTEN) as report:
        server.wait_for(lambda: server.requests)
        for event in (*FIRST, SAMPLE, PUBLISHED):
            report(event)
    assert server.status == COMPLETE


@pytest.mark.parametrize("trouble", [Answer(500), Answer(401), Answer(429), CLOSE])
def test_what_may_pass_is_told_once_and_tried_again(
    server: ApiServerDouble, reporting: Reporters, told: list[str], trouble: Answer | str
) -> None:
    server.script = [trouble, trouble]
    with reporting(OFTEN) as report:
        for event in (*FIRST, SAMPLE):
            report(event)
        server.wait_for(lambda: len(told) == 2)
        assert server.status["progress"]["percentage"] == 57
        report(PUBLISHED)
    assert server.status == COMPLETE
    assert told[0].startswith("Kubernetes cannot be told of the progress for now: the API server")
    assert told[1:] == ["Kubernetes is told of the progress again"]
    assert blames_nothing(told[0])


def test_a_server_that_wants_to_be_left_alone_is(
    server: ApiServerDouble, reporting: Reporters
) -> None:
    server.script = [Answer(429, {"Retry-After": "1"})]
    with reporting(OFTEN) as report:
        server.wait_for(lambda: server.requests)
        report(PUBLISHED)
    first, second = server.requests
    assert second.when - first.when >= 0.95
    assert server.status["progress"]["percentage"] == 100


@pytest.mark.parametrize("patience", ["30", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_nobody_waits_for_a_server_that_wants_to_be_left_alone_for_long(
    server: ApiServerDouble, reporting: Reporters, told: list[str], patience: str
) -> None:
    server.script = [Answer(503, {"Retry-After": patience})]
    with reporting(OFTEN) as report:
        server.wait_for(lambda: told)
        report(PUBLISHED)
        begun = fair_time()
    assert fair_time() - begun < 1
    assert len(server.requests) == 1


def test_the_last_word_is_said_again_when_it_is_not_heard(
    server: ApiServerDouble, reporting: Reporters
) -> None:
    with reporting(NEVER) as report:
        server.wait_for(lambda: server.status)
        server.script = [Answer(500)]
        for event in (*FIRST, PUBLISHED):
            report(event)
    assert server.status == COMPLETE


def test_a_conflict_is_tried_again_at_once(
    server: ApiServerDouble, reporting: Reporters, told: list[str]
) -> None:
    server.script = [Answer(409), Answer(409)]
    with reporting(NEVER) as report:
        server.wait_for(lambda: server.status)
        assert len(server.requests) == 3
        report(CANCELLED)
    assert told == []


def test_a_server_that_is_not_trusted_gets_no_token(
    server: ApiServerDouble,
    reporting: Reporters,
    account: Path,
    another_authority: Authority,
    told: list[str],
) -> None:
    (account / "ca.crt").write_bytes(another_authority.bundle.read_bytes())
    with reporting(OFTEN) as report:
        server.wait_for(lambda: told)
        report(CANCELLED)
    assert server.requests == []
    assert "a-token" not in told[0]


@pytest.mark.parametrize(
    ("last", "error", "seconds"),
    [
        (PUBLISHED, None, 1.3),
        (CANCELLED, None, 0.5),
        (SAMPLE, DownloadCancelledError("ended by a signal"), 0.5),
        # A signal between two models.
        (PUBLISHED, asyncio.CancelledError(), 0.5),
    ],
    ids=["published", "cancelled", "ended", "signalled"],
)
def test_a_server_that_hangs_holds_nobody_up(
    server: ApiServerDouble,
    reporting: Reporters,
    told: list[str],
    last: events.Event,
    error: BaseException | None,
    seconds: float,
) -> None:
    server.script = [HANG]
    report = reporting(OFTEN).__enter__()
    server.wait_for(lambda: server.requests)
    begun = fair_time()
    for event in (*FIRST, SAMPLE, last):
        report(event)
    assert fair_time() - begun < 0.3
    begun = fair_time()
    report.__exit__(type(error), error, None)
    assert fair_time() - begun < seconds + 0.7
    # What it learns now is nobody's business any more.
    server.let_go()
    for thread in threading.enumerate():
        if thread.name == "aim-kubernetes":
            thread.join(10)
    assert told == []


# --- who has one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("KUBERNETES_SERVICE_HOST", "this is no pod"),
        ("KUBERNETES_SERVICE_PORT", "this is no pod"),
        ("ARTIFACT_NAMESPACE", "ARTIFACT_NAMESPACE is not"),
        ("token", "does the pod say automountServiceAccountToken: false?"),
    ],
)
def test_where_nobody_can_be_told_one_line_says_why(
    server: ApiServerDouble, account: Path, told: list[str], missing: str, said: str
) -> None:
    environ = environment(server)
    assert kubernetes_reporter(environ, Config(), told.append, account) is not None
    environ.pop(missing, None)
    if missing == "token":
        (account / "token").unlink()
    assert kubernetes_reporter(environ, Config(), told.append, account) is None
    [line] = told
    assert line.startswith("No progress is told to Kubernetes: ARTIFACT_NAME is set, and ")
    assert said in line
    assert classify([line]) is None
    # Of several shards the first one says it.
    of_another = Config(shard=Shard(1, 3))
    assert kubernetes_reporter(environ, of_another, told.append, account) is None
    assert len(told) == 1


@pytest.mark.parametrize("missing", ["", "KUBERNETES_SERVICE_HOST", "ARTIFACT_NAMESPACE", "token"])
def test_outside_of_aim_engine_nothing_is_said_of_it(
    server: ApiServerDouble, account: Path, told: list[str], missing: str
) -> None:
    environ = environment(server)
    del environ["ARTIFACT_NAME"]
    environ.pop(missing, None)
    if missing == "token":
        (account / "token").unlink()
    assert kubernetes_reporter(environ, Config(), told.append, account) is None
    assert told == []


@pytest.mark.parametrize(("index", "tells"), [(0, True), (1, False), (2, False)])
def test_of_several_shards_the_first_one_tells(
    server: ApiServerDouble, account: Path, told: list[str], index: int, tells: bool
) -> None:
    config = Config(shard=Shard(index, 3))
    found = kubernetes_reporter(environment(server), config, told.append, account)
    assert (found is not None) is tells
    assert told == []


@pytest.mark.parametrize(
    ("named", "resource"),
    [
        ({}, "aimartifacts"),
        ({"ARTIFACT_RESOURCE": ""}, "aimartifacts"),
        ({"ARTIFACT_RESOURCE": "aimartifacts"}, "aimartifacts"),
        ({"ARTIFACT_RESOURCE": "aimmodelcaches"}, "aimmodelcaches"),
    ],
)
def test_the_older_kind_is_told_as_well(
    server: ApiServerDouble,
    account: Path,
    told: list[str],
    named: dict[str, str],
    resource: str,
) -> None:
    environ = environment(server) | named
    report = kubernetes_reporter(environ, Config(), told.append, account)
    assert report is not None
    with report:
        report(PLANNED)
    path = f"/apis/aim.eai.amd.com/v1alpha1/namespaces/team/{resource}/demo/status"
    assert {request.path for request in server.requests} == {path}
    assert told == []


def test_of_another_kind_nothing_is_patched_and_one_line_says_why(
    server: ApiServerDouble, account: Path, told: list[str]
) -> None:
    environ = environment(server) | {"ARTIFACT_RESOURCE": "../secrets"}
    assert kubernetes_reporter(environ, Config(), told.append, account) is None
    [line] = told
    assert "ARTIFACT_RESOURCE '../secrets' is none of aimartifacts, aimmodelcaches" in line


@pytest.mark.parametrize(
    ("namespace", "name", "good"),
    [
        ("team", "demo", True),
        ("team", "hf---org-model.v1-0a1b2c", True),
        ("t" * 63, "a" * 63 + "." + "b" * 63, True),
        ("team", "a" * 253, True),
        ("team", "a" * 254, False),
        ("team", "a" * 252 + "-", False),
        ("t" * 64, "demo", False),
        ("team.a", "demo", False),
        ("team", "Demo", False),
        ("team", "../../../secrets/x", False),
        ("team", "demo?dryRun=All", False),
        ("team", "demo\n", False),
        ("team", "demo-", False),
        ("team", ".".join(["a" * 63] * 4), False),
    ],
)
def test_names_that_are_none_are_told_once_and_never_sent(
    server: ApiServerDouble, account: Path, told: list[str], namespace: str, name: str, good: bool
) -> None:
    environ = environment(server) | {"ARTIFACT_NAMESPACE": namespace, "ARTIFACT_NAME": name}
    found = kubernetes_reporter(environ, Config(), told.append, account)
    assert (found is not None) is good
    assert len(told) == (0 if good else 1)
    assert not any("\n" in line for line in told)
