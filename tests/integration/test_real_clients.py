"""The clients that people use work against the Hub of these tests, unmodified."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.hub import HubServer, faults

WEIGHTS = random.Random(0).randbytes(3_000_000)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "empty.txt": b"",
    "names/a b+c.txt": b"odd name",
    "model-00001-of-00002.safetensors": WEIGHTS,
    "deep/er/model-00002-of-00002.safetensors": WEIGHTS[::-1],
}
LARGE = "model-00001-of-00002.safetensors"
HF = Path(sys.executable).with_name("hf")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(page_size=2) as server:
        repo = server.add_repo("org/model", FILES)
        repo.tag("v1")
        repo.commit({"config.json": b"{}"}, branch="next", title="Next")
        server.add_repo("bare", {"config.json": b"{}"})
        server.add_repo("org/private", {"config.json": b"{}"}, private=True)
        server.add_repo("org/gated", {"model.bin": b"weights"}, gated="auto")
        server.add_token("hf_reader", reads=("org/private", "org/gated"))
        server.add_token("hf_stranger")
        yield server


@pytest.fixture
def environment(hub: HubServer, tmp_path: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {
        **kept,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,127.0.0.2",
    }


def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_below(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {n: path.read_bytes() for n, path in names.items() if not n.startswith(".cache")}


def test_hf_download_and_cache_verify(
    hub: HubServer, environment: Mapping[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "model"
    run([HF, "download", "org/model", "--revision", "v1", "--local-dir", target], environment)
    assert files_below(target) == FILES
    assert hub.bytes_sent(LARGE) == len(WEIGHTS)
    verify: list[str | Path] = [
        HF,
        "cache",
        "verify",
        "org/model",
        "--revision",
        "v1",
        "--local-dir",
        target,
    ]
    run([*verify, "--fail-on-missing-files", "--fail-on-extra-files"], environment)
    (target / LARGE).write_bytes(WEIGHTS[1:] + b"x")
    done = subprocess.run(verify, env=environment, capture_output=True, timeout=100, check=False)
    assert done.returncode == 1


def test_hf_download_into_the_cache(environment: Mapping[str, str], hub: HubServer) -> None:
    out = run([HF, "download", "org/model", "--quiet"], environment)
    snapshot = Path(out.strip().splitlines()[-1].removeprefix("path:").strip())
    assert files_below(snapshot) == FILES
    run([HF, "cache", "verify", "org/model"], environment)


def test_hf_download_resumes_a_short_body(
    hub: HubServer, environment: Mapping[str, str], tmp_path: Path
) -> None:
    hub.fault(faults.ShortBody(after=1_000_000), path=LARGE)
    run([HF, "download", "org/model", LARGE, "--local-dir", tmp_path / "model"], environment)
    assert (tmp_path / "model" / LARGE).read_bytes() == WEIGHTS


SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], revision=sys.argv[2], local_dir=sys.argv[3]))
"""


# In a process of its own: the library takes its settings from the environment at import.
@pytest.mark.parametrize("repo", ["org/model", "bare"])
def test_snapshot_download(environment: Mapping[str, str], tmp_path: Path, repo: str) -> None:
    target = tmp_path / "model"
    run([sys.executable, "-c", SNAPSHOT, repo, "main", str(target)], environment)
    expected = FILES if repo == "org/model" else {"config.json": b"{}"}
    assert files_below(target) == expected


def test_private_repository_with_its_token(environment: Mapping[str, str], tmp_path: Path) -> None:
    known = {**environment, "HF_TOKEN": "hf_reader"}
    run([HF, "download", "org/private", "--local-dir", tmp_path / "model"], known)
    assert "demo" in run([HF, "auth", "whoami"], known)


def api(hub: HubServer, token: str | None = None) -> HfApi:
    # False: no token at all, not one that this machine happens to hold.
    return HfApi(endpoint=hub.endpoint, token=token or False)


