"""In which claim an artifact has its model, and how far it is with it. Pure."""

from __future__ import annotations

from operator_shim.keys import MODEL_CACHE
from operator_shim.names import claim_name, older_claim_name
from operator_shim.objects import Object, at, name_of, uid_of
from operator_shim.ranking import READY, state_of


def claim_of(artifact: Object) -> str:
    """The claim that it names, if that can be its own; else none.

    The pods of its download may write its status, and what a service mounts others can read: so
    must not any claim of the namespace be.
    """
    said = str(at(artifact, "status.persistentVolumeClaim", ""))
    name = name_of(artifact)
    own = [claim_name(name, uid_of(artifact))]
    if artifact["kind"] == MODEL_CACHE:
        own.append(older_claim_name(name))
    return said if said in own else ""


def progress_of(artifact: Object) -> str:
    """Its state; a model that is said to be there, in no claim, is not there yet."""
    state = state_of(artifact)
    return "Progressing" if state == READY and not claim_of(artifact) else state
