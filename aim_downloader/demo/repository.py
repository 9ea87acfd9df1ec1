"""Repositories as values: commits of files, branches and tags, and who may read them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from aim_downloader.demo.content import Content
from aim_downloader.demo.xet import XetStore

LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx")
FIRST_COMMIT = datetime(2025, 1, 1, 12, tzinfo=UTC)

Gate = Literal[False, "auto", "manual"]


def lfs_by_suffix(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)


def without_xet(_: Content) -> str | None:
    return None


@dataclass(frozen=True)
class Entry:
    """One file of a commit. Git knows an LFS file by a pointer that names its sha256."""

    path: str
    content: Content
    oid: str
    sha256: str | None
    pointer_size: int = 0
    xet_hash: str | None = None

    @property
    def size(self) -> int:
        return self.content.size


def plain_entry(path: str, content: Content) -> Entry:
    return Entry(path, content, content.git_blob, None)


def lfs_entry(path: str, content: Content, xet_hash: str | None = None) -> Entry:
    pointer = Content(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
        % (content.sha256.encode(), content.size)
    )
    return Entry(path, content, pointer.git_blob, content.sha256, pointer.size, xet_hash)


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one moment."""

    id: str
    title: str
    date: datetime
    entries: Mapping[str, Entry]
    parent: "Commit | None" = None

    def holds_folder(self, folder: str) -> bool:
        return any(path.startswith(f"{folder}/") for path in self.entries)

    def history(self) -> "list[Commit]":
        """This commit and those before it, newest first."""
        commits = [self]
        while parent := commits[-1].parent:
            commits.append(parent)
        return commits


@dataclass
class Repository:
    """A named line of commits with branches and tags."""

    id: str
    private: bool = False
    gated: Gate = False
    is_lfs: Callable[[str], bool] = lfs_by_suffix
    xet_hash: Callable[[Content], str | None] = without_xet
    """By which hash a Xet store has an LFS content; `None` where it has not."""
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    large: dict[str, Content] = field(default_factory=dict)
    """The LFS contents of all commits, by sha256."""

    @property
    def head(self) -> str:
        """The commit id of `main`."""
        return self.branches["main"]

    def commit(
        self,
        changes: Mapping[str, bytes | Path | None],
        *,
        branch: str = "main",
        title: str = "Upload model",
    ) -> Commit:
        """Puts files into a branch (`None` removes one); a new branch begins at `main`."""
        tip = self.branches.get(branch) or self.branches.get("main")
        parent = self.commits[tip] if tip else None
        entries = dict(parent.entries) if parent else {}
        for path, data in changes.items():
            if data is None:
                del entries[path]
            else:
                entries[path] = self._entry(path, Content(data))
        commit = self._record(title, dict(sorted(entries.items())), parent)
        self.branches[branch] = commit.id
        return commit

    def tag(self, name: str, commit: str | None = None) -> None:
        self.tags[name] = commit or self.head

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag, a full reference or a commit id stands for."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        commit_id = self.branches.get(name) or self.tags.get(name) or name
        return self.commits.get(commit_id)

    def _entry(self, path: str, content: Content) -> Entry:
        # Git stores an empty file as a plain blob even where an LFS pattern matches its name.
        if content.size and self.is_lfs(path):
            self.large[content.sha256] = content
            return lfs_entry(path, content, self.xet_hash(content))
        return plain_entry(path, content)

    def _record(self, title: str, entries: Mapping[str, Entry], parent: Commit | None) -> Commit:
        number = len(self.commits)
        lines = [self.id, title, str(number), parent.id if parent else ""]
        lines += [f"{entry.oid} {path}" for path, entry in entries.items()]
        commit_id = hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
        date = FIRST_COMMIT + timedelta(hours=number)
        commit = Commit(commit_id, title, date, entries, parent)
        self.commits[commit_id] = commit
        return commit


def repository_of(repo_id: str, folder: Path) -> Repository:
    """A repository of one commit with the files of a folder."""
    repository = Repository(repo_id)
    repository.commit(files_of(folder))
    return repository


def files_of(folder: Path) -> dict[str, Path]:
    """All files below a folder, hidden ones left out."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): path for name, path in paths.items() if _shown(name)}


def _shown(name: Path) -> bool:
    return not any(part.startswith(".") for part in name.parts)


@dataclass
class Catalogue:
    """What a Hub holds: its repositories, names that have moved, and the tokens it knows."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, frozenset[str]] | None = None
    """Token to the private and gated repositories it may read; `None` takes any token for good."""
    xet: XetStore | None = None
    """Where the files that have a Xet hash are, too."""

    def add(self, repository: Repository) -> Repository:
        self.repositories[repository.id] = repository
        return repository

    def large(self, repo_id: str, sha256: str) -> Content | None:
        """The LFS content of a repository that has this digest."""
        repository = self.repositories.get(repo_id)
        return repository.large.get(sha256) if repository else None

    def knows(self, token: str) -> bool:
        return self.tokens is None or token in self.tokens

    def may_read(self, token: str | None, repo_id: str) -> bool:
        if token is None:
            return False
        return self.tokens is None or repo_id in self.tokens.get(token, frozenset())
