"""``job``: download as a container's program does, with no flags, and an end that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from aim_downloader.cli.container import exit_code_of, log_of, run_to_an_end, settings
from aim_downloader.cli.desk import Desk
from aim_downloader.cli.words import Order, couples, each_apart
from aim_downloader.config import Config
from aim_downloader.environment import expected_size
from aim_downloader.errors import ConfigError, DownloadCancelledError, DownloadError
from aim_downloader.events import Emit, Event, PlanMade
from aim_downloader.reporters.base import Reporter
from aim_downloader.reporters.job_log import JobLog
from aim_downloader.reporters.termination import TerminationMessage, termination_path
from aim_downloader.reporters.together import Together
from aim_downloader.snapshot import shown

_TARGET = "/cache"


# An unknown flag is a word: it is told of in the same way as all else.
@click.command("job", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="URI [DIR] [URI DIR]...", type=click.UNPROCESSED)
@click.pass_obj
def job(desk: Desk, /, words: Sequence[str]) -> int:
    """Download models in a container. DIR left out: TARGET_DIR, else /cache.

    It has no flags: environment variables say all else. Lines for a log go to standard error, how
    it ended into the container's termination message, and progress to an AIMArtifact if one is
    named. All models are tried; the exit code is that of the first failure.
    """
    config, refused = settings(desk)
    log = log_of(config)
    message = TerminationMessage(termination_path(desk.environ), tell=log.say)
    if refused is None:
        ended = run_to_an_end(lambda: _bring_all(desk, words, config, log, message), log)
    else:
        ended = refused
    error = ended[0] if isinstance(ended, list) else ended
    message.write(exit_code_of(error), error)
    log.conclude(exit_code_of(error), error)
    return exit_code_of(error)


async def _bring_all(
    desk: Desk, words: Sequence[str], config: Config, log: JobLog, message: TerminationMessage
) -> list[Exception | None]:
    """Bring one model after the other; one that cannot be had does not stop the others.

    Returns:
        Their errors; None where there are none.
    """
    from aim_downloader.simulation import play_of, simulate

    core = desk.load_core()
    orders = _orders(words, desk.environ, config)
    expected = expected_size(desk.environ)
    failures: list[Exception | None] = []
    with Together(log, message, *_cluster(desk.environ, config, log)) as reporter:
        emit = _watching_size(reporter, expected, log)
        for order in orders:
            uri = shown(order.uri)
            log.about(uri)
            message.about(uri)
            try:
                if play := play_of(order.uri, desk.environ):
                    await simulate(play, order.directory, config, desk.environ, emit)
                else:
                    await core.adownload(order.uri, order.directory, config=config, on_event=emit)
            except DownloadCancelledError:
                raise
            except DownloadError as error:
                failures.append(error)
                # Whatever ends the next one, this is known by then.
                if len(orders) > 1:
                    log.say(f"error: {uri}: {error}")
    return failures or [None]


def _cluster(environ: Mapping[str, str], config: Config, log: JobLog) -> list[Reporter]:
    """Who tells Kubernetes, if it is to be told: else its imports would delay the first request."""
    if not environ.get("ARTIFACT_NAME"):
        return []
    from aim_downloader.reporters.kubernetes import kubernetes_reporter

    reporter = kubernetes_reporter(environ, config, log.say)
    return [reporter] if reporter else []


def _orders(words: Sequence[str], environ: Mapping[str, str], config: Config) -> list[Order]:
    """The models and their folders. Whether a URI can be used the one finds out who uses it.

    Raises:
        ConfigError: the words are no URIs with folders.
    """
    for word in words:
        if word.startswith("-"):
            raise ConfigError(
                f"{shown(word)!r} is a flag, and `job` has none",
                hint="environment variables say all else: docs/reference.md lists them",
            )
    usual = environ.get("TARGET_DIR") or _TARGET
    orders = [Order(uri, Path(named or usual)) for uri, named in couples(words)]
    return each_apart(orders, config.layout)


def _watching_size(emit: Emit, expected: int | None, log: JobLog) -> Emit:
    """Also say where a model is larger than what its volume was made for."""

    def hear(event: Event) -> None:
        if isinstance(event, PlanMade) and expected is not None and event.bytes > expected:
            log.say(
                f"The model has {event.bytes} bytes, and EXPECTED_SIZE_BYTES says {expected}: "
                "the volume may be too small for it"
            )
        emit(event)

    return hear
