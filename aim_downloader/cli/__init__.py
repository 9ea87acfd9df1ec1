"""Front desk: words, flags and environment become one Config; errors become messages and codes.

One command, one file.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

import click

from aim_downloader._version import __version__
from aim_downloader.cli.check_size import check_size
from aim_downloader.cli.clean import clean
from aim_downloader.cli.desk import Core, Desk, complain, failed
from aim_downloader.cli.download import download
from aim_downloader.cli.job import job
from aim_downloader.cli.plan import plan
from aim_downloader.cli.size import size
from aim_downloader.cli.verify import verify
from aim_downloader.cli.words import is_repository, program, with_command
from aim_downloader.errors import ConfigError, DownloadCancelledError, DownloadError
from aim_downloader.reporters.json_lines import JsonLinesReporter


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="aim-downloader", message="%(prog)s %(version)s")
def commands() -> None:
    """Bring AI models onto a disk: in parallel, resumable, every byte verified.

    A model URI is hf://owner/name[@revision][/subpath]. Where it comes first, the word "download"
    may be left out: `download --help` lists its flags.
    """


for _command in (download, plan, size, verify, clean, job, check_size):
    commands.add_command(_command)


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] = os.environ,
    load_core: Callable[[], Core] | None = None,
) -> int:
    """Do what the words ask for and return the exit code; what went wrong is told here."""
    desk = Desk(environ, load_core or _load_core)
    try:
        code: int | None = commands.main(
            with_command(argv), program(), standalone_mode=False, obj=desk
        )
        return code or 0
    except click.Abort:
        return 128 + signal.SIGINT
    except click.ClickException as error:
        failure: DownloadError = _usage_error(error, argv)
    except DownloadError as error:
        failure = error
    if "--json" in argv and not isinstance(failure, DownloadCancelledError):
        JsonLinesReporter(sys.stdout)(failed(failure))
    return complain(failure)


def _load_core() -> Core:
    from aim_downloader import api

    return api


def _usage_error(error: click.ClickException, argv: Sequence[str]) -> ConfigError:
    """Say it in our form. Click knows what was probably meant, and appends it."""
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"{context.command_path if context else program()} --help lists what there is"
    if error.__class__.__name__ == "NoSuchCommand" and is_repository(argv[0]):
        hint = f"to download a model, write hf://{argv[0]}"
    elif error.__class__.__name__ == "NoSuchCommand" and argv[0].startswith("hf:"):
        hint = "to download a model, write hf://owner/name"
    return ConfigError(message[:1].lower() + message[1:], hint=hint)
