"""How it is with a template that cannot be used yet, and what helps. Pure."""

from __future__ import annotations

from operator_shim.objects import Object, at, condition_of, name_of


def how_it_is(template: Object) -> str:
    """One sentence about it."""
    name = f"{template['kind']} {name_of(template)}"
    state = at(template, "status.status", "")
    said = at(condition_of(template, "Ready") or {}, "message", "")
    if said:
        return f"{name} is {state or 'Pending'}: {said}"
    if at(template, "status.modelSources"):
        return f"{name} is {state or 'Pending'}"
    is_so = f"is {state}" if state else "says nothing yet"
    return (
        f"{name} {is_so}: nobody has found out yet which models it takes; AIM Engine does that, or"
        " name them in its spec.modelSources"
    )
