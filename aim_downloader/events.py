"""Facts about a run, as it goes. ``download`` and ``chain`` emit them; reporters render them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Event:
    """A fact. ``name`` is its dotted name, the fields are its payload."""

    name: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """The event as a JSON object: its name under ``event``, then the payload."""
        return {"event": self.name, **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class LeaseWaiting(Event):
    """Another run holds the folder; this one waits and follows.

    ``silent`` is for how long nothing was heard of it; at ``patience`` this run takes over.
    """

    name = "lease.waiting"
    holder: str
    bytes_done: int
    bytes_total: int
    silent: float
    patience: float


@dataclass(frozen=True, slots=True)
class SnapshotResolved(Event):
    """The revision is pinned and its files are listed."""

    name = "snapshot.resolved"
    uri: str
    commit: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PlanMade(Event):
    """What will be fetched, what is there already, what filters leave out. Sizes in bytes.

    ``kept``: files of an earlier revision. ``hint``: what else could be left out, or could not be.
    """

    name = "plan.made"
    target: str
    files: int
    bytes: int
    fetch_files: int
    fetch_bytes: int
    resumed_bytes: int
    held_files: int
    held_bytes: int
    left_out_files: int
    left_out_bytes: int
    kept_files: int
    kept_bytes: int
    hint: str


@dataclass(frozen=True, slots=True)
class ShareTaken(Event):
    """Several pods share the model; so much of it is for this one, ``index`` of ``count``, from 0.

    Sizes in bytes; ``all_files`` and ``all_bytes`` are those of the whole model.
    """

    name = "share.taken"
    index: int
    count: int
    files: int
    bytes: int
    all_files: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far another shard is, in bytes. ``silent`` is for how long nothing was heard of it.

    ``came``: it was heard of before.
    """

    index: int
    bytes_done: int
    bytes_total: int
    silent: float
    came: bool = True


@dataclass(frozen=True, slots=True)
class ShardsAwaited(Event):
    """This shard waits for others of ``count``, mostly as it has done its part.

    It fails when nothing is heard of any of them for ``patience`` seconds.
    """

    name = "shards.awaited"
    count: int
    missing: tuple[ShardProgress, ...]
    patience: float


@dataclass(frozen=True, slots=True)
class ConnectionsReduced(Event):
    """Memory is short (``limit`` bytes, by a cgroup): fewer connections than asked for are used."""

    name = "connections.reduced"
    limit: int
    asked: int
    allowed: int


@dataclass(frozen=True, slots=True)
class ProtocolsSkipped(Event):
    """The environment names protocols that nobody knows; they keep their places, untried."""

    name = "protocols.skipped"
    protocols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileSkipped(Event):
    """The file is there and right."""

    name = "file.skipped"
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileStarted(Event):
    """A protocol begins (or goes on) with the file; ``resumed`` bytes are on disk already.

    ``attempt`` of ``attempts`` is the furthest place in the sequence of protocols that any file has
    reached: where the first one begins, and on from there when a protocol has failed. It never goes
    back. A protocol that is passed by, as not for a file, has not failed. 0: none has begun there.
    """

    name = "file.started"
    path: str
    bytes: int
    resumed: int
    protocol: str
    attempt: int
    attempts: int


@dataclass(frozen=True, slots=True)
class FileReceived(Event):
    """All bytes are on disk, not yet verified."""

    name = "file.received"
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileRejected(Event):
    """What came is not the file that was listed: wrong bytes are thrown away."""

    name = "file.rejected"
    path: str
    protocol: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileCommitted(Event):
    """The file is verified and bears its final name."""

    name = "file.committed"
    path: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class RetryScheduled(Event):
    """The same protocol will be asked again in ``delay`` seconds.

    ``error`` is the class of what went wrong; empty when a server only rations its answers.
    """

    name = "retry.scheduled"
    path: str
    reason: str
    attempt: int
    delay: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class ProtocolSwitched(Event):
    """One protocol has failed; the next one takes the file. ``to`` is empty when there is none.

    ``error`` is the class of what went wrong.
    """

    name = "protocol.switched"
    path: str
    failed: str
    to: str
    reason: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class ProtocolLeft(Event):
    """A protocol has failed for a reason that meets every file: it is left for this run."""

    name = "protocol.left"
    protocol: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far one file is, in bytes. ``verified`` is the hashed prefix."""

    path: str
    bytes: int
    done: int
    verified: int


@dataclass(frozen=True, slots=True)
class RunProgressed(Event):
    """A sample. Bytes of all files: on disk, in all, received over the network in this run.

    ``verifying``: bytes are being read back, not fetched. ``rate`` is in bytes per second,
    ``eta`` in seconds (None while unknown). ``active`` are the files under way. ``waiting``: this
    shard has done its part, and only others bring bytes.
    """

    name = "run.progressed"
    bytes_done: int
    bytes_total: int
    bytes_received: int
    files_done: int
    files_total: int
    rate: float
    eta: float | None
    connections: int
    verifying: bool
    active: tuple[FileProgress, ...]
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class FilePruned(Event):
    """A file of an earlier revision is removed: the new one is published and lacks it."""

    name = "file.pruned"
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class EarlierSettled(Event):
    """What became of the files of an earlier revision. Sizes in bytes.

    ``changed`` are paths of such files that were to be removed, and had been changed by somebody.
    """

    name = "earlier.settled"
    kept_files: int
    kept_bytes: int
    pruned_files: int
    pruned_bytes: int
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SnapshotPublished(Event):
    """The model is complete and verified in ``target``; or simulated, and ``commit`` is empty.

    ``seconds`` is how long that took, without the wait for another run.
    """

    name = "snapshot.published"
    target: str
    commit: str
    files: int
    bytes: int
    bytes_received: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ShareBrought(Event):
    """The share of this shard, ``index`` of ``count``, is there; the first one publishes all."""

    name = "share.brought"
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class RunSimulated(Event):
    """Nothing is downloaded: ``what`` is pretended, as AIM_DEBUG_* asks for it."""

    name = "run.simulated"
    what: str


@dataclass(frozen=True, slots=True)
class RunFailed(Event):
    """The run ends with an error."""

    name = "run.failed"
    error: str
    message: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class RunCancelled(Event):
    """The run was ended from outside and can be resumed."""

    name = "run.cancelled"
    bytes_done: int
    bytes_total: int


Emit: TypeAlias = Callable[[Event], None]
