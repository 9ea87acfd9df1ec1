"""How AIM Engine 0.2 classifies a failed download: by phrases in the last 50 lines of its log."""

from __future__ import annotations

import re
from collections.abc import Sequence

LINES = 50

# In this order: the first class of which any line has a phrase is the failure's.
CLASSES = {
    "cluster permission": [
        r"rbac.*not found",
        r"clusterrole.*not found",
        r"forbidden.*cannot.*resource",
        r"serviceaccount.*cannot",
    ],
    "not found": [
        r"repository not found",
        r"repositorynotfounderror",
        r"404.*not found",
        r"not found.*404",
        r"nosuchkey",
        r"nosuchbucket",
        r"model.*not found",
        r"file.*not found",
        r"s3.*404",
    ],
    "auth": [
        r"access denied.*s3",
        r"s3.*403",
        r"invalidaccesskeyid",
        r"signaturedoesnotmatch",
        r"s3.*unauthorized",
        r"aws credentials not found",
        r"nocredentialproviders",
        r"access to model.*is restricted",
        r"cannot access gated repo",
        r"invalid.*token.*huggingface",
        r"huggingface.*authentication.*failed",
        r"401.*unauthorized.*hf\.co",
        r"hf\.co.*401.*unauthorized",
        r"403.*forbidden.*hf\.co",
        r"hf\.co.*403.*forbidden",
    ],
    "storage full": [
        r"no space left on device",
        r"disk.*full",
        r"enospc",
        r"quota.*exceeded",
        r"storage.*full",
    ],
}

PHRASES = [
    [piece.replace("\\", "") for piece in pattern.split(".*")]
    for patterns in CLASSES.values()
    for pattern in patterns
]
"""Each phrase in its pieces, between which may be anything."""

PIECES = sorted({piece for phrase in PHRASES for piece in phrase})


def classify(lines: Sequence[str]) -> str | None:
    """The class of a failure; None: only the container's own reason counts."""
    for name, patterns in CLASSES.items():
        if any(re.search(p, line, re.IGNORECASE) for p in patterns for line in lines[-LINES:]):
            return name
    return None
