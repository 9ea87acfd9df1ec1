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
from aim_downloader.names import fault_of
from aim_downloader.retry import RetryPolicy
from aim_downloader.snapshot import MIB, Digest, ModelURI, RemoteFile, Snapshot
from aim_downloader.urls import origin, redacted, resolved

_LONGEST_ANSWER = 32 * MIB
_MOST_FILES = 250_000
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
    """Lists repositories of the Hub at ``endpoint``."""

    scheme = "hf"

    def __init__(
        self, client: AsyncClient, endpoint: str, emit: Emit, policy: RetryPolicy | None = None
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._emit = emit
        self._policy = policy or RetryPolicy()

    async def resolve(self, uri: ModelURI) -> Snapshot:
        """Pin the revision to a commit and list its files.

        Raises:
            SnapshotNotFoundError: no such repository or revision.
            AccessDeniedError: private, gated, or a bad token.
            SourceError: the Hub cannot be reached, or answers what cannot be used.
        """
        repository, commit = uri.repository, uri.revision or "main"
        if not uri.pinned:
            repository, commit = await self._pin(uri)
        files = [file async for file in self._list(repository, commit)]
        if not files:
            raise SnapshotNotFoundError(f"{uri} has no files at commit {commit[:12]}")
        return Snapshot(uri, commit, tuple(files))

    async def _pin(self, uri: ModelURI) -> tuple[str, str]:
        """The repository's present name (it may have been renamed) and the commit."""
        revision = urllib.parse.quote(uri.revision or "main", safe="")
        url = f"{self._endpoint}/api/models/{uri.repository}/revision/{revision}"
        info = _json(await self._get(url), url, dict)
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
        seen: set[str] = set()
        while url is not None:
            answer = await self._get(url)
            fresh = False
            for entry in _json(answer, url, list):
                path = _path_of(entry, url)
                if path in seen:
                    continue
                fresh = True
                seen.add(path)
                if entry.get("type") == "file":
                    yield _file(entry, path, base)
            following = _next_page(answer, self._endpoint)
            if following and (not fresh or len(seen) > _MOST_FILES):
                raise SourceError(f"{redacted(url)}: the listing does not end")
            url = following

    async def _get(self, url: str) -> Answer:
        """Ask the API, again and again where that may help."""

        def on_retry(error: BaseException, attempt: int, delay: float) -> None:
            self._emit(RetryScheduled("the listing", str(error), attempt, delay))

        retrying = self._policy.async_retrying(asyncio.sleep, on_retry)
        try:
            return await retrying(self._client.get, url, _LONGEST_ANSWER)
        except TransferError as error:
            raise SourceError(f"the Hub cannot be asked: {error}", hint=error.hint) from error


def _json(answer: Answer, url: str, kind: type[Any]) -> Any:
    if len(answer.body) > _LONGEST_ANSWER:
        raise SourceError(f"{redacted(url)} answers with more than {_LONGEST_ANSWER} bytes")
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
        raise SourceError(
            f"the repository has a file that is refused: {path[:200]!r} {fault}",
            hint="nothing was downloaded; do not trust this repository",
        )
    return path


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
    return RemoteFile(path, size, digest, etag=digest.hex, url=url)


def _digest(algorithm: str, value: object, form: re.Pattern[str]) -> Digest | None:
    if isinstance(value, str) and form.fullmatch(value):
        return Digest(algorithm, value)
    return None


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
