"""When a model was last used: ``lastUsed`` is the time at which a pod was seen to mount its claim.

Pods are listed, never watched: once per namespace that has models, with each look at all objects.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product

from operator_shim.acting import part_of
from operator_shim.claims import mounted_by
from operator_shim.cluster import ApiError, Cluster
from operator_shim.config import Options
from operator_shim.keys import DOWNLOADS
from operator_shim.objects import (
    LABEL_ARTIFACT,
    LABEL_COMPONENT,
    Object,
    at,
    is_deleted,
    labels_of,
    moment_told,
    namespace_of,
    timestamp,
)

MANAGER = "aim-usage"
"""Who applies ``lastUsed``: not who applies the rest of the status, which would take it back."""
ONCE_IN = timedelta(hours=1)
"""A model that is in use is told so no more often."""

_OURS = ("check-size", "download")
_GONE = (404, 409, 422)
"""It has gone since it was listed, or been made anew."""

log = logging.getLogger(__name__)


async def keep_noting(cluster: Cluster, options: Options) -> None:
    """Note every ``options.resync`` seconds which models are in use, until cancelled."""
    trouble = ""
    while True:
        await asyncio.sleep(options.resync)
        try:
            await note_usage(cluster, options)
        except ApiError as error:
            if str(error) != trouble:
                log.warning("which models are in use is not known: %s", error)
            trouble = str(error)
        else:
            trouble = ""


async def note_usage(
    cluster: Cluster, options: Options, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> None:
    """Write the time into each model that a pod mounts, where what is there is older.

    Raises:
        ApiError: something cannot be read, or written; all that can be has been.
    """
    refused: ApiError | None = None
    for place, models in (await _due(cluster, options, clock())).items():
        try:
            pods = await cluster.listed("Pod", place, fields="status.phase=Running")
            claims = set(claims_in_use(pods))
            for model in models:
                if at(model, "status.persistentVolumeClaim") in claims:
                    await _note(cluster, model, clock())
        except ApiError as error:
            refused = refused or error
    if refused:
        raise refused


async def _due(cluster: Cluster, options: Options, now: datetime) -> dict[str, list[Object]]:
    """The models whose use is worth a note, by namespace."""
    served = await cluster.served()
    kinds = [kind for kind in DOWNLOADS if kind in options.kinds and kind in served]
    models: dict[str, list[Object]] = defaultdict(list)
    for kind, place in product(kinds, options.namespaces or ("",)):
        for model in await cluster.listed(kind, place):
            if is_due(model, now):
                models[namespace_of(model)].append(model)
    return models


async def _note(cluster: Cluster, model: Object, now: datetime) -> None:
    status = {"lastUsed": timestamp(now)}
    try:
        await cluster.apply_status({**part_of(model), "status": status}, MANAGER)
    except ApiError as error:
        if error.status not in _GONE:
            raise


def is_due(model: Object, now: datetime) -> bool:
    """Whether the model has a claim, and has not been told for a while that it is in use."""
    if is_deleted(model) or not at(model, "status.persistentVolumeClaim"):
        return False
    told = moment_told(at(model, "status.lastUsed"))
    return told is None or abs(now - told) >= ONCE_IN


def claims_in_use(pods: Iterable[Object]) -> Iterator[str]:
    """The claims that these pods mount, but for those that only fill them."""
    for pod in pods:
        if not _fills(pod):
            yield from mounted_by(pod)


def _fills(pod: Object) -> bool:
    labels = labels_of(pod)
    return LABEL_ARTIFACT in labels and labels.get(LABEL_COMPONENT) in _OURS
