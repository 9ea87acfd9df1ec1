"""Brings AI models from a hub onto a disk: in parallel, resumable, and verified.

>>> from aim_downloader import download
>>> download("hf://openai-community/gpt2", "./models/gpt2")  # doctest: +SKIP
"""

from __future__ import annotations

from aim_downloader._version import __version__

# As type checkers know it, without the import: nothing stands before the program's first moment.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aim_downloader.api import (
        adownload,
        arepair,
        averify,
        clean,
        download,
        plan,
        repair,
        snapshot_size,
        verify,
    )
    from aim_downloader.config import Config
    from aim_downloader.environment import config_from_environ
    from aim_downloader.errors import DownloadError

_HOMES = {
    "Config": "config",
    "config_from_environ": "environment",
    "adownload": "api",
    "arepair": "api",
    "averify": "api",
    "clean": "api",
    "download": "api",
    "plan": "api",
    "repair": "api",
    "snapshot_size": "api",
    "verify": "api",
    "DownloadError": "errors",
}

__all__ = [
    "Config",
    "DownloadError",
    "__version__",
    "adownload",
    "arepair",
    "averify",
    "clean",
    "config_from_environ",
    "download",
    "plan",
    "repair",
    "snapshot_size",
    "verify",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import on first use: ``--version`` and ``import aim_downloader`` stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'aim_downloader' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"aim_downloader.{_HOMES[name]}"), name)
