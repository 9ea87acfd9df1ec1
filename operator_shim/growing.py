"""Whether a claim is too small for its model, and whether it can grow. Pure.

A claim grows to what it would be made with today. Where that is not more than it has, and the
volume is full all the same, by a quarter, up to twice of that: who fills it then is not the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from operator_shim.failures import Outcome
from operator_shim.objects import Object, at, has_condition, name_of, uid_of
from operator_shim.quantities import claim_size, parse_quantity
from operator_shim.retrying import Failure

_QUARTERS, _MOST = 5, 2
_FAILED = {
    "ControllerResizeError": "the storage does not make its volume larger",
    "NodeResizeError": "the node does not make its file system larger",
}


class Growing(StrEnum):
    """How far it is."""

    NO = "no"
    """It is large enough."""
    WANTED = "wanted"
    """It is to ask for more."""
    UNDER_WAY = "under way"
    """It has asked, and the storage is at it."""
    NEEDS_POD = "needs a pod"
    """The rest is done when a pod mounts it."""
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True)
class Growth:
    """Whether a claim grows, and to what."""

    state: Growing = Growing.NO
    wanted: str = ""
    """What it asks for, or is to ask for: ``20Gi``."""
    trouble: Outcome | None = None
    """Why it cannot."""

    @property
    def pending(self) -> bool:
        """Whether there will be more room soon."""
        return self.state in (Growing.WANTED, Growing.UNDER_WAY)


@dataclass(frozen=True)
class Storage:
    """What the cluster says of a claim's storage class; without the right to read it, nothing."""

    known: bool = False
    named: str = ""
    """The class of the claim; empty: it has none, and would get the cluster's default."""
    found: Object | None = None
    """That class, or the default one; None: there is none."""

    @property
    def missing(self) -> bool:
        """Whether the claim waits for a class that is not there."""
        return self.known and self.found is None


def growth_of(
    claim: Object | None,
    storage: Storage,
    *,
    needed: int,
    headroom_percent: int,
    is_full: bool,
    refusal: str = "",
) -> Growth:
    """What is to be done about the size of a claim.

    Args:
        claim: as the server has it.
        storage: what is known of its class.
        needed: bytes that are to come onto it.
        headroom_percent: how much more than that the claim asks for.
        is_full: whether the volume, as it is now, was found too small.
        refusal: why the server did not let it grow, in its words.
    """
    if claim is None or at(claim, "status.phase") != "Bound" or not needed:
        return Growth()
    asked, has = asked_bytes(claim), capacity_of(claim)
    enough = claim_size(needed, headroom_percent)
    wanted = enough
    if is_full and parse_quantity(enough) <= has:
        most = _MOST * parse_quantity(enough)
        wanted = claim_size(min(has * _QUARTERS // 4, most), 0)
        if has >= most:
            return Growth(Growing.IMPOSSIBLE, trouble=_exhausted(claim, enough))
    if parse_quantity(wanted) > max(asked, has):
        trouble = _refused(claim, storage, wanted, refusal)
        return Growth(Growing.IMPOSSIBLE if trouble else Growing.WANTED, wanted, trouble)
    return _under_way(claim) if has < asked else Growth()


def volume_mark(claim: Object | None, asked: str = "") -> str:
    """The volume and its size: another mark, and what did not fit may fit.

    Args:
        claim: as the server has it.
        asked: what it asked for when the mark was due; empty, or the same: as it is now.
    """
    if claim is None:
        return ""
    if asked not in ("", asked_of(claim)):
        # It has been let grow since; what comes of that was not there then.
        has = capacity_of(claim)
        return f"{uid_of(claim)}/{has if has < asked_bytes(claim) else asked}"
    pending = "+" if has_condition(claim, "FileSystemResizePending") else ""
    return f"{uid_of(claim)}/{capacity_of(claim)}{pending}"


def capacity_of(claim: Object) -> int:
    """Bytes that its volume has; what it asks for, where that is not told."""
    told = at(claim, "status.capacity.storage")
    return parse_quantity(told) if told else asked_bytes(claim)


def asked_bytes(claim: Object) -> int:
    """Bytes that it asks for."""
    return parse_quantity(asked_of(claim))


def asked_of(claim: Object) -> str:
    """What it asks for, as it says so."""
    return str(at(claim, "spec.resources.requests.storage", "0"))


def _under_way(claim: Object) -> Growth:
    asked, name = asked_of(claim), name_of(claim)
    step = at(claim, "status.allocatedResourceStatuses.storage", "")
    for kind, what in _FAILED.items():
        told = _condition(claim, kind)
        if told or step == f"{kind.removesuffix('Error')}Infeasible":
            hint = "see `kubectl describe pvc`; or take a class whose volumes can grow, and delete"
            said = f"claim {name} asks for {asked}, and {what}: {told or step}"
            trouble = _trouble("ExpansionFailed", said, f"{hint} the claim: it is made anew")
            return Growth(Growing.IMPOSSIBLE, asked, trouble)
    waits = has_condition(claim, "FileSystemResizePending") or step == "NodeResizePending"
    return Growth(Growing.NEEDS_POD if waits else Growing.UNDER_WAY, asked)


def _condition(claim: Object, kind: str) -> str:
    conditions = at(claim, "status.conditions", [])
    found = (each for each in conditions if (each["type"], each["status"]) == (kind, "True"))
    return next((each.get("message") or kind for each in found), "")


def _refused(claim: Object, storage: Storage, wanted: str, refusal: str) -> Outcome | None:
    name, asked = name_of(claim), asked_of(claim)
    anew = f"or delete the claim (`kubectl delete pvc {name}`): one of {wanted} is made then"
    if refusal:
        said = f"claim {name} has {asked} and needs {wanted}, and may not grow: {refusal}"
        return _trouble("ExpansionRefused", said, f"see to what that says, {anew}")
    if storage.known and not at(storage.found or {}, "allowVolumeExpansion", False):
        whose = f"its storage class {storage.named!r}" if storage.named else "a claim of no class"
        said = f"claim {name} has {asked} and needs {wanted}, and {whose} lets no claim grow"
        return _trouble("ExpansionNotAllowed", said, f"set allowVolumeExpansion there, {anew}")
    return None


def _exhausted(claim: Object, enough: str) -> Outcome:
    said = (
        f"claim {name_of(claim)} has {asked_of(claim)}, twice the {enough} that are enough for"
        " the model, and does not grow any more"
    )
    return _trouble("ExpansionLimit", said, "see what else is on it, or set a larger spec.size")


def _trouble(reason: str, message: str, hint: str) -> Outcome:
    return Outcome(reason, message, hint, failure=Failure.STORAGE)
