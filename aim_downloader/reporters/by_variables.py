"""Advice that names flags, for programs of a container, which have none: by variables. Pure."""

from __future__ import annotations

import re

from aim_downloader.config import LAYOUTS, PROTOCOLS
from aim_downloader.environment import VARIABLES
from aim_downloader.weights import FORMATS

_VARIABLE_OF = {"--token-file": "HF_TOKEN", "--endpoint": "HF_ENDPOINT"} | {
    found[1]: variable.name
    for variable in reversed(VARIABLES)
    if (found := re.match(r"As `(--[a-z-]+)`", variable.meaning))
}
_FLAG = re.compile(r"(?<![\w-])(--[a-z]+(?:-[a-z]+)*)(?![\w-])")
_VALUES = "|".join((*FORMATS, *LAYOUTS, *PROTOCOLS))
_WITH_VALUE = re.compile(rf"({'|'.join(_VARIABLE_OF.values())}) (?=(?:{_VALUES})\b)")
_TWICE = re.compile(r"\b([A-Z_]{4,})(?: and|, or| or|,) \1\b")
_OF_PEOPLE = re.compile(r"(?<![\w-])--(?:exclude|help|include|prune|repair)(?![\w-])|`hf auth ")
_JOINT = re.compile(r"(; |, or )")


def by_variables(words: str) -> str:
    """The words with variables for flags, and without the clauses that only a flag could follow."""
    if _OF_PEOPLE.search(words):
        pieces = ["", *_JOINT.split(words)]
        clauses = zip(pieces[::2], pieces[1::2], strict=True)
        left = [part for pair in clauses if not _OF_PEOPLE.search(pair[1]) for part in pair]
        words = "".join(left[1:])
    words = _FLAG.sub(lambda found: _VARIABLE_OF.get(found[1], found[1]), words)
    return _TWICE.sub(r"\1", _WITH_VALUE.sub(r"\1=", words))
