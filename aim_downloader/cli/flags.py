"""Flags that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import click

from aim_downloader.config import DEFAULT_PROTOCOLS, LAYOUTS, PROTOCOLS, parse_protocols
from aim_downloader.units import parse_bytes
from aim_downloader.weights import FORMATS

Command: TypeAlias = Callable[..., int]


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator for several flags, which ``--help`` lists in this order."""
    return lambda command: functools.reduce(lambda made, add: add(made), options[::-1], command)


selecting = _all_of(
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take what matches the whole path (* crosses /).",
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Leave it out, also when included."
    ),
    click.option(
        "--format",
        "weight_format",
        type=click.Choice(FORMATS),
        metavar="FORMAT",
        help=f"Of weights in several formats take one: {', '.join(FORMATS)}.",
    ),
    click.option("--revision", metavar="REV", help="Branch, tag or commit."),
)
"""Which files are meant."""

placing = _all_of(
    click.option(
        "--layout",
        type=click.Choice(LAYOUTS),
        help="A plain folder, or the cache of huggingface_hub (then DIR is the cache).",
    ),
    click.option(
        "--prune", is_flag=True, help="Remove files of an earlier revision that this one lacks."
    ),
)
"""How they lie on disk."""

asking = _all_of(
    click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="File with the Hub's token; else HF_TOKEN, else where `hf auth login` has put it.",
    ),
    click.option("--endpoint", metavar="URL", help="The Hub; else HF_ENDPOINT."),
)
"""Who is asked."""

moving = _all_of(
    click.option(
        "--protocol",
        "protocols",
        type=parse_protocols,
        metavar="SEQ",
        help=f"What is tried for a large file, in order, of {', '.join(PROTOCOLS)} "
        f"({','.join(DEFAULT_PROTOCOLS)}).",
    ),
    click.option("--connections", type=int, metavar="N", help="Connections at most (16)."),
    click.option(
        "--limit-rate",
        type=parse_bytes,
        metavar="RATE",
        help="Bytes per second for the whole run: 500K, 10M, 1.5G.",
    ),
    click.option(
        "--stall-timeout",
        type=float,
        metavar="SECONDS",
        help="Give up a connection on which no byte came for so long (120).",
    ),
)
"""How the bytes move."""

as_json = click.option(
    "--json", "as_json", is_flag=True, help="For programs: JSON on standard output."
)
