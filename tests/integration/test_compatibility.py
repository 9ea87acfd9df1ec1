"""What is different from the images that ours takes the place of (docs/compatibility.md)."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hub import HubServer, faults
from tests.integration.support import MIB, URI, Command, Files, assert_right, total_size
from tests.xet import XetFront

LARGE = "model.safetensors"
STALLED = "Download stalled for 1.2s, killing"


def test_a_stall_is_noticed_whatever_was_tried_before(
    xet_hub: HubServer, xet: XetFront, xet_command: Command, target: Path, files: Files
) -> None:
    xet.fault(faults.Stall(after=MIB), path=LARGE, times=None)
    xet_hub.fault(faults.Stall(), path=LARGE, at=20 * MIB)
    # One connection: of several, the others would fetch what one has in hand.
    settings: dict[str, Any] = {"AIM_DOWNLOADER_CONNECTIONS": "1", "PROGRESS_INTERVAL": "0.1"}
    done = xet_command.run("job", URI, target, AIM_DOWNLOADER_PROTOCOL="XET,HTTP", **settings)
    assert done.code == 0, done.said
    first, _, second = done.stderr.partition("FAILED: XET (attempt 1/2)")
    assert STALLED in first
    assert STALLED in second
    assert "Progress: " in second
    assert_right(target / LARGE, files[LARGE])


def test_a_folder_that_grows_hides_no_stall(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    hub.fault(faults.Stall(), path=LARGE, at=5 * MIB)
    with growing(target / "of-somebody-else"):
        done = command.run("job", URI, target, AIM_DOWNLOADER_CONNECTIONS="1")
    assert done.code == 0, done.said
    assert STALLED in done.stderr
    assert_right(target / LARGE, files[LARGE])


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """A file grows all the time."""
    end = threading.Event()
    path.parent.mkdir()

    def grow() -> None:
        with path.open("wb", buffering=0) as opened:
            while not end.wait(0.05):
                opened.write(bytes(1000))

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_progress_counts_nothing_but_the_model(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    strange = target / ".cache" / "huggingface" / "left-over.incomplete"
    strange.parent.mkdir(parents=True)
    with strange.open("wb") as opened:
        opened.truncate(1000 * MIB)
    hub.pace(30e6)
    done = command.run("job", URI, target, PROGRESS_INTERVAL="0.1")
    assert done.code == 0, done.said
    lines = re.findall(r"^Progress: (\d+)% \((\d+)/(\d+) bytes\)", done.stderr, re.MULTILINE)
    told = [(int(percent), int(at), int(total)) for percent, at, total in lines]
    size = total_size(files)
    assert len(told) > 2
    assert told == sorted(told)
    assert told[0][0] < 50
    assert told[-1] == (100, size, size)
    assert {total for _, _, total in told} == {size}
