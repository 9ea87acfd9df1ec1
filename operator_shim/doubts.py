"""Conditions that are told only once they have been false: nobody doubts them before. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from operator_shim.objects import Object, condition_of
from operator_shim.telling import Condition, Verdict

_IN_DOUBT = {
    "DependenciesReachable": (
        *("Reachable", "what it needs was out of reach, and is no longer"),
        ("InfrastructureError",),
    ),
    "AuthValid": (
        *("AuthenticationValid", "access was denied, and is no longer"),
        ("AuthError",),
    ),
    "ConfigValid": (
        *("ConfigurationValid", "its spec, or what that names, was invalid, and is valid again"),
        ("InvalidSpec", "ReferenceNotFound"),
    ),
}
"""Reason and message while they are true; the reasons of Ready that make them false."""


def doubts(verdict: Verdict, about: Object) -> Iterator[Condition]:
    """Those that are false by this verdict, and those that were."""
    for kind, (true, said, false) in _IN_DOUBT.items():
        if verdict.reason in false:
            yield Condition(kind, False, verdict.reason, verdict.message)
        elif condition_of(about, kind) is not None:
            yield Condition(kind, True, true, said)
