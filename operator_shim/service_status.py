"""What a service's status says, and what people are told when it changes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from operator_shim.cache_spec import DEDICATED, SHARED
from operator_shim.caching_mode import deprecations
from operator_shim.doubts import doubts
from operator_shim.models import is_model_usable
from operator_shim.objects import (
    ANNOTATION_PAUSED,
    Object,
    at,
    condition_of,
    generation_of,
    is_deleted,
    is_paused,
    name_of,
    reference_to,
)
from operator_shim.ranking import is_usable, state_of
from operator_shim.runtime_config import Missing
from operator_shim.service_cache import cache_state
from operator_shim.service_observed import Observation
from operator_shim.serving import INFERENCE_SERVICE, address_of, bounds_for_autoscaler
from operator_shim.telling import Condition, EventNote, Verdict, written
from operator_shim.unready import how_it_is
from operator_shim.unserved import unserved

RUNNING, STARTING, PENDING, DEGRADED, FAILED = (
    *("Running", "Starting", "Pending", "Degraded", "Failed"),
)

_IN_TROUBLE = (DEGRADED, FAILED)
_OF_OTHERS = {"Failed": FAILED, "Degraded": DEGRADED}
"""What an unready model, template or cache makes of a service; all else lets it wait."""
_OLDER_WORDS, _UNSERVED = "DeprecatedFields", "UnservedFields"
_OF_FIELDS = {_OLDER_WORDS: "DeprecatedField", _UNSERVED: "UnservedField"}
"""Conditions that are not well where they are true, and the reasons of those and of Events."""
_BETWEEN = "; "
"""Stands between what they say of each field, of which each has an Event."""
_HINTS = {
    "ImageNotFound": "correct the image of the model, or push it",
    "ImagePullAuthFailure": "name a Secret with the registry's password in spec.imagePullSecrets",
    "ImagePullBackOff": "see that the node reaches the registry",
    "CrashLoopBackOff": "see `kubectl logs`",
    "CreateContainerConfigError": "correct spec.env, or let the image run as a user of its own",
    "FailedScheduling": "free a node, or add one",
}
"""For what a pod that serves waits for, where the usual words mean downloads."""
_OF_DOWNLOADS = ("modelDownloadImage", "kubectl describe pod", "--pod")


@dataclass(frozen=True)
class _Part:
    """One thing that the service needs, and what the service is while it has not got it."""

    condition: Condition
    otherwise: str = PENDING


def status_of(seen: Observation) -> Object:
    """All of the status that is ours to tell."""
    before = at(seen.service, "status", {})
    status: Object = {
        "status": verdict_of(seen).status,
        "observedGeneration": generation_of(seen.service),
        "conditions": [written(each, seen.service, seen.now) for each in _conditions(seen)],
        **_references(seen, before),
    }
    if seen.config_reference:
        status["resolvedRuntimeConfig"] = seen.config_reference
    if server := seen.server:
        status["runtime"] = {
            "currentReplicas": server.replicas,
            "desiredReplicas": server.wanted,
            "replicas": str(server.replicas),
        }
    return status


def verdict_of(seen: Observation) -> Verdict:
    """How it is with the service as a whole, said so that one look at it is enough."""
    if seen.refusal:
        said = f"the API server refuses: {seen.refusal}; it is tried again"
        return Verdict(DEGRADED, "InfrastructureError", said)
    missing = next((part for part in _parts(seen) if not part.condition.true), None)
    if missing is None:
        where = address_of(seen.server_object or {})
        said = f"{seen.form} {_server_name(seen)} serves {name_of(seen.model or {})}"
        said = f"{said} at {where}" if where else said
        said = f"{said}; {more}" if (more := _on_its_way(seen)) else said
        if _is_switched_off(seen):
            said = f"{seen.form} {_server_name(seen)} is scaled to 0: nothing serves"
        return Verdict(RUNNING, "AllComponentsReady", said)
    told, state = missing.condition, missing.otherwise
    if seen.is_serving:
        said = f"{told.message}; {seen.form} {_server_name(seen)} goes on with what it has"
        return Verdict(DEGRADED, told.reason, said)
    reason = told.reason if state in _IN_TROUBLE else "Progressing"
    return Verdict(state, reason, told.message)


def events_of(before: Object, after: Object) -> list[EventNote]:
    """What to tell people when the status turns from one into the other."""
    notes = []
    for kind, reason in _OF_FIELDS.items():
        was, now = (
            at(condition_of(each, kind) or {}, "message", "").split(_BETWEEN)
            for each in (before, after)
        )
        notes += [EventNote("Warning", reason, each) for each in now if each and each not in was]
    if _summary(before) != _summary(after):
        state, reason = _summary(after)
        message = at(condition_of(after, "Ready") or {}, "message", "")
        if state == RUNNING:
            notes.append(EventNote("Normal", RUNNING, message))
        elif state in _IN_TROUBLE:
            notes.append(EventNote("Warning", reason, message))
        elif _summary(before)[0] == RUNNING:
            notes.append(EventNote("Warning", "NotRunning", message))
        else:
            notes.append(EventNote("Normal", state, message))
    return notes


def _conditions(seen: Observation) -> Iterator[Condition]:
    verdict = verdict_of(seen)
    yield Condition("Ready", verdict.status == RUNNING, verdict.reason, verdict.message)
    for part in _parts(seen):
        yield part.condition
    told = {_OLDER_WORDS: deprecations(seen.service), _UNSERVED: unserved(seen)}
    for kind, words in told.items():
        if words:
            yield Condition(kind, True, _OF_FIELDS[kind], _BETWEEN.join(words))
    yield from doubts(verdict, seen.service)


def _parts(seen: Observation) -> tuple[_Part, ...]:
    """In the order in which they are needed."""
    return (_config(seen), _model(seen), _template(seen), _cache(seen), _server(seen))


# -- the parts ---------------------------------------------------------------------------------


def _config(seen: Observation) -> _Part:
    config, kind = seen.config, "RuntimeConfigReady"
    if isinstance(config, Missing):
        return _Part(Condition(kind, False, "ReferenceNotFound", config.message), FAILED)
    if config.found:
        said = f"{config.found} is taken into account"
        return _Part(Condition(kind, True, "ConfigFound", said))
    said = "there is no runtime config: none is needed"
    return _Part(Condition(kind, True, "DefaultConfigNotFound", said))


def _model(seen: Observation) -> _Part:
    model, kind = seen.model, "ModelReady"
    if model is None:
        reason = "ReferenceNotFound" if seen.found_model.is_served else "InvalidSpec"
        return _Part(Condition(kind, False, reason, seen.found_model.problem), FAILED)
    if not is_model_usable(model):
        said = f"{_named(model)} is {state_of(model)}{_why(model)}"
        return _Part(Condition(kind, False, "ModelNotReady", said), _of_other(model))
    if not at(model, "spec.image"):
        said = f"{_named(model)} names no image: say in its spec.image what serves it"
        return _Part(Condition(kind, False, "InvalidSpec", said), FAILED)
    return _Part(Condition(kind, True, "ModelResolved", f"{_named(model)} is used"))


def _template(seen: Observation) -> _Part:
    template, kind = seen.template, "TemplateReady"
    if template is None:
        return _Part(Condition(kind, False, seen.choice.reason, seen.choice.problem), FAILED)
    if not is_usable(template):
        said = how_it_is(template)
        return _Part(Condition(kind, False, "TemplateNotReady", said), _of_other(template))
    return _Part(Condition(kind, True, "Resolved", f"{_named(template)} is used"))


def _cache(seen: Observation) -> _Part:
    cache = seen.cache
    if seen.is_cached:
        said = f"all models of {_named(cache or {})} are there"
        return _Part(Condition("CacheReady", True, "CacheReady", said))
    if seen.has_lost_cache and seen.mode == SHARED:
        is_going = seen.obstacle is not None and is_deleted(seen.obstacle)
        said = _awaited(seen) if is_going else f"{_lost(seen)}; {_awaited(seen)}"
        return _Part(Condition("CacheReady", False, "CacheLost", said), DEGRADED)
    if seen.obstacle is not None and not is_deleted(seen.obstacle):
        return _Part(Condition("CacheReady", False, "CacheFailed", _in_the_way(seen)), FAILED)
    state = cache_state(cache) if cache else PENDING
    reasons = {"Failed": "CacheFailed", "Progressing": "CacheNotReady"}
    otherwise = _OF_OTHERS.get(state, STARTING)
    if seen.has_lost_cache:
        otherwise = DEGRADED
    reason = reasons.get(state, "CacheCreating")
    return _Part(Condition("CacheReady", False, reason, _awaited(seen)), otherwise)


def _server(seen: Observation) -> _Part:
    kind, server, name = f"{seen.form}Ready", seen.server, _server_name(seen)
    if seen.bearer is not None:
        return _kept_out(kind, seen.bearer, is_going=seen.is_bearer_going)
    if server is None:
        said = f"{seen.form} is made once all that it needs is there"
        return _Part(Condition(kind, False, "ResourceNotReady", said), STARTING)
    if server.is_available and not _is_stuck(seen):
        said = f"{seen.form} {name} is available"
        said = f"{said}; {more}" if (more := _on_its_way(seen)) else said
        return _Part(Condition(kind, True, "Ready", said))
    if seen.pod_trouble:
        _, outcome = seen.pod_trouble
        state = STARTING if outcome.status == "Pending" else DEGRADED
        said = f"{seen.form} {name}: {_of_pod(seen)}"
        return _Part(Condition(kind, False, outcome.reason, said), state)
    if server.trouble:
        said = f"{seen.form} {name}: {server.trouble}"
        return _Part(Condition(kind, False, "ServerFailed", said), DEGRADED)
    said = f"{seen.form} {name} is starting: {server.replicas} of {server.wanted} replicas are up"
    return _Part(Condition(kind, False, "ServerStarting", said), STARTING)


def _kept_out(kind: str, bearer: Object, *, is_going: bool) -> _Part:
    """What it is while something else bears the server's name."""
    if is_going:
        said = f"{_named(bearer)} of before is being deleted, and is made anew then"
        return _Part(Condition(kind, False, "ResourceNotReady", said), STARTING)
    said = f"{_named(bearer)} is there, and belongs to somebody else: delete it"
    return _Part(Condition(kind, False, "ServerFailed", said), FAILED)


