"""`verify`: every damage is found, and a repair fetches what is damaged and no more."""

import asyncio
import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aim_downloader import Config, arepair, averify, repair, verify
from aim_downloader.content_hash import STRETCH
from aim_downloader.errors import ConfigError, DownloadError, SnapshotNotFoundError
from aim_downloader.names import HIDDEN
from aim_downloader.receipt import Origin, read_origin, write_origin
from tests.damage import flip, swap
from tests.hub import HubServer, faults
from tests.integration.support import (
    MIB,
    TOKEN,
    URI,
    Command,
    Downloader,
    Files,
    assert_polite,
    assert_right,
    assert_snapshot,
    cdn_requests,
    digest,
    names_below,
    total_size,
    wait_until,
)

LARGE, OTHER, LFS, GIT = (
    "big/model.safetensors",
    "other.safetensors",
    "tokenizer.bin",
    "config.json",
)
SIZE = 40 * MIB + 77


@pytest.fixture(scope="session")
def files() -> Files:
    """A model with a file of three stretches of 16 MiB, the last one short."""
    return {
        LARGE: os.urandom(SIZE),
        OTHER: os.urandom(3 * MIB + 123),
        "twin.safetensors": os.urandom(3 * MIB + 123),
        LFS: os.urandom(300_000),
        GIT: b'{"model_type": "llama"}',
        "empty.txt": b"",
    }


@pytest.fixture
def folder(downloader: Downloader, hub: HubServer, target: Path) -> Path:
    """The model as a download has left it; what the Hub saw of that is forgotten."""
    downloader.run(target, f"{URI}@main")
    hub.clear_log()
    return target


def settings(hub: HubServer, **others: object) -> Config:
    usual = Config(endpoint=hub.endpoint, token=TOKEN, connections=8, protocols=("HTTP",))
    return dataclasses.replace(usual, **others)  # type: ignore[arg-type]  # names are Config's own


def receipt(folder: Path) -> Origin:
    origin = read_origin(folder / HIDDEN)
    assert origin is not None
    return origin


def without_times(origin: Origin) -> Origin:
    records = {
        path: dataclasses.replace(record, mtime_ns=0) for path, record in origin.files.items()
    }
    return dataclasses.replace(origin, files=records)


# --- damage, and what its repair costs ------------------------------------------------------------


