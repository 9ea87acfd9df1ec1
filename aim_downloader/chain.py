"""One large file: its protocols in order, until one has brought the right bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aim_downloader.content_hash import ContentProof
from aim_downloader.errors import (
    AllProtocolsFailedError,
    DownloadError,
    IntegrityError,
    SnapshotChangedError,
)
from aim_downloader.events import (
    Emit,
    FileCommitted,
    FileReceived,
    FileRejected,
    FileStarted,
    ProtocolSwitched,
)
from aim_downloader.partial import Partial
from aim_downloader.protocols.base import Lane, TransferProtocol
from aim_downloader.sinks.base import Sink
from aim_downloader.snapshot import RemoteFile
from aim_downloader.tasks import in_thread, together

_TRIES_OF_WRONG_BYTES = 2


@dataclass(frozen=True, slots=True)
class OpenProtocol:
    """A protocol with its open lane."""

    protocol: TransferProtocol
    lane: Lane


class Chain:
    """Brings files into ``sink``, ``width`` at once at most.

    ``active`` are the partials under way, for who shows progress; ``on_kept`` hears of the bytes
    of one that is left for a later run.
    """

    def __init__(
        self,
        sequence: Sequence[OpenProtocol],
        sink: Sink,
        commit: str,
        emit: Emit,
        width: int,
        on_kept: Callable[[int], None],
    ) -> None:
        self._sequence = sequence
        self._sink = sink
        self._commit = commit
        self._emit = emit
        self._on_kept = on_kept
        # A file may need two: one reads back while another opens, resets or commits.
        self._threads = ThreadPoolExecutor(2 * width, thread_name_prefix="aim-disk")
        self.active: dict[str, Partial] = {}

    def close(self) -> None:
        """Let the threads go; one that hangs in a disk is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def bring(self, file: RemoteFile) -> None:
        """Fetch, verify and commit one file.

        Raises:
            AllProtocolsFailedError: each protocol has failed; what is proven stays for a later run.
            DownloadError: something that no protocol can cure.
        """
        attempts: list[tuple[str, DownloadError]] = []
        sequence = [one for one in self._sequence if one.protocol.supports(file)]
        try:
            for number, one in enumerate(sequence):
                try:
                    return await self._try(one, file)
                except DownloadError as error:
                    if not error.fallback and not isinstance(error, SnapshotChangedError):
                        raise
                    attempts.append((one.protocol.name, error))
                    self._announce_switch(file, attempts, sequence[number + 1 :])
            raise AllProtocolsFailedError(file.path, attempts)
        finally:
            partial = self.active.pop(file.path, None)
            if partial is not None:
                self._on_kept(partial.present)
                partial.close()

    def _announce_switch(
        self,
        file: RemoteFile,
        attempts: Sequence[tuple[str, DownloadError]],
        following: Sequence[OpenProtocol],
    ) -> None:
        if following:
            failed, error = attempts[-1]
            name = following[0].protocol.name
            self._emit(ProtocolSwitched(file.path, failed, name, str(error)))

    async def _try(self, one: OpenProtocol, file: RemoteFile) -> None:
        """Let one protocol bring the file; wrong bytes are thrown away and asked for again."""
        for tries_left in reversed(range(_TRIES_OF_WRONG_BYTES)):
            partial = await self._partial(file)
            self._emit(FileStarted(file.path, file.size, partial.present, one.protocol.name))
            try:
                await self._receive(one.lane, file, partial)
                self._emit(FileReceived(file.path, file.size))
                proof = await in_thread(self._threads, self._sink.commit, partial)
            except (IntegrityError, SnapshotChangedError) as error:
                self._emit(FileRejected(file.path, one.protocol.name, str(error)))
                # A digest binds the partial: then only wrong bytes are reason to throw it away.
                if file.digest is None or isinstance(error, IntegrityError):
                    await in_thread(self._threads, partial.reset)
                if not tries_left:
                    raise
            else:
                self.active.pop(file.path)
                self._emit(FileCommitted(file.path, file.size, _shown(file, proof)))
                return

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
            await together([lane.fetch(file, partial), reading_back])


def _shown(file: RemoteFile, proof: ContentProof) -> str:
    return str(file.digest or f"sha256:{proof.sha256}")
