"""What is asked for meets what a sink holds: what is there, and what the receipt will say."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Executor

from aim_downloader.config import Config
from aim_downloader.earlier import find_earlier
from aim_downloader.errors import SnapshotNotFoundError
from aim_downloader.planner import Earlier, Holding, Plan, Selection, make_plan, select
from aim_downloader.progress import Progress
from aim_downloader.receipt import NO_FILTERS, Filters, Origin, Record, read_sums
from aim_downloader.sinks.base import Sink
from aim_downloader.snapshot import Digest, ModelURI, RemoteFile, Snapshot
from aim_downloader.tasks import in_thread


class Looking:
    """A model that is asked for, and the ``sink`` that may hold it. Nothing is written."""

    def __init__(
        self, uri: ModelURI, config: Config, sink: Sink, progress: Progress, reader: Executor
    ) -> None:
        self._uri = uri
        self._config = config
        self._sink = sink
        self._progress = progress
        self._reader = reader

    def select(self, snapshot: Snapshot) -> Selection:
        """Part the files of a snapshot by what is asked for (see ``planner``)."""
        config = self._config
        return select(snapshot, config.include, config.exclude, config.weight_format)

    def _earlier(self, snapshot: Snapshot, wanted: Sequence[RemoteFile]) -> Earlier:
        known = self._sink.known
        return find_earlier(self._sink, known, snapshot, wanted, prune=self._config.prune)

    def remembered(self) -> Plan | None:
        """The plan when a receipt answers without a request, and all its files are untouched."""
        if not (self._uri.pinned or self._config.offline):
            return None
        self._sink.look()
        origin = self._sink.origin
        if origin is None or not self._asks_for(origin):
            return None
        files = (_remote(record) for record in origin.files.values() if record.digest)
        snapshot = Snapshot(self._uri, origin.commit, tuple(files))
        wanted = self.select(snapshot).wanted
        return self._settled_plan(origin, wanted) if self._holds(wanted) else None

    def _holds(self, wanted: Sequence[RemoteFile]) -> bool:
        """Whether all files are there, untouched, under their names."""
        return all(self._sink.record_of(file) and self._sink.shows(file) for file in wanted)

    def complete(self, snapshot: Snapshot, wanted: tuple[RemoteFile, ...]) -> Plan | None:
        """The plan when the receipt is of this very snapshot, and all is there and untouched.

        Then nothing is written, so a volume that is mounted read-only will do.
        """
        self._sink.look()
        origin = self._sink.origin
        if origin is None or origin.commit != snapshot.commit or not self._asks_for(origin):
            return None
        if not (self._holds(wanted) and self._sink.is_tidy()):
            return None
        earlier = self._earlier(snapshot, wanted)
        return None if earlier.pruned else Plan(snapshot, (), wanted, (), earlier=earlier)

    def refuse_offline(self) -> None:
        """Say what is not there when it may not be asked for.

        Raises:
            SnapshotNotFoundError: no request may be made.
        """
        if not self._config.offline:
            return
        origin, base = self._sink.origin, self._sink.layout.base
        if origin is None and read_sums(self._sink.hidden)[0]:
            raise SnapshotNotFoundError(
                f"HF_HUB_OFFLINE is set, and {base} does not say where its files came from: "
                f"only the Hub could tell whether they are {self._uri}",
                hint="unset HF_HUB_OFFLINE; with a network, "
                f"`verify {base} {self._uri} --repair` notes where they came from",
            )
        known = origin.files.values() if origin else ()
        gone = [record.path for record in known if not self._sink.untouched(record)]
        lacks = f"{gone[0]} and {len(gone) - 1} more" if len(gone) > 1 else "".join(gone)
        raise SnapshotNotFoundError(
            f"HF_HUB_OFFLINE is set, and {base} does not hold all of {self._uri}"
            + (f": it lacks {lacks}, or they were changed" if gone else ""),
            hint="download it once with a network, or unset HF_HUB_OFFLINE; "
            "of a copy whose times are not as they were, `verify DIR --repair` takes note",
        )

    def _asks_for(self, origin: Origin) -> bool:
        """Whether a receipt speaks of all files that are asked for: its filters let them all in."""
        return (
            origin.repository == self._uri.repository
            and (
                # In a cache it is the cache that says what a branch or tag means.
                origin.commit == self._sink.layout.commit
                or (self._uri.revision or "main") in (origin.commit, origin.revision)
            )
            and origin.filters in (self._filters, NO_FILTERS)
        )

    @property
    def _filters(self) -> Filters:
        config = self._config
        include, exclude = tuple(config.include), tuple(config.exclude)
        return self._uri.subpath, include, exclude, config.weight_format

    def _settled_plan(self, origin: Origin, wanted: Sequence[RemoteFile]) -> Plan:
        """The plan of a run that has nothing to do."""
        snapshot = Snapshot(self._uri, origin.commit, tuple(wanted))
        # Without a listing nobody knows of the others on record whether they are of this revision.
        prune = self._config.prune
        earlier = find_earlier(self._sink, origin.earlier, snapshot, wanted, prune=prune)
        return Plan(snapshot, (), tuple(wanted), (), earlier=earlier)

    async def through(
        self, snapshot: Snapshot, selection: Selection
    ) -> tuple[Plan, Sequence[Record]]:
        """Look through all that is there.

        Returns:
            The plan, and the records of files that were read, as nobody had one of them.
        """
        holdings, found = await self._look_at(selection.wanted, snapshot.commit)
        before = self._sink.origin.repository if self._sink.origin else ""
        resident = "" if before == self._uri.repository else before
        earlier = self._earlier(snapshot, selection.wanted)
        return make_plan(snapshot, selection, holdings, earlier, resident), found

    async def _look_at(
        self, wanted: Sequence[RemoteFile], commit: str
    ) -> tuple[dict[str, Holding], list[Record]]:
        """What the sink holds of each file; files that no record speaks of are read through."""
        holdings: dict[str, Holding] = {}
        found: list[Record] = []
        unknown = [f for f in wanted if not self._sink.record_of(f) and self._sink.of_right_size(f)]
        self._progress.begin_examining(len(unknown), sum(file.size for file in unknown))
        stopping = threading.Event()
        for file in unknown:
            examine = functools.partial(self._sink.examine, file, self._progress.add)
            if record := await in_thread(self._reader, examine, stopping):
                differs = self._sink.would_replace(file, there=True)
                holdings[file.path] = Holding(complete=True, differs=differs)
                found.append(record)
            self._progress.settle(0)
        coming: set[str] = set()
        allocated = self._sink.allocated_bytes(wanted)
        for file in wanted:
            if file.path not in holdings:
                content = self._sink.same_content(file)
                # What comes with another file of the same content is as good as there.
                complete = content in coming or self._sink.record_of(file) is not None
                partial = 0 if complete else self._sink.partial_bytes(file, commit)
                differs = self._sink.would_replace(file, there=complete)
                own = allocated.get(file.path, 0)
                holdings[file.path] = Holding(complete, partial, differs, own)
                if not complete:
                    coming.add(content)
        return holdings, found

    def origin_of(self, plan: Plan) -> Origin:
        """What is now in the folder, with files of the same revision that earlier runs brought."""
        known = self._sink.known
        paths = {file.path for file in plan.wanted}
        before = self._sink.origin
        if before and before.repository == self._uri.repository:
            brought = known.keys() - paths
            others = (file for file in plan.snapshot.files if file.path in brought)
            paths |= {file.path for file in others if self._sink.record_of(file)}
        # A part of a model that is all there does not make the rest of it less.
        wide = (
            before is not None
            and before.commit == plan.snapshot.commit
            and before.filters == NO_FILTERS
            and paths >= before.files.keys()
        )
        subpath, include, exclude, weight_format = NO_FILTERS if wide else self._filters
        return Origin(
            uri=str(self._uri),
            repository=self._uri.repository,
            revision=self._uri.revision or "main",
            commit=plan.snapshot.commit,
            subpath=subpath,
            include=include,
            exclude=exclude,
            files={path: known[path] for path in sorted(paths)},
            weight_format=weight_format,
            earlier={record.path: record for record in plan.earlier.untouched},
            outdated={record.path: record for record in plan.earlier.outdated},
        )


def _remote(record: Record) -> RemoteFile:
    """A file as its source had listed it."""
    algorithm, _, digest = record.digest.partition(":")
    return RemoteFile(record.path, record.size, Digest(algorithm, digest) if digest else None)
