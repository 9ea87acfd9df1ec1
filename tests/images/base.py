"""The base image: what debootstrap makes, slimmed, under the name of the real one."""

from __future__ import annotations

import datetime as dt
import hashlib
import platform
import shutil
from pathlib import Path

from tests.images.tools import Buildah, run

RELEASE = "trixie"
NAME = f"docker.io/library/debian:{RELEASE}-slim"

# What the real image's dpkg leaves out; what is installed on top of it is left out as well.
_UNWANTED = ("doc", "groff", "info", "linda", "lintian", "locale", "man")
_DPKG = (
    "".join(f"path-exclude /usr/share/{name}/*\n" for name in _UNWANTED)
    + "path-include /usr/share/doc/*/copyright\n"
    + "path-include /usr/share/locale/locale.alias\n"
)
_APT = 'Apt::AutoRemove::SuggestsImportant "false";\nAcquire::Languages "none";\n'
_SOURCES = f"""\
Types: deb
URIs: {{mirror}}
Suites: {RELEASE} {RELEASE}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {{mirror}}-security
Suites: {RELEASE}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def key() -> str:
    """Names this week's base: it is made anew so often, for the sake of Debian's updates."""
    year, week, _ = dt.datetime.now(dt.UTC).isocalendar()
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    return f"{RELEASE}-{platform.machine()}-{year}w{week:02}-{recipe}"


def make(archive: Path, buildah: Buildah, work: Path) -> None:
    tree = work / "tree"
    run("debootstrap", "--variant=minbase", RELEASE, tree)
    slim(tree)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, tree, "/")
    shutil.rmtree(tree)
    buildah("config", "--cmd", "bash", container)
    buildah("commit", "--quiet", "--rm", container, NAME)
    buildah.save(NAME, archive)


def slim(tree: Path) -> None:
    share = tree / "usr/share"
    for name in _UNWANTED:
        for path in sorted((share / name).rglob("*"), reverse=True):
            if path.is_symlink() and path.is_dir():
                continue  # a package's folder that is another's, with its copyright
            if path.is_dir():
                _remove_if_empty(path)
            elif path.name not in {"copyright", "locale.alias"}:
                path.unlink()
    for folder in ("dev", "var/cache/apt", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(tree / folder)
        (tree / folder).mkdir()
    # "deb URL SUITE …": from where it came.
    mirror = (tree / "etc/apt/sources.list").read_text().split()[1]
    # What debootstrap took from this machine, and what is replaced.
    for name in ("hostname", "resolv.conf", "apt/sources.list"):
        (tree / "etc" / name).unlink(missing_ok=True)
    (tree / "etc/apt/sources.list.d/debian.sources").write_text(_SOURCES.format(mirror=mirror))
    (tree / "etc/apt/apt.conf.d/docker").write_text(_APT)
    (tree / "etc/dpkg/dpkg.cfg.d/docker").write_text(_DPKG)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
