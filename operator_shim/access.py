"""How the API server is reached: its address, its certificates, and who we say we are.

The library knows kubeconfigs, accounts of pods and programs that give tokens; requests are ours.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config.incluster_config import SERVICE_TOKEN_FILENAME
from yarl import URL

UNAUTHORIZED = 401

_USUAL_KUBECONFIG = "~/.kube/config"
_HINT = (
    "name a kubeconfig with --kubeconfig or KUBECONFIG;"
    " in a pod, let its service account's token be mounted"
)


class AccessError(Exception):
    """Nothing says, or nothing usable, how a cluster is reached."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Access:
    """What is known about an API server, and the sessions for it."""

    def __init__(self, kubeconfig: str | None, configuration: Configuration) -> None:
        self._kubeconfig = kubeconfig
        self._configuration = configuration
        self._renewing = asyncio.Lock()
        self.server = str(configuration.host)
        self._renewals = 0

    @classmethod
    async def load(cls, kubeconfig: str | None) -> Access:
        """Read the kubeconfig; without one what the pod was given, else the user's usual one.

        Raises:
            AccessError: what there is cannot be used.
        """
        return cls(kubeconfig, await _load(kubeconfig))

    def session(self, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """A session for requests to the server, and none other; close it.

        A request in it raises AccessError when a new token is needed, and is not to be had.
        """
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._certificates()),
            headers={"User-Agent": "aim-operator"},
            middlewares=[*middlewares, self._identify],
            proxy=self._configuration.proxy,
            trust_env=True,
            # Objects may be as large as etcd takes them, and a watch has each on one line.
            read_bufsize=2**21,
        )

    async def _identify(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Say who we are, with each request anew: a token may be replaced while we run."""
        if request.url.origin() != URL(self.server).origin():
            return await handler(request)
        if name := self._configuration.tls_server_name:
            request.server_hostname = name
        renewals = self._renewals
        await self._sign(request)
        answer = await handler(request)
        if answer.status == UNAUTHORIZED:
            answer.release()
            await self._renew(renewals)
            await self._sign(request)
            answer = await handler(request)
        return answer

    async def _sign(self, request: aiohttp.ClientRequest) -> None:
        try:
            token = await self._configuration.get_api_key_with_prefix("BearerToken")
        except (config.ConfigException, OSError) as error:
            raise AccessError(f"the token cannot be read: {error}", hint=_HINT) from error
        if token:
            request.headers["Authorization"] = token

    async def _renew(self, renewals: int) -> None:
        """Read all again, as what was had after so many renewals was refused."""
        async with self._renewing:
            if renewals == self._renewals:  # else another request has seen to it
                self._configuration = await _load(self._kubeconfig)
                self._renewals += 1

    def _certificates(self) -> ssl.SSLContext:
        known = self._configuration
        context = ssl.create_default_context(cafile=known.ssl_ca_cert)
        # Clusters make their own certificates, and many lack what Python 3.13 began to demand.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if known.cert_file:
            context.load_cert_chain(known.cert_file, known.key_file)
        if not known.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


async def _load(kubeconfig: str | None) -> Configuration:
    configuration = Configuration()
    in_pod = kubeconfig is None and _is_there(SERVICE_TOKEN_FILENAME)
    named = "the pod's account" if in_pod else kubeconfig or _USUAL_KUBECONFIG
    if not in_pod and not _is_there(named):
        raise AccessError(f"there is no {named}", hint=_HINT)
    try:
        if in_pod:  # its token is read anew every minute
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(
                named, client_configuration=configuration, persist_config=False
            )
    except Exception as error:  # a file that people write has no end of faults
        message = f"{named} does not say how a cluster is reached: {error}"
        raise AccessError(message, hint=_HINT) from error
    return configuration


def _is_there(paths: str) -> bool:
    """Whether there is one of several files, as KUBECONFIG names them."""
    named = [path for path in paths.split(os.pathsep) if path]
    try:
        return any(Path(path).expanduser().exists() for path in named)
    except (OSError, RuntimeError):  # a folder that may not be looked into; nobody's home
        return False
