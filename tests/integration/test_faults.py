"""Whatever the network does: the right bytes, or an error that says why, and nothing in between."""

import asyncio
import gzip
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aim_downloader.demo.content import Content
from aim_downloader.demo.reply import Reply, Where
from aim_downloader.errors import (
    AccessDeniedError,
    AllProtocolsFailedError,
    DigestMismatchError,
    DownloadError,
    SnapshotNotFoundError,
    SourceError,
)
from aim_downloader.events import (
    FileCommitted,
    FileRejected,
    FileStarted,
    RetryScheduled,
    RunFailed,
)
from tests.fair_time import fair_time
from tests.hub import HubServer, faults
from tests.hub.delivery import Delivery
from tests.hub.script import ScriptedFault
from tests.integration.support import (
    HIDDEN,
    MIB,
    STALL_S,
    TOKEN,
    URI,
    Command,
    Downloader,
    Files,
    assert_polite,
    assert_right,
    assert_snapshot,
    cdn_requests,
    content_requests,
    names_below,
    size_of,
    total_size,
)

LARGE, OTHER, SMALL, GIT = "model.safetensors", "other.safetensors", "tokenizer.bin", "config.json"
SIZE = 24 * MIB
MIDDLE = 10 * MIB + 77
PACE = 60e6
"""Slow enough that several connections join one file."""


