"""URLs: which may be asked for, where they lead, and how they may be shown. Pure."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

# Stricter than RFC 3986, because libraries read odd ones differently: with a backslash or a user
# part in it one takes the token to be for the Hub, and another connects elsewhere.
_USABLE = re.compile(
    r"https?://(?:(?P<host>[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?)|\[(?P<address>[0-9a-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?#][!-\[\]-~]*)?",
    re.IGNORECASE,
)
_IN_WORDS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
# What may stand behind a URL that is quoted: it is shown again.
_QUOTES = ")>\"',"
# A query behind a path alone, too; what has 40 hexadecimal digits is a commit.
_LIKE_A_SECRET = re.compile(
    r"bearer\s+\S+|\bhf_\w{12,}|(?<=\?)[^\s=]+=\S*"
    r"|(?![0-9a-f]{40}(?![\w.~+=%&-]))[\w.~+=%&-]{40,}",
    re.IGNORECASE,
)


def is_usable(url: str) -> bool:
    """Whether this is an http(s) URL that every library reads alike."""
    found = _USABLE.fullmatch(url)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    if found["host"]:
        return all(0 < len(label) < 64 for label in found["host"].split("."))
    return _is_ipv6(found["address"])


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a usable URL: the bounds of a token."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def resolved(url: str, reference: str) -> str | None:
    """Where a reference in an answer from ``url`` leads; None when that is no usable URL."""
    try:
        target = urllib.parse.urljoin(url, reference)
    except ValueError:
        return None
    return target if reference and is_usable(target) else None


def redacted(url: str) -> str:
    """The URL as it may be shown: query strings are signatures, user parts are passwords."""
    if not is_usable(url):
        # Nobody can tell what of it is a secret.
        return f"{url.partition(':')[0][:8]}:…"
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?…' if parts.query else ''}"


def without_secrets(words: str) -> str:
    """Words of others as they may be shown: without secrets, and without what steers a terminal."""
    words = _IN_WORDS.sub(lambda found: _quoted(found[0]), words)
    words = _LIKE_A_SECRET.sub("…", words)
    return "".join(char for char in words if char.isprintable())


def _quoted(url: str) -> str:
    bare = url.rstrip(_QUOTES)
    return redacted(bare) + url[len(bare) :]
