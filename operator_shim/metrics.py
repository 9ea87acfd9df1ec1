"""What Prometheus reads: which metrics there are, and how they come from what is known now.

Only artifacts that are not Ready have series of their own, so there are as many as a person looks
at; all that is known of others is in sums by namespace.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from operator_shim.fleet import NEW, Facts, Fleet
from operator_shim.keys import DOWNLOADS, SERVICE, TEMPLATE_CACHE, Key, key_of
from operator_shim.objects import Object, namespace_of
from operator_shim.retrying import Failure

STATUSES = (NEW, "Pending", "Progressing", "Ready", "Degraded", "Failed")

_STATUSES_OF = {
    SERVICE: (NEW, "Pending", "Starting", "Running", "Degraded", "Failed"),
    TEMPLATE_CACHE: (*STATUSES, "NotAvailable"),
}

_READY_S = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)
_PASS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the page about metrics."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


_PLACE, _ONE = ("namespace",), ("namespace", "kind", "artifact")

ARTIFACTS = Metric(
    "aim_operator_artifacts",
    "gauge",
    ("namespace", "kind", "status"),
    "Artifacts that there are, by status; New: nothing has been told of it yet.",
)
OBJECTS = Metric(
    "aim_operator_objects",
    "gauge",
    ("namespace", "kind", "status"),
    "Services and template caches that there are, by status; New: nothing has been told of it yet.",
)
READY_BYTES = Metric(
    "aim_operator_ready_bytes", "gauge", _PLACE, "Bytes of models that are Ready on volumes."
)
REMAINING_BYTES = Metric(
    "aim_operator_remaining_bytes",
    "gauge",
    _PLACE,
    "Bytes that are still to come, of models whose size is known.",
)
DOWNLOADED_BYTES = Metric(
    "aim_operator_downloaded_bytes_total",
    "counter",
    _PLACE,
    "Bytes that pods have told to be on volumes since the operator started.",
)
READY_SECONDS = Metric(
    "aim_operator_ready_seconds",
    "histogram",
    (),
    "From the creation of an artifact until it was Ready for the first time.",
)
RETRIES = Metric(
    "aim_operator_retries_total",
    "counter",
    ("class",),
    "Jobs that failed, by what may cure that (permanent: nothing but a change).",
)
ARTIFACT_SIZE = Metric(
    "aim_operator_artifact_size_bytes",
    "gauge",
    _ONE,
    "Bytes of the model of an artifact that is not Ready; 0 while that is not known.",
)
ARTIFACT_BYTES = Metric(
    "aim_operator_artifact_downloaded_bytes",
    "gauge",
    _ONE,
    "Bytes of it that are on the volume, as its pod tells.",
)
ARTIFACT_SPEED = Metric(
    "aim_operator_artifact_bytes_per_second",
    "gauge",
    _ONE,
    "The present speed of its download, as its pod tells.",
)
ARTIFACT_FAILED = Metric(
    "aim_operator_artifact_failed",
    "gauge",
    (*_ONE, "class"),
    "1 for an artifact that is Failed or Degraded, by what may cure that (see retries).",
)
RECONCILE_SECONDS = Metric(
    "aim_operator_reconcile_seconds", "histogram", ("kind",), "How long passes take, by kind."
)
RECONCILE_ERRORS = Metric(
    "aim_operator_reconcile_errors_total",
    "counter",
    ("kind",),
    "Passes that did not come to their end; they are repeated.",
)
QUEUE_LENGTH = Metric(
    "aim_operator_queue_length", "gauge", (), "Objects whose time has come, and which wait."
)
API_REQUESTS = Metric(
    "aim_operator_api_requests_total",
    "counter",
    ("verb", "kind", "code"),
    "Requests to the API server; code 0: no answer came.",
)
WATCH_RESTARTS = Metric(
    "aim_operator_watch_restarts_total",
    "counter",
    (),
    "Times that all watches had ended, and were begun again.",
)
LAST_RESYNC = Metric(
    "aim_operator_last_resync_timestamp_seconds",
    "gauge",
    (),
    "When a look at all objects last succeeded; 0: not yet.",
)
RESYNC_INTERVAL = Metric(
    "aim_operator_resync_interval_seconds", "gauge", (), "How often that is to be."
)
BUILD = Metric("aim_operator_build_info", "gauge", ("version",), "1, for the version that runs.")

METRICS = (
    *(ARTIFACTS, OBJECTS, READY_BYTES, REMAINING_BYTES, DOWNLOADED_BYTES, READY_SECONDS, RETRIES),
    *(ARTIFACT_SIZE, ARTIFACT_BYTES, ARTIFACT_SPEED, ARTIFACT_FAILED),
    *(RECONCILE_SECONDS, RECONCILE_ERRORS, QUEUE_LENGTH, API_REQUESTS, WATCH_RESTARTS),
    *(LAST_RESYNC, RESYNC_INTERVAL, BUILD),
)
"""All of ours; those of the process (CPU, memory) are the library's."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the operator is now: asked for with each scrape."""

    queue_length: int = 0
    last_resync: float = 0.0
    resync_interval: float = 0.0
    answers: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    """To how many requests, by verb, kind and code."""


