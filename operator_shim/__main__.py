"""Front desk: flags and environment become Options; start and end of the program."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from operator_shim.access import Access, AccessError
from operator_shim.cluster import Cluster
from operator_shim.config import ACCESS_MODES, CACHE_OWNERS, KINDS, POD_FIELDS, Options
from operator_shim.handlers import keep_watching
from operator_shim.health import PortError, answering_probes
from operator_shim.keys import (
    ARTIFACT,
    CLUSTER_TEMPLATE,
    MODEL_CACHE,
    SERVICE,
    TEMPLATE,
    TEMPLATE_CACHE,
)
from operator_shim.logs import FORMATS, LEVELS, start_logging
from operator_shim.objects import Object
from operator_shim.pod_settings import pod_fields_of, resources_of
from operator_shim.reconciler import Reconcile, Reconciler
from operator_shim.usage import keep_noting

log = logging.getLogger("operator_shim")

_DEFAULT = Options()
# The API server takes objects nested 10,000 deep: with Python's own limit, 1,000, one of them would
# end all watches. Threads have stacks for more than this.
_DEEPEST = 25_000


class _Words(click.ParamType[tuple[str, ...]]):
    """Words with commas between them; those that are known, or any."""

    name = "words"

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._known = known

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if not isinstance(value, str):
            return tuple(value)
        words = tuple(word.strip() for word in value.split(",") if word.strip())
        if self._known and words == ("none",):
            return ()
        for word in words:
            if self._known and word not in self._known:
                self.fail(f"{word!r} is none of {', '.join(self._known)}, or none.", param, ctx)
        return words


class _Json(click.ParamType[Object]):
    """An object in JSON, as this reads it."""

    name = "json"

    def __init__(self, read: Callable[[Object], Object]) -> None:
        self._read = read

    def convert(self, value: Any, param: Any, ctx: Any) -> Object:
        try:
            read = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}.", param, ctx)
        if not isinstance(read, dict):
            self.fail(f"{value!r} is not an object of JSON.", param, ctx)
        try:
            return self._read(read)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def _option(name: str, *more: str, **settings: Any) -> Callable[[Any], Any]:
    """A flag whose variable is its name after AIM_OPERATOR_."""
    variable = f"AIM_OPERATOR_{name.strip('-').partition('/')[0].replace('-', '_').upper()}"
    return click.option(
        name, *more, **{"envvar": variable, "show_envvar": True, "show_default": True, **settings}
    )


@click.command(
    "operator_shim",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@_option(
    "--namespaces",
    type=_Words(),
    default=(),
    metavar="NAME,…",
    show_default="all",
    help="The namespaces to look after.",
)
@_option(
    "--kinds",
    type=_Words(KINDS),
    default=",".join(KINDS),
    metavar="KIND,…",
    help="The kinds to reconcile; none: none.",
)
@_option(
    "--default-download-image",
    default=_DEFAULT.default_download_image,
    metavar="IMAGE",
    help="The image that downloads where an artifact names none.",
)
@_option(
    "--keep-engine-image",
    is_flag=True,
    help="Let the image that AIM Engine's own CRD fills in count as named.",
)
@_option(
    "--access-mode",
    type=click.Choice(ACCESS_MODES),
    default=_DEFAULT.access_mode,
    help="The access mode of claims where an artifact asks for none.",
)
@_option(
    "--resources",
    type=_Json(resources_of),
    default=json.dumps(_DEFAULT.resources),
    metavar="JSON",
    help="Requests and limits of pods where an artifact asks for none.",
)
@_option(
    "--pod",
    type=_Json(pod_fields_of),
    default="{}",
    metavar="JSON",
    help=f"Fields of the spec of all pods: {', '.join(POD_FIELDS)}.",
)
@_option(
    "--shared-cache-owner",
    type=click.Choice(CACHE_OWNERS),
    default=_DEFAULT.shared_cache_owner,
    help="With whom a shared cache goes that a service has asked for; none: it stays.",
)
@_option(
    "--resync",
    type=click.FloatRange(1, 86400),
    default=_DEFAULT.resync,
    metavar="SECONDS",
    help="How often all objects are looked at, whether or not something has happened.",
)
@_option(
    "--workers",
    type=click.IntRange(1, 64),
    default=_DEFAULT.workers,
    help="How many objects are reconciled at the same time.",
)
@_option(
    "--health-port",
    type=click.IntRange(0, 65535),
    default=_DEFAULT.health_port,
    help="Where /healthz, /readyz and /metrics are answered; 0: any free port.",
)
@_option("--log-format", type=click.Choice(FORMATS), default="text", help="The log's lines.")
@_option("--log-level", type=click.Choice(LEVELS), default="info", help="What the log tells.")
@_option(
    "--kubeconfig",
    envvar="KUBECONFIG",
    metavar="FILE",
    show_default="the pod's account, else ~/.kube/config",
    help="The file that says where the cluster is.",
)
@click.pass_obj
def command(
    reconcilers: Callable[[], Mapping[str, Reconcile]],
    /,
    *,
    log_format: str,
    log_level: str,
    kinds: tuple[str, ...],
    **settings: Any,
) -> int:
    """Look after models: each gets a claim of the right size, a Job that fills it, and its users.

    These are AIMArtifacts (AIMModelCaches, in older words), the AIMTemplateCaches that hold those
    of a template, and the AIMServices that use them.
    """
    start_logging(log_format, log_level)
    options = Options(kinds=frozenset(kinds), **settings)
    try:
        asyncio.run(_serve(options, reconcilers()))
    except AccessError as error:
        log.error("%s. %s", error, error.hint)
        return 2
    except PortError as error:
        log.error("%s: choose another with --health-port", error)
        return 2
    return 0


async def _serve(options: Options, reconcilers: Mapping[str, Reconcile]) -> None:
    """Work until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    access = await Access.load(options.kubeconfig)
    async with Cluster(access) as cluster:
        reconciler = Reconciler(cluster, options, reconcilers)
        async with answering_probes(reconciler, options.health_port):
            log.info(
                "looking after %s in %s, at %s",
                ", ".join(sorted(options.kinds)) or "nothing",
                ", ".join(options.namespaces) or "all namespaces",
                access.server,
            )
            await _until(stop, cluster, reconciler, options)


