"""When the API server goes by the roles that were made: it hears of them a moment later."""

import secrets
from functools import partial
from typing import Any

from tests.cluster.client import Namespace

_GROUP = "rbac.authorization.k8s.io"


def wait_until_rights_are_seen(namespace: Namespace) -> None:
    """Returns when the API server goes by all roles and bindings that there were before.

    It hears of each kind in the order in which they were made, so one more of each is waited for.
    """
    user = f"late-{secrets.token_hex(4)}"
    granted = {"": "configmaps", "Cluster": "pods"}
    for of, resource in granted.items():
        namespace.apply(*_granting(of, resource, user))
    try:
        for resource in granted.values():
            look = partial(namespace.kubectl, "auth", "can-i", "get", resource, f"--as={user}")
            namespace.cluster.wait_for(look, what="the API server has heard of all roles")
    finally:
        kinds = "role,rolebinding,clusterrole,clusterrolebinding"
        namespace.kubectl("delete", kinds, user, "--wait=false")


def _granting(of: str, resource: str, user: str) -> list[dict[str, Any]]:
    """A role and its binding, of the namespace or ``of`` the Cluster."""
    common = {"apiVersion": f"{_GROUP}/v1", "metadata": {"name": user}}
    rule = {"apiGroups": [""], "resources": [resource], "verbs": ["get"]}
    return [
        {**common, "kind": f"{of}Role", "rules": [rule]},
        {
            **common,
            "kind": f"{of}RoleBinding",
            "roleRef": {"apiGroup": _GROUP, "kind": f"{of}Role", "name": user},
            "subjects": [{"apiGroup": _GROUP, "kind": "User", "name": user}],
        },
    ]
