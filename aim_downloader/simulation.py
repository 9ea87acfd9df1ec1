"""What AIM_DEBUG_* asks for: a job that hangs, fails or pretends, told by the usual events."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from aim_downloader.config import Config, parse_protocols
from aim_downloader.environment import expected_size
from aim_downloader.errors import (
    AllProtocolsFailedError,
    ConfigError,
    DownloadError,
    StalledError,
    TransferInterruptedError,
)
from aim_downloader.events import (
    Emit,
    FileCommitted,
    FileReceived,
    FileStarted,
    PlanMade,
    ProtocolsSkipped,
    ProtocolSwitched,
    RunCancelled,
    RunFailed,
    RunSimulated,
    SnapshotPublished,
)
from aim_downloader.progress import Progress, sampling
from aim_downloader.snapshot import MIB
from aim_downloader.storage import storage_errors
from aim_downloader.tasks import in_thread

_FILE = "simulated-download.bin"
_OF_ONE_PROTOCOL = 100 * 1024
_ZEROS = bytes(MIB)
_NO = {"", "0", "false", "no", "off"}
# It ends with this program, whatever ends that.
_HANGS = "import sys; sys.stdin.read()"


class SimulatedError(DownloadError):
    """A failure that was asked for."""


async def simulate(
    play: Play, directory: Path, config: Config, environ: Mapping[str, str], emit: Emit
) -> None:
    """Play it, and tell of its end as of a real run's.

    Raises:
        DownloadError: it fails, as it was asked to.
    """
    stage = Stage(directory, config, environ, emit)
    try:
        async with sampling(stage.progress, emit):
            await play(stage)
        stage.publish()
    except DownloadError as error:
        emit(RunFailed(type(error).__name__, str(error), error.hint, error.exit_code))
        raise
    except asyncio.CancelledError:
        emit(RunCancelled(*stage.progress.bytes()))
        raise


def play_of(uri: str, environ: Mapping[str, str]) -> Play | None:
    """What is to be played for a model, if anything; the first of several counts."""
    asked = (play for name, play in _PLAYS.items() if _is_set(environ, name))
    play = next(asked, None)
    return None if play is _protocols and not uri.startswith("hf://") else play


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() not in _NO


class Stage:
    """What a play is given: where it takes place, and who hears of it."""

    def __init__(
        self, directory: Path, config: Config, environ: Mapping[str, str], emit: Emit
    ) -> None:
        self.config = config
        self.environ = environ
        self.emit = emit
        self.progress = Progress()
        self._directory = directory
        self._size = 0
        self._begun = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="aim-simulation")

    def tell(self, what: str) -> None:
        """Say what is pretended now."""
        self.emit(RunSimulated(what))

    def seconds(self, name: str, default: float) -> float:
        """How long something takes.

        Raises:
            ConfigError: the variable is no number of seconds.
        """
        text = self.environ.get(name) or str(default)
        try:
            if (seconds := float(text)) >= 0:
                return seconds
        except ValueError:
            pass
        raise ConfigError(f"{name}={text!r} is not a number of seconds")

    def begin(self, size: int) -> None:
        """Plan to bring one file of so many bytes."""
        self._size = size
        self.progress.begin_fetching(1, size, 0, 0)
        self.emit(
            PlanMade(
                target=str(self._directory),
                files=1,
                bytes=size,
                fetch_files=1,
                fetch_bytes=size,
                resumed_bytes=0,
                held_files=0,
                held_bytes=0,
                left_out_files=0,
                left_out_bytes=0,
                kept_files=0,
                kept_bytes=0,
                hint="",
            )
        )

    def start(self, protocol: str, attempt: int) -> None:
        """Let a protocol begin."""
        attempts = len(self.config.protocols)
        self.emit(FileStarted(_FILE, self._size, 0, protocol, attempt, attempts))

    def give_up(self, protocol: str, error: DownloadError, to: str = "") -> None:
        """Let it fail."""
        self.emit(ProtocolSwitched(_FILE, protocol, to, str(error), type(error).__name__))

    async def write(self, start: int, stop: int) -> None:
        """Write so many bytes, all zeros."""
        path, enough = self._directory / _FILE, threading.Event()
        await in_thread(self._writer, _write, path, start, stop, self._count, enough)

    def _count(self, size: int) -> None:
        self.progress.add(size)
        self.progress.traffic.add(size)

    def commit(self) -> None:
        """Tell that all is there."""
        self.progress.settle(0)
        self.emit(FileCommitted(_FILE, self._size, ""))

    def publish(self) -> None:
        """Tell that it is over, and good."""
        self.emit(
            SnapshotPublished(
                target=str(self._directory),
                commit="",
                files=1,
                bytes=self._size,
                bytes_received=self._size,
                seconds=round(time.monotonic() - self._begun, 3),
            )
        )


Play: TypeAlias = Callable[[Stage], Coroutine[Any, Any, None]]


def _write(
    path: Path, start: int, stop: int, on_written: Callable[[int], None], enough: threading.Event
) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if start else "wb") as opened:
            while (left := stop - opened.tell()) > 0 and not enough.is_set():
                on_written(opened.write(_ZEROS[:left]))


async def _hang(stage: Stage) -> None:
    """A transfer that never brings a byte, and is ended."""
    limit, size = stage.config.stall_timeout, expected_size(stage.environ) or MIB
    protocol = stage.config.protocols[0]
    stage.tell(f"a transfer that hangs; it is ended after {limit:g} s")
    stage.begin(size)
    stage.start(protocol, 1)
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    words = (sys.executable, "-c", _HANGS)
    transfer = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=null, stderr=null)
    error: DownloadError
    try:
        async with asyncio.timeout(limit):
            await transfer.wait()
        error = TransferInterruptedError("somebody has ended what hangs")
    except TimeoutError:
        error = StalledError(f"no byte came for {limit:g} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            transfer.kill()
        await transfer.wait()
    stage.give_up(protocol, error)
    raise error


async def _fail(stage: Stage) -> None:
    stage.tell("a failure")
    raise SimulatedError("AIM_DEBUG_CAUSE_FAILURE is set")


async def _download(stage: Stage) -> None:
    """One file of zeros that comes in two halves, and is then said to be verified."""
    size = expected_size(stage.environ) or MIB
    halves = stage.seconds("AIM_DEBUG_DOWNLOAD_DURATION", 10)
    verifying = stage.seconds("AIM_DEBUG_VERIFY_DURATION", 10)
    stage.tell(f"a download of {size} bytes that takes {halves:g} s")
    stage.begin(size)
    await stage.write(0, size // 2)
    await asyncio.sleep(halves)
    await stage.write(size // 2, size)
    stage.emit(FileReceived(_FILE, size))
    stage.tell(f"a verification that takes {verifying:g} s")
    await asyncio.sleep(verifying)
    if _is_set(stage.environ, "AIM_DEBUG_VERIFY_FAIL"):
        raise SimulatedError("the verification fails, as AIM_DEBUG_VERIFY_FAIL is set")
    stage.commit()


async def _protocols(stage: Stage) -> None:
    """Each protocol of the sequence, until one succeeds."""
    duration = stage.seconds("AIM_DEBUG_SIMULATE_HF_DURATION", 2)
    failing = parse_protocols(stage.environ.get("AIM_DEBUG_SIMULATE_HF_FAIL_PROTOCOLS", ""))
    unknown = stage.config.unknown_protocols
    if unknown:
        stage.emit(ProtocolsSkipped(tuple(unknown)))
    stage.begin(_OF_ONE_PROTOCOL)
    tried = [(i, each) for i, each in enumerate(stage.config.protocols, 1) if each not in unknown]
    followers = [each for _, each in tried[1:]] + [""]
    attempts: list[tuple[str, DownloadError]] = []
    for (number, protocol), follower in zip(tried, followers, strict=True):
        stage.start(protocol, number)
        stage.tell(f"{protocol}, which takes {duration:g} s")
        await asyncio.sleep(duration)
        if protocol not in failing:
            await stage.write(0, _OF_ONE_PROTOCOL)
            stage.commit()
            return
        error = TransferInterruptedError("AIM_DEBUG_SIMULATE_HF_FAIL_PROTOCOLS names it")
        attempts.append((protocol, error))
        stage.give_up(protocol, error, follower)
    raise AllProtocolsFailedError(_FILE, attempts)


_PLAYS: Mapping[str, Play] = {
    "AIM_DEBUG_CAUSE_HANG": _hang,
    "AIM_DEBUG_CAUSE_FAILURE": _fail,
    "AIM_DEBUG_SIMULATE_DOWNLOAD": _download,
    "AIM_DEBUG_SIMULATE_HF_DOWNLOAD": _protocols,
}
