"""The log of a Job: lines that others parse, and a last one that says why it failed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader import errors, events
from aim_downloader.reporters.job_log import JobLog
from tests.classification import LINES, PIECES, classify

rounds: Callable[[Any], Any] = settings(deadline=None, max_examples=100, print_blob=True)

GIB = 1024**3
RULE = "=" * 60
URI = "hf://org/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVED = events.SnapshotResolved(URI, COMMIT, files=3, bytes=900)
PLANNED = events.PlanMade(
    target="/cache",
    files=3,
    bytes=900,
    fetch_files=3,
    fetch_bytes=900,
    resumed_bytes=0,
    held_files=0,
    held_bytes=0,
    left_out_files=0,
    left_out_bytes=0,
    kept_files=0,
    kept_bytes=0,
    hint="",
)
SAMPLE = events.RunProgressed(
    bytes_done=378,
    bytes_total=900,
    bytes_received=378,
    files_done=1,
    files_total=3,
    rate=210 * 1024**2,
    eta=8.2,
    connections=16,
    verifying=False,
    active=(),
)
PUBLISHED = events.SnapshotPublished("/cache", COMMIT, 3, 900, 900, 2.0)
DONE = "Done: 3 files, 900 B, verified, in /cache; 900 B received in 2.0 s (450 B/s)"
MONITOR = "Progress monitor started: expected=900 bytes, interval=5s, stall_timeout=120s"
HEAD = [
    "hf://org/model at commit 0123456789ab: 3 files, 900 B",
    "To fetch into /cache: 3 files, 900 B",
    MONITOR,
]
TAIL = ["Progress: 100% (900/900 bytes)", DONE]
FAILED = events.RunFailed("AllProtocolsFailedError", "a.bin could not be downloaded", "", 69)
REFUSED = events.RunFailed("AccessDeniedError", "no", "", 77)


class Clock:
    """Time that goes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def started(path: str, protocol: str, attempt: int, attempts: int = 2) -> events.FileStarted:
    return events.FileStarted(path, 500, 0, protocol, attempt, attempts)


def committed(path: str) -> events.FileCommitted:
    return events.FileCommitted(path, 500, "sha256:00")


def lines_of(*told: events.Event, **options: Any) -> list[str]:
    stream = io.StringIO()
    with JobLog(stream, **options) as log:
        for event in told:
            log(event)
    return stream.getvalue().splitlines()


def banner(attempt: str, protocol: str, model: str = URI) -> list[str]:
    return [RULE, f"DOWNLOAD ATTEMPT {attempt}", f"Protocol: {protocol}", f"Model: {model}", RULE]


# -- a run -----------------------------------------------------------------------------------------


def test_a_run_that_succeeds() -> None:
    told = lines_of(
        RESOLVED,
        PLANNED,
        started("a.bin", "XET", 1),
        SAMPLE,
        started("b.bin", "XET", 1),
        committed("a.bin"),
        committed("b.bin"),
        PUBLISHED,
    )
    assert told == [
        *HEAD,
        *banner("1/2", "XET"),
        "Progress: 42% (378/900 bytes) 210 MiB/s, 0:08 left, 1/3 files",
        TAIL[0],
        "SUCCESS: XET (attempt 1/2)",
        TAIL[1],
    ]


def test_an_attempt_fails_when_the_furthest_file_moves_on() -> None:
    told = lines_of(
        RESOLVED,
        PLANNED,
        started("a.bin", "XET", 1),
        events.ProtocolSwitched("a.bin", "XET", "HTTP", "reset", "TransferInterruptedError"),
        started("a.bin", "HTTP", 2),
        started("b.bin", "XET", 2),  # the first of the sequence, for another file
        committed("a.bin"),
        committed("b.bin"),
        PUBLISHED,
    )
    assert told[3:] == [
        *banner("1/2", "XET"),
        "XET gives up, HTTP takes over a.bin: reset",
        "FAILED: XET (attempt 1/2)",
        *banner("2/2", "HTTP"),
        TAIL[0],
        "SUCCESS: HTTP (attempt 2/2)",
        TAIL[1],
    ]


SWITCHED = events.ProtocolSwitched("a.bin", "XET", "HTTP", "reset", "TransferInterruptedError")


@pytest.mark.parametrize(
    ("why", "failed"),
    [
        ([SWITCHED], True),
        ([events.ProtocolLeft("XET", "no store")], True),
        ([replace(SWITCHED, failed="HF_TRANSFER")], False),  # which had a file that XET is not for
    ],
)
def test_who_has_not_failed_is_not_said_to(why: list[events.Event], failed: bool) -> None:
    told = lines_of(PLANNED, started("a.bin", "XET", 1), *why, started("b.bin", "HTTP", 2))
    assert ("FAILED: XET (attempt 1/2)" in told) == failed
    assert told[-5:] == banner("2/2", "HTTP", "")


