"""What is fetched, in which order, and whether it fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.errors import InsufficientSpaceError, SnapshotNotFoundError
from aim_downloader.planner import (
    Earlier,
    Holding,
    LeftOut,
    Plan,
    Selection,
    check_space,
    make_plan,
    of_earlier_revisions,
    select,
    shortage,
)
from aim_downloader.receipt import Record
from aim_downloader.snapshot import Digest, ModelURI, RemoteFile, Snapshot
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


def plan_of(*files: RemoteFile, allocated: int = 0) -> Plan:
    return Plan(snapshot(), files, (), (), allocated_bytes=allocated)


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
    selection = select(snapshot(subpath=subpath), include, exclude)
    assert tuple(file.path for file in selection.wanted) == taken
    assert {item.file.path for item in selection.left_out} == set(PATHS) - set(taken)


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
    left_out = select(snapshot(subpath=subpath), include, exclude).left_out
    assert next(item.reason for item in left_out if item.file.path == "config.json") == reason


def test_globs_are_case_sensitive() -> None:
    with pytest.raises(SnapshotNotFoundError):
        select(snapshot("README.md"), ("readme.md",), ())


def test_nothing_to_download_is_not_found() -> None:
    with pytest.raises(SnapshotNotFoundError, match="has 5 files at commit 000000000000") as caught:
        select(snapshot(subpath="missing"), (), ())
    assert caught.value.exit_code == 66
    assert "below missing" in str(caught.value)


@pytest.mark.parametrize(
    ("subpath", "include", "hint"),
    [
        ("onxx", (), "neither a folder nor a file 'onxx': `plan hf://org/model` lists the paths"),
        ("onxx", ("*",), "neither a folder nor a file 'onxx'"),
        ("original", ("*.bin",), "a glob is matched against the whole path"),
        ("", ("*.bin",), "a glob is matched against the whole path"),
    ],
)
def test_the_hint_is_about_what_lets_nothing_in(
    subpath: str, include: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(SnapshotNotFoundError) as caught:
        select(snapshot(subpath=subpath), include, ())
    assert hint in caught.value.hint


# --- one weight format ------------------------------------------------------------------------

MODEL = (
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "1_Dense/pytorch_model.bin",
    "x-Q4_K_M.gguf",
)


@pytest.mark.parametrize(
    ("include", "weight_format", "left_out"),
    [
        (
            (),
            "safetensors",
            {
                "pytorch_model.bin": "pytorch weights: --format safetensors",
                "x-Q4_K_M.gguf": "gguf weights: --format safetensors",
            },
        ),
        # The globs decide first, and the format among what they let in.
        (
            ("*.bin", "*.gguf"),
            "gguf",
            {
                "config.json": "no --include matches",
                "model.safetensors": "no --include matches",
                "pytorch_model.bin": "pytorch weights: --format gguf",
                "1_Dense/pytorch_model.bin": "pytorch weights: --format gguf",
            },
        ),
    ],
)
def test_a_format_leaves_the_others_out_and_says_why(
    include: tuple[str, ...], weight_format: str, left_out: dict[str, str]
) -> None:
    selection = select(snapshot(*MODEL), include, (), weight_format)
    assert {item.file.path: item.reason for item in selection.left_out} == left_out
    assert {file.path for file in selection.wanted} == set(MODEL) - set(left_out)


def test_weights_of_another_format_that_stay_are_named() -> None:
    selection = select(snapshot(*MODEL), (), (), "safetensors")
    reason = "pytorch weights: no safetensors weights replace them"
    assert selection.reasons == {"1_Dense/pytorch_model.bin": reason}
    assert selection.hint == f"taken too, 10 B: 1_Dense/pytorch_model.bin ({reason})"


@pytest.mark.parametrize(
    ("paths", "include", "message"),
    [
        (
            MODEL,
            (),
            (
                "has no onnx weights at commit 000000000000: it has safetensors (10 B), "
                "pytorch (20 B), gguf (10 B)"
            ),
        ),
        (
            MODEL,
            ("*.bin",),
            (
                "has no onnx weights among the files that are asked for at commit "
                "000000000000: it has pytorch (20 B)"
            ),
        ),
        (("a.txt",), (), "at commit 000000000000: it has none of any format that is known"),
        # An index is no weights.
        (("model.onnx.index.json", "m.gguf"), (), "it has gguf (10 B)"),
    ],
)
def test_a_format_that_is_not_there_is_not_found(
    paths: tuple[str, ...], include: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SnapshotNotFoundError) as caught:
        select(snapshot(*paths), include, (), "onnx")
    assert caught.value.exit_code == 66
    assert message in str(caught.value)
    assert "--format" in caught.value.hint


@pytest.mark.parametrize(
    ("include", "exclude", "weight_format", "hinted"),
    [
        ((), (), None, True),
        (("*",), (), None, False),
        ((), ("x",), None, False),
        ((), (), "gguf", False),
    ],
)
def test_who_has_chosen_needs_no_hint(
    include: tuple[str, ...], exclude: tuple[str, ...], weight_format: str | None, hinted: bool
) -> None:
    selection = select(snapshot(*MODEL), include, exclude, weight_format)
    assert bool(selection.hint) is hinted


@pytest.mark.parametrize("complete", [True, False])
def test_the_hint_is_for_the_first_run(complete: bool) -> None:
    selection = select(snapshot(*MODEL), (), ())
    holdings = {**dict.fromkeys(MODEL, Holding()), "config.json": Holding(complete)}
    plan = make_plan(snapshot(), selection, holdings)
    assert bool(plan.hint) is not complete


def test_a_file_that_differs_is_replaced() -> None:
    files = tuple(RemoteFile(path, 5, None) for path in "abc")
    holdings = {"a": Holding(differs=True), "b": Holding(), "c": Holding(complete=True)}
    plan = make_plan(snapshot(), Selection(files, ()), holdings)
    assert plan.reasons == {"a": "replaces a file that differs"}


# --- files of an earlier revision -------------------------------------------------------------

OLD, NEW = "0" * 64, "1" * 64


def record(path: str, sha256: str, size: int = 7) -> Record:
    return Record(path, size, 1, f"sha256:{sha256}", sha256, (0,))


def listed(path: str, sha256: str | None) -> RemoteFile:
    return RemoteFile(path, 7, Digest("sha256", sha256) if sha256 else None)


@pytest.mark.parametrize(
    ("now", "wanted", "earlier"),
    [
        (None, False, True),  # the new revision lacks it
        (listed("x", OLD), True, False),
        (listed("x", NEW), True, False),  # it is replaced
        (listed("x", OLD), False, False),  # filters leave it out, but it is of this revision
        (listed("x", NEW), False, True),  # filters leave the new one out
        (listed("x", None), False, False),  # nobody knows: so it stays
    ],
)
def test_what_is_of_an_earlier_revision(
    now: RemoteFile | None, wanted: bool, earlier: bool
) -> None:
    files = tuple(file for file in (now, listed("other", NEW)) if file)
    new = Snapshot(ModelURI("hf", "org/model"), "1" * 40, files)
    known = {"x": record("x", OLD), "other": record("other", NEW)}
    found = of_earlier_revisions(known, new, files if wanted else files[-1:])
    assert [item.path for item in found] == ["x"] * earlier


def test_what_was_there_before_is_of_no_revision() -> None:
    """Somebody's own LICENSE, which was only found to have the listed bytes."""
    known = {"x": replace(record("x", OLD), found=True)}
    assert of_earlier_revisions(known, snapshot("other"), ()) == []


