"""What AIM Engine makes of the last lines of a failed download's log, whoever wrote them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

LOG_LINES = 50
"""So many of the last lines of a log count."""

# In this order: the first class of which any line has a phrase is the failure's. Where an ellipsis
# stands may be anything.
_CLASSES = {
    # That a status may not be patched is no reason why a download fails.
    "cluster permission": (
        *("rbac…not found", "clusterrole…not found"),
        *("forbidden…cannot…resource", "serviceaccount…cannot"),
    ),
    "not found": (
        *("repository not found", "repositorynotfounderror", "404…not found", "not found…404"),
        *("nosuchkey", "nosuchbucket", "model…not found", "file…not found", "s3…404"),
    ),
    "auth": (
        *("access denied…s3", "s3…403", "s3…unauthorized", "invalidaccesskeyid"),
        *("signaturedoesnotmatch", "aws credentials not found", "nocredentialproviders"),
        *("access to model…is restricted", "cannot access gated repo"),
        *("invalid…token…huggingface", "huggingface…authentication…failed"),
        *("401…unauthorized…hf.co", "hf.co…401…unauthorized"),
        *("403…forbidden…hf.co", "hf.co…403…forbidden"),
    ),
    "storage full": (
        *("no space left on device", "disk…full", "enospc", "quota…exceeded", "storage…full"),
    ),
}
_PIECES = {name: [phrase.split("…") for phrase in phrases] for name, phrases in _CLASSES.items()}


def classify(lines: Sequence[str]) -> str | None:
    """The class of a failure; None where no phrase of any is said.

    ``cluster permission`` hides the others, as it does for AIM Engine, and says nothing itself.
    """
    return next((name for name in _CLASSES if telling_line(lines, name)), None)


def telling_line(lines: Sequence[str], name: str) -> str:
    """The last line that says a phrase of this class; empty if none does."""
    phrases = _PIECES[name]
    recent = reversed(lines[-LOG_LINES:])
    return next((line for line in recent if any(_says(line.lower(), p) for p in phrases)), "")


def _says(line: str, pieces: Sequence[str]) -> bool:
    """Whether the line has the pieces, one behind the other."""
    # No regular expression: a hostile line would take it minutes.
    position = 0
    for piece in pieces:
        found = line.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    return True
