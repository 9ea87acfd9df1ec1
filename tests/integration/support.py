"""Two ways to download, from a shell and from Python, and what a target must be afterwards."""

import asyncio
import hashlib
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import aim_downloader
from aim_downloader import Config, adownload
from aim_downloader.events import Event
from tests.fair_time import fair_time
from tests.hub import HubServer, RequestRecord, faults

MIB = 1024 * 1024
URI = "hf://org/model"
TOKEN = "hf_of_the_integration_tests"
STALL_S = 1.2
MOMENT_S = 0.05
LATE = faults.LateFirstByte(MOMENT_S + 0.03)
HIDDEN = ".aim-downloader"
SUMS = f"{HIDDEN}/SHA256SUMS"
RECEIPT = {SUMS, f"{HIDDEN}/origin.json"}

Files = Mapping[str, bytes | Path]
E = TypeVar("E", bound=Event)


# --- the command line -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    fair_seconds: float
    """The same, without those in which the machine had no time for us: for upper bounds."""

    @property
    def said(self) -> str:
        return f"exit code {self.code}\n{self.stdout}{self.stderr}"


class Running:
    """A command under way."""

    def __init__(self, process: "subprocess.Popen[bytes]", told: Path) -> None:
        self.process = process
        self._told = told
        self._begin()

    @property
    def stdout(self) -> str:
        return self._told.with_suffix(".out").read_text("utf-8")

    @property
    def stderr(self) -> str:
        return self._told.with_suffix(".err").read_text("utf-8")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def finish(self, timeout: float = 60.0) -> Finished:
        """Waits until it has ended by itself."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end after {timeout} s\n{self.stdout}{self.stderr}") from None
        seconds, fair = time.monotonic() - self._begun, fair_time() - self._begun_fair
        return Finished(code, self.stdout, self.stderr, seconds, fair)

    def end_by(self, number: int, timeout: float = 60.0) -> Finished:
        """Sends a signal; the seconds of the result count from there."""
        self._begin()
        self.process.send_signal(number)
        return self.finish(timeout)

    def _begin(self) -> None:
        self._begun, self._begun_fair = time.monotonic(), fair_time()

    def kill(self) -> None:
        """SIGKILL: nothing of it goes on after this."""
        self.process.kill()
        self.process.wait()

    def wait_for_words(self, words: str, timeout: float = 60.0) -> None:
        """Returns as soon as it has said this."""
        wait_until(lambda: words in self.stderr or words in self.stdout or self.ended, timeout)
        assert words in self.stderr + self.stdout, self.stderr + self.stdout


def children(running: Running) -> list[int]:
    """The processes that a command has started and that are there."""
    tasks = Path(f"/proc/{running.process.pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text("ascii").split()]


class Command:
    """Starts `python -m aim_downloader` below ``folder``, which know nothing of this user."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self._folder = folder
        self._numbers = itertools.count()
        self._started: list[Running] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            # This checkout, whatever is installed.
            "PYTHONPATH": str(Path(aim_downloader.__file__).parents[1]),
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "huggingface"),
            "HF_ENDPOINT": endpoint,
            "AIM_DOWNLOADER_STALL_TIMEOUT": str(STALL_S),
            # Most tests are about our own engine; those of the others name them.
            "AIM_DOWNLOADER_PROTOCOL": "HTTP",
        }

    def start(self, *words: str | Path, **environment: str) -> Running:
        """Starts it with these words, and these variables besides."""
        told = self._folder / f"run-{next(self._numbers)}.told"
        with (
            told.with_suffix(".out").open("wb") as out,
            told.with_suffix(".err").open("wb") as err,
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", "aim_downloader", *words],
                env={**self.environment, **environment},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        running = Running(process, told)
        self._started.append(running)
        return running

    def run(self, *words: str | Path, timeout: float = 60.0, **environment: str) -> Finished:
        """Starts it and waits for its end."""
        return self.start(*words, **environment).finish(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for running in self._started:
            if not running.ended:
                running.kill()


# --- in this process ------------------------------------------------------------------------------


class Downloader:
    """Calls ``adownload`` with the Hub's address, and keeps the events."""

    def __init__(self, hub: HubServer) -> None:
        self._hub = hub
        self.events: list[Event] = []

    def config(self, **settings: Any) -> Config:
        # A token always: without one the machine's own would be looked for.
        usual: dict[str, Any] = {
            "endpoint": self._hub.endpoint,
            "token": TOKEN,
            "stall_timeout": STALL_S,
            "connections": 8,
            "protocols": ("HTTP",),
        }
        return Config(**{**usual, **settings})

    async def __call__(self, target: Path, uri: str = URI, **settings: Any) -> Path:
        config = self.config(**settings)
        return await adownload(uri, target, config=config, on_event=self.events.append)

    def run(self, target: Path, uri: str = URI, **settings: Any) -> Path:
        """The same for tests that are not asynchronous."""
        return asyncio.run(self(target, uri, **settings))

    def told(self, kind: type[E]) -> list[E]:
        """The events of one kind, in their order."""
        return [event for event in self.events if isinstance(event, kind)]


# --- what a target must be ------------------------------------------------------------------------


def assert_snapshot(target: Path, files: Files) -> None:
    """The folder holds exactly these files, right to the byte, and of ours the receipt alone."""
    found = names_below(target)
    assert found == {*files, *RECEIPT}
    for name, content in files.items():
        assert_right(target / name, content)
    sums = sorted(f"{digest(content)}  {name}" for name, content in files.items())
    assert sorted((target / SUMS).read_text("utf-8").splitlines()) == sums
    for folder in (target / HIDDEN).rglob("*"):
        assert not folder.is_dir(), f"{folder} is left"


def assert_right(path: Path, content: bytes | Path) -> None:
    right = path.stat().st_size == size_of(content) and digest(path) == digest(content)
    assert right, f"{path} has wrong bytes"


def names_below(target: Path) -> set[str]:
    """All that is below a folder and is no folder itself."""
    paths = (path for path in target.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(target).as_posix() for path in paths}


def digest(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def size_of(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def total_size(files: Files) -> int:
    return sum(map(size_of, files.values()))


# --- what the Hub saw -----------------------------------------------------------------------------


def assert_polite(log: Sequence[RequestRecord], token: str = TOKEN) -> None:
    """What holds for every run: plain GETs, the token for the Hub alone, ranges of large files."""
    assert {record.method for record in log} <= {"GET"}
    for record in log:
        expected = None if record.where == "cdn" else f"Bearer {token}"
        assert record.headers.get("Authorization") == expected, record
        assert record.headers["Accept-Encoding"] == "identity", record
        assert token not in str(record.query)


def content_requests(log: Sequence[RequestRecord], path: str | None = None) -> list[RequestRecord]:
    """Requests about files (or one file), answered with bytes of it or not."""
    return [each for each in log if each.file and path in (None, each.file)]


def cdn_requests(log: Sequence[RequestRecord], path: str) -> list[RequestRecord]:
    """Requests for the bytes of a large file."""
    return [each for each in log if each.where == "cdn" and each.file == path]


def wait_until(happened: Callable[[], object], timeout: float = 60.0) -> None:
    """Returns as soon as it has happened."""
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError("it has not happened")
        time.sleep(0.005)


# --- large models ---------------------------------------------------------------------------------


def write_random(path: Path, size: int, pool: bytes, seed: int) -> Path:
    """A file of random blocks, no two alike, made faster than the kernel has random bytes."""
    offsets = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as opened:
        while (left := size - opened.tell()) > 0:
            offset = offsets.randrange(len(pool) - MIB)
            opened.write(pool[offset : offset + min(MIB, left)])
    return path


def most_at_once(log: Iterable[RequestRecord]) -> int:
    """How many requests were under way at the same time, at most, for longer than a moment.

    The server writes an answer down a moment after the client has all of it. So each is to take
    longer than that: `LATE`.
    """
    turns = [(one.started, 1) for one in log]
    turns += [(one.finished - MOMENT_S, -1) for one in log if one.finished is not None]
    now = most = 0
    for _, turn in sorted(turns):
        now += turn
        most = max(most, now)
    return most