@dataclass(frozen=True)
class Chunked:
    """The right answer, in chunks and without a Content-Length, as some proxies send it on."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        headers = {k: v for k, v in delivery.reply.headers.items() if k != "Content-Length"}
        return replace(delivery, reply=replace(delivery.reply, headers=headers))


@dataclass(frozen=True)
class ForcedGzip:
    """A compressed body although nobody asked for one."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        reply = delivery.reply
        body = gzip.compress(reply.content.read(reply.start, reply.stop), 1)
        changed = {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
        packed = Reply(200, {**reply.headers, **changed}, Content(body), 0, len(body))
        return replace(delivery, reply=packed)


@dataclass(frozen=True)
class Case:
    """A fault, whom it meets, and what the run may say of it: None where either is fine."""

    fault: faults.Fault
    where: Where = "cdn"
    times: int | None = 1
    at: int | None = None
    skip: int = 0
    retried: bool | None = True
    rejected: int | None = 0
    patience: float = 0.0
    """Seconds that the server asked for: no retry comes earlier."""

    def script(self, hub: HubServer, path: str, repo: str = "org/model") -> ScriptedFault:
        return hub.fault(
            self.fault,
            path=path,
            where=self.where,
            times=self.times,
            at=self.at,
            repo=repo,
            skip=self.skip,
        )


BUSY = {
    "503 three times with Retry-After": Case(
        faults.Status(503, retry_after=1), times=3, patience=1.0
    ),
    "429": Case(faults.Status(429)),
    "500": Case(faults.Status(500)),
}
BUSY_IN_OTHER_WORDS = {
    "503 three times": Case(faults.Status(503), times=3),
    "503 with Retry-After: 0": Case(faults.Status(503, retry_after=0)),
    "503 with a Retry-After nobody understands": Case(faults.Status(503, retry_after="soon")),
    "429 with Retry-After": Case(faults.Status(429, retry_after=1), patience=1.0),
    "429 with RateLimit": Case(faults.Status(429, ratelimit='"api";r=0;t=1'), patience=1.0),
    **{str(status): Case(faults.Status(status)) for status in (408, 425, 502, 504)},
}
BROKEN = {
    "reset before the body": Case(faults.Reset()),
    "body cut before its first byte": Case(faults.ShortBody()),
    "stall before the body": Case(faults.Stall()),
    "late first byte": Case(faults.LateFirstByte(0.6), retried=False),
    "first byte too late": Case(faults.LateFirstByte(60)),
    "long body": Case(faults.LongBody(), retried=None),
    "gzipped for those who accept it": Case(faults.Gzipped(), times=None, retried=False),
    "chunked": Case(Chunked(), times=None, retried=False),
}

LARGE_CASES = {
    **BUSY,
    **BUSY_IN_OTHER_WORDS,
    **{f"hub: {name}": replace(case, where="hub") for name, case in BUSY.items()},
    **BROKEN,
    "first byte damaged": Case(faults.DamagedByte(0), retried=False, rejected=1),
    "byte damaged": Case(faults.DamagedByte(MIDDLE), retried=False, rejected=1),
    "last byte damaged": Case(faults.DamagedByte(SIZE - 1), retried=False, rejected=1),
    "reset": Case(faults.Reset(), at=MIDDLE),
    "reset three times": Case(faults.Reset(), at=MIDDLE, times=3),
    "reset every 3 MiB": Case(faults.Reset(after=3 * MIB), times=None),
    "body cut": Case(faults.ShortBody(), at=MIDDLE),
    "body cut at a block's border": Case(faults.ShortBody(), at=10 * MIB),
    "body cut three times": Case(faults.ShortBody(), at=MIDDLE, times=3),
    "fewer bytes": Case(faults.FewerBytes(3 * MIB + 17), retried=False),
    "fewer bytes, whole blocks": Case(faults.FewerBytes(3 * MIB), retried=False),
    "fewer bytes, told as more": Case(faults.FewerBytes(3 * MIB, consistent=False)),
    "stall": Case(faults.Stall(), at=MIDDLE),
    "stall twice": Case(faults.Stall(), at=MIDDLE, times=2),
    "short stall": Case(faults.Stall(seconds=0.6), at=MIDDLE, retried=False),
    "long body every time": Case(faults.LongBody(), times=None, retried=False),
    "range ignored at the start": Case(faults.IgnoredRange(), retried=None),
    "range ignored in the middle": Case(faults.IgnoredRange(), at=MIDDLE, retried=None),
    "range ignored for ever": Case(faults.IgnoredRange(), times=None, retried=None),
    "Content-Range off by one": Case(faults.WrongContentRange()),
    "Content-Range of the block before": Case(faults.WrongContentRange(-MIB), at=MIDDLE),
    "Content-Range of a larger file": Case(
        faults.WrongContentRange(shift=0, grow=1), retried=None, rejected=None
    ),
    "416": Case(faults.RangeNotSatisfiable()),
    "416 in the middle": Case(faults.RangeNotSatisfiable(), at=MIDDLE),
    "URL expired": Case(faults.ExpiredUrl()),
    "hub: another etag": Case(faults.ChangedEtag(), where="hub", retried=None, rejected=None),
    "a page in place of the file": Case(faults.Body(), retried=None, rejected=None),
    "called gzipped": Case(
        faults.Headers({"Content-Encoding": "gzip"}), retried=None, rejected=None
    ),
}
LATER_CASES = {
    "range ignored later, for ever": Case(faults.IgnoredRange(), times=None, skip=1, retried=None),
    "URL expired later": Case(faults.ExpiredUrl(), skip=1),
    "another etag first": Case(faults.ChangedEtag(), retried=None, rejected=None),
    "another etag later": Case(faults.ChangedEtag(), skip=1, retried=None, rejected=None),
}
"""These need a second request: several connections ask for smaller ranges."""

ALONE_TOO = [
    "reset before the body",
    "first byte too late",
    "chunked",
    "byte damaged",
    "reset",
    "body cut",
    "fewer bytes",
    "fewer bytes, told as more",
    "stall",
    "range ignored at the start",
    "range ignored in the middle",
    "range ignored for ever",
    "Content-Range off by one",
    "416",
    "URL expired",
    "hub: another etag",
]
"""These also run with one connection, which nobody can stand in for."""

ALL_LARGE_CASES = {**LARGE_CASES, **LATER_CASES}


@pytest.mark.parametrize(
    ("name", "connections"),
    [
        *((name, 8) for name in ALL_LARGE_CASES),
        *((name, 1) for name in ALONE_TOO),
    ],
)
async def test_a_large_file_is_right_after(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    files: Files,
    name: str,
    connections: int,
) -> None:
    case = ALL_LARGE_CASES[name]
    scripted = case.script(hub, LARGE)
    hub.pace(PACE)
    await downloader(target, include=(LARGE,), connections=connections)
    assert_snapshot(target, {LARGE: files[LARGE]})
    assert_polite(hub.log)
    assert all(each.range for each in cdn_requests(hub.log, LARGE))
    if connections > 1 and isinstance(case.fault, faults.Stall | faults.LateFirstByte):
        # Another connection may have been quicker than the timeout.
        case = replace(case, retried=case.retried and None)
    assert_told(case, scripted, downloader, LARGE)
    # Each fault costs a block and what its connection had under way; a rejected file all of it.
    wasted = hub.bytes_sent(LARGE) - SIZE
    rejected = len(downloader.told(FileRejected))
    assert wasted <= scripted.fired * 4 * MIB + rejected * SIZE


def assert_told(case: Case, scripted: ScriptedFault, downloader: Downloader, path: str) -> None:
    """The fault has come to pass, and the run has said what it did about it."""
    assert scripted.fired == case.times if case.times else scripted.fired
    # What is asked of the API is told as the listing; the reason names the address.
    retries = [e for e in downloader.told(RetryScheduled) if path in f"{e.path} {e.reason}"]
    rejections = [event for event in downloader.told(FileRejected) if event.path == path]
    assert case.retried in (None, bool(retries))
    assert case.rejected in (None, len(rejections))
    assert all(event.delay >= case.patience for event in retries)


SMALL_CASES = {
    **BUSY,
    **BROKEN,
    "byte damaged": Case(faults.DamagedByte(5), retried=False, rejected=1),
    "byte damaged twice": Case(faults.DamagedByte(5), times=2, retried=False, rejected=2),
    "reset": Case(faults.Reset(after=10)),
    "body cut": Case(faults.ShortBody(after=10)),
    "stall": Case(faults.Stall(after=10)),
    "fewer bytes": Case(faults.FewerBytes(10), retried=False, rejected=1),
    "a page in place of the file": Case(faults.Body(), retried=None, rejected=None),
    "gzipped": Case(ForcedGzip(), retried=None, rejected=None),
}
SMALL_LFS_CASES = {
    **SMALL_CASES,
    **BUSY_IN_OTHER_WORDS,
    "URL expired": Case(faults.ExpiredUrl()),
    "hub: 429": Case(faults.Status(429), where="hub"),
    "hub: another etag": Case(faults.ChangedEtag(), where="hub", retried=None, rejected=None),
}
API_CASES = {
    **BUSY,
    **BUSY_IN_OTHER_WORDS,
    **BROKEN,
    "reset": Case(faults.Reset(after=10)),
    "body cut": Case(faults.ShortBody(after=10)),
    "stall": Case(faults.Stall(after=10)),
}


def of_git(case: Case) -> Case:
    """The Hub itself sends these files, behind a redirect, which has no offset 0."""
    return replace(case, where="hub", at=0)


QUICK_CASES = [
    *((GIT, name, of_git(case)) for name, case in SMALL_CASES.items()),
    *((SMALL, name, case) for name, case in SMALL_LFS_CASES.items()),
    *(
        (question, name, replace(case, where="api"))
        for question in ("/revision/", "/tree/")
        for name, case in API_CASES.items()
    ),
]


@dataclass
class Outcome:
    """How one of the quick cases went."""

    path: str
    case: Case
    repo: str
    scripted: ScriptedFault
    downloader: Downloader
    target: Path
    error: BaseException | None = None

    @property
    def wanted(self) -> str:
        return GIT if self.case.where == "api" else self.path


@pytest.fixture(scope="module")
def outcomes(
    files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HubServer, Sequence[Outcome]]]:
    """All quick cases side by side, each with a repository of its own: they mostly wait."""
    folder = tmp_path_factory.mktemp("quick")
    with HubServer() as hub:
        hub.add_token(TOKEN)
        outcomes = []
        for number, (path, _, case) in enumerate(QUICK_CASES):
            repo = f"quick/case-{number}"
            hub.add_repo(repo, {name: files[name] for name in (GIT, SMALL)})
            scripted = case.script(hub, path, repo)
            outcomes.append(
                Outcome(path, case, repo, scripted, Downloader(hub), folder / str(number))
            )
        asyncio.run(fetch_all(outcomes))
        yield hub, outcomes


