"""Makes a folder right again: what is damaged becomes a partial, which the road completes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aim_downloader.config import Config
from aim_downloader.connection import connected
from aim_downloader.errors import SnapshotChangedError, SnapshotNotFoundError
from aim_downloader.events import Emit
from aim_downloader.findings import Findings, State
from aim_downloader.lease import Lease, waiting
from aim_downloader.receipt import Origin
from aim_downloader.road import Road
from aim_downloader.sinks.base import Sink
from aim_downloader.sinks.layout import Layout, hidden_of
from aim_downloader.snapshot import ModelURI, RemoteFile
from aim_downloader.verifying import filtered, meant_too, read_papers, select_again, source_of


async def mend(
    layout: Layout, uri: ModelURI | None, findings: Findings, config: Config, emit: Emit
) -> Findings:
    """Fetch what is damaged or missing, from the commit that the folder was verified against.

    The source is asked before anything is touched. What is damaged then loses its name, and what
    of it is right stays, so a repair that is killed is gone on with by the next run.

    Returns:
        The findings, with nothing wrong any more and the names of what was mended.

    Raises:
        SnapshotNotFoundError: nothing says where the model came from, or the commit is gone.
        SnapshotChangedError: another run has changed the folder meanwhile.
        DownloadError: see ``adownload``.
    """
    origin = read_papers(hidden_of(layout)).origin
    if findings.all_right:
        if origin and _speaks_of(origin, findings):
            await _renew(layout, origin, findings, emit)
            return findings
        if origin is None and uri is None:
            return findings
    expected, also = None, meant_too(uri, config, origin) if uri else origin
    if uri is None:
        if origin is None:
            raise SnapshotNotFoundError(
                f"{layout.root} does not say where it came from",
                hint="name the model that it should be: verify DIR hf://owner/name --repair",
            )
        uri, config, expected = source_of(origin), filtered(config, origin), findings.commit
    # The place is known already, and a repair removes nothing, also when it fails.
    config = replace(config, layout="plain", prune=False, clean=False)
    async with connected(config, emit) as connection:
        snapshot = await connection.resolve(replace(uri, revision=findings.commit))
        selection = select_again(snapshot, config, also)
        road = Road(uri, layout.base, config, emit)

        def make_ready(sink: Sink) -> None:
            if expected and (sink.origin is None or sink.origin.commit != expected):
                raise SnapshotChangedError(
                    f"another run has changed {layout.root} meanwhile", hint="verify it again"
                )
            _set_aside(sink, selection.wanted, snapshot.commit, findings)

        await road.bring(connection, snapshot, selection, layout, make_ready)
    return _mended(findings, selection.wanted, road.progress.traffic.received)


def _mended(findings: Findings, wanted: Sequence[RemoteFile], received: int) -> Findings:
    """The findings after a repair; what the source does not list could not be mended."""
    listed = {file.path for file in wanted}
    wrong = (*(one.path for one in findings.damaged), *findings.missing)
    return replace(
        findings,
        bytes=sum(file.size for file in wanted),
        damaged=tuple(one for one in findings.damaged if one.path not in listed),
        missing=tuple(path for path in findings.missing if path not in listed),
        mended=tuple(sorted(path for path in wrong if path in listed)),
        bytes_received=received,
    )


def _set_aside(sink: Sink, wanted: Sequence[RemoteFile], commit: str, findings: Findings) -> None:
    """Take their names from damaged files, and put on record which of the others are right."""
    sink.remember(one for one in findings.right if sink.known.get(one.path) != one)
    listed = {file.path: file for file in wanted}
    for damaged in findings.damaged:
        file = listed.get(damaged.path)
        if file and damaged.state == _state(sink.layout, file):
            sink.set_aside(file, commit, damaged.sound)
        elif file:
            sink.forget(file)  # it was changed after it was read: the road reads it again


def _state(layout: Layout, file: RemoteFile) -> State | None:
    found = layout.content(file.path, str(file.digest or ""))
    return State.of(found.stat) if found else None


def _speaks_of(origin: Origin, findings: Findings) -> bool:
    """Whether the receipt is of that very commit, and knows all that was found right."""
    paths = {one.path for one in findings.right}
    return origin.commit == findings.commit and paths <= origin.files.keys()


async def _renew(layout: Layout, origin: Origin, findings: Findings, emit: Emit) -> None:
    """Note the times of files that were copied, so that the next run need not read them again."""
    sink = Sink(layout)
    sink.look()
    # Reading does not tell who has brought a file: what is on record of that stays.
    right = (replace(one, found=origin.files[one.path].found) for one in findings.right)
    files = {**origin.files, **{one.path: one for one in right}}
    if files == origin.files and sink.is_tidy():
        return
    sink.prepare()
    lease = Lease(sink.lease_path, lambda: (0, 0))
    async with lease.held(lambda *now: emit(waiting(*now))):
        if read_papers(sink.hidden).origin == origin:
            Sink(layout, lease.guard).write_receipt(replace(origin, files=files))
