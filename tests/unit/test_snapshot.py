"""Reading and writing model URIs, and the small values."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aim_downloader.errors import ConfigError
from aim_downloader.snapshot import ByteRange, Digest, ModelURI, RemoteFile, Snapshot

COMMIT = "0123456789abcdef0123456789abcdef01234567"

_part = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9_])?", fullmatch=True)
_repository = st.one_of(_part, st.builds("{}/{}".format, _part, _part))
_plain = st.text("abcXYZ019._-+ é", min_size=1, max_size=8).filter(lambda text: text.strip())
_revision = st.one_of(
    st.none(), _plain, st.builds("{}/{}".format, _plain, _plain), st.just("refs/pr/7")
)
_subpath = st.lists(_plain, max_size=3).map("/".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://org/model", ModelURI("hf", "org/model")),
        ("hf://gpt2", ModelURI("hf", "gpt2")),
        ("hf://org/model/", ModelURI("hf", "org/model")),
        ("hf://org/model@main", ModelURI("hf", "org/model", "main")),
        (f"hf://org/model@{COMMIT}/x", ModelURI("hf", "org/model", COMMIT, "x")),
        ("hf://org/model/sub/folder", ModelURI("hf", "org/model", None, "sub/folder")),
        ("hf://org/model/sub/", ModelURI("hf", "org/model", None, "sub")),
        ("hf://org/model@v1.0/sub/a", ModelURI("hf", "org/model", "v1.0", "sub/a")),
        ("hf://org/model@feature%2Fx/sub", ModelURI("hf", "org/model", "feature/x", "sub")),
        ("hf://org/model@refs/pr/3/sub", ModelURI("hf", "org/model", "refs/pr/3", "sub")),
        (
            "hf://org/model@refs/convert/parquet",
            ModelURI("hf", "org/model", "refs/convert/parquet"),
        ),
        ("hf://gpt2@main", ModelURI("hf", "gpt2", "main")),
        # As KServe writes it.
        ("hf://org/model:main", ModelURI("hf", "org/model", "main")),
        (f"hf://org/model:{COMMIT}", ModelURI("hf", "org/model", COMMIT)),
        ("hf://gpt2:v1/sub", ModelURI("hf", "gpt2", "v1", "sub")),
        ("hf://org/model:refs/pr/3", ModelURI("hf", "org/model", "refs/pr/3")),
        ("hf://org/model/sub:folder", ModelURI("hf", "org/model", None, "sub:folder")),
        ("hf://org/model@main/a:b", ModelURI("hf", "org/model", "main", "a:b")),
    ],
)
def test_parse(text: str, expected: ModelURI) -> None:
    assert ModelURI.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a model URI"),
        ("org/model", "is not a model URI"),
        ("hf://", "is not a model URI"),
        ("s3://bucket/key", "s3:// is not supported yet"),
        ("https://hub.test/org/model", "https:// is not supported yet"),
        ("hf://org//x", "does not name a repository"),
        ("hf://-org/model", "does not name a repository"),
        ("hf://org/..", "does not name a repository"),
        ("hf://org/mod el", "does not name a repository"),
        ("hf://a/b/c@main", "does not name a repository"),
        ("hf://org/model@", "no revision behind it"),
        ("hf://org/model:", "does not name a repository"),
        ("hf://org/model:/sub", "does not name a repository"),
        ("hf://org:main/model@x", "does not name a repository"),
        ("hf://org/model@/sub", "no revision behind it"),
        ("hf://org/model/a\nb", "control characters"),
        ("hf://org/model@a%00b", "control characters"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelURI.parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf://me:S3CRET@org/model", "hf://…@org/model"),
        ("hf://me:S3/CRET@org/model", "hf://…@org/model"),
        ("hf://S3CRET:@org/model", "hf://…@org/model"),
        ("me:S3CRET@org/model", "…@org/model"),
        ("hf://org/model?token=S3CRET", "hf://org/model?…"),
        ("https://host/m?X-Signature=S3CRET", "https://host/m?…"),
        ("https://S3CRET@host/m", "https://…@host/m"),
        ("https://me:S3CRET@host/m@main", "https://…@main"),
        ("s3://key:S3CRET@bucket/m", "s3://…@bucket/m"),
        ("--token=S3CRET", "--token=…"),
        ("hf_S3CRET", "…"),
        # Nothing of it may be a secret.
        ("hf://-org/model@main/a:b", None),
        ("hf://a/b/c@main", None),
        ("s3://bucket/some@thing", None),
        ("a=b", None),
    ],
)
def test_what_is_refused_is_shown_without_secrets(text: str, shown: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelURI.parse(text)
    assert repr(shown or text) in str(caught.value)
    assert "S3CRET" not in str(caught.value) + caught.value.hint


@given(_repository, _revision, _subpath)
@example("org/model", "a/b", "")
@example("gpt2", None, "")
def test_a_uri_is_read_as_it_was_written(
    repository: str, revision: str | None, subpath: str
) -> None:
    if "/" not in repository and revision is None:
        subpath = ""  # its first part would be taken for the name
    uri = ModelURI("hf", repository, revision, subpath)
    assert ModelURI.parse(str(uri)) == uri


@given(st.text())
def test_any_text_is_a_uri_or_a_config_error(text: str) -> None:
    for candidate in (text, f"hf://{text}"):
        try:
            uri = ModelURI.parse(candidate)
        except ConfigError:
            continue
        assert ModelURI.parse(str(uri)) == uri


def test_name_is_the_last_part() -> None:
    assert ModelURI.parse("hf://org/model@main/sub").name == "model"
    assert ModelURI.parse("hf://gpt2").name == "gpt2"


@pytest.mark.parametrize(
    ("revision", "pinned"), [(None, False), ("main", False), (COMMIT, True), (COMMIT[:12], False)]
)
def test_pinned(revision: str | None, pinned: bool) -> None:
    assert ModelURI("hf", "org/model", revision).pinned is pinned


@given(st.integers(0, 2**50), st.integers(1, 2**50))
def test_byte_range_header_counts_the_last_byte_in(start: int, length: int) -> None:
    piece = ByteRange(start, start + length)
    first, last = map(int, piece.header.removeprefix("bytes=").split("-"))
    assert (first, last) == (start, start + length - 1)
    assert len(piece) == length


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4)])
def test_byte_range_refuses(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="no byte range"):
        ByteRange(start, stop)


def test_small_values() -> None:
    files = (RemoteFile("a", 3, None), RemoteFile("b", 4, Digest("sha256", "ab"), url="https://x"))
    assert Snapshot(ModelURI("hf", "gpt2"), COMMIT, files).size == 7
    assert str(files[1].digest) == "sha256:ab"
    assert "https://x" not in repr(files[1])
