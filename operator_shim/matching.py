"""Which artifact holds a source: what is there is used before it is downloaded again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from operator_shim.holding import progress_of
from operator_shim.objects import (
    Object,
    annotations_of,
    at,
    is_controlled_by,
    is_deleted,
    name_of,
    uid_of,
)
from operator_shim.ranking import rank
from operator_shim.runtime_config import RuntimeConfig
from operator_shim.sources import Identity, Source, identity_of

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Wanted:
    """What a cache asks of the artifacts that it uses."""

    owner: str | None
    """The UID of the cache that they belong to; None: they belong to nobody."""
    storage_class: str
    """Empty: any will do."""
    in_use: Collection[str] = ()
    """The UIDs of those that it has used so far."""


@dataclass(frozen=True)
class Shelf:
    """The artifacts of a namespace, and what else decides which models they hold."""

    artifacts: Sequence[Object] = ()
    """The preferred kind first."""
    config_of: Callable[[str], RuntimeConfig] = lambda _: RuntimeConfig()
    """The runtime config of this name."""
    default_class: str = ""

    def holder(self, source: Source, wanted: Wanted) -> Object | None:
        """The best artifact that holds a source, or is on its way to; of equals that in use.

        Else pods that run with one would have to begin anew with the other. A cache that is made
        anew does not know yet which one that is: it is the one that was mounted last.
        """
        fitting = [each for each in self.artifacts if self._fits(each, source, wanted)]
        return max(
            fitting,
            key=lambda each: (
                rank(progress_of(each)),
                uid_of(each) in wanted.in_use,
                str(at(each, "status.lastUsed", "")),
            ),
            default=None,
        )

    def _fits(self, artifact: Object, source: Source, wanted: Wanted) -> bool:
        return (
            not is_deleted(artifact)
            and _belongs(artifact, wanted.owner)
            and self._identity(artifact) == source.identity
            and wanted.storage_class in ("", self._class(artifact))
        )

    def _identity(self, artifact: Object) -> Identity:
        config = self.config_of(at(artifact, "spec.runtimeConfigName", ""))
        uri = str(at(artifact, "spec.sourceUri", ""))
        return identity_of(uri, at(artifact, "spec.env", []), config.env)

    def _class(self, artifact: Object) -> str:
        """The name of its class, also where it leaves the choice to its config or the cluster."""
        config = self.config_of(at(artifact, "spec.runtimeConfigName", ""))
        named = at(artifact, "spec.storageClassName") or config.storage_class
        return str(named or self.default_class)


def default_class_of(classes: Iterable[Object]) -> str:
    """The class of claims that name none; the newest where several say that they are it."""
    said = [each for each in classes if annotations_of(each).get(_DEFAULT_CLASS) == "true"]
    # Of the same second, as Kubernetes has it, the first by name.
    said.sort(key=name_of)
    newest = max(said, key=lambda each: at(each, "metadata.creationTimestamp", ""), default={})
    return name_of(newest)


def _belongs(artifact: Object, owner: str | None) -> bool:
    if owner is None:
        return not at(artifact, "metadata.ownerReferences", [])
    return is_controlled_by(artifact, owner)
