"""What is known of one service: all that was fetched, read into one frozen Observation. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from operator_shim.caching_mode import mode_of
from operator_shim.choosing import Choice, choose, named_template
from operator_shim.keys import SERVICE
from operator_shim.models import FoundModel, find_model, is_model_usable
from operator_shim.objects import Object, at, is_deleted, labels_of, name_of, uid_of
from operator_shim.outcome import Outcome, outcome_of_pod
from operator_shim.ranking import READY, is_usable
from operator_shim.runtime_config import Missing, RuntimeConfig, reference_to_config, resolve
from operator_shim.service_cache import cache_name, cache_state, find_cache
from operator_shim.serving import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    KINDS_OF_FORM,
    Mount,
    Server,
    mounts_of_cache,
    mounts_of_server,
    server_of,
)

# They stay for a while, and others have taken their place.
_ENDED = ("Failed", "Succeeded")
_MADE_FROM = "pod-template-hash"
_ENFORCED = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True)
class Found:
    """What was fetched, as the server has it."""

    service: Object
    namespaced_config: Object | None = None
    cluster_config: Object | None = None
    models: Sequence[Object] = ()
    templates: Sequence[Object] = ()
    caches: Sequence[Object] = ()
    servers: Sequence[Object] = ()
    """What serves the service now, is controlled by it, and is to stay."""
    bearers: Sequence[Object] = ()
    """What else bears the server's name."""
    has_kserve: bool = False
    namespace: Object | None = None
    pods: Sequence[Object] = ()
    """Those of the server, where not all of it is as it should be."""
    events: Mapping[str, Sequence[Object]] = field(default_factory=dict)
    """Events by the UID of what they are about, where they are needed."""
    refusal: str = ""
    """What the API server did not let us do, in its words."""


@dataclass(frozen=True)
class Observation:
    """One service, and all that it needs, at one moment."""

    service: Object
    config: RuntimeConfig | Missing
    config_reference: Object
    mode: str
    found_model: FoundModel
    choice: Choice
    cache: Object | None
    """The one that is used, or waited for."""
    cache_name: str
    """That of the one that is made where there is none; empty while that is not known."""
    obstacle: Object | None
    """What bears the name of the cache that would be made, and cannot be used."""
    is_used_cache_gone: bool
    """Whether there was a cache that it used, and that is there no longer."""
    server_object: Object | None
    form: str
    bearer: Object | None
    """What bears the server's name, and is not to be taken over."""
    is_bearer_going: bool
    """Whether that is about to be gone by itself."""
    is_restricted: bool
    pod_trouble: tuple[str, Outcome] | None
    """A pod of the server that does not come up, and why."""
    refusal: str
    now: datetime

    @property
    def model(self) -> Object | None:
        """What is served."""
        return self.found_model.model

    @property
    def template(self) -> Object | None:
        """How it is served, and which models that takes."""
        return self.choice.template

    @property
    def server(self) -> Server | None:
        """How what serves it is doing; None while there is nothing."""
        return server_of(self.server_object) if self.server_object else None

    @property
    def is_serving(self) -> bool:
        """Whether something answers, whatever else may be."""
        return self.server is not None and self.server.is_available

    @property
    def needs_cache(self) -> bool:
        """Whether a cache is to be made now."""
        return (
            self.cache is None
            and self.obstacle is None
            and self.found_model.is_served
            and isinstance(self.config, RuntimeConfig)
            and self.template is not None
            and is_usable(self.template)
            and bool(at(self.template, "status.modelSources"))
        )

    @property
    def is_cached(self) -> bool:
        """Whether all models are there."""
        return self.cache is not None and cache_state(self.cache) == READY

    @property
    def has_lost_cache(self) -> bool:
        """Whether a server mounts what is left of a cache, and nothing else is Ready yet."""
        return self.is_used_cache_gone and self.server_object is not None and not self.is_cached

    @property
    def mounts(self) -> tuple[Mount, ...] | None:
        """The models that the server is to have; None while it is not to be made or changed."""
        model, config = self.model, self.config
        if model is None or self.template is None or isinstance(config, Missing):
            return None
        if self.bearer is not None:
            return None
        if self.is_cached and is_model_usable(model) and at(model, "spec.image"):
            return mounts_of_cache(self.cache or {})
        # It keeps what it has until there is something to take its place.
        return mounts_of_server(self.server_object) if self.server_object else None


def observe(found: Found, now: datetime) -> Observation:
    """What follows from what was fetched."""
    service = found.service
    named = named_template(service, found.templates)
    found_model = find_model(service, named, found.models)
    server = next(iter(found.servers), None)
    choice = choose(service, found_model.model, found.templates, is_served=server is not None)
    cache = find_cache(service, choice.template, found.caches) if choice.template else None
    wanted = cache_name(service, choice.template, found.caches) if choice.template else ""
    form = server["kind"] if server else INFERENCE_SERVICE if found.has_kserve else DEPLOYMENT
    bearers = [each for each in found.bearers if each["kind"] in KINDS_OF_FORM[form]]
    bearer = min(bearers, key=lambda each: _is_going(each, service), default=None)
    return Observation(
        service=service,
        config=resolve(
            at(service, "spec.runtimeConfigName", ""), found.namespaced_config, found.cluster_config
        ),
        config_reference=reference_to_config(
            each for each in (found.namespaced_config, found.cluster_config) if each
        ),
        mode=mode_of(service),
        found_model=found_model,
        choice=choice,
        cache=cache,
        cache_name=wanted,
        obstacle=next(
            (each for each in found.caches if not cache and name_of(each) == wanted), None
        ),
        is_used_cache_gone=_is_used_cache_gone(found),
        server_object=server,
        form=form,
        bearer=bearer,
        is_bearer_going=bearer is not None and _is_going(bearer, service),
        is_restricted=labels_of(found.namespace or {}).get(_ENFORCED) == "restricted",
        pod_trouble=_pod_trouble(found),
        refusal=found.refusal,
        now=now,
    )


def _is_going(bearer: Object, service: Object) -> bool:
    """Whether it is being deleted, or will be, as its service was made anew by the same name."""
    before = {"kind": SERVICE, "name": name_of(service), "controller": True}
    owners = at(bearer, "metadata.ownerReferences", [])
    return is_deleted(bearer) or any(before.items() <= owner.items() for owner in owners)


def _is_used_cache_gone(found: Found) -> bool:
    known = at(found.service, "status.cache.templateCacheRef.uid", "")
    living = {uid_of(each) for each in found.caches if not is_deleted(each)}
    return bool(known) and known not in living


def _newest(pods: Sequence[Object]) -> list[Object]:
    """The pods that are made from what was asked for last, but for those that are over."""
    living = [
        each for each in pods if at(each, "status.phase") not in _ENDED and not is_deleted(each)
    ]
    newest = max(living, key=lambda each: at(each, "metadata.creationTimestamp", ""), default={})
    made_from = labels_of(newest).get(_MADE_FROM)
    return [each for each in living if labels_of(each).get(_MADE_FROM) == made_from]


def _pod_trouble(found: Found) -> tuple[str, Outcome] | None:
    for pod in _newest(found.pods):
        if outcome := outcome_of_pod(pod, (), found.events.get(uid_of(pod), ())):
            return name_of(pod), outcome
    return None
