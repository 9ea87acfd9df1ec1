"""What an answer means: redirects, refusals, how long to wait. Pure."""

from __future__ import annotations

import email.utils
import errno
import os
import re
import ssl
import time
from collections.abc import Mapping

from aim_downloader.errors import (
    AccessDeniedError,
    DownloadError,
    RangeNotHonouredError,
    SnapshotNotFoundError,
    StalledError,
    ThrottledError,
    TransferError,
    TransferInterruptedError,
)
from aim_downloader.governor import Ration
from aim_downloader.urls import origin, redacted, resolved, without_secrets

MAX_REDIRECTS = 8
# Written as a whole URL it would look like a secret, and be left out of what is shown.
PROXY_HINT = "write it as http://host:port in HTTPS_PROXY, with user:password@ before the host"
_MOST_WORDS, _FEW_WORDS = 10_000, 300
_REDIRECTS = {301, 302, 303, 307, 308}


def next_hop(url: str, status: int, headers: Mapping[str, str]) -> str | None:
    """Where a redirect leads, or None when the answer is none.

    Raises:
        TransferError: it leads where no request may go.
    """
    if status not in _REDIRECTS:
        return None
    target = resolved(url, headers.get("Location", ""))
    if target is None or (origin(url)[0] == "https" and origin(target)[0] != "https"):
        shown = redacted(target) if target else "what is no http(s) URL"
        raise TransferError(
            f"{redacted(url)} redirects to {shown}, which is not followed",
            hint="check the endpoint (HF_ENDPOINT) and what stands between it and you",
        )
    return target


def too_many_redirects(url: str) -> TransferError:
    """The error for a chain of redirects without an end."""
    return TransferError(f"{redacted(url)} redirects more than {MAX_REDIRECTS} times")


def refusal(status: int, headers: Mapping[str, str], url: str, endpoint: str) -> DownloadError:
    """What an answer other than 200 and 206 means.

    The Hub puts the case into X-Error-Code and words into X-Error-Message. Another host than the
    Hub's was reached by a signed URL: a refusal there says that it is used up, not who may read.
    """
    # A server, or a proxy before it, may quote the request.
    words = without_secrets(headers.get("X-Error-Message", "")[:_MOST_WORDS])[:_FEW_WORDS]
    said = f"{redacted(url)} answered {status}" + (f" ({words})" if words else "")
    if status in (429, 503):
        return ThrottledError(f"{said}: too busy", retry_after=patience(headers), url=url)
    if status in (408, 425) or status >= 500:
        return TransferInterruptedError(said)
    if status == 407:
        return proxy_refusal(status, url)
    if status == 416:
        return RangeNotHonouredError(f"{said}: it says that it has no such range")
    if origin(url) != origin(endpoint):
        return TransferInterruptedError(f"{said}: the link to it may have expired")
    return _hub_refusal(status, headers.get("X-Error-Code", ""), said, url)


def _hub_refusal(status: int, code: str, said: str, url: str) -> DownloadError:
    if code == "GatedRepo":
        return AccessDeniedError(
            f"access to this model is gated: {said}",
            hint="ask for access on the model's page, then set HF_TOKEN or --token-file",
        )
    if status == 401 and "credentials" in said:
        return AccessDeniedError(
            f"the token is not accepted: {said}",
            hint="look at HF_TOKEN or --token-file; `hf auth whoami` says whose it is",
        )
    if status in (401, 403):
        case = "the repository does not exist, or is private" if code else "access denied"
        if code:
            # Its words speak of a user and a password, whether or not there was a token.
            said = f"{redacted(url)} answered {status}"
        return AccessDeniedError(
            f"{case}: {said}",
            hint="check the name; for a private model set HF_TOKEN or --token-file",
        )
    if status in (404, 410):
        case = {
            "RepoNotFound": "the repository does not exist (or the token may not see it)",
            "RevisionNotFound": "the revision does not exist",
            "EntryNotFound": "the file does not exist",
        }.get(code, "not found")
        hint = "check the name and the revision (a commit is written with all its 40 characters)"
        return SnapshotNotFoundError(f"{case}: {said}", hint=hint)
    return TransferError(said)


