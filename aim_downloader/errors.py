"""Everything that can go wrong, as one tree.

DownloadError                          exit 1
├─ ConfigError                              2    bad flag, variable or URI
├─ SourceError                             75    cannot list the snapshot
│  ├─ SnapshotNotFoundError                66    repository, revision or prefix missing
│  ├─ AccessDeniedError                    77    401, 403, gated
│  └─ SnapshotChangedError                 75    an etag moved under us
├─ TransferError                           69    stays inside the chain
│  ├─ ProtocolUnavailableError                   not installed, or its service refuses every file
│  ├─ TransferInterruptedError                   retryable: dropped or broken
│  │  └─ StalledError                            no byte came for too long
│  ├─ EngineEndedError                           the process of a native engine ended by itself
│  │  ├─ EngineOutOfMemoryError                  retryable: the kernel killed it for memory
│  │  └─ EngineSuspendedError                    retryable: this program stood still
│  ├─ ThrottledError                             retryable after .retry_after
│  └─ RangeNotHonouredError                      200 for a range, or a wrong Content-Range
├─ IntegrityError                          65    fallback, after the partial is reset
│  └─ SizeMismatchError  DigestMismatchError
├─ StorageError                            73    disk or permissions
│  └─ InsufficientSpaceError
├─ LeaseLostError                          75    another run took the folder over
├─ ShardMissingError                       75    another shard gives no sign of life
├─ AllProtocolsFailedError                 69    .attempts: every protocol tried, with its error
└─ DownloadCancelledError                 143    SIGTERM (130 for Ctrl-C)

Exit codes are those of sysexits.h where it has one.
"""

from __future__ import annotations

from typing import NamedTuple


class ExitCode(NamedTuple):
    """What a code means, and whether trying again may help."""

    meaning: str
    again: str


EXIT_CODES = {
    0: ExitCode("complete and verified", ""),
    1: ExitCode("a failure that nobody foresaw; the traceback says where", "no: report it"),
    2: ExitCode("a flag, variable or URI cannot be used", "after a change"),
    65: ExitCode("`verify`: a file is damaged or missing", "`verify --repair`"),
    66: ExitCode(
        "repository, revision or path does not exist (or offline and incomplete)", "after a change"
    ),
    69: ExitCode("a file could not be had, or not undamaged", "yes: it goes on"),
    73: ExitCode("disk full, or no right to write", "after a change: it goes on"),
    75: ExitCode("the Hub cannot be reached, another run is at work, or a shard is missing", "yes"),
    77: ExitCode(
        "access denied, gated, a bad token, or (without a token) no such repository",
        "after a change",
    ),
    130: ExitCode("ended by Ctrl-C", "yes: it goes on"),
    143: ExitCode("ended by SIGTERM", "yes: it goes on"),
}
"""All codes that a program can decide by."""


class DownloadError(Exception):
    """What failed, where, and (``hint``) what helps.

    ``retryable``: the same protocol may be asked again. ``fallback``: another protocol may cure it.
    """

    exit_code = 1
    retryable = False
    fallback = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(DownloadError):
    """A flag, a variable or a URI that cannot be used."""

    exit_code = 2


class SourceError(DownloadError):
    """The snapshot cannot be listed now."""

    exit_code = 75


class SnapshotNotFoundError(SourceError):
    """The repository, revision or path does not exist."""

    exit_code = 66


class AccessDeniedError(SourceError):
    """The source refuses us: no token, a bad one, or one without the right."""

    exit_code = 77


class SnapshotChangedError(SourceError):
    """What was listed is not what is served: nothing fetched so far can be trusted."""


class TransferError(DownloadError):
    """Bytes could not be moved by this protocol."""

    exit_code = 69
    fallback = True


class ProtocolUnavailableError(TransferError):
    """The protocol is not installed, or its service is not to be had from here.

    What it could not do for one file it cannot do for any: it is left for the rest of the run.
    """


class TransferInterruptedError(TransferError):
    """A connection was dropped, timed out or stood still."""

    retryable = True


class StalledError(TransferInterruptedError):
    """No byte came for too long, or no connection came about."""


class EngineEndedError(TransferError):
    """The process of a native engine ended by itself."""


class EngineOutOfMemoryError(EngineEndedError):
    """The kernel killed a native engine for the memory it took."""

    retryable = True


class EngineSuspendedError(EngineEndedError):
    """A native engine ended itself, as it heard nothing from this program for too long."""

    retryable = True


class ThrottledError(TransferError):
    """The server at ``url`` asks for patience.

    ``retry_after`` is in seconds; None when it did not say.
    """

    retryable = True

    def __init__(
        self, message: str, *, retry_after: float | None = None, url: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.url = url


class RangeNotHonouredError(TransferError):
    """The server answered a range request with other bytes than those asked for."""

    retryable = True


class IntegrityError(DownloadError):
    """The bytes are not those that the source vouches for."""

    exit_code = 65
    fallback = True


class SizeMismatchError(IntegrityError):
    """More or fewer bytes than the source vouches for."""


class DigestMismatchError(IntegrityError):
    """Another digest than the source vouches for."""


class StorageError(DownloadError):
    """The disk, or the right to write to it."""

    exit_code = 73


class InsufficientSpaceError(StorageError):
    """Not enough bytes or inodes are free; ``model_bytes`` are all that there must be room for."""

    def __init__(self, message: str, *, hint: str = "", model_bytes: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.model_bytes = model_bytes


class LeaseLostError(DownloadError):
    """Another run has taken the folder over; it goes on with what is there."""

    exit_code = 75


class ShardMissingError(DownloadError):
    """Another shard of this run gives no sign of life, and its share is not there."""

    exit_code = 75


class AllProtocolsFailedError(DownloadError):
    """No protocol could bring the file. ``attempts`` pairs each protocol's name with its error."""

    exit_code = 69

    def __init__(self, path: str, attempts: list[tuple[str, DownloadError]]) -> None:
        of_file = f"{path}: "
        why = (f"{name}: {str(error).removeprefix(of_file)}" for name, error in attempts)
        tried = "; ".join(why) or "none was for it"
        super().__init__(
            f"{path} could not be downloaded ({tried})",
            hint=next((error.hint for _, error in reversed(attempts) if error.hint), "")
            or "run the same command again: what is proven is kept",
        )
        self.path = path
        self.attempts = attempts


class DownloadCancelledError(DownloadError):
    """Ended from outside; a later run goes on where this one stopped."""

    exit_code = 143
