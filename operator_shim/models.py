"""Which AIMModel or AIMClusterModel a service means: by name, image, or its template. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from operator_shim.examples import can_be_named, example
from operator_shim.keys import CLUSTER_MODEL, MODEL, TEMPLATE
from operator_shim.objects import Object, at, name_of, namespace_of, uid_of
from operator_shim.ranking import is_usable, rank, state_of

_REGISTRIES = ("docker.io/library/", "docker.io/", "index.docker.io/library/", "index.docker.io/")
_EXAMPLE_NAME = "my-model"


@dataclass(frozen=True)
class FoundModel:
    """The model that was found; None, and what is to be done then."""

    model: Object | None
    problem: str = ""
    is_served: bool = True
    """Whether there can be one at all."""


def find_model(service: Object, template: Object | None, models: Sequence[Object]) -> FoundModel:
    """The model of a service, one of its namespace before one of the cluster.

    Args:
        service: says which one.
        template: the one that the service names; it says which model where the service does not,
            and which one of those with the service's image.
        models: all that there are, of both kinds.
    """
    if at(service, "spec.model.custom") is not None:
        return _not_served(service)
    image = at(service, "spec.model.image")
    if image:
        return _by_image(service, str(image), models, at(template or {}, "spec.modelName", ""))
    name = at(service, "spec.model.name") or at(template or {}, "spec.modelName")
    if not name:
        return FoundModel(None, "say which model with spec.model.name or spec.model.image")
    return _by_name(service, str(name), models)


def is_model_usable(model: Object) -> bool:
    """Whether a model can be served. Of one that nobody looks after nothing speaks against it."""
    return is_usable(model) or not at(model, "status.status")


def same_image(one: str, other: str) -> bool:
    """Whether two names mean the same image: the registry and the tag may be left to the usual."""
    return _image_in_full(one) == _image_in_full(other)


def _by_name(service: Object, name: str, models: Sequence[Object]) -> FoundModel:
    named = [each for each in models if name_of(each) == name]
    if named:
        return FoundModel(min(named, key=_scope))
    here = namespace_of(service)
    said = f"there is no {MODEL} {name!r} in namespace {here}, and no {CLUSTER_MODEL} {name!r}"
    if not can_be_named(name):
        return FoundModel(
            None, f"{said}, as no object can have this name: make the service anew with another"
        )
    manifest = example(MODEL, name, here, {"image": "registry/model:tag"})
    return FoundModel(
        None, f"{said}: create one, as {manifest}, or make the service anew with another"
    )


def _by_image(service: Object, image: str, models: Sequence[Object], named: str) -> FoundModel:
    fitting = [each for each in models if same_image(at(each, "spec.image", ""), image)]
    if fitting:
        known = at(service, "status.resolvedModel.uid", "")
        return FoundModel(min(fitting, key=lambda each: _preference(each, named, known)))
    here = namespace_of(service)
    manifest = example(MODEL, _name_for(image), here, {"image": image})
    return FoundModel(
        None,
        f"no {MODEL} in namespace {here} and no {CLUSTER_MODEL} has the image {image!r}:"
        f" create one, as {manifest}, or make the service anew with another",
    )


def _not_served(service: Object) -> FoundModel:
    custom, here = at(service, "spec.model.custom", {}), namespace_of(service)
    image = str(at(custom, "baseImage", "registry/model:tag"))
    source: Object = next(iter(at(custom, "modelSources", [])), {})
    entry = {
        "modelId": at(source, "modelId") or "org/model",
        "sourceUri": at(source, "sourceUri") or "hf://org/model",
    }
    name = _name_for(image)
    model = example(MODEL, name, here, {"image": image})
    template = example(TEMPLATE, name, here, {"modelName": name, "modelSources": [entry]})
    return FoundModel(
        None,
        f"spec.model.custom is not served: create the model and its template, as {model} and"
        f" {template}, and make the service anew with spec.model.name {name!r}",
        is_served=False,
    )


def _preference(model: Object, named: str, known: str) -> tuple[int, int, int, int, str]:
    # Who serves one stays with it, whatever comes beside it.
    return (
        name_of(model) != named,
        uid_of(model) != known,
        _scope(model),
        -_rank(model),
        name_of(model),
    )


def _rank(model: Object) -> int:
    return rank("Ready" if is_model_usable(model) else state_of(model))


def _scope(object_: Object) -> int:
    return 0 if namespace_of(object_) else 1


def _image_in_full(image: str) -> str:
    for registry in _REGISTRIES:
        if image.startswith(registry):
            image = image.removeprefix(registry)
            break
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def _name_for(image: str) -> str:
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
    return name if can_be_named(name) else _EXAMPLE_NAME
