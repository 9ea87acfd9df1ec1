"""What the tests are given: the image, runs of its programs, and a Hub with a model."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aim_downloader.demo.content import Content
from tests.hub import HubServer
from tests.images.image import Image, Runs
from tests.images.need import need_image
from tests.integration.support import MIB, TOKEN, Files
from tests.xet import XetFront, XetStore
from tests.xet.need import need_server


@pytest.fixture(scope="session")
def image() -> Image:
    return need_image()


@pytest.fixture
def runs(image: Image, tmp_path: Path) -> Iterator[Runs]:
    with Runs(image, tmp_path) as runs:
        yield runs


@pytest.fixture(scope="session")
def files() -> Files:
    return {
        "model.safetensors": os.urandom(9 * MIB),
        "config.json": b'{"model_type": "llama"}',
        # No program of ours may ever import what a model brings.
        "click.py": b"raise SystemExit('a file of the model was run')\n",
    }


@pytest.fixture
def hub(files: Files) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_repo("org/model", files)
        server.add_repo("org/other", {"config.json": b"{}"})
        server.add_token(TOKEN)
        yield server


@pytest.fixture
def xet_hub(files: Files) -> Iterator[HubServer]:
    """The same with the large file in a Xet store as well."""
    need_server()
    with tempfile.TemporaryDirectory(prefix="aim-xet-") as folder, XetStore(Path(folder)) as store:
        store.take([Content(files["model.safetensors"])])
        with XetFront(store) as front, HubServer(xet=front) as server:
            server.add_repo("org/model", files)
            yield server