async def _until(
    stop: asyncio.Event, cluster: Cluster, reconciler: Reconciler, options: Options
) -> None:
    """Work, and end when asked to; an end of its own accord is a fault, and is raised."""
    async with asyncio.TaskGroup() as group:
        working = [
            group.create_task(reconciler.run()),
            group.create_task(keep_watching(reconciler, options)),
            group.create_task(keep_noting(cluster, options)),
        ]
        await stop.wait()
        log.info("asked to end")
        for task in working:
            task.cancel()


def _reconcilers() -> Mapping[str, Reconcile]:
    from operator_shim import artifact, service, template, template_cache

    return {
        ARTIFACT: artifact.reconcile,
        MODEL_CACHE: artifact.reconcile,
        TEMPLATE_CACHE: template_cache.reconcile,
        TEMPLATE: template.reconcile,
        CLUSTER_TEMPLATE: template.reconcile,
        SERVICE: service.reconcile,
    }


def main(reconcilers: Callable[[], Mapping[str, Reconcile]] = _reconcilers) -> None:
    """Run the command and leave with its exit code."""
    sys.setrecursionlimit(_DEEPEST)
    # A container's first process is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        code = command.main(standalone_mode=False, obj=reconcilers) or 0
    except click.Abort:
        code = 128 + signal.SIGINT
    except click.ClickException as error:
        sys.stderr.write(f"error: {error.format_message()}\n")
        code = 2
    except Exception:  # told here, as we leave without waiting for kopf's thread
        log.exception("the operator has failed")
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
