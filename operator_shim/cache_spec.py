"""What an AIMTemplateCache asks for, in today's words and in the older ones. Pure."""

from __future__ import annotations

from operator_shim.keys import CLUSTER_TEMPLATE, TEMPLATE
from operator_shim.objects import Object, at

SHARED, DEDICATED = "Shared", "Dedicated"

_KINDS = {"Namespace": (TEMPLATE,), "Cluster": (CLUSTER_TEMPLATE,)}


def template_name(cache: Object) -> str:
    """The template that it names."""
    return str(at(cache, "spec.templateName") or at(cache, "spec.templateRef", ""))


def template_kinds(cache: Object) -> tuple[str, ...]:
    """Where its template is looked for, one after the other."""
    return _KINDS.get(at(cache, "spec.templateScope", ""), (TEMPLATE, CLUSTER_TEMPLATE))


def mode_of_cache(cache: Object) -> str:
    """Shared or Dedicated."""
    return DEDICATED if at(cache, "spec.mode") == DEDICATED else SHARED
