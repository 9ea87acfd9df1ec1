"""What every command is given, and how commands tell: answers on stdout, all else on stderr."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from aim_downloader.config import Config
from aim_downloader.environment import config_from_environ
from aim_downloader.errors import ConfigError, DownloadCancelledError, DownloadError, StorageError
from aim_downloader.events import (
    Emit,
    Event,
    LeaseWaiting,
    RetryScheduled,
    RunFailed,
    RunProgressed,
)
from aim_downloader.reporters.base import Throttle, Writer, one_line
from aim_downloader.reporters.error_lines import error_lines
from aim_downloader.reporters.sentences import sentence
from aim_downloader.storage import storage_errors

if TYPE_CHECKING:
    from aim_downloader.api import CleanReport
    from aim_downloader.findings import Findings
    from aim_downloader.planner import Plan

_TELL_EVERY = 5.0

BUSY = 75
"""Exit code of sysexits.h: try again later."""


class Core(Protocol):
    """What the commands call: the module ``api``, or a double of it."""

    async def adownload(self, uri: str, directory: Path, *, config: Config, on_event: Emit) -> Path:
        """Bring the model into the folder."""

    async def plan(self, uri: str, directory: Path, *, config: Config, on_event: Emit) -> Plan:
        """Say what a download would do."""

    async def snapshot_size(self, uri: str, *, config: Config, on_event: Emit) -> int:
        """Count the bytes of the files that are wanted."""

    async def averify(
        self, directory: Path, uri: str | None, *, remote: bool, config: Config, on_event: Emit
    ) -> Findings:
        """Say what in the folder is not right."""

    async def arepair(
        self,
        directory: Path,
        uri: str | None,
        *,
        findings: Findings,
        config: Config,
        on_event: Emit,
    ) -> Findings:
        """Fetch what was found damaged or missing."""

    def clean(self, directory: Path, *, on_event: Emit) -> CleanReport:
        """Remove what runs have left behind that are dead."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every command is given. The core is loaded when a command needs it, not for help."""

    environ: Mapping[str, str]
    load_core: Callable[[], Core]

    @property
    def terminal(self) -> bool:
        """Whether bars can be drawn where progress is told."""
        return sys.stderr.isatty() and self.environ.get("TERM", "dumb") != "dumb"

    def config(self, token_file: Path | None = None, **flags: object) -> Config:
        """The settings: flags beat environment variables beat defaults.

        Raises:
            ConfigError: a flag, a variable or the token file cannot be used.
        """
        token = _read_token(token_file) if token_file else None
        return config_from_environ(self.environ, token=token, **flags)


def _read_token(path: Path) -> str:
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"the token file {path} cannot be read: {reason}") from error
    if not token:
        raise ConfigError(f"the token file {path} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"the token file {path} holds more than one token on one line")
    return token


def say(text: str) -> None:
    """Write what was asked for. A reader that has had enough (``| head``) ends the command.

    Raises:
        StorageError: the file behind standard output cannot be written.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        with storage_errors(Path("standard output")):
            # What has no letter there is written in another way, as on standard error.
            sys.stdout.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))
            sys.stdout.flush()
    except StorageError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise click.exceptions.Exit(128 + signal.SIGPIPE) from None
        raise


def delays() -> Emit:
    """A listener that tells, where only an answer is wanted, why it takes its time."""
    throttle = Throttle(_TELL_EVERY)

    def tell_of(event: Event) -> None:
        slow = isinstance(event, LeaseWaiting) or (
            isinstance(event, RunProgressed) and event.verifying
        )
        if isinstance(event, RetryScheduled) or (slow and throttle.due(time.monotonic())):
            tell(sentence(event))

    return tell_of


def complain(error: DownloadError) -> int:
    """Tell of an error and return its exit code. Who ended the run knows that it has ended."""
    if not isinstance(error, DownloadCancelledError):
        message, *tried = error_lines(error)
        tell_error(message, error.hint, tried)
    return error.exit_code


def tell(*lines: str) -> None:
    """Say what is good to know beside the answer."""
    for line in lines:
        Writer(sys.stderr)(f"{one_line(line)}\n")


def tell_error(message: str, hint: str, details: Sequence[str] = ()) -> None:
    """Say what went wrong, line by line, and what helps."""
    write = Writer(sys.stderr)
    for line in (message, *details):
        write(f"error: {one_line(line)}\n")
    if hint:
        write(f"hint: {one_line(hint)}\n")


def failed(error: DownloadError) -> RunFailed:
    """The event that tells programs of an error."""
    return RunFailed(type(error).__name__, str(error), error.hint, error.exit_code)
