"""Front desk: words, flags and environment become one Config; errors become messages and codes."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from aim_downloader._version import __version__
from aim_downloader.config import Config, config_from_environ
from aim_downloader.errors import ConfigError, DownloadCancelledError, DownloadError
from aim_downloader.events import Emit, Event, RetryScheduled, RunFailed
from aim_downloader.reporters import choose
from aim_downloader.reporters.base import Writer, one_line
from aim_downloader.reporters.json_lines import JsonLinesReporter
from aim_downloader.reporters.plan_table import Action, PlanRow, PlanTable
from aim_downloader.reporters.sentences import sentence
from aim_downloader.signals import run_until_signalled
from aim_downloader.snapshot import ModelURI, RemoteFile
from aim_downloader.storage import free_space
from aim_downloader.units import format_bytes, format_count

if TYPE_CHECKING:
    from aim_downloader.api import CleanReport
    from aim_downloader.planner import Plan

_BUSY = 75  # of sysexits.h: try again later


class Core(Protocol):
    """What the commands call: the module ``api``, or a double of it."""

    async def adownload(self, uri: str, directory: Path, *, config: Config, on_event: Emit) -> Path:
        """Bring the model into the folder."""

    async def plan(self, uri: str, directory: Path, *, config: Config, on_event: Emit) -> Plan:
        """Say what a download would do."""

    async def snapshot_size(self, uri: str, *, config: Config, on_event: Emit) -> int:
        """Count the bytes of the files that are wanted."""

    def clean(self, directory: Path) -> CleanReport:
        """Remove what runs have left behind that are dead."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every command is given. The core is loaded when a command needs it, not for help."""

    environ: Mapping[str, str]
    load_core: Callable[[], Core]

    @property
    def terminal(self) -> bool:
        """Whether bars can be drawn where progress is told."""
        return sys.stderr.isatty() and self.environ.get("TERM", "dumb") != "dumb"


@dataclass(frozen=True, slots=True)
class Order:
    """One model and the folder it is to be in."""

    uri: str
    directory: Path


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] = os.environ,
    load_core: Callable[[], Core] | None = None,
) -> int:
    """Do what the words ask for and return the exit code; what went wrong is told here."""
    desk = Desk(environ, load_core or _load_core)
    try:
        code: int | None = _commands.main(
            _with_command(argv), _program(), standalone_mode=False, obj=desk
        )
        return code or 0
    except click.Abort:
        return 128 + signal.SIGINT
    except click.ClickException as error:
        failure: DownloadError = _usage_error(error, argv)
    except DownloadError as error:
        failure = error
    if "--json" in argv and not isinstance(failure, DownloadCancelledError):
        JsonLinesReporter(sys.stdout)(_failed(failure))
    return _complain(failure)


def _load_core() -> Core:
    from aim_downloader import api

    return api


# --- words ----------------------------------------------------------------------------------------


def _program() -> str:
    started_as_module = Path(sys.argv[0]).name == "__main__.py"
    return "python -m aim_downloader" if started_as_module else "aim-downloader"


def _with_command(argv: Sequence[str]) -> list[str]:
    """Put in the word ``download`` where a URI or a flag of it comes first."""
    first = argv[0] if argv else "-"
    of_download = first.startswith("-") and first not in {"-h", "--help", "--version"}
    return ["download", *argv] if of_download or "://" in first else list(argv)


def _orders(words: Sequence[str], environ: Mapping[str, str]) -> list[Order]:
    """Pair URIs with folders.

    Raises:
        ConfigError: no word, a word that is neither, or two models want the same folder.
    """
    if not words:
        raise ConfigError(
            "no model is named", hint=f"{_program()} hf://owner/name [DIR]; --help says more"
        )
    pairs: list[tuple[str, str]] = []
    for word in words:
        if "://" in word:
            pairs.append((word, ""))
        elif word and pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], word)
        else:
            raise ConfigError(
                f"{word!r} is not a model URI", hint="write URI [DIR], or URI DIR URI DIR …"
            )
    orders = [_order(uri, directory, environ) for uri, directory in pairs]
    if len({order.directory.absolute() for order in orders}) < len(orders):
        raise ConfigError("two models cannot be in one folder", hint="name a DIR behind each URI")
    return orders