class Metrics(Collector):
    """All metrics of one operator; not for use by several threads."""

    def __init__(self, vitals: Callable[[], Vitals] = Vitals) -> None:
        self._vitals = vitals
        self._fleet, self._users = Fleet(), Fleet()
        self._bytes: Counter[str] = Counter()
        self._retries: Counter[str] = Counter({each.value: 0 for each in Failure})
        self._errors: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._watches = 0
        # The times at which series began are half of what is sent, and nobody's.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = prometheus.CollectorRegistry()
        self._ready = _histogram(READY_SECONDS, _READY_S, self.registry)
        self._passes = _histogram(RECONCILE_SECONDS, _PASS_S, self.registry)
        self.registry.register(self)
        prometheus.ProcessCollector(registry=self.registry)

    # -- what happens --------------------------------------------------------------------------

    def see(self, kind: str, event: str, object_: Object) -> None:
        """An artifact, a cache or a service is there and says this, or is DELETED."""
        fleet = self._fleet if kind in DOWNLOADS else self._users
        if event == "DELETED":
            fleet.forget(key_of(kind, object_))
            return
        change = fleet.see(kind, object_, time.monotonic())
        if fleet is self._users:
            return
        self._bytes[namespace_of(object_)] += change.bytes
        if change.failure:
            self._retries[change.failure.value] += 1
        if change.seconds is not None:
            self._ready.observe(change.seconds)

    def keep(self, there: Collection[Key], since: float) -> None:
        """A list begun at this time (monotonic) had these objects, and no more."""
        for fleet in (self._fleet, self._users):
            fleet.keep(there, since)

    def restarted(self) -> None:
        """All watches are begun again."""
        self._watches += 1

    def answered(self, verb: str, kind: str, code: int) -> None:
        """The watches have asked the API server for something; code 0: no answer came."""
        self._answers[verb, kind, code] += 1

    @contextmanager
    def reconciling(self, kind: str) -> Iterator[None]:
        """A pass over an object of this kind, be its end good or bad."""
        # From 0 on: else the first that fails is not seen to be one more.
        self._errors.setdefault(kind, 0)
        with self._passes.labels(kind).time():
            try:
                yield
            except Exception:
                self._errors[kind] += 1
                raise

    # -- what is read --------------------------------------------------------------------------

    def page(self, accept: str) -> tuple[bytes, str]:
        """What is served at /metrics, and its content type."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def collect(self) -> Iterator[prometheus.Metric]:
        """What is not counted but seen, as it is now."""
        yield from _of_fleet(self._fleet)
        yield _family(OBJECTS, _counted(self._users))
        yield _family(DOWNLOADED_BYTES, _keyed(self._bytes))
        yield _family(RETRIES, _keyed(self._retries))
        vitals = self._vitals()
        yield _family(RECONCILE_ERRORS, _keyed(self._errors))
        yield _family(QUEUE_LENGTH, {(): vitals.queue_length})
        answers = self._answers + Counter(vitals.answers)
        yield _family(API_REQUESTS, {(a, b, str(c)): n for (a, b, c), n in answers.items()})
        yield _family(WATCH_RESTARTS, {(): self._watches})
        yield _family(LAST_RESYNC, {(): vitals.last_resync})
        yield _family(RESYNC_INTERVAL, {(): vitals.resync_interval})
        yield _family(BUILD, {(_version(),): 1})


def _of_fleet(fleet: Fleet) -> Iterator[prometheus.Metric]:
    ready: Counter[tuple[str, ...]] = Counter()
    remaining: Counter[tuple[str, ...]] = Counter()
    for key, facts in fleet:
        place = key.namespace
        ready[place,] += facts.size if facts.is_ready else 0
        remaining[place,] += facts.remaining
    yield _family(ARTIFACTS, _counted(fleet))
    yield _family(READY_BYTES, ready)
    yield _family(REMAINING_BYTES, remaining)
    others: dict[tuple[str, ...], Facts] = {
        (key.namespace, key.kind, key.name): facts
        for key, facts in fleet
        # What is New for long is paused, on purpose.
        if facts.status != NEW and not facts.is_ready
    }
    yield _family(ARTIFACT_SIZE, {one: facts.size for one, facts in others.items()})
    yield _family(ARTIFACT_BYTES, {one: facts.downloaded for one, facts in others.items()})
    yield _family(ARTIFACT_SPEED, {one: facts.speed for one, facts in others.items()})
    yield _family(ARTIFACT_FAILED, dict.fromkeys(_failed(others), 1))


def _counted(fleet: Fleet) -> Counter[tuple[str, ...]]:
    """How many there are of each namespace, kind and status."""
    counts: Counter[tuple[str, ...]] = Counter()
    for key, facts in fleet:
        place, kind = key.namespace, key.kind
        # Zeros, so that what there was a moment ago is seen to be no more.
        statuses = _STATUSES_OF.get(kind, STATUSES)
        counts.update({(place, kind, status): 0 for status in statuses})
        counts[place, kind, facts.status] += 1
    return counts


def _failed(others: Mapping[tuple[str, ...], Facts]) -> Iterator[tuple[str, ...]]:
    for one, facts in others.items():
        # Without a Job that failed it is the spec, or the cluster, that is to blame.
        if facts.status == "Failed":
            yield (*one, facts.failure or Failure.PERMANENT)
        elif facts.status == "Degraded":
            yield (*one, facts.failure or Failure.INFRASTRUCTURE)


def _family(metric: Metric, values: Mapping[tuple[str, ...], float]) -> prometheus.Metric:
    kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _keyed(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(label,): value for label, value in values.items()}


def _histogram(
    metric: Metric, buckets: Sequence[float], registry: prometheus.CollectorRegistry
) -> prometheus.Histogram:
    return prometheus.Histogram(
        metric.name, metric.help, metric.labels, buckets=buckets, registry=registry
    )


def _version() -> str:
    try:
        return version("aim-downloader")
    except PackageNotFoundError:  # run from its sources, without being installed
        return "unknown"
