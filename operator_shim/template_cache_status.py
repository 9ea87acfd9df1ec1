"""What a template cache's status says, and what people are told when it changes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from operator_shim.cache_spec import template_kinds, template_name
from operator_shim.doubts import doubts
from operator_shim.holding import claim_of
from operator_shim.objects import (
    LABEL_TEMPLATE_CREATED,
    Object,
    at,
    condition_of,
    generation_of,
    is_deleted,
    is_paused,
    labels_of,
    name_of,
    uid_of,
)
from operator_shim.ranking import READY, is_usable, rank, state_of, worst
from operator_shim.runtime_config import Missing
from operator_shim.telling import Condition, EventNote, Verdict, written
from operator_shim.template_cache_observed import Observation, Place
from operator_shim.unready import how_it_is, how_it_rests

_TROUBLE = ("Failed", "Degraded", "NotAvailable")
_FINE = ("AllComponentsReady", "Progressing")


@dataclass(frozen=True)
class _Part:
    """How it is with one thing that the cache needs."""

    state: str
    condition: Condition

    @property
    def reason(self) -> str:
        """What the whole says when this part is to blame."""
        return self.condition.reason if rank(self.state) < rank("Pending") else "Progressing"


def status_of(seen: Observation) -> Object:
    """All of the status."""
    artifacts = _entries(seen.places)
    if seen.template is None and not seen.places:
        # Which models they are is not known any more; that they are this cache's, is.
        artifacts = at(seen.cache, "status.artifacts", {})
    status: Object = {
        "status": _verdict(seen).status,
        "observedGeneration": generation_of(seen.cache),
        "conditions": [written(each, seen.cache, seen.now) for each in _conditions(seen)],
        "artifacts": artifacts,
    }
    if at(seen.cache, "spec.templateRef"):
        status["modelCaches"] = artifacts
    if seen.template is not None:
        status["resolvedTemplateKind"] = seen.template["kind"]
    if seen.config_reference:
        status["resolvedRuntimeConfig"] = seen.config_reference
    return status


def events_of(before: Object, after: Object) -> list[EventNote]:
    """What to tell people when the status turns from one into the other."""
    was, now = (_summary(each) for each in (before, after))
    if was == now:
        return []
    state, reason, message = *now, at(condition_of(after, "Ready") or {}, "message", "")
    if state == READY:
        return [EventNote("Normal", "Ready", message)]
    if state in _TROUBLE:
        return [EventNote("Warning", reason, message)]
    return [EventNote("Warning", "ModelsMissing", message)] if was[0] == READY else []


# -- the whole ---------------------------------------------------------------------------------


def _verdict(seen: Observation) -> Verdict:
    """The worst of what is the case, said so that one look at it is enough."""
    if seen.refusal:
        said = f"the API server refuses: {seen.refusal}; it is tried again"
        return Verdict("Degraded", "InfrastructureError", said)
    parts = (_of_config(seen), _of_template(seen), _of_artifacts(seen))
    state = worst(part.state for part in parts)
    if state == READY:
        return Verdict(READY, "AllComponentsReady", parts[-1].condition.message)
    part = next(each for each in parts if each.state == state)
    return Verdict(state, part.reason, part.condition.message)


def _conditions(seen: Observation) -> Iterator[Condition]:
    verdict = _verdict(seen)
    yield Condition("Ready", verdict.status == READY, verdict.reason, verdict.message)
    yield _of_config(seen).condition
    yield _of_template(seen).condition
    yield _of_artifacts(seen).condition
    yield from doubts(verdict, seen.cache)


# -- the parts ---------------------------------------------------------------------------------


def _of_config(seen: Observation) -> _Part:
    kind, config = "RuntimeConfigReady", seen.config
    if isinstance(config, Missing):
        return _Part("Failed", Condition(kind, False, "ReferenceNotFound", config.message))
    if config.found:
        said = f"{config.found} is taken into account"
        return _Part(READY, Condition(kind, True, "ConfigFound", said))
    said = "there is no runtime config: none is needed"
    return _Part(READY, Condition(kind, True, "DefaultConfigNotFound", said))


def _of_template(seen: Observation) -> _Part:
    kind, template = "ServiceTemplateReady", seen.template
    if template is None:
        return _Part("Failed", Condition(kind, False, "ReferenceNotFound", _missing(seen.cache)))
    name = f"{template['kind']} {name_of(template)}"
    told = condition_of(template, "Ready")
    state = str(at(template, "status.status", ""))
    if state == READY:
        reason = told["reason"] if told else "ResourceFound"
        return _Part(READY, Condition(kind, True, reason, f"{name} is Ready"))
    reason = told["reason"] if told and told["status"] == "False" else "ResourceFound"
    state = state if state in _TROUBLE else "Pending"
    return _Part(state, Condition(kind, False, reason, how_it_is(template)))


def _missing(cache: Object) -> str:
    name = template_name(cache)
    kinds = template_kinds(cache)
    places = {"AIMServiceTemplate": " in this namespace"}
    looked = " and no ".join(f"{kind} {name!r}{places.get(kind, '')}" for kind in kinds)
    scope = "spec.templateScope" if len(kinds) == 1 else "the name"
    return f"there is no {looked}: create one, or make the cache anew with {scope} corrected"


def _of_artifacts(seen: Observation) -> _Part:
    kind, places = "ArtifactsReady", seen.places
    if not places:
        return _without_sources(seen)
    there = [place for place in places if place.state == READY]
    counted = f"{len(there)} of {len(places)} models are there"
    worst_place = seen.worst
    if worst_place is None or worst_place.state == READY:
        said = "the model is there" if len(places) == 1 else f"all {len(places)} models are there"
        return _Part(READY, Condition(kind, True, "AllCachesReady", said))
    said = f"{counted}; {_about(seen, worst_place)}"
    return _Part(worst_place.state, Condition(kind, False, _reason(worst_place), said))


def _without_sources(seen: Observation) -> _Part:
    kind = "ArtifactsReady"
    if seen.template is None:
        said = "which models there are to be is not known without the template"
    elif state_of(seen.template) == READY:
        said = (
            f"{seen.template['kind']} {name_of(seen.template)} is Ready and names no models:"
            " there is nothing to download; name them in its spec.modelSources or in that of the"
            " cache"
        )
    else:
        said = "the template does not say yet which models it takes"
    return _Part("Progressing", Condition(kind, False, "NoCaches", said))


def _reason(place: Place) -> str:
    if place.artifact is None:
        return "CreatingCaches"
    told = condition_of(place.artifact, "Ready")
    if told is None or told["status"] == "True" or told["reason"] in _FINE:
        return "CachesNotReady"
    return str(told["reason"])


def _about(seen: Observation, place: Place) -> str:
    """How it is with one model."""
    return f"{place.source.uri}: {_holder(seen, place)}"


def _holder(seen: Observation, place: Place) -> str:
    artifact, obstacle = place.artifact, place.obstacle
    if artifact is not None:
        return how_it_rests(artifact) if is_paused(artifact) else _about_holder(artifact)
    if obstacle is not None and is_deleted(obstacle):
        return f"AIMArtifact {place.name} is being deleted, and is made anew"
    if obstacle is not None:
        return (
            f"AIMArtifact {place.name} is there, and cannot be used, as it has another owner, class"
            " or endpoint: delete it"
        )
    if seen.is_blocked:
        return "no AIMArtifact holds it, and none is made before what is missing is there"
    return f"AIMArtifact {place.name} is about to be made"


def _about_holder(artifact: Object) -> str:
    said = f"{artifact['kind']} {name_of(artifact)} is {state_of(artifact)}"
    if is_usable(artifact):
        return f"{said}, and names no claim of its own: it is mounted once its status does"
    told = condition_of(artifact, "Ready") or {}
    if message := told.get("message"):
        said = f"{said}: {message}"
    has_reason = told.get("reason", "Progressing") not in _FINE
    is_stuck = has_reason and state_of(artifact) in ("Failed", "Pending")
    if is_stuck and LABEL_TEMPLATE_CREATED not in labels_of(artifact):
        said += "; no cache has made it: where it cannot be mended, delete it, and one is made anew"
    return said


def _entries(places: tuple[Place, ...]) -> Object:
    entries: Object = {}
    for place in places:
        if place.artifact is None:
            continue
        name = name_of(place.artifact)
        entry = {
            "name": name,
            "uid": uid_of(place.artifact),
            "model": place.source.models[0],
            "status": place.state,
        }
        if claim := claim_of(place.artifact):
            entry["persistentVolumeClaim"] = claim
        # An artifact and an older AIMModelCache may bear the same name.
        key = name if name not in entries else f"{name}-{place.artifact['kind'].lower()}"
        entries[key] = entry
        for model in place.source.models[1:]:
            # No object has such a name.
            entries[f"{key}/{model}"] = {**entry, "model": model}
    return entries


def _summary(cache: Object) -> tuple[str, str]:
    return at(cache, "status.status", ""), at(condition_of(cache, "Ready") or {}, "reason", "")
