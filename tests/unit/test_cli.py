"""The command line: what words mean, what is told, and the code it ends with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from aim_downloader import cli
from aim_downloader._version import __version__
from aim_downloader.api import CleanReport
from aim_downloader.config import Config
from aim_downloader.errors import (
    AccessDeniedError,
    AllProtocolsFailedError,
    ConfigError,
    DownloadCancelledError,
    DownloadError,
    InsufficientSpaceError,
    ProtocolUnavailableError,
    SnapshotNotFoundError,
    StalledError,
)
from aim_downloader.events import Emit, RunCancelled, RunFailed, SnapshotPublished
from aim_downloader.findings import Findings
from aim_downloader.planner import LeftOut, Plan
from aim_downloader.signals import GRACE
from aim_downloader.snapshot import Digest, ModelURI, RemoteFile, Snapshot
from tests.fair_time import fair_time

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
URI = "hf://org/model"


@dataclass
class Core:
    """A double of the core: notes what it is asked for, and fails or waits when told to."""

    error: DownloadError | None = None
    fails: str = ""
    waits: float = 0.0
    report: CleanReport = field(default_factory=lambda: CleanReport((), 0))
    findings: Findings = field(default_factory=lambda: Findings("receipt", COMMIT, 2, 2048))
    asked: list[tuple[str, str]] = field(default_factory=list)
    config: Config = field(default_factory=Config)

    async def adownload(self, uri: str, directory: Path, *, config: Config, on_event: Emit) -> Path:
        self.asked.append((uri, str(directory)))
        self.config = config
        try:
            await asyncio.sleep(self.waits)
            self._fail(uri)
        except asyncio.CancelledError:
            on_event(RunCancelled(1, 2))
            raise DownloadCancelledError("cancelled") from None
        except DownloadError as error:
            on_event(RunFailed(type(error).__name__, str(error), error.hint, error.exit_code))
            raise
        on_event(SnapshotPublished(str(directory), COMMIT, 1, 10, 10, 1.0))
        return directory

    async def plan(self, uri: str, directory: Path, *, config: Config, on_event: Emit) -> Plan:
        self.asked.append((uri, str(directory)))
        self.config = config
        self._fail()
        there, fetch = (
            RemoteFile("config.json", 10, Digest("git-sha1", "00")),
            RemoteFile("model.safetensors", 2048, Digest("sha256", "11")),
        )
        left_out = LeftOut(RemoteFile("x.pth", 99, None), "--exclude *.pth")
        snapshot = Snapshot(ModelURI.parse(uri), COMMIT, (there, fetch, left_out.file))
        return Plan(snapshot, (fetch,), (there,), (left_out,))

    async def snapshot_size(self, uri: str, *, config: Config, on_event: Emit) -> int:
        self.asked.append((uri, ""))
        self.config = config
        self._fail()
        return 2058

    async def averify(
        self, directory: Path, uri: str | None, *, remote: bool, config: Config, on_event: Emit
    ) -> Findings:
        self.asked.append(("verify", f"{directory.name} {uri} {remote}"))
        self.config = config
        self._fail()
        return self.findings

    async def arepair(
        self,
        directory: Path,
        uri: str | None,
        *,
        findings: Findings,
        config: Config,
        on_event: Emit,
    ) -> Findings:
        self.asked.append(("repair", f"{directory.name} {uri}"))
        self._fail()
        return replace(findings, damaged=(), missing=(), mended=findings.missing)

    def clean(self, directory: Path, *, on_event: Emit) -> CleanReport:
        self.asked.append(("clean", directory.name))
        return self.report

    def _fail(self, uri: str = "") -> None:
        if self.error and self.fails in uri:
            raise self.error


def run(
    *argv: str | Path, core: Core | None = None, environ: Mapping[str, str] | None = None
) -> int:
    used = core or Core()
    return cli.run([str(word) for word in argv], environ=environ or {}, load_core=lambda: used)


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environ", "asked"),
    [
        ([URI], {}, [(URI, "model")]),
        (["download", URI], {}, [(URI, "model")]),
        (["hf://gpt2@main/onnx"], {}, [("hf://gpt2@main/onnx", "gpt2")]),
        ([URI, "/cache"], {}, [(URI, "/cache")]),
        ([URI], {"TARGET_DIR": "/cache"}, [(URI, "/cache")]),
        ([URI], {"TARGET_DIR": ""}, [(URI, "model")]),
        ([URI, "here"], {"TARGET_DIR": "/cache"}, [(URI, "here")]),
        (["-q", URI, "here"], {}, [(URI, "here")]),
        (["--connections", "3", URI, "here"], {}, [(URI, "here")]),
        ([URI, "-q", "here"], {}, [(URI, "here")]),
        ([URI, "a", "hf://gpt2", "b"], {}, [(URI, "a"), ("hf://gpt2", "b")]),
        ([URI, "hf://gpt2"], {}, [(URI, "model"), ("hf://gpt2", "gpt2")]),
        (
            [URI, "cache", "hf://gpt2", "cache", "--layout", "hf-cache"],
            {},
            [(URI, "cache"), ("hf://gpt2", "cache")],
        ),
        ([URI, "--layout", "hf-cache"], {"HF_HOME": "/hf"}, [(URI, "/hf/hub")]),
        ([URI], {"HF_HOME": "/hf", "AIM_DOWNLOADER_LAYOUT": "hf-cache"}, [(URI, "/hf/hub")]),
        (["plan", URI, "--layout", "hf-cache"], {"HF_HUB_CACHE": "/hub"}, [(URI, "/hub")]),
        ([URI, "--dry-run"], {}, [(URI, "model")]),
        (["plan", URI], {}, [(URI, "model")]),
        (["plan", URI, "here"], {}, [(URI, "here")]),
        (["plan", URI], {"TARGET_DIR": "/cache"}, [(URI, "/cache")]),
        (["size", URI], {}, [(URI, "")]),
    ],
)
def test_words(words: list[str], environ: dict[str, str], asked: list[tuple[str, str]]) -> None:
    core = Core()
    assert run(*words, core=core, environ=environ) == 0
    assert core.asked == asked


def test_a_model_that_cannot_be_had_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    core = Core(error=SnapshotNotFoundError("no such model", hint="look again"), fails="gone")
    assert run("hf://org/gone", "a", URI, "b", "hf://org/gone2", "c", core=core) == 66
    assert [directory for _, directory in core.asked] == ["a", "b", "c"]
    assert capsys.readouterr().err.count("error: no such model") == 2


@pytest.mark.parametrize(
    ("flags", "setting", "value"),
    [
        ([], "connections", 16),
        (["--connections", "3"], "connections", 3),
        (["--include", "*.json", "--include", "*.txt"], "include", ("*.json", "*.txt")),
        (["--exclude", "*.pth"], "exclude", ("*.pth",)),
        (["--revision", "v1"], "revision", "v1"),
        (["--endpoint", "http://flag/"], "endpoint", "http://flag"),
        ([], "endpoint", "http://environment"),
        (["--clean"], "clean", True),
        ([], "clean", False),
        (["--prune"], "prune", True),
        (["--limit-rate", "1.5M"], "limit_rate", 1536 * 1024),
        (["--stall-timeout", "7.5"], "stall_timeout", 7.5),
        ([], "protocols", ("XET", "HF_TRANSFER")),
        (["--protocol", "http"], "protocols", ("HTTP",)),
        (["--protocol", "XET, xet,,HTTP,"], "protocols", ("XET", "XET", "HTTP")),
        (["--layout", "hf-cache"], "layout", "hf-cache"),
    ],
)
def test_flags(flags: list[str], setting: str, value: object) -> None:
    core = Core()
    assert (
        run("download", URI, *flags, core=core, environ={"HF_ENDPOINT": "http://environment"}) == 0
    )
    assert getattr(core.config, setting) == value


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "no model is named", "hf://owner/name [DIR]"),
        (["download"], "no model is named", "hf://owner/name [DIR]"),
        (["-q"], "no model is named", "hf://owner/name [DIR]"),
        (["pln", "x"], "no such command 'pln'", "--help lists"),
        (["org/model"], "no such command 'org/model'", "write hf://org/model"),
        (["hf:/org/model"], "no such command 'hf:/org/model'", "write hf://owner/name"),
        (["plan", "--inclde", "x"], "no such option '--inclde'", "plan --help lists"),
        ([URI, "--token", "hf_x"], "no such option '--token'", "download --help lists"),
        (["plan"], "missing argument 'URI'", "plan --help lists"),
        ([URI, "--connections", "x"], "'x' is not a valid integer", "download --help lists"),
        ([URI, "--connections", "0"], "it must be 1 to 256", ""),
        ([URI, "--endpoint", "hub"], "not an http(s) URL", ""),
        ([URI, "--limit-rate", "fast"], "'fast' is no number of bytes", "download --help lists"),
        ([URI, "--limit-rate", "10"], "it must be 1K or more", ""),
        ([URI, "--protocol", "XET,FTP"], "the name FTP", "are XET, HF_TRANSFER, HTTP"),
        ([URI, "--protocol", ","], "no protocol is named", "are XET, HF_TRANSFER, HTTP"),
        ([URI, "--layout", "zip"], "'zip' is not one of", "download --help lists"),
        ([URI, "a", "b"], "'b' is not a model URI", "URI DIR URI DIR"),
        ([URI, ""], "'' is not a model URI", "URI DIR URI DIR"),
        ([URI, "a", "hf://gpt2", "a"], "cannot be in one folder", "name a DIR behind each URI"),
        (["s3://bucket/x"], "s3:// is not supported yet", "hf://owner/name"),
        (["plan", "org/model"], "is not a model URI", ""),
        (["clean", "/no/such/folder"], "does not exist", "clean --help lists"),
    ],
)
def test_words_that_cannot_be_used(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    core = Core()
    assert run(*words, core=core) == 2
    told = capsys.readouterr()
    first, *rest = told.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert hint in "".join(rest)
    assert all(line.startswith("hint: ") for line in rest)
    assert told.out == ""
    assert core.asked == []


def test_a_wrong_option_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    run("plan", "--exclud", "x", URI)
    assert "--exclude" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["plan", "--help"], ["download", "-h"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 0
    assert capsys.readouterr().out.startswith("Usage: ")


# --- the token ------------------------------------------------------------------------------------


def test_token_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret\n")
    core = Core()
    flags = ("--token-file", tmp_path / "token")
    assert run(URI, *flags, core=core, environ={"HF_TOKEN": "hf_other"}) == 0
    assert core.config.token == "hf_secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"hf_secret\nhf_secret", "more than one token"),
        (b"hf_secret hf_secret", "more than one token"),
        (b"\xff\xfehf_secret", "cannot be read: not a text file"),
    ],
)
def test_token_file_that_cannot_be_used(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    assert run(URI, "--token-file", path) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "hf_secret" not in told


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("bad", hint="mend it"), 2),
        (SnapshotNotFoundError("gone", hint="look again"), 66),
        (AccessDeniedError("gated", hint="ask for access"), 77),
        (InsufficientSpaceError("full", hint="free some"), 73),
        (AllProtocolsFailedError("x", []), 69),
    ],
)
@pytest.mark.parametrize("command", ["download", "plan", "size"])
def test_errors(
    error: DownloadError, code: int, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, URI, core=Core(error=error)) == code
    told = capsys.readouterr()
    assert told.err == f"error: {error}\nhint: {error.hint}\n"
    assert told.out == ""


def test_of_several_attempts_each_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    attempts: list[tuple[str, DownloadError]] = [
        ("XET", ProtocolUnavailableError("the store cannot be reached", hint="see to it")),
        ("HF_TRANSFER", StalledError("model.bin: no byte came for 120 s\x1b[2J")),
    ]
    error = AllProtocolsFailedError("model.bin", attempts)
    assert run(URI, "--json", core=Core(error=error)) == 69
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "error: model.bin could not be downloaded in 2 attempts",
        "error: XET: the store cannot be reached",
        "error: HF_TRANSFER: no byte came for 120 s\ufffd[2J",
        "hint: see to it",
    ]
    message = json.loads(told.out)["message"]
    assert message.startswith("model.bin could not be downloaded (XET: the store cannot be")
    assert "; HF_TRANSFER: no byte came for 120 s" in message


@pytest.mark.parametrize("command", ["download", "plan", "size"])
def test_json_tells_of_a_failure_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = AccessDeniedError("gated", hint="ask for access")
    assert run(command, URI, "--json", core=Core(error=error)) == 77
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "event": "run.failed",
        "error": "AccessDeniedError",
        "message": "gated",
        "hint": "ask for access",
        "exit_code": 77,
    }


def test_json_tells_of_a_wrong_flag_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(URI, "--json", "--connections", "0") == 2
    assert json.loads(capsys.readouterr().out)["error"] == "ConfigError"


def test_errors_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    run(URI, core=Core(error=DownloadError("a\x1b[2J\nDone: all", hint="\rx")))
    assert capsys.readouterr().err == "error: a\ufffd[2J\ufffdDone: all\nhint: \ufffdx\n"


def test_a_defect_keeps_its_traceback() -> None:
    class Broken(Core):
        async def snapshot_size(self, uri: str, *, config: Config, on_event: Emit) -> int:
            raise TypeError("a defect")

    with pytest.raises(TypeError, match="a defect"):
        run("size", URI, core=Broken())


def test_download_says_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(URI) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "verified" in told.err


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(URI, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run(URI, "-q", core=Core(error=DownloadError("it broke"))) == 1
    assert capsys.readouterr().err == "error: it broke\n"


def test_size_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("size", URI) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {"url": URI, "sizeBytes": 2058}


@pytest.mark.parametrize("words", [["plan", URI], [URI, "--dry-run"]])
def test_plan(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"hf://org/model at commit {COMMIT} into model",
        "config.json            10 B  there",
        "model.safetensors     2 KiB  fetch",
        "x.pth                  99 B  left out: --exclude *.pth",
        "fetch: 1 file, 2 KiB",
        "there: 1 file, 10 B",
        "left out: 1 file, 99 B",
    ]


@pytest.mark.parametrize("words", [["plan", URI, "--json"], [URI, "--dry-run", "--json"]])
def test_plan_as_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["uri"], told["commit"]) == (URI, COMMIT)
    assert [file["action"] for file in told["files"]] == ["held", "fetch", "leftOut"]
    assert (told["bytes"], told["fetchBytes"]) == (2058, 2048)


MISSING = Findings("receipt", COMMIT, 2, 2048, missing=("x.bin",), unknown=("mine",))
ALL_RIGHT = "2 files, 2 KiB, all right\n"


@pytest.mark.parametrize(
    ("words", "findings", "code", "asked", "out", "err"),
    [
        ([], None, 0, [("verify", "{} None False")], ALL_RIGHT, ""),
        (["--remote"], None, 0, [("verify", "{} None True")], ALL_RIGHT, ""),
        ([URI], None, 0, [("verify", f"{{}} {URI} False")], ALL_RIGHT, ""),
        (
            [],
            MISSING,
            65,
            [("verify", "{} None False")],
            "missing: x.bin\n1 of 2 files in {} is not right\n",
            (
                "1 file that the receipt does not know: mine\n"
                "hint: verify {} --repair fetches what is damaged or missing\n"
            ),
        ),
        (
            ["--repair"],
            MISSING,
            0,
            [("verify", "{} None False"), ("repair", "{} None")],
            f"mended: x.bin\n0 B fetched\n{ALL_RIGHT}",
            "missing: x.bin\n1 file that the receipt does not know: mine\n",
        ),
    ],
)
def test_verify(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    findings: Findings | None,
    code: int,
    asked: list[tuple[str, str]],
    out: str,
    err: str,
) -> None:
    core = Core(findings=findings or Core().findings)
    assert run("verify", tmp_path, *words, core=core) == code
    assert core.asked == [(word, what.format(tmp_path.name)) for word, what in asked]
    told = capsys.readouterr()
    assert (told.out, told.err) == (out.format(tmp_path), err.format(tmp_path))


@pytest.mark.parametrize(
    "flags", [["--include", "*"], ["--exclude", "*"], ["--revision", "v1"], ["--format", "gguf"]]
)
def test_what_to_verify_says_the_receipt_or_a_uri(tmp_path: Path, flags: list[str]) -> None:
    assert run("verify", tmp_path, *flags) == 2
    assert run("verify", tmp_path, URI, *flags) == 0


@pytest.mark.parametrize(
    ("report", "code", "out", "err"),
    [
        (CleanReport((), 0), 0, "nothing to remove in ", ""),
        (CleanReport((Path("a"), Path("b")), 2048), 0, "removed 2 files, 2 KiB, from ", ""),
        (CleanReport((), 0, "node-7, pid 3"), 75, "", "is in use by node-7, pid 3"),
    ],
)
def test_clean(
    report: CleanReport,
    code: int,
    out: str,
    err: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    core = Core(report=report)
    assert run("clean", tmp_path, core=core) == code
    assert core.asked == [("clean", tmp_path.name)]
    told = capsys.readouterr()
    assert told.out.startswith(out)
    assert err in told.err


# --- processes ------------------------------------------------------------------------------------

# What a process of its own runs: this module's Core, on which the first word decides.
_SCRIPT = """
import os, sys, time
from tests.unit.test_cli import Core
from aim_downloader import cli

