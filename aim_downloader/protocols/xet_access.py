"""The way into a Xet store: the Hub tells where it is, and gives a token that soon expires.

And what it means that the store does not let us in.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from aim_downloader.errors import (
    AccessDeniedError,
    DownloadError,
    ProtocolUnavailableError,
    SourceError,
    ThrottledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.events import RetryScheduled
from aim_downloader.http_client.network import Network
from aim_downloader.http_client.rules import ration
from aim_downloader.http_client.whole import Answer, AsyncClient
from aim_downloader.protocols.base import Run
from aim_downloader.snapshot import RemoteFile
from aim_downloader.urls import is_usable, origin, redacted

_LONGEST_ANSWER = 64 * 1024
# hf_xet asks for another when 30 s are left.
_SOON = 60.0
_HINT = "files of this model come by other protocols, if the sequence names some"


@dataclass(frozen=True, slots=True)
class Access:
    """A store at ``endpoint``, and a token for it that is valid until ``expires``."""

    endpoint: str
    token: str = field(repr=False)
    expires: int


class TokenRefusedError(TransferError):
    """The store does not accept its token."""


class StoreFailedError(TransferInterruptedError):
    """The store cannot be asked, or fails: for this file alone, or for all."""


class AccessDesk:
    """Asks the Hub at ``url`` for access, once for all who need it at a time."""

    def __init__(self, url: str, client: AsyncClient, run: Run) -> None:
        self.url = url
        self._client = client
        self._run = run
        self._one_at_a_time = asyncio.Lock()
        self._access: Access | None = None
        self._refused: ProtocolUnavailableError | None = None

    async def access(self) -> Access:
        """Access that will do for a while.

        Raises:
            ProtocolUnavailableError: the Hub gives none; who asks again hears the same.
        """
        async with self._one_at_a_time:
            if self._refused is not None:
                raise self._refused
            if self._access is None or self._access.expires - time.time() < _SOON:
                self._access = await self._ask()
            return self._access

    def drop(self, access: Access) -> None:
        """Give this one to nobody any more: the store refuses it."""
        if self._access is access:
            self._access = None

    async def _ask(self) -> Access:
        try:
            answer = await self._answer()
            return access_of(answer.body, self.url)
        except (TransferError, SourceError) as error:
            self._refused = ProtocolUnavailableError(
                f"the Hub gives no access to its Xet store: {error}", hint=error.hint or _HINT
            )
            raise self._refused from error

    async def _answer(self) -> Answer:
        def on_retry(error: BaseException, attempt: int, delay: float) -> None:
            if self._run.governor.is_news(error, delay):
                words, kind = str(error), type(error).__name__
                self._run.emit(RetryScheduled("the Xet token", words, attempt, delay, kind))

        retrying = self._run.policy.async_retrying(asyncio.sleep, on_retry)
        try:
            answer: Answer = await retrying(self._get)
        except ThrottledError as error:
            self._run.governor.give_up(error, self._run.policy.attempts)
            raise
        return answer

    async def _get(self) -> Answer:
        async def turn(url: str, led_here: Mapping[str, str]) -> None:
            for pause in visit.pauses(url, ration(led_here)):
                if pause.reason:
                    reason, seconds = pause.reason, pause.seconds
                    self._run.emit(RetryScheduled("the Xet token", reason, 1, seconds))
                await asyncio.sleep(pause.nap)

        with self._run.governor.visit() as visit:
            answer = await self._client.get(self.url, _LONGEST_ANSWER, turn)
            visit.answered(ration(answer.headers))
            return answer


async def why_not(network: Network, access: Access, file: RemoteFile) -> TransferError | None:
    """What keeps the store from giving a file; None when it would."""
    # Its token is for the store alone, as the Hub's is for the Hub.
    within = dataclasses.replace(network, endpoint=access.endpoint, token=access.token)
    url = f"{access.endpoint}/v1/reconstructions/{file.xet_hash}"
    try:
        async with AsyncClient(within, 1) as client:
            answer = await client.get(url, 0)
    except AccessDeniedError as error:
        return TokenRefusedError(f"the Xet store refuses its token: {error}")
    except DownloadError as error:
        if isinstance(error, TransferInterruptedError | ThrottledError):
            return StoreFailedError(f"the Xet store cannot be asked: {error}", hint=error.hint)
        return TransferError(f"{file.path}: the Xet store does not give it: {error}")
    # The first byte tells it from a page that a proxy puts there.
    if answer.body != b"{":
        return StoreFailedError(f"the Xet store fails: what {redacted(url)} answered is no JSON")
    return None


def access_of(body: bytes, url: str) -> Access:
    """What the Hub's answer from ``url`` grants.

    Raises:
        TransferError: it is no such answer, or leads where no request may go.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _refusal(url, "is no JSON") from error
    if len(body) > _LONGEST_ANSWER or not isinstance(said, dict):
        raise _refusal(url, "is none")
    endpoint, token, expires = said.get("casUrl"), said.get("accessToken"), said.get("exp")
    if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
        raise _refusal(url, "has no token in it")
    # A bool is an int, and no time.
    if type(expires) is not int or not 0 <= expires < 1 << 62:
        raise _refusal(url, "does not say until when its token is valid")
    if not (isinstance(endpoint, str) and is_usable(endpoint)) or "?" in endpoint:
        raise _refusal(url, "has no usable URL of a store in it")
    if origin(url)[0] == "https" != origin(endpoint)[0]:
        raise _refusal(url, f"leads to {redacted(endpoint)}, which is not encrypted")
    return Access(endpoint.rstrip("/"), token, expires)


def _refusal(url: str, what: str) -> DownloadError:
    return TransferError(f"what {redacted(url)} answered {what}")