def _order(uri: str, directory: str, environ: Mapping[str, str]) -> Order:
    name = ModelURI.parse(uri).name
    return Order(uri, Path(directory or environ.get("TARGET_DIR") or name))


def _config(desk: Desk, token_file: Path | None, **flags: object) -> Config:
    token = _read_token(token_file) if token_file else None
    return config_from_environ(desk.environ, token=token, **flags)


def _read_token(path: Path) -> str:
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"the token file {path} cannot be read: {reason}") from error
    if not token:
        raise ConfigError(f"the token file {path} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"the token file {path} holds more than one token on one line")
    return token


# --- commands -------------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="aim-downloader", message="%(prog)s %(version)s")
def _commands() -> None:
    """Bring AI models onto a disk: in parallel, resumable, every byte verified.

    A model URI is hf://owner/name[@revision][/subpath]. Where it comes first, the word "download"
    may be left out: `download --help` lists its flags.
    """


_SELECTING = (
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take what matches the whole path (* crosses /).",
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Leave it out, also when included."
    ),
    click.option("--revision", metavar="REV", help="Branch, tag or commit."),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="File with the Hub's token; else HF_TOKEN, else where `hf auth login` has put it.",
    ),
    click.option("--endpoint", metavar="URL", help="The Hub; else HF_ENDPOINT."),
    click.option("--json", "as_json", is_flag=True, help="For programs: JSON on standard output."),
)


def _selecting(command: Callable[..., int]) -> Callable[..., int]:
    """Add the flags that say which files of which Hub are meant."""
    return functools.reduce(lambda made, option: option(made), reversed(_SELECTING), command)


@_commands.command("download")
@click.argument("words", nargs=-1, metavar="URI [DIR] [URI DIR]...")
@_selecting
@click.option("--connections", type=int, metavar="N", help="Connections at most (16).")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `plan` does.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@click.option("--clean", is_flag=True, help="Should it end early, leave nothing to resume.")
@click.pass_obj
def _download(
    desk: Desk, /, words: Sequence[str], *, as_json: bool, dry_run: bool, quiet: bool, **flags: Any
) -> int:
    """Download models. DIR left out: TARGET_DIR, else ./<name>.

    What is already there and right is not fetched again, and what a run has left unfinished is
    gone on with. Flags beat environment variables.
    """
    orders, config = _orders(words, desk.environ), _config(desk, **flags)
    if dry_run:
        return _show_plans(desk, orders, config, as_json)
    core = desk.load_core()
    with choose(json=as_json, quiet=quiet, terminal=desk.terminal) as reporter:
        try:
            run_until_signalled(_download_all(core, orders, config, reporter))
        except DownloadError as error:
            told = error  # as an event, by the core
        else:
            return 0
    return _complain(told)


@_commands.command("plan")
@click.argument("uri")
@click.argument("directory", required=False, metavar="[DIR]", default="")
@_selecting
@click.pass_obj
def _plan(desk: Desk, /, uri: str, directory: str, *, as_json: bool, **flags: Any) -> int:
    """Say what would be fetched.

    Files that are there already and those left out are listed too. Nothing is written.
    """
    words = [uri, directory] if directory else [uri]
    return _show_plans(desk, _orders(words, desk.environ), _config(desk, **flags), as_json)


@_commands.command("size")
@click.argument("uri")
@_selecting
@click.pass_obj
def _size(desk: Desk, /, uri: str, *, as_json: bool, **flags: Any) -> int:  # noqa: ARG001  # it always is
    """Print how many bytes the files are, as JSON."""
    config = _config(desk, **flags)
    asking = desk.load_core().snapshot_size(uri, config=config, on_event=_tell_retry)
    size = run_until_signalled(asking)
    _say(json.dumps({"url": uri, "sizeBytes": size}))
    return 0


