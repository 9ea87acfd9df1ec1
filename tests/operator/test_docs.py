"""What docs/operator.md says is what the code has."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]

from deploy.manifests import CHART
from operator_shim import objects
from operator_shim.__main__ import command

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operator.md").read_text("utf-8")
SAYING = ("claims", "conditions", "failures", "outcome", "sizing", "starting")
# What these modules hear from Kubernetes, and do not tell under that name.
HEARD = {
    *("BackoffLimitExceeded", "ConfigMap", "ContainerCannotRun", "ContainerCreating"),
    *("DeadlineExceeded", "DeletionByPodGC", "DeletionByTaintManager", "DisruptionTarget"),
    *("ErrImageNeverPull", "ErrImagePull", "EvictionByEvictionAPI", "ImageInspectError"),
    *("InsufficientSpaceError", "InvalidImageName", "NodeAffinity", "NodeLost", "NodeShutdown"),
    *("OutOf", "PodFailurePolicy", "PodInitializing", "PodScheduled", "PreemptionByScheduler"),
    *("ProvisioningFailed", "RegistryUnavailable", "SignatureValidationFailed", "StartError"),
    *("TerminationByKubelet", "TerminationMessage", "UnexpectedAdmissionError"),
}
OF_CHART = {
    "namespaces": "namespaces",
    "kinds": "kinds",
    "default_download_image": "options.defaultDownloadImage",
    "keep_engine_image": "options.keepEngineImage",
    "access_mode": "options.accessMode",
    "resources": "options.downloadResources",
    "resync": "options.resyncSeconds",
    "workers": "options.workers",
    "log_format": "options.logFormat",
    "log_level": "options.logLevel",
}


def told() -> set[str]:
    """Words in the source that may be types or reasons of conditions."""
    trees = [ast.parse((ROOT / "operator_shim" / f"{name}.py").read_text()) for name in SAYING]
    constants = [
        each for tree in trees for each in ast.walk(tree) if isinstance(each, ast.Constant)
    ]
    words = {each.value for each in constants if isinstance(each.value, str)}
    return {word for word in words if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][A-Za-z]*)+", word)} - HEARD


def test_every_condition_and_reason_is_on_the_page() -> None:
    assert len(told()) > 40
    assert not {word for word in told() if f"`{word}`" not in PAGE}


@pytest.mark.parametrize("name", [word for word in dir(objects) if word.startswith("ANNOTATION_")])
def test_every_annotation_is_on_the_page(name: str) -> None:
    assert getattr(objects, name) in PAGE


def row(option: click.Option) -> str:
    """The line of the table for an option."""
    flag = (
        option.opts[0] if option.is_flag else f"{option.opts[0]} {option.make_metavar(context())}"
    )
    value = OF_CHART.get(option.name or "")
    of_chart = f"`{value}`" if value else ""
    cells = (f"`{flag}`", f"`{option.envvar}`", of_chart, default(option), option.help)
    return "| " + " | ".join(str(cell).replace("|", " \\| ") for cell in cells) + " |"


def context() -> click.Context:
    return click.Context(command)


def default(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    value = option.default
    if option.name == "resources":
        return f"`{json.dumps(json.loads(str(value)))}`"
    return "no" if option.is_flag else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


OPTIONS = [each for each in command.params if isinstance(each, click.Option)]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.opts[0])
def test_every_option_has_a_row(option: click.Option) -> None:
    assert row(option) in PAGE.splitlines()


@pytest.mark.parametrize("path", OF_CHART.values())
def test_the_values_are_those_of_the_chart(path: str) -> None:
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    for word in path.split("."):
        values = values[word]


def test_the_example_is_the_one_of_the_page() -> None:
    example = yaml.safe_load((ROOT / "docs" / "examples" / "artifact.yaml").read_text("utf-8"))
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert example in [yaml.safe_load(block) for block in blocks]
