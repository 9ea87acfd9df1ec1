"""Machines on which something is wrong: the command does its work, or says in one line what is."""

import contextlib
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Self
from urllib.parse import urlsplit

import pytest

from tests.front import Front
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    MIB,
    URI,
    Command,
    Files,
    Finished,
    Running,
    assert_snapshot,
    content_requests,
    names_below,
    total_size,
)

LARGE, GIT = "model.safetensors", "config.json"
AGAIN_MIB = 12
"""What may be fetched again after a kill or a failure: what was in memory, and on the wire."""


def lacking(reason: str) -> NoReturn:
    """Where everything has to run, a missing right is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need_root(*tools: str) -> None:
    if os.geteuid() != 0:
        lacking("only root may do this to the system")
    for tool in tools:
        if shutil.which(tool) is None:
            lacking(f"there is no {tool} here")


def said_well(done: Finished) -> bool:
    """One error, for people."""
    return "Traceback" not in done.stderr and done.stderr.count("error:") == 1


@dataclass
class Odd:
    """Starts the command behind other words (``prlimit``, ``unshare``), or in another folder."""

    command: Command
    prefix: Sequence[str | Path] = ()
    folder: Path | None = None
    without: tuple[str, ...] = ()
    started: list[Running] = field(default_factory=list)

    def run(self, *words: str | Path, timeout: float = 60.0, **environment: str) -> Finished:
        told = self.command.home.parent / f"odd-{len(self.started)}.told"
        known = {**self.command.environment, **environment}
        with (
            told.with_suffix(".out").open("wb") as out,
            told.with_suffix(".err").open("wb") as err,
        ):
            process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "aim_downloader", *words],
                env={name: value for name, value in known.items() if name not in self.without},
                cwd=self.folder or told.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.started.append(Running(process, told))
        return self.started[-1].finish(timeout)


# --- disks ----------------------------------------------------------------------------------------


class Disk:
    """A small ext4 in a file, mounted: a disk that really is one, with blocks and write-back."""

    def __init__(self, image: Path, folder: Path, size: int) -> None:
        self._image = image
        self.folder = folder
        with image.open("wb") as made:
            made.truncate(size)

    def __enter__(self) -> Self:
        _system("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "400", self._image)
        _system("mount", "-o", "loop", self._image, self.folder)
        (self.folder / "lost+found").rmdir()
        return self

    def __exit__(self, *error: object) -> None:
        _system("umount", self.folder)

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.folder).free


def _system(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{words[0]}: {done.stderr}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need_root("mkfs.ext4", "mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(tmp_path / "disk.image", folder, 64 * MIB))
        except OSError as error:
            lacking(f"no disk can be mounted here: {error}")
        yield disk


@pytest.fixture
def model(hub: HubServer, pool: bytes) -> Files:
    files: Files = {
        LARGE: pool[: 20 * MIB],
        "other.safetensors": pool[20 * MIB : 32 * MIB],
        **{f"{number:02}.json": pool[number : 30_000 + number] for number in range(40)},
    }
    hub.add_repo("org/disk", files)
    return files


def fill(disk: Disk, leave: int) -> Path:
    """Somebody takes all that is free, but so many bytes."""
    greedy = disk.folder / "greedy"
    with greedy.open("wb") as opened, contextlib.suppress(OSError):
        while (more := disk.free - leave) > 0:
            size = os.fstat(opened.fileno()).st_size
            os.posix_fallocate(opened.fileno(), size, max(4096, more - MIB // 4))
    return greedy


@pytest.mark.parametrize("leave", [0, 3 * MIB], ids=["nothing left", "3 MiB left"])
def test_somebody_fills_the_disk_on_the_way(
    hub: HubServer, command: Command, disk: Disk, model: Files, leave: int
) -> None:
    target = disk.folder / "model"
    hub.pace(20e6)
    running = command.start("hf://org/disk", target)
    hub.wait_for_bytes(10 * MIB)
    hub.pace(4e6)  # so that it cannot be faster than we are
    greedy = fill(disk, leave)
    done = running.finish()
    assert done.code == 73, done.said
    assert said_well(done)
    assert "full" in done.stderr
    assert_named_are_right(target, model)
    greedy.unlink()
    hub.pace(None)
    again = command.run("hf://org/disk", target)
    assert again.code == 0, again.said
    assert_snapshot(target, model)
    twice = hub.bytes_sent() - total_size(model)
    print(f"{twice / MIB:.1f} MiB twice")
    assert twice < AGAIN_MIB * MIB, "what was written is not asked for again"


def assert_named_are_right(target: Path, files: Files) -> None:
    for name in names_below(target):
        if not name.startswith(HIDDEN):
            assert (target / name).read_bytes() == files[name], name


def test_a_disk_that_is_full_to_the_last_byte(
    hub: HubServer, command: Command, disk: Disk, model: Files
) -> None:
    greedy = fill(disk, 0)
    done = command.run("hf://org/disk", disk.folder / "model")
    assert done.code == 73, done.said
    assert said_well(done)
    assert not content_requests(hub.log)
    greedy.unlink()
    assert command.run("hf://org/disk", disk.folder / "model").code == 0
    assert_snapshot(disk.folder / "model", model)


def test_a_disk_that_runs_out_of_inodes_on_the_way(
    hub: HubServer, command: Command, disk: Disk, pool: bytes
) -> None:
    files: Files = {f"{number:03}.bin": pool[number : 30_000 + number] for number in range(150)}
    hub.add_repo("org/many", files)
    target = disk.folder / "model"
    hub.pace(1.5e6)
    running = command.start("hf://org/many", target)
    hub.wait_for_bytes(MIB)
    many = disk.folder / "many"
    many.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1000):
            (many / str(number)).touch()
    done = running.finish()
    assert done.code == 73, done.said
    assert said_well(done)
    assert_named_are_right(target, files)
    shutil.rmtree(many)
    hub.pace(None)
    assert command.run("hf://org/many", target).code == 0
    assert_snapshot(target, files)
    assert hub.bytes_sent() < 2 * total_size(files), "what had its name is not asked for again"


# --- rights ---------------------------------------------------------------------------------------


def as_nobody() -> list[str]:
    """As uid 1000, which may read all (wherever Python lives), and write only what is its own."""
    need_root("setpriv")
    able = "+dac_read_search"
    words = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
    words += [f"--inh-caps={able}", f"--ambient-caps={able}"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        lacking("setpriv may not give the right to read everything")
    return words


def test_a_user_without_rights_downloads_into_a_folder_of_its_own(
    command: Command, target: Path, files: Files
) -> None:
    target.mkdir()
    os.chown(target, 1000, 1000)
    done = Odd(command, as_nobody()).run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert {path.stat().st_uid for path in target.rglob("*")} == {1000}


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """Where no folder on the way is closed to others."""
    need_root()
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 1000, 1000)
        yield Path(folder)


@pytest.mark.parametrize(("owner", "mode"), [(1000, 0o444), (0, 0o644)])
def test_a_user_mends_a_file_that_it_may_not_write_to(
    command: Command, folder_of_nobody: Path, files: Files, owner: int, mode: int
) -> None:
    target, nobody = folder_of_nobody, Odd(command, as_nobody())
    assert nobody.run(URI, target).code == 0
    with (target / LARGE).open("r+b") as opened:
        opened.write(b"damage")
    os.chown(target / LARGE, owner, owner)
    (target / LARGE).chmod(mode)
    done = nobody.run("verify", target, "--repair")
    assert done.code == 0, done.said
    assert_snapshot(target, files)


@pytest.mark.parametrize("place", ["", "new", "new/below"])
def test_a_user_without_rights_is_told_so(
    hub: HubServer, command: Command, target: Path, place: str
) -> None:
    target.mkdir(mode=0o755)
    done = Odd(command, as_nobody()).run(URI, target / place)
    assert done.code == 73, done.said
    assert said_well(done)
    assert "which user this runs as" in done.stderr
    assert not content_requests(hub.log)
    assert not names_below(target)


def test_a_model_of_another_user_that_is_complete_is_fine(
    hub: HubServer, command: Command, target: Path
) -> None:
    pinned = f"{URI}@{hub.repo('org/model').head}"
    assert command.run(pinned, target).code == 0
    done = Odd(command, as_nobody()).run(pinned, target)
    assert done.code == 0, done.said


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o000], ids=oct)
def test_modes_follow_the_umask(command: Command, target: Path, files: Files, mask: int) -> None:
    shell = ["sh", "-c", f'umask {mask:03o} && exec "$@"', "sh"]
    done = Odd(command, shell).run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    for path in [target, *target.rglob("*")]:
        most = 0o777 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == most & ~mask, path


# --- what a process is given ----------------------------------------------------------------------

HOMES: dict[str, Callable[[Path], str]] = {
    "missing": lambda folder: str(folder / "none"),
    "a file": lambda folder: str(_file(folder / "file")),
    "empty": lambda folder: "",
    "of the kernel": lambda folder: "/proc",
}


def _file(path: Path) -> Path:
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
def test_a_home_that_is_none_is_not_needed(
    command: Command, target: Path, files: Files, tmp_path: Path, home: Callable[[Path], str]
) -> None:
    odd = Odd(command, without=("HF_HOME",))
    done = odd.run(URI, target, HOME=home(tmp_path))
    assert done.code == 0, done.said
    assert_snapshot(target, files)


def test_a_home_that_is_read_only_is_left_alone(
    command: Command, target: Path, files: Files
) -> None:
    need_root("unshare", "mount")
    mount = 'mount --bind "$HOME" "$HOME" && mount -o remount,bind,ro "$HOME" && exec "$@"'
    odd = Odd(command, ["unshare", "--mount", "sh", "-c", mount, "sh"], without=("HF_HOME",))
    done = odd.run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)
    assert not list(command.home.iterdir())


@pytest.mark.parametrize("shm", ["umount /dev/shm", "mount -t tmpfs -o ro,size=4k none /dev/shm"])
def test_no_memory_is_shared_by_name(
    command: Command, target: Path, files: Files, shm: str
) -> None:
    need_root("unshare", "mount")
    odd = Odd(command, ["unshare", "--mount", "sh", "-c", f'{shm}; exec "$@"', "sh"])
    done = odd.run(URI, target)
    assert done.code == 0, done.said
    assert_snapshot(target, files)


def test_sixty_four_descriptors_are_enough(
    hub: HubServer, command: Command, target: Path, pool: bytes
) -> None:
    files: Files = {
        **{f"{number:03}.json": pool[number : 2000 + number] for number in range(300)},
        **{f"{number}.safetensors": pool[number : 9 * MIB + number] for number in range(6)},
    }
    hub.add_repo("org/many", files)
    hub.pace(100e6)
    odd = Odd(command, ["prlimit", "--nofile=64:64"])
    done = odd.run("hf://org/many", target, "--connections", "16")
    assert done.code == 0, done.said
    assert_snapshot(target, files)


@pytest.mark.parametrize("most", [9, 16, 24])
def test_too_few_descriptors_are_told(
    hub: HubServer, command: Command, target: Path, files: Files, most: int
) -> None:
    done = Odd(command, ["prlimit", f"--nofile={most}:{most}"]).run(URI, target, timeout=110)
    assert done.code in (0, 69, 73, 75), done.said
    assert done.code == 0 or said_well(done)
    assert command.run(URI, target).code == 0
    assert_snapshot(target, files)


# --- words and places -----------------------------------------------------------------------------

ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PLACES = ["with space", "Ünïcödé 模型", "quote'\"$(x)", "a\nb", "e" * 255, "%41*"]
PLACES += [os.fsdecode(b"no-text-\xfc")]


@pytest.mark.parametrize("place", PLACES, ids=ascii)
def test_a_target_of_any_name(command: Command, tmp_path: Path, place: str, hub: HubServer) -> None:
    files = {GIT: b"{}", LARGE: os.urandom(2 * MIB)}
    hub.add_repo("org/small", files)
    folder = tmp_path / place / "model"
    for words in ((), ("--json",)):
        done = command.run("hf://org/small", folder, *words)
        assert done.code == 0, done.said
    assert_snapshot(folder, files)


NAMES = {"Ünïcödé/模型.json": b"{}", "emoji-🤗.safetensors": os.urandom(2 * MIB)}


@pytest.mark.parametrize(
    ("name", "value"), [("LANG", "C"), ("LC_ALL", "POSIX"), ("LANG", "xx_YY.nonsense")]
)
def test_names_in_any_language_of_the_machine(
    hub: HubServer, command: Command, tmp_path: Path, name: str, value: str
) -> None:
    hub.add_repo("org/names", NAMES)
    target = tmp_path / "größe"
    command.environment[name] = value
    for words in ((), ("--json",)):
        done = command.run("hf://org/names", target, *words)
        assert done.code == 0, done.said
    assert_snapshot(target, NAMES)


def test_a_machine_that_insists_on_ascii(hub: HubServer, command: Command, target: Path) -> None:
    hub.add_repo("org/names", NAMES)
    command.environment.update(ASCII)
    done = command.run("hf://org/names", target)
    assert done.code in (0, 73), done.said
    if done.code == 0:
        assert_snapshot(target, NAMES)
    else:
        assert said_well(done)


def test_a_folder_that_is_gone(command: Command, tmp_path: Path, target: Path) -> None:
    """The shell stands in a folder that somebody has removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    odd = Odd(command, ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh"], folder=gone)
    done = odd.run(URI, target)
    assert done.code == 0, done.said
    gone.mkdir()
    done = odd.run(URI, "model")
    assert done.code == 2, done.said
    assert said_well(done)


# --- the network ----------------------------------------------------------------------------------


def test_over_ipv6(hub: HubServer, command: Command, target: Path, pool: bytes) -> None:
    files = {LARGE: pool[: 9 * MIB], GIT: b"{}"}
    hub.add_repo("org/six", files, lfs=lambda _: False)
    try:
        front = Front(hub.endpoint, "::1")
        front.__enter__()
    except OSError:
        lacking("there is no IPv6 here")
    with contextlib.ExitStack() as stack:
        stack.push(front.__exit__)
        done = command.run("hf://org/six", target, HF_ENDPOINT=front.url)
        assert done.code == 0, done.said
        assert any(LARGE in asked for asked in front.targets)
        assert any(GIT in asked for asked in front.targets)
    assert_snapshot(target, files)


class Names:
    """A name server: the host's name means 127.0.0.1, except when it has a bad moment."""

    def __init__(self, bad: range) -> None:
        # One of its own for each that tests at the same time.
        self.address = f"127.53.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"
        self._bad = bad
        self.asked = 0
        self.failed = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind((self.address, 53))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # Wakes the thread.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        number, self.asked = self.asked, self.asked + 1
        end = query.index(b"\0", 12) + 5
        question, (kind,) = query[12:end], struct.unpack(">H", query[end - 4 : end - 2])
        if number in self._bad:
            self.failed += 1
            return query[:2] + struct.pack(">HHHHH", 0x8182, 1, 0, 0, 0) + question
        found = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + bytes([127, 0, 0, 1])
        count = 1 if kind == 1 else 0
        return query[:2] + struct.pack(">HHHHH", 0x8180, 1, count, 0, 0) + question + found * count


@pytest.mark.parametrize("bad", [range(2), range(2, 4), range(1)], ids=["first", "later", "half"])
def test_a_name_server_with_a_bad_moment(
    hub: HubServer, command: Command, target: Path, tmp_path: Path, pool: bytes, bad: range
) -> None:
    need_root("unshare", "mount")
    files = {LARGE: pool[: 9 * MIB], GIT: b"{}"}
    hub.add_repo("org/named", files, lfs=lambda _: False)
    resolver, switch = tmp_path / "resolv.conf", tmp_path / "nsswitch.conf"
    names = Names(bad)
    resolver.write_text(f"nameserver {names.address}\noptions timeout:1 attempts:1\n")
    switch.write_text("hosts: files dns\n")
    words = f"mount --bind {resolver} /etc/resolv.conf && mount --bind {switch} /etc/nsswitch.conf"
    odd = Odd(command, ["unshare", "--mount", "sh", "-c", f'{words} && exec "$@"', "sh"])
    endpoint = f"http://hub.test:{urlsplit(hub.endpoint).port}"
    try:
        names.__enter__()
    except OSError:
        lacking("no name server can be started here")
    with contextlib.ExitStack() as stack:
        stack.push(names.__exit__)
        done = odd.run("hf://org/named", target, HF_ENDPOINT=endpoint)
    assert done.code == 0, done.said
    assert names.failed
    assert_snapshot(target, files)


# --- a clock that jumps ---------------------------------------------------------------------------

JUMPS = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int jumps;
int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += jumps++ % 2 ? 86400 : -86400;
    return result;
}
time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *to, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.fixture(scope="session")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that lets the clock on the wall jump by two days at every look."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        lacking("a C compiler of Linux is needed for a clock that jumps")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "jumps.c").write_text(JUMPS)
    _system("cc", "-shared", "-fPIC", "-o", folder / "jumps.so", folder / "jumps.c")
    look = "import time; print(abs(time.time() - time.time()) > 1e5)"
    told = subprocess.run(
        [sys.executable, "-c", look],
        env={"LD_PRELOAD": str(folder / "jumps.so")},
        capture_output=True,
        text=True,
        check=False,
    )
    if told.stdout != "True\n":
        lacking("the clock of this Python cannot be made to jump")
    return folder / "jumps.so"


def test_a_clock_that_jumps_changes_nothing(
    hub: HubServer, command: Command, target: Path, files: Files, jumping: Path
) -> None:
    hub.fault(faults.Reset(), path=LARGE, at=5 * MIB)
    hub.fault(faults.Status(429, retry_after=1), path="tree", where="api")
    hub.pace(20e6)
    first = command.start(URI, target, LD_PRELOAD=str(jumping))
    hub.wait_for_bytes(6 * MIB)
    second = command.start(URI, target, LD_PRELOAD=str(jumping))
    done = [first.finish(), second.finish()]
    assert [each.code for each in done] == [0, 0], done[0].said + done[1].said
    assert max(each.fair_seconds for each in done) < 20
    assert_snapshot(target, files)
    assert hub.bytes_sent() < total_size(files) + AGAIN_MIB * MIB
