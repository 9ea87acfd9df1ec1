"""What is fetched, in which order, and whether it fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.errors import InsufficientSpaceError, SnapshotNotFoundError
from aim_downloader.planner import Holding, LeftOut, Plan, check_space, make_plan, select
from aim_downloader.snapshot import ModelURI, RemoteFile, Snapshot
from aim_downloader.storage import Space

PATHS = (
    "config.json",
    "model-1.safetensors",
    "original/params.json",
    "original/consolidated.00.pth",
    "original-2/x.json",
)

_files = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 100)), unique_by=lambda item: item[0]
).map(lambda items: tuple(RemoteFile(path, size, None) for path, size in items))


def snapshot(*paths: str, subpath: str = "") -> Snapshot:
    files = tuple(RemoteFile(path, 10, None) for path in paths or PATHS)
    return Snapshot(ModelURI("hf", "org/model", None, subpath), "0" * 40, files)


def plan_of(*files: RemoteFile, resumed: int = 0) -> Plan:
    return Plan(snapshot(), files, (), (), resumed)


@pytest.mark.parametrize(
    ("subpath", "include", "exclude", "taken"),
    [
        ("", (), (), PATHS),
        ("", ("*.json",), (), (PATHS[0], PATHS[2], PATHS[4])),
        ("", ("*.json", "*.pth"), (), (PATHS[0], PATHS[2], PATHS[3], PATHS[4])),
        ("", (), ("*.json",), (PATHS[1], PATHS[3])),
        ("", ("*.json",), ("original*",), (PATHS[0],)),
        ("", ("original/",), (), (PATHS[2], PATHS[3])),
        ("", (), ("original/",), (PATHS[0], PATHS[1], PATHS[4])),
        ("", ("model-?.safetensors",), (), (PATHS[1],)),
        ("", ("[cm]*",), (), (PATHS[0], PATHS[1])),
        ("original", (), (), (PATHS[2], PATHS[3])),
        ("original", ("*.json",), (), (PATHS[2],)),
        ("config.json", (), (), (PATHS[0],)),
    ],
)
def test_select(
    subpath: str, include: tuple[str, ...], exclude: tuple[str, ...], taken: tuple[str, ...]
) -> None:
    wanted, left_out = select(snapshot(subpath=subpath), include, exclude)
    assert tuple(file.path for file in wanted) == taken
    assert {item.file.path for item in left_out} == set(PATHS) - set(taken)


@pytest.mark.parametrize(
    ("subpath", "include", "exclude", "reason"),
    [
        ("original", (), (), "not below original"),
        ("", ("*.pth",), (), "no --include matches"),
        ("", (), ("*.bin", "c*.json"), "--exclude c*.json"),
    ],
)
def test_select_says_why(
    subpath: str, include: tuple[str, ...], exclude: tuple[str, ...], reason: str
) -> None:
    _, left_out = select(snapshot(subpath=subpath), include, exclude)
    assert next(item.reason for item in left_out if item.file.path == "config.json") == reason


def test_globs_are_case_sensitive() -> None:
    with pytest.raises(SnapshotNotFoundError):
        select(snapshot("README.md"), ("readme.md",), ())


def test_nothing_to_download_is_not_found() -> None:
    with pytest.raises(SnapshotNotFoundError, match="has 5 files at commit 000000000000") as caught:
        select(snapshot(subpath="missing"), (), ())
    assert caught.value.exit_code == 66
    assert "below missing" in str(caught.value)
    assert caught.value.hint


@given(_files, st.data())
def test_a_plan_covers_every_wanted_file_once(
    files: tuple[RemoteFile, ...], data: st.DataObject
) -> None:
    holdings = {
        file.path: Holding(complete=True)
        if data.draw(st.booleans())
        else Holding(partial_bytes=data.draw(st.integers(0, file.size)))
        for file in files
    }
    plan = make_plan(snapshot(), files, (), holdings)
    assert sorted(plan.wanted, key=hash) == sorted(files, key=hash)
    assert [file.path for file in plan.wanted] == sorted(file.path for file in files)
    assert all(holdings[file.path].complete for file in plan.held)
    sizes = [file.size for file in plan.fetch]
    assert sizes == sorted(sizes, reverse=True)
    assert plan.fetch_bytes >= 0
    assert plan.size == plan.fetch_bytes + plan.resumed_bytes + plan.held_bytes


def test_files_of_one_size_go_by_path() -> None:
    files = tuple(RemoteFile(path, 5, None) for path in "cab")
    plan = make_plan(snapshot(), files, (), {path: Holding() for path in "abc"})
    assert [file.path for file in plan.fetch] == ["a", "b", "c"]


def test_left_out_bytes() -> None:
    left_out = (LeftOut(RemoteFile("x", 7, None), "no"), LeftOut(RemoteFile("y", 8, None), "no"))
    assert make_plan(snapshot(), (), left_out, {}).left_out_bytes == 15


@pytest.mark.parametrize(
    ("size", "resumed", "free", "inodes"),
    [(100, 0, 100, None), (100, 40, 60, 10), (0, 0, 0, 10)],
)
def test_what_just_fits(size: int, resumed: int, free: int, inodes: int | None) -> None:
    check_space(plan_of(RemoteFile("a", size, None), resumed=resumed), Space(free, inodes), "/t")


def test_a_plan_with_nothing_to_fetch_fits_a_full_disk() -> None:
    check_space(plan_of(), Space(0, 0), "/t")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Space(99, None), r"/t has 99 B free and 100 B are needed: 1 B \(1 bytes\) are missing"),
        (Space(100, 9), "/t has 9 inodes free and 10 are needed: 1 are missing"),
    ],
)
def test_what_does_not_fit_is_refused(space: Space, message: str) -> None:
    with pytest.raises(InsufficientSpaceError, match=message) as caught:
        check_space(plan_of(RemoteFile("a", 100, None)), space, "/t")
    assert caught.value.exit_code == 73
    assert caught.value.hint


def test_folders_need_inodes_too() -> None:
    files = [RemoteFile(path, 1, None) for path in ("a/x", "a/y", "b/x", "z")]
    check_space(plan_of(*files), Space(100, 4 + 3 + 8), "/t")
    with pytest.raises(InsufficientSpaceError, match="1 are missing"):
        check_space(plan_of(*files), Space(100, 4 + 3 + 7), "/t")
