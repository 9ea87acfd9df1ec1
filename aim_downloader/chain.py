"""Large files: for each its protocols in order, until one has brought the right bytes."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aim_downloader.content_hash import ContentProof
from aim_downloader.errors import (
    AllProtocolsFailedError,
    DownloadError,
    EngineEndedError,
    IntegrityError,
    ProtocolUnavailableError,
    SnapshotChangedError,
    TransferError,
)
from aim_downloader.events import (
    Emit,
    FileCommitted,
    FileReceived,
    FileRejected,
    FileStarted,
    ProtocolLeft,
    ProtocolSwitched,
    RetryScheduled,
)
from aim_downloader.partial import Partial
from aim_downloader.protocols.base import Lane, TransferProtocol
from aim_downloader.sinks.base import Sink
from aim_downloader.snapshot import RemoteFile
from aim_downloader.tasks import in_thread, together

_HOPELESS = 3
# While one is verified and synced, the next begins, however few may receive.
_BEING_COMMITTED = 1


@dataclass(frozen=True, slots=True)
class OpenProtocol:
    """A protocol with its open lane."""

    protocol: TransferProtocol
    lane: Lane

    @property
    def name(self) -> str:
        """The protocol's name."""
        return self.protocol.name


@dataclass(frozen=True, slots=True)
class Protocols:
    """The sequence of a run, in which None holds the place of a name that nobody knows.

    ``otherwise`` takes the files that none of them is for: that is no fallback and no attempt.
    """

    sequence: Sequence[OpenProtocol | None]
    otherwise: OpenProtocol

    def places(self, file: RemoteFile) -> list[tuple[int, OpenProtocol]]:
        """Who is for a file, each with its place from 1 in the sequence; 0 is outside of it."""
        places = enumerate([self.otherwise, *self.sequence])
        able = [(place, one) for place, one in places if one and one.protocol.supports(file)]
        return [(place, one) for place, one in able if place] or able

    def first(self, files: Iterable[RemoteFile]) -> int:
        """The first place that is for any of the files; 0 when none in the sequence is."""
        return min((place for one in files for place, _ in self.places(one) if place), default=0)


