"""What can go wrong, each as a value: a fault turns the delivery of a reply into a worse one.

Counts named `after` are bytes of the body; for a fault with an `at=` offset, bytes behind that.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from aiohttp import web
from yarl import URL

from aim_downloader.demo.content import Content
from aim_downloader.demo.reply import Reply, content_reply, error_reply, redirect_reply, whole
from aim_downloader.demo.sender import Pace
from tests.hub.delivery import Break, Delivery


class Fault(Protocol):
    """Spoils a delivery. `begin` is where in the body the `at=` offset lies, or 0."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery: ...


@dataclass(frozen=True)
class Status:
    """An error status in place of the answer."""

    status: int
    retry_after: int | str | None = None
    ratelimit: str | None = None
    """As in `"api";r=0;t=2`."""
    error_code: str | None = None
    message: str = "scripted fault"

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.ratelimit is not None:
            headers["RateLimit"] = self.ratelimit
            headers["RateLimit-Policy"] = '"fixed window";"api";q=1000;w=300'
        reply = error_reply(self.status, self.message, self.error_code, headers)
        return replace(delivery, reply=reply)


@dataclass(frozen=True)
class ExpiredUrl:
    """403 for this signed URL, now and later; a newly resolved one works."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        reply = whole(403, body, {"Content-Type": "application/xml"})
        return replace(delivery, reply=reply, expire_url=True)


@dataclass(frozen=True)
class Reset:
    """The connection is reset (RST) in the middle of the body."""

    after: int = 0

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return replace(delivery, break_after=begin + self.after, break_by=Break.RESET)


@dataclass(frozen=True)
class ShortBody:
    """The connection is closed cleanly before Content-Length is reached."""

    after: int = 0

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return replace(delivery, break_after=begin + self.after, break_by=Break.CLOSE)


@dataclass(frozen=True)
class FewerBytes:
    """A complete answer with fewer bytes than the range asked for.

    Its Content-Range tells the truth, or claims the whole range when not `consistent`.
    """

    after: int
    consistent: bool = True

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        reply = delivery.reply
        stop = min(reply.stop, reply.start + begin + self.after)
        headers = dict(reply.headers) | {"Content-Length": str(stop - reply.start)}
        if self.consistent and "Content-Range" in headers:
            span = f"bytes {reply.start}-{stop - 1}/{reply.content.size}"
            headers["Content-Range"] = span
        return _with(delivery, replace(reply, headers=headers, stop=stop))


@dataclass(frozen=True)
class LongBody:
    """More bytes than Content-Length says are pushed into the connection, which stays open."""

    extra: int = 1024

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return replace(delivery, extra=b"x" * self.extra)


@dataclass(frozen=True)
class Stall:
    """Some bytes, then nothing: for some seconds (then the rest), or for ever."""

    after: int = 0
    seconds: float | None = None

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return replace(
            delivery,
            break_after=begin + self.after,
            break_by=Break.STALL,
            break_seconds=self.seconds,
        )


@dataclass(frozen=True)
class IgnoredRange:
    """200 with the whole file, whatever range was asked for."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        reply = delivery.reply
        content = reply.asked or reply.content
        headers = dict(reply.headers) | {"Content-Length": str(content.size)}
        headers.pop("Content-Range", None)
        return _with(delivery, Reply(200, headers, content, 0, content.size, content))


@dataclass(frozen=True)
class WrongContentRange:
    """The bytes are right, but Content-Range tells of others."""

    shift: int = 1
    """How far the told range lies from the sent one."""
    grow: int = 0
    """How much larger the told size of the file is."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        reply = delivery.reply
        first, last = reply.start + self.shift, reply.stop - 1 + self.shift
        span = f"bytes {first}-{last}/{reply.content.size + self.grow}"
        return _with(delivery, replace(reply, headers={**reply.headers, "Content-Range": span}))


@dataclass(frozen=True)
class RangeNotSatisfiable:
    """416, also for a range that the file has."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        content = delivery.reply.asked or delivery.reply.content
        span = {"Content-Range": f"bytes */{content.size}"}
        return _with(delivery, error_reply(416, "Range Not Satisfiable", headers=span))


