"""Which models a cache is to have, and when two sources are the same model. Pure.

A URI alone does not say which model it is: the same path in two stores is two models, and so are
its weights in two formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from operator_shim.objects import Object, at
from operator_shim.runtime_config import merged_env

_ENDPOINTS = {"hf": "HF_ENDPOINT", "s3": "AWS_ENDPOINT_URL"}
"""The variable that says where a scheme's server is."""
_USUAL = "https://huggingface.co"
_KEPT = {
    "AIM_DOWNLOADER_FORMAT": "",
    "AIM_DOWNLOADER_LAYOUT": "plain",
    "AIM_DEBUG_SIMULATE_DOWNLOAD": "",
    "AIM_DEBUG_SIMULATE_HF_DOWNLOAD": "",
}
"""The variables that say what of a model is kept, and how; and what they mean where nobody does."""
_REFERENCE = re.compile(r"\$\(([^()]+)\)")


class Identity(NamedTuple):
    """Two sources with the same identity are the same model."""

    uri: str
    """With the revision, where it names one."""
    endpoint: str
    """Where the model is asked for; empty for the usual place."""
    kept: tuple[str, ...]
    """What of it is kept, and how, where that is not as usual."""


@dataclass(frozen=True)
class Source:
    """A model that a cache is to have."""

    models: tuple[str, ...]
    """Its names, at each of which it is to be seen."""
    uri: str
    env: tuple[Object, ...]
    """The source's over the cache's."""
    size: str | int | None
    identity: Identity
    is_of_config: bool
    """Whether it is the runtime config that says which model that is."""


def identity_of(uri: str, *layers: Sequence[Object]) -> Identity:
    """What this URI means with these layers of env, the first over the later ones."""
    said = _values(merged_env(*layers))
    endpoint = said.get(_ENDPOINTS.get(uri.partition("://")[0], ""), "").rstrip("/")
    kept = {name: said.get(name, "") for name in _KEPT}
    return Identity(
        uri.rstrip("/"),
        "" if endpoint == _USUAL else endpoint,
        tuple(f"{name}={value}" for name, value in kept.items() if value not in ("", _KEPT[name])),
    )


def sources_of(
    entries: Iterable[Object], env: Sequence[Object], config_env: Sequence[Object]
) -> tuple[Source, ...]:
    """The models of a list of ``modelSources``, each of them once."""
    found: dict[Identity, Source] = {}
    for entry in entries:
        merged = merged_env(at(entry, "env", []), env)
        uri = str(at(entry, "sourceUri", ""))
        identity = identity_of(uri, merged, config_env)
        source = Source(
            models=(str(at(entry, "modelId", "")),),
            uri=uri,
            env=merged,
            size=at(entry, "size") or None,
            identity=identity,
            is_of_config=identity != identity_of(uri, merged),
        )
        first = found.setdefault(identity, source)
        if not set(source.models) <= set(first.models):
            found[identity] = replace(first, models=first.models + source.models)
    return tuple(found.values())


def _values(env: Sequence[Object]) -> dict[str, str]:
    """What a container would see. A later entry may refer to an earlier one."""
    known: dict[str, str] = {}
    for entry in env:
        # What a Secret or a ConfigMap holds is not read: the reference stands for it.
        if reference := entry.get("valueFrom"):
            value = json.dumps(reference, sort_keys=True)
        else:
            value = str(entry.get("value") or "")
            value = _REFERENCE.sub(lambda found: known.get(found[1], found[0]), value)
        known[entry["name"]] = value
    return known
