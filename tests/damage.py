"""What time and other programs do to files."""

import os
from pathlib import Path


def flip(path: Path, *offsets: int) -> None:
    """Other bytes under the same size and mtime."""
    before = path.stat()
    with path.open("r+b") as opened:
        for offset in offsets:
            opened.seek(offset)
            byte = opened.read(1)[0]
            opened.seek(offset)
            opened.write(bytes([byte ^ 0x80]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)
