"""The one place that speaks to the Kubernetes API server: as a pod does, with the pod's own token.

Each request has a connection of its own: they are seconds apart, and meanwhile the token, the
certificates and whoever stands behind the address may have been replaced.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import urllib3.exceptions

from aim_downloader._version import __version__
from aim_downloader.http_client.rules import patience

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the cluster's certificates."""
_TIMEOUT = urllib3.Timeout(connect=2.0, read=5.0)
# An object in Kubernetes has less than that.
_MOST_BYTES = 4 * 1024 * 1024


class ApiServerError(Exception):
    """The API server refuses (``status``), or there is no answer that can be used (None).

    ``retry_after``: seconds for which it wants to be left alone.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server at ``url``, which is known by ``ca.crt`` and knows the ``token`` in a folder.

    No proxy is asked, whatever the environment says, and no redirect followed.
    """

    url: str
    folder: Path = SERVICE_ACCOUNT

    @classmethod
    def of_pod(cls, environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> ApiServer | None:
        """The API server of the pod that this is; None where it is none, or has no token."""
        host = environ.get("KUBERNETES_SERVICE_HOST")
        port = environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port or not _token(folder):
            return None
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", folder)

    def merge_patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change an object, or one of its subresources; returns what it is now.

        Raises:
            ApiServerError: it was not changed, or nobody can tell.
        """
        token = _token(self.folder)
        if not token:
            raise ApiServerError(f"there is no usable token in {self.folder}")
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/merge-patch+json",
            "User-Agent": f"aim-downloader/{__version__}",  # its first word owns the fields
        }
        return self._ask("PATCH", path, json.dumps(body), headers)

    def _ask(self, method: str, path: str, body: str, headers: dict[str, str]) -> dict[str, Any]:
        try:
            context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        except (OSError, ssl.SSLError) as error:
            raise ApiServerError(f"ca.crt in {self.folder} cannot be read") from error
        try:
            with urllib3.PoolManager(ssl_context=context, timeout=_TIMEOUT) as pool:
                response = pool.request(
                    method,
                    f"{self.url}{path}",
                    body=body,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                )
                try:
                    content = response.read(_MOST_BYTES)
                finally:
                    response.close()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # Its own words may name anything.
            raise ApiServerError(
                f"the API server gives no answer ({type(error).__name__})"
            ) from error
        if response.status // 100 != 2:
            waiting = patience(response.headers)
            raise ApiServerError(
                f"the API server answered {response.status}", response.status, waiting
            )
        return _object(content)


def _token(folder: Path) -> str:
    """The token as it is now: it is replaced while the pod lives. Empty where there is none."""
    try:
        token = (folder / "token").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    return token if token.isprintable() else ""


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiServerError("the answer of the API server is no JSON") from error
    if not isinstance(found, dict):
        raise ApiServerError("the answer of the API server is no object")
    return found
