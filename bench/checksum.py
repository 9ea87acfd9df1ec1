"""The sha256 that follows a download by those that do not verify, by the fastest tool at hand.

coreutils' `sha256sum` is built without OpenSSL on some systems and then several times slower:
a ratio against it would flatter us.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import measure

_HASHLIB = """
import hashlib, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        print(hashlib.file_digest(file, "sha256").hexdigest(), path)
"""


@dataclass(frozen=True)
class Checksum:
    """A command that prints the sha256 of the files it is given, one after another."""

    name: str
    command: Sequence[str]

    def on(self, paths: Sequence[Path]) -> list[str]:
        return [*self.command, *map(str, paths)]


def fastest_sha256(path: Path) -> Checksum:
    """The command that is done with a file first."""

    def seconds(checksum: Checksum) -> float:
        return measure(checksum.on([path]), os.environ).wall

    known = [Checksum("hashlib", [sys.executable, "-c", _HASHLIB])]
    if shutil.which("sha256sum"):
        known.append(Checksum("sha256sum", ["sha256sum"]))
    return min(known, key=seconds)
