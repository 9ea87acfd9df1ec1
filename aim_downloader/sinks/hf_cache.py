"""The cache of huggingface_hub: contents in ``blobs``, named by etag; a snapshot is links to them.

What the library left there is used, and it finds what we leave, with or without a network. Its
locks (``.locks``) are not taken: as with its own downloads, which write to a file of their own,
two that bring one blob cost bytes, and digest and rename decide. See its ``file_download.py``.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aim_downloader.errors import ConfigError, StorageError
from aim_downloader.names import HIDDEN, fault_of
from aim_downloader.receipt import Origin
from aim_downloader.sinks.below import folders_to, link_text, make_folder, plain_file
from aim_downloader.sinks.layout import Content, hidden_of
from aim_downloader.snapshot import ModelURI, RemoteFile
from aim_downloader.storage import read_whole, storage_errors, sync_folder, write_whole

NO_COMMIT = "0" * 40
"""What git calls no commit: for a model of which the cache knows none yet."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"git-sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")
_SHARED = re.compile(r"\.\./\.\./(blobs/([0-9a-f]{2})/\2[0-9a-f]{62})")
_TAG = """\
Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache of models, which can be fetched again.
# What such a file means: https://bford.info/cachedir/
"""


@dataclass(frozen=True, slots=True)
class HfCache:
    """One commit of the model in the folder ``model`` (``…/models--owner--name``) of a cache.

    ``revision`` is the branch or tag that is to name the commit; None when none is.
    """

    model: Path
    commit: str
    revision: str | None = None

    @classmethod
    def of(cls, uri: ModelURI, cache: Path | None = None) -> HfCache:
        """The model of a URI, at the commit that the cache knows for its revision.

        ``cache`` is where HF_HUB_CACHE or HF_HOME say when it is None.

        Raises:
            ConfigError: the revision can be no file's name there.
            StorageError: the cache cannot be looked at.
        """
        # Late, as importing takes a while; and not from file_download, which has a function for
        # the folder's name, but brings an HTTP library with it.
        from huggingface_hub import constants

        cache = Path(constants.HF_HUB_CACHE) if cache is None else cache
        parts = ("models", *uri.repository.split("/"))
        model = cache / constants.REPO_ID_SEPARATOR.join(parts)
        revision = uri.revision or "main"
        if fault := fault_of(revision):
            raise ConfigError(f"the revision {revision!r} {fault}: a cache cannot note it")
        if taken := _in_the_way(model / "refs", revision):
            raise ConfigError(
                f"the cache cannot note the revision {revision!r}: {taken} stands in the way",
                hint=f"remove it, if there is no such branch or tag any more, or name the commit: "
                f"hf://{uri.repository}@<commit>",
            )
        if uri.pinned:
            return cls(model, revision)
        return cls(model, _read_ref(model, revision) or NO_COMMIT, revision)

    @property
    def base(self) -> Path:  # noqa: D102
        return self.model.parent

    @property
    def root(self) -> Path:  # noqa: D102
        return self.model / "snapshots" / self.commit

    @property
    def folders(self) -> tuple[Path, ...]:
        """Our own folders, and those without which huggingface_hub takes a model for damaged."""
        model, hidden = self.model, self.model / HIDDEN
        return model, model / "snapshots", model / "blobs", hidden, hidden / self.commit

    def at(self, commit: str) -> HfCache:  # noqa: D102
        return replace(self, commit=commit)

    def siblings(self) -> Sequence[Path]:  # noqa: D102
        commits = known_commits(self.model)
        return [hidden_of(found) for found in commits if found.commit != self.commit]

    def place(self, path: str, digest: str) -> str:  # noqa: D102
        if not _DIGEST.fullmatch(digest):
            raise StorageError(f"{path} has no digest that could name it in a cache: {digest!r}")
        return f"{self.model.name}/blobs/{digest.partition(':')[2]}"

    def content(self, path: str, digest: str) -> Content | None:
        """A blob, what it shares with other models, or a file that stands for the link."""
        if not _DIGEST.fullmatch(digest):
            return None
        blob = self.place(path, digest)
        for place in (blob, self._shared(blob), self._name(path)):
            if place and (found := plain_file(self.base, place)):
                return Content(self.base / place, found)
        return None

    def shows(self, path: str, digest: str) -> bool:  # noqa: D102
        if link_text(self.base, self._name(path)) == self._link(path, digest):
            return True
        # Where there are no symlinks huggingface_hub puts the file itself there, and no blob.
        found = self.content(path, digest)
        return found is not None and found.path == self.root / path

    def show(self, origin: Origin, listing: Sequence[RemoteFile], drafts: Path) -> None:
        """Link the files to their blobs; last of all the branch or tag gets its commit."""
        # First: by it huggingface_hub knows, without a network, whether a snapshot is complete.
        if listing and all(file.blob_id for file in listing):
            self._put(f"{self.model.name}/trees/{self.commit}.json", _tree(listing), drafts)
        lacking = [file for file in origin.files.values() if not self.shows(file.path, file.digest)]
        names = {self._name(file.path): self._link(file.path, file.digest) for file in lacking}
        way = self._make_way(*names)
        for name, link in names.items():
            draft = drafts / secrets.token_hex(8)
            draft.symlink_to(link)
            draft.replace(self.base / name)
        for folder in way:
            sync_folder(folder)
        if not (self.base / "CACHEDIR.TAG").exists():
            self._put("CACHEDIR.TAG", _TAG, drafts)
        if self.revision:
            self._put(f"{self.model.name}/refs/{self.revision}", self.commit, drafts)

    def _name(self, path: str) -> str:
        return f"{self.model.name}/snapshots/{self.commit}/{path}"

    def _link(self, path: str, digest: str) -> str:
        """What the link of a file says: as huggingface_hub writes it, so that a cache can move."""
        up = "../" * (2 + path.count("/"))
        return f"{up}{self.place(path, digest).partition('/')[2]}"

    def _shared(self, blob: str) -> str | None:
        """Where a blob lies that several models share. A link to anywhere else is foreign."""
        found = _SHARED.fullmatch(link_text(self.base, blob) or "")
        return found[1] if found else None

    def _make_way(self, *names: str) -> list[Path]:
        """Make the folders to files of the cache; returns all that their names depend on."""
        # One name for each folder, as a folder may have many files.
        ways = {name.rpartition("/")[0]: name for name in names}.values()
        folders = {folder: None for name in ways for folder in folders_to(self.base, name)}
        for folder in folders:
            make_folder(folder)
        return [self.base, *folders]

    def _put(self, name: str, text: str, drafts: Path) -> None:
        """Write a file of the cache, unless it is there.

        Its draft lies elsewhere: huggingface_hub takes all that is in ``refs`` for a ref.
        """
        way = self._make_way(name)
        if _read(self.base / name) == text:
            return
        draft = drafts / secrets.token_hex(8)
        write_whole(draft, text.encode())
        draft.replace(self.base / name)
        for folder in way:
            sync_folder(folder)


