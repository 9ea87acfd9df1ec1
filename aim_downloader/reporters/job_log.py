"""The log of a Job: the lines that programs which watch downloads know, and ours between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self, TextIO

from aim_downloader.errors import (
    AllProtocolsFailedError,
    DownloadCancelledError,
    DownloadError,
    StalledError,
)
from aim_downloader.events import (
    Event,
    FileCommitted,
    FileStarted,
    LeaseWaiting,
    PlanMade,
    ProtocolLeft,
    ProtocolSwitched,
    RetryScheduled,
    RunCancelled,
    RunFailed,
    RunProgressed,
    SnapshotPublished,
    SnapshotResolved,
)
from aim_downloader.reporters.base import Throttle, Writer, one_line
from aim_downloader.reporters.by_variables import by_variables
from aim_downloader.reporters.error_lines import error_lines
from aim_downloader.reporters.phrases import decisive, disarm
from aim_downloader.reporters.sentences import how_far, pace, sentence
from aim_downloader.units import format_clock

_RULE = "=" * 60


class JobLog:
    """Writes lines to ``stream``, the progress every ``interval`` seconds.

    The attempt that is told of is the furthest place in the sequence of protocols that any file
    has reached; it has failed when its protocol has, for a file, or the run has. No line but the
    last one of ``conclude`` says a phrase that decides (``phrases``).
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        interval: float = 5.0,
        stall_timeout: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = Writer(stream)
        self._interval = interval
        self._stall_timeout = stall_timeout
        self._clock = clock
        self._progress = Throttle(interval)
        self._stalls = Throttle(interval)
        self._model = ""
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, event: Event, /) -> None:
        """Write what there is to tell of the event, if it is time for it."""
        match event:
            case RunProgressed() | LeaseWaiting():
                if self._progress.due(self._clock()):
                    self.say(self._how_far(event))
            case SnapshotResolved():
                self._model = event.uri
                self.say(sentence(event))
            case PlanMade():
                self._plan(event)
            case FileStarted():
                self._start(event)
            case FileCommitted():
                self._unfinished.discard(event.path)
            case RetryScheduled() | ProtocolSwitched() | ProtocolLeft():
                self._trouble(event)
            case SnapshotPublished() | RunFailed() | RunCancelled():
                self._end(event)
            case _:
                self.say(sentence(event))

    def about(self, uri: str) -> None:
        """Know which model comes next: nobody else may tell of it before its attempts."""
        self._model = uri

    def say(self, line: str) -> None:
        """Write a line of the job's own, if there is one; it decides nothing."""
        if line := by_variables(line):
            self._write(f"{disarm(one_line(line))}\n")

    def conclude(self, exit_code: int, error: BaseException | None) -> None:
        """Write the last lines of the job: what went wrong, what helps, and what decides."""
        if isinstance(error, DownloadCancelledError):
            self.say(f"{error}: exit code {exit_code}")
        elif error is not None:
            for line in error_lines(error):
                self.say(f"error: {line}")
            if isinstance(error, DownloadError) and (hint := by_variables(error.hint)):
                self.say(f"hint: {hint}")
            if line := decisive(error):
                self._write(f"{line}\n")

    def _begin(self) -> None:
        self._planned = False
        self._attempt, self._attempts, self._protocol = 0, 0, ""
        self._unfinished: set[str] = set()
        self._failed: set[str] = set()

    def _plan(self, event: PlanMade) -> None:
        self._begin()
        self._planned = True
        self._progress.reset()
        self._stalls.reset()
        self.say(sentence(event))
        self.say(
            f"Progress monitor started: expected={event.bytes} bytes, "
            f"interval={self._interval:g}s, stall_timeout={self._stall_timeout:g}s"
        )

    def _start(self, event: FileStarted) -> None:
        """Tell of an attempt when the first file has come to it."""
        self._unfinished.add(event.path)
        if event.attempt <= self._attempt:
            return
        if self._protocol in self._failed:
            self._tell_of_attempt("FAILED")
        self._attempt, self._attempts = event.attempt, event.attempts
        self._protocol = event.protocol
        self.say(_RULE)
        self.say(f"DOWNLOAD ATTEMPT {event.attempt}/{event.attempts}")
        self.say(f"Protocol: {event.protocol}")
        self.say(f"Model: {self._model}")
        self.say(_RULE)

    def _tell_of_attempt(self, outcome: str) -> None:
        if self._attempt:
            self.say(f"{outcome}: {self._protocol} (attempt {self._attempt}/{self._attempts})")

    def _trouble(self, event: RetryScheduled | ProtocolSwitched | ProtocolLeft) -> None:
        if isinstance(event, ProtocolLeft):
            self._failed.add(event.protocol)
        else:
            self._tell_of_a_stall(event.error)
        if isinstance(event, ProtocolSwitched):
            self._failed.add(event.failed)
        self.say(sentence(event))

    def _tell_of_a_stall(self, error: str) -> None:
        """Of connections that stood still together one tells."""
        stalled = self._planned and error == StalledError.__name__
        if stalled and self._stalls.due(self._clock()):
            self.say(f"Download stalled for {self._stall_timeout:g}s, killing")

    def _how_far(self, event: RunProgressed | LeaseWaiting) -> str:
        if isinstance(event, LeaseWaiting):
            return sentence(event)
        if not self._planned:
            done = how_far(event.bytes_done, event.bytes_total)
            return f"Reading what is there: {done}, {_files(event)}"
        percent = _percent(event)
        parts = [f"{_progress(percent, event.bytes_done, event.bytes_total)} {pace(event)}"]
        if event.eta is not None and not event.waiting:
            parts.append(f"{format_clock(event.eta)} left")
        return ", ".join([*parts, _files(event)])

    def _end(self, event: SnapshotPublished | RunFailed | RunCancelled) -> None:
        if isinstance(event, SnapshotPublished):
            self.say(_progress(100, event.bytes, event.bytes))
            self._tell_of_attempt("SUCCESS")
            self.say(f"Done: {sentence(event)}")
        elif isinstance(event, RunFailed):
            self._tell_of_attempt("FAILED")
            exhausted = event.error == AllProtocolsFailedError.__name__ and self._unfinished
            if self._attempt and exhausted:
                self.say(f"ALL {self._attempts} DOWNLOAD ATTEMPTS EXHAUSTED")
        else:
            self.say(sentence(event))
        self._begin()


def _percent(event: RunProgressed) -> int:
    """Whole percents; all 100 are told of when the model is published."""
    return min(99, 100 * event.bytes_done // max(1, event.bytes_total))


def _progress(percent: int, done: int, total: int) -> str:
    return f"Progress: {percent}% ({done}/{total} bytes)"


def _files(event: RunProgressed) -> str:
    return f"{event.files_done:,}/{event.files_total:,} files"
