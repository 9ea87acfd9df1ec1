"""Which names a server may give to files on our disk."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader.names import HIDDEN, clash, fault_of, folded

GOOD = [
    "config.json",
    "onnx/model.onnx",
    "model-00001-of-00002.safetensors",
    ".gitattributes",
    "with space.bin",
    "percent%20.bin",
    "ünïcode/漢字/😀.bin",
    "\U0001f469\u200d\U0001f52c.png",  # a scientist: two emoji and a joiner
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt",  # Persian parts words with one
    "so\u00adft.md",
    "\U0001fae8.png",  # newer than Python 3.11
    "...",
    "..a",
    "a..",
    "a/..b/c",
    "-dash",
    "*",
    "con",
    "a:b",
    "~",
    f"{HIDDEN}2",
    f"x{HIDDEN}",
    "x" * 255,
    "ü" * 127,
    "/".join(["d" * 100] * 29),
]

BAD = {
    "plain relative path": [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "../x",
        "a/..",
        "a/../b",
        "a/./b",
        "./a",
        "a//b",
        "a/",
        "//host/share",
    ],
    "invisible": [
        "a\\b",
        "..\\x",
        "C:\\x",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\tb",
        "\x1b[31mred",
        "a\x7fb",
        "a\u202egpj.exe",  # shown from right to left
        "a\u200bb",  # a space without a width
        "\ufeffa",
    ],
    "own": [
        HIDDEN,
        f"{HIDDEN}/lease",
        f"{HIDDEN}/SHA256SUMS",
        f"a/{HIDDEN}/b",
        # Where characters without a look make no difference (HFS+).
        ".aim-down\u200dloader",
        ".aim\u00ad-downloader/lease",
        # The same folder where case makes no difference (APFS, SMB).
        HIDDEN.upper(),
        f"{HIDDEN.title()}/lease",
        # Where dots and spaces at the end are left away (SMB, FAT).
        f"{HIDDEN}.",
        f"{HIDDEN} . /lease",
        # Where characters without a look are passed over (ext4 with casefold, HFS+).
        ".aim\u034f-downloader/lease",
        f"{HIDDEN}\ufe0f/origin.json",
        # Where Unicode's compatible forms are one (ZFS).
        "\uff0eaim-downloader",
        ".aim-d\u24deWnloader/lease",
    ],
    "valid text": ["\ud800", "a/\udcff"],
    "longer": ["x" * 256, "ü" * 128, "a/" + "x" * 256, "/".join(["d" * 100] * 30)],
}


@pytest.mark.parametrize("path", GOOD)
def test_a_name_that_is_allowed(path: str) -> None:
    assert fault_of(path) == ""


@pytest.mark.parametrize(("why", "path"), [(why, path) for why in BAD for path in BAD[why]])
def test_a_name_that_is_refused(why: str, path: str) -> None:
    assert why in fault_of(path)


ALIKE = [
    ("README.md", "readme.MD"),
    ("caf\u00e9", "cafe\u0301"),
    ("\u212a", "k"),
    ("\u1e9e", "ss"),
    ("stra\u00dfe", "STRASSE"),
    ("\u03c3", "\u03c2"),
    ("\u0131", "I"),
    ("a", "a."),
    ("a", "a ."),
    ("\u2764", "\u2764\ufe0f"),
    ("\ufb01", "fi"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=ascii)
def test_names_that_some_file_system_takes_for_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize(
    ("one", "other"), [("a", "b"), ("a", ".a"), ("a-b", "a_b"), ("e", "\u00e9"), (".", "..")]
)
def test_names_that_all_file_systems_tell_apart(one: str, other: str) -> None:
    assert folded(one) != folded(other)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([], None),
        (["a", "b", "a-b", "ab", "c/a", "c/b"], None),
        (["a/b", "a/c", "a.b"], None),
        (["a", "a/b"], ("a", "a/b")),
        (["a/b/c", "a-b", "a.b", "x", "a"], ("a", "a/b/c")),
        (["d/a/b", "d/a"], ("d/a", "d/a/b")),
        (["A", "a/b"], None),
    ],
    ids=str,
)
def test_a_file_cannot_be_a_folder_too(paths: list[str], found: tuple[str, str] | None) -> None:
    assert clash(paths) == found


@given(
    st.text() | st.lists(st.sampled_from(["a", ".", "..", "/", "\\", "\0", HIDDEN])).map("".join)
)
@settings(deadline=None)
def test_what_is_allowed_stays_below_the_target(path: str) -> None:
    if not fault_of(path):
        joined = os.path.normpath(f"/target/{path}")
        assert joined == f"/target/{path}"
        assert HIDDEN not in Path(path).parts