# -- words -------------------------------------------------------------------------------------


def _awaited(seen: Observation) -> str:
    """How the cache is that it waits for."""
    cache, template = seen.cache, seen.template
    if cache is not None:
        paused = f"paused: take its annotation {ANNOTATION_PAUSED} off"
        return f"{_named(cache)} is " + (
            paused if is_paused(cache) else f"{cache_state(cache)}{_why(cache)}"
        )
    if template is None:
        return "which cache it needs follows from the template"
    if seen.obstacle is not None:
        return f"AIMTemplateCache {name_of(seen.obstacle)} is being deleted, and is made anew then"
    if not is_usable(template):
        return f"a cache is made once {_named(template)} is Ready"
    if not at(template, "status.modelSources"):
        return (
            f"{_named(template)} is Ready, but says of no model: name them in its spec.modelSources"
        )
    return f"AIMTemplateCache {seen.cache_name} is about to be made"


def _lost(seen: Observation) -> str:
    known = at(seen.service, "status.cache.templateCacheRef.name", "")
    if seen.cache and name_of(seen.cache) == known:
        return "the AIMTemplateCache that it has used is gone, and there is a new one"
    return f"AIMTemplateCache {known}, which it has used, is gone"


def _in_the_way(seen: Observation) -> str:
    name = name_of(seen.obstacle or {})
    whose = "belongs to another" if seen.mode == DEDICATED else "is of another template or mode"
    return f"AIMTemplateCache {name} {whose}: delete it, and one for this service is made"


