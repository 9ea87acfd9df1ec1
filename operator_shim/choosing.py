"""Which template a service uses: the one that it names, or the best of its model. Pure.

The best is, in this order: the one that is in use already; one that is Ready, then as the other
states rank; one whose profile is optimized, then one that says nothing, then preview, then
unoptimized; one of the namespace before one of the cluster; the first by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from operator_shim.examples import can_be_named, example
from operator_shim.keys import CLUSTER_TEMPLATE, TEMPLATE
from operator_shim.objects import Object, at, name_of, namespace_of, uid_of
from operator_shim.ranking import rank, state_of

_TYPES = {"optimized": 0, "": 1, "preview": 2, "unoptimized": 3}
_UNOPTIMIZED = ("preview", "unoptimized")
_OVERRIDES = ("metric", "precision")


@dataclass(frozen=True)
class Choice:
    """The template; None, and what is to be done then."""

    template: Object | None
    problem: str = ""
    reason: str = "ReferenceNotFound"
    """Of the condition that says so."""


def named_template(service: Object, templates: Sequence[Object]) -> Object | None:
    """The template that a service names, one of its namespace before one of the cluster."""
    name = at(service, "spec.template.name", "")
    fitting = [each for each in templates if name and name_of(each) == name]
    return min(fitting, key=_scope, default=None)


def choose(
    service: Object,
    model: Object | None,
    templates: Sequence[Object],
    *,
    is_served: bool = False,
) -> Choice:
    """The template of a service with this model.

    Args:
        service: may name it, and says what it must be like.
        model: what it is to serve; None while it is not known.
        templates: all that there are, of both kinds.
        is_served: whether something was made from one of them already.
    """
    of_model = [each for each in templates if model and _is_for(each, model)]
    if at(service, "spec.template.name"):
        return _named(service, model, named_template(service, templates), of_model)
    if model is None:
        return Choice(None, "which template it is follows from the model, which is not known")
    if not of_model:
        return Choice(None, _none_for(service, model))
    known: Object = at(service, "status.resolvedTemplate", {})
    if is_served and known and not any(_is_known(each, known) for each in of_model):
        return Choice(None, _is_gone(known))
    fitting = [each for each in of_model if _fits(service, each)]
    if fitting:
        return Choice(min(fitting, key=lambda each: _preference(each, known)))
    return Choice(None, _none_fits(service, model, of_model))


def _named(
    service: Object, model: Object | None, template: Object | None, of_model: Sequence[Object]
) -> Choice:
    if template is None:
        return Choice(None, _no_such(service, model))
    if model and at(template, "spec.modelName") and not _is_for(template, model):
        return Choice(None, _is_anothers(template, model, of_model), "InvalidSpec")
    return Choice(template)


def _is_for(template: Object, model: Object) -> bool:
    return bool(at(template, "spec.modelName") == name_of(model))


def _fits(service: Object, template: Object) -> bool:
    if _type(template) in _UNOPTIMIZED and not at(service, "spec.template.allowUnoptimized"):
        return False
    return all(
        _word(wanted) == _word(_of_profile(template, field))
        for field in _OVERRIDES
        if (wanted := at(service, f"spec.overrides.{field}"))
    )


def _is_known(template: Object, known: Object) -> bool:
    """Whether it is the one that was used, or was made in its place."""
    if uid_of(template) == known.get("uid"):
        return True
    return (template.get("kind"), name_of(template)) == (known.get("kind"), known.get("name"))


def _preference(template: Object, known: Object) -> tuple[int, int, int, int, str]:
    # Who serves one stays with it, whatever comes beside it.
    return (
        not _is_known(template, known),
        # Of one of which nobody has said anything nobody knows that it gets any further.
        -rank(state_of(template) if at(template, "status.status") else "Pending"),
        _TYPES.get(_type(template), len(_TYPES)),
        _scope(template),
        name_of(template),
    )


def _type(template: Object) -> str:
    return _word(at(template, "status.profile.metadata.type", ""))


def _of_profile(template: Object, field: str) -> str:
    told = at(template, f"status.profile.metadata.{field}")
    return str(told or at(template, f"spec.{field}", ""))


def _word(value: object) -> str:
    return str(value).lower()


def _scope(object_: Object) -> int:
    return 0 if namespace_of(object_) else 1


# -- what is to be done ----------------------------------------------------------------------------


def _no_such(service: Object, model: Object | None) -> str:
    name = str(at(service, "spec.template.name"))
    said = (
        f"there is no {TEMPLATE} {name!r} in namespace {namespace_of(service)}, and no"
        f" {CLUSTER_TEMPLATE} {name!r}"
    )
    if not can_be_named(name):
        return f"{said}, as no object can have this name: make the service anew with another"
    named = str(at(service, "spec.model.name", ""))
    manifest = _example(service, name, name_of(model or {}) or named or name)
    return f"{said}: create one, as {manifest}, or make the service anew with another, or none"


def _is_anothers(template: Object, model: Object, of_model: Sequence[Object]) -> str:
    names = ", ".join(sorted({name_of(each) for each in of_model})) or "there is none yet"
    return (
        f"{template['kind']} {name_of(template)} is for model {at(template, 'spec.modelName')!r},"
        f" and the service is of model {name_of(model)!r}: make the service anew with a template"
        f" of that ({names}) in spec.template.name, or without one"
    )


def _none_for(service: Object, model: Object) -> str:
    name = name_of(model)
    return (
        f"no {TEMPLATE} in namespace {namespace_of(service)} and no {CLUSTER_TEMPLATE} is for"
        f" model {name!r}: create one, as {_example(service, name, name)}"
    )


def _is_gone(known: Object) -> str:
    return (
        f"{known.get('kind', TEMPLATE)} {known.get('name')}, from which what serves was made, is"
        " gone, or is for another model now: make it again, or the service anew"
    )


def _none_fits(service: Object, model: Object, of_model: Sequence[Object]) -> str:
    names = ", ".join(sorted(name_of(each) for each in of_model))
    if not at(service, "spec.template.allowUnoptimized") and all(
        _type(each) in _UNOPTIMIZED for each in of_model
    ):
        return (
            f"all templates of model {name_of(model)!r} are unoptimized ({names}): allow them with"
            " spec.template.allowUnoptimized, or name one with spec.template.name, in a new service"
        )
    wanted = ", ".join(
        f"{field} {at(service, f'spec.overrides.{field}')}"
        for field in _OVERRIDES
        if at(service, f"spec.overrides.{field}")
    )
    return (
        f"no template of model {name_of(model)!r} ({names}) has {wanted or 'what is asked for'}:"
        " change spec.overrides, or create such a template"
    )


def _example(service: Object, name: str, model: str) -> str:
    sources = [{"modelId": "org/model", "sourceUri": "hf://org/model"}]
    spec = {"modelName": model, "modelSources": sources}
    return example(TEMPLATE, name, namespace_of(service), spec)
