"""The real store: it keeps what it was given, and ends with those who started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aim_downloader.demo.content import Content
from tests.hub.client import fetch
from tests.integration.support import wait_until
from tests.xet import XetStore
from tests.xet.need import need_server
from tests.xet.xorb import plain_byte

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _server() -> None:
    need_server()


def test_a_later_store_has_the_contents_of_the_folder(tmp_path: Path) -> None:
    with XetStore(tmp_path / "store") as store:
        known = store.upload(b"content" * 100)
        address = store.endpoint
    with pytest.raises(ConnectionRefusedError):
        fetch(f"{address}/health")
    with XetStore(tmp_path / "store") as store:
        before = sorted(store.xorbs.iterdir())
        assert store.upload(b"content" * 100) == known
        assert sorted(store.xorbs.iterdir()) == before
        assert store.reconstruction(known)["terms"][0]["unpacked_length"] == 700


def test_many_contents_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1_000_000))
    contents = [Content(path), Content(b"other")]
    with XetStore(tmp_path / "store") as store:
        store.take(contents)
        store.take([])
        hashes = [store.hash_of(content) for content in contents]
        sizes = [store.reconstruction(each)["terms"][0]["unpacked_length"] for each in hashes]
    assert sizes[1] == 5
    assert len(set(hashes)) == 2


STARTER = """
import sys
from pathlib import Path
from tests.xet import XetStore
with XetStore(Path(sys.argv[1])) as store:
    print(store.endpoint, flush=True)
    sys.stdin.read()
"""


def test_a_store_ends_with_a_killed_user(tmp_path: Path) -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", STARTER, tmp_path],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with user:
        assert user.stdout is not None
        address = user.stdout.readline().strip()
        assert fetch(f"{address}/health").status == 200
        user.send_signal(signal.SIGKILL)
    wait_until(lambda: _is_gone(address))


@pytest.mark.parametrize(
    ("everywhere", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_a_missing_server_is_a_failure_where_everything_must_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, everywhere: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CI", everywhere)
    with pytest.raises(outcome, match="tests/setup-servers"):
        need_server()


def _is_gone(address: str) -> bool:
    try:
        fetch(f"{address}/health")
    except ConnectionError:
        return True
    return False


def test_compressed_chunks_have_no_plain_byte(tmp_path: Path) -> None:
    with XetStore(tmp_path / "store") as store:
        known = store.upload(b"the same again " * 100_000)
        ((xorb, (part,)),) = store.reconstruction(known)["xorbs"].items()
        span = part["ranges"][0]["bytes"]
        with pytest.raises(ValueError, match="no uncompressed chunk"):
            plain_byte(store.xorb(xorb), span["start"], span["end"] + 1)