def proxy_refusal(status: int, url: str) -> TransferError:
    """What it means that the proxy, not the server, refuses."""
    if status == 407:
        return TransferError(
            f"the proxy asks for a password: {redacted(url)} answered 407", hint=PROXY_HINT
        )
    return TransferInterruptedError(
        f"the proxy refuses the way to {redacted(url)}: it answered {status}",
        hint="ask who runs the proxy, or name the host in NO_PROXY",
    )


def unreachable(url: str, reason: BaseException, *, by_proxy: bool = False) -> DownloadError:
    """What it means that no answer came, or that it broke off.

    ``by_proxy``: it is the proxy that could not be reached.
    """
    if isinstance(reason, ssl.SSLCertVerificationError):
        return TransferError(
            f"the certificate of {redacted(url)} is not trusted: {reason.verify_message}",
            hint="name your CA bundle in SSL_CERT_FILE (or REQUESTS_CA_BUNDLE)",
        )
    # http.client tells of a proxy's answer in words alone.
    tunnel = re.match(r"Tunnel connection failed: ([0-9]{3})\b", str(reason))
    if tunnel:
        return proxy_refusal(int(tunnel[1]), url)
    # A library's own words may name the whole URL, which may be signed.
    code = reason.errno if isinstance(reason, OSError) else None
    words = (isinstance(reason, OSError) and reason.strerror) or type(reason).__name__
    if code is not None and code in errno.errorcode:
        words = os.strerror(code)  # asyncio puts words of its own there
    kind = StalledError if isinstance(reason, TimeoutError) else TransferInterruptedError
    if by_proxy:
        return kind(
            f"the proxy on the way to {redacted(url)} cannot be reached: {words}",
            hint="check HTTPS_PROXY and HTTP_PROXY; NO_PROXY names hosts that need none",
        )
    return kind(
        f"the connection to {redacted(url)} failed: {words}",
        hint="check the network, the endpoint and the proxy settings",
    )


def stood_still(url: str) -> StalledError:
    """The error for a connection on which nothing came for too long."""
    return StalledError(f"{redacted(url)} stood still: no byte came")


def too_slow(url: str) -> StalledError:
    """The error for an answer that comes, but would take for ever."""
    return StalledError(
        f"{redacted(url)} answers too slowly to ever end",
        hint="check the network, and what stands between you and the server",
    )


def patience(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait as the server asks: ``Retry-After`` (RFC 9110) or the Hub's ``RateLimit``."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    if value:
        try:
            when = email.utils.parsedate_to_datetime(value).timestamp()
        except (ValueError, OverflowError, TypeError):
            return None
        return max(0.0, when - (time.time() if now is None else now))
    left = ration(headers)
    return left.seconds if left and not left.requests else None


def ration(headers: Mapping[str, str]) -> Ration | None:
    """How many requests a server still grants, and for how long: the least of its policies.

    The Hub writes ``RateLimit: "api";r=9;t=55``, older drafts ``limit=10, remaining=9, reset=55``.
    """
    value = headers.get("RateLimit", "")
    policies = [value] if "remaining=" in value else value.split(",")
    rations = []
    for policy in policies:
        said = dict(re.findall(r"\b(r|t|remaining|reset)=([0-9]{1,9})\b", policy))
        left, seconds = said.get("r", said.get("remaining")), said.get("t", said.get("reset"))
        if left and seconds:
            rations.append(Ration(int(left), float(seconds)))
    return min(rations, default=None)


def refuse_encoding(headers: Mapping[str, str], url: str) -> None:
    """Refuse a compressed body: it has neither the listed size nor usable ranges.

    Raises:
        TransferInterruptedError: the body is compressed although ``identity`` was asked for.
    """
    encoding = headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        encoding = without_secrets(encoding[:_MOST_WORDS])[:_FEW_WORDS]
        raise TransferInterruptedError(
            f"{redacted(url)} sent a body compressed by {encoding}, unasked",
            hint="a proxy on the way may compress: name the host in NO_PROXY",
        )
