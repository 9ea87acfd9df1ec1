"""Which names a server may give to files on our disk."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader.names import HIDDEN, fault_of

GOOD = [
    "config.json",
    "onnx/model.onnx",
    "model-00001-of-00002.safetensors",
    ".gitattributes",
    "with space.bin",
    "percent%20.bin",
    "ünïcode/漢字/😀.bin",
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
        # The same folder where case makes no difference (APFS, SMB).
        HIDDEN.upper(),
        f"{HIDDEN.title()}/lease",
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


@given(
    st.text() | st.lists(st.sampled_from(["a", ".", "..", "/", "\\", "\0", HIDDEN])).map("".join)
)
@settings(deadline=None)
def test_what_is_allowed_stays_below_the_target(path: str) -> None:
    if not fault_of(path):
        joined = os.path.normpath(f"/target/{path}")
        assert joined == f"/target/{path}"
        assert HIDDEN not in Path(path).parts
