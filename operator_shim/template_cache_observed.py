"""What is known of one template cache: all that was fetched, read into one Observation. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from operator_shim import names
from operator_shim.cache_spec import DEDICATED, mode_of_cache
from operator_shim.holding import progress_of
from operator_shim.keys import ARTIFACT
from operator_shim.matching import Shelf, Wanted
from operator_shim.objects import Object, at, name_of, uid_of
from operator_shim.ranking import worst
from operator_shim.runtime_config import (
    DEFAULT_NAME,
    Missing,
    RuntimeConfig,
    config_name,
    reference_to_config,
    resolve,
)
from operator_shim.sources import Source, sources_of

_DIGITS = 10


@dataclass(frozen=True)
class Found:
    """What was fetched, as the server has it."""

    cache: Object
    template: Object | None = None
    namespaced_configs: Sequence[Object] = ()
    cluster_configs: Sequence[Object] = ()
    artifacts: Sequence[Object] = ()
    """Of both kinds, the preferred one first."""
    default_class: str = ""
    refusal: str = ""
    """What the API server did not let us do, in its words."""


@dataclass(frozen=True)
class Place:
    """A source, and what holds it."""

    source: Source
    artifact: Object | None
    """That which holds it, or will."""
    name: str
    """That of the artifact to be made where none is there."""
    obstacle: Object | None = None
    """What bears this name, and cannot be used."""

    @property
    def state(self) -> str:
        """How far the model is."""
        return "Progressing" if self.artifact is None else progress_of(self.artifact)


@dataclass(frozen=True)
class Observation:
    """One template cache at one moment."""

    cache: Object
    config: RuntimeConfig | Missing
    config_reference: Object
    """Which runtime config that is; empty where there is none."""
    template: Object | None
    places: tuple[Place, ...]
    refusal: str
    now: datetime

    @property
    def is_blocked(self) -> bool:
        """Whether something that it names must come first."""
        return self.template is None or isinstance(self.config, Missing)

    @property
    def worst(self) -> Place | None:
        """The source that is the furthest from being there."""
        state = worst(place.state for place in self.places)
        return next((place for place in self.places if place.state == state), None)


def observe(found: Found, now: datetime) -> Observation:
    """What follows from what was fetched."""
    cache = found.cache
    config_of = _configs(found)
    config = config_of(config_name(cache))
    usable = _usable(config)
    entries = at(cache, "spec.modelSources") or at(found.template or {}, "status.modelSources", [])
    sources = sources_of(entries, at(cache, "spec.env", []), usable.env)
    shelf = Shelf(
        found.artifacts, lambda name: _usable(config_of(name or DEFAULT_NAME)), found.default_class
    )
    return Observation(
        cache=cache,
        config=config,
        config_reference=reference_to_config(
            each
            for each in (*found.namespaced_configs, *found.cluster_configs)
            if name_of(each) == config_name(cache)
        ),
        template=found.template,
        places=tuple(_place(cache, source, shelf) for source in sources),
        refusal=found.refusal,
        now=now,
    )


def artifact_name(cache: Object, source: Source) -> str:
    """The artifact that is made for a source; all Shared caches that want the same one agree."""
    hashed: list[object] = [
        source.uri,
        list(source.env) or None,
        at(cache, "spec.storageClassName", ""),
    ]
    if mode_of_cache(cache) == DEDICATED:
        hashed += ["dedicated", name_of(cache)]
    if source.is_of_config:
        # As AIM Engine has it, configs do not count: then there are two models of one name.
        hashed += [source.identity.endpoint, *source.identity.kept]
    return names.derived_name([source.uri], hashed, digits=_DIGITS)


def _place(cache: Object, source: Source, shelf: Shelf) -> Place:
    owner = uid_of(cache) if mode_of_cache(cache) == DEDICATED else None
    in_use = {at(each, "uid", "") for each in at(cache, "status.artifacts", {}).values()}
    wanted = Wanted(owner, at(cache, "spec.storageClassName", ""), in_use)
    holder, name = shelf.holder(source, wanted), artifact_name(cache, source)
    bearers = [] if holder else shelf.artifacts
    obstacle = next((each for each in bearers if _bears(each, name)), None)
    return Place(source, holder, name, obstacle)


def _bears(artifact: Object, name: str) -> bool:
    return bool(artifact["kind"] == ARTIFACT and name_of(artifact) == name)


def _configs(found: Found) -> Callable[[str], RuntimeConfig | Missing]:
    namespaced = {name_of(each): each for each in found.namespaced_configs}
    of_cluster = {name_of(each): each for each in found.cluster_configs}
    return lambda name: resolve(name, namespaced.get(name), of_cluster.get(name))


def _usable(config: RuntimeConfig | Missing) -> RuntimeConfig:
    return config if isinstance(config, RuntimeConfig) else RuntimeConfig()
