"""What a service asks for that nothing comes of here, each with what to do instead. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from operator_shim.keys import RUNTIME_CONFIG
from operator_shim.objects import Object, at, name_of, namespace_of
from operator_shim.runtime_config import Missing, RuntimeConfig, config_name
from operator_shim.service_observed import Observation
from operator_shim.serving import DEPLOYMENT, bounds_for_autoscaler, server_name
from operator_shim.sources import identity_of

_USUAL_HEADROOM = 10
"""What AIM Engine's own kind fills in where nobody says any."""


def unserved(seen: Observation) -> tuple[str, ...]:
    """One sentence for each such field."""
    config = RuntimeConfig() if isinstance(seen.config, Missing) else seen.config
    return (
        *_routing(seen.service, seen.form),
        *_scaling(seen.service, seen.form),
        *_headroom(seen.service, config),
        *_hardware(seen.service),
        *_env(seen, config),
    )


def _routing(service: Object, form: str) -> Iterator[str]:
    routing = at(service, "spec.routing")
    if routing and at(service, "spec.routing.enabled", True) is not False:
        # KServe makes that Service.
        name = server_name(service) + ("" if form == DEPLOYMENT else "-predictor")
        yield f"spec.routing: make an HTTPRoute to Service {name}, port 80"


def _scaling(service: Object, form: str) -> Iterator[str]:
    bounds = bounds_for_autoscaler(service)
    if bounds and form == DEPLOYMENT:
        name = server_name(service)
        least, most = (max(each, 1) for each in bounds)
        yield (
            f"spec.minReplicas, maxReplicas and autoScaling are left to an autoscaler of yours, as"
            f" `kubectl autoscale deployment {name} -n {namespace_of(service)} --min={least}"
            f" --max={most}`: Deployment {name} has one pod until then"
        )


def _headroom(service: Object, config: RuntimeConfig) -> Iterator[str]:
    asked = at(service, "spec.storage.pvcHeadroomPercent")
    if asked is not None and asked not in (_USUAL_HEADROOM, config.headroom_percent):
        yield (
            f"spec.storage.pvcHeadroomPercent {asked}: set storage.pvcHeadroomPercent of"
            f" {RUNTIME_CONFIG} {config_name(service)!r} before the claims are made"
        )


def _hardware(service: Object) -> Iterator[str]:
    if at(service, "spec.overrides.hardware"):
        yield (
            "spec.overrides.hardware: name a template for this hardware with spec.template.name, in"
            " a new service"
        )


def _env(seen: Observation, config: RuntimeConfig) -> Iterator[str]:
    """Of a cache that was made by other words; a token does not say which model it is."""
    said, its = (at(each or {}, "spec.env", []) for each in (seen.service, seen.cache))
    sources = [
        (at(each, "sourceUri", ""), at(each, "env", []))
        for each in at(seen.template or {}, "status.modelSources", [])
    ]
    if seen.cache and any(
        identity_of(uri, env, said, its, config.env) != identity_of(uri, env, its, config.env)
        for uri, env in sources
    ):
        yield (
            f"spec.env: AIMTemplateCache {name_of(seen.cache)} has its models from another"
            " endpoint, or in another format: if that is not right, make the service anew with"
            " caching mode Dedicated"
        )
