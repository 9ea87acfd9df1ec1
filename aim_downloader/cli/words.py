"""The words behind a command: which model goes into which folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aim_downloader.config import Layout
from aim_downloader.environment import hf_cache
from aim_downloader.errors import ConfigError
from aim_downloader.sinks.choice import default_folder
from aim_downloader.snapshot import ModelURI, shown


@dataclass(frozen=True, slots=True)
class Order:
    """One model and the folder it is to be in."""

    uri: str
    directory: Path


def program() -> str:
    """What the user has typed to start this program."""
    started_as_module = Path(sys.argv[0]).name == "__main__.py"
    return "python -m aim_downloader" if started_as_module else "aim-downloader"


def with_command(argv: Sequence[str]) -> list[str]:
    """Put in the word ``download`` where a URI or a flag of it comes first."""
    first = argv[0] if argv else "-"
    of_download = first.startswith("-") and first not in {"-h", "--help", "--version"}
    return ["download", *argv] if of_download or "://" in first else list(argv)


def pair(words: Sequence[str], environ: Mapping[str, str], layout: Layout) -> list[Order]:
    """Pair URIs with folders.

    Raises:
        ConfigError: no word, a word that is neither, two models want the same folder, or a
            relative one lies nowhere.
    """
    orders = [_order(uri, named, environ, layout) for uri, named in couples(words)]
    return each_apart(orders, layout)


def couples(words: Sequence[str]) -> list[tuple[str, str]]:
    """Each URI with the folder that is named behind it, or with nothing.

    Raises:
        ConfigError: no word, or a word that is neither.
    """
    if not words:
        raise ConfigError(
            "no model is named", hint=f"{program()} hf://owner/name [DIR]; --help says more"
        )
    pairs: list[tuple[str, str]] = []
    for word in words:
        if "://" in word:
            pairs.append((word, ""))
        elif word and pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], word)
        else:
            raise ConfigError(
                f"{shown(word)!r} is not a model URI", hint="write URI [DIR], or URI DIR URI DIR …"
            )
    return pairs


def each_apart(orders: list[Order], layout: Layout) -> list[Order]:
    """The orders, when each has a folder of its own.

    Raises:
        ConfigError: two models want the same folder, or a relative one lies nowhere.
    """
    try:
        folders = {order.directory.absolute() for order in orders}
    except FileNotFoundError:
        raise ConfigError("the current folder is gone", hint="change to one that exists") from None
    if layout == "plain" and len(folders) < len(orders):
        raise ConfigError("two models cannot be in one folder", hint="name a DIR behind each URI")
    return orders


def _order(uri: str, directory: str, environ: Mapping[str, str], layout: Layout) -> Order:
    model = ModelURI.parse(uri)
    if named := directory or environ.get("TARGET_DIR"):
        return Order(uri, Path(named))
    return Order(uri, hf_cache(environ) if layout == "hf-cache" else default_folder(model))


def is_repository(word: str) -> bool:
    """Whether a word could name a model on the Hub: ``owner/name``."""
    try:
        return "/" in ModelURI.parse(f"hf://{word}").repository
    except ConfigError:
        return False
