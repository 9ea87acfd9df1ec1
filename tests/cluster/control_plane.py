"""The control plane: etcd, API server, controller manager and scheduler, in an enclosure."""

import json
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.cluster.addresses import API_SERVER, NODE, SERVICES
from tests.cluster.enclosure import Enclosure, tail
from tests.cluster.network import Relay
from tests.cluster.programs import program

START_S = 150.0
POLL_S = 0.1
_ETCD = "http://127.0.0.1:2379"
_NAME_IN_CERTIFICATE = "kubernetes"


class ControlPlane:
    """Its addresses are inside, beside a port of this machine that leads to the API server."""

    def __init__(self, enclosure: Enclosure) -> None:
        self._enclosure = enclosure
        self._token = secrets.token_hex(16)
        self._secrets = enclosure.folder / "control-plane"
        self._relay = Relay(enclosure.pid, (API_SERVER, 443))
        # For programs of this machine, and for those inside.
        self.kubeconfig = enclosure.folder / "kubeconfig"
        self.kubeconfig_inside = self._secrets / "kubeconfig"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._relay.port}"

    def start(self) -> None:
        """Returns when pods can be made.

        Raises:
            RuntimeError: A part ended, or did not answer in time; the end of its log is told.
        """
        self._write_secrets()
        etcd = self._start("etcd", *_etcd())
        server = self._start("kube-apiserver", *self._api_server())
        self._wait(server, lambda: self.ask("/readyz") is not None, etcd)
        certificate = (self._secrets / "apiserver.crt").read_text("utf-8")
        for path, url in ((self.kubeconfig, self.url), (self.kubeconfig_inside, _inside())):
            path.touch(mode=0o600)
            path.write_text(kubeconfig(url, certificate, self._token), encoding="utf-8")
        controllers = self._start("kube-controller-manager", *self._controller_manager())
        self._start("kube-scheduler", *self._scheduler())
        self._wait(controllers, self._accounts_are_made, server)

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """One request to the API server; None when it does not answer or has no such thing."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "Accept": "application/json",
            },
            method=method,
        )
        try:
            with _opener().open(request, timeout=10) as answer:
                data = answer.read()
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            return None
        return json.loads(data) if data.startswith(b"{") else {}

    def _accounts_are_made(self) -> bool:
        # Without this one, pods are refused.
        return self.ask("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def _start(self, name: str, *arguments: str) -> "tuple[str, subprocess.Popen[bytes]]":
        return name, self._enclosure.start(name, [program(name), *arguments])

    def _wait(
        self,
        part: "tuple[str, subprocess.Popen[bytes]]",
        done: Callable[[], bool],
        needed: "tuple[str, subprocess.Popen[bytes]]",
    ) -> None:
        wait_until(self._enclosure, done, [part, needed])

    def _write_secrets(self) -> None:
        self._secrets.mkdir(mode=0o700)
        subprocess.run(
            ["openssl", "genrsa", "-out", self._secrets / "accounts.key", "2048"],
            check=True,
            capture_output=True,
        )
        (self._secrets / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")

    def _api_server(self) -> tuple[str, ...]:
        return (
            f"--etcd-servers={_ETCD}",
            "--secure-port=443",
            "--bind-address=0.0.0.0",
            f"--advertise-address={NODE}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--cert-dir={self._secrets}",
            "--authorization-mode=RBAC,Node",
            f"--token-auth-file={self._secrets}/tokens.csv",
            f"--service-account-key-file={self._secrets}/accounts.key",
            f"--service-account-signing-key-file={self._secrets}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )

    def _controller_manager(self) -> tuple[str, ...]:
        return (
            f"--kubeconfig={self.kubeconfig_inside}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            # Each controller makes 20 requests a second by itself: 1,000 Jobs would take minutes.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            f"--service-account-private-key-file={self._secrets}/accounts.key",
            # So that pods trust the API server: its certificate vouches for itself.
            f"--root-ca-file={self._secrets}/apiserver.crt",
        )

    def _scheduler(self) -> tuple[str, ...]:
        return (f"--kubeconfig={self.kubeconfig_inside}", "--leader-elect=false")


def kubeconfig(url: str, certificate: str, token: str) -> str:
    """The text of a kubeconfig (YAML contains JSON)."""
    name = "aim-tests"
    cluster = {
        "server": url,
        "certificate-authority-data": _base64(certificate),
        "tls-server-name": _NAME_IN_CERTIFICATE,
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )


def wait_until(
    enclosure: Enclosure,
    done: Callable[[], bool],
    parts: "list[tuple[str, subprocess.Popen[bytes]]]",
) -> None:
    """Waits for what these parts are to bring about.

    Raises:
        RuntimeError: One of them ended, or it took too long; the ends of their logs are told.
    """
    deadline = time.monotonic() + START_S
    while not done():
        ended = [name for name, process in parts if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            what = f"{ended[0]} ended" if ended else f"{parts[0][0]} was not ready in {START_S} s"
            logs = "\n".join(f"--- {name}\n{tail(enclosure.log(name))}" for name, _ in parts)
            raise RuntimeError(f"{what}\n{logs}")
        time.sleep(POLL_S)


def _etcd() -> tuple[str, ...]:
    return (
        "--data-dir=/run/etcd",  # in memory: nothing to sync
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
    )


def _inside() -> str:
    return f"https://{API_SERVER}:443"


def _base64(text: str) -> str:
    from base64 import b64encode

    return b64encode(text.encode()).decode()


def _opener() -> urllib.request.OpenerDirector:
    # This machine's own relay: past any proxy, and its certificate is not known when we begin.
    context = ssl._create_unverified_context()
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
