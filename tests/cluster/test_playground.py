"""`make cluster` tells a developer commands that work as they are."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.fixtures import leave_out
from tests.cluster.programs import trouble
from tests.cluster.sharing import PROJECT
from tests.images.need import need_image
from tests.xet.need import need_server

SIZE = 20 * 1024 * 1024

# A cluster of its own, and perhaps the image, have to be made first.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def told() -> Iterator[str]:
    """What a developer reads who has started a cluster, which goes on meanwhile."""
    leave_out(trouble(node=True))
    need_image()
    need_server()
    command = [sys.executable, "-m", "tests.cluster"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Ctrl-C ends it" in line:
                    break
            yield "".join(lines)
        finally:
            process.send_signal(signal.SIGINT)


@dataclass(frozen=True)
class Ran:
    """The told commands, and what they have said."""

    told: str
    said: str


@pytest.fixture(scope="module")
def ran(told: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    commands = re.findall(r"^(?:export|kubectl) .*", told, re.MULTILINE)
    assert len(commands) >= 5
    done = subprocess.run(
        ["sh", "-exc", "\n".join(commands)],
        cwd=tmp_path_factory.mktemp("commands"),
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Ran(told, done.stdout)


def test_the_told_commands_bring_a_model(ran: Ran) -> None:
    assert "Protocol: XET" in ran.said
    message = re.search(r"Message: +(\{.*\})", ran.said)
    assert message
    assert json.loads(message[1])["uri"] == "hf://openai-community/gpt2"
    [volumes] = re.findall(r"ls (\S+/volumes)/\*", ran.told)
    files = [path for path in Path(volumes).rglob("*") if path.is_file()]
    # One volume of the Job, and one of the artifact, which the service has not downloaded again.
    assert 2 * SIZE < sum(path.stat().st_size for path in files) < 3 * SIZE


def test_the_operator_brings_a_model_and_a_service_reads_it(ran: Ran) -> None:
    assert "the model is on claim gpt2-cache-" in ran.said
    assert re.search(r"^aimservice\S*/gpt2-chat +Running ", ran.said, re.MULTILINE)
    [read] = [json.loads(line) for line in ran.said.splitlines() if line.startswith('{"files"')]
    assert "openai-community/gpt2/model.safetensors" in read["files"]
