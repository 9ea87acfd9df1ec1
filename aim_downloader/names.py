"""Names from a server are hostile until checked: which paths may be created below a target."""

from __future__ import annotations

import unicodedata

HIDDEN = ".aim-downloader"
"""Our own folder in a target: journals and partials under way, the receipt afterwards."""

# Control, format (which may turn the direction of text), line and paragraph separators, no
# character at all. Odd spaces are names like any other.
_DANGEROUS = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
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
    if "\\" in path or any(unicodedata.category(char) in _DANGEROUS for char in path):
        return "has a backslash, a control character or an invisible one"
    return next((fault for part in path.split("/") if (fault := _fault_of_part(part))), "")


def _fault_of_part(part: str) -> str:
    if part in ("", ".", ".."):
        return "is not a plain relative path"
    # Where case makes no difference, another spelling is the same folder.
    if part.casefold() == HIDDEN:
        return f"is inside {HIDDEN}, which is the downloader's own"
    if len(part.encode()) > _LONGEST_NAME:
        return f"has a name longer than {_LONGEST_NAME} bytes"
    return ""
