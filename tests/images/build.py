"""Our images, each built once for each state of its sources, into a cache outside the project.

Below ``aim-downloader-tests/images`` there are the base as `BASE.tar`, buildah's storage for it as
`BASE.storage`, and for each image and state of its sources a folder `TITLE-KEY` with `image.tar`,
its tree `root` and a file `used`, which those who use it have locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.images import base
from tests.images.tools import PATH, Buildah, BuildError, NoBaseError, run
from tests.images.unpack import unpack

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aim-downloader-tests"
PLACE = CACHE / "images"


@dataclass(frozen=True)
class Recipe:
    """One of our images, and what it is made of."""

    title: str
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called on a node."""
        return f"localhost/aim-{self.title}:test"


_FOR_ALL = ("Makefile", ".dockerignore", "pyproject.toml", "LICENSE", "requirements-dev.txt")
DOWNLOADER = Recipe(
    "downloader",
    (*_FOR_ALL, "Dockerfile.downloader", "requirements.txt", "aim_downloader", "container"),
)
OPERATOR = Recipe(
    "operator",
    (
        *(*_FOR_ALL, "Dockerfile.operator", "requirements-operator.txt"),
        *("aim_downloader/_version.py", "operator_shim"),
    ),
)
NAME = DOWNLOADER.name

_TOOLS = ("buildah", "debootstrap", "make", "unshare")
_KEPT = 2


def why_not() -> str | None:
    """Says what is missing to build and start images here."""
    if not sys.platform.startswith("linux"):
        return "they need Linux"
    if os.geteuid() != 0:
        return "only root may mount"
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=PATH) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def image_of_these_sources(
    say: Callable[[str], None] = lambda _: None, recipe: Recipe = DOWNLOADER
) -> Path:
    """Builds an image unless it is there; its folder stays there while this process lives.

    Raises:
        BuildError: a tool has failed.
    """
    if folder := _find(_key(ROOT, recipe)):
        return folder
    PLACE.mkdir(parents=True, exist_ok=True)
    with _locked(PLACE / "lock"), _workplace() as work:
        # What others edit meanwhile is not part of it.
        context = work / "context"
        copy_sources(context, recipe)
        key = _key(context, recipe)
        if not (PLACE / key).exists():
            _build(context, recipe, key, work, say)
            _remove_old(recipe)
        folder = _find(key)
        assert folder
        return folder


def copy_sources(folder: Path, recipe: Recipe = DOWNLOADER) -> None:
    """Copies what an image is built of."""
    folder.mkdir()
    for name in recipe.sources:
        source = ROOT / name
        (folder / name).parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)


@contextlib.contextmanager
def storage_with_base(say: Callable[[str], None], work: Path) -> Iterator[Buildah]:
    """Gives a buildah that has the base image, in a storage that is kept."""
    archive = PLACE / f"{base.key()}.tar"
    if not archive.exists():
        say("making the base image by debootstrap, once a week; that takes a minute.")
        for old in [*PLACE.glob("*.tar"), *PLACE.glob("*.storage")]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        try:
            base.make(work / "base.tar", Buildah(work / "storage", work), work)
        except BuildError as error:
            raise NoBaseError(str(error)) from error
        (work / "base.tar").rename(archive)
    storage = archive.with_suffix(".storage")
    buildah = Buildah(storage, work)
    if not storage.exists():
        buildah.load(archive)
    yield buildah


def _build(context: Path, recipe: Recipe, key: str, work: Path, say: Callable[[str], None]) -> None:
    with storage_with_base(say, work) as buildah:
        say(f"building the image of the {recipe.title}.")
        make_images(context, buildah, TAG="test")
        made = work / "made"
        made.mkdir()
        buildah.save(recipe.name, made / "image.tar")
        unpack(made / "image.tar", made)
        (made / "used").touch()
        made.rename(PLACE / key)


def make_images(folder: Path, buildah: Buildah, **variables: str) -> str:
    """Calls `make images` there."""
    words = [f"{name}={value}" for name, value in {"BUILDER": "buildah", **variables}.items()]
    environment = {**buildah.environment, "MAKEFLAGS": "", "MAKELEVEL": ""}
    return run("make", "--no-print-directory", "images", *words, cwd=folder, variables=environment)


def _key(folder: Path, recipe: Recipe) -> str:
    """Names the image by everything that it is made of."""
    known = hashlib.sha256(base.key().encode())
    for name in recipe.sources:
        top = folder / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                known.update(f"{path.relative_to(folder)} {content}\n".encode())
    return f"{recipe.title}-{known.hexdigest()[:16]}"


_used: dict[str, IO[bytes]] = {}


def _find(key: str) -> Path | None:
    folder = PLACE / key
    try:
        used = (folder / "used").open("rb+")
        fcntl.flock(used, fcntl.LOCK_SH)
        os.utime(folder)
    except OSError:
        return None
    _used[key] = used
    return folder


def _remove_old(recipe: Recipe) -> None:
    """Keeps the latest ones of an image, and those that somebody uses."""
    images = sorted(
        PLACE.glob(f"{recipe.title}-*/used"), key=lambda path: path.parent.stat().st_mtime
    )
    for path in images[:-_KEPT]:
        with path.open("rb+") as used, contextlib.suppress(BlockingIOError):
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder beside the images, so that what is made there moves to its place in one step."""
    # What a killed build has left; nobody else builds now.
    for old in PLACE.glob("building.*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="building.", dir=PLACE) as folder:
        yield Path(folder)
