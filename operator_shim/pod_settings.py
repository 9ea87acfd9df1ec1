"""What people want pods to have: requests and limits, and where they may run; read with care. Pure.

What is read here, the API server takes: it refuses a pod, or a Job, with words of its own kind.
"""

from __future__ import annotations

from operator_shim.config import POD_FIELDS
from operator_shim.objects import Object
from operator_shim.quantities import amount_of

_RESOURCES = 'write it as {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}'
_TOLERATION = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}


def resources_of(read: object) -> Object:
    """Requests and limits, as they are written.

    Raises:
        ValueError: no pod can have them.
    """
    if not isinstance(read, dict) or not set(read) <= {"requests", "limits"}:
        raise ValueError(_RESOURCES)
    if not all(isinstance(amounts, dict) for amounts in read.values()):
        raise ValueError(_RESOURCES)
    for name, amount in (each for amounts in read.values() for each in amounts.items()):
        try:
            amount_of(amount)
        except ValueError:
            raise ValueError(f"{amount!r} is no amount of {name}: {_RESOURCES}") from None
    requests, limits = read.get("requests", {}), read.get("limits", {})
    for name in requests.keys() & limits.keys():
        if amount_of(requests[name]) > amount_of(limits[name]):
            asked, most = requests[name], limits[name]
            raise ValueError(
                f"requests {asked} of {name}, more than its limit of {most}: lower the one or raise"
                " the other"
            )
    return read


def pod_fields_of(read: Object) -> Object:
    """Fields of a pod's spec (``POD_FIELDS``), as they are written.

    Raises:
        ValueError: no pod can have them.
    """
    for field, value in read.items():
        if field not in POD_FIELDS:
            raise ValueError(f"{field!r} is none of {', '.join(POD_FIELDS)}")
        form, fits = _FORMS[field]
        if not fits(value):
            raise ValueError(f"{field}: write it as {form}")
    return read


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_labels(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_tolerations(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and all(type(said) is _TOLERATION.get(field) for field, said in each.items())
        for each in value
    )


_FORMS = {
    "nodeSelector": ('{"disk": "fast"}', _are_labels),
    "priorityClassName": ('"high"', _is_text),
    "tolerations": ('[{"key": "gpu", "operator": "Exists"}]', _are_tolerations),
}
