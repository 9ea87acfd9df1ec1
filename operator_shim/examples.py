"""Manifests in messages: what a person can hand to ``kubectl apply -f -`` as it stands. Pure."""

from __future__ import annotations

import json
import re

from operator_shim.objects import API_VERSION, Object

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_NAME = 253


def can_be_named(name: str) -> bool:
    """Whether the API server lets an object have this name."""
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def example(kind: str, name: str, namespace: str, spec: Object) -> str:
    """A manifest on one line, between back-ticks."""
    metadata = {"name": name, "namespace": namespace}
    manifest = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    # JSON: kubectl takes nothing else that begins with a brace.
    return f"`{json.dumps(manifest)}`"