@dataclass(frozen=True)
class ChangedEtag:
    """Another etag than before, and conditions on the former one fail."""

    etag: str = '"changed"'

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        reply = delivery.reply
        if reply.asked is not None:
            kept = {
                k: v for k, v in reply.headers.items() if k in ("Content-Type", "X-Repo-Commit")
            }
            return _with(delivery, content_reply(request, reply.asked, self.etag, kept))
        etags = {k: self.etag for k in ("ETag", "X-Linked-ETag") if k in reply.headers}
        return _with(delivery, replace(reply, headers={**reply.headers, **etags}))


@dataclass(frozen=True)
class DamagedByte:
    """The byte at one offset of the file arrives with its bits flipped."""

    offset: int

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return replace(delivery, damaged=delivery.damaged | {self.offset})


@dataclass(frozen=True)
class LateFirstByte:
    """Nothing at all for some seconds, then the answer."""

    seconds: float

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return replace(delivery, delay=delivery.delay + self.seconds)


@dataclass(frozen=True)
class Slow:
    """This body goes at a pace of its own."""

    bytes_per_second: float

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return replace(delivery, pace=Pace(self.bytes_per_second))


@dataclass(frozen=True)
class Redirect:
    """A redirect elsewhere; what else the answer says about the file stays."""

    location: str
    status: int = 302

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        kept = {k: v for k, v in delivery.reply.headers.items() if k.startswith("X-")}
        return _with(delivery, redirect_reply(self.status, self.location, kept))


@dataclass(frozen=True)
class RedirectLoop:
    """A redirect to the same URL."""

    status: int = 302

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return Redirect(str(request.url), self.status).apply(delivery, request, begin)


@dataclass(frozen=True)
class Body:
    """A 200 with other content, by default a page that is not JSON."""

    body: bytes = b"<html><body>Please sign in to the network</body></html>"
    content_type: str = "text/html"

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return _with(delivery, whole(200, self.body, {"Content-Type": self.content_type}))


@dataclass(frozen=True)
class TruncatedBody:
    """The first half of the content as a complete answer: for the API, broken JSON."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        return FewerBytes(delivery.reply.length // 2).apply(delivery, request, 0)


@dataclass(frozen=True)
class LargeJson:
    """Valid JSON with a padding of many bytes."""

    size: int

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        # JSON allows white space around a value.
        body = delivery.reply.content.data
        if not isinstance(body, bytes):
            raise TypeError("LargeJson is for answers of the API")
        return Body(body + b" " * self.size, "application/json").apply(delivery, request, begin)


@dataclass(frozen=True)
class EndlessTree:
    """Tree pages of small files without end, each with a link to the next."""

    entries: int = 10

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        first = int(request.query.get("cursor") or 0)
        files = [_invented_file(first + number) for number in range(self.entries)]
        here = URL(f"{request.scheme}://{request.host}{request.path_qs}", encoded=True)
        after = here.update_query(cursor=str(first + self.entries))
        headers = {"Content-Type": "application/json", "Link": f'<{after}>; rel="next"'}
        return _with(delivery, whole(200, json.dumps(files).encode(), headers))


@dataclass(frozen=True)
class Gzipped:
    """Text as the public Hub sends it to those who accept gzip: compressed, without a length."""

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        reply = delivery.reply
        if reply.status != 200 or "gzip" not in request.headers.get("Accept-Encoding", ""):
            return delivery
        body = gzip.compress(reply.content.read(0, reply.content.size))
        kept = {name: value for name, value in reply.headers.items() if name != "Content-Length"}
        headers = kept | {"Content-Encoding": "gzip"}
        return _with(delivery, Reply(200, headers, Content(body), 0, len(body)))


@dataclass(frozen=True)
class Headers:
    """The answer with some headers set to other values."""

    changed: Mapping[str, str]

    def apply(self, delivery: Delivery, request: web.Request, begin: int) -> Delivery:
        headers = {**delivery.reply.headers, **self.changed}
        return _with(delivery, replace(delivery.reply, headers=headers))


def _with(delivery: Delivery, reply: Reply) -> Delivery:
    return replace(delivery, reply=reply)


def _invented_file(number: int) -> Mapping[str, object]:
    name = f"endless/{number:08d}.txt"
    return {"type": "file", "path": name, "size": 1, "oid": f"{number:040x}"}