class Deaf(Core):
    async def adownload(self, uri, directory, *, config, on_event):
        print("ready", flush=True)
        time.sleep(60)

class Slow(Core):
    async def adownload(self, uri, directory, *, config, on_event):
        print("ready", flush=True)
        return await super().adownload(uri, directory, config=config, on_event=on_event)

core = Deaf() if sys.argv[1] == "deaf" else Slow(waits=60)
os._exit(cli.run(sys.argv[2:], environ={}, load_core=lambda: core))
"""


def process(words: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("kind", "number", "code"),
    [
        ("prompt", signal.SIGTERM, 143),
        ("prompt", signal.SIGINT, 130),
        ("deaf", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_it_within_two_seconds(kind: str, number: int, code: int) -> None:
    with process(["-c", _SCRIPT, kind, URI]) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        started = fair_time()
        running.send_signal(number)
        assert running.wait(10) == code
        assert fair_time() - started < 2.5  # two, and what a busy machine adds
        assert running.stderr is not None
        told = running.stderr.read()
    assert "Traceback" not in told
    assert ("Stopped at 50 %" in told) == (kind == "prompt")


def test_a_second_interrupt_ends_it_at_once() -> None:
    with process(["-c", _SCRIPT, "deaf", URI]) as running:
        assert running.stdout is not None
        running.stdout.readline()
        started = fair_time()
        running.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130
        assert fair_time() - started < GRACE


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    script = """
import os, sys
from tests.unit.test_cli import Core
from aim_downloader import cli
sys.stdin.read()
os._exit(cli.run(sys.argv[1:], environ={}, load_core=Core))
"""
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = subprocess.run(
        [sys.executable, "-c", script, "plan", URI],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_version_costs_little_more_than_the_interpreter() -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "aim_downloader", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"aim-downloader {__version__}\n"
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()
    }
    assert "aim_downloader" in imported
    assert not imported & {
        "click",
        "asyncio",
        "aiohttp",
        "rich",
        "urllib3",
        "logging",
        "json",
        "ssl",
    }


def test_the_program_ends_with_the_code_of_the_error() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "aim_downloader", "nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no such command 'nonsense'\nhint: python -m aim_downl")
