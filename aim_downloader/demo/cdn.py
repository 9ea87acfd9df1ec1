"""The CDN: contents by sha256 at signed URLs that expire, as S3 and CloudFront have them."""

import hashlib
import hmac
import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from yarl import URL

from aim_downloader.demo.content import Content
from aim_downloader.demo.reply import RefusalError, Reply, Subject, Where, content_reply, whole
from aim_downloader.demo.sender import Sender

Find = Callable[[str, str], Content | None]


@dataclass
class Signer:
    """Makes and checks the query of signed URLs."""

    lifetime: float = 3600.0
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _serial: "itertools.count[int]" = field(default_factory=itertools.count)

    def sign(self, base: str, repo: str, file: str, sha256: str) -> str:
        # The serial number makes every URL differ, also from one signed in the same second.
        query = {
            "repo": repo,
            "file": file,
            "Expires": f"{time.time() + self.lifetime:.3f}",
            "Key-Pair-Id": f"K{next(self._serial)}",
        }
        query["Signature"] = self._signature(sha256, query)
        return str(URL(base).joinpath(sha256).with_query(query))

    def check(self, sha256: str, query: dict[str, str]) -> None:
        given = query.pop("Signature", "")
        if not hmac.compare_digest(given, self._signature(sha256, query)):
            raise RefusalError(_denied("Access Denied"))
        if float(query["Expires"]) < time.time():
            raise RefusalError(_denied("Request has expired"))

    def _signature(self, sha256: str, query: dict[str, str]) -> str:
        text = "\n".join([sha256, *(f"{name}={value}" for name, value in sorted(query.items()))])
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


class Cdn:
    """The second host: it knows contents and signatures, and neither accounts nor revisions.

    `find` gives a content by repository and hash.
    """

    def __init__(self, find: Find, signer: Signer, sender: Sender, where: Where = "cdn") -> None:
        self._find = find
        self._signer = signer
        self._sender = sender
        self._where: Where = where

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{sha256:[0-9a-f]{64}}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        subject = Subject(self._where, request.query.get("repo", ""), request.query.get("file", ""))
        try:
            reply = self._answer(request, subject.repo)
        except RefusalError as refusal:
            reply = refusal.reply
        return await self._sender.send(request, subject, reply)

    def _answer(self, request: web.Request, repo: str) -> Reply:
        if "Authorization" in request.headers:
            raise RefusalError(_s3_error(400, "InvalidArgument", "Only one auth mechanism allowed"))
        sha256 = request.match_info["sha256"]
        self._signer.check(sha256, dict(request.query))
        content = self._find(repo, sha256)
        if content is None:
            raise RefusalError(_s3_error(404, "NoSuchKey", "The specified key does not exist."))
        return content_reply(
            request, content, cdn_etag(sha256), {"Content-Type": "application/octet-stream"}
        )


def cdn_etag(sha256: str) -> str:
    """An object store has etags of its own, which are not the Hub's `X-Linked-ETag`."""
    return f'"{sha256[:32]}-1"'


def _denied(message: str) -> Reply:
    return _s3_error(403, "AccessDenied", message)


def _s3_error(status: int, code: str, message: str) -> Reply:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return whole(status, body.encode(), {"Content-Type": "application/xml"})
