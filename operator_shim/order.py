"""What an artifact asks for: its spec, its annotations, its runtime config, the options. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from operator_shim.config import ACCESS_MODES, Options
from operator_shim.objects import (
    ANNOTATION_ACCESS_MODE,
    ANNOTATION_FOREIGN_IMAGE,
    ANNOTATION_RESOURCES,
    ANNOTATION_RETRY,
    ANNOTATION_SHARDS,
    Object,
    annotations_of,
    at,
)
from operator_shim.pod_settings import resources_of
from operator_shim.quantities import parse_quantity
from operator_shim.retrying import inputs_hash
from operator_shim.runtime_config import RuntimeConfig, merged_env
from operator_shim.sizing import LARGEST

ENGINE_IMAGE = "ghcr.io/silogen/aim-artifact-downloader:0.2.0"
"""What AIM Engine's CRD writes into every artifact that names no image."""
READ_WRITE_MANY = "ReadWriteMany"
MOST_SHARDS = 1000

_FOREIGN = ("ghcr.io/silogen/aim-artifact-downloader", "kserve/storage-initializer")
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What is to be brought, with what, and onto what kind of volume."""

    source_uri: str
    image: str
    ours: bool
    """Whether the image is our downloader: it tells its progress and has exit codes of its own."""
    pull_secrets: tuple[Object, ...]
    env: tuple[Object, ...]
    """The artifact's, over its runtime config's."""
    size: int | None
    """Bytes of the model, where the spec says so."""
    headroom_percent: int
    storage_class: str | None
    access_mode: str
    shards: int
    resources: Object
    pod: Object
    """Fields of a pod's spec that the operator's options set for all."""
    problems: tuple[str, ...]
    """What in it cannot be done, each with what to change."""
    inputs: str
    """One hash of all that a Job depends on, as the artifact and its config say it."""
    defaults: str
    """One of what the operator adds where they say nothing."""


def order_of(artifact: Object, config: RuntimeConfig, options: Options) -> Order:
    """What an artifact asks for; a field of the spec goes before the annotation of that name."""
    problems: list[str] = []
    reading = _Reading(artifact, problems)
    named = _named_image(artifact, options)
    image = named or options.default_download_image
    ours = _is_ours(artifact, image)
    env = merged_env(at(artifact, "spec.env", []), config.env)
    shards = reading.value("shards", ANNOTATION_SHARDS, _shards, 1)
    access_mode = reading.value(
        "accessMode", ANNOTATION_ACCESS_MODE, _access_mode, options.access_mode
    )
    asked = reading.value("resources", ANNOTATION_RESOURCES, _resources, None)
    resources = options.resources if asked is None else asked
    size = reading.value("size", None, _size, 0)
    if shards > 1 and access_mode != READ_WRITE_MANY:
        problems.append(
            f"{shards} shards cannot write to one {access_mode} volume: ask for one shard,"
            f" or for {READ_WRITE_MANY} with the annotation {ANNOTATION_ACCESS_MODE}"
        )
    if shards > 1 and not ours:
        problems.append(f"{shards} shards need our image, and {image} is not: ask for one shard")
    pull_secrets = tuple(at(artifact, "spec.imagePullSecrets", []))
    source_uri = str(at(artifact, "spec.sourceUri", ""))
    marks = annotations_of(artifact)
    retry, foreign = marks.get(ANNOTATION_RETRY, ""), marks.get(ANNOTATION_FOREIGN_IMAGE, "")
    return Order(
        source_uri=source_uri,
        image=image,
        ours=ours,
        pull_secrets=pull_secrets,
        env=env,
        size=size or None,
        headroom_percent=config.headroom_percent,
        storage_class=at(artifact, "spec.storageClassName") or config.storage_class,
        access_mode=access_mode,
        shards=shards,
        resources=resources,
        pod=options.pod,
        problems=tuple(problems),
        inputs=inputs_hash(
            source_uri, named, foreign, pull_secrets, env, size, shards, asked, retry
        ),
        defaults=inputs_hash(image, resources, options.pod),
    )


@dataclass(frozen=True)
class _Reading:
    """Reads fields; what cannot be read is a problem, and counts as not there."""

    artifact: Object
    problems: list[str]

    def value(self, field: str, annotation: str | None, read: Callable[[Any], T], default: T) -> T:
        where, found = f"spec.{field}", at(self.artifact, f"spec.{field}")
        if found is None and annotation:
            where, found = f"annotation {annotation}", annotations_of(self.artifact).get(annotation)
        if found is None or found == "":
            return default
        try:
            return read(found)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")
            return default


def _named_image(artifact: Object, options: Options) -> str:
    """The image that somebody wants; empty where nobody does."""
    named: str = at(artifact, "spec.modelDownloadImage", "")
    return named if named != ENGINE_IMAGE or options.keep_engine_image else ""


def _is_ours(artifact: Object, image: str) -> bool:
    """An image is ours unless the annotation says otherwise, or it is known to be another's."""
    said = annotations_of(artifact).get(ANNOTATION_FOREIGN_IMAGE)
    if said is not None:
        return said != "true"
    return not any(known in image for known in _FOREIGN)


def _shards(value: str | int) -> int:
    text = str(value)
    number = int(text) if _NUMBER.fullmatch(text) else 0
    if not 1 <= number <= MOST_SHARDS:
        raise ValueError(f"{text[:50]!r} is no number from 1 to {MOST_SHARDS}")
    return number


def _size(value: str | int) -> int:
    size = parse_quantity(value)
    if size > LARGEST:
        raise ValueError(f"{value!r} is more than any model has")
    return size


def _access_mode(value: str) -> str:
    if value not in ACCESS_MODES:
        raise ValueError(f"{value!r} is none of {', '.join(ACCESS_MODES)}")
    return value


def _resources(value: str | Object) -> Object:
    try:
        read = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        read = None
    return resources_of(read)
