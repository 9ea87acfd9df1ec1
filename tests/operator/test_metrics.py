"""What Prometheus reads: from the events of artifacts to the lines at /metrics."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping

import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from operator_shim.keys import ARTIFACT, MODEL_CACHE, SERVICE, TEMPLATE_CACHE, Key
from operator_shim.metrics import METRICS, STATUSES, Metric, Metrics, Vitals
from operator_shim.objects import Object
from operator_shim.queue import Queue
from operator_shim.retrying import Failure, RetryState
from tests.operator.fakes import UID, artifact

VITALS = Vitals(
    queue_length=3,
    last_resync=1769853600.0,
    resync_interval=300.0,
    answers={("get", "Job", 200): 7, ("apply", "Job", 403): 1},
)


def families(metrics: Metrics) -> dict[str, Family]:
    text, kind = metrics.page("text/plain")
    assert kind.startswith("text/plain")
    # The parser leaves out what all counters end with.
    return {
        f"{each.name}_total" if each.type == "counter" else each.name: each
        for each in text_string_to_metric_families(text.decode())
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Of one sample; None where there is none."""
    for family in families(metrics).values():
        for sample in family.samples:
            if (sample.name, sample.labels) == (f"aim_operator_{name}", labels):
                return sample.value
    return None


def told(status: str = "", name: str = "demo", uid: str = UID, **more: object) -> Object:
    """An artifact with this status, and what its pod tells."""
    since = {"reason": "Any", "lastTransitionTime": "2026-01-31T10:02:00Z"}
    ready = {"type": "Ready", "status": str(status in ("Ready", "Available")), **since}
    said: Object = {"status": status, "conditions": [ready], **more} if status else {}
    return artifact(status=said, name=name, uid=uid)


def failed(kind: str, job: str, status: str = "Failed") -> Object:
    state = RetryState(Failure(kind), 1, None, "", job).dump() if kind else "nonsense"
    annotations = {"aim.eai.amd.com/retry-state": state}
    return artifact(annotations=annotations, status={"status": status})


def progress(downloaded: int, total: int = 0, speed: int = 0) -> Object:
    return {"downloadedBytes": downloaded, "totalBytes": total, "bytesPerSecond": speed}


def seen(*artifacts: Object) -> Metrics:
    metrics = Metrics()
    for each in artifacts:
        metrics.see(ARTIFACT, "MODIFIED", each)
    return metrics


def user(kind: str, status: str = "", name: str = "chat") -> Object:
    """What artifacts are made for, with this status."""
    return told(status, name) | {"kind": kind}


def everything() -> Metrics:
    """Metrics in which each of them has a sample."""
    metrics = Metrics(lambda: VITALS)
    metrics.see(ARTIFACT, "MODIFIED", told("Progressing"))
    metrics.see(ARTIFACT, "MODIFIED", told("Ready"))
    metrics.see(ARTIFACT, "MODIFIED", failed("access", "1"))
    metrics.see(SERVICE, "MODIFIED", user(SERVICE, "Running"))
    with pytest.raises(OSError, match="down"), metrics.reconciling(ARTIFACT):
        raise OSError("down")
    return metrics


# -- the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS, ids=lambda each: each.name)
def test_each_metric_is_served_as_the_table_says(metric: Metric) -> None:
    found = families(everything())[metric.name]
    assert (found.type, found.documentation) == (metric.type, metric.help)
    assert found.samples
    for sample in found.samples:
        assert set(sample.labels) - {"le"} == set(metric.labels)


def test_nothing_is_served_that_is_not_in_the_table() -> None:
    served = {name for name in families(everything()) if not name.startswith("process_")}
    assert served == {each.name for each in METRICS}


@pytest.mark.parametrize("metric", METRICS, ids=lambda each: each.name)
def test_names_follow_the_conventions_of_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"aim_operator_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.type == "counter")
    assert metric.help.endswith(".")


