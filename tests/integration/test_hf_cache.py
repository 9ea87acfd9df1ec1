"""The cache of huggingface_hub: the library finds what we bring, and we use what it brought."""

import asyncio
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import IncompleteSnapshotError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store

from aim_downloader import clean, plan
from aim_downloader.errors import ConfigError, SnapshotNotFoundError, StorageError
from aim_downloader.events import PlanMade
from aim_downloader.snapshot import MIB
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    URI,
    Command,
    Downloader,
    Files,
    assert_right,
    content_requests,
    digest,
    names_below,
    total_size,
)

LARGE, OTHER, GIT = "model.safetensors", "onnx/other.safetensors", "config.json"
MODEL = "models--org--model"
LAYOUT = "hf-cache"
HF = Path(sys.executable).with_name("hf")


@pytest.fixture(scope="session")
def files() -> Files:
    """A model with large and small files, two of which have one content."""
    config = b'{"model_type": "llama"}'
    return {
        LARGE: os.urandom(6 * MIB + 7),
        OTHER: os.urandom(2 * MIB),
        "onnx/deep/tokenizer.bin": os.urandom(30_000),
        GIT: config,
        "onnx/config.json": config,
        "empty.txt": b"",
    }


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def model(cache: Path) -> Path:
    return cache / MODEL


@pytest.fixture
def bring(downloader: Downloader, cache: Path) -> Callable[..., Path]:
    """Our own download into the cache."""
    return functools.partial(downloader.run, cache, layout=LAYOUT)


@pytest.fixture
def bring_by_library(hub: HubServer, cache: Path) -> Callable[..., Path]:
    """The library's download into the cache."""

    def bring(**options: object) -> Path:
        told = {"cache_dir": cache, "endpoint": hub.endpoint, "token": False, **options}
        return Path(snapshot_download("org/model", **told))  # type: ignore[call-overload]

    return bring


