"""What the operator's own log says of what it does, for who reads only that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from operator_shim.objects import name_of
from tests.operator.fakes import CLAIM, DOWNLOAD, KEY, SIZE, Killed, artifact, cluster_with, ours


def said(caplog: pytest.LogCaptureFixture, level: str = "INFO") -> list[str]:
    """The lines so far, each of which names the artifact; the log is empty then."""
    assert {str(vars(each).get("object")) for each in caplog.records} <= {str(KEY)}
    assert {each.levelname for each in caplog.records} <= {level}
    lines = [each.getMessage() for each in caplog.records]
    caplog.clear()
    return lines


async def test_each_thing_done_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "operator_shim")
    cluster = cluster_with()
    await cluster.settle()
    assert said(caplog) == [f"JobCreated: made Job {SIZE}"]
    cluster.tell_size()
    await cluster.settle()
    assert said(caplog) == [
        f"ClaimCreated: made claim {CLAIM}",
        f"JobCreated: made Job {DOWNLOAD}",
        "SizeDiscovered: the model has 8.5 GiB to download",
    ]
    cluster.bind()
    cluster.pod(**ours(66, "there is no such repository"))
    cluster.fail()
    again = await cluster.settle()
    assert again is None
    (line,) = said(caplog, "WARNING")
    assert line.startswith("SourceNotFound: the download failed: there is no such repository")
    cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/retry"] = "1"
    await cluster.settle()
    assert said(caplog) == [
        f"JobRemoved: Job {DOWNLOAD} makes room for a new one",
        f"JobCreated: made Job {DOWNLOAD}",
    ]
    cluster.pod(phase="Running")
    await cluster.settle()
    cluster.succeed()
    await cluster.settle()
    assert said(caplog) == [f"Ready: the model is on claim {CLAIM}"]
    for _ in range(3):
        await cluster.reconcile()
    assert not said(caplog)


async def test_what_was_done_is_told_though_the_pass_does_not_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "operator_shim")
    cluster = cluster_with(artifact({"size": "10Gi"}))
    cluster.writes_left = 1
    with pytest.raises(Killed):
        await cluster.reconcile()
    assert [name_of(each) for each in cluster.of_kind("PersistentVolumeClaim")] == [CLAIM]
    assert said(caplog) == [f"ClaimCreated: made claim {CLAIM}"]


MANY = """
import logging
from operator_shim.logs import start_logging
start_logging("text", "info")
log = logging.getLogger("operator_shim.any")
for name, trouble in (("one", "quota"), ("two", "quota"), ("two", ""), ("three", "right")):
    log.warning("no", extra={"object": name, "trouble": trouble})
"""


def test_the_same_trouble_of_many_objects_is_told_once() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    told = [line.split("warning: ")[1] for line in done.stderr.splitlines()]
    assert told == ["one: no", "two: no", "three: no"]
