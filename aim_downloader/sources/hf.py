"""The Hugging Face Hub: pins a commit, and lists it by the tree API (no request per file)."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

from aim_downloader.errors import SnapshotNotFoundError, SourceError, TransferError
from aim_downloader.events import Emit, RetryScheduled
from aim_downloader.http_client.whole import Answer, AsyncClient
from aim_downloader.names import clash, fault_of
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import MIB, Digest, ModelURI, RemoteFile, Snapshot
from aim_downloader.units import format_duration
from aim_downloader.urls import origin, redacted, resolved

# What a Hub may make us hold in memory. Real pages have 1,000 entries and some 300 KiB; the answer
# that pins a revision names all files.
_LONGEST_PAGE = 16 * MIB
_LONGEST_PIN = 64 * MIB
_MOST_VALUES = 1_000_000
_MOST_FILES = 250_000
_LONGEST_LISTING = 96 * MIB
_ENTRIES_OF_A_PAGE = 25
_FEW_PAGES = 100
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_NEXT_PAGE = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


def stored_token() -> str | None:
    """The token that ``hf auth login`` left below HF_HOME, or None."""
    # Imported here: only a run without HF_TOKEN needs it.
    from huggingface_hub import get_token

    return get_token()


class HubSource:
    """Lists repositories of the Hub at ``endpoint``, each within ``longest`` seconds."""

    scheme = "hf"

    def __init__(
        self,
        client: AsyncClient,
        endpoint: str,
        emit: Emit,
        policy: RetryPolicy | None = None,
        longest: float = 3600.0,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._emit = emit
        self._policy = policy or RetryPolicy()
        self._longest = longest

    async def resolve(self, uri: ModelURI) -> Snapshot:
        """Pin the revision to a commit and list its files.

        Raises:
            SnapshotNotFoundError: no such repository or revision.
            AccessDeniedError: private, gated, or a bad token.
            SourceError: the Hub cannot be reached, or answers what cannot be used.
        """
        try:
            async with asyncio.timeout(self._longest):
                return await self._resolve(uri)
        except TimeoutError as error:
            raise SourceError(
                f"the Hub has not listed {uri} within {format_duration(self._longest)}",
                hint="try again later; check that HF_ENDPOINT names a Hub",
            ) from error

    async def _resolve(self, uri: ModelURI) -> Snapshot:
        repository, commit = uri.repository, uri.revision or "main"
        if not uri.pinned:
            repository, commit = await self._pin(uri)
        files = [file async for file in self._list(repository, commit)]
        if not files:
            raise SnapshotNotFoundError(f"{uri} has no files at commit {commit[:12]}")
        if found := clash(file.path for file in files):
            raise _refused(found[0], f"is a file, and the folder of {found[1][:200]!r}")
        return Snapshot(uri, commit, tuple(files))

    async def _pin(self, uri: ModelURI) -> tuple[str, str]:
        """The repository's present name (it may have been renamed) and the commit."""
        revision = urllib.parse.quote(uri.revision or "main", safe="")
        url = f"{self._endpoint}/api/models/{uri.repository}/revision/{revision}"
        info = _json(await self._get(url, _LONGEST_PIN), url, dict, _LONGEST_PIN)
        commit, repository = info.get("sha"), info.get("id", uri.repository)
        if not (isinstance(commit, str) and _COMMIT.fullmatch(commit)):
            raise SourceError(f"{redacted(url)} names no commit")
        if not (isinstance(repository, str) and _REPOSITORY.fullmatch(repository)):
            raise SourceError(f"{redacted(url)} names no repository")
        return repository, commit

    async def _list(self, repository: str, commit: str) -> AsyncIterator[RemoteFile]:
        base = f"{self._endpoint}/{repository}/resolve/{commit}/"
        url: str | None
        url = f"{self._endpoint}/api/models/{repository}/tree/{commit}?recursive=True"
        listing = _Listing()
        while url is not None:
            answer = await self._get(url, _LONGEST_PAGE)
            following = _next_page(answer, self._endpoint)
            for entry in _json(answer, url, list, _LONGEST_PAGE):
                path, kind = _path_of(entry, url), entry.get("type")
                if not listing.add(path, kind):
                    continue
                if kind == "file":
                    yield _file(entry, path, base)
            if following and not listing.may_go_on():
                raise SourceError(f"{redacted(url)}: the listing does not end")
            url = following

    async def _get(self, url: str, longest: int) -> Answer:
        """Ask the API, again and again where that may help."""

        def on_retry(error: BaseException, attempt: int, delay: float) -> None:
            kind = type(error).__name__
            self._emit(RetryScheduled("the listing", str(error), attempt, delay, kind))

        retrying = self._policy.async_retrying(asyncio.sleep, on_retry)
        try:
            return await retrying(self._client.get, url, longest)
        except TransferError as error:
            raise SourceError(f"the Hub cannot be asked: {error}", hint=error.hint) from error


