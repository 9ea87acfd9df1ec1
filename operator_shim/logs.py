"""The log on standard error, as lines of text or of JSON; the same trouble is told now and then."""

from __future__ import annotations

import json
import logging
import re
import sys
import time

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning")

_REPEATED_S = 300.0
_ATTEMPT = re.compile(r"Request attempt \S+ failed; (will retry|escalating): ")
_CLOSED = "failed; TCP closed; will re-authenticate"

END = " has failed"
"""What kopf says of each of its tasks when it ends; why it ends we tell once."""


def start_logging(form: str, level: str) -> None:
    """Write what all loggers say.

    With ``extra={"object": …}`` a line names what it is about; those with the same ``trouble`` in
    their ``extra`` are told once every five minutes.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    handler.addFilter(_Once())
    # Of libraries only what goes wrong is of interest; of kopf's watches more, to find a fault.
    logging.basicConfig(level="WARNING", handlers=[handler])
    logging.captureWarnings(capture=True)
    logging.getLogger("operator_shim").setLevel(level.upper())
    logging.getLogger("kopf").setLevel("DEBUG" if level == "debug" else "WARNING")


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        about = getattr(record, "object", None)
        text = " ".join(record.getMessage().split())
        line = f"{_time(record)} {record.levelname.lower()}: {f'{about}: ' if about else ''}{text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower()}
        if about := getattr(record, "object", None):
            line["object"] = str(about)
        line["message"] = record.getMessage()
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Once(logging.Filter):
    """Kopf tells of every try of every watch, and we of each object that has the same trouble."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("kopf"):
            return self._of_kopf(record)
        trouble = getattr(record, "trouble", "")
        return not trouble or self._is_due(trouble)

    def _of_kopf(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "OS signals are ignored" in text:  # they are heeded by us
            return False
        if END in text or _CLOSED in text:
            # To find a fault of kopf's.
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        if not (attempt := _ATTEMPT.match(text)):
            return True
        # What the server says, or why it is not reached; all watches have the same trouble.
        trouble = text[attempt.end() :]
        if not self._is_due(trouble.rpartition(" -> ")[2]):
            return False
        record.msg, record.args = f"watching is tried again: {trouble}", ()
        return True

    def _is_due(self, trouble: str) -> bool:
        now = time.monotonic()
        if now - self._told.get(trouble, -_REPEATED_S) < _REPEATED_S:
            return False
        self._told[trouble] = now
        return True


def _time(record: logging.LogRecord) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{at}.{record.msecs:03.0f}Z"
