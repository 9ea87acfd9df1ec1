"""What the Hub's API says about repositories: pure functions from commits to JSON values."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from aim_downloader.demo.repository import Commit, Entry, Repository

Json = dict[str, Any]


def model(repository: Repository, commit: Commit, *, blobs: bool) -> Json:
    owner, _, _ = repository.id.rpartition("/")
    return {
        "_id": hashlib.sha1(repository.id.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repository.id,
        "modelId": repository.id,
        "author": owner or None,
        "sha": commit.id,
        "lastModified": _time(commit.date),
        "createdAt": _time(commit.history()[-1].date),
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "usedStorage": sum(entry.size for entry in commit.entries.values()),
        "siblings": [_sibling(entry, blobs) for entry in commit.entries.values()],
    }


def _sibling(entry: Entry, blobs: bool) -> Json:
    sibling: Json = {"rfilename": entry.path}
    if blobs:
        sibling |= {"size": entry.size, "blobId": entry.oid}
        if entry.sha256:
            sibling["lfs"] = {
                "sha256": entry.sha256,
                "size": entry.size,
                "pointerSize": entry.pointer_size,
            }
    return sibling


def refs(repository: Repository) -> Json:
    pulls = [name for name in repository.branches if name.startswith("refs/")]
    heads = [name for name in repository.branches if name not in pulls]
    return {
        "branches": [_ref("heads", name, repository.branches[name]) for name in heads],
        "tags": [_ref("tags", name, target) for name, target in repository.tags.items()],
        "converts": [],
        "pullRequests": [
            {"name": name, "ref": name, "targetCommit": repository.branches[name]} for name in pulls
        ],
    }


def _ref(kind: str, name: str, target: str) -> Json:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": target}


def commit(value: Commit) -> Json:
    return {
        "id": value.id,
        "title": value.title,
        "message": "",
        "date": _time(value.date),
        "authors": [{"user": "demo"}],
    }


def tree(value: Commit, folder: str, *, recursive: bool, expand: bool) -> list[Json]:
    """Files and folders below a folder, in the order of their paths."""
    prefix = f"{folder}/" if folder else ""
    below = [entry for path, entry in value.entries.items() if path.startswith(prefix)]
    files = [_item(entry, value, expand) for entry in below if recursive or _direct(entry, prefix)]
    folders = _folders((entry.path for entry in below), prefix, recursive)
    items = files + [_folder(path, value, expand) for path in folders]
    return sorted(items, key=lambda item: str(item["path"]))


def paths_info(value: Commit, paths: Iterable[str], *, expand: bool) -> list[Json]:
    items = []
    for path in paths:
        if path in value.entries:
            items.append(_item(value.entries[path], value, expand))
        elif value.holds_folder(path):
            items.append(_folder(path, value, expand))
    return items


def page(total: int, start: int, asked: int, most: int) -> tuple[int, int]:
    return start, min(total, start + min(asked, most))


def _direct(entry: Entry, prefix: str) -> bool:
    return "/" not in entry.path[len(prefix) :]


def _folders(paths: Iterable[str], prefix: str, recursive: bool) -> set[str]:
    found = set()
    for path in paths:
        parts = path[len(prefix) :].split("/")[:-1]
        depth = len(parts) if recursive else min(1, len(parts))
        found |= {prefix + "/".join(parts[: count + 1]) for count in range(depth)}
    return found


def _item(entry: Entry, value: Commit, expand: bool) -> Json:
    item: Json = {"type": "file", "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.sha256:
        item["lfs"] = {
            "oid": entry.sha256,
            "size": entry.size,
            "pointerSize": entry.pointer_size,
        }
    if entry.xet_hash:
        item["xetHash"] = entry.xet_hash
    if expand:
        item |= _last_commit(value)
        scans = {"avScan": None, "pickleImportScan": None}
        item["securityFileStatus"] = {"status": "safe", **scans}
    return item


def _folder(path: str, value: Commit, expand: bool) -> Json:
    below = "\n".join(entry.oid for entry in value.entries.values() if entry.path.startswith(path))
    oid = hashlib.sha1(f"{path}\n{below}".encode(), usedforsecurity=False).hexdigest()
    item: Json = {"type": "directory", "oid": oid, "size": 0, "path": path}
    return item | (_last_commit(value) if expand else {})


def _last_commit(value: Commit) -> Json:
    last = {"id": value.id, "title": value.title, "date": _time(value.date)}
    return {"lastCommit": last}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