@_commands.command("clean")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@click.pass_obj
def _clean(desk: Desk, /, directory: Path) -> int:
    """Remove what dead runs left unfinished.

    Finished files stay, and so does everything while a run is at work in DIR.
    """
    report = desk.load_core().clean(directory)
    if report.busy:
        hint = "wait for it, or end it, and try again"
        _tell_error(f"nothing removed: {directory} is in use by {report.busy}", hint)
        return _BUSY
    if report.removed:
        files = format_count(len(report.removed), "file")
        _say(one_line(f"removed {files}, {format_bytes(report.bytes)}, from {directory}"))
    else:
        _say(one_line(f"nothing to remove in {directory}"))
    return 0


async def _download_all(
    core: Core, orders: Sequence[Order], config: Config, on_event: Emit
) -> None:
    for order in orders:
        await core.adownload(order.uri, order.directory, config=config, on_event=on_event)


def _show_plans(desk: Desk, orders: Sequence[Order], config: Config, as_json: bool) -> int:
    core = desk.load_core()
    for order in orders:
        plan = run_until_signalled(
            core.plan(order.uri, order.directory, config=config, on_event=_tell_retry)
        )
        table = _table(plan, order)
        if as_json:
            _say(table.as_json())
        elif sys.stdout.isatty():
            table.print()
        else:
            _say(table.as_text())
    return 0


def _table(plan: Plan, order: Order) -> PlanTable:
    rows = [_row(file, "fetch") for file in plan.fetch]
    rows += [_row(file, "there") for file in plan.held]
    rows += [_row(item.file, "left out", item.reason) for item in plan.left_out]
    return PlanTable(
        uri=str(plan.snapshot.uri),
        commit=plan.snapshot.commit,
        target=str(order.directory),
        rows=sorted(rows, key=lambda row: row.path),
        fetch_bytes=plan.fetch_bytes,
        resumed_bytes=plan.resumed_bytes,
        free_bytes=free_space(order.directory).bytes,
    )


def _row(file: RemoteFile, action: Action, reason: str = "") -> PlanRow:
    digest = str(file.digest) if file.digest else None
    return PlanRow(file.path, file.size, action, reason, digest)


# --- what is told ---------------------------------------------------------------------------------


def _say(text: str) -> None:
    """Write what was asked for. A reader that has had enough (``| head``) ends the command."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from None


def _tell_retry(event: Event) -> None:
    """Where only an answer is wanted, tell alone why it takes its time."""
    if isinstance(event, RetryScheduled):
        Writer(sys.stderr)(f"{one_line(sentence(event))}\n")


def _complain(error: DownloadError) -> int:
    """Tell of an error and return its exit code. Who ended the run knows that it has ended."""
    if not isinstance(error, DownloadCancelledError):
        _tell_error(str(error), error.hint)
    return error.exit_code


def _tell_error(message: str, hint: str) -> None:
    write = Writer(sys.stderr)
    write(f"error: {one_line(message)}\n")
    if hint:
        write(f"hint: {one_line(hint)}\n")


def _failed(error: DownloadError) -> RunFailed:
    return RunFailed(type(error).__name__, str(error), error.hint, error.exit_code)


def _usage_error(error: click.ClickException, argv: Sequence[str]) -> ConfigError:
    """Say it in our form. Click knows what was probably meant, and appends it."""
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"{context.command_path if context else _program()} --help lists what there is"
    if error.__class__.__name__ == "NoSuchCommand" and _is_repository(argv[0]):
        hint = f"to download a model, write hf://{argv[0]}"
    return ConfigError(message[:1].lower() + message[1:], hint=hint)


def _is_repository(word: str) -> bool:
    try:
        return "/" in ModelURI.parse(f"hf://{word}").repository
    except ConfigError:
        return False
