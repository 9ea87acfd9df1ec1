"""`make cluster` tells a developer commands that work as they are."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.fixtures import leave_out
from tests.cluster.programs import trouble
from tests.cluster.sharing import PROJECT
from tests.images.need import need_image
from tests.xet.need import need_server

SIZE = 20 * 1024 * 1024

# A cluster of its own, and perhaps the image, have to be made first.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
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


def test_the_told_commands_bring_a_model(told: str, tmp_path: Path) -> None:
    commands = re.findall(r"^(?:export|kubectl) .*", told, re.MULTILINE)
    assert len(commands) >= 5
    done = subprocess.run(
        ["sh", "-exc", "\n".join(commands)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=360,
    )
    assert done.returncode == 0, done.stderr
    assert "Protocol: XET" in done.stdout
    message = re.search(r"Message: +(\{.*\})", done.stdout)
    assert message
    assert json.loads(message[1])["uri"] == "hf://openai-community/gpt2"
    [volumes] = re.findall(r"ls (\S+/volumes)/\*", told)
    files = [path for path in Path(volumes).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > SIZE
