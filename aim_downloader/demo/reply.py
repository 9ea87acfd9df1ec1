"""An answer as a value: status, headers and a range of some content, before any of it is sent."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from aiohttp import web

from aim_downloader.demo.content import EMPTY, Content

Where = Literal["api", "hub", "cdn", "cas", "xorb"]

_SINGLE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Subject:
    """What a request is about: who answers (a Xet store: cas, xorb), the repository, the file."""

    where: Where
    repo: str = ""
    file: str = ""


@dataclass(frozen=True)
class Reply:
    """A status, headers, and the bytes `start` to `stop` (half-open) of a content."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content = EMPTY
    start: int = 0
    stop: int = 0
    asked: Content | None = None
    """The content that was asked for, also where it is not sent."""

    @property
    def length(self) -> int:
        return self.stop - self.start


class RefusalError(Exception):
    """Ends the handling of a request with an error reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def whole(status: int, body: bytes, headers: Mapping[str, str]) -> Reply:
    sized = {**headers, "Content-Length": str(len(body))}
    return Reply(status, sized, Content(body), 0, len(body))


def json_reply(value: object, headers: Mapping[str, str] | None = None) -> Reply:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return whole(200, json.dumps(value).encode(), kind | dict(headers or {}))


def error_reply(
    status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    kind = {"Content-Type": "application/json; charset=utf-8"}
    body = json.dumps({"error": message}).encode()
    return whole(status, body, kind | named | dict(headers or {}))


def redirect_reply(status: int, location: str, headers: Mapping[str, str] | None = None) -> Reply:
    kind = {"Content-Type": "text/plain; charset=utf-8", "Location": location}
    return whole(status, b"Redirecting\n", kind | dict(headers or {}))


def content_reply(
    request: web.BaseRequest, content: Content, etag: str, headers: Mapping[str, str]
) -> Reply:
    """Answers a GET or HEAD by the rules of RFC 9110: conditions first, then the range."""
    base = {"Accept-Ranges": "bytes", "ETag": etag, **headers}
    return replace(_conditional_reply(request, content, etag, base), asked=content)


def _conditional_reply(
    request: web.BaseRequest, content: Content, etag: str, base: dict[str, str]
) -> Reply:
    wanted = request.headers
    if not _matches(wanted.get("If-Match", "*"), etag):
        return error_reply(412, "Precondition Failed", headers=base)
    if _matches(wanted.get("If-None-Match", ""), etag):
        return Reply(304, base)
    honoured = wanted.get("If-Range", etag) == etag
    span = wanted.get("Range") if honoured else None
    limits = _limits(span, content.size) if span else None
    if limits is None:
        return Reply(200, base | {"Content-Length": str(content.size)}, content, 0, content.size)
    start, stop = limits
    if start >= stop:
        nothing = {"Content-Range": f"bytes */{content.size}"}
        return error_reply(416, "Range Not Satisfiable", headers=base | nothing)
    part = {
        "Content-Length": str(stop - start),
        "Content-Range": f"bytes {start}-{stop - 1}/{content.size}",
    }
    return Reply(206, base | part, content, start, stop)


def _matches(condition: str, etag: str) -> bool:
    return any(choice.strip() in ("*", etag) for choice in condition.split(","))


def _limits(span: str, size: int) -> tuple[int, int] | None:
    """A half-open range; empty when it cannot be satisfied, None when it is to be ignored."""
    match = _SINGLE_RANGE.fullmatch(span.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