def become(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def become_link(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def become_hard_link(path: Path, other: Path) -> None:
    path.unlink()
    path.hardlink_to(other)


def harm_several(root: Path) -> None:
    flip(root / LARGE, 1)
    (root / GIT).unlink()
    flip(root / LFS, 0)


@dataclass(frozen=True)
class Harm:
    """What is done to a folder, which files are wrong then, and the bytes that mend them."""

    do: Callable[[Path], object]
    wrong: tuple[str, ...]
    cost: int


LAST = SIZE - 2 * STRETCH
HARMS = {
    "a bit in the middle": Harm(lambda root: flip(root / LARGE, STRETCH + 5), (LARGE,), STRETCH),
    "the last bit": Harm(lambda root: flip(root / LARGE, SIZE - 1), (LARGE,), LAST),
    "two places": Harm(lambda root: flip(root / LARGE, 0, SIZE - 1), (LARGE,), STRETCH + LAST),
    "cut off": Harm(lambda root: os.truncate(root / LARGE, 2 * STRETCH + 9), (LARGE,), LAST),
    "grown": Harm(lambda root: os.truncate(root / LARGE, SIZE + 5), (LARGE,), 0),
    "emptied": Harm(lambda root: os.truncate(root / LARGE, 0), (LARGE,), SIZE),
    "gone": Harm(lambda root: (root / LARGE).unlink(), (LARGE,), SIZE),
    "a small one": Harm(lambda root: flip(root / GIT, 3), (GIT,), 23),
    "a small one of LFS": Harm(lambda root: flip(root / LFS, 3), (LFS,), 300_000),
    "no longer empty": Harm(lambda root: (root / "empty.txt").write_bytes(b"x"), ("empty.txt",), 0),
    "swapped": Harm(
        lambda root: swap(root / OTHER, root / "twin.safetensors"),
        (OTHER, "twin.safetensors"),
        2 * (3 * MIB + 123),
    ),
    "a symlink": Harm(
        lambda root: become_link(root / LARGE, root.parent / "elsewhere"), (LARGE,), SIZE
    ),
    "a pipe": Harm(lambda root: become(root / OTHER, os.mkfifo), (OTHER,), 3 * MIB + 123),
    "several": Harm(
        harm_several,
        (LARGE, GIT, LFS),
        STRETCH + 23 + 300_000,
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_found_and_mended(hub: HubServer, folder: Path, files: Files, harm: str) -> None:
    before = receipt(folder)
    HARMS[harm].do(folder)
    found = verify(folder, config=settings(hub))
    wrong = sorted((*(one.path for one in found.damaged), *found.missing))
    assert wrong == sorted(HARMS[harm].wrong)
    assert hub.log == []
    mended = repair(folder, config=settings(hub))
    assert (mended.all_right, list(mended.mended)) == (True, wrong)
    assert mended.bytes_received == hub.bytes_sent() == HARMS[harm].cost
    assert_snapshot(folder, files)
    assert_polite(hub.log)
    # The receipt is still that of the branch, and true.
    after = receipt(folder)
    assert without_times(after) == without_times(before)
    assert (after.uri, after.revision) == (f"{URI}@main", "main")
    assert verify(folder, config=settings(hub)).notes == ()


def test_the_command_tells_what_it_found_and_mended(
    hub: HubServer, command: Command, folder: Path, files: Files
) -> None:
    harm_several(folder)
    wrong = [
        f"damaged: {LARGE}: 1 of 3 stretches of 16 MiB is damaged, the first at 0 B",
        f"damaged: {LFS}: its bytes are not those that were verified",
        f"missing: {GIT}",
    ]
    found = command.run("verify", folder)
    assert found.code == 65, found.said
    assert found.stdout.splitlines() == [*wrong, f"3 of 6 files in {folder} are not right"]
    assert f"hint: verify {folder} --repair fetches" in found.stderr
    assert hub.log == []
    mended = command.run("verify", folder, "--repair", HF_TOKEN=TOKEN)
    assert mended.code == 0, mended.said
    assert all(line in mended.stderr.splitlines() for line in wrong)
    assert mended.stdout.splitlines() == [
        *(f"mended: {path}" for path in (LARGE, GIT, LFS)),
        "16.3 MiB fetched",
        "6 files, 46.3 MiB, all right",
    ]
    assert_snapshot(folder, files)


def test_only_the_damaged_block_is_asked_for(hub: HubServer, folder: Path) -> None:
    flip(folder / LARGE, STRETCH + 5)
    repair(folder, config=settings(hub))
    asked = [each.range for each in cdn_requests(hub.log, LARGE) if each.range]
    spans = [tuple(map(int, one.removeprefix("bytes=").split("-"))) for one in asked]
    assert spans
    assert all(STRETCH <= start <= stop < 2 * STRETCH for start, stop in spans)


def test_a_file_under_two_names_is_not_written_through(
    hub: HubServer, folder: Path, files: Files, tmp_path: Path
) -> None:
    """Somebody's own file, linked into the folder in place of the model's."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"x" * SIZE)
    become_hard_link(folder / LARGE, mine)
    repair(folder, config=settings(hub))
    assert_snapshot(folder, files)
    assert mine.read_bytes() == b"x" * SIZE


# --- what a repair keeps --------------------------------------------------------------------------


def test_copied_files_are_noted_without_a_request(
    hub: HubServer, command: Command, folder: Path, files: Files
) -> None:
    """An air gap: the folder was copied, and all files have other times."""
    for path in files:
        os.utime(folder / path, (1, 1))
    assert verify(folder, config=settings(hub)).all_right
    assert command.run(URI, folder, HF_HUB_OFFLINE="1").code == 66
    mended = command.run("verify", folder, "--repair", HF_HUB_OFFLINE="1")
    assert mended.code == 0, mended.said
    done = command.run(URI, folder, HF_HUB_OFFLINE="1")
    assert done.code == 0, done.said
    assert hub.log == []
    assert_snapshot(folder, files)


def test_lost_sums_are_written_anew_without_a_request(
    hub: HubServer, folder: Path, files: Files
) -> None:
    (folder / HIDDEN / "SHA256SUMS").unlink()
    assert repair(folder, config=settings(hub, offline=True)).all_right
    assert_snapshot(folder, files)


def test_files_of_several_runs_are_mended(
    hub: HubServer, downloader: Downloader, target: Path, files: Files
) -> None:
    """The receipt has the filters of the last run, and the files of all."""
    downloader.run(target, include=["*.json"])
    downloader.run(target, include=["*.txt"])
    before = receipt(target)
    assert set(before.files) == {GIT, "empty.txt"}
    flip(target / GIT, 0)
    findings = repair(target, config=settings(hub))
    assert (findings.mended, findings.files) == ((GIT,), 2)
    assert without_times(receipt(target)) == without_times(before)
    assert_snapshot(target, {path: files[path] for path in before.files})


def test_a_branch_that_moved_is_not_followed(
    hub: HubServer, command: Command, folder: Path, files: Files
) -> None:
    old = hub.repo("org/model").head
    hub.repo("org/model").commit({LARGE: os.urandom(2 * MIB)})
    new = hub.repo("org/model").head
    told = command.run("verify", folder, "--remote", HF_TOKEN=TOKEN)
    assert told.code == 0, told.said
    assert f"at commit {new[:12]} now, and this is {old[:12]}" in told.stderr
    flip(folder / LARGE, 0)
    mended = command.run("verify", folder, "--repair", HF_TOKEN=TOKEN)
    assert mended.code == 0, mended.said
    assert_snapshot(folder, files)
    assert receipt(folder).commit == old


def test_what_the_source_lists_and_filters_leave_out_is_no_stranger(
    hub: HubServer, folder: Path
) -> None:
    for name in ("mine", ".git/config", ".cache/huggingface/download/x.metadata", ".cache/mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    # Damage in what is not asked for is not looked for.
    flip(folder / LARGE, 0)
    findings = verify(folder, URI, config=settings(hub), include=["*.json"])
    assert findings.all_right
    assert findings.files == 1
    # What git and huggingface_hub keep beside a model does not count either.
    assert findings.unknown == (".cache/mine", "mine")


def test_files_of_an_earlier_revision_are_no_strangers(
    hub: HubServer, downloader: Downloader, folder: Path, files: Files
) -> None:
    hub.repo("org/model").commit({GIT: None, "new.json": b"{}"})
    downloader.run(folder)
    (folder / "mine").write_bytes(b"")
    findings = verify(folder, config=settings(hub))
    assert findings.all_right
    assert findings.unknown == ("mine",)
    assert findings.notes == ("1 file of an earlier revision: a download with --prune removes it",)


# --- what goes wrong ------------------------------------------------------------------------------


def test_killed_in_the_middle_of_a_repair(
    hub: HubServer, command: Command, folder: Path, files: Files
) -> None:
    flip(folder / LARGE, 5, STRETCH)
    flip(folder / GIT, 0)
    hub.pace(20e6)
    running = command.start("verify", folder, "--repair", HF_TOKEN=TOKEN)
    wait_until(lambda: hub.bytes_sent(LARGE) > 8 * MIB or running.ended)
    running.kill()
    for path in names_below(folder):
        if not path.startswith(HIDDEN):
            assert_right(folder / path, files[path])
    assert not (folder / LARGE).exists()
    hub.pace(None)
    # An ordinary run, not another repair.
    done = command.run(URI, folder, HF_TOKEN=TOKEN)
    assert done.code == 0, done.said
    assert_snapshot(folder, files)
    assert hub.bytes_sent(LARGE) <= 2 * STRETCH + 8 * 2 * MIB
    assert hub.bytes_sent(LARGE) < SIZE


@pytest.mark.parametrize(
    ("words", "environment", "code", "says"),
    [
        (["--repair"], {"HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN}, 66, "HF_HUB_OFFLINE is set"),
        (["--remote"], {"HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN}, 66, "HF_HUB_OFFLINE is set"),
        (["--repair"], {"HF_TOKEN": "hf_wrong"}, 77, "token"),
        (["--remote"], {}, 77, "token"),
        (["--repair", "--include", "*.json"], {}, 2, "filters go with a URI"),
    ],
)
def test_a_source_that_does_not_answer_costs_nothing(
    hub: HubServer,
    command: Command,
    folder: Path,
    words: list[str],
    environment: dict[str, str],
    code: int,
    says: str,
) -> None:
    hub.repo("org/model").private = True
    hub.add_token(TOKEN, reads=("org/model",))
    flip(folder / LARGE, 5)
    before = {path: digest(folder / path) for path in names_below(folder)}
    done = command.start("verify", folder, *words, **environment).finish()
    assert done.code == code, done.said
    assert says in done.stderr
    assert {path: digest(folder / path) for path in names_below(folder)} == before


def test_a_repair_that_fails_throws_nothing_away(
    hub: HubServer, folder: Path, files: Files
) -> None:
    flip(folder / LARGE, STRETCH + 5)
    hub.fault(faults.Status(404), path=LARGE, times=None)
    with pytest.raises(DownloadError):
        repair(folder, config=settings(hub, clean=True))
    hub.clear_faults()
    assert repair(folder, config=settings(hub)).bytes_received == STRETCH
    assert_snapshot(folder, files)


def test_a_private_model_is_mended_with_a_token(
    hub: HubServer, command: Command, folder: Path, files: Files, tmp_path: Path
) -> None:
    hub.repo("org/model").private = True
    hub.add_token(TOKEN, reads=("org/model",))
    flip(folder / LARGE, 5)
    (tmp_path / "token").write_text(TOKEN)
    words = ("--repair", "--token-file", tmp_path / "token", "--connections", "2")
    done = command.run("verify", folder, *words)
    assert done.code == 0, done.said
    assert_snapshot(folder, files)
    assert_polite(hub.log)


def test_a_commit_that_is_gone(hub: HubServer, command: Command, folder: Path) -> None:
    hub.fault(faults.Status(404), path=f"tree/{receipt(folder).commit}", where="api", times=None)
    flip(folder / LARGE, 5)
    before = {path: digest(folder / path) for path in names_below(folder)}
    done = command.run("verify", folder, "--repair", HF_TOKEN=TOKEN)
    assert done.code == 66, done.said
    assert f"damaged: {LARGE}: 1 of 3 stretches" in done.stderr
    assert {path: digest(folder / path) for path in names_below(folder)} == before


def test_a_folder_in_place_of_a_file_is_not_removed(
    command: Command, folder: Path, files: Files
) -> None:
    (folder / GIT).unlink()
    (folder / GIT).mkdir()
    (folder / GIT / "mine").write_bytes(b"x")
    done = command.run("verify", folder, "--repair", HF_TOKEN=TOKEN)
    assert done.code == 73, done.said
    assert "a folder stands where a file is needed" in done.stderr
    assert (folder / GIT / "mine").read_bytes() == b"x"
    assert_right(folder / LARGE, files[LARGE])


def test_a_busy_folder_is_waited_for(
    hub: HubServer, command: Command, folder: Path, files: Files
) -> None:
    (folder / LARGE).unlink()
    flip(folder / OTHER, 5)
    hub.pace(4e6)
    first = command.start(URI, folder, HF_TOKEN=TOKEN)
    hub.wait_for_bytes(2 * MIB)
    # A busy machine takes its time to start the others.
    hub.pace(1e6)
    told = command.run("verify", folder)
    assert told.code == 65, told.said
    assert f"a run is at work in {folder}: process {first.process.pid}" in told.stderr
    second = command.start("verify", folder, "--repair", HF_TOKEN=TOKEN)
    second.wait_for_words("Waiting for another run")
    assert not first.ended
    hub.pace(None)
    for done in (first.finish(), second.finish()):
        assert done.code == 0, done.said
    assert_snapshot(folder, files)
    assert hub.bytes_sent() <= SIZE + 3 * MIB + 123 + 2 * MIB


def test_a_run_that_took_the_folder_elsewhere_meanwhile(
    hub: HubServer, downloader: Downloader, folder: Path, files: Files
) -> None:
    """What was found speaks of another commit than what is there now."""
    flip(folder / LARGE, 5)
    findings = verify(folder, config=settings(hub))
    new = {**files, LARGE: os.urandom(2 * MIB)}
    hub.repo("org/model").commit({LARGE: new[LARGE]})
    downloader.run(folder)
    with pytest.raises(DownloadError, match="another run has changed") as raised:
        asyncio.run(arepair(folder, findings=findings, config=settings(hub)))
    assert raised.value.exit_code == 75
    assert_snapshot(folder, new)


def replace_by(path: Path, content: bytes) -> None:
    """Another file under the name, of the same size and mtime."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(("right", "cost"), [(True, 0), (False, SIZE)])
def test_a_file_that_changed_after_it_was_read(
    hub: HubServer, folder: Path, files: Files, right: bool, cost: int
) -> None:
    """What was found of the old file is not said of the new one."""
    flip(folder / LARGE, 5)
    findings = verify(folder, config=settings(hub))
    content = files[LARGE]
    assert isinstance(content, bytes)
    replace_by(folder / LARGE, content if right else b"x" * SIZE)
    asyncio.run(arepair(folder, findings=findings, config=settings(hub)))
    assert_snapshot(folder, files)
    assert hub.bytes_sent() == cost


def test_what_was_found_right_is_not_read_again(hub: HubServer, folder: Path) -> None:
    """Other times, and a file to fetch: the road would read all the others."""
    os.utime(folder / OTHER, (1, 1))
    (folder / GIT).unlink()
    findings = verify(folder, config=settings(hub))
    # Only who reads it would notice this.
    flip(folder / OTHER, 5)
    asyncio.run(arepair(folder, findings=findings, config=settings(hub)))
    assert hub.bytes_sent(OTHER) == 0


def test_what_the_source_does_not_list_stays_damaged(
    hub: HubServer, folder: Path, files: Files
) -> None:
    """A receipt that speaks of a file too many."""
    origin = receipt(folder)
    record = dataclasses.replace(origin.files[GIT], path="extra.json")
    records = {**origin.files, record.path: record}
    write_origin(folder / HIDDEN, dataclasses.replace(origin, files=records))
    flip(folder / GIT, 0)
    findings = repair(folder, config=settings(hub))
    assert (findings.mended, findings.missing) == ((GIT,), ("extra.json",))
    assert_snapshot(folder, files)


def test_ctrl_c_ends_it_at_once(command: Command, tmp_path: Path) -> None:
    # Sparse: much to read, and nothing on the disk.
    folder = tmp_path / "folder"
    (folder / HIDDEN).mkdir(parents=True)
    (folder / "huge").write_bytes(b"")
    os.truncate(folder / "huge", 1 << 40)
    (folder / HIDDEN / "SHA256SUMS").write_text(f"{'0' * 64}  huge\n")
    running = command.start("verify", folder)
    running.wait_for_words("verifying")
    done = running.end_by(signal.SIGINT)
    assert done.code == 130, done.said
    assert done.fair_seconds < 3
    assert "Traceback" not in done.stderr


# --- against the source ---------------------------------------------------------------------------


def test_remote_finds_what_the_receipt_does_not_know(
    hub: HubServer, command: Command, folder: Path
) -> None:
    """A receipt that knows less than its filters let in: of another version, or tampered with."""
    (folder / HIDDEN / "origin.json").unlink()
    (folder / LFS).unlink()
    flip(folder / GIT, 0)
    told = command.run("verify", folder, "--remote", HF_TOKEN=TOKEN)
    assert told.code == 66, told.said
    assert "verify DIR hf://" in told.stderr
    found = command.run("verify", folder, URI, HF_TOKEN=TOKEN)
    assert found.code == 65, found.said
    assert f"damaged: {GIT}: its git-sha1 is not" in found.stdout
    assert f"missing: {LFS}" in found.stdout
    assert hub.bytes_sent() == 0


def test_remote_keeps_to_the_filters_of_the_receipt(
    hub: HubServer, downloader: Downloader, target: Path
) -> None:
    downloader.run(target, include=["*.json"])
    findings = verify(target, remote=True, config=settings(hub))
    assert (findings.all_right, findings.files, findings.against) == (True, 1, "source")


@pytest.mark.parametrize("words", [["--remote"], [URI]])
def test_remote_names_the_blocks_too(
    hub: HubServer, command: Command, folder: Path, words: list[str]
) -> None:
    flip(folder / LARGE, STRETCH)
    found = command.run("verify", folder, *words, HF_TOKEN=TOKEN)
    assert found.code == 65, found.said
    assert "1 of 3 stretches of 16 MiB is damaged, the first at 16 MiB" in found.stdout


def test_a_folder_of_another_tool(
    hub: HubServer, command: Command, target: Path, files: Files
) -> None:
    for path, content in files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, bytes)
        (target / path).write_bytes(content)
    assert command.run("verify", target, HF_TOKEN=TOKEN).code == 66
    right = command.run("verify", target, URI, HF_TOKEN=TOKEN)
    assert right.code == 0, right.said
    assert names_below(target) == set(files)
    # With --repair it gets a receipt, and is read but once.
    assert command.run("verify", target, URI, "--repair", HF_TOKEN=TOKEN).code == 0
    assert_snapshot(target, files)
    assert hub.bytes_sent() == 0
    assert command.run("verify", target).code == 0


def test_a_receipt_of_another_commit_is_replaced(
    hub: HubServer, command: Command, folder: Path, files: Files
) -> None:
    """Another tool has brought the new commit into a folder of ours."""
    new = {**files, GIT: b'{"model_type": "other"}'}
    hub.repo("org/model").commit({GIT: new[GIT]})
    (folder / GIT).write_bytes(b'{"model_type": "other"}')
    done = command.run("verify", folder, URI, "--repair", HF_TOKEN=TOKEN)
    assert done.code == 0, done.said
    assert_snapshot(folder, new)
    assert receipt(folder).commit == hub.repo("org/model").head
    assert hub.bytes_sent() == 0


def test_sums_alone_and_a_uri_mend_whole_files(
    hub: HubServer, command: Command, folder: Path, files: Files
) -> None:
    """A volume that a container has filled."""
    (folder / HIDDEN / "origin.json").unlink()
    flip(folder / OTHER, 5)
    found = command.run("verify", folder, "--repair", HF_TOKEN=TOKEN)
    assert found.code == 66, found.said
    assert f"damaged: {OTHER}" in found.stderr
    assert "verify DIR hf://owner/name --repair" in found.stderr
    mended = command.run("verify", folder, URI, "--repair", HF_TOKEN=TOKEN)
    assert mended.code == 0, mended.said
    assert_snapshot(folder, files)
    assert hub.bytes_sent() == 3 * MIB + 123


# --- the cache of huggingface_hub -----------------------------------------------------------------


@pytest.fixture
def snapshot(downloader: Downloader, hub: HubServer, target: Path) -> Iterator[Path]:
    folder = downloader.run(target, layout="hf-cache")
    hub.clear_log()
    yield folder
    for path in folder.rglob("*"):
        assert path.is_dir() or path.is_symlink()


@pytest.mark.parametrize("of_cache", [False, True])
def test_a_cache_is_verified_and_mended(
    hub: HubServer, snapshot: Path, target: Path, files: Files, of_cache: bool
) -> None:
    named = target if of_cache else snapshot
    assert verify(named, config=settings(hub)).all_right
    refs = {path: path.read_bytes() for path in target.rglob("refs/*")}
    assert refs
    flip((snapshot / LARGE).resolve(), STRETCH)
    (snapshot / GIT).unlink()
    findings = verify(named, config=settings(hub))
    assert [one.path for one in findings.damaged] == [LARGE]
    assert findings.missing == (GIT,)
    hub.repo("org/model").commit({GIT: b"{}"})
    mended = repair(named, config=settings(hub))
    assert mended.mended == (LARGE, GIT)
    assert hub.bytes_sent() == STRETCH
    for path, content in files.items():
        assert digest(snapshot / path) == digest(content)
    assert verify(named, config=settings(hub)).all_right
    assert {path: path.read_bytes() for path in target.rglob("refs/*")} == refs


@pytest.mark.parametrize(
    ("cover", "kind"),
    [
        (lambda path: path.write_bytes(b"edited"), "another file"),
        (lambda path: path.symlink_to("elsewhere"), "a symlink"),
        (os.mkfifo, "a pipe"),
    ],
)
def test_what_stands_in_place_of_a_link_of_a_cache_is_told(
    hub: HubServer,
    snapshot: Path,
    files: Files,
    cover: Callable[[Path], object],
    kind: str,
) -> None:
    become(snapshot / GIT, cover)
    findings = verify(snapshot, config=settings(hub))
    told = [(one.path, one.reason) for one in findings.damaged]
    assert told == [(GIT, f"{kind} stands in its place")]
    assert findings.missing == ()
    assert repair(snapshot, config=settings(hub)).mended == (GIT,)
    assert hub.bytes_sent() == 0
    for path, content in files.items():
        assert digest(snapshot / path) == digest(content)


def test_a_folder_in_place_of_a_link_of_a_cache_is_told(hub: HubServer, snapshot: Path) -> None:
    become(snapshot / GIT, Path.mkdir)
    [found] = verify(snapshot, config=settings(hub)).damaged
    assert found.reason == "a folder stands in its place"
    (snapshot / GIT).rmdir()
    assert verify(snapshot, config=settings(hub)).missing == (GIT,)
    repair(snapshot, config=settings(hub))


def test_a_cache_that_another_tool_has_filled(
    hub: HubServer, snapshot: Path, target: Path, files: Files
) -> None:
    """Nothing of ours is in it; its branch has moved since."""
    shutil.rmtree(snapshot.parents[1] / HIDDEN)
    hub.repo("org/model").commit({GIT: b"{}"})
    with pytest.raises(SnapshotNotFoundError, match="has no receipt"):
        verify(snapshot, config=settings(hub))
    assert verify(snapshot, URI, config=settings(hub)).all_right
    flip((snapshot / OTHER).resolve(), 0)
    findings = verify(snapshot, URI, config=settings(hub))
    assert ([one.path for one in findings.damaged], findings.missing) == ([OTHER], ())
    assert repair(snapshot, URI, config=settings(hub)).mended == (OTHER,)
    for path, content in files.items():
        assert digest(snapshot / path) == digest(content)


def test_of_a_cache_that_another_tool_has_filled_the_uri_names_the_model(
    hub: HubServer, downloader: Downloader, snapshot: Path, target: Path
) -> None:
    hub.add_repo("org/beside", {GIT: b"{}"})
    downloader.run(target, "hf://org/beside", layout="hf-cache")
    for model in target.glob("models--*"):
        shutil.rmtree(model / HIDDEN)
    before = names_below(target)
    assert verify(target, URI, config=settings(hub)).all_right
    (snapshot / GIT).resolve().unlink()
    assert verify(target, URI, config=settings(hub)).missing == (GIT,)
    assert repair(target, URI, config=settings(hub)).mended == (GIT,)
    after = names_below(target)
    assert {name for name in after if HIDDEN not in name} == before
    for odd in ("hf://org/nobody", f"{URI}@v2"):
        with pytest.raises(ConfigError, match="does not hold"):
            repair(target, odd, config=settings(hub))
    assert names_below(target) == after


def test_of_several_snapshots_one_must_be_named(
    hub: HubServer, downloader: Downloader, snapshot: Path, target: Path
) -> None:
    hub.repo("org/model").commit({GIT: b"{}"})
    downloader.run(target, layout="hf-cache")
    with pytest.raises(ConfigError, match="2 snapshots of models: name one") as raised:
        verify(target)
    assert "snapshots" in raised.value.hint
    assert verify(snapshot).all_right


# --- for programs ---------------------------------------------------------------------------------


def test_json(hub: HubServer, command: Command, folder: Path, files: Files) -> None:
    flip(folder / LARGE, STRETCH)
    (folder / "mine").write_bytes(b"")
    found = command.run("verify", folder, "--json")
    assert found.code == 65
    assert found.stderr.strip() == "1 file that the receipt does not know: mine"
    *events, last = map(json.loads, found.stdout.splitlines())
    assert {event["event"] for event in events} == {"run.progressed"}
    assert events[-1]["verifying"]
    assert last["damaged"] == [
        {
            "path": LARGE,
            "reason": "1 of 3 stretches of 16 MiB is damaged, the first at 16 MiB",
            "ranges": [{"start": STRETCH, "stop": 2 * STRETCH}],
        }
    ]
    assert (last["allRight"], last["files"], last["bytes"]) == (False, 6, total_size(files))
    assert (last["missing"], last["unknown"]) == ([], ["mine"])
    mended = command.run("verify", folder, "--repair", "--json", HF_TOKEN=TOKEN)
    last = json.loads(mended.stdout.splitlines()[-1])
    assert (last["allRight"], last["mended"], last["bytesReceived"]) == (True, [LARGE], STRETCH)


async def test_from_python(hub: HubServer, folder: Path) -> None:
    flip(folder / LARGE, STRETCH)
    config = settings(hub)
    with pytest.raises(RuntimeError, match="await averify"):
        verify(folder)
    with pytest.raises(RuntimeError, match="await arepair"):
        repair(folder)
    assert not (await averify(folder, config=config)).all_right
    assert (await arepair(folder, config=config)).mended == (LARGE,)
    assert (await averify(folder, config=config, remote=True)).all_right
    with pytest.raises(SnapshotNotFoundError, match="has no receipt"):
        await averify(folder / "big", config=config)
