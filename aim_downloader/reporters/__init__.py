"""How progress is told: bars for a person, lines for a log or a program, or not at all."""

from __future__ import annotations

import sys

from aim_downloader.reporters.base import Reporter

__all__ = ["Reporter", "choose"]


def choose(*, json: bool, quiet: bool, terminal: bool) -> Reporter:
    """Pick the reporter: events go to standard output, everything for people to standard error."""
    if json:
        from aim_downloader.reporters.json_lines import JsonLinesReporter

        return JsonLinesReporter(sys.stdout)
    if quiet:
        from aim_downloader.reporters.quiet import QuietReporter

        return QuietReporter()
    if terminal:
        from aim_downloader.reporters.terminal import TerminalReporter

        return TerminalReporter()
    from aim_downloader.reporters.log import LogReporter

    return LogReporter(sys.stderr)