class _Listing:
    """What has been listed so far. It must not go on for ever: every page has to bring much."""

    def __init__(self) -> None:
        self._kinds: dict[str, object] = {}
        self._pages = 0
        self._characters = 0
        self._before = 0

    def add(self, path: str, kind: object) -> bool:
        """Take note of an entry; whether it is new.

        Raises:
            SourceError: it was something else before.
        """
        if path in self._kinds:
            if self._kinds[path] != kind:
                raise _refused(path, "is both a file and a folder")
            return False
        self._kinds[path] = kind
        # A character that is not ASCII takes up to twelve in a URL.
        self._characters += len(path) * (1 if path.isascii() else 12)
        return True

    def may_go_on(self) -> bool:
        """Whether another page may be asked for."""
        fresh, self._before = len(self._kinds) > self._before, len(self._kinds)
        self._pages += 1
        return (
            fresh
            and len(self._kinds) <= _MOST_FILES
            and self._characters <= _LONGEST_LISTING
            and self._pages < _FEW_PAGES + len(self._kinds) // _ENTRIES_OF_A_PAGE
        )


def _json(answer: Answer, url: str, kind: type[Any], longest: int) -> Any:
    if len(answer.body) > longest:
        raise SourceError(f"{redacted(url)} answers with more than {longest} bytes")
    # The shortest of values take twenty times as much in memory as they do here.
    if sum(map(answer.body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise SourceError(f"{redacted(url)} answers with more than {_MOST_VALUES:,} values")
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{redacted(url)} did not answer with JSON",
            hint="check that HF_ENDPOINT names a Hub, and what stands between it and you",
        ) from error
    if not isinstance(value, kind):
        raise SourceError(f"{redacted(url)} did not answer with a JSON {kind.__name__}")
    return value


def _path_of(entry: Any, url: str) -> str:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str):
        raise SourceError(f"{redacted(url)} lists an entry without a path")
    if fault := fault_of(path):
        raise _refused(path, fault)
    return path


def _refused(path: str, fault: str) -> SourceError:
    return SourceError(
        f"the repository has a file that is refused: {path[:200]!r} {fault}",
        hint="nothing was downloaded; do not trust this repository",
    )


def _file(entry: dict[str, Any], path: str, base: str) -> RemoteFile:
    lfs = entry.get("lfs")
    size, digest = (
        (lfs.get("size"), _digest("sha256", lfs.get("oid"), _SHA256))
        if isinstance(lfs, dict)
        else (entry.get("size"), _digest("git-sha1", entry.get("oid"), _COMMIT))
    )
    # A bool is an int, and no size.
    if type(size) is not int or size < 0 or digest is None:
        raise SourceError(f"the Hub lists {path!r} without a usable size and digest")
    url = base + urllib.parse.quote(path, safe="/")
    return RemoteFile(
        path,
        size,
        digest,
        etag=digest.hex,
        url=url,
        blob_id=_matching(entry.get("oid"), _COMMIT),
        xet_hash=_matching(entry.get("xetHash"), _SHA256),
    )


def _digest(algorithm: str, value: object, form: re.Pattern[str]) -> Digest | None:
    found = _matching(value, form)
    return Digest(algorithm, found) if found else None


def _matching(value: object, form: re.Pattern[str]) -> str:
    return value if isinstance(value, str) and form.fullmatch(value) else ""


def _next_page(answer: Answer, endpoint: str) -> str | None:
    """The listing's next page. One on another host is refused: the token would go there."""
    found = _NEXT_PAGE.search(answer.headers.get("Link", ""))
    if not found:
        return None
    url = resolved(answer.url, found[1])
    if url is None or origin(url) not in (origin(endpoint), origin(answer.url)):
        shown = redacted(url) if url else "what is no URL"
        raise SourceError(f"the listing goes on at another host: {shown}")
    return url