def test_of_a_file_that_is_left_out_the_plan_says_what_is_there() -> None:
    left_out = (LeftOut(listed("x", NEW), "no --include matches"), LeftOut(listed("y", NEW), "z"))
    earlier = Earlier(outdated=(record("x", OLD),), prune=True)
    plan = make_plan(snapshot(), Selection((), left_out), {}, earlier)
    assert [item.reason for item in plan.left_out] == [
        "no --include matches; what is there is of an earlier revision",
        "z",
    ]
    assert (plan.kept, earlier.pruned) == ((), ())


@pytest.mark.parametrize(
    ("holding", "resident", "hint"),
    [
        (Holding(), "", ""),
        (Holding(), "org/a", "the folder holds org/a: its files stay"),
        (
            Holding(differs=True),
            "org/a",
            "the folder holds org/a: files of the same name are replaced, the others stay",
        ),
        (Holding(complete=True), "org/a", ""),
    ],
)
def test_another_model_in_the_folder_is_named(holding: Holding, resident: str, hint: str) -> None:
    files = (RemoteFile("config.json", 5, None),)
    holdings = {"config.json": holding}
    assert make_plan(snapshot(), Selection(files, ()), holdings, None, resident).hint == hint


@pytest.mark.parametrize("prune", [True, False])
def test_files_of_an_earlier_revision_are_kept_or_pruned(prune: bool) -> None:
    records = (record("a", OLD), record("b", OLD, 5))
    earlier = Earlier(records, prune=prune)
    plan = make_plan(snapshot(), Selection((), ()), {}, earlier)
    assert (plan.kept, earlier.pruned) == (((), records) if prune else (records, ()))
    assert plan.kept_bytes == (0 if prune else 12)