def test_a_file_that_is_not_for_the_protocol_of_the_attempt_moves_nothing() -> None:
    told = lines_of(
        RESOLVED,
        PLANNED,
        started("in-git.json", "HTTP", 0),
        started("a.bin", "XET", 1),
        started("also.json", "HTTP", 1),
        committed("a.bin"),
        PUBLISHED,
    )
    assert told[3:] == [*banner("1/2", "XET"), TAIL[0], "SUCCESS: XET (attempt 1/2)", TAIL[1]]


@pytest.mark.parametrize(
    ("how", "last"),
    [
        (
            [started("a.bin", "XET", 1), started("a.bin", "HTTP", 2), FAILED],
            ["FAILED: HTTP (attempt 2/2)", "ALL 2 DOWNLOAD ATTEMPTS EXHAUSTED"],
        ),
        # The second name of the sequence is one that nobody knows.
        (
            [started("a.bin", "XET", 1), FAILED],
            ["FAILED: XET (attempt 1/2)", "ALL 2 DOWNLOAD ATTEMPTS EXHAUSTED"],
        ),
        ([started("a.bin", "XET", 1), REFUSED], [RULE, "FAILED: XET (attempt 1/2)"]),
        # It is a small file that could not be had.
        (
            [started("a.bin", "XET", 1), committed("a.bin"), FAILED],
            [RULE, "FAILED: XET (attempt 1/2)"],
        ),
        ([FAILED], HEAD[1:]),
        ([REFUSED], HEAD[1:]),
    ],
)
def test_a_run_that_fails(how: list[events.Event], last: list[str]) -> None:
    assert lines_of(RESOLVED, PLANNED, *how)[-2:] == last


@pytest.mark.parametrize(
    "how",
    [
        [],  # only small files
        [events.FileSkipped("a.bin", 900)],
        [started("a.bin", "HTTP", 0), committed("a.bin")],  # none of the sequence was for it
    ],
)
def test_a_run_without_an_attempt_tells_of_none(how: list[events.Event]) -> None:
    assert lines_of(RESOLVED, PLANNED, *how, PUBLISHED) == [*HEAD, *TAIL]


def test_each_model_begins_anew() -> None:
    other = replace(RESOLVED, uri="hf://org/other")
    told = lines_of(
        *(RESOLVED, PLANNED, started("a.bin", "HTTP", 2), REFUSED),
        # The next one cannot even be listed.
        REFUSED,
        *(other, PLANNED, started("a.bin", "XET", 1), committed("a.bin"), PUBLISHED),
    )
    assert told == [
        *HEAD,
        *banner("2/2", "HTTP"),
        "FAILED: HTTP (attempt 2/2)",
        HEAD[0].replace("model", "other"),
        *HEAD[1:],
        *banner("1/2", "XET", "hf://org/other"),
        TAIL[0],
        "SUCCESS: XET (attempt 1/2)",
        TAIL[1],
    ]


def test_a_run_that_lost_its_folder_and_plans_again_begins_anew() -> None:
    told = lines_of(
        *(RESOLVED, PLANNED, started("a.bin", "HTTP", 2), PLANNED, started("a.bin", "XET", 1)),
        PUBLISHED,
    )
    assert [line for line in told if "ATTEMPT" in line or "attempt" in line] == [
        "DOWNLOAD ATTEMPT 2/2",
        "DOWNLOAD ATTEMPT 1/2",
        "SUCCESS: XET (attempt 1/2)",
    ]


def test_a_model_that_is_never_asked_for_is_named_too() -> None:
    """A simulation makes no request."""
    stream = io.StringIO()
    log = JobLog(stream)
    log.about("hf://org/simulated")
    for event in (PLANNED, started("a.bin", "XET", 1)):
        log(event)
    assert "\nModel: hf://org/simulated\n" in stream.getvalue()


# -- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "line"),
    [
        (
            replace(SAMPLE, bytes_done=386, eta=None),
            "Progress: 42% (386/900 bytes) 210 MiB/s, 1/3 files",
        ),
        (
            replace(SAMPLE, bytes_done=900, files_done=2, verifying=True, eta=None),
            "Progress: 99% (900/900 bytes) verifying, 2/3 files",
        ),
        (
            replace(SAMPLE, bytes_done=900, files_done=3, rate=0, eta=None),
            "Progress: 99% (900/900 bytes) 0 B/s, 3/3 files",
        ),
        (
            replace(SAMPLE, bytes_done=0, bytes_total=0, files_done=0, eta=None, rate=0),
            "Progress: 0% (0/0 bytes) 0 B/s, 0/3 files",
        ),
    ],
)
def test_progress_is_not_all_of_it_before_the_model_is_published(
    sample: events.RunProgressed, line: str
) -> None:
    assert lines_of(PLANNED, sample)[-1] == line