async def fetch_all(outcomes: Sequence[Outcome]) -> None:
    some_at_once = asyncio.Semaphore(12)

    async def fetch(outcome: Outcome) -> None:
        async with some_at_once:
            try:
                await outcome.downloader(
                    outcome.target, f"hf://{outcome.repo}", include=(outcome.wanted,)
                )
            except DownloadError as error:
                outcome.error = error

    await asyncio.gather(*map(fetch, outcomes))


@pytest.mark.parametrize(
    "number",
    range(len(QUICK_CASES)),
    ids=[f"{path} {name}" for path, name, _ in QUICK_CASES],
)
def test_a_small_file_and_the_listing_are_right_after(
    outcomes: tuple[HubServer, Sequence[Outcome]], files: Files, number: int
) -> None:
    hub, outcome = outcomes[0], outcomes[1][number]
    if outcome.error:
        raise outcome.error
    assert_snapshot(outcome.target, {outcome.wanted: files[outcome.wanted]})
    assert_polite([each for each in hub.log if each.repo == outcome.repo])
    assert_told(outcome.case, outcome.scripted, outcome.downloader, outcome.path)


def in_two_seconds() -> str:
    """A Retry-After as a date, which has whole seconds: it is one to two seconds away."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))


async def test_a_retry_after_may_be_a_date(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    busy = Case(faults.Status(503, retry_after=in_two_seconds()), patience=0.9)
    scripted = busy.script(hub, LARGE)
    await downloader(target, include=(LARGE,))
    assert_told(busy, scripted, downloader, LARGE)
    assert_snapshot(target, {LARGE: files[LARGE]})


# --- one fault in particular ----------------------------------------------------------------------


async def test_a_stalled_connection_is_replaced_and_only_the_rest_is_asked_for(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.Stall(), path=LARGE, at=5 * MIB + 77)
    began = fair_time()
    await downloader(target, include=(LARGE,), connections=1)
    assert fair_time() - began < STALL_S + 2
    first, second, *_ = cdn_requests(hub.log, LARGE)
    assert first.peer != second.peer
    assert first.range == f"bytes=0-{SIZE - 1}"
    assert second.range == f"bytes={5 * MIB}-{SIZE - 1}"
    assert_snapshot(target, {LARGE: files[LARGE]})


async def test_a_signed_url_serves_many_ranges_of_its_file(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    await downloader(target, include=(LARGE,), connections=2)
    resolved = [each for each in content_requests(hub.log, LARGE) if each.where == "hub"]
    assert len(resolved) == 1
    assert len(cdn_requests(hub.log, LARGE)) > 1


@pytest.mark.parametrize("connections", [2, 8])
async def test_an_expired_url_is_resolved_again_and_not_repeated(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, connections: int
) -> None:
    hub.pace(PACE)
    hub.fault(faults.ExpiredUrl(), path=LARGE, skip=1)
    await downloader(target, include=(LARGE,), connections=connections)
    assert_snapshot(target, {LARGE: files[LARGE]})
    refused = [each for each in cdn_requests(hub.log, LARGE) if each.status == 403]
    assert 1 <= len(refused) <= connections
    signature = refused[0].query["Signature"]
    later = [each for each in cdn_requests(hub.log, LARGE) if each.started > refused[-1].started]
    assert later
    assert all(each.query["Signature"] != signature for each in later)


async def test_urls_that_live_shorter_than_the_download(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.url_lifetime(0.3)
    hub.pace(20e6)
    await downloader(target, include=(LARGE,))
    assert_snapshot(target, {LARGE: files[LARGE]})
    refused = [each for each in cdn_requests(hub.log, LARGE) if each.status == 403]
    assert all(each.bytes_sent < 1000 for each in refused)


async def test_a_file_is_shared_by_several_connections(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(10e6)
    await downloader(target, include=(LARGE,))
    assert len({each.peer for each in cdn_requests(hub.log, LARGE)}) > 1
    assert hub.bytes_sent(LARGE) == SIZE
    assert_snapshot(target, {LARGE: files[LARGE]})


async def test_a_large_file_that_the_hub_itself_sends(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    """Without LFS: no signed URL, git's digest, and the token goes along."""
    name = "tokenizer.json"
    hub.add_repo("org/plain", {name: files[LARGE]})
    hub.fault(faults.DamagedByte(3 * MIB), path=name, where="hub")
    hub.fault(faults.Reset(), path=name, where="hub", at=5 * MIB + 3)
    hub.fault(faults.Status(503), path=name, where="hub", skip=2)
    await downloader(target, "hf://org/plain")
    assert_snapshot(target, {name: files[LARGE]})
    assert_polite(hub.log)
    assert len(downloader.told(FileRejected)) == 1