def _is_switched_off(seen: Observation) -> bool:
    """Whether nobody is to serve; where KServe scales to 0 it wakes up by itself."""
    server = seen.server
    wakes_up = seen.form == INFERENCE_SERVICE and bounds_for_autoscaler(seen.service)
    return server is not None and not server.wanted and not wakes_up


def _is_stuck(seen: Observation) -> bool:
    """Whether what was asked for last does not come up, be there what serves or not."""
    server, trouble = seen.server, seen.pod_trouble
    if server is None or server.is_current:
        return False
    return bool(server.trouble) or (trouble is not None and trouble[1].status != "Pending")


def _on_its_way(seen: Observation) -> str:
    """How it is with what was asked for last, while that is not all there."""
    if seen.server is None or seen.server.is_current:
        return ""
    said = "some of it is still on its way"
    return f"{said}: {_of_pod(seen)}" if seen.pod_trouble else said


def _of_pod(seen: Observation) -> str:
    """What a pod waits for, and what helps."""
    if seen.pod_trouble is None:
        return ""
    pod, outcome = seen.pod_trouble
    hint = outcome.hint
    if not hint or any(word in hint for word in _OF_DOWNLOADS):
        hint = _HINTS.get(outcome.reason, hint)
    if outcome.reason == "FailedScheduling" and seen.is_serving:
        hint = f"{hint}; where there is room for one only, set spec.replicas to 0, and back"
    return f"pod {pod}: " + "; ".join(filter(None, (outcome.message, hint)))


def _named(object_: Object) -> str:
    return f"{object_['kind']} {name_of(object_)}"


def _why(object_: Object) -> str:
    message = at(condition_of(object_, "Ready") or {}, "message", "")
    return f": {message}" if message else ""


def _of_other(object_: Object) -> str:
    return _OF_OTHERS.get(state_of(object_), PENDING)


def _server_name(seen: Observation) -> str:
    return name_of(seen.server_object or {})


def _references(seen: Observation, before: Object) -> Object:
    """What it uses; what it has used last stands until there is something new."""
    told: Object = {
        field: before[field]
        for field in ("resolvedModel", "resolvedTemplate", "cache")
        if before.get(field)
    }
    if seen.model is not None and is_model_usable(seen.model):
        told["resolvedModel"] = reference_to(seen.model)
    if seen.template is not None and is_usable(seen.template):
        told["resolvedTemplate"] = reference_to(seen.template)
    if seen.cache is not None and seen.is_cached:
        told["cache"] = {"templateCacheRef": reference_to(seen.cache)}
    return told


def _summary(service: Object) -> tuple[str, str]:
    ready = condition_of(service, "Ready") or {}
    return at(service, "status.status", ""), ready.get("reason", "")
