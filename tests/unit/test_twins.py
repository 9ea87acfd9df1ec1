"""Names that the target's file system takes for one are found before one file replaces another."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from aim_downloader.errors import StorageError
from aim_downloader.twins import alike, refuse_twins
from tests.folding import folding_folder

TWINS = {
    "case": ["README.md", "readme.md"],
    "Unicode's forms": ["caf\u00e9.json", "cafe\u0301.json"],
    "a folder's case": ["ONNX/model.bin", "onnx/model.bin"],
    "case and form of both": ["\u00c9/\u00e9", "e\u0301/E\u0301"],
    "the third of three": ["a.", "a", "A."],
}
NO_TWINS = {
    "nothing": [],
    "one": ["README.md"],
    "others": ["README.md", "readme.txt", "a/README.md", "b/readme.md"],
    "folders alone": ["onnx/a", "ONNX/b"],
    "a dot at the end": ["a", "a."],
    "what is compatible": ["\u2460", "1"],
}


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that does not tell case and Unicode's forms apart."""
    with folding_folder(tmp_path) as folder:
        yield folder


@pytest.mark.parametrize("paths", TWINS.values(), ids=TWINS)
def test_twins_are_refused_where_they_are_one(folding: Path, paths: Sequence[str]) -> None:
    with pytest.raises(StorageError, match="are one name to the file system") as caught:
        refuse_twins(folding, paths)
    assert "--exclude" in caught.value.hint
    assert not list(folding.iterdir())


@pytest.mark.parametrize("paths", NO_TWINS.values(), ids=NO_TWINS)
def test_what_is_told_apart_there_is_fine(folding: Path, paths: Sequence[str]) -> None:
    refuse_twins(folding, paths)
    assert not list(folding.iterdir())


@pytest.mark.parametrize("paths", [*TWINS.values(), *NO_TWINS.values()], ids=[*TWINS, *NO_TWINS])
def test_where_all_are_told_apart_nothing_is_refused(tmp_path: Path, paths: Sequence[str]) -> None:
    (tmp_path / "a").touch()
    if (tmp_path / "A").exists():
        pytest.skip("this file system does not tell case apart")
    refuse_twins(tmp_path, paths)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("paths", "groups"),
    [
        (["a", "b"], []),
        (["a", "A", "b", "B.", "c"], [["a", "A"], ["b", "B."]]),
        (["x/a", "X/A ", "x\u034f/a"], [["x/a", "X/A ", "x\u034f/a"]]),
        (["a/b", "a/b/c"], []),
    ],
    ids=ascii,
)
def test_who_is_asked_about(paths: Sequence[str], groups: list[list[str]]) -> None:
    assert alike(paths) == groups


def test_asking_can_be_ended(tmp_path: Path) -> None:
    enough = threading.Event()
    enough.set()
    refuse_twins(tmp_path, ["x" * 300, "X" * 300], enough)


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        refuse_twins(tmp_path, ["x" * 300, "X" * 300])
    assert not list(tmp_path.iterdir())