class Chain:
    """Brings files into ``sink``; at most ``width`` of them receive at once.

    ``active`` are the partials under way, for who shows progress; ``on_kept`` hears of the bytes
    of one that is left for a later run.
    """

    def __init__(
        self,
        protocols: Protocols,
        sink: Sink,
        commit: str,
        emit: Emit,
        width: int,
        on_kept: Callable[[int], None],
    ) -> None:
        self._protocols = protocols
        self._left: dict[str, ProtocolUnavailableError] = {}
        # By protocol: the files that it could not bring since it brought one.
        self._in_vain: defaultdict[str, set[str]] = defaultdict(set)
        self._first = self._furthest = 0
        self._sink = sink
        self._commit = commit
        self._emit = emit
        self._on_kept = on_kept
        self._under_way = width + _BEING_COMMITTED
        self._receiving = asyncio.Semaphore(width)
        # A file may need two: one reads back while another opens, resets or commits.
        self._threads = ThreadPoolExecutor(2 * self._under_way, thread_name_prefix="aim-disk")
        self.active: dict[str, Partial] = {}

    def close(self) -> None:
        """Let the threads go; one that hangs in a disk is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def bring_all(
        self,
        files: Sequence[RemoteFile],
        on_done: Callable[[RemoteFile], None],
        on_failure: Callable[[AllProtocolsFailedError], None],
    ) -> None:
        """Bring files, several at once, in about this order.

        ``on_failure`` hears of each that cannot be had, and may raise to end it all.

        Raises:
            DownloadError: something that no protocol can cure.
        """
        self._first = self._protocols.first(files)
        waiting = iter(files)
        await together(
            self._bring_some(waiting, on_done, on_failure) for _ in range(self._under_way)
        )

    async def _bring_some(
        self,
        waiting: Iterator[RemoteFile],
        on_done: Callable[[RemoteFile], None],
        on_failure: Callable[[AllProtocolsFailedError], None],
    ) -> None:
        for file in waiting:
            try:
                await self.bring(file)
                on_done(file)
            except AllProtocolsFailedError as error:
                on_failure(error)

    async def bring(self, file: RemoteFile) -> None:
        """Fetch, verify and commit one file.

        Raises:
            AllProtocolsFailedError: each protocol has failed; what is proven stays for a later run.
            DownloadError: something that no protocol can cure.
        """
        attempts: list[tuple[str, DownloadError]] = []
        places = self._protocols.places(file)
        self._first = self._first or self._protocols.first([file])
        try:
            for number, (place, one) in enumerate(places, 1):
                # Who is passed by, as not for this file, has not failed: the run is no further.
                reached = place if attempts or place == self._first else 0
                error = await self._failure(reached, one, file)
                if error is None:
                    return
                # What has left a protocol is one error, however often the sequence repeats it.
                if (one.name, error) not in attempts:
                    attempts.append((one.name, error))
                if not isinstance(error, ProtocolUnavailableError):
                    self._announce_switch(file, one, error, places[number:])
                    self._leave_if_hopeless(one, error, places[number:])
            raise AllProtocolsFailedError(file.path, attempts)
        finally:
            partial = self.active.pop(file.path, None)
            if partial is not None:
                self._on_kept(partial.present)
                partial.close()

    async def _failure(
        self, reached: int, one: OpenProtocol, file: RemoteFile
    ) -> DownloadError | None:
        """Let a protocol bring the file; returns what kept it from that, if the next may do it."""
        if one.name in self._left:
            return self._left[one.name]
        try:
            await self._try(reached, one, file)
        except ProtocolUnavailableError as error:
            self._leave(one, error)
            return self._left[one.name]
        except DownloadError as error:
            if not error.fallback and not isinstance(error, SnapshotChangedError):
                raise
            if isinstance(error, TransferError):
                self._in_vain[one.name].add(file.path)
            return error
        self._in_vain[one.name].clear()
        return None

    def _leave_if_hopeless(
        self, one: OpenProtocol, error: DownloadError, following: Sequence[tuple[int, OpenProtocol]]
    ) -> None:
        """Ask a protocol no more that fails file after file, where there is another."""
        failures = len(self._in_vain[one.name])
        others = {other.name for _, other in following} - {one.name, *self._left}
        if failures >= _HOPELESS and others:
            words = f"{failures} files in a row could not be had: {error}"
            self._leave(one, ProtocolUnavailableError(words, hint=error.hint))

    def _leave(self, one: OpenProtocol, error: ProtocolUnavailableError) -> None:
        """Ask a protocol no more. Of several files that meet the same the first one tells."""
        if one.name not in self._left:
            self._left[one.name] = error
            self._emit(ProtocolLeft(one.name, str(error)))

    def _announce_switch(
        self,
        file: RemoteFile,
        failed: OpenProtocol,
        error: DownloadError,
        following: Sequence[tuple[int, OpenProtocol]],
    ) -> None:
        to = next((one.name for _, one in following if one.name not in self._left), "")
        kind = type(error).__name__
        self._emit(ProtocolSwitched(file.path, failed.name, to, str(error), kind))

    async def _try(self, reached: int, one: OpenProtocol, file: RemoteFile) -> None:
        """Let one protocol bring the file; after some failures it is asked once again."""
        met: set[type[DownloadError]] = set()
        while True:
            try:
                return await self._bring_by(reached, one, file)
            except (IntegrityError, SnapshotChangedError) as error:
                await self._reject(one, file, error)
                if IntegrityError in met:
                    raise
                met.add(IntegrityError)
            except EngineEndedError as error:
                # After one that ran out of memory the lane makes do with less.
                if not error.retryable or type(error) in met:
                    raise
                met.add(type(error))
                kind = type(error).__name__
                self._emit(RetryScheduled(file.path, str(error), 1, 0.0, kind))

    async def _reject(self, one: OpenProtocol, file: RemoteFile, error: DownloadError) -> None:
        """Throw wrong bytes away."""
        self._emit(FileRejected(file.path, one.name, str(error)))
        # A digest binds the partial: then only wrong bytes are reason to throw it away.
        if file.digest is None or isinstance(error, IntegrityError):
            await in_thread(self._threads, self.active[file.path].reset)

    async def _bring_by(self, reached: int, one: OpenProtocol, file: RemoteFile) -> None:
        async with self._receiving:
            if one.name in self._left:
                raise ProtocolUnavailableError(f"{one.name} was left meanwhile")
            partial = await self._partial(file)
            self._announce_start(reached, one, partial)
            await self._receive(one.lane, file, partial)
        self._emit(FileReceived(file.path, file.size))
        proof = await in_thread(self._threads, self._sink.commit, partial)
        self.active.pop(file.path)
        self._emit(FileCommitted(file.path, file.size, _shown(file, proof)))

    def _announce_start(self, reached: int, one: OpenProtocol, partial: Partial) -> None:
        self._furthest = max(self._furthest, reached)
        file, attempts = partial.file, len(self._protocols.sequence)
        self._emit(
            FileStarted(file.path, file.size, partial.present, one.name, self._furthest, attempts)
        )

    async def _partial(self, file: RemoteFile) -> Partial:
        """The file's partial, opened once."""

        def open_it() -> None:
            # Kept here, in the thread: whoever is cancelled meanwhile still gets to close it.
            self.active[file.path] = self._sink.open_partial(file, self._commit)

        if file.path not in self.active:
            await in_thread(self._threads, open_it)
        return self.active[file.path]

    async def _receive(self, lane: Lane, file: RemoteFile, partial: Partial) -> None:
        """Fill the partial. Blocks of an earlier run are read back beside it, and may prove bad."""
        while partial.missing() or partial.behind:
            stopping = threading.Event()
            reading_back = in_thread(self._threads, partial.catch_up, stopping)
            fetching = [lane.fetch(file, partial)] if partial.missing() else []
            await together([*fetching, reading_back])


def _shown(file: RemoteFile, proof: ContentProof) -> str:
    return str(file.digest or f"sha256:{proof.sha256}")
