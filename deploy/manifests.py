"""`python -m deploy.manifests` writes crds.yaml and operator.yaml from the chart: without Helm.

The kinds stand apart: `kubectl create` leaves those that are there as they are, `apply` would not.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
CHART = HERE / "chart"
NAME = "aim-operator"
HELM_VERSION = "3.19.0"  # as in tests/setup-servers
KUBERNETES = "1.34.0"

_KINDS = "# Source: aim-operator/templates/crds/"
_TOP = "# Made from deploy/chart by `make manifests`."
_HEADS = {
    "crds.yaml": f"""{_TOP} The kinds, without which the operator cannot work:
#   kubectl create -f deploy/crds.yaml
# makes what is not there, and leaves AIM Engine's as it is. Where all of them are ours,
#   kubectl apply --server-side --force-conflicts -f deploy/crds.yaml
# takes over what is new. Never `delete` one to install it anew: all models go with it.
""",
    "operator.yaml": f"""{_TOP} The operator, after crds.yaml:
#   kubectl apply -f deploy/operator.yaml
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAME}
  labels:
    pod-security.kubernetes.io/enforce: restricted
""",
}


def helm(environ: Mapping[str, str] = os.environ) -> str | None:
    """The path of Helm: what `tests/setup-servers` has built, else the one on the PATH."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    built = Path(cache, "aim-downloader-tests", f"helm-{HELM_VERSION}", "bin", "helm")
    return str(built) if built.exists() else shutil.which("helm", path=environ.get("PATH"))


def manifests(helm: str) -> dict[str, str]:
    """The text of each file."""
    options = ["--namespace", NAME, "--kube-version", KUBERNETES]
    command = [helm, "template", NAME, str(CHART), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    documents = done.stdout.removeprefix("---\n").split("\n---\n")
    kinds = [each for each in documents if each.startswith(_KINDS)]
    others = [each for each in documents if each not in kinds]
    return {"crds.yaml": _file("crds.yaml", kinds), "operator.yaml": _file("operator.yaml", others)}


def _file(name: str, documents: list[str]) -> str:
    return _HEADS[name] + "".join(f"---\n{_plain(each)}\n" for each in documents)


def _plain(document: str) -> str:
    """The document without what only Helm is interested in."""
    lines = document.strip().splitlines()
    # What keeps a kind when Helm would delete it stays: it does no harm where there is no Helm.
    of_helm = ("# Source: ", "app.kubernetes.io/managed-by: ", "aim.eai.amd.com/kinds-of-release: ")
    kept = [line for line in lines if not line.strip().startswith(of_helm)]
    return "\n".join(kept).replace("\n  annotations:\nspec:", "\nspec:")


def main() -> int:
    """Writes the files beside the chart."""
    found = helm()
    if not found:
        sys.stderr.write("deploy.manifests: Helm is needed: tests/setup-servers builds it\n")
        return 1
    for name, text in manifests(found).items():
        (HERE / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
