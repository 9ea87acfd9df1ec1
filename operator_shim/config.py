"""What the operator is told when it starts: built once, by the front desk."""

from __future__ import annotations

from dataclasses import dataclass, field

from operator_shim.keys import (
    ARTIFACT,
    CLUSTER_TEMPLATE,
    MODEL_CACHE,
    SERVICE,
    TEMPLATE,
    TEMPLATE_CACHE,
)
from operator_shim.objects import Object

KINDS = (ARTIFACT, MODEL_CACHE, TEMPLATE_CACHE, TEMPLATE, CLUSTER_TEMPLATE, SERVICE)
"""The kinds that can be reconciled."""

CACHE_OWNERS = ("template", "none")
POD_FIELDS = ("nodeSelector", "priorityClassName", "tolerations")

ACCESS_MODES = ("ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


@dataclass(frozen=True, slots=True)
class Options:
    """All settings; times in seconds."""

    namespaces: tuple[str, ...] = ()
    """Those that are looked after; empty: all."""
    kinds: frozenset[str] = frozenset(KINDS)
    """Those that are reconciled; others are left alone."""
    default_download_image: str = "aim-downloader:latest"
    """For artifacts that name no image."""
    keep_engine_image: bool = False
    """Whether the image that AIM Engine's own CRD fills in counts as named by somebody."""
    access_mode: str = "ReadWriteMany"
    """Of claims whose artifact asks for no other."""
    resources: Object = field(
        default_factory=lambda: {
            "requests": {"cpu": "500m", "memory": "256Mi"},
            "limits": {"memory": "512Mi"},
        }
    )
    """Of pods whose artifact asks for no others."""
    pod: Object = field(default_factory=dict)
    """Where pods may run, and how important they are: fields of a pod's spec (``POD_FIELDS``)."""
    shared_cache_owner: str = "template"
    """With whom a cache goes that a service has asked for, and that others may share."""
    resync: float = 300.0
    """How often all objects are looked at, whether or not something has happened."""
    workers: int = 10
    """How many objects are reconciled at the same time."""
    health_port: int = 8080
    """Where probes are answered; 0: any port that is free."""
    kubeconfig: str | None = None
    """Says where the API server is; None: the pod's own account does, else the usual file."""
