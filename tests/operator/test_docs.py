"""What the pages on the operator say is what the code has."""

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
COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
# Modules with words that users see in conditions and Events.
SAYING = (
    *("acting", "artifact", "claims", "conditions", "doubts", "failures", "finalizers", "growing"),
    *("jobs", "legacy", "outcome", "reconciler", "runtime_config", "service"),
    *("service_observed", "service_status", "sizing", "starting", "status", "template"),
    *("template_cache", "template_cache_status"),
)
# The condition of what serves is named after its kind.
MADE_OF_TWO_WORDS = {"DeploymentReady", "InferenceServiceReady"}
# What these modules hear from Kubernetes, and do not tell under that name.
HEARD = {
    *("BackoffLimitExceeded", "ConfigMap", "ContainerCannotRun", "ContainerCreating"),
    *("ControllerResizeError", "FileSystemResizePending", "NodeResizeError", "NodeResizePending"),
    *("DeadlineExceeded", "DeletionByPodGC", "DeletionByTaintManager", "DisruptionTarget"),
    *("ErrImageNeverPull", "ErrImagePull", "EvictionByEvictionAPI", "ImageInspectError"),
    "FailedToRetrieveImagePullSecret",
    *("InsufficientSpaceError", "InvalidImageName", "NodeAffinity", "NodeLost", "NodeShutdown"),
    *("OutOf", "PodFailurePolicy", "PodInitializing", "PodScheduled", "PreemptionByScheduler"),
    *("ProvisioningFailed", "RegistryUnavailable", "SignatureValidationFailed", "StartError"),
    *("PersistentVolumeClaim", "ServiceAccount", "StorageClass", "SuccessfulCreate"),
    *("TerminationByKubelet", "TerminationMessage", "UnexpectedAdmissionError"),
}
OF_CHART = {
    "namespaces": "namespaces",
    "kinds": "kinds",
    "default_download_image": "options.defaultDownloadImage",
    "keep_engine_image": "options.keepEngineImage",
    "access_mode": "options.accessMode",
    "resources": "options.downloadResources",
    "pod": "options.downloadPod",
    "shared_cache_owner": "options.sharedCacheOwner",
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
    words = told() | MADE_OF_TWO_WORDS
    assert len(words) > 80
    assert not {word for word in words if f"`{word}`" not in PAGE}


def spoken() -> set[str]:
    """Types and reasons in calls that make a condition or an Event, wherever they are."""
    places = {"Condition": (0, 2), "EventNote": (1,)}
    words = [
        call.args[at]
        for path in (ROOT / "operator_shim").glob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        for at in places.get(call.func.id, ())
        if at < len(call.args)
    ]
    return {str(each.value) for each in words if isinstance(each, ast.Constant) and each.value}


def test_every_word_of_a_condition_or_an_event_is_on_the_page() -> None:
    assert len(spoken()) > 40
    assert not {word for word in spoken() if f"`{word}`" not in PAGE}


# What is false only until it comes, and the older words of model caches, which say the same again.
ON_THEIR_WAY = {
    *("Downloading", "JobRunning", "Progressing", "PvcPending", "ResourceNotReady"),
    *("NoPods", "PodsPending", "PodsProgressing", "PodsStarting"),
}
IN_OLDER_WORDS = {"PVCLost", "PVCPending", "PVCProvisioning", "RetryBackoff", "WaitingForPVC"}
# Here "False" is well; and what another row is named after.
NOT_REASONS = {
    *("NoFailure", "Ready", "Warm", "CheckSizeJobReady"),
    *("Discovered", "InlineModelSources", "NotAvailable"),
}


def test_what_is_not_well_has_a_line_that_says_what_to_do() -> None:
    titles = re.findall("^### (Conditions of .+)$", PAGE, re.MULTILINE)
    false = {word for title in titles for word in words_in(title, column=2)}
    assert len(false) > 30
    well = {
        word for title in (*titles, "Events") for word in words_in(title, 0) | words_in(title, 1)
    }
    known = ON_THEIR_WAY | IN_OLDER_WORDS | NOT_REASONS
    assert (false | (told() | spoken()) - well) - known <= words_in("Reasons", column=0)


def words_in(title: str, column: int) -> set[str]:
    """The words of the code in one column of the table under a heading."""
    below = PAGE.partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    rows = [line.strip("|").split("|") for line in below.splitlines() if line.startswith("| ")]
    cells = [cell for row in rows for cell in row[column : column + 1]]
    return {word for cell in cells for word in re.findall(r"`([A-Z][A-Za-z]+)`", cell)}


def test_every_module_that_tells_something_is_looked_at() -> None:
    telling = re.compile(
        r"^from operator_shim\.(telling|doubts|failures) import|\bOutcome\(", re.MULTILINE
    )
    modules = (ROOT / "operator_shim").glob("*.py")
    saying = {path.stem for path in modules if telling.search(path.read_text("utf-8"))}
    # These hand on what others say.
    assert saying - set(SAYING) <= {"desired", "observed"}


def rows_by_behaviour() -> list[list[str]]:
    below = COMPATIBILITY.partition("\n## The operator: behaviour by behaviour\n")[2]
    rows = [line for line in below.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
    return [each for each in cells if each[0] != "AIM Engine"]


def test_each_behaviour_is_the_same_better_or_not_served_and_has_a_test() -> None:
    rows = rows_by_behaviour()
    assert len(rows) > 70
    for behaviour, here, test in rows:
        assert here.startswith(("same", "better", "not served")), behaviour
        assert "::test_" in test or here.startswith("not served"), behaviour


def test_links_to_headings_lead_to_one() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = {path: path.read_text("utf-8") for path in pages}
    known = {path: {anchor(line) for line in headings(text)} for path, text in texts.items()}
    broken = [
        f"{path.name}: {to}#{name}"
        for path, text in texts.items()
        for to, name in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text)
        if name not in known.get((path.parent / to).resolve() if to else path, {name})
    ]
    assert not broken


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def anchor(heading: str) -> str:
    """What it is linked by: small letters, digits and hyphens, and nothing else."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


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
