"""Sizes as Kubernetes and people write them. Pure, in integers."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_GI = 2**30
_LARGEST = 2**63 - 1
_SUFFIXES = {
    "": Fraction(1),
    **{letter: Fraction(1, 1000**power) for power, letter in enumerate("mun", start=1)},
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}
# Longer ones than any that a volume can have are refused before they are worked out.
_QUANTITY = re.compile(
    r"\+?(?P<number>[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)?|[eE](?P<exponent>[+-]?[0-9]{1,2}))",
    re.ASCII,
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def parse_quantity(text: str | int) -> int:
    """The bytes of a quantity (``5Gi``, ``1.5e9``, 42), rounded up.

    Raises:
        ValueError: this is no quantity, or none that a volume can have.
    """
    return math.ceil(amount_of(text))


def amount_of(text: str | int) -> Fraction:
    """The same as it is: of CPUs there are also parts (``500m``).

    Raises:
        ValueError: this is no quantity, or none that a volume can have.
    """
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no size: write it as 500Mi or 20Gi")
    scale = _SUFFIXES[found["suffix"] or ""] * Fraction(10) ** int(found["exponent"] or 0)
    amount = Fraction(found["number"]) * scale
    if amount > _LARGEST:
        raise ValueError(f"{text!r} is more than a volume can have")
    return amount


def claim_size(bytes_: int, headroom_percent: int) -> str:
    """What a claim asks for: so much and the headroom, in whole Gi, one at least: ``11Gi``."""
    needed = bytes_ * (100 + headroom_percent) // 100
    return f"{min(max(1, -(-needed // _GI)), _LARGEST // _GI)}Gi"


def display_size(bytes_: int) -> str:
    """A size as the column of ``kubectl get`` shows it: ``1.5 GiB``, ``42 GiB``, ``150 GiB``."""
    unit = max(0, bytes_.bit_length() - 1) // 10
    tenths = _tenths(bytes_, unit)
    # 1023.5 MiB would be written as 1024.
    if tenths >= 10235:
        unit, tenths = unit + 1, 10
    if tenths >= 1000:
        return f"{(tenths + 5) // 10} {_UNITS[unit]}"
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} {_UNITS[unit]}" if tenth else f"{whole} {_UNITS[unit]}"


def _tenths(bytes_: int, unit: int) -> int:
    """So many tenths of the unit, to the nearest."""
    return ((bytes_ * 20 >> 10 * unit) + 1) // 2