# --- plans ------------------------------------------------------------------------------------


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
    plan = make_plan(snapshot(), Selection(files, ()), holdings)
    assert sorted(plan.wanted, key=hash) == sorted(files, key=hash)
    assert [file.path for file in plan.wanted] == sorted(file.path for file in files)
    assert all(holdings[file.path].complete for file in plan.held)
    sizes = [file.size for file in plan.fetch]
    assert sizes == sorted(sizes, reverse=True)
    assert plan.fetch_bytes >= 0
    assert plan.size == plan.fetch_bytes + plan.resumed_bytes + plan.held_bytes


def test_files_of_one_size_go_by_path() -> None:
    files = tuple(RemoteFile(path, 5, None) for path in "cab")
    plan = make_plan(snapshot(), Selection(files, ()), {path: Holding() for path in "abc"})
    assert [file.path for file in plan.fetch] == ["a", "b", "c"]


def test_left_out_bytes() -> None:
    left_out = (LeftOut(RemoteFile("x", 7, None), "no"), LeftOut(RemoteFile("y", 8, None), "no"))
    assert make_plan(snapshot(), Selection((), left_out), {}).left_out_bytes == 15


@pytest.mark.parametrize(
    ("size", "allocated", "free", "inodes"),
    [(100, 0, 100, None), (100, 40, 60, 10), (0, 0, 0, 10)],
)
def test_what_just_fits(size: int, allocated: int, free: int, inodes: int | None) -> None:
    plan = plan_of(RemoteFile("a", size, None), allocated=allocated)
    assert shortage(plan, Space(free, inodes)) == ""
    check_space(plan, Space(free, inodes), "/t")


def test_a_damaged_partial_needs_no_more_of_the_disk_than_a_right_one() -> None:
    """Its blocks come into the place that they have; what is behind its end does not count."""
    file, other = RemoteFile("a", 100, None), RemoteFile("b", 10, None)
    holdings = {"a": Holding(partial_bytes=40, allocated=4096), "b": Holding()}
    plan = make_plan(snapshot(), Selection((file, other), ()), holdings)
    assert (plan.fetch_bytes, plan.needed_bytes) == (70, 10)


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
    assert caught.value.model_bytes == 100


def test_folders_need_inodes_too() -> None:
    files = [RemoteFile(path, 1, None) for path in ("a/x", "a/y", "b/x", "z")]
    check_space(plan_of(*files), Space(100, 4 + 3 + 8), "/t")
    with pytest.raises(InsufficientSpaceError, match="1 are missing"):
        check_space(plan_of(*files), Space(100, 4 + 3 + 7), "/t")
