"""Names from a server are hostile until checked: which paths may be created below a target."""

from __future__ import annotations

HIDDEN = ".aim-downloader"
"""Our own folder in a target: journals and partials under way, the receipt afterwards."""

_LONGEST_NAME = 255
_LONGEST_PATH = 3000


def fault_of(path: str) -> str:
    """Why a file of this path may not be created below a target; empty when it may.

    A path is relative, uses ``/``, and stays below the target on every common file system.
    """
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid text"
    if len(encoded) > _LONGEST_PATH:
        return f"is longer than {_LONGEST_PATH} bytes"
    if "\\" in path or not path.isprintable():
        return "has a backslash, a control character or an invisible one"
    return next((fault for part in path.split("/") if (fault := _fault_of_part(part))), "")


def _fault_of_part(part: str) -> str:
    if part in ("", ".", ".."):
        return "is not a plain relative path"
    if part == HIDDEN:
        return f"is inside {HIDDEN}, which is the downloader's own"
    if len(part.encode()) > _LONGEST_NAME:
        return f"has a name longer than {_LONGEST_NAME} bytes"
    return ""
