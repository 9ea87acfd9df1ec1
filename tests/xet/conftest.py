"""The real store for the tests of its front, and a Hub with a model in it."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import HubServer
from tests.xet import XetFront, XetStore
from tests.xet.need import need_server

WEIGHTS = random.Random(0).randbytes(3_000_000)
PATH = "model.safetensors"
FILES = {
    PATH: WEIGHTS,
    "deep/other.bin": WEIGHTS[::-1],
    "empty.bin": b"",
    "config.json": b"{}",
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of this machine stands between the tests and their servers."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def store() -> Iterator[XetStore]:
    need_server()
    with tempfile.TemporaryDirectory(prefix="aim-xet-") as folder, XetStore(Path(folder)) as store:
        yield store


@pytest.fixture
def xet(store: XetStore) -> Iterator[XetFront]:
    with XetFront(store) as front:
        yield front


@pytest.fixture
def hub(xet: XetFront) -> Iterator[HubServer]:
    with HubServer(xet=xet) as server:
        server.add_repo("org/model", FILES)
        server.add_repo("org/private", {"private.bin": b"private"}, private=True)
        server.add_repo("org/gated", {"gated.bin": b"gated"}, gated="auto")
        server.add_token("hf_reader", reads=("org/private", "org/gated"))
        server.add_token("hf_stranger")
        yield server
