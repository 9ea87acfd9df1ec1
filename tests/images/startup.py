"""`python -m tests.images.startup` measures: from the start of a container to its first request."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.hub import HubServer
from tests.images.build import image_of_these_sources, why_not
from tests.images.image import Image, Runs

ROUNDS = 15


def main() -> int:
    if trouble := why_not():
        print(f"the image cannot be started here: {trouble}", file=sys.stderr)
        return 1
    image = Image(image_of_these_sources(say=print))
    seconds = sorted(until_first_request(image) for _ in range(ROUNDS))
    print(
        f"start to first request: {statistics.median(seconds):.3f} s "
        f"({seconds[0]:.3f} to {seconds[-1]:.3f}, {ROUNDS} runs)"
    )
    return 0


def until_first_request(image: Image) -> float:
    with (
        HubServer() as hub,
        tempfile.TemporaryDirectory() as folder,
        Runs(image, Path(folder)) as runs,
    ):
        hub.add_repo("org/model", {"config.json": b"{}"})
        begun = time.monotonic()
        runs.run("hf://org/model", environment={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_x"})
        return min(request.started for request in hub.log) - begun


if __name__ == "__main__":
    sys.exit(main())
