"""Bytes, rates and durations as people read them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_NAMES = 3
"""So many names say which files are meant."""


def format_bytes(count: float) -> str:
    """Bytes in binary units with three digits: ``1.43 GiB``."""
    unit = _unit_for(count)
    digits = _digits(count, unit)
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {_UNITS[unit]}"


def parse_bytes(text: str) -> int:
    """Read a number of bytes as curl and wget do: ``500K``, ``10M``, ``1.5G``, in powers of 1024.

    Raises:
        ValueError: this is none.
    """
    pattern = r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT]?)(?:i?B)?"
    found = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is no number of bytes")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def format_share(done: int, total: int) -> str:
    """Two counts in the unit of the larger one: ``1.20/2.80 GiB``."""
    unit = _unit_for(total)
    return f"{_digits(done, unit, total)}/{_digits(total, unit)} {_UNITS[unit]}"


def format_percent(done: int, total: int) -> str:
    """How much is done, rounded down, so that ``100 %`` means all of it."""
    return f"{100 * min(done, total) // total if total else 100} %"


def format_rate(bytes_per_second: float) -> str:
    """A speed that keeps its width while it changes: ``1.40 MiB/s``."""
    unit = _unit_for(bytes_per_second)
    return f"{_digits(bytes_per_second, unit)} {_UNITS[unit]}/s"


def format_clock(seconds: float) -> str:
    """Time that counts down: ``0:08``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_duration(seconds: float) -> str:
    """Time that has passed: ``0.4 s``, ``58 s``, ``2 min 5 s``, ``1 h 2 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def format_count(count: int, noun: str) -> str:
    """A number of things: ``1 file``, ``2,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_names(names: Sequence[str]) -> str:
    """The first few of many names, and how many there are beside them."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def _unit_for(count: float) -> int:
    unit = 0
    # 999.5 would be written as 1000: four digits, where the next unit has three.
    while abs(count) >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return unit


def _digits(count: float, unit: int, alike: float | None = None) -> str:
    """The number in that unit, with as many decimals as ``alike`` (or itself) needs."""
    size = abs(count if alike is None else alike) / 1024**unit
    decimals = 0 if unit == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{count / 1024**unit:.{decimals}f}"