def test_what_is_read_before_there_is_a_plan_is_no_progress() -> None:
    sample = replace(SAMPLE, verifying=True, eta=3.0)
    assert lines_of(RESOLVED, sample)[1:] == ["Reading what is there: 42 % (378/900 B), 1/3 files"]


def test_progress_is_told_at_once_and_then_at_intervals() -> None:
    stream, clock = io.StringIO(), Clock()
    log = JobLog(stream, interval=0.5, stall_timeout=2.5, clock=clock)
    log(PLANNED)
    assert "interval=0.5s, stall_timeout=2.5s" in stream.getvalue()
    told = []
    for _ in range(16):
        before = len(stream.getvalue())
        log(SAMPLE)
        if len(stream.getvalue()) > before:
            told.append(clock.now)
        clock.now += 0.125
    assert told == [100.0, 100.5, 101.0, 101.5]


# -- stalls ----------------------------------------------------------------------------------------

STALLED = "Download stalled for 120s, killing"


@pytest.mark.parametrize(
    ("event", "stalled"),
    [
        (events.RetryScheduled("a", "stood still", 1, 0, "StalledError"), True),
        (events.ProtocolSwitched("a", "XET", "HTTP", "nothing came", "StalledError"), True),
        (events.ProtocolSwitched("a", "XET", "", "nothing came", "StalledError"), True),
        (events.RetryScheduled("a", "stood still", 1, 0, "TransferInterruptedError"), False),
        (events.RetryScheduled("a", "too many requests", 1, 0), False),
    ],
)
def test_a_transfer_that_stood_still(event: events.Event, stalled: bool) -> None:
    told = lines_of(PLANNED, event)
    assert (STALLED in told) == stalled
    assert len(told) == (4 if stalled else 3)


def test_connections_that_stood_still_together_are_one_stall() -> None:
    stream, clock = io.StringIO(), Clock()
    log = JobLog(stream, clock=clock)
    log(PLANNED)
    for path in "abcd":
        log(events.RetryScheduled(path, "stood still", 1, 0, "StalledError"))
    assert stream.getvalue().count(STALLED) == 1
    clock.now += 120
    log(events.RetryScheduled("a", "stood still", 2, 0, "StalledError"))
    assert stream.getvalue().count(STALLED) == 2


def test_a_listing_that_does_not_come_is_no_stall_of_a_download() -> None:
    event = events.RetryScheduled("the listing", "timed out", 1, 0, "StalledError")
    assert STALLED not in lines_of(event)


# -- the end ---------------------------------------------------------------------------------------


def cancelled(code: int) -> errors.DownloadCancelledError:
    error = errors.DownloadCancelledError("ended by a signal")
    error.exit_code = code
    return error


def all_failed() -> errors.AllProtocolsFailedError:
    tried: list[tuple[str, errors.DownloadError]] = [
        ("XET", errors.TransferError("no store")),
        ("HTTP", errors.TransferError("reset", hint="check the network")),
    ]
    return errors.AllProtocolsFailedError("a.bin", tried)


@pytest.mark.parametrize(
    ("code", "error", "lines"),
    [
        (0, None, []),
        (143, cancelled(143), ["ended by a signal: exit code 143"]),
        (2, errors.ConfigError("no", hint="write yes"), ["error: no", "hint: write yes"]),
        (
            69,
            all_failed(),
            [
                "error: a.bin could not be downloaded in 2 attempts",
                "error: XET: no store",
                "error: HTTP: reset",
                "hint: check the network",
            ],
        ),
        (
            66,
            errors.SnapshotNotFoundError("the revision does not exist", hint="check it"),
            [
                "error: the revision does not exist",
                "hint: check it",
                "Repository Not Found: the revision does not exist",
            ],
        ),
        (
            77,
            errors.AccessDeniedError("gated: http://hub/org/model answered 403"),
            [
                "error: gated: http://hub/org/model answered 403",
                "Cannot access gated repo: gated: http://hub/org/model answered 403",
            ],
        ),
        (
            73,
            errors.InsufficientSpaceError("the disk is full: /cache"),
            [
                "error: the drive is full: /cache",
                "No space left on device: the drive is full: /cache",
            ],
        ),
        (1, ZeroDivisionError(), ["error: ZeroDivisionError"]),
    ],
)
def test_the_last_lines(code: int, error: Exception | None, lines: list[str]) -> None:
    stream = io.StringIO()
    JobLog(stream).conclude(code, error)
    assert stream.getvalue().splitlines() == lines


