"""Names of what belongs to an artifact: the same input gives the same name, as AIM Engine has it.

What an earlier run, or AIM Engine itself, has made is found again by its name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

_LIMIT = 63
_HASH_OF_LABEL = 8
# The order in which AIM Engine's JSON has the fields of an entry of env; others come behind.
_FIELDS = (
    *("name", "value", "valueFrom", "fieldRef", "resourceFieldRef", "configMapKeyRef"),
    *("secretKeyRef", "key", "optional", "apiVersion", "fieldPath"),
)
_ORDER = {field: place for place, field in enumerate(_FIELDS)}
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def derived_name(
    parts: Sequence[str], hashed: Sequence[object], *, digits: int = 8, limit: int = _LIMIT
) -> str:
    """The parts and a hash, joined by ``-``; where that is too long the longest part is cut.

    Args:
        parts: what a person is to recognise.
        hashed: what makes the name one of its own: strings, None, lists of env entries.
        digits: how many of the hash are kept.
        limit: characters at most; more than ``digits``.
    """
    kept = [_sanitized(part) for part in parts]
    digest = _hash("|".join(map(_json, hashed)), digits)
    while len(name := "-".join([*filter(None, kept), digest])) > limit:
        longest = kept.index(max(kept, key=len))
        kept[longest] = kept[longest][:-1].rstrip("-")
    return name


def claim_name(artifact: str, uid: str) -> str:
    """The claim of an artifact."""
    return derived_name((artifact, "cache"), (uid,))


def download_job_name(artifact: str, uid: str) -> str:
    """The Job that downloads an artifact."""
    return derived_name((artifact, "download"), (uid,))


def size_job_name(artifact: str, uid: str) -> str:
    """The Job that asks how large an artifact is."""
    return derived_name((artifact, "check-size"), (uid,))


def older_claim_name(cache: str) -> str:
    """The claim of an AIMModelCache, as it was named before there was a hash in it."""
    return f"{cache}-cache"


def older_job_name(cache: str) -> str:
    """The Job that downloads an AIMModelCache, as it was named then."""
    return f"{cache}-cache-download"


def account_name(artifact: str, uid: str) -> str:
    """The ServiceAccount, Role and RoleBinding of an artifact's download pods."""
    return derived_name((artifact, "account"), (uid,))


def label_value(text: str) -> str:
    """The text as a valid value of a label: itself if it is one; long ones end in a hash."""
    value = _trimmed(re.sub(r"[^A-Za-z0-9._-]+", "_", text))
    if len(value) <= _LIMIT:
        return value
    # Of two long names with the same beginning each has a value of its own.
    return f"{value[: _LIMIT - _HASH_OF_LABEL - 1]}-{_hash(text, _HASH_OF_LABEL)}"


def source_label(uri: str) -> str:
    """The value of ``source-model``: the URI without its scheme, as AIM Engine writes it."""
    source = uri.partition("://")[2] or uri
    return _trimmed(_trimmed(re.sub(r"[^a-z0-9._-]+", "_", source.lower()))[:_LIMIT])


def _sanitized(part: str) -> str:
    kept = re.sub(r"[^a-z0-9-]", "-", part.lower())
    return kept.strip("-")[:_LIMIT].rstrip("-") or "part"


def _trimmed(value: str) -> str:
    """A label begins and ends with a letter or a digit."""
    return value.strip("._-")


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _json(value: object) -> str:
    written = json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"))
    return written.translate(_ESCAPED)


def _ordered(value: object) -> object:
    """The value with its fields in order, and without those that say nothing."""
    if isinstance(value, dict):
        fields = sorted(value, key=lambda field: _ORDER.get(field, len(_ORDER)))
        return {field: _ordered(value[field]) for field in fields if value[field] not in (None, "")}
    if isinstance(value, list | tuple):
        return [_ordered(each) for each in value]
    return value
