"""What the operator is told by flags and by its environment, and what it refuses."""

import json
import socket
from pathlib import Path
from typing import Any

import click
import pytest

from operator_shim.__main__ import command
from operator_shim.config import Options
from tests.operator.program import once


def told(*words: str) -> dict[str, Any]:
    """What the command would be called with."""
    return command.make_context("operator_shim", list(words)).params


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)


def test_what_is_told_nothing_is_the_defaults() -> None:
    found = told()
    del found["log_format"], found["log_level"]
    found["kinds"] = frozenset(found["kinds"])
    assert Options(**found) == Options()


@pytest.mark.parametrize(
    ("flag", "variable", "text", "name", "value"),
    [
        ("--namespaces", "NAMESPACES", "a, b,c", "namespaces", ("a", "b", "c")),
        ("--namespaces", "NAMESPACES", "a", "namespaces", ("a",)),
        ("--kinds", "KINDS", "AIMArtifact", "kinds", ("AIMArtifact",)),
        ("--kinds", "KINDS", "none", "kinds", ()),
        (
            "--default-download-image",
            "DEFAULT_DOWNLOAD_IMAGE",
            "registry/image:1",
            "default_download_image",
            "registry/image:1",
        ),
        ("--access-mode", "ACCESS_MODE", "ReadWriteOnce", "access_mode", "ReadWriteOnce"),
        (
            "--resources",
            "RESOURCES",
            '{"limits": {"memory": "1Gi"}}',
            "resources",
            {"limits": {"memory": "1Gi"}},
        ),
        ("--resources", "RESOURCES", "{}", "resources", {}),
        (
            *("--resources", "RESOURCES"),
            '{"requests": {"cpu": 1}, "limits": {"cpu": "1000m"}}',
            *("resources", {"requests": {"cpu": 1}, "limits": {"cpu": "1000m"}}),
        ),
        ("--pod", "POD", '{"tolerations": []}', "pod", {"tolerations": []}),
        (
            *("--pod", "POD"),
            '{"tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 9}]}',
            *(
                "pod",
                {"tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 9}]},
            ),
        ),
        ("--pod", "POD", '{"nodeSelector": {"a": "b"}}', "pod", {"nodeSelector": {"a": "b"}}),
        ("--shared-cache-owner", "SHARED_CACHE_OWNER", "none", "shared_cache_owner", "none"),
        ("--kinds", "KINDS", "AIMModelCache", "kinds", ("AIMModelCache",)),
        ("--resync", "RESYNC", "60", "resync", 60.0),
        ("--workers", "WORKERS", "8", "workers", 8),
        ("--health-port", "HEALTH_PORT", "0", "health_port", 0),
        ("--log-format", "LOG_FORMAT", "json", "log_format", "json"),
        ("--log-level", "LOG_LEVEL", "debug", "log_level", "debug"),
    ],
)
def test_a_flag_or_its_variable_sets_it_and_the_flag_counts(
    monkeypatch: pytest.MonkeyPatch, flag: str, variable: str, text: str, name: str, value: object
) -> None:
    default = told()[name]
    assert told(flag, text)[name] == value
    monkeypatch.setenv(f"AIM_OPERATOR_{variable}", text)
    assert told()[name] == value
    monkeypatch.setenv(f"AIM_OPERATOR_{variable}", "")
    assert told()[name] == default  # empty: as if it were not there
    monkeypatch.setenv(f"AIM_OPERATOR_{variable}", "nonsense")
    assert told(flag, text)[name] == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("", False)])
def test_whether_the_engines_image_is_kept(
    monkeypatch: pytest.MonkeyPatch, text: str, *, value: bool
) -> None:
    assert told("--keep-engine-image")["keep_engine_image"]
    monkeypatch.setenv("AIM_OPERATOR_KEEP_ENGINE_IMAGE", text)
    assert told()["keep_engine_image"] is value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kinds", "AIMArtefact"], "'AIMArtefact' is none of AIMArtifact"),
        (["--access-mode", "ReadOnlyMany"], "ReadWriteMany"),
        (["--resources", "{"], "is not JSON"),
        (["--resources", "[]"], "is not an object"),
        (["--pod", '{"hostNetwork": true}'], "'hostNetwork' is none of nodeSelector, "),
        (["--resources", '{"request": {}}'], 'write it as {"requests"'),
        (["--resources", '{"requests": {"cpu": "lots"}}'], "'lots' is no amount of cpu"),
        (["--resources", '{"limits": {"memory": NaN}}'], "nan is no amount of memory"),
        (
            ["--resources", '{"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}}'],
            "requests 1Gi of memory, more than its limit of 512Mi",
        ),
        (["--pod", '{"nodeSelector": ["fast"]}'], 'nodeSelector: write it as {"disk": "fast"}'),
        (["--pod", '{"nodeSelector": {"fast": true}}'], "nodeSelector: write it as"),
        (["--pod", '{"priorityClassName": 5}'], "priorityClassName: write it as"),
        (["--pod", '{"tolerations": {"key": "gpu"}}'], "tolerations: write it as"),
        (["--pod", '{"tolerations": ["gpu"]}'], "tolerations: write it as"),
        (["--pod", '{"tolerations": [{"keys": "gpu"}]}'], "tolerations: write it as"),
        (["--pod", '{"tolerations": [{"tolerationSeconds": "9"}]}'], "tolerations: write it as"),
        (["--resync", "0"], "--resync"),
        (["--workers", "0"], "--workers"),
        (["--health-port", "65536"], "--health-port"),
        (["--log-format", "xml"], "--log-format"),
        (["--unknown"], "--unknown"),
        (["word"], "word"),
    ],
)
def test_what_cannot_be_used_is_said(words: list[str], said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        told(*words)
    assert said in caught.value.format_message()


def test_it_ends_with_2_then() -> None:
    ended = once("--kinds", "AIMArtefact")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr


def test_help_says_what_there_is() -> None:
    ended = once("--help")
    assert ended.returncode == 0
    for parameter in command.params:
        assert parameter.opts[0] in ended.stdout
    assert "AIM_OPERATOR_NAMESPACES" in ended.stdout


def test_nothing_says_where_a_cluster_is() -> None:
    ended = once("--health-port", "0", "--kubeconfig", "/nonexistent/kubeconfig")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert " error: there is no /nonexistent/kubeconfig. name a kubeconfig with" in line


def test_lines_of_the_log_may_be_json() -> None:
    ended = once("--log-format", "json", "--kubeconfig", "/nonexistent/kubeconfig")
    [line] = ended.stderr.splitlines()
    assert json.loads(line)["level"] == "error"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    user = {"name": "u", "user": {"token": "t"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    known = {"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"}
    kubeconfig.write_text(json.dumps(known))
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = once("--health-port", port, "--kubeconfig", str(kubeconfig))
    assert ended.returncode == 2
    assert f"port {port} cannot be listened on: Address already in use" in ended.stderr
