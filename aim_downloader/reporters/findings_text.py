"""What ``verify`` has found: lines for a person, or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from aim_downloader.reporters.base import one_line
from aim_downloader.units import format_bytes, format_count

if TYPE_CHECKING:
    from aim_downloader.findings import Damaged, Findings

_SHOWN = 3
_AGAINST = {"receipt": "the receipt", "SHA256SUMS": "SHA256SUMS", "source": "the source"}


def as_json(findings: Findings, directory: Path) -> str:
    """The findings as one JSON object on one line."""
    return json.dumps(
        {
            "directory": str(directory),
            "against": findings.against,
            "commit": findings.commit or None,
            "movedTo": findings.moved_to,
            "allRight": findings.all_right,
            "files": findings.files,
            "bytes": findings.bytes,
            "damaged": [_as_dict(one) for one in findings.damaged],
            "missing": findings.missing,
            "unknown": findings.unknown,
            "mended": findings.mended,
            "bytesReceived": findings.bytes_received,
            "notes": findings.notes,
        }
    )


def _as_dict(damaged: Damaged) -> dict[str, object]:
    ranges = [{"start": one.start, "stop": one.stop} for one in damaged.ranges]
    return {"path": damaged.path, "reason": damaged.reason, "ranges": ranges}


def as_text(findings: Findings, directory: Path) -> str:
    """The findings as lines: what is wrong, then the outcome."""
    return "\n".join(
        map(one_line, (*wrong(findings), *_mended(findings), _outcome(findings, directory)))
    )


def wrong(findings: Findings) -> list[str]:
    """A line for each file that is not what it should be."""
    damaged = [f"damaged: {one.path}: {one.reason}" for one in findings.damaged]
    return [*damaged, *(f"missing: {path}" for path in findings.missing)]


def asides(findings: Findings) -> list[str]:
    """What is no fault, and good to know."""
    lines = list(findings.notes)
    if findings.moved_to:
        lines.append(
            f"the branch has moved: it is at commit {findings.moved_to[:12]} now, and this is "
            f"{findings.commit[:12]}"
        )
    if findings.unknown:
        files = format_count(len(findings.unknown), "file")
        more = ", …" if len(findings.unknown) > _SHOWN else ""
        first = ", ".join(findings.unknown[:_SHOWN])
        lines.append(f"{files} that {_AGAINST[findings.against]} does not know: {first}{more}")
    return lines


def _mended(findings: Findings) -> list[str]:
    if not findings.mended:
        return []
    lines = [f"mended: {path}" for path in findings.mended]
    return [*lines, f"{format_bytes(findings.bytes_received)} fetched"]


def _outcome(findings: Findings, directory: Path) -> str:
    files = format_count(findings.files, "file")
    if findings.all_right:
        return f"{files}, {format_bytes(findings.bytes)}, all right"
    count = len(findings.damaged) + len(findings.missing)
    return f"{count:,} of {files} in {directory} {'is' if count == 1 else 'are'} not right"
