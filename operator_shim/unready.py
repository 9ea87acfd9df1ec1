"""How it is with what cannot be used yet, and what helps. Pure."""

from __future__ import annotations

from operator_shim.objects import ANNOTATION_PAUSED, Object, at, condition_of, is_paused, name_of


def how_it_is(template: Object) -> str:
    """One sentence about a template, or a template cache."""
    if is_paused(template):
        return how_it_rests(template)
    name = f"{template['kind']} {name_of(template)}"
    state = at(template, "status.status", "")
    said = at(condition_of(template, "Ready") or {}, "message", "")
    if said:
        return f"{name} is {state or 'Pending'}: {said}"
    if at(template, "status.modelSources"):
        return f"{name} is {state or 'Pending'}"
    if at(template, "spec.modelSources") and not state:
        return f"{name} names its models itself, and is about to be Ready"
    is_so = f"is {state}" if state else "says nothing yet"
    return (
        f"{name} {is_so}: nobody has found out yet which models it takes; AIM Engine does that, or"
        " name them in its spec.modelSources"
    )


def how_it_rests(object_: Object) -> str:
    """One sentence about what is paused."""
    name = f"{object_['kind']} {name_of(object_)}"
    return f"{name} is paused: take its annotation {ANNOTATION_PAUSED} off"
