"""What AIM Engine makes of the last 50 lines of a Job's log: the phrases it looks for. Pure.

One line of ours says why a run failed, in the words it knows; all others are kept from saying so.
"""

from __future__ import annotations

import re

from aim_downloader.errors import (
    AccessDeniedError,
    DownloadError,
    InsufficientSpaceError,
    SnapshotNotFoundError,
)
from aim_downloader.reporters.base import one_line

# It finds them in any line, in any case; "…" is anything between. What it finds first counts:
# rights in the cluster, then what is missing, then access, then a full disk.
_PHRASES = (
    *("rbac…not found", "clusterrole…not found"),
    *("forbidden…cannot…resource", "serviceaccount…cannot"),
    *("repository not found", "repositorynotfounderror", "404…not found", "not found…404"),
    *("nosuchkey", "nosuchbucket", "model…not found", "file…not found", "s3…404"),
    *("access denied…s3", "s3…403", "s3…unauthorized", "invalidaccesskeyid"),
    *("signaturedoesnotmatch", "aws credentials not found", "nocredentialproviders"),
    *("access to model…is restricted", "cannot access gated repo"),
    *("invalid…token…huggingface", "huggingface…authentication…failed"),
    *("401…unauthorized…hf.co", "hf.co…401…unauthorized"),
    *("403…forbidden…hf.co", "hf.co…403…forbidden"),
    *("no space left on device", "disk…full", "enospc", "quota…exceeded", "storage…full"),
)
# The first of these that a phrase has is what is said in another way.
_OTHERWISE = {
    "repositorynotfounderror": "repository-is-missing error",
    "not found": "missing",
    "cannot": "can't",
    "nosuchkey": "no such key",
    "nosuchbucket": "no such bucket",
    "access denied": "access refused",
    "unauthorized": "not authorized",
    "forbidden": "refused",
    "invalidaccesskeyid": "invalid access key id",
    "signaturedoesnotmatch": "signature does not match",
    "nocredentialproviders": "no credential providers",
    "is restricted": "is limited",
    "invalid": "bad",
    "authentication": "sign-in",
    "no space left": "no room left",
    "disk": "drive",
    "storage": "volume",
    "enospc": "no space",
    "exceeded": "used up",
    # A number is what it is: it is only broken up.
    "404": "4·04",
    "403": "4·03",
}
_DECISIVE: dict[type[DownloadError], str] = {
    SnapshotNotFoundError: "Repository Not Found",
    AccessDeniedError: "Cannot access gated repo",
    InsufficientSpaceError: "No space left on device",
}


class _Phrase:
    """A phrase, and how a line gets rid of it."""

    def __init__(self, phrase: str) -> None:
        pieces = phrase.split("…")
        self._pieces = [re.compile(re.escape(piece), re.IGNORECASE) for piece in pieces]
        word = next(word for word in _OTHERWISE if word in phrase)
        self._otherwise = _OTHERWISE[word]
        before, behind = r"(?<![^\s\"'(\[])", r"(?=[\"'),.:;\]]*(?:\s|$))"
        first, rest = re.escape(word[0]), re.escape(word[1:])
        self._in_prose = re.compile(before + re.escape(word) + behind, re.IGNORECASE)
        self._in_a_name = re.compile(f"({first})(?={rest})", re.IGNORECASE)

    def is_in(self, line: str) -> bool:
        """Whether the line has its pieces, one behind the other."""
        position = 0
        for piece in self._pieces:
            found = piece.search(line, position)
            if found is None:
                return False
            position = found.end()
        return True

    def out_of(self, line: str) -> str:
        """The line in other words. In names, which must stay what they are, a dot parts it."""
        return self._in_a_name.sub(r"\1·", self._in_prose.sub(self._otherwise, line))


_FOUND_BY = [_Phrase(phrase) for phrase in _PHRASES]


def disarm(line: str) -> str:
    """The line in a wording that says none of the phrases, whatever names and answers are in it."""
    for phrase in _FOUND_BY:
        if phrase.is_in(line):
            line = phrase.out_of(line)
    return line


def decisive(error: BaseException | None) -> str:
    """The line that says why a run failed; empty for errors that AIM Engine has no class for.

    A disk without room is one; a disk that may not be written to is none.
    """
    for kind, phrase in _DECISIVE.items():
        if isinstance(error, kind):
            return f"{phrase}: {disarm(one_line(str(error)))}"
    return ""
