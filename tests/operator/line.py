"""The way to the API server for what kubectl takes too long for."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit

from operator_shim.objects import Object, at, name_of
from tests.cluster.client import Cluster

_GROUP = "/apis/aim.eai.amd.com/v1alpha1"
PATHS = {
    **{
        kind: f"{_GROUP}/namespaces/{{}}/{kind.lower()}s"
        for kind in ("AIMArtifact", "AIMTemplateCache", "AIMService")
    },
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
}
MERGE = "application/merge-patch+json"


class Line:
    """`ask`, and what it is asked most; each thread has a connection of its own."""

    def __init__(self, cluster: Cluster) -> None:
        config = json.loads(cluster.kubeconfig.read_text("utf-8"))
        self._where = urlsplit(config["clusters"][0]["cluster"]["server"])
        # It is the server of the tests, on this machine.
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._own = threading.local()
        self._all: list[http.client.HTTPSConnection] = []
        self._token = config["users"][0]["user"]["token"]

    def ask(self, method: str, path: str, body: Any = None, form: str = "") -> tuple[int, Any]:
        """The status, and what is said."""
        try:
            return self._ask(method, path, body, form)
        except (OSError, http.client.HTTPException):
            # The server hangs up on who has said nothing for long.
            return self._ask(method, path, body, form)

    def _ask(self, method: str, path: str, body: Any, form: str) -> tuple[int, Any]:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": form or "application/json",
        }
        sent = None if body is None else json.dumps(body)
        line = self._line
        try:
            line.request(method, path, sent, headers)
            answer = line.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException):
            line.close()  # it is made anew with the next request
            raise

    @property
    def _line(self) -> http.client.HTTPSConnection:
        if not hasattr(self._own, "line"):
            self._own.line = http.client.HTTPSConnection(
                self._where.hostname or "", self._where.port, context=self._context, timeout=90
            )
            self._all.append(self._own.line)
        line: http.client.HTTPSConnection = self._own.line
        return line

    def close(self) -> None:
        for line in self._all:
            line.close()

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """The object; an empty one where there is none."""
        status, said = self.ask("GET", f"{PATHS[kind].format(namespace)}/{name}")
        assert status in (200, 404), said
        return {**said, "kind": kind} if status == 200 else {}

    def listed(self, kind: str, namespace: str) -> list[Object]:
        status, said = self.ask("GET", PATHS[kind].format(namespace))
        assert status in (200, 404), said
        return [{**each, "kind": kind} for each in said.get("items", [])]

    def delete(self, kind: str, object_: Object, **options: Any) -> None:
        path = PATHS[kind].format(at(object_, "metadata.namespace"))
        self.ask("DELETE", f"{path}/{name_of(object_)}", options or None)

    def patch(self, kind: str, object_: Object, patch: Object, part: str = "") -> tuple[int, Any]:
        path = PATHS[kind].format(at(object_, "metadata.namespace"))
        return self.ask("PATCH", f"{path}/{name_of(object_)}{part}", patch, MERGE)

    def tell(self, kind: str, object_: Object, status: Object) -> None:
        """Its status says so, beside what it has said before."""
        answer, said = self.patch(kind, object_, {"status": status}, "/status")
        assert answer == 200, said
