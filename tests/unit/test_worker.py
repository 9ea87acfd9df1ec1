"""A native engine in a child process: heard, ended, never left behind, and its end is told."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aim_downloader.errors import (
    DownloadError,
    EngineEndedError,
    EngineOutOfMemoryError,
    ProtocolUnavailableError,
)
from aim_downloader.linux import oom_kills, process_start
from aim_downloader.worker import Worker
from tests.fair_time import fair_time
from tests.kernel_memory import NoGroupError, memory_group

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
WAIT_S = 20.0
HOLD = {"do": "hold"}

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")


class Engine:
    """A worker, and what its child has said."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    async def start(self, module: str = "script", **environ: str) -> Worker:
        self.worker = await Worker.start(
            f"tests.engines.{module}", environ=environ, on_message=self._hear
        )
        return self.worker

    def _hear(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        self._news.set()

    def order(self, do: str, **more: Any) -> None:
        self.worker.send({"do": do, **more})

    async def told(self, key: str) -> Any:
        """What it says under this name, as soon as it does."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = [message[key] for message in self.heard if key in message]
                if found:
                    return found[0]
                self._news.clear()
                await self._news.wait()

    async def end(self) -> DownloadError:
        """Waits until it has ended by itself."""
        async with asyncio.timeout(WAIT_S):
            return await asyncio.shield(self.worker.ended)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    yield engine
    if hasattr(engine, "worker"):
        assert await engine.worker.end()


def about(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


def children() -> set[int]:
    """The processes that this one has started, zombies too."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for each in lists for pid in each.read_text().split()}


@pytest.fixture
def nobody_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


class Process:
    """A process by pid and start: another may get its pid."""

    def __init__(self, pid: int) -> None:
        self.pid, self._start = pid, process_start(pid)

    @property
    def lives(self) -> bool:
        with contextlib.suppress(OSError):
            state = about(self.pid, "stat").rpartition(")")[2].split()[0]
            return state != "Z" and process_start(self.pid) == self._start
        return False

    def wait_for_end(self, within: float = WAIT_S) -> None:
        deadline = time.monotonic() + within
        while self.lives:
            assert time.monotonic() < deadline, f"{self.pid} is left"
            time.sleep(0.01)


# -- to and fro ------------------------------------------------------------------------------------


async def test_orders_go_and_messages_come_in_turn(engine: Engine) -> None:
    await engine.start()
    for number in range(200):
        engine.order("echo", number=number, words="Zurück\n\udcff")
    engine.order("echo", done=True)
    await engine.told("done")
    said = [message["number"] for message in engine.heard if "number" in message]
    assert said == list(range(200))
    assert engine.heard[1]["words"] == "Zurück\n\udcff"


@pytest.mark.timeout(30)
async def test_much_goes_both_ways_though_the_child_does_not_listen(engine: Engine) -> None:
    """More than a pipe holds, and nobody waits for it."""
    await engine.start()
    child = await engine.told("pid")
    os.kill(child, signal.SIGSTOP)
    for number in range(8):
        engine.order("echo", number=number, filler="x" * (MIB - 100))
    os.kill(child, signal.SIGCONT)
    engine.order("echo", done=True)
    await engine.told("done")
    lengths = [len(message["filler"]) for message in engine.heard if "filler" in message]
    assert lengths == [MIB - 100] * 8


async def test_lines_of_many_threads_stay_whole(engine: Engine) -> None:
    await engine.start()
    engine.order("crowd", threads=4, lines=20, length=30_000)
    engine.order("echo", done=True)
    await engine.told("done")
    said = [(each["thread"], each["line"]) for each in engine.heard if "thread" in each]
    assert sorted(said) == [(thread, line) for thread in range(4) for line in range(20)]


async def test_a_library_that_prints_and_reads_does_not_meddle(engine: Engine) -> None:
    await engine.start()
    engine.order("chatter")
    engine.order("echo", done=True)
    assert await engine.told("done")
    assert engine.heard[1:] == [{"read": ""}, {"done": True}]


async def test_an_order_to_one_that_has_ended_is_heard_by_nobody(engine: Engine) -> None:
    worker = await engine.start()
    engine.order("leave", code=0)
    for _ in range(50):
        engine.order("echo", filler="x" * 10_000)
        await asyncio.sleep(0.002)
    await engine.end()
    engine.order("echo", number=1)
    assert await worker.end()


async def test_the_package_and_nothing_of_the_current_folder_is_run(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trap in ("json.py", "aim_downloader.py", "tests.py"):
        (tmp_path / trap).write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    await engine.start()
    assert await engine.told("pid")


def test_the_child_is_of_the_package_that_the_current_folder_holds(tmp_path: Path) -> None:
    for package in ("aim_downloader", "tests/engines"):
        shutil.copytree(ROOT / package, tmp_path / package)
    orders = ['{"do": "where"}', '{"do": "leave", "code": 0}']
    script = f"""
import runpy, sys
sys.argv[1:] = {orders}
runpy.run_module("tests.engines.parent", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[1]) == {"where": str(tmp_path / "aim_downloader")}


@linux_only
async def test_no_token_is_in_the_childs_environment(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN"):
        monkeypatch.setenv(name, "hf_a_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:1")
    await engine.start(ADDED="this")
    environ = about(await engine.told("pid"), "environ").split("\0")
    assert "hf_a_secret" not in str(environ)
    assert {"HTTPS_PROXY=http://proxy.test:1", "ADDED=this"} < set(environ)


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"do": "leave", "code": 0}, "ended by itself, with exit code 0"),
        (
            {"do": "leave", "code": 3, "words": "first\nlast words\n\n"},
            "ended by itself, with exit code 3: last words",
        ),
        ({"do": "fail", "words": "no luck"}, "with exit code 1: RuntimeError: no luck"),
        ({"do": "signal", "number": signal.SIGKILL}, "was ended by SIGKILL"),
        ({"do": "signal", "number": signal.SIGTERM}, "was ended by SIGTERM"),
        ({"do": "crash"}, "was ended by SIGSEGV"),
    ],
    ids=lambda value: value.get("do") if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("nobody_left")
async def test_an_engine_that_ends_says_how(
    engine: Engine, order: dict[str, Any], words: str
) -> None:
    worker = await engine.start()
    engine.order("echo", before=True)
    worker.send(order)
    error = await engine.end()
    assert type(error) is EngineEndedError
    assert str(error).startswith("the script engine ")
    assert str(error).endswith(words)
    assert {"before": True} in engine.heard


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("GET https://u.test/x?sig=SECRET: 403", "GET https://u.test/x?… 403"),
        ("by http://me:SECRET@proxy.test:1/ not", "by http:… not"),
        ("s3://bucket/key?SECRET", "s3:…"),
        ("authorization: Bearer SECRET", "authorization: …"),
        ("for hf_SECRETandmuchmore", "for …"),
        (f'query: Some("Signature={"a1" * 20}SECRET")', 'query: Some("…")'),
        ("steers \x1b[2Jthe terminal", "steers [2Jthe terminal"),
        ("hf_transfer is fine", "hf_transfer is fine"),
        ("w " * 400, "w " * 150),
        # Its beginning is lost, and with it what a secret would be known by.
        ("https://u.test/" + "?SECRET " * 1000, ""),
    ],
)
async def test_last_words_show_no_secret(engine: Engine, said: str, shown: str) -> None:
    await engine.start()
    engine.order("leave", code=1, words=f"before\n{said}")
    words = str(await engine.end()).partition("exit code 1")[2]
    assert words == (f": {shown}" if shown else "")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Hello, World\n", "sent what is no message"),
        ("[1]\n", "sent what is no message"),
        ("\xff\n", "sent what is no message"),
        ("[" * 100_000 + "\n", "sent what is no message"),
        ("x" * 100_000 * 11, "sent a line without an end"),
    ],
    ids=["words", "list", "bytes", "deep", "long"],
)
@pytest.mark.usefixtures("nobody_left")
async def test_garbage_ends_the_engine(
    engine: Engine, tmp_path: Path, output: str, words: str
) -> None:
    file = tmp_path / "output"
    file.write_text(output, encoding="latin-1")
    await engine.start("rude", RUDE=str(file))
    error = await engine.end()
    assert (type(error), str(error)) == (EngineEndedError, f"the rude engine {words}")
    assert engine.heard == []


@pytest.mark.parametrize(
    ("orders", "words", "hint"),
    [
        (["no_such_engine.parts"], "no_such_engine is not installed", "pip install no_such_engine"),
        (["tests.engines.broken"], "it cannot be loaded: cannot import name", "install it anew"),
    ],
)
async def test_an_engine_that_is_not_to_be_had_is_unavailable(
    engine: Engine, orders: list[str], words: str, hint: str
) -> None:
    await engine.start()
    for name in orders:
        engine.order("load", name=name)
    error = await engine.end()
    assert isinstance(error, ProtocolUnavailableError)
    assert str(error).startswith(f"the script engine cannot be used: {words}")
    assert error.hint == hint


@pytest.mark.usefixtures("nobody_left")
async def test_a_child_that_cannot_begin_makes_the_protocol_unavailable(engine: Engine) -> None:
    with pytest.raises(ProtocolUnavailableError, match="No module named"):
        await engine.start("nowhere")


async def test_a_child_that_cannot_be_spawned_makes_the_protocol_unavailable(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ProtocolUnavailableError, match="cannot be started: No such file"):
        await engine.start()


# -- we end it -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nobody_left")
@pytest.mark.parametrize("orders", [[], [HOLD], [{"do": "sleep", "seconds": 60}]])
async def test_it_is_ended_at_once_whatever_it_does(
    engine: Engine, orders: list[dict[str, Any]]
) -> None:
    worker = await engine.start()
    child = Process(await engine.told("pid"))
    for order in orders:
        worker.send(order)
    if HOLD in orders:
        await engine.told("holding")
    begun = fair_time()
    assert await worker.end()
    assert fair_time() - begun < 5
    assert not child.lives
    assert str(worker.ended.result()) == "the script engine was ended"
    assert await worker.end()


@pytest.mark.usefixtures("nobody_left")
@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_a_cancel_while_it_is_ended_leaves_nothing(engine: Engine, cancels: int) -> None:
    worker = await engine.start()
    child = Process(await engine.told("pid"))
    task = asyncio.create_task(worker.end())
    await asyncio.sleep(0)
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not child.lives


@pytest.mark.parametrize("after", [0, 0.005, 0.02, 0.04, 0.06])
async def test_a_start_that_is_cancelled_leaves_nothing(after: float) -> None:
    before = children()
    begin = Worker.start("tests.engines.script", environ={}, on_message=lambda _: None)
    task = asyncio.create_task(begin)
    await asyncio.sleep(after)
    task.cancel()
    worker = (await asyncio.gather(task, return_exceptions=True))[0]
    if isinstance(worker, Worker):
        await worker.end()
    assert children() <= before


@pytest.mark.usefixtures("nobody_left")
@pytest.mark.parametrize("about_to_end_it", [False, True])
def test_a_loop_that_closes_leaves_nothing(about_to_end_it: bool) -> None:
    async def forgets() -> tuple[Process, Worker, object]:
        engine = Engine()
        worker = await engine.start()
        child = Process(await engine.told("pid"))
        ending = asyncio.create_task(worker.end()) if about_to_end_it else None
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return child, worker, ending

    child, worker, _ = asyncio.run(forgets())
    assert worker.ended.done()
    assert not child.lives


@pytest.mark.usefixtures("nobody_left")
@pytest.mark.parametrize("turns", range(6))
def test_a_loop_that_closes_while_it_starts_leaves_nothing(turns: int) -> None:
    async def start() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await Engine().start()

    async def leave() -> asyncio.Task[None]:
        task = asyncio.create_task(start())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    asyncio.run(leave())


# -- the parent's end ------------------------------------------------------------------------------

Orders = list[dict[str, Any]]


class Parent:
    """A program of its own with an engine."""

    def __init__(self, orders: Orders, wrapped: Callable[[list[str]], list[str]] = list) -> None:
        words = [sys.executable, "-m", "tests.engines.parent", *map(json.dumps, orders)]
        self.process = subprocess.Popen(
            wrapped(words),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.child = Process(self.told()["pid"])

    def told(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        return dict(json.loads(line))

    def finish(self) -> str:
        """What it complained of until its end."""
        return self.process.communicate(timeout=WAIT_S)[1].decode()


@pytest.fixture
def parent() -> Iterator[Callable[..., Parent]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: Any) -> Parent:
            parent = Parent(*arguments)
            stack.enter_context(parent.process)
            stack.callback(parent.process.kill)
            return parent

        yield start


@linux_only
@pytest.mark.parametrize("orders", [[], [HOLD]], ids=["idle", "holding the lock"])
def test_a_parent_that_is_killed_leaves_no_child(
    parent: Callable[..., Parent], orders: Orders
) -> None:
    started = parent(orders)
    if orders:
        assert started.told() == {"holding": True}
    started.process.kill()
    # Sooner than it would end for want of news.
    started.child.wait_for_end(within=5)


@linux_only
def test_a_child_does_not_outlive_a_silent_parent(parent: Callable[..., Parent]) -> None:
    """A suspended program may have lost its folder; one that is not is heard at all times."""
    suspended, holding, lively = parent([]), parent([HOLD]), parent([HOLD])
    assert holding.told() == lively.told() == {"holding": True}
    begun = time.monotonic()
    for each in (suspended, holding):
        each.process.send_signal(signal.SIGSTOP)
    for each in (suspended, holding):
        each.child.wait_for_end()
    assert time.monotonic() - begun > 5
    time.sleep(2.5)
    assert lively.child.lives
    suspended.process.send_signal(signal.SIGCONT)
    told = suspended.told()
    assert told["kind"] == "EngineSuspendedError"
    assert "had not heard from this program for too long" in told["words"]


@linux_only
def test_ctrl_c_goes_to_the_group_and_makes_no_noise(parent: Callable[..., Parent]) -> None:
    started = parent([{"do": "echo", "ready": True}])
    assert started.told() == {"ready": True}
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.finish() == ""
    assert started.process.returncode == 130
    assert not started.child.lives


async def test_ctrl_c_is_the_parents_business(engine: Engine) -> None:
    await engine.start()
    os.kill(await engine.told("pid"), signal.SIGINT)
    engine.order("echo", done=True)
    assert await engine.told("done")


# -- memory ----------------------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize(
    ("order", "kind"),
    [
        ({"do": "eat"}, EngineOutOfMemoryError),
        ({"do": "signal", "number": signal.SIGKILL}, EngineEndedError),
    ],
    ids=["memory runs out", "killed by somebody"],
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_kernels_kill_for_memory_is_told_from_another(
    parent: Callable[..., Parent], version: int, order: dict[str, Any], kind: type[Exception]
) -> None:
    try:
        with memory_group(80 * MIB, version) as group:
            started = parent([order], group.command)
            assert started.told()["kind"] == kind.__name__
            assert started.finish() == ""
            assert group.kills == (1 if kind is EngineOutOfMemoryError else 0)
    except NoGroupError as error:
        pytest.skip(str(error))


@linux_only
async def test_the_kernel_would_take_the_child_first(engine: Engine) -> None:
    await engine.start()
    pid = await engine.told("pid")
    assert about(pid, "oom_score_adj").strip() == "1000"


V1 = "32 31 0:31 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n"
V2 = "41 31 0:41 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("own", "mounts", "files", "kills"),
    [
        ("0::/a", V2, {"sys/fs/cgroup/a/memory.events": "oom 7\noom_kill 2"}, 2),
        ("0::/gone", V2, {"sys/fs/cgroup/memory.events": "oom_kill 2"}, 2),
        ("4:memory:/a", V1, {"sys/fs/cgroup/a/memory.oom_control": "oom_kill 3"}, 3),
        (
            "4:memory:/a\n0::/b",
            V1 + V2.replace("cgroup rw", "u rw", 1),
            {"sys/fs/cgroup/a/memory.oom_control": "under_oom 0\noom_kill 3"},
            3,
        ),
        # The machine's count is for want of a better one.
        (
            "0::/a",
            V2,
            {"sys/fs/cgroup/a/memory.events": "oom_kill 0", "proc/vmstat": "oom_kill 9"},
            0,
        ),
        ("0::/", V2, {"proc/vmstat": "nr_free 1\noom_kill 9\nx 2"}, 9),
        ("", "", {}, None),
    ],
)
def test_who_counts_the_kills(
    tmp_path: Path, own: str, mounts: str, files: dict[str, str], kills: int | None
) -> None:
    for name, text in {"proc/self/cgroup": own, "proc/self/mountinfo": mounts, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert oom_kills(tmp_path) == kills


# --- held up --------------------------------------------------------------------------------------


async def test_one_that_is_held_does_nothing_until_it_goes_on(engine: Engine) -> None:
    worker = await engine.start()
    worker.hold(True)
    engine.order("echo", said="yes")
    await asyncio.sleep(0.3)
    assert not any("said" in message for message in engine.heard)
    worker.hold(False)
    assert await engine.told("said") == "yes"


async def test_one_that_is_held_ends_when_it_is_told(engine: Engine) -> None:
    worker = await engine.start()
    worker.hold(True)
    assert await worker.end()
    worker.hold(False)
    assert isinstance(worker.ended.result(), EngineEndedError)
