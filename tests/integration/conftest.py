"""What the integration tests are given: a Hub, a model in it, and two ways to download."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aim_downloader.demo.content import Content
from aim_downloader.demo.repository import lfs_by_suffix
from tests.hub import HubServer
from tests.integration.support import MIB, TOKEN, Command, Downloader, Files
from tests.xet import XetFront, XetStore
from tests.xet.need import need_server


@pytest.fixture(scope="session")
def files() -> Files:
    """A model: a large file, a second one, small files with and without LFS."""
    return {
        "model.safetensors": os.urandom(24 * MIB),
        "other.safetensors": os.urandom(3 * MIB + 123),
        "tokenizer.bin": os.urandom(300_000),
        "config.json": b'{"model_type": "llama"}',
        "empty.txt": b"",
    }


@pytest.fixture(scope="session")
def pool() -> bytes:
    """What large files are cut from."""
    return os.urandom(64 * MIB)


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder for gigabytes: in memory when there is room, so that no disk sets the pace."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 8 * 1024 * MIB:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="aim-test-", dir=memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of this machine stands between the tests and their Hub."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def hub(files: Files) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_repo("org/model", files)
        server.add_token(TOKEN)
        yield server


@pytest.fixture
def command(hub: HubServer, tmp_path: Path) -> Iterator[Command]:
    """The real command line; what it has started ends with the test."""
    folder = tmp_path / "command"
    folder.mkdir()
    with Command(hub.endpoint, folder) as command:
        yield command


@pytest.fixture
def downloader(hub: HubServer) -> Downloader:
    return Downloader(hub)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


# --- the same with Xet ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def xet_store(files: Files) -> Iterator[XetStore]:
    """The real Xet store, with the model in it."""
    need_server()
    with tempfile.TemporaryDirectory(prefix="aim-xet-") as folder, XetStore(Path(folder)) as store:
        store.take(Content(data) for name, data in files.items() if lfs_by_suffix(name))
        yield store


@pytest.fixture
def xet(xet_store: XetStore) -> Iterator[XetFront]:
    with XetFront(xet_store) as front:
        yield front


@pytest.fixture
def xet_hub(xet: XetFront, files: Files) -> Iterator[HubServer]:
    """The same Hub, which has its large files in a Xet store as well."""
    with HubServer(xet=xet) as server:
        server.add_repo("org/model", files)
        server.add_token(TOKEN)
        yield server


@pytest.fixture
def xet_command(xet_hub: HubServer, tmp_path: Path) -> Iterator[Command]:
    folder = tmp_path / "command"
    folder.mkdir()
    with Command(xet_hub.endpoint, folder) as command:
        yield command


@pytest.fixture
def xet_downloader(xet_hub: HubServer) -> Downloader:
    return Downloader(xet_hub)
