"""Whether a folder is what its receipt says, or what its source lists. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from aim_downloader.config import Config
from aim_downloader.connection import Connection, connected
from aim_downloader.errors import ConfigError, SnapshotNotFoundError, SourceError
from aim_downloader.events import Emit
from aim_downloader.findings import Against, Expected, Findings
from aim_downloader.lease import Holder, is_dead
from aim_downloader.lease import read as read_lease
from aim_downloader.planner import Selection, select
from aim_downloader.reading import other_files, read_files
from aim_downloader.receipt import COMMITTED, ORIGIN, SUMS, Origin, Record, read_origin, read_sums
from aim_downloader.sinks.choice import layouts_in
from aim_downloader.sinks.hf_cache import HfCache
from aim_downloader.sinks.layout import Layout, hidden_of
from aim_downloader.sinks.local_dir import LocalDir
from aim_downloader.snapshot import Digest, ModelURI, RemoteFile, Snapshot
from aim_downloader.units import format_count


@dataclass(frozen=True, slots=True)
class Papers:
    """What a folder says of itself. ``sums`` has the sha256 of each path of ``SHA256SUMS``."""

    origin: Origin | None
    sums: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Listing:
    """What the source lists. ``moved_to`` as in ``Findings``."""

    snapshot: Snapshot
    wanted: tuple[RemoteFile, ...]
    moved_to: str | None = None
    notes: tuple[str, ...] = ()


def place_of(directory: Path, uri: ModelURI | None = None) -> Layout:
    """The model in a folder: a target, a snapshot of a cache, or a cache.

    Of a cache with several models ``uri`` names one.

    Raises:
        ConfigError: there are several, or not the one that is named.
    """
    if uri and any(directory.glob("models--*/")):
        return _in_cache(directory, uri)
    found = layouts_in(directory)
    if len(found) > 1:
        raise ConfigError(
            f"{directory} holds {len(found)} snapshots of models: name one",
            hint=f"for example {found[0].root}",
        )
    if found:
        return found[0]
    where = directory.absolute()
    # A cache that huggingface_hub has filled: nothing of ours is in it.
    of_cache = where.parent.name == "snapshots" and where.parents[1].name.startswith("models--")
    return HfCache(where.parents[1], where.name) if of_cache else LocalDir(directory)


def _in_cache(cache: Path, uri: ModelURI) -> Layout:
    named = HfCache.of(uri, cache)
    if not named.root.is_dir():
        raise ConfigError(
            f"{cache} is a cache that does not hold {uri}",
            hint="name another revision, or download it there with --layout hf-cache",
        )
    # What a branch means there is not ours to change.
    return replace(named, revision=None)


async def verify_folder(
    layout: Layout, uri: ModelURI | None, config: Config, emit: Emit, *, remote: bool
) -> Findings:
    """Read every file and compare it with the receipt.

    ``remote`` compares it with what the source lists too; with a ``uri``, which then says what the
    source is asked for, no receipt is needed.

    Raises:
        SnapshotNotFoundError: there is nothing to compare with, or no request may be made.
        DownloadError: the source cannot be asked.
    """
    papers = read_papers(hidden_of(layout))
    if not remote:
        return await _compare(layout, *_by_papers(layout, papers), papers, emit)
    async with connected(config, emit) as connection:
        listing = await _ask(connection, layout, papers, uri, config)
    commit = listing.snapshot.commit
    files, listed = _by_source(listing, papers), {one.path for one in listing.snapshot.files}
    found = await _compare(layout, "source", commit, files, papers, emit, listed)
    notes = (*found.notes, *listing.notes)
    return replace(found, moved_to=listing.moved_to, notes=notes)


def read_papers(hidden: Path) -> Papers:
    """Read the receipt and ``SHA256SUMS`` below the hidden folder, as far as they are sound."""
    origin = read_origin(hidden)
    sums, odd_lines = read_sums(hidden)
    notes = []
    if origin is None and os.path.lexists(hidden / ORIGIN):
        notes.append(f"{hidden / ORIGIN} is damaged and was not used: a download writes it anew")
    if origin is None and os.path.lexists(hidden / COMMITTED):
        notes.append("a download has not ended there: run it again")
    if odd_lines:
        notes.append(f"{format_count(odd_lines, 'line')} of {hidden / SUMS} cannot be used")
    elif origin and sums != {path: record.sha256 for path, record in origin.files.items()}:
        notes.append(f"{hidden / SUMS} is not what the receipt says")
    return Papers(origin, sums, tuple(notes))


def source_of(origin: Origin) -> ModelURI:
    """What a receipt says was asked for.

    Raises:
        ConfigError: that is no URI.
    """
    return replace(ModelURI.parse(origin.uri), subpath=origin.subpath)


def meant_too(uri: ModelURI, config: Config, origin: Origin | None) -> Origin | None:
    """The receipt whose files are meant besides what a URI asks for: of a part, none."""
    narrow = uri.subpath or config.include or config.exclude or config.weight_format
    return None if narrow else origin


def select_again(snapshot: Snapshot, config: Config, origin: Origin | None) -> Selection:
    """Select what the filters let in, and what the receipt knows: several runs have brought it.

    Raises:
        SnapshotNotFoundError: there is nothing.
    """
    selection = select(snapshot, config.include, config.exclude, config.weight_format)
    known = origin.files if origin and origin.commit == snapshot.commit else {}
    also = tuple(item.file for item in selection.left_out if item.file.path in known)
    left_out = tuple(item for item in selection.left_out if item.file.path not in known)
    return replace(selection, wanted=(*selection.wanted, *also), left_out=left_out)


def filtered(config: Config, origin: Origin) -> Config:
    """The settings with the filters of a receipt."""
    return replace(
        config,
        include=origin.include,
        exclude=origin.exclude,
        weight_format=origin.weight_format,
    )


async def _compare(
    layout: Layout,
    against: Against,
    commit: str,
    files: Sequence[Expected],
    papers: Papers,
    emit: Emit,
    listed: AbstractSet[str] = frozenset(),
) -> Findings:
    notes = [*papers.notes]
    if holder := _at_work(hidden_of(layout)):
        notes.append(f"a run is at work in {layout.root}: {holder}")
    earlier = papers.origin.earlier if papers.origin else {}
    outdated = papers.origin.outdated if papers.origin else {}
    others = other_files(layout.root, {file.path for file in files} | listed)
    if left := [path for path in others if path in earlier]:
        them = "it" if len(left) == 1 else "them"
        notes.append(
            f"{format_count(len(left), 'file')} of an earlier revision: a download with --prune "
            f"removes {them}"
        )
    read = await read_files(layout, files, emit)
    return Findings(
        against=against,
        commit=commit,
        files=len(files),
        bytes=read.bytes,
        damaged=tuple(read.damaged),
        missing=tuple(read.missing),
        unknown=tuple(path for path in others if path not in {*earlier, *outdated}),
        notes=tuple(notes),
        right=tuple(read.right),
    )


def _by_papers(layout: Layout, papers: Papers) -> tuple[Against, str, list[Expected]]:
    """What the folder itself says of its files: by which paper, which commit, and the files."""
    if origin := papers.origin:
        return "receipt", origin.commit, [_by_record(one) for one in origin.files.values()]
    # In a cache a file is found by what the source vouched for, which the sums do not say.
    if papers.sums and layout.commit is None:
        return "SHA256SUMS", "", [_by_sum(path, sha256) for path, sha256 in papers.sums.items()]
    raise _nothing_known(f"{layout.root} has no receipt", papers)


def _nothing_known(message: str, papers: Papers) -> SnapshotNotFoundError:
    return SnapshotNotFoundError(
        "; ".join((message, *papers.notes)),
        hint="name the model that it should be: verify DIR hf://owner/name asks the Hub",
    )


def _by_sum(path: str, sha256: str) -> Expected:
    return Expected(path, None, Digest("sha256", sha256))


def _by_record(record: Record) -> Expected:
    digest = Digest("sha256", record.sha256)
    return Expected(record.path, record.size, digest, record.crc32s, record.digest)


def _by_source(listing: _Listing, papers: Papers) -> list[Expected]:
    """What the source lists; a record of the same bytes also says which of them are damaged."""
    records = papers.origin.files if papers.origin else {}
    return [_by_listing(file, records.get(file.path)) for file in listing.wanted]


def _by_listing(file: RemoteFile, record: Record | None) -> Expected:
    if file.digest is None:
        raise SourceError(f"the source vouches for no digest of {file.path}")
    if record and record.size == file.size and record.proves(file.digest):
        return replace(_by_record(record), vouched=str(file.digest))
    return Expected(file.path, file.size, file.digest, vouched=str(file.digest))


async def _ask(
    connection: Connection, layout: Layout, papers: Papers, uri: ModelURI | None, config: Config
) -> _Listing:
    """List the snapshot that the folder should hold."""
    origin = papers.origin
    if uri is not None:
        if layout.commit:
            uri = replace(uri, revision=layout.commit)
        return _listing(await connection.resolve(uri), config, meant_too(uri, config, origin))
    if origin is None:
        raise _nothing_known(f"{layout.root} does not say where it came from", papers)
    uri, config = source_of(origin), filtered(config, origin)
    pinned = replace(uri, revision=origin.commit)
    if uri.pinned:
        return _listing(await connection.resolve(pinned), config, origin)
    try:
        latest = await connection.resolve(uri)
    except SnapshotNotFoundError:
        listing = _listing(await connection.resolve(pinned), config, origin)
        return replace(listing, notes=(f"{uri} does not exist any more",))
    if latest.commit == origin.commit:
        return _listing(latest, config, origin)
    listing = _listing(await connection.resolve(pinned), config, origin)
    return replace(listing, moved_to=latest.commit)


def _listing(snapshot: Snapshot, config: Config, origin: Origin | None) -> _Listing:
    return _Listing(snapshot, select_again(snapshot, config, origin).wanted)


def _at_work(hidden: Path) -> Holder | None:
    """The run that holds the folder, if it is alive as far as one can tell."""
    holder = Holder.parse(read_lease(hidden / "lease"))
    return holder if holder and not is_dead(holder, Holder.this_process()) else None
