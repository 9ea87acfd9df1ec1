"""What AIM Engine reads in our lines: the class that is meant, and never another by accident."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_downloader import errors
from aim_downloader.reporters.phrases import decisive, disarm
from aim_downloader.storage import storage_errors
from tests.classification import PHRASES, PIECES, classify

# A failure prints what makes it happen again; a machine that is slow is no failure.
rounds: Callable[[Any], Any] = settings(deadline=None, max_examples=300, print_blob=True)

joints = [
    *("", " ", "/", ".", ": ", "-", "_", "s", "the ", "4", "04", "ü", "·", "…"),
    "\N{LATIN SMALL LETTER LONG S}",  # the same as an s, where case does not count
]
shouted = [*PIECES, *(piece.upper() for piece in PIECES), *(piece.title() for piece in PIECES)]
between = st.sampled_from(joints)
phrases = st.sampled_from(PHRASES).flatmap(lambda pieces: between.map(lambda by: by.join(pieces)))
hostile = st.lists(phrases | st.sampled_from(shouted) | between, max_size=14).map("".join)


# -- lines that say nothing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("the model's config.json was not found", "the model's config.json was missing"),
        ("answered 404 (Repository Not Found)", "answered 404 (Repository missing)"),
        ("RepositoryNotFoundError: gone", "repository-is-missing error: gone"),
        ("the disk is full: /cache: ENOSPC", "the drive is full: /cache: no space"),
        ("No space left on device", "no room left on device"),
        ("Disk quota exceeded", "Disk quota used up"),
        (
            'artifacts is forbidden: User "system:serviceaccount:a:b" cannot patch resource',
            'artifacts is forbidden: User "system:serviceaccount:a:b" can\'t patch resource',
        ),
        ("s3 said unauthorized", "s3 said not authorized"),
        ("401 Unauthorized by hf.co", "401 not authorized by hf.co"),
        ("403 Forbidden by hf.co", "403 refused by hf.co"),
        ("invalid token for huggingface.co", "bad token for huggingface.co"),
    ],
)
def test_a_line_that_would_decide_says_the_same_in_other_words(line: str, told: str) -> None:
    assert classify([line])
    assert disarm(line) == told
    assert classify([told]) is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Retry 1 now of /mnt/disk1/full.bin: reset", "Retry 1 now of /mnt/d·isk1/full.bin: reset"),
        ("Model: hf://org/s3-40404", "Model: hf://org/s3-4·04·04"),
        ("model.bin, file-not found.bin", "model.bin, file-n·ot found.bin"),
    ],
)
def test_a_name_is_parted_and_not_renamed(line: str, told: str) -> None:
    assert disarm(line) == told
    assert classify([told]) is None


@pytest.mark.parametrize(
    "line",
    [
        "Progress: 40% (404/1000 bytes) 403 KiB/s, 4:04 left, 1/2 files",
        "FAILED: XET (attempt 1/2)",
        "hint: check the name; for a private model set HF_TOKEN, or name --token-file",
        "not found",
        "the disk is slow",
        "the full file is on disk",
    ],
)
def test_any_other_line_stays_as_it_is(line: str) -> None:
    assert disarm(line) == line


@pytest.mark.parametrize("joint", [" ", "", " of it ", "/", ": ", "."], ids=repr)
@pytest.mark.parametrize("pieces", PHRASES, ids="…".join)
def test_no_phrase_is_left(pieces: list[str], joint: str) -> None:
    line = joint.join(pieces)
    for spelling in (line, line.upper(), f"/{line}/", f"It says: {line}."):
        assert classify([spelling])
        assert classify([disarm(spelling)]) is None


@given(hostile)
@rounds
def test_no_line_says_a_phrase(line: str) -> None:
    assert classify([disarm(line)]) is None
    assert disarm(disarm(line)) == disarm(line)


# -- the line that decides -------------------------------------------------------------------------

CLASS_OF: dict[type[Exception], str] = {
    errors.SnapshotNotFoundError: "not found",
    errors.AccessDeniedError: "auth",
    errors.InsufficientSpaceError: "storage full",
}
MESSAGE_ERRORS = [
    *CLASS_OF,
    errors.ConfigError,
    errors.SourceError,
    errors.SnapshotChangedError,
    errors.TransferError,
    errors.IntegrityError,
    errors.StorageError,
    errors.LeaseLostError,
    errors.DownloadCancelledError,
    ZeroDivisionError,
]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            errors.SnapshotNotFoundError("the revision does not exist: http://hub/x answered 404"),
            "Repository Not Found: the revision does not exist: http://hub/x answered 404",
        ),
        (
            errors.AccessDeniedError("no such model (Repository not found)"),
            "Cannot access gated repo: no such model (Repository missing)",
        ),
        (
            errors.InsufficientSpaceError("the disk is full: /cache/model-404 not found.bin"),
            "No space left on device: the drive is full: /cache/model-404 n·ot found.bin",
        ),
        (errors.StorageError("/cache: Permission denied"), ""),
        (None, ""),
    ],
)
def test_the_decisive_line(error: Exception | None, line: str) -> None:
    assert decisive(error) == line


@given(st.sampled_from(MESSAGE_ERRORS), hostile | st.text(max_size=40))
@rounds
def test_a_decisive_line_says_its_class_whatever_the_message_says(
    kind: type[Exception], message: str
) -> None:
    line = decisive(kind(message))
    assert classify([line]) == CLASS_OF.get(kind)
    assert "\n" not in line
    assert bool(line) == (kind in CLASS_OF)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOSPC, "storage full"),
        (errno.EDQUOT, "storage full"),
        (errno.EACCES, None),
        (errno.EPERM, None),
        (errno.EROFS, None),
        (errno.EIO, None),
    ],
)
def test_only_a_full_disk_is_full(code: int, told: str | None) -> None:
    with pytest.raises(errors.StorageError) as failure, storage_errors(Path("/cache")):
        raise OSError(code, os.strerror(code))
    assert classify([decisive(failure.value)]) == told