def test_who_asks_for_openmetrics_gets_it() -> None:
    text, kind = everything().page("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


# -- artifacts -------------------------------------------------------------------------------------


def test_artifacts_are_counted_by_the_status_that_they_have_now() -> None:
    metrics = seen(told("Progressing", "a", "1"), told("Progressing", "b", "2"), told("", "c", "3"))
    metrics.see(ARTIFACT, "MODIFIED", told("Ready", "b", "2"))
    counts = {
        status: value(metrics, "artifacts", namespace="models", kind=ARTIFACT, status=status)
        for status in STATUSES
    }
    assert counts == dict.fromkeys(STATUSES, 0) | {"New": 1, "Progressing": 1, "Ready": 1}


@pytest.mark.parametrize(
    ("said", "ready", "remaining"),
    [
        (told(), 0, 0),
        (told("Progressing", discoveredSizeBytes=100), 0, 100),
        (told("Progressing", progress=progress(30, 100)), 0, 70),
        (told("Progressing", progress=progress(130, 100)), 0, 0),
        (told("Ready", discoveredSizeBytes=100), 100, 0),
        (told("Ready", progress=progress(100, 100)), 100, 0),
        (told("Failed", discoveredSizeBytes=100, progress={"displayPercentage": "N/A"}), 0, 100),
        (artifact({"size": "1Ki"}), 0, 1024),
        (artifact({"size": "much"}), 0, 0),
    ],
)
def test_bytes_that_are_there_and_that_are_to_come(
    said: Object, ready: int, remaining: int
) -> None:
    metrics = seen(said)
    assert value(metrics, "ready_bytes", namespace="models") == ready
    assert value(metrics, "remaining_bytes", namespace="models") == remaining


def test_an_artifact_has_series_of_its_own_until_it_is_ready() -> None:
    metrics = seen(told("Progressing", progress=progress(30, 100, 7)))
    one = {"namespace": "models", "kind": ARTIFACT, "artifact": "demo"}
    assert value(metrics, "artifact_size_bytes", **one) == 100
    assert value(metrics, "artifact_downloaded_bytes", **one) == 30
    assert value(metrics, "artifact_bytes_per_second", **one) == 7
    # What its pod told of its speed last holds no longer than the pod.
    metrics.see(ARTIFACT, "MODIFIED", told("Failed", progress=progress(30, 100, 7)))
    assert value(metrics, "artifact_bytes_per_second", **one) == 0
    metrics.see(ARTIFACT, "MODIFIED", told("Ready", progress=progress(100, 100)))
    assert b'artifact="demo"' not in metrics.page("")[0]


def test_one_of_which_nothing_has_been_told_has_none() -> None:
    assert b'artifact="demo"' not in seen(told()).page("")[0]


def test_bytes_are_counted_as_they_come_and_never_backwards() -> None:
    # What was there when the operator started was not brought since.
    metrics = seen(told("Progressing", progress=progress(30, 100)))
    for downloaded, counted in ((40, 10), (40, 10), (0, 10), (25, 35)):
        metrics.see(ARTIFACT, "MODIFIED", told("Progressing", progress=progress(downloaded, 100)))
        assert value(metrics, "downloaded_bytes_total", namespace="models") == counted


@pytest.mark.parametrize(
    ("life", "counted"),
    [
        (("", "Progressing", "Ready"), 1),
        (("Progressing", "Ready", "Ready"), 1),
        (("Progressing", "Ready", "Progressing", "Ready"), 1),
        (("Ready", "Progressing", "Ready"), 0),
        (("Ready",), 0),
        (("Progressing", "Failed"), 0),
    ],
    ids=str,
)
def test_the_time_to_ready_is_counted_once(life: tuple[str, ...], counted: int) -> None:
    metrics = seen(*map(told, life))
    assert value(metrics, "ready_seconds_count") == counted
    # Created at 10:00, Ready at 10:02.
    assert value(metrics, "ready_seconds_sum") == 120 * counted
    assert value(metrics, "ready_seconds_bucket", le="60.0") == 0
    assert value(metrics, "ready_seconds_bucket", le="120.0") == counted


@pytest.mark.parametrize("time", ["0000-01-31T10:02:00Z", "soon", None])
def test_a_time_that_cannot_be_read_is_left_out(time: str | None) -> None:
    ready = told("Ready", progress=progress(100, 100))
    ready["status"]["conditions"][0]["lastTransitionTime"] = time
    metrics = seen(told("Progressing"), ready)
    assert value(metrics, "ready_bytes", namespace="models") == 100
    assert value(metrics, "ready_seconds_count") == 0


@pytest.mark.parametrize(
    ("life", "counts"),
    [
        ((told(), failed("transient", "1")), {"transient": 1}),
        ((told(), failed("transient", "1"), failed("transient", "1")), {"transient": 1}),
        ((told(), failed("transient", "1"), failed("access", "2")), {"transient": 1, "access": 1}),
        # Known already when the operator started.
        ((failed("storage", "1"),), {}),
        ((told(), failed("", "1")), {}),
    ],
)
def test_retries_are_counted_by_class(life: tuple[Object, ...], counts: Mapping[str, int]) -> None:
    metrics = seen(*life)
    for kind in ("permanent", "access", "storage", "transient", "infrastructure"):
        assert value(metrics, "retries_total", **{"class": kind}) == counts.get(kind, 0)


@pytest.mark.parametrize("status", ["Failed", "Degraded", "Progressing"])
def test_who_has_failed_is_named_as_long_as_that_holds(status: str) -> None:
    metrics = seen(failed("storage", "1", status))
    one = {"namespace": "models", "kind": ARTIFACT, "artifact": "demo"}
    labels = {**one, "class": "storage"}
    assert (value(metrics, "artifact_failed", **labels) == 1) == (status != "Progressing")
    metrics.see(ARTIFACT, "MODIFIED", told("Ready"))
    assert value(metrics, "artifact_failed", **labels) is None


def test_the_older_kind_is_counted_in_the_same_words() -> None:
    metrics = Metrics()
    for each in (told("Progressing"), told("Available", progress=progress(100, 100))):
        metrics.see(MODEL_CACHE, "MODIFIED", each | {"kind": MODEL_CACHE})
    labels = {"namespace": "models", "kind": MODEL_CACHE, "status": "Ready"}
    assert value(metrics, "artifacts", **labels) == 1
    assert value(metrics, "ready_bytes", namespace="models") == 100
    assert value(metrics, "ready_seconds_count") == 1


@pytest.mark.parametrize(
    ("status", "kind"), [("Failed", "permanent"), ("Degraded", "infrastructure")]
)
def test_who_has_failed_without_a_job_is_named_too(status: str, kind: str) -> None:
    one = {"namespace": "models", "kind": ARTIFACT, "artifact": "demo"}
    assert value(seen(told(status)), "artifact_failed", **one, **{"class": kind}) == 1


def test_who_uses_artifacts_is_counted_by_status_and_is_no_artifact() -> None:
    metrics = Metrics()
    place = {"namespace": "models"}
    for kind, status, name in (
        *((SERVICE, "Starting", "chat"), (SERVICE, "Running", "chat"), (SERVICE, "Failed", "b")),
        *((SERVICE, "", "new"), (TEMPLATE_CACHE, "NotAvailable", "c")),
    ):
        metrics.see(kind, "MODIFIED", user(kind, status, name))
    counted = {"Starting": 0, "Running": 1, "Failed": 1, "New": 1, "Degraded": 0}
    for status, number in counted.items():
        assert value(metrics, "objects", **place, kind=SERVICE, status=status) == number
    assert value(metrics, "objects", **place, kind=TEMPLATE_CACHE, status="NotAvailable") == 1
    assert value(metrics, "remaining_bytes", **place) is None
    assert value(metrics, "ready_seconds_count") == 0
    metrics.see(SERVICE, "DELETED", user(SERVICE, "Failed", "b"))
    metrics.keep({Key(SERVICE, "models", "chat")}, time.monotonic() + 1)
    assert value(metrics, "objects", **place, kind=SERVICE, status="Failed") == 0
    assert value(metrics, "objects", **place, kind=SERVICE, status="New") == 0
    assert value(metrics, "objects", **place, kind=SERVICE, status="Running") == 1
    assert value(metrics, "objects", **place, kind=TEMPLATE_CACHE, status="NotAvailable") is None


# -- what is gone ----------------------------------------------------------------------------------


def test_of_an_artifact_that_is_deleted_nothing_is_left() -> None:
    metrics = seen(told("Progressing", discoveredSizeBytes=100))
    metrics.see(ARTIFACT, "DELETED", told("Progressing"))
    assert b'namespace="models",' not in metrics.page("")[0]
    assert value(metrics, "remaining_bytes", namespace="models") is None


def test_one_that_was_made_anew_is_another() -> None:
    metrics = seen(told("Progressing", progress=progress(30, 100)))
    metrics.see(ARTIFACT, "MODIFIED", told("Ready", uid="another", progress=progress(100, 100)))
    assert value(metrics, "ready_seconds_count") == 0
    assert value(metrics, "downloaded_bytes_total", namespace="models") == 0


def test_what_a_list_lacks_is_gone_but_not_what_came_after_it_was_begun() -> None:
    metrics = seen(told("Progressing", "old", "1"), told("Progressing", "kept", "2"))
    time.sleep(0.02)
    since = time.monotonic()
    metrics.see(ARTIFACT, "MODIFIED", told("Progressing", "young", "3"))
    metrics.keep({Key(ARTIFACT, "models", "kept")}, since)
    names = re.findall(r'artifact_size_bytes{.*artifact="(\w+)"', metrics.page("")[0].decode())
    assert sorted(names) == ["kept", "young"]


# -- the operator itself ---------------------------------------------------------------------------


def test_passes_are_timed_and_those_that_fail_are_counted() -> None:
    metrics = Metrics()
    with metrics.reconciling(ARTIFACT):
        pass
    assert value(metrics, "reconcile_seconds_count", kind=ARTIFACT) == 1
    assert value(metrics, "reconcile_errors_total", kind=ARTIFACT) == 0
    with pytest.raises(OSError, match="down"), metrics.reconciling(ARTIFACT):
        raise OSError("down")
    assert value(metrics, "reconcile_seconds_count", kind=ARTIFACT) == 2
    assert value(metrics, "reconcile_errors_total", kind=ARTIFACT) == 1


def test_how_the_operator_is_now_is_asked_for_with_each_scrape() -> None:
    metrics = everything()
    assert value(metrics, "queue_length") == 3
    assert value(metrics, "last_resync_timestamp_seconds") == 1769853600
    assert value(metrics, "resync_interval_seconds") == 300
    assert value(metrics, "api_requests_total", verb="get", kind="Job", code="200") == 7
    assert value(metrics, "api_requests_total", verb="apply", kind="Job", code="403") == 1
    metrics.answered("watch", "Job", 200)
    assert value(metrics, "api_requests_total", verb="watch", kind="Job", code="200") == 1
    metrics.restarted()
    assert value(metrics, "watch_restarts_total") == 1


async def test_the_queue_is_as_long_as_what_could_be_worked_on() -> None:
    queue: Queue[str] = Queue(lambda *_: None)
    for name in ("now", "now", "too"):
        queue.put(name)
    queue.put("later", 60)
    assert len(queue) == 2
    done = asyncio.Event()

    async def work(name: str) -> None:
        done.set()
        await asyncio.Event().wait()

    working = asyncio.create_task(queue.run(work, 1))
    await done.wait()
    assert len(queue) == 1
    working.cancel()


def test_two_operators_share_nothing() -> None:
    first, second = everything(), Metrics()
    assert value(first, "ready_seconds_count") == 1
    assert value(second, "ready_seconds_count") == 0
    assert b"namespace" not in second.page("")[0]
