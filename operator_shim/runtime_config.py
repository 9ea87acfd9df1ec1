"""What a runtime config says, a namespaced one over the cluster's, and how layers of env merge.

What is present counts, be it zero, false or empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any

from operator_shim.keys import CLUSTER_RUNTIME_CONFIG, RUNTIME_CONFIG
from operator_shim.objects import GROUP, Object, at, reference_to

DEFAULT_NAME = "default"
DEFAULT_HEADROOM_PERCENT = 10

# Its value is a JSON object, and merges as one.
_ENGINE_ARGS = "AIM_ENGINE_ARGS"
_DEPRECATED = ("defaultStorageClassName", "pvcHeadroomPercent")


@dataclass(frozen=True)
class RuntimeConfig:
    """What holds for one consumer; the defaults where no config says otherwise."""

    storage_class: str | None = None
    headroom_percent: int = DEFAULT_HEADROOM_PERCENT
    env: tuple[Object, ...] = ()
    propagate_labels: bool = False
    propagated_keys: tuple[str, ...] = ()
    """Globs; ``*`` stays within what is between two slashes."""
    found: str = ""
    """Which objects say so, for people; empty where there is none."""


@dataclass(frozen=True)
class Missing:
    """A config that a consumer names, and that is nowhere."""

    name: str
    message: str


def config_name(object_: Object) -> str:
    """The runtime config that an object names, or the default one."""
    return str(at(object_, "spec.runtimeConfigName") or DEFAULT_NAME)


def reference_to_config(found: Iterable[Object]) -> Object:
    """Which config counts; of two that are merged the namespaced one, which comes first."""
    configs = list(found)
    if not configs:
        return {}
    merged = {"scope": "Merged"} if len(configs) > 1 else {}
    return reference_to(configs[0]) | merged


def resolve(
    name: str, namespaced: Object | None, cluster: Object | None
) -> RuntimeConfig | Missing:
    """What the two objects of this name say together; the name may be empty for the default."""
    name = name or DEFAULT_NAME
    if namespaced is None and cluster is None and name != DEFAULT_NAME:
        return Missing(
            name,
            f"there is no AIMRuntimeConfig {name!r} in this namespace and no"
            f" AIMClusterRuntimeConfig {name!r}: create one, or correct spec.runtimeConfigName",
        )
    # The more telling one last: its fields take the place of the other's.
    layers = [_spec_of(each) for each in (cluster, namespaced) if each is not None]
    return RuntimeConfig(
        storage_class=_first(layers, "storage.defaultStorageClassName", None) or None,
        headroom_percent=_first(layers, "storage.pvcHeadroomPercent", DEFAULT_HEADROOM_PERCENT),
        env=merged_env(*(at(layer, "env", []) for layer in reversed(layers))),
        propagate_labels=_first(layers, "labelPropagation.enabled", default=False),
        propagated_keys=tuple(_first(layers, "labelPropagation.match", ())),
        found=" over ".join(
            f"{kind} {name}"
            for kind, each in ((RUNTIME_CONFIG, namespaced), (CLUSTER_RUNTIME_CONFIG, cluster))
            if each is not None
        ),
    )


def merged_env(*layers: Sequence[Object]) -> tuple[Object, ...]:
    """Entries of all layers by name, the first layer over the later ones.

    An entry stands where the lowest layer has it: what is below may refer to it by ``$(NAME)``.
    """
    merged: dict[str, Object] = {}
    for layer in reversed(layers):
        for entry in layer:
            name = entry["name"]
            merged[name] = _over(entry, merged.get(name))
    return tuple(merged.values())


def propagated(labels: Mapping[str, str], config: RuntimeConfig) -> dict[str, str]:
    """Those labels of a parent that its children get: the group's own, and what the config says."""
    globs = config.propagated_keys if config.propagate_labels else ()
    return {
        key: value
        for key, value in labels.items()
        if key.startswith(f"{GROUP}/") or any(_fits(glob, key) for glob in globs)
    }


def _spec_of(config: Object) -> Object:
    """Its spec, with the deprecated fields where they belong now, unless something is there."""
    spec: Object = at(config, "spec", {})
    moved = {field: spec[field] for field in _DEPRECATED if spec.get(field) is not None}
    storage = {key: value for key, value in at(spec, "storage", {}).items() if value is not None}
    return spec | {"storage": moved | storage}


def _first(layers: Sequence[Object], path: str, default: Any) -> Any:
    """What the uppermost layer that has something at the path has there."""
    return reduce(lambda below, layer: at(layer, path, below), layers, default)


def _over(entry: Object, below: Object | None) -> Object:
    if entry["name"] != _ENGINE_ARGS or below is None:
        return entry
    upper, lower = _json_object(entry), _json_object(below)
    if upper is None or lower is None:
        return entry
    value = json.dumps(_deep_merged(upper, lower), sort_keys=True, separators=(",", ":"))
    return entry | {"value": value}


def _json_object(entry: Object) -> Object | None:
    try:
        read = json.loads(entry.get("value") or "")
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _deep_merged(upper: Object, lower: Object) -> Object:
    merged = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _deep_merged(value, below)
        else:
            merged[key] = value
    return merged


def _fits(glob: str, key: str) -> bool:
    """Whether a key is one of those that a path-style glob means."""
    # Piece by piece, as no star crosses a slash.
    globs, pieces = glob.replace("[^", "[!").split("/"), key.split("/")
    return len(globs) == len(pieces) and all(map(fnmatchcase, pieces, globs))