@pytest.fixture
def environment(hub: HubServer, cache: Path, tmp_path: Path) -> Mapping[str, str]:
    """For programs that use the cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {
        **kept,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def said_by(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_cached(snapshot: Path, files: Files) -> None:
    """A snapshot of these files, as the library would have left it, and nothing on its way."""
    model = snapshot.parents[1]
    assert names_below(snapshot) == set(files)
    for name, content in files.items():
        assert_right(snapshot / name, content)
        blob = Path(os.path.normpath(snapshot / name / ".." / (snapshot / name).readlink()))
        assert blob.parent == model / "blobs"
        assert not (snapshot / name).readlink().is_absolute()
    hidden = model / HIDDEN / snapshot.name
    assert names_below(hidden) == {"SHA256SUMS", "origin.json"}
    assert not [path for path in hidden.iterdir() if path.is_dir()]
    found = scan_cache_dir(model.parent)
    assert not found.warnings
    assert not found.incomplete_files


def contents(files: Files) -> list[bytes]:
    """Each content once."""
    return list({bytes(content): None for content in files.values() if isinstance(content, bytes)})


# --- what the library finds -----------------------------------------------------------------------


def test_the_library_finds_what_we_brought(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    model: Path,
    files: Files,
) -> None:
    hub.repo("org/model").tag("v1")
    commit = hub.repo("org/model").head
    snapshot = bring()
    assert snapshot == model / "snapshots" / commit
    assert_cached(snapshot, files)
    assert (model / "refs/main").read_text() == commit
    tag = (model.parent / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert model.name == repo_folder_name(repo_id="org/model", repo_type="model")
    for revision in (None, "main", commit):
        assert bring_by_library(local_files_only=True, revision=revision) == snapshot
    assert try_to_load_from_cache("org/model", GIT, model.parent) == str(snapshot / GIT)

    [found] = scan_cache_dir(model.parent).repos
    [cached] = found.revisions
    assert (found.repo_id, found.repo_type) == ("org/model", "model")
    assert (cached.commit_hash, cached.refs) == (commit, frozenset({"main"}))
    assert {str(file.file_path.relative_to(snapshot)) for file in cached.files} == set(files)
    assert found.size_on_disk == sum(map(len, contents(files)))

    hub.clear_log()
    assert bring_by_library() == snapshot
    assert not content_requests(hub.log)
    assert_cached(snapshot, files)


def test_the_listing_is_kept_as_the_library_keeps_it(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    model: Path,
) -> None:
    listing = model / "trees" / f"{bring().name}.json"
    ours = json.loads(listing.read_bytes())
    shutil.rmtree(model)
    bring_by_library()
    assert ours == json.loads(listing.read_bytes())
    hub.clear_log()
    bring_by_library(revision=hub.repo("org/model").head)
    assert not hub.log


def test_programs_of_the_library_accept_it_without_a_network(
    bring: Callable[..., Path], environment: Mapping[str, str], hub: HubServer, cache: Path
) -> None:
    snapshot = bring()
    verified = said_by(
        HF,
        "cache",
        "verify",
        "org/model",
        "--fail-on-missing-files",
        "--fail-on-extra-files",
        **environment,
    )
    assert "6" in verified
    hub.clear_log()
    script = "from huggingface_hub import *; print(snapshot_download('org/model'))"
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert said_by(sys.executable, "-c", script, **offline).strip() == str(snapshot)
    script = "from huggingface_hub import *; print(hf_hub_download('org/model', 'config.json'))"
    assert said_by(sys.executable, "-c", script, **offline).strip() == str(snapshot / GIT)
    assert not hub.log


def test_the_sums_are_those_of_the_snapshot(bring: Callable[..., Path], model: Path) -> None:
    snapshot = bring()
    sums = model / HIDDEN / snapshot.name / "SHA256SUMS"
    command = ["sha256sum", "-c", "--strict", "--quiet", str(sums)]
    assert subprocess.run(command, cwd=snapshot, check=False).returncode == 0


@pytest.mark.parametrize("given", ["HF_HUB_CACHE", "HF_HOME"])
def test_without_a_folder_it_goes_where_the_library_looks(
    command: Command, tmp_path: Path, files: Files, given: str
) -> None:
    cache = tmp_path / "other" / ("hub" if given == "HF_HOME" else "")
    script = f"import aim_downloader; print(aim_downloader.download({URI!r}))"
    told = {"AIM_DOWNLOADER_LAYOUT": LAYOUT, given: str(tmp_path / "other")}
    said = said_by(sys.executable, "-c", script, **{**command.environment, **told})
    assert Path(said.strip()).parents[1] == cache / MODEL
    assert_cached(Path(said.strip()), files)


@pytest.mark.parametrize(("revision", "named"), [("main", "main"), ("v1", "v1"), ("a/b", "a/b")])
def test_a_branch_or_tag_is_noted(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    model: Path,
    revision: str,
    named: str,
) -> None:
    hub.repo("org/model").tag(revision)
    snapshot = bring(revision=revision)
    assert (model / "refs" / named).read_text() == snapshot.name
    assert bring_by_library(local_files_only=True, revision=revision) == snapshot


@pytest.mark.parametrize(("before", "now"), [("a", "a/b"), ("a/b/c", "a/b"), ("a/b", "a/b/c/d")])
def test_a_branch_that_cannot_be_noted_is_told_before_anything_is_fetched(
    bring: Callable[..., Path], hub: HubServer, model: Path, files: Files, before: str, now: str
) -> None:
    hub.repo("org/model").tag(before)
    snapshot = bring(revision=before)
    hub.repo("org/model").tag(now)
    shutil.rmtree(snapshot)
    hub.clear_log()
    with pytest.raises(ConfigError, match="stands in the way") as caught:
        bring(revision=now)
    assert str(model / "refs" / "a") in str(caught.value)
    assert caught.value.hint
    assert not hub.log
    assert bring(f"{URI}@{snapshot.name}") == snapshot
    assert_cached(snapshot, files)


def test_a_commit_gets_no_name(bring: Callable[..., Path], hub: HubServer, model: Path) -> None:
    assert bring(f"{URI}@{hub.repo('org/model').head}").is_dir()
    assert not (model / "refs").exists()


@pytest.mark.parametrize("revision", ["../../x", "/etc/x", "a/../../../x"])
def test_a_revision_that_would_lead_out_of_the_cache(
    bring: Callable[..., Path], cache: Path, revision: str
) -> None:
    with pytest.raises(ConfigError):
        bring(revision=revision)
    assert not cache.exists()


# --- what is there already ------------------------------------------------------------------------


def test_what_the_library_brought_is_not_fetched(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    files: Files,
    downloader: Downloader,
) -> None:
    snapshot = bring_by_library()
    hub.clear_log()
    assert bring() == snapshot
    assert not content_requests(hub.log)
    assert downloader.told(PlanMade)[-1].fetch_bytes == 0
    assert_cached(snapshot, files)


def test_what_the_library_brought_where_there_are_no_links(
    bring: Callable[..., Path],
    environment: Mapping[str, str],
    hub: HubServer,
    model: Path,
    files: Files,
) -> None:
    """Then each snapshot has files of its own, and no blobs."""
    # One at a time: where two files are alike, two workers of the library move one blob.
    command = (HF, "download", "--max-workers", "1", "org/model")
    said_by(*command, **environment, HF_HUB_DISABLE_SYMLINKS="1")
    snapshot = model / "snapshots" / hub.repo("org/model").head
    assert not (snapshot / LARGE).is_symlink()
    hub.clear_log()
    assert bring() == snapshot
    assert not content_requests(hub.log)
    for name, content in files.items():
        assert_right(snapshot / name, content)
    assert bring(offline=True) == snapshot
    assert list((model / "blobs").iterdir()) == []


def test_what_the_library_removed_is_brought_again(
    bring: Callable[..., Path], hub: HubServer, cache: Path, files: Files
) -> None:
    first = bring()
    hub.repo("org/model").commit({GIT: b"{}"})
    second = bring()
    scan_cache_dir(cache).delete_revisions(first.name).execute()
    assert_cached(second, {**files, GIT: b"{}"})
    hub.clear_log()
    assert bring(f"{URI}@{first.name}") == first
    # The other file with this content has kept the blob.
    assert not content_requests(hub.log)
    assert_cached(first, files)
    scan_cache_dir(cache).delete_revisions(first.name, second.name).execute()
    assert_cached(bring(), {**files, GIT: b"{}"})


def test_a_cache_that_is_filled_in_part(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    files: Files,
    model: Path,
) -> None:
    bring_by_library(allow_patterns=["onnx/*"])
    (model / "blobs" / "f00.1234abcd.incomplete").write_bytes(b"the library's")
    hub.clear_log()
    snapshot = bring()
    assert {record.file for record in content_requests(hub.log)} == {LARGE, "empty.txt"}
    (model / "blobs" / "f00.1234abcd.incomplete").unlink()
    assert_cached(snapshot, files)


def test_a_content_that_two_files_have_is_fetched_once(
    bring: Callable[..., Path], hub: HubServer
) -> None:
    twins = {"a.bin": b"x" * 3 * MIB, "b.bin": b"x" * 3 * MIB}
    commit = hub.repo("org/model").commit(twins, branch="twins").id
    bring(revision="twins")
    fetched = {record.file for record in content_requests(hub.log)}
    assert len(fetched & {"a.bin", "b.bin"}) == 1
    hub.clear_log()
    # All is on record: not even the Hub is asked.
    bring(f"{URI}@{commit}")
    assert not hub.log


def share(model: Path, path: Path) -> Path:
    """Move a blob where huggingface_hub keeps what several models share, by its own function."""
    blob = Path(os.path.normpath(path.parent / path.readlink()))
    size = blob.stat().st_size
    xet_hash = hashlib.sha256(blob.name.encode()).hexdigest()
    assert publish_blob_to_shared_store(
        blob_path=str(blob), xet_hash=xet_hash, cache_dir=model.parent, expected_size=size
    )
    assert blob.is_symlink()
    return blob.resolve()


def test_what_models_share_is_used_and_never_written_to(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    files: Files,
    model: Path,
) -> None:
    stored = share(model, bring_by_library() / LARGE)
    hub.clear_log()
    snapshot = bring()
    assert not content_requests(hub.log)
    assert_cached(snapshot, files)
    assert stored == (snapshot / LARGE).resolve()

    stored.chmod(0o644)
    stored.write_bytes(b"?" * len(files[LARGE]))  # type: ignore[arg-type]
    bring()
    assert {record.file for record in content_requests(hub.log)} == {LARGE}
    assert_cached(snapshot, files)
    assert stored.read_bytes() == b"?" * len(files[LARGE])  # type: ignore[arg-type]


def flip(blob: Path) -> None:
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)


def cut(blob: Path) -> None:
    os.truncate(blob, blob.stat().st_size - 1)


def lose(blob: Path) -> None:
    blob.unlink()


@pytest.mark.parametrize("brought", ["by us", "by the library"])
@pytest.mark.parametrize("damage", [flip, cut, lose])
@pytest.mark.parametrize("name", [LARGE, GIT])
def test_a_damaged_blob_is_found_and_replaced(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    files: Files,
    brought: str,
    damage: Callable[[Path], None],
    name: str,
) -> None:
    snapshot = bring() if brought == "by us" else bring_by_library()
    damage((snapshot / name).resolve())
    hub.clear_log()
    assert bring() == snapshot
    assert {record.file for record in content_requests(hub.log)} <= {name, "onnx/config.json"}
    assert content_requests(hub.log)
    assert_cached(snapshot, files)


def test_a_second_commit_shares_what_did_not_change(
    bring: Callable[..., Path],
    bring_by_library: Callable[..., Path],
    hub: HubServer,
    files: Files,
    model: Path,
) -> None:
    first = bring()
    hub.repo("org/model").commit({GIT: b"{}", "empty.txt": None})
    hub.clear_log()
    second = bring()
    assert {record.file for record in content_requests(hub.log)} == {GIT}
    assert second != first
    assert_cached(first, files)
    later = {**files, GIT: b"{}"}
    del later["empty.txt"]
    assert_cached(second, later)
    assert (model / "refs/main").read_text() == second.name
    assert bring_by_library(local_files_only=True) == second
    [found] = scan_cache_dir(model.parent).repos
    assert {revision.refs for revision in found.revisions} == {frozenset(), frozenset({"main"})}


def test_what_another_commit_has_on_record_is_not_read_again(
    bring: Callable[..., Path], hub: HubServer, downloader: Downloader
) -> None:
    first = bring()
    # Whoever reads this blob finds it damaged; by size and time it is what it was.
    blob = (first / LARGE).resolve()
    before = blob.stat()
    flip(blob)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    hub.repo("org/model").commit({"new.json": b"new"})
    hub.clear_log()
    bring()
    assert {record.file for record in content_requests(hub.log)} == {"new.json"}


def test_parts_add_up(
    bring: Callable[..., Path], bring_by_library: Callable[..., Path], hub: HubServer, files: Files
) -> None:
    snapshot = bring(f"{URI}@main/onnx")
    assert names_below(snapshot) == {name for name in files if name.startswith("onnx/")}
    assert bring(include=["*.json"]) == snapshot
    assert names_below(snapshot) == {n for n in files if n.startswith("onnx/") or n == GIT}
    hub.clear_log()
    assert bring_by_library(local_files_only=True, allow_patterns=["onnx/*"]) == snapshot
    with pytest.raises(IncompleteSnapshotError):
        bring_by_library(local_files_only=True)
    bring()
    fetched = {record.file for record in content_requests(hub.log)}
    assert fetched == {LARGE, "empty.txt"}
    assert_cached(snapshot, files)
    assert bring_by_library(local_files_only=True) == snapshot


async def test_a_plan_knows_what_the_cache_has_and_writes_nothing(
    downloader: Downloader, bring_by_library: Callable[..., Path], cache: Path, files: Files
) -> None:
    bring_by_library(allow_patterns=[LARGE])
    before = names_below(cache)
    config = downloader.config(layout=LAYOUT)
    planned = await plan(URI, cache, config=config)
    assert [file.path for file in planned.held if file.size > MIB] == [LARGE]
    assert LARGE not in {file.path for file in planned.fetch}
    assert names_below(cache) == before
    await plan(URI, cache.with_name("none"), config=config)
    assert not cache.with_name("none").exists()


# --- without a network ----------------------------------------------------------------------------


def test_a_commit_that_is_complete_costs_no_request(
    bring: Callable[..., Path], hub: HubServer, downloader: Downloader
) -> None:
    snapshot = bring()
    hub.clear_log()
    assert bring(f"{URI}@{snapshot.name}") == snapshot
    assert bring(offline=True) == snapshot
    assert bring(f"{URI}@{snapshot.name}", offline=True, include=["*.json"]) == snapshot
    assert not hub.log


@pytest.mark.parametrize("lost", ["blob", "link", "ref", "receipt"])
def test_offline_nothing_may_be_lacking(
    bring: Callable[..., Path], hub: HubServer, model: Path, files: Files, lost: str
) -> None:
    snapshot = bring()
    where = {
        "blob": (snapshot / OTHER).resolve(),
        "link": snapshot / OTHER,
        "ref": model / "refs/main",
        "receipt": model / HIDDEN / snapshot.name / "origin.json",
    }
    where[lost].unlink()
    with pytest.raises(SnapshotNotFoundError):
        bring(offline=True)
    assert bring() == snapshot
    assert_cached(snapshot, files)
    assert bring(offline=True) == snapshot


def test_offline_the_cache_says_what_a_branch_is(
    bring: Callable[..., Path], bring_by_library: Callable[..., Path], hub: HubServer
) -> None:
    snapshot = bring(f"{URI}@{hub.repo('org/model').head}")
    with pytest.raises(SnapshotNotFoundError):
        bring(offline=True)
    assert bring_by_library() == snapshot
    assert bring(offline=True) == snapshot


def test_offline_a_cache_that_is_not_there(bring: Callable[..., Path], cache: Path) -> None:
    with pytest.raises(SnapshotNotFoundError, match=str(cache)):
        bring(offline=True)
    assert not cache.exists()


# --- what happens on the way ----------------------------------------------------------------------


def test_killed_in_the_middle_it_goes_on_and_shows_nothing_before(
    hub: HubServer,
    command: Command,
    cache: Path,
    model: Path,
    files: Files,
    bring_by_library: Callable[..., Path],
) -> None:
    hub.pace(6e6)
    running = command.start(URI, cache, AIM_DOWNLOADER_LAYOUT=LAYOUT)
    hub.wait_for_bytes(4 * MIB)
    running.kill()
    assert list((model / HIDDEN).glob("*/partial/*.partial"))
    assert not list((model / "snapshots").iterdir())
    assert not (model / "refs").exists()
    assert not scan_cache_dir(cache).warnings
    sent = hub.bytes_sent()
    hub.pace(None)
    done = command.run(URI, cache, AIM_DOWNLOADER_LAYOUT=LAYOUT)
    assert done.code == 0, done.said
    snapshot = bring_by_library(local_files_only=True)
    assert_cached(snapshot, files)
    assert hub.bytes_sent() <= total_size(files) + 6 * MIB
    assert sent < total_size(files)


def test_two_commits_at_the_same_time(
    hub: HubServer, command: Command, cache: Path, files: Files
) -> None:
    first = hub.repo("org/model").head
    hub.repo("org/model").commit({GIT: b"{}"})
    second = hub.repo("org/model").head
    hub.pace(20e6)
    both = [
        command.start(f"{URI}@{commit}", cache, AIM_DOWNLOADER_LAYOUT=LAYOUT)
        for commit in (first, second)
    ]
    for running in both:
        done = running.finish()
        assert done.code == 0, done.said
    assert_cached(cache / MODEL / "snapshots" / first, files)
    assert_cached(cache / MODEL / "snapshots" / second, {**files, GIT: b"{}"})
    # Whichever of them brought a blob last, both know it now.
    hub.clear_log()
    for commit in (first, second):
        done = command.run(f"{URI}@{commit}", cache, AIM_DOWNLOADER_LAYOUT=LAYOUT)
        assert done.code == 0, done.said
    assert not hub.log


def test_two_runs_of_one_commit_fetch_it_once(
    hub: HubServer, command: Command, cache: Path, files: Files
) -> None:
    hub.pace(20e6)
    for running in [command.start(URI, cache, AIM_DOWNLOADER_LAYOUT=LAYOUT) for _ in range(2)]:
        done = running.finish()
        assert done.code == 0, done.said
    assert hub.bytes_sent() <= total_size(files) + MIB
    assert_cached(cache / MODEL / "snapshots" / hub.repo("org/model").head, files)


def test_the_library_at_the_same_time(
    hub: HubServer,
    command: Command,
    bring_by_library: Callable[..., Path],
    cache: Path,
    files: Files,
) -> None:
    hub.pace(10e6)
    running = command.start(URI, cache, AIM_DOWNLOADER_LAYOUT=LAYOUT)
    hub.wait_for_bytes(MIB // 2)
    snapshot = bring_by_library()
    done = running.finish()
    assert done.code == 0, done.said
    assert_cached(snapshot, files)


def test_wrong_bytes_show_nothing(
    bring: Callable[..., Path], hub: HubServer, model: Path, files: Files
) -> None:
    hub.fault(faults.DamagedByte(MIB), path=LARGE, times=99)
    with pytest.raises(Exception, match=LARGE):
        bring()
    assert not (model / "refs").exists()
    assert not list((model / "snapshots").iterdir())
    name = digest(files[LARGE])
    assert not (model / "blobs" / name).exists()
    hub.clear_faults()
    assert_cached(bring(), files)


def test_clean_leaves_what_is_verified_and_nothing_to_resume(
    bring: Callable[..., Path], hub: HubServer, model: Path
) -> None:
    hub.fault(faults.DamagedByte(MIB), path=LARGE, times=99)
    with pytest.raises(Exception, match=LARGE):
        bring(clean=True)
    assert not (model / HIDDEN).exists()
    assert not scan_cache_dir(model.parent).warnings


@pytest.mark.parametrize("place", ["cache", "snapshot"])
def test_clean_removes_what_dead_runs_left(
    hub: HubServer, command: Command, cache: Path, model: Path, place: str
) -> None:
    hub.pace(1e6)
    running = command.start(URI, cache, "--include", LARGE, AIM_DOWNLOADER_LAYOUT=LAYOUT)
    hub.wait_for_bytes(2 * MIB)
    commit = hub.repo("org/model").head
    target = cache if place == "cache" else model / "snapshots" / commit
    refused = clean(target)
    assert refused.busy
    running.kill()
    done = clean(target)
    assert done.bytes >= MIB
    assert not done.busy
    assert list(cache.iterdir()) == []
    assert clean(target).removed == ()


def test_clean_leaves_a_finished_model_alone(
    bring: Callable[..., Path], cache: Path, files: Files
) -> None:
    snapshot = bring()
    before = names_below(cache)
    assert clean(cache).removed == ()
    assert names_below(cache) == before
    assert_cached(snapshot, files)


# --- what stands in the way -----------------------------------------------------------------------


def test_a_link_that_points_elsewhere_is_replaced(
    bring: Callable[..., Path], tmp_path: Path, files: Files
) -> None:
    snapshot = bring()
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    for name in (LARGE, GIT):
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(mine)
    bring()
    assert_cached(snapshot, files)
    assert mine.read_bytes() == b"mine"


def edit(path: Path) -> None:
    """As ``sed -i`` does it: another file for the link."""
    path.unlink()
    path.write_bytes(b"edited")


def point_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def edit_and_lose_blob(path: Path) -> None:
    path.resolve().unlink()
    edit(path)


@pytest.mark.parametrize("on_record", [True, False])
@pytest.mark.parametrize("change", [edit, point_elsewhere, edit_and_lose_blob])
def test_a_plan_tells_of_a_file_that_it_would_replace(
    bring: Callable[..., Path],
    downloader: Downloader,
    cache: Path,
    model: Path,
    files: Files,
    change: Callable[[Path], None],
    on_record: bool,
) -> None:
    snapshot = bring()
    change(snapshot / OTHER)
    (snapshot / LARGE).unlink()
    (snapshot / GIT).resolve().unlink()
    if not on_record:
        shutil.rmtree(model / HIDDEN)
    made = asyncio.run(plan(URI, cache, config=downloader.config(layout=LAYOUT)))
    assert made.reasons == {OTHER: "replaces a file that differs"}
    bring()
    assert_cached(snapshot, files)
    made = asyncio.run(plan(URI, cache, config=downloader.config(layout=LAYOUT)))
    assert made.reasons == {}


def test_the_table_of_a_plan_has_a_file_that_would_be_replaced_and_not_fetched(
    bring: Callable[..., Path], command: Command, cache: Path
) -> None:
    edit(bring() / OTHER)
    told = command.run("plan", URI, cache, AIM_DOWNLOADER_LAYOUT=LAYOUT)
    assert told.code == 0, told.said
    [line] = [line for line in told.stdout.splitlines() if OTHER in line]
    assert "there" in line
    assert "replaces a file that differs" in line


def test_a_blob_that_is_a_foreign_link_is_fetched(
    bring: Callable[..., Path], tmp_path: Path, files: Files
) -> None:
    """Even where the link leads to the right bytes: they may change without us."""
    snapshot = bring()
    for name in (LARGE, GIT):
        blob = (snapshot / name).resolve()
        blob.rename(tmp_path / blob.name)
        blob.symlink_to(tmp_path / blob.name)
    bring()
    assert_cached(snapshot, files)
    for name in (LARGE, GIT):
        assert not (snapshot / name).resolve().is_relative_to(tmp_path / (snapshot / name).name)
        blob = Path(os.path.normpath(snapshot / name / ".." / (snapshot / name).readlink()))
        assert not blob.is_symlink()


@pytest.mark.parametrize(
    "name", ["", "blobs", "snapshots", "snapshots/COMMIT", "snapshots/COMMIT/onnx", HIDDEN, "refs"]
)
def test_a_folder_that_leads_elsewhere_is_refused(
    bring: Callable[..., Path], hub: HubServer, model: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_bytes(b"mine")
    planted = model / name.replace("COMMIT", hub.repo("org/model").head)
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(outside)
    with pytest.raises(StorageError, match="symlink"):
        bring()
    assert names_below(outside) == {"mine"}


@pytest.mark.parametrize("right", [True, False])
def test_a_file_in_place_of_a_link(
    bring: Callable[..., Path], hub: HubServer, files: Files, right: bool
) -> None:
    """So the library does it where there are no symlinks: the content lies in the snapshot."""
    snapshot = bring()
    place = snapshot / LARGE
    blob = place.resolve()
    place.unlink()
    shutil.move(blob, place)
    if not right:
        flip(place)
    hub.clear_log()
    bring()
    assert bool(content_requests(hub.log)) is not right
    assert place.is_symlink() is not right
    for name, content in files.items():
        assert_right(snapshot / name, content)