def test_model_info(hub: HubServer) -> None:
    info = api(hub).model_info("org/model", revision="v1", files_metadata=True)
    assert info.siblings is not None
    found = {sibling.rfilename: sibling for sibling in info.siblings}
    assert found.keys() == FILES.keys()
    assert found[LARGE].size == len(WEIGHTS)
    assert found[LARGE].lfs is not None
    assert found["config.json"].lfs is None
    assert (info.private, info.gated) == (False, False)


def test_list_repo_tree_over_several_pages(hub: HubServer) -> None:
    items = list(api(hub).list_repo_tree("org/model", recursive=True, expand=True))
    files = {item.path: item for item in items if isinstance(item, RepoFile)}
    folders = {item.path for item in items if isinstance(item, RepoFolder)}
    assert files.keys() == FILES.keys()
    assert folders == {"names", "deep", "deep/er"}
    assert files[LARGE].last_commit is not None
    pages = [record for record in hub.log if "/tree/" in record.path]
    assert len(pages) == 4


def test_get_paths_info(hub: HubServer) -> None:
    items = api(hub).get_paths_info("org/model", ["config.json", "no.txt", "deep"], expand=True)
    assert [item.path for item in items] == ["config.json", "deep"]


def test_list_repo_refs_and_commits(hub: HubServer) -> None:
    refs = api(hub).list_repo_refs("org/model")
    assert {branch.name for branch in refs.branches} == {"main", "next"}
    assert [tag.name for tag in refs.tags] == ["v1"]
    commits = api(hub).list_repo_commits("org/model", revision="next")
    assert [commit.title for commit in commits] == ["Next", "Upload model"]


def test_errors_become_the_exceptions_of_the_library(hub: HubServer, tmp_path: Path) -> None:
    def fetch(repo: str, path: str, **options: str) -> None:
        token = options.pop("token", None)
        api(hub, token).hf_hub_download(repo, path, local_dir=tmp_path, **options)  # type: ignore[call-overload]

    with pytest.raises(RepositoryNotFoundError):
        fetch("org/no", "config.json")
    with pytest.raises(RepositoryNotFoundError):
        fetch("org/private", "config.json", token="hf_stranger")
    with pytest.raises(RevisionNotFoundError):
        fetch("org/model", "config.json", revision="no")
    with pytest.raises(EntryNotFoundError):
        fetch("org/model", "no.txt")
    with pytest.raises(GatedRepoError):
        fetch("org/gated", "model.bin")
    with pytest.raises(GatedRepoError):
        fetch("org/gated", "model.bin", token="hf_stranger")


def test_renamed_repository_is_followed(hub: HubServer) -> None:
    hub.rename_repo("org/model", "org/newer")
    assert api(hub).model_info("org/model").id == "org/newer"


HF_TRANSFER = """
import sys, hf_transfer
hf_transfer.download(
    sys.argv[1], sys.argv[2], max_files=4, chunk_size=500_000, parallel_failures=3, max_retries=5,
    headers={"Authorization": "Bearer hf_reader"},
)
"""


# In a process of its own: it holds the interpreter lock during the whole call.
def test_hf_transfer(hub: HubServer, environment: Mapping[str, str], tmp_path: Path) -> None:
    hub.fault(faults.Reset(), path=LARGE, at=1_234_567)
    url = f"{hub.endpoint}/org/model/resolve/main/{LARGE}"
    target = tmp_path / "model.safetensors"
    run([sys.executable, "-c", HF_TRANSFER, url, str(target)], environment)
    assert target.read_bytes() == WEIGHTS
    assert all("Authorization" not in r.headers for r in hub.log if r.where == "cdn")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("path", [LARGE, "config.json"])
def test_curl_with_a_range(
    hub: HubServer, environment: Mapping[str, str], tmp_path: Path, path: str
) -> None:
    target = tmp_path / "part"
    url = f"{hub.endpoint}/org/model/resolve/main/{path}"
    run(["curl", "-fsSL", "--range", "5-14", "--output", target, url], environment)
    assert target.read_bytes() == FILES[path][5:15]
    assert hub.bytes_sent(path) == 10
