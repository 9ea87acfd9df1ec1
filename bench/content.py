"""What is downloaded: repositories of random bytes, written once per bench."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class File:
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """A repository below `root`, as `tests.hub` serves it: `root/bench/name`."""

    name: str
    root: Path
    files: tuple[File, ...]

    @property
    def id(self) -> str:
        return f"bench/{self.name}"

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def path(self, file: File) -> Path:
        return self.root / self.id / file.path


def weights(root: Path, size: int, shards: int, name: str = "weights") -> Model:
    """A model of `size` random bytes in as many files; large files, as LFS has them."""
    names = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)]
    return _write(name, root, dict.fromkeys(names, size // shards), os.urandom)


def small(root: Path, count: int, size: int) -> Model:
    """Many small files, as git has them: each one comes from the Hub itself."""
    names = [f"parts/{n // 500:02d}/{n:05d}.json" for n in range(count)]
    return _write("small", root, dict.fromkeys(names, size), os.urandom)


def joined(root: Path, model: Model, times: int) -> Model:
    """All of a model in one file, several times over: a Xet store that has the one has both."""
    digest = hashlib.sha256()
    path = root / "bench" / "joined" / "model.safetensors"
    path.parent.mkdir(parents=True)
    with path.open("wb", buffering=0) as target:
        for part in model.files * times:
            with model.path(part).open("rb", buffering=0) as source:
                while data := source.read(MIB):
                    digest.update(data)
                    target.write(data)
        os.fsync(target.fileno())
    return Model("joined", root, (File(path.name, model.size * times, digest.hexdigest()),))


def sparse(root: Path, size: int) -> Model:
    """One large file that takes no room: it reads as zeros."""
    folder = root / "bench" / "sparse"
    folder.mkdir(parents=True)
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(size)
    digest = hashlib.sha256()
    zeros = bytes(MIB)
    for count in _pieces(size):
        digest.update(zeros[:count])
    return Model("sparse", root, (File(path.name, size, digest.hexdigest()),))


def _write(name: str, root: Path, sizes: dict[str, int], source: Callable[[int], bytes]) -> Model:
    folder = root / "bench" / name
    files = []
    for path, size in sizes.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with target.open("wb", buffering=0) as file:
            for count in _pieces(size):
                data = source(count)
                digest.update(data)
                file.write(data)
        files.append(File(path, size, digest.hexdigest()))
    return Model(name, root, tuple(files))


def _pieces(size: int) -> Iterator[int]:
    for start in range(0, size, MIB):
        yield min(MIB, size - start)
