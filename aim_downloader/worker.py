"""A native engine in a child process: orders in, messages out, and it never outlives us.

Both are JSON objects, one a line. The child runs a module of ``engines``; a signal every ``BEAT``
seconds tells it that we live.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from aim_downloader.errors import (
    DownloadError,
    EngineEndedError,
    EngineOutOfMemoryError,
    EngineSuspendedError,
    ProtocolUnavailableError,
)
from aim_downloader.linux import oom_kills
from aim_downloader.urls import without_secrets

BEAT = 2.0
Message: TypeAlias = dict[str, Any]

_BEGIN_WITHIN = 30.0
# From its last word, or from SIGKILL, until the kernel has let go of it.
_GONE_WITHIN = 5.0
_LONGEST_LINE = 1 << 20
_READ = 1 << 16
_TAIL = 4096
_WORDS = 300
_SECRET_VARIABLES = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN"}


class Worker:
    """A child process under way; all of it happens in the event loop's thread.

    ``ended`` tells how it came to an end, after all messages: as a value, not as an exception.
    It is a ProtocolUnavailableError when the engine is not installed, an EngineOutOfMemoryError
    when the kernel killed it for memory, else an EngineEndedError. Several may wait for it, by
    ``asyncio.wait``: an ``await`` that is cancelled would cancel it for all.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        on_message: Callable[[Message], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[DownloadError] = loop.create_future()
        self._name = f"the {name} engine"
        self._process = process
        self._on_message = on_message
        self._kills = oom_kills()
        self._reason: DownloadError | None = None
        self._beat_by = loop.create_future()
        self._said_all = loop.create_future()
        self._unread = self._unsent = self._tail = b""
        self._orders, self._messages, self._complaints = map(_at_once, _pipes(process))
        loop.add_reader(self._messages, self._hear)
        loop.add_reader(self._complaints, self._hear_complaint)
        self._attending = asyncio.create_task(self._attend())

    @classmethod
    async def start(
        cls, module: str, *, environ: Mapping[str, str], on_message: Callable[[Message], None]
    ) -> Worker:
        """Start ``python -m module`` and wait until it takes orders.

        ``environ`` is added to the environment, which tokens are left out of. ``on_message`` is
        called for each message, and must not raise.

        Raises:
            ProtocolUnavailableError: it cannot be started here.
            EngineOutOfMemoryError: there is no memory for it.
        """
        name = module.rpartition(".")[2]
        try:
            # Not asyncio's: that loses the exit code when a signal is sent to what has just ended.
            process = subprocess.Popen(  # noqa: ASYNC220  # the kernel ends it with this thread
                [sys.executable, "-P", "-m", module, str(os.getpid())],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(environ),
            )
        except OSError as error:
            passing = error.errno in (errno.EAGAIN, errno.ENOMEM)
            kind = EngineEndedError if passing else ProtocolUnavailableError
            raise kind(
                f"the {name} engine cannot be started: {error.strerror or error}",
                hint="look at the limits of processes (ulimit -u), open files and memory",
            ) from error
        worker = cls(name, process, on_message)
        try:
            await worker._has_begun()
        except BaseException:
            await worker.end()
            raise
        return worker

    def send(self, order: Mapping[str, Any]) -> None:
        """Send an order. One that has ended hears it no more: see ``ended``."""
        if self._said_all.done():
            return
        waiting = bool(self._unsent)
        self._unsent += json.dumps(order).encode() + b"\n"
        if not waiting:
            self._write()

    def hold(self, held: bool) -> None:
        """Let the process stand still for a moment, or go on.

        Not where it would stand for ever, should this program be killed meanwhile.
        """
        if sys.platform == "linux" and not self._said_all.done():
            self._process.send_signal(signal.SIGSTOP if held else signal.SIGCONT)

    async def end(self) -> bool:
        """End the process at once, and wait for that, however often cancelled.

        Returns whether it is gone; if not, after some seconds, it hangs in the kernel, and may
        yet write.
        """
        if not self._said_all.done():
            self._reason = self._reason or EngineEndedError(f"{self._name} was ended")
            self._process.kill()
            self._hang_up()
        cancelled = False
        while not self._attending.done():
            try:
                await asyncio.wait([self._attending])
            except asyncio.CancelledError:
                cancelled = True
        if not self.ended.done():
            await self._finish()  # a loop that closes may have cancelled it before its first step
        if cancelled:
            raise asyncio.CancelledError
        return self._process.poll() is not None

    async def _has_begun(self) -> None:
        await asyncio.wait(
            [self._beat_by, self.ended],
            timeout=_BEGIN_WITHIN,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self.ended.done():
            error = self.ended.result()
            if isinstance(error, EngineOutOfMemoryError):
                raise error
            raise ProtocolUnavailableError(str(error), hint=error.hint) from error
        if not self._beat_by.done():
            raise EngineEndedError(f"{self._name} has not begun after {_BEGIN_WITHIN:g} s")

    # -- its life ----------------------------------------------------------------------------------

    async def _attend(self) -> None:
        """Beat until it ends, or until this loop does; leave nothing of it."""
        try:
            while not self._said_all.done() and self._process.poll() is None:
                if self._beat_by.done():
                    self._process.send_signal(self._beat_by.result())
                await asyncio.wait([self._said_all], timeout=BEAT)
            # The pipe is closed a moment before the process is gone.
            if not await self._gone():
                words = f"{self._name} fell silent, and did not end"
                self._reason = self._reason or EngineEndedError(words)
            if not self._said_all.done():
                self._hear()
        finally:
            await self._finish()

    async def _finish(self) -> None:
        self._process.kill()
        await self._gone()
        self._release()
        if not self.ended.done():  # whoever awaited it may have been cancelled, and it too
            self.ended.set_result(self._reason or self._why())

    async def _gone(self) -> bool:
        """Wait for the process itself; whether it is gone."""
        deadline = time.monotonic() + _GONE_WITHIN
        pause = 0.001
        while self._process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        return self._process.returncode is not None

    def _release(self) -> None:
        self._hear_complaint()
        self._hang_up()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._complaints)
        loop.remove_writer(self._orders)
        for pipe in _pipes(self._process):
            pipe.close()

    def _why(self) -> DownloadError:
        """How it came to an end by itself."""
        code = self._process.returncode
        if code == -signal.SIGKILL and (oom_kills() or 0) > (self._kills or 0):
            return EngineOutOfMemoryError(
                f"{self._name} was killed by the kernel: memory ran out",
                hint="give the container more memory, or lower --connections",
            )
        if code == -signal.SIGALRM:
            return EngineSuspendedError(
                f"{self._name} ended itself: it had not heard from this program for too long",
                hint="was this program suspended?",
            )
        said = _last_words(self._tail)
        return EngineEndedError(f"{self._name} {_ending(code)}" + (f": {said}" if said else ""))

    # -- its pipes ---------------------------------------------------------------------------------

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._unsent = self._unsent[os.write(self._orders, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""  # it has ended: the other pipe tells
        if self._unsent:
            loop.add_writer(self._orders, self._write)
        else:
            loop.remove_writer(self._orders)

    def _hear(self) -> None:
        data = _read(self._messages)
        if data == b"":
            self._hang_up()
        *lines, self._unread = (self._unread + (data or b"")).split(b"\n")
        if max(map(len, (*lines, self._unread))) > _LONGEST_LINE:
            self._refuse("a line without an end")
        for line in lines:
            if self._reason is None:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._refuse("what is no message")
        elif "beat" in message:
            self._beat_by.set_result(message["beat"])
        elif "unavailable" in message:
            words = f"{self._name} cannot be used: {message['unavailable']}"
            self._reason = ProtocolUnavailableError(words, hint=message["hint"])
        else:
            self._on_message(message)

    def _refuse(self, what: str) -> None:
        self._reason = EngineEndedError(f"{self._name} sent {what}")
        self._process.kill()
        self._hang_up()

    def _hang_up(self) -> None:
        """It has said all that we want to hear."""
        asyncio.get_running_loop().remove_reader(self._messages)
        if not self._said_all.done():
            self._said_all.set_result(None)

    def _hear_complaint(self) -> None:
        data = _read(self._complaints)
        if data == b"":
            asyncio.get_running_loop().remove_reader(self._complaints)
        self._tail = (self._tail + (data or b""))[-_TAIL:]


def _environment(additions: Mapping[str, str]) -> dict[str, str]:
    """What the child is given: it finds modules where we do, and no token."""
    kept = {name: value for name, value in os.environ.items() if name not in _SECRET_VARIABLES}
    # This very package, whatever is installed; its entry may be a hook, or the current folder.
    home = str(Path(__file__).parents[1])
    where = [entry for entry in sys.path if entry]
    if home not in where:
        where.insert(0, home)
    return {**kept, "PYTHONPATH": os.pathsep.join(where), **additions}


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    pipes = process.stdin, process.stdout, process.stderr
    return cast("tuple[IO[bytes], IO[bytes], IO[bytes]]", pipes)


def _at_once(pipe: IO[bytes]) -> int:
    """The number of a pipe that is never waited for."""
    os.set_blocking(pipe.fileno(), False)
    return pipe.fileno()


def _read(pipe: int) -> bytes | None:
    """What has come; nothing at the end, None when there is nothing yet."""
    try:
        return os.read(pipe, _READ)
    except BlockingIOError:
        return None


def _ending(code: int | None) -> str:
    if code is None:
        return "hangs in the kernel"
    if code >= 0:
        return f"ended by itself, with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _last_words(tail: bytes) -> str:
    """The last line of what it complained of, without what may be a secret."""
    _, newline, line = tail.rstrip().rpartition(b"\n")
    if not newline and len(tail) == _TAIL:
        return ""  # its beginning is lost, and with it what tells a secret
    return without_secrets(line.decode("utf-8", errors="replace"))[:_WORDS]
