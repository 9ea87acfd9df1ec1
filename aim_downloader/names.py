"""Names from a server are hostile until checked: which paths may be created below a target."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable

HIDDEN = ".aim-downloader"
"""Our own folder in a target: journals and partials under way, the receipt afterwards."""

# Control, format (which may turn the direction of text), line and paragraph separators, private
# and broken ones. Odd spaces are names like any other, and so are characters that are newer than
# this Python.
_DANGEROUS = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
# Format characters that words and emoji are written with: a soft hyphen, the joiners, flags' tags.
_OF_WORDS = frozenset(map(chr, (0xAD, 0x200C, 0x200D, *range(0xE0020, 0xE0080))))
# Characters that ext4 with casefold and HFS+ pass over when they compare names (Unicode's
# Default_Ignorable_Code_Point), as far as they are not dangerous anyhow.
_NOTHING = dict.fromkeys(
    (
        *map(ord, _OF_WORDS),
        *(0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    )
)
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
    if "\\" in path or _is_dangerous(path):
        return "has a backslash, a control character or an invisible one"
    return next((fault for part in path.split("/") if (fault := _fault_of_part(part))), "")


def _is_dangerous(path: str) -> bool:
    # Most paths are plain: it shows where there are many.
    if path.isascii() and path.isprintable():
        return False
    others = (char for char in path if char not in _OF_WORDS)
    return any(unicodedata.category(char) in _DANGEROUS for char in others)


def _fault_of_part(part: str) -> str:
    if part in ("", ".", ".."):
        return "is not a plain relative path"
    if folded(part) == HIDDEN:
        return f"is inside {HIDDEN}, which is the downloader's own"
    if len(part.encode()) > _LONGEST_NAME:
        return f"has a name longer than {_LONGEST_NAME} bytes"
    return ""


def folded(name: str) -> str:
    """One spelling for all that some file system takes for the same name.

    Case, Unicode's forms and characters without a look make no difference to some, dots and spaces
    at the end none to others. It is wider than any one of them.
    """
    if name.isascii():
        alike = name.lower()
    else:
        decomposed = unicodedata.normalize("NFKD", name.translate(_NOTHING))
        # By way of capitals: two small letters may have one.
        alike = unicodedata.normalize("NFKD", decomposed.upper().casefold())
    return alike.rstrip(". ") or name


def folded_path(path: str) -> str:
    """One spelling for all that some file system takes for the same path."""
    return "/".join(map(folded, path.split("/")))


def clash(paths: Iterable[str]) -> tuple[str, str] | None:
    """A file, and a path for which it would have to be a folder; None when there are none."""
    # With a slash behind each, a folder's content follows right behind its name.
    ordered = sorted(f"{path}/" for path in paths)
    for first, second in itertools.pairwise(ordered):
        if second.startswith(first):
            return first[:-1], second[:-1]
    return None
