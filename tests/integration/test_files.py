"""Files of every size and name, chosen in every way, into targets of every kind."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    MIB,
    URI,
    Command,
    Downloader,
    Files,
    Finished,
    assert_polite,
    assert_snapshot,
    content_requests,
    names_below,
    size_of,
)

LARGE, OTHER, GIT = "model.safetensors", "other.safetensors", "config.json"


def said_well(done: Finished) -> bool:
    """What was wrong is said in words, for people."""
    return "Traceback" not in done.stderr and done.stderr.count("error:") == 1


# --- sizes ----------------------------------------------------------------------------------------

SIZES = [
    *(0, 1, 2, 1000, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1),
    *(8 * MIB, 8 * MIB + 1, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 32 * MIB),
]


@pytest.mark.parametrize("suffix", ["safetensors", "json"], ids=["LFS", "git"])
async def test_sizes_at_every_border(
    hub: HubServer, downloader: Downloader, target: Path, pool: bytes, suffix: str
) -> None:
    files = {f"{size}.{suffix}": pool[size : 2 * size] for size in SIZES}
    hub.add_repo("org/sizes", files)
    await downloader(target, "hf://org/sizes")
    assert_snapshot(target, files)
    assert_polite(hub.log)
    for name, content in files.items():
        assert hub.bytes_sent(name) == size_of(content), name


async def test_sizes_at_every_border_over_one_slow_connection(
    hub: HubServer, downloader: Downloader, target: Path, pool: bytes
) -> None:
    files = {f"{size}.bin": pool[size : 2 * size] for size in SIZES if size <= 8 * MIB + 1}
    hub.add_repo("org/sizes", files)
    hub.pace(60e6)
    await downloader(target, "hf://org/sizes", connections=1)
    assert_snapshot(target, files)


async def test_a_thousand_small_files(hub: HubServer, downloader: Downloader, target: Path) -> None:
    files = {f"part-{number % 10}/{number:04}.json": b"%d" % number for number in range(1000)}
    hub.add_repo("org/many", files)
    await downloader(target, "hf://org/many")
    assert_snapshot(target, files)
    assert len(content_requests(hub.log)) == 2 * len(files), "a redirect and an answer for each"


# --- names ----------------------------------------------------------------------------------------

NAMES = [
    "with space.json",
    " leading and trailing .json",
    "percent%20encoded.json",
    "100%.json",
    "hash#1.json",
    "question?.json",
    "plus+and&amp=.json",
    "quotes'\".json",
    "semi;colon,comma.json",
    "[brackets]{braces}.json",
    "tilde~.json",
    "-dash.json",
    "...dots",
    "Ünïcödé/模型/модель.json",
    "emoji-🤗.json",
    "decomposed-e\u0301.json",
    "a/very/deep/folder/in/a/folder/in/a/folder/file.json",
    "same/name.json",
    "other/name.json",
    "n" * 250,
    ".gitattributes",
    ".hidden/config.json",
]


@pytest.mark.parametrize("large", [False, True], ids=["git", "LFS"])
def test_names_of_every_kind(hub: HubServer, command: Command, target: Path, large: bool) -> None:
    size = MIB + 7 if large else 10
    files = {name: os.urandom(size) for name in NAMES}
    hub.add_repo("org/names", files, lfs=lambda _: large)
    done = command.run("hf://org/names", target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", f"{HIDDEN}/SHA256SUMS"],
        cwd=target,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "name",
    ["../escape.json", "a/../../escape.json", f"{HIDDEN}/lease", "back\\slash.json", "new\nline"],
)
def test_a_hostile_name_is_refused_and_nothing_is_written(
    hub: HubServer, command: Command, target: Path, name: str
) -> None:
    hub.add_repo("org/hostile", {"config.json": b"{}", name: b"hostile"})
    done = command.run("hf://org/hostile", target)
    assert done.code == 75, done.said
    assert said_well(done)
    assert not target.exists()
    assert not content_requests(hub.log)


# --- which files ----------------------------------------------------------------------------------

TREE = {
    "config.json": b"{}",
    "model.bin": b"weights",
    "onnx/model.onnx": b"onnx",
    "onnx/deep/er.json": b"[]",
    "onnx-other/x.json": b"x",
    "readme.md": b"hello",
}


@pytest.mark.parametrize(
    ("include", "exclude", "wanted"),
    [
        ((), (), list(TREE)),
        (("*.json",), (), ["config.json", "onnx/deep/er.json", "onnx-other/x.json"]),
        (("onnx/",), (), ["onnx/model.onnx", "onnx/deep/er.json"]),
        (("*.md", "*.bin"), (), ["readme.md", "model.bin"]),
        ((), ("onnx*",), ["config.json", "model.bin", "readme.md"]),
    ],
)
def test_include_and_exclude(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    wanted: Sequence[str],
) -> None:
    hub.add_repo("org/folders", TREE)
    downloader.run(target, "hf://org/folders", include=include, exclude=exclude)
    assert_snapshot(target, {name: TREE[name] for name in wanted})


def test_include_and_exclude_on_the_command_line(
    hub: HubServer, command: Command, target: Path
) -> None:
    hub.add_repo("org/folders", TREE)
    words = ["--include", "*.json", "--include", "*.md", "--exclude", "onnx/*"]
    done = command.run("hf://org/folders", target, *words)
    assert done.code == 0, done.said
    names = ["config.json", "onnx-other/x.json", "readme.md"]
    assert_snapshot(target, {name: TREE[name] for name in names})


@pytest.mark.parametrize(
    ("subpath", "wanted"),
    [
        ("/onnx", ["onnx/model.onnx", "onnx/deep/er.json"]),
        ("/onnx/deep/", ["onnx/deep/er.json"]),
        ("/readme.md", ["readme.md"]),
        ("@main/onnx/model.onnx", ["onnx/model.onnx"]),
    ],
)
def test_a_subpath_or_a_single_file(
    hub: HubServer, downloader: Downloader, target: Path, subpath: str, wanted: Sequence[str]
) -> None:
    hub.add_repo("org/folders", TREE)
    downloader.run(target, f"hf://org/folders{subpath}")
    assert_snapshot(target, {name: TREE[name] for name in wanted})


def test_what_was_brought_first_stays_on_the_receipt_of_the_same_commit(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    hub.add_repo("org/folders", TREE)
    for name in TREE:
        downloader.run(target, "hf://org/folders", include=(name,))
    assert_snapshot(target, TREE)


def test_two_models_in_one_command(
    hub: HubServer, command: Command, tmp_path: Path, files: Files
) -> None:
    hub.add_repo("org/folders", TREE)
    done = command.run(URI, tmp_path / "a", "hf://org/folders", tmp_path / "b")
    assert done.code == 0, done.said
    assert_snapshot(tmp_path / "a", files)
    assert_snapshot(tmp_path / "b", TREE)


# --- which revision -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_uri", "setting", "content"),
    [
        ("", None, b"main"),
        ("@main", None, b"main"),
        ("@v1", None, b"first"),
        ("", "v1", b"first"),
        ("@next", None, b"next"),
        ("@feature%2Fx", None, b"feature"),
        ("", "feature/x", b"feature"),
        ("@refs/pr/1", None, b"pull request"),
        ("", "refs/pr/1", b"pull request"),
        ("@COMMIT", None, b"first"),
        ("", "COMMIT", b"first"),
    ],
)
def test_a_revision_by_any_name(
    hub: HubServer,
    downloader: Downloader,
    target: Path,
    in_uri: str,
    setting: str | None,
    content: bytes,
) -> None:
    repo = hub.add_repo("org/history", {GIT: b"first"})
    first = repo.head
    repo.tag("v1")
    repo.commit({GIT: b"main"})
    repo.commit({GIT: b"next"}, branch="next")
    repo.commit({GIT: b"feature"}, branch="feature/x")
    repo.commit({GIT: b"pull request"}, branch="refs/pr/1")
    revision = setting and setting.replace("COMMIT", first)
    uri = f"hf://org/history{in_uri.replace('COMMIT', first)}"
    downloader.run(target, uri, revision=revision)
    assert_snapshot(target, {GIT: content})


def test_a_revision_on_the_command_line(hub: HubServer, command: Command, target: Path) -> None:
    hub.add_repo("org/history", {GIT: b"first"}).commit({GIT: b"next"}, branch="feature/x")
    done = command.run("hf://org/history", target, "--revision", "feature/x")
    assert done.code == 0, done.said
    assert_snapshot(target, {GIT: b"next"})


@pytest.mark.parametrize("pinned", [False, True])
async def test_a_renamed_repository(
    hub: HubServer, downloader: Downloader, target: Path, files: Files, pinned: bool
) -> None:
    revision = f"@{hub.repo('org/model').head}" if pinned else ""
    hub.rename_repo("org/model", "org/newer")
    await downloader(target, f"{URI}{revision}")
    assert_snapshot(target, files)
    assert_polite(hub.log)


def test_a_listing_of_many_pages(command: Command, target: Path, tmp_path: Path) -> None:
    files = {f"{number:03}.json": b"%d" % number for number in range(57)}
    folder = tmp_path / "pages"
    folder.mkdir()
    with HubServer(page_size=5) as hub, Command(hub.endpoint, folder) as pages:
        hub.add_repo("org/model", files)
        done = pages.run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)


def test_without_a_folder_it_goes_to_the_models_name(
    command: Command, tmp_path: Path, files: Files
) -> None:
    assert command.run(URI).code == 0
    assert_snapshot(tmp_path / "command/model", files)
    assert command.run(URI, TARGET_DIR=str(tmp_path / "elsewhere")).code == 0
    assert_snapshot(tmp_path / "elsewhere", files)


# --- secrets --------------------------------------------------------------------------------------

SECRET = "hf_a_secret_that_nobody_may_see"


@pytest.fixture
def private(hub: HubServer, files: Files) -> Files:
    hub.add_repo("org/private", files, private=True)
    hub.add_token(SECRET, reads=("org/private",))
    return files


@pytest.mark.parametrize("way", ["HF_TOKEN", "--token-file", "stored"])
def test_a_token_opens_a_private_repository_and_is_seen_nowhere(
    hub: HubServer, command: Command, target: Path, tmp_path: Path, private: Files, way: str
) -> None:
    words: list[str | Path] = ["hf://org/private", target, "--json"]
    token = tmp_path / "token"
    if way == "HF_TOKEN":
        command.environment["HF_TOKEN"] = SECRET
    elif way == "--token-file":
        words += ["--token-file", token]
    else:
        token = command.home / "huggingface/token"
        token.parent.mkdir()
    token.write_text(f"{SECRET}\n", "utf-8")
    # Errors are told too, and they may not tell too much.
    hub.fault(faults.Status(500), path=LARGE)
    hub.fault(faults.Reset(), path=LARGE, at=5 * MIB)
    hub.fault(faults.Status(500), path=GIT, where="hub")
    hub.pace(40e6)
    running = command.start(*words)
    hub.wait_for_bytes(6 * MIB)
    assert SECRET.encode() not in Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
    assert_no_secret_below(target)
    done = running.finish()
    assert done.code == 0, done.said
    assert_snapshot(target, private)
    assert_polite(hub.log, SECRET)
    assert_no_secret_below(target)
    assert '"retry.scheduled"' in done.stdout
    assert_no_secret_in((done.stdout + done.stderr).encode())


def assert_no_secret_below(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size < MIB:
            assert_no_secret_in(path.read_bytes())


def assert_no_secret_in(content: bytes) -> None:
    assert SECRET.encode() not in content
    # The query of a signed URL opens the file to everybody.
    assert not re.search(rb"Signature=|Key-Pair-Id=", content)


def test_a_failure_names_no_secret(
    hub: HubServer, command: Command, target: Path, private: Files
) -> None:
    hub.fault(faults.DamagedByte(5), path=LARGE, times=None)
    hub.fault(faults.ExpiredUrl(), path=OTHER)
    done = command.run("hf://org/private", target, "--json", HF_TOKEN=SECRET)
    assert done.code == 69, done.said
    assert_no_secret_in((done.stdout + done.stderr).encode())
    assert_no_secret_below(target)


# --- what is there already ------------------------------------------------------------------------


def test_what_is_there_and_right_is_kept_and_what_is_wrong_is_replaced(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    target.mkdir()
    large, other = files[LARGE], files[OTHER]
    assert isinstance(large, bytes)
    (target / LARGE).write_bytes(large)
    (target / OTHER).write_bytes(bytes(size_of(other)))
    (target / GIT).write_bytes(b"of another size")
    (target / "mine.txt").write_bytes(b"of somebody else")
    before = (target / LARGE).stat()
    downloader.run(target)
    after = (target / LARGE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    asked_for = {each.file for each in content_requests(hub.log)}
    assert asked_for == set(files) - {LARGE}
    assert (target / "mine.txt").read_bytes() == b"of somebody else"
    (target / "mine.txt").unlink()
    assert_snapshot(target, files)


def test_a_wrong_file_keeps_its_name_until_the_right_one_is_verified(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    target.mkdir()
    (target / OTHER).write_bytes(b"an older version")
    hub.fault(faults.DamagedByte(5), path=OTHER, times=None)
    with pytest.raises(Exception, match=OTHER):
        downloader.run(target)
    assert (target / OTHER).read_bytes() == b"an older version"


def test_a_link_in_a_files_place_is_replaced_and_not_followed(
    hub: HubServer, downloader: Downloader, target: Path, tmp_path: Path, files: Files
) -> None:
    target.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    (target / GIT).symlink_to(elsewhere)
    (target / LARGE).symlink_to(elsewhere)
    downloader.run(target)
    assert elsewhere.read_bytes() == b"not ours"
    assert not (target / GIT).is_symlink()
    assert_snapshot(target, files)


def test_a_linked_folder_below_the_target_is_refused(
    hub: HubServer, command: Command, target: Path, tmp_path: Path
) -> None:
    hub.add_repo("org/folders", TREE)
    target.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (target / "onnx").symlink_to(elsewhere)
    done = command.run("hf://org/folders", target)
    assert done.code == 73, done.said
    assert said_well(done)
    assert not list(elsewhere.iterdir())


def test_a_target_behind_a_link_is_fine(
    downloader: Downloader, target: Path, tmp_path: Path, files: Files
) -> None:
    (tmp_path / "volume").mkdir()
    target.symlink_to(tmp_path / "volume")
    downloader.run(target)
    assert_snapshot(target, files)


def test_modes_are_those_of_the_umask(downloader: Downloader, target: Path) -> None:
    downloader.run(target)
    umask = os.umask(0o022)
    os.umask(umask)
    for name in (LARGE, GIT, "empty.txt"):
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o644 & ~umask


# --- targets that cannot be written ---------------------------------------------------------------


class Volume:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder],
            check=True,
            capture_output=True,
        )


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "volume"
    folder.mkdir()
    volume = Volume(folder)
    try:
        volume.mount("size=16m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield volume
    subprocess.run(["umount", folder], check=True)


def test_too_little_space_is_told_before_the_first_byte(
    hub: HubServer, command: Command, volume: Volume, files: Files
) -> None:
    done = command.run(URI, volume.folder / "model")
    assert done.code == 73, done.said
    assert said_well(done)
    missing = re.search(r"\((\d+) bytes\) are missing", done.stderr)
    assert missing, done.stderr
    needed = sum(map(size_of, files.values()))
    assert needed - 16 * MIB <= int(missing[1]) <= needed - 15 * MIB
    assert not list(volume.folder.iterdir())
    assert not content_requests(hub.log)


def test_space_that_runs_out_on_the_way(
    hub: HubServer, command: Command, volume: Volume, pool: bytes
) -> None:
    files = {"model.safetensors": pool[: 12 * MIB]}
    hub.add_repo("org/fits", files)
    hub.pace(10e6)
    target = volume.folder / "model"
    running = command.start("hf://org/fits", target)
    hub.wait_for_bytes(3 * MIB)
    (volume.folder / "greedy").write_bytes(bytes(8 * MIB))
    done = running.finish()
    assert done.code == 73, done.said
    assert said_well(done)
    assert not (target / "model.safetensors").exists()
    (volume.folder / "greedy").unlink()
    hub.pace(None)
    again = command.run("hf://org/fits", target)
    assert again.code == 0, again.said
    assert_snapshot(target, files)


def test_a_partial_counts_as_space_that_is_taken_already(
    hub: HubServer, command: Command, volume: Volume, pool: bytes
) -> None:
    files = {"model.safetensors": pool[: 14 * MIB]}
    hub.add_repo("org/fits", files)
    hub.pace(20e6)
    running = command.start("hf://org/fits", volume.folder / "model")
    hub.wait_for_bytes(8 * MIB)
    running.kill()
    hub.pace(None)
    done = command.run("hf://org/fits", volume.folder / "model")
    assert done.code == 0, done.said
    assert_snapshot(volume.folder / "model", files)


def test_no_inodes_left(hub: HubServer, command: Command, volume: Volume) -> None:
    volume.mount("size=16m,nr_inodes=20")
    hub.add_repo("org/many", {f"{number}.json": b"{}" for number in range(50)})
    done = command.run("hf://org/many", volume.folder / "model")
    subprocess.run(["umount", volume.folder], check=True)
    assert done.code == 73, done.said
    assert "inodes" in done.stderr
    assert said_well(done)


def test_a_read_only_target(hub: HubServer, command: Command, volume: Volume) -> None:
    subprocess.run(["mount", "-o", "remount,ro", volume.folder], check=True)
    done = command.run(URI, volume.folder / "model")
    assert done.code == 73, done.said
    assert said_well(done)
    assert not content_requests(hub.log)


@pytest.mark.parametrize("by", ["branch", "commit"])
def test_a_complete_model_on_a_read_only_volume_is_fine(
    hub: HubServer, command: Command, volume: Volume, by: str
) -> None:
    hub.add_repo("org/small", {GIT: b"{}"})
    uri = f"hf://org/small@{hub.repo('org/small').head if by == 'commit' else 'main'}"
    assert command.run(uri, volume.folder / "model").code == 0
    subprocess.run(["mount", "-o", "remount,ro", volume.folder], check=True)
    done = command.run(uri, volume.folder / "model")
    assert done.code == 0, done.said
    assert command.run("verify", volume.folder / "model").code == 0


@pytest.mark.parametrize("place", ["target", "target/below", f"target/{HIDDEN}"])
def test_a_file_in_the_targets_place(
    hub: HubServer, command: Command, tmp_path: Path, place: str
) -> None:
    file = tmp_path / ("target" if place == "target/below" else place)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"a file")
    done = command.run(URI, tmp_path / place.removesuffix(f"/{HIDDEN}"))
    assert done.code == 73, done.said
    assert said_well(done)
    assert file.read_bytes() == b"a file"
    assert not content_requests(hub.log)


def test_a_folder_in_a_files_place(command: Command, target: Path) -> None:
    (target / GIT).mkdir(parents=True)
    (target / GIT / "mine.txt").write_bytes(b"of somebody else")
    done = command.run(URI, target)
    assert done.code == 73, done.said
    assert said_well(done)
    assert (target / GIT / "mine.txt").read_bytes() == b"of somebody else"
    assert GIT in done.stderr
    assert not any(name.endswith("SHA256SUMS") for name in names_below(target))
