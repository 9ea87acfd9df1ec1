"""What a size Job answers: one JSON object, on one of the last lines of its log. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from operator_shim.failures import Outcome
from operator_shim.objects import Object

LARGEST = 2**50
LINES = 5
"""So many of the last lines of its log are read."""


def answered_size(lines: Sequence[str]) -> int | Outcome:
    """The bytes of the model, or why the answer cannot be used."""
    # Standard output and standard error are two pipes: what was said before may come behind.
    answer = next(filter(None, map(_answer, reversed(lines))), None)
    if answer is None:
        line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        said = f"its last line is {line[:200]!r}" if line else "its log is empty, or out of reach"
        return _invalid(f"the size Job's answer is missing: {said}")
    size = answer.get("sizeBytes")
    if type(size) is not int or not 0 < size <= LARGEST:
        return _invalid(f"the size Job says that the model has {str(size)[:50]} bytes")
    return size


def _answer(line: str) -> Object | None:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("url"), str) else None


def _invalid(message: str) -> Outcome:
    hint = "set spec.size, and it is not asked for; or see what image spec.modelDownloadImage is"
    return Outcome("InvalidSizeOutput", message, hint)