def test_a_cancelled_run_says_how_far_it_came() -> None:
    assert lines_of(PLANNED, events.RunCancelled(378, 900))[-1] == (
        "Stopped at 42 % (378/900 B); the same command goes on from there"
    )


def test_names_forge_no_line() -> None:
    path = "a\nSUCCESS: all\x1b[2J"
    told = lines_of(events.RetryScheduled(path, "reset", 1, 0))
    assert told == ["Retry 1 now of a\ufffdSUCCESS: all\ufffd[2J: reset"]


# -- the class that AIM Engine sees ----------------------------------------------------------------

CLASS_OF: dict[type[errors.DownloadError], str | None] = {
    errors.SnapshotNotFoundError: "not found",
    errors.AccessDeniedError: "auth",
    errors.InsufficientSpaceError: "storage full",
    errors.StorageError: None,
    errors.ConfigError: None,
    errors.SourceError: None,
    errors.IntegrityError: None,
    errors.LeaseLostError: None,
    errors.DownloadCancelledError: None,
}
words = st.lists(
    st.sampled_from([*PIECES, *map(str.upper, PIECES), "", " ", "/", ".", ": ", "\n", "ü"]),
    max_size=10,
).map("".join)


def events_about(text: str) -> list[events.Event]:
    """What happens on a bad day, with a text of others in each place that has one."""
    return [
        events.LeaseWaiting(text, 1, 2, 0.1, 15.0),
        replace(RESOLVED, uri=text),
        replace(PLANNED, target=text, hint=text),
        events.ProtocolsSkipped((text,)),
        started(text, "XET", 1),
        SAMPLE,
        events.RetryScheduled(text, text, 1, 0, "StalledError"),
        events.FileRejected(text, "XET", text),
        events.ProtocolSwitched(text, "XET", "HTTP", text, "StalledError"),
        events.ProtocolLeft("XET", text),
        started(text, "HTTP", 2),
        events.EarlierSettled(1, 1, 1, 1, (text,)),
        replace(PUBLISHED, target=text),
        events.RunCancelled(1, 2),
    ]


@given(st.sampled_from([*CLASS_OF]), words, words, words)
@rounds
def test_the_end_of_a_log_says_the_class_of_the_error_and_nothing_else(
    kind: type[errors.DownloadError], message: str, hint: str, text: str
) -> None:
    stream = io.StringIO()
    with JobLog(stream) as log:
        for event in [*events_about(text), events.RunFailed(kind.__name__, message, hint, 1)]:
            log(event)
        log.say(text)
        log.conclude(1, kind(message, hint=hint))
    lines = stream.getvalue().splitlines()
    assert len(lines) < LINES  # all of them were looked at
    assert classify(lines) == CLASS_OF[kind]
    if CLASS_OF[kind]:
        assert classify(lines[:-1]) is None


@given(words, words, words)
@rounds
def test_a_file_that_no_protocol_brings_is_of_no_class(path: str, one: str, other: str) -> None:
    tried: list[tuple[str, errors.DownloadError]] = [
        ("XET", errors.TransferError(one)),
        ("HTTP", errors.TransferError(other)),
    ]
    stream = io.StringIO()
    JobLog(stream).conclude(69, errors.AllProtocolsFailedError(path, tried))
    assert classify(stream.getvalue().splitlines()) is None


def test_the_lines_that_others_parse_stay_as_they_are() -> None:
    """Also where names have phrases in them."""
    told = lines_of(
        replace(RESOLVED, uri="hf://org/s3-404"),
        PLANNED,
        started("disk-full", "XET", 1),
        SAMPLE,
        events.RetryScheduled("disk-full", "404 not found", 1, 0, "StalledError"),
        started("disk-full", "HTTP", 2),
        FAILED,
    )
    patterns = [
        r"Progress monitor started: expected=\d+ bytes, interval=\d+s, stall_timeout=\d+s",
        r"DOWNLOAD ATTEMPT \d/\d",
        r"Protocol: \w+",
        r"Model: hf://.*",
        r"Progress: \d+% \(\d+/\d+ bytes\).*",
        r"Download stalled for \d+s, killing",
        r"FAILED: \w+ \(attempt \d/\d\)",
        r"ALL \d DOWNLOAD ATTEMPTS EXHAUSTED",
    ]
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in told), pattern