async def test_several_faults_at_once(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.pace(PACE)
    hub.fault(faults.Reset(), path=LARGE, at=2 * MIB + 3)
    hub.fault(faults.Stall(), path=LARGE, at=11 * MIB + 3)
    hub.fault(faults.ShortBody(), path=LARGE, at=20 * MIB + 3)
    hub.fault(faults.DamagedByte(7), path=OTHER)
    hub.fault(faults.Status(503, retry_after=1), path=OTHER, where="hub")
    hub.fault(faults.Status(500), path=GIT, where="hub", times=2)
    hub.fault(faults.Reset(), where="api", times=2)
    await downloader(target)
    assert_snapshot(target, files)


# --- for good -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LARGE, OTHER, SMALL, GIT])
async def test_what_stays_damaged_gets_no_name_and_the_other_files_are_there(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, path: str
) -> None:
    hub.pace(PACE)
    damaged = hub.fault(faults.DamagedByte(5), path=path, where=None, times=None)
    with pytest.raises(AllProtocolsFailedError) as caught:
        await downloader(target)
    assert caught.value.path == path
    assert isinstance(caught.value.attempts[-1][1], DigestMismatchError)
    assert 2 <= damaged.fired <= 3
    assert not (target / path).exists()
    others = {name: content for name, content in files.items() if name != path}
    for name, content in others.items():
        assert_right(target / name, content)
    assert not (target / HIDDEN / "SHA256SUMS").exists()
    assert [event.exit_code for event in downloader.told(RunFailed)] == [69]
    hub.clear_faults()
    hub.clear_log()
    await downloader(target)
    assert_snapshot(target, files)
    assert {each.file for each in content_requests(hub.log)} == {path}


async def test_small_files_that_stay_damaged_leave_their_memory_to_the_others(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    damaged = {f"damaged-{number}.bin": os.urandom(MIB - 1) for number in range(12)}
    right = {f"right-{number}.bin": os.urandom(MIB - 1) for number in range(2)}
    hub.add_repo("org/many", {**damaged, **right})
    for name in damaged:
        hub.fault(faults.DamagedByte(77), path=name, where=None, times=None)
    async with asyncio.timeout(60):
        with pytest.raises(AllProtocolsFailedError):
            await downloader(target, "hf://org/many")
    assert {event.path for event in downloader.told(FileCommitted)} == set(right)


@pytest.mark.parametrize("path", [LARGE, SMALL])
def test_what_stays_damaged_ends_the_command_with_69(
    hub: HubServer, command: Command, target: Path, path: str
) -> None:
    hub.fault(faults.DamagedByte(5), path=path, times=None)
    done = command.run(URI, target)
    assert done.code == 69, done.said
    assert path in done.stderr
    assert "Traceback" not in done.stderr
    assert not (target / path).exists()


@pytest.mark.parametrize(
    "breaks", [faults.Reset(after=300_000), faults.ShortBody(after=300_000)], ids=["reset", "cut"]
)
async def test_a_way_that_breaks_every_connection_within_a_block_is_gone_to_its_end(
    hub: HubServer, downloader: Downloader, target: Path, breaks: faults.Fault
) -> None:
    files: Files = {"model.safetensors": os.urandom(3 * MIB + 7)}
    hub.add_repo("org/far", files)
    hub.fault(breaks, repo="org/far", times=None)
    await downloader(target, "hf://org/far", connections=1)
    assert_snapshot(target, files)
    # What came before a connection broke was kept, but for what its socket held.
    assert hub.bytes_sent() < 2 * total_size(files)


async def test_a_file_that_always_changes_ends_the_run(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    changing = hub.fault(faults.ChangedEtag(), path=OTHER, where="hub", times=None)
    with pytest.raises(DownloadError) as caught:
        await downloader(target)
    assert caught.value.exit_code in (69, 75)
    assert changing.fired <= 8
    assert not (target / OTHER).exists()


async def test_clean_leaves_only_complete_files_after_a_failure(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.DamagedByte(5), path=LARGE, times=None)
    with pytest.raises(AllProtocolsFailedError):
        await downloader(target, clean=True)
    assert names_below(target) <= {*files, f"{HIDDEN}/committed"} - {LARGE}


REFUSALS: list[tuple[str, dict[str, Any], str | None, type[DownloadError], int]] = [
    ("nobody/nothing", {}, None, AccessDeniedError, 77),
    ("nobody/nothing", {}, TOKEN, SnapshotNotFoundError, 66),
    ("org/private", {"private": True}, None, AccessDeniedError, 77),
    ("org/private", {"private": True}, TOKEN, SnapshotNotFoundError, 66),
    ("org/private", {"private": True}, "hf_wrong", AccessDeniedError, 77),
    ("org/gated", {"gated": "manual"}, None, AccessDeniedError, 77),
    ("org/gated", {"gated": "manual"}, TOKEN, AccessDeniedError, 77),
    ("org/model@no-such-branch", {}, TOKEN, SnapshotNotFoundError, 66),
    (f"org/model@{'0' * 40}", {}, TOKEN, SnapshotNotFoundError, 66),
    ("org/model/no/such/folder", {}, TOKEN, SnapshotNotFoundError, 66),
]


@pytest.mark.parametrize(("name", "kept_from", "token", "error", "code"), REFUSALS)
def test_a_refusal_ends_the_command_at_once(
    hub: HubServer,
    command: Command,
    target: Path,
    name: str,
    kept_from: dict[str, Any],
    token: str | None,
    error: type[DownloadError],
    code: int,
) -> None:
    if kept_from:
        many = {f"part-{number}.json": b"{}" for number in range(50)}
        hub.add_repo(name, {"model.bin": bytes(2 * MIB), **many}, **kept_from)
    command.environment.update({"HF_TOKEN": token} if token else {})
    done = command.run(f"hf://{name}", target, "--connections", "8", "--json")
    assert done.code == code, done.said
    assert done.fair_seconds < 5
    assert f'"{error.__name__}"' in done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    # The listing, and at most one request for each connection.
    assert len(hub.log) <= 2 + 8
    left = names_below(target) if target.exists() else None
    assert left is None, left


@pytest.mark.parametrize("path", [LARGE, GIT])
@pytest.mark.parametrize(("status", "code"), [(401, 77), (403, 77), (404, 66)])
def test_a_file_that_is_refused_ends_the_command_without_a_storm(
    hub: HubServer, command: Command, target: Path, path: str, status: int, code: int
) -> None:
    refused = hub.fault(faults.Status(status), path=path, where="hub", times=None)
    done = command.run(URI, target)
    assert done.code == code, done.said
    assert refused.fired == 1
    assert not (target / path).exists()


@pytest.mark.parametrize(
    "fault", [faults.Body(), faults.TruncatedBody(), faults.RedirectLoop()], ids=type
)
async def test_a_listing_that_is_none_ends_the_run(
    hub: HubServer, downloader: Downloader, target: Path, fault: faults.Fault
) -> None:
    met = hub.fault(fault, path="/tree/", where="api", times=None)
    with pytest.raises(SourceError) as caught:
        await downloader(target)
    assert caught.value.exit_code == 75
    assert met.fired <= 10
    assert not names_below(target)


@pytest.mark.parametrize("path", [LARGE, GIT])
async def test_a_redirect_without_an_end_ends_the_file(
    hub: HubServer, downloader: Downloader, target: Path, path: str
) -> None:
    met = hub.fault(faults.RedirectLoop(), path=path, where="hub", times=None)
    with pytest.raises(AllProtocolsFailedError):
        await downloader(target)
    assert met.fired <= 10
    assert not (target / path).exists()


async def test_events_of_a_rejected_file_tell_its_second_start(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    hub.fault(faults.DamagedByte(5), path=LARGE)
    await downloader(target, include=(LARGE,))
    kinds = [type(event) for event in downloader.events if hasattr(event, "path")]
    relevant = [kind for kind in kinds if kind in (FileStarted, FileRejected, FileCommitted)]
    assert relevant == [FileStarted, FileRejected, FileStarted, FileCommitted]
    assert size_of(target / LARGE) == size_of(files[LARGE])
