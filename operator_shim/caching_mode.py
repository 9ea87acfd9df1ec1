"""How a service's models are cached, in today's words and in the older ones. Pure."""

from __future__ import annotations

from operator_shim.cache_spec import DEDICATED, SHARED
from operator_shim.objects import Object, at

_OLDER = {"Always": SHARED, "Auto": SHARED, "Never": DEDICATED}


def mode_of(service: Object) -> str:
    """Shared or Dedicated: as ``caching`` says, else ``cacheModel``, else Shared."""
    if at(service, "spec.caching") is not None:
        said = at(service, "spec.caching.mode", SHARED)
        return _OLDER.get(said) or (DEDICATED if said == DEDICATED else SHARED)
    return DEDICATED if at(service, "spec.cacheModel") is False else SHARED


def deprecations(service: Object) -> tuple[str, ...]:
    """What of it is said in older words, each with what to write today."""
    mode, flag = at(service, "spec.caching.mode", ""), at(service, "spec.cacheModel")
    told = []
    if mode in _OLDER:
        meant = _OLDER[mode]
        told.append(f"spec.caching.mode {mode} is an older word: write {meant} in the next service")
    if flag is not None:
        written = "true" if flag else "false"
        counts = at(service, "spec.caching") is None
        meant = f"write caching: {{mode: {mode_of(service)}}} in the next service"
        said = meant if counts else "caching goes before it"
        told.append(f"spec.cacheModel {written} is an older field: {said}")
    return tuple(told)
