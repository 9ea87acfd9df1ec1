"""The road: resolve, plan, fetch, verify, commit, publish."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aim_downloader.config import Config
from aim_downloader.connection import Connection, connected
from aim_downloader.earlier import settle_earlier
from aim_downloader.errors import DownloadError, LeaseLostError
from aim_downloader.events import Emit, FileSkipped, PlanMade, SnapshotPublished
from aim_downloader.lease import Holder, Lease, waiting
from aim_downloader.looking import Looking
from aim_downloader.planner import Plan, Selection, check_space
from aim_downloader.progress import Progress, sampling
from aim_downloader.receipt import Origin
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.choice import layout_for
from aim_downloader.sinks.clearing import clear_shards
from aim_downloader.sinks.held import Held
from aim_downloader.sinks.layout import Layout
from aim_downloader.snapshot import ModelURI, Snapshot
from aim_downloader.storage import free_space
from aim_downloader.tasks import in_thread
from aim_downloader.twins import refuse_twins


def _leave_as_is(_sink: Sink) -> None:
    """Nothing has to be made ready."""


class Road:
    """One model's way into one folder."""

    def __init__(
        self,
        uri: ModelURI,
        directory: str | os.PathLike[str] | None,
        config: Config,
        emit: Emit,
    ) -> None:
        self._uri = uri
        self._config = config
        self._emit = emit
        self._begun = time.monotonic()
        self.progress = Progress()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="aim-reader")
        self._take_place(layout_for(config.layout, uri, directory))

    def _take_place(self, layout: Layout) -> None:
        """Know where the model goes, as far as its commit says it."""
        self._layout = layout
        self._root = layout.root
        self._lease = Lease(Held(layout).lease_path, self.progress.bytes)
        self._sink = Sink(
            layout,
            self._lease.guard,
            self._uri.repository,
            keep_origin=self._config.origin,
        )
        self._looking = Looking(self._uri, self._config, self._sink, self.progress, self._reader)

    def bytes(self) -> tuple[int, int]:
        """Bytes on disk, and in all."""
        return self.progress.bytes()

    async def walk(self) -> Path:
        """Bring the model into the folder (see ``adownload``)."""
        while plan := self._looking.remembered():
            if not plan.earlier.pruned:
                if not (self._config.offline or self._sink.is_tidy()):
                    break  # what dead runs have left is cleared up on the way
                return self._settled(plan)
            # Another run that took the folder over may have brought another revision: look again.
            with contextlib.suppress(LeaseLostError):
                if pruned := await self._prune():
                    return self._published(pruned)
        self._looking.refuse_offline()
        async with connected(self._config, self._emit) as connection:
            snapshot = await connection.resolve(self._uri)
            selection = self._looking.select(snapshot)
            if settled := self._looking.complete(snapshot, selection.wanted):
                return self._settled(settled)
            layout = self._layout.at(snapshot.commit)
            return await self.bring(connection, snapshot, selection, layout)

    async def bring(
        self,
        connection: Connection,
        snapshot: Snapshot,
        selection: Selection,
        layout: Layout,
        make_ready: Callable[[Sink], None] = _leave_as_is,
    ) -> Path:
        """Bring what is selected of a snapshot into its place.

        ``make_ready`` is given the sink once it is held, before anybody looks at what is there.
        """
        self._take_place(layout)
        while True:
            # Another run that took the folder over does the same work: follow it, then look.
            with contextlib.suppress(LeaseLostError):
                return await self._hold_and_fetch(connection, snapshot, selection, make_ready)

    async def look_ahead(self) -> Plan:
        """Make the plan of ``walk`` without writing anything."""
        if remembered := self._looking.remembered():
            return remembered
        self._looking.refuse_offline()
        async with connected(self._config, self._emit) as connection:
            snapshot = await connection.resolve(self._uri)
        self._take_place(self._layout.at(snapshot.commit))
        self._sink.look()
        selection = self._looking.select(snapshot)
        async with sampling(self.progress, self._emit):
            plan, _ = await self._looking.through(snapshot, selection)
        return plan

    async def _prune(self) -> Plan | None:
        """Remove files of an earlier revision where nothing else is to be done.

        Returns:
            What was done; None when another run has changed the folder while this one waited.
        """
        self._sink.prepare()
        try:
            async with self._lease.held(self._tell_of):
                self._sink.begin()
                plan = self._looking.remembered()
                if plan and self._sink.origin:
                    self._begin(plan)
                    self._settle(plan, self._sink.origin)
                    self._sink.tidy()
                return plan
        finally:
            self._sink.leave()

    async def _hold_and_fetch(
        self,
        connection: Connection,
        snapshot: Snapshot,
        selection: Selection,
        make_ready: Callable[[Sink], None],
    ) -> Path:
        self._sink.prepare()
        try:
            async with self._lease.held(self._tell_of):
                return await self._fetch_and_publish(connection, snapshot, selection, make_ready)
        finally:
            self._sink.leave()

    async def _fetch_and_publish(
        self,
        connection: Connection,
        snapshot: Snapshot,
        selection: Selection,
        make_ready: Callable[[Sink], None],
    ) -> Path:
        self._sink.begin()
        try:
            # What they have put on record is read by now.
            await clear_shards(self._layout, self._emit)
            paths = [file.path for file in selection.wanted]
            await in_thread(self._reader, refuse_twins, self._sink.hidden, paths, threading.Event())
            make_ready(self._sink)
            async with sampling(self.progress, self._emit):
                plan, found = await self._looking.through(snapshot, selection)
                self._sink.remember(found)
                check_space(plan, free_space(self._root), str(self._root))
                self._begin(plan)
                if plan.fetch:
                    await self._fetch(plan, connection)
            self._sink.adopt(plan.held)
            origin = self._looking.origin_of(plan)
            self._sink.publish(origin, plan.snapshot.files)
            self._settle(plan, origin)
        except LeaseLostError:
            raise  # what is in the folder is another run's now
        except (DownloadError, asyncio.CancelledError):
            if self._config.clean:
                self._sink.forget_unfinished()
                self.progress.forget_kept()
            raise
        finally:
            self._sink.tidy()
        return self._published(plan)

    def _tell_of(self, holder: Holder | None, silent: float) -> None:
        self._emit(waiting(holder, silent))

    def _begin(self, plan: Plan) -> None:
        files = len(plan.fetch) + len(plan.held)
        self.progress.begin_fetching(files, plan.size, len(plan.held), plan.held_bytes)
        self._emit(
            PlanMade(
                target=str(self._root),
                files=files,
                bytes=plan.size,
                fetch_files=len(plan.fetch),
                fetch_bytes=plan.fetch_bytes,
                resumed_bytes=plan.resumed_bytes,
                held_files=len(plan.held),
                held_bytes=plan.held_bytes,
                left_out_files=len(plan.left_out),
                left_out_bytes=plan.left_out_bytes,
                kept_files=len(plan.kept),
                kept_bytes=plan.kept_bytes,
                hint=plan.hint,
            )
        )
        for file in plan.held:
            self._emit(FileSkipped(file.path, file.size))

    async def _fetch(self, plan: Plan, connection: Connection) -> None:
        from aim_downloader.fetching import Fetching

        fetching = Fetching(
            plan, connection.network, self._config, self._sink, self.progress, self._emit
        )
        await fetching.run(connection.client)

    def _settle(self, plan: Plan, origin: Origin) -> None:
        """Prune, if that is asked for, now that the snapshot is published."""
        left = settle_earlier(self._sink, plan.earlier, self._emit)
        if len(left) < len(origin.earlier):
            earlier = {record.path: record for record in left}
            self._sink.write_receipt(replace(origin, earlier=earlier))

    def _settled(self, plan: Plan) -> Path:
        """Tell of a run that has nothing to do."""
        self._begin(plan)
        settle_earlier(self._sink, plan.earlier, self._emit)
        return self._published(plan)

    def _published(self, plan: Plan) -> Path:
        self._emit(
            SnapshotPublished(
                target=str(self._root),
                commit=plan.snapshot.commit,
                files=len(plan.fetch) + len(plan.held),
                bytes=plan.size,
                bytes_received=self.progress.traffic.received,
                seconds=round(time.monotonic() - self._begun, 3),
            )
        )
        return self._root