def known_commits(model: Path) -> list[HfCache]:
    """The commits of a model in a cache of which we have a hidden folder."""
    try:
        names = sorted(folder.name for folder in (model / HIDDEN).iterdir())
    except OSError:
        return []
    return [HfCache(model, name) for name in names if _COMMIT.fullmatch(name)]


def _in_the_way(refs: Path, revision: str) -> Path | None:
    """The note of ``a`` where one of ``a/b`` is to go, or the folder of that where ``a`` is."""
    note = refs / revision
    above = (folder for folder in note.parents if folder.is_relative_to(refs) and folder != refs)
    with storage_errors(note):
        if note.is_dir():
            return note
        return next((folder for folder in above if folder.is_file()), None)


def _read_ref(model: Path, revision: str) -> str | None:
    """The commit that the cache knows for a branch or tag."""
    text = (_read(model / "refs" / revision) or "").strip()
    return text if _COMMIT.fullmatch(text) else None


def _read(path: Path) -> str | None:
    """The text of a file of the cache; None where there is none to be read."""
    try:
        return read_whole(path).decode()
    except (OSError, ValueError):
        return None


def _tree(listing: Iterable[RemoteFile]) -> str:
    """The listing of a commit as huggingface_hub keeps it (see its ``_tree_cache.py``)."""
    files = {file.path: _tree_entry(file) for file in sorted(listing, key=lambda file: file.path)}
    return json.dumps({"format_version": 1, "files": files}, indent=1)


def _tree_entry(file: RemoteFile) -> dict[str, object]:
    entry: dict[str, object] = {"size": file.size, "blob_id": file.blob_id}
    if file.digest and file.digest.algorithm == "sha256":
        entry |= {"lfs_sha256": file.digest.hex, "lfs_size": file.size}
    if file.xet_hash:
        entry["xet_hash"] = file.xet_hash
    return entry
