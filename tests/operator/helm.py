"""Helm in tests: of the chart's own kind, and in a cluster."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from deploy.manifests import CHART, KUBERNETES, helm

HELM_S = 60.0


class HelmError(Exception):
    """What Helm said when it failed."""


def need_helm() -> str:
    """The path of Helm; skips the test without it, which is a failure where everything must run."""
    found = helm()
    if found:
        return found
    trouble = "tests of the chart are left out: Helm is missing, which tests/setup-servers builds"
    if os.environ.get("CI") == "true":
        pytest.fail(trouble)
    pytest.skip(trouble)


@dataclass(frozen=True)
class Helm:
    """Helm with a home of its own, and the cluster of a kubeconfig if there is one."""

    home: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str | Path, input: str = "") -> str:  # noqa: A002
        """What it prints.

        Raises:
            HelmError: It failed.
        """
        done = subprocess.run(
            [need_helm(), *arguments],
            env={"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig or "/dev/null")},
            input=input,
            capture_output=True,
            check=False,
            text=True,
            timeout=HELM_S,
        )
        if done.returncode:
            raise HelmError(done.stderr.strip())
        return done.stdout

    def template(self, *options: str, name: str = "aim-operator", namespace: str = "aims") -> str:
        """What the chart is rendered to without a cluster."""
        version = ("--kube-version", KUBERNETES)
        return self.run("template", name, CHART, "--namespace", namespace, *version, *options)

    def objects(self, *options: str) -> dict[str, dict[str, Any]]:
        """The objects of the chart but its kinds, by kind; the last one of each."""
        texts = yaml.safe_load_all(self.template("--set", "crds.install=false", *options))
        return {each["kind"]: each for each in texts if each}
