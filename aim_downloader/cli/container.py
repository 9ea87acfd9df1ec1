"""What the commands share that a container starts: settings, a log, and ends that are values."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aim_downloader.cli.desk import Desk
from aim_downloader.config import Config
from aim_downloader.errors import ConfigError, DownloadError
from aim_downloader.reporters.job_log import JobLog
from aim_downloader.signals import run_until_signalled

_T = TypeVar("_T")


def settings(desk: Desk) -> tuple[Config, ConfigError | None]:
    """What the environment says; where that cannot be used the usual settings, and why."""
    try:
        return desk.config(origin=False), None
    except ConfigError as error:
        return Config(origin=False), error


def log_of(config: Config) -> JobLog:
    """The lines on standard error."""
    interval, stall_timeout = config.progress_interval, config.stall_timeout
    return JobLog(sys.stderr, interval=interval, stall_timeout=stall_timeout)


def run_to_an_end(work: Callable[[], Coroutine[Any, Any, _T]], log: JobLog) -> _T | Exception:
    """Do the work, until a signal ends it. What ends it early is a value: several are told of it.

    Imports belong into the work: they take their time, and signals are heard in it.
    """
    try:
        return run_until_signalled(work())
    except DownloadError as error:
        return error
    except Exception as error:  # noqa: BLE001  # told as the interpreter would
        for line in "".join(traceback.format_exception(error)).splitlines():
            log.say(line)
        return error


def exit_code_of(error: Exception | None) -> int:
    """What the program ends with."""
    if error is None:
        return 0
    return error.exit_code if isinstance(error, DownloadError) else 1
