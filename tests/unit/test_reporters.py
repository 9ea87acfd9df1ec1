"""What a person or a program sees of a run: events in, text out."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from aim_downloader import events
from aim_downloader.reporters import choose
from aim_downloader.reporters.bars import shorten, told_apart
from aim_downloader.reporters.json_lines import JsonLinesReporter
from aim_downloader.reporters.log import LogReporter
from aim_downloader.reporters.plan_table import PlanRow, PlanTable
from aim_downloader.reporters.quiet import QuietReporter
from aim_downloader.reporters.screen import Terminal
from aim_downloader.reporters.sentences import sentence
from aim_downloader.reporters.terminal import TerminalReporter

GIB = 1024**3
URI = "hf://org/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LONG_NAME = "original/consolidated-with-a-name-that-goes-on-and-on-and-on.00.pth"

RESOLVED = events.SnapshotResolved(URI, COMMIT, files=15, bytes=4 * GIB)
PLANNED = events.PlanMade(
    target="/models/model",
    files=12,
    bytes=3 * GIB,
    fetch_files=10,
    fetch_bytes=2 * GIB,
    resumed_bytes=GIB // 2,
    held_files=2,
    held_bytes=GIB // 2,
    left_out_files=3,
    left_out_bytes=GIB,
    kept_files=1,
    kept_bytes=GIB // 4,
    hint="weights in 2 formats",
)
SAMPLE = events.RunProgressed(
    bytes_done=int(1.2 * GIB),
    bytes_total=int(2.8 * GIB),
    bytes_received=GIB,
    files_done=3,
    files_total=12,
    rate=210 * 1024**2,
    eta=8.2,
    connections=16,
    verifying=False,
    active=(
        events.FileProgress("model-1.safetensors", GIB, GIB // 2, GIB // 2),
        events.FileProgress(LONG_NAME, 2 * GIB, 2 * GIB, GIB),
    ),
)
PUBLISHED = events.SnapshotPublished("/models/model", COMMIT, 12, 3 * GIB, 2 * GIB, 128.0)


class Clock:
    """Time that goes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class BrokenPipe(io.StringIO):
    """A stream whose reader is gone."""

    def flush(self) -> None:
        raise BrokenPipeError


def terminal(width: int, height: int = 24) -> Terminal:
    return Terminal(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system=None,
        legacy_windows=False,
        _environ={},
    )


def written(console: Terminal) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(console: Terminal, event: events.Event) -> list[str]:
    """The lines that an event draws on an empty screen."""
    TerminalReporter(console)(event)
    return written(console).splitlines()


# --- log ------------------------------------------------------------------------------------------


def test_log_tells_a_run_in_plain_lines() -> None:
    stream = io.StringIO()
    with LogReporter(stream) as report:
        for event in (
            RESOLVED,
            PLANNED,
            events.FileStarted("model-1.safetensors", GIB, 0, "HTTP", 3, 3),
            SAMPLE,
            events.RetryScheduled("model-1.safetensors", "connection dropped", 2, 1.5),
            events.FileRejected("model-2.safetensors", "XET", "another sha256"),
            events.ProtocolSwitched("model-2.safetensors", "XET", "HTTP", "another sha256"),
            events.FileCommitted("model-1.safetensors", GIB, "sha256:00"),
            PUBLISHED,
        ):
            report(event)
    assert stream.getvalue().splitlines() == [
        "hf://org/model at commit 0123456789ab: 15 files, 4 GiB",
        (
            "To fetch into /models/model: 10 files, 2 GiB; "
            "512 MiB more of unfinished files are on disk already; "
            "already there: 2 files, 512 MiB; left out: 3 files, 1 GiB; "
            "kept, of an earlier revision: 1 file, 256 MiB; weights in 2 formats"
        ),
        "Progress: 42 % (1.20/2.80 GiB) 210 MiB/s, 0:08 left, 3/12 files",
        "Retry 2 in 1.5 s of model-1.safetensors: connection dropped",
        "Rejected model-2.safetensors as XET brought it: another sha256",
        "XET gives up, HTTP takes over model-2.safetensors: another sha256",
        (
            "Done: 12 files, 3 GiB, verified, in /models/model; "
            "2 GiB received in 2 min 8 s (16.0 MiB/s), 1 GiB already there"
        ),
    ]


def test_log_tells_progress_at_once_and_then_at_intervals() -> None:
    stream, clock = io.StringIO(), Clock()
    report = LogReporter(stream, interval=5, clock=clock)
    told = []
    for _ in range(60):
        before = len(stream.getvalue())
        report(SAMPLE)
        if len(stream.getvalue()) > before:
            told.append(clock.now)
        clock.now += 0.2
    assert told == pytest.approx([100, 105, 110])


def test_log_keeps_names_from_forging_lines() -> None:
    stream = io.StringIO()
    LogReporter(stream)(events.RetryScheduled("a\nDone: all\x1b[2J", "reset", 1, 0))
    assert stream.getvalue() == "Retry 1 now of a\ufffdDone: all\ufffd[2J: reset\n"


@pytest.mark.parametrize(
    ("sample", "line"),
    [
        (
            replace(SAMPLE, verifying=True, eta=None),
            "Progress: 42 % (1.20/2.80 GiB) verifying, 3/12 files",
        ),
        (
            replace(SAMPLE, bytes_done=SAMPLE.bytes_total - 1, eta=3723),
            "Progress: 99 % (2.80/2.80 GiB) 210 MiB/s, 1:02:03 left, 3/12 files",
        ),
        (
            replace(SAMPLE, bytes_done=0, bytes_total=0, eta=0, rate=0),
            "Progress: 100 % (0/0 B) 0 B/s, 0:00 left, 3/12 files",
        ),
    ],
)
def test_log_progress(sample: events.RunProgressed, line: str) -> None:
    stream = io.StringIO()
    LogReporter(stream)(sample)
    assert stream.getvalue() == f"{line}\n"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            events.LeaseWaiting("node-7, pid 4711", GIB, 2 * GIB, silent=1.5, patience=15.0),
            "Waiting for another run (node-7, pid 4711): 50 % (1.00/2.00 GiB)",
        ),
        (
            events.LeaseWaiting("node-7, pid 4711", GIB, 2 * GIB, silent=6.0, patience=15.0),
            (
                "Waiting for another run (node-7, pid 4711): "
                "silent for 6.0 s; at 15 s this run takes over"
            ),
        ),
        # The name of a file is said once, though the reason has it too.
        (
            events.RetryScheduled("a/b", "a/b: nothing came for 2 min", 1, 0),
            "Retry 1 now of a/b: nothing came for 2 min",
        ),
        (
            events.ProtocolSwitched("a/b", "XET", "HTTP", "a/b: the Xet store does not give it"),
            "XET gives up, HTTP takes over a/b: the Xet store does not give it",
        ),
        (
            events.ProtocolSwitched("a/b", "XET", "", "a/b: the Xet store does not give it"),
            "XET gives up a/b: the Xet store does not give it",
        ),
        (
            events.FileRejected("a/b", "XET", "a/b: another sha256"),
            "Rejected a/b as XET brought it: another sha256",
        ),
        (
            replace(PUBLISHED, commit=""),
            (
                "Done: 12 files, 3 GiB, simulated, in /models/model; "
                "2 GiB received in 2 min 8 s (16.0 MiB/s), 1 GiB already there"
            ),
        ),
        (
            events.EarlierSettled(3, GIB, 0, 0, ()),
            "3 files, 1 GiB, of an earlier revision are kept; --prune removes them",
        ),
        (
            events.EarlierSettled(1, 5, 0, 0, ()),
            "1 file, 5 B, of an earlier revision is kept; --prune removes it",
        ),
        (
            events.EarlierSettled(0, 0, 2, GIB, ("a.bin", "b.bin")),
            (
                "Removed, of an earlier revision: 2 files, 1 GiB. "
                "Kept, as changed since they were downloaded: a.bin, b.bin"
            ),
        ),
        (
            events.ConnectionsReduced(256 * 1024**2, 16, 5),
            "Memory is limited to 256 MiB here: 5 of 16 connections are used",
        ),
        (
            events.ProtocolsSkipped(("FOO", "BAR")),
            "Passed over, as no protocol has the name: FOO, BAR",
        ),
        (
            events.ProtocolLeft("XET", "the store cannot be reached"),
            "XET is left for the rest of this run: the store cannot be reached",
        ),
        (
            events.ProtocolSwitched("model.bin", "XET", "XET", "no byte came for 2 min"),
            "XET begins again with model.bin: no byte came for 2 min",
        ),
        (
            events.ProtocolSwitched("model.bin", "HTTP", "", "no byte came for 2 min"),
            "HTTP gives up model.bin: no byte came for 2 min",
        ),
        (
            events.RunCancelled(GIB, 2 * GIB),
            "Stopped at 50 % (1.00/2.00 GiB); the same command goes on from there",
        ),
        (events.RunCancelled(0, 0), "Stopped before anything was fetched"),
        (
            replace(
                PLANNED, fetch_files=0, resumed_bytes=0, left_out_files=0, kept_files=0, hint=""
            ),
            "To fetch into /models/model: nothing; already there: 2 files, 512 MiB",
        ),
        (
            replace(PUBLISHED, bytes_received=0, seconds=0.04),
            (
                "Done: 12 files, 3 GiB, complete, in /models/model; "
                "0 B received in 0.0 s, 3 GiB already there"
            ),
        ),
    ],
)
def test_log_lines(event: events.Event, line: str) -> None:
    stream = io.StringIO()
    LogReporter(stream)(event)
    assert stream.getvalue() == f"{line}\n"


# --- JSON -----------------------------------------------------------------------------------------


def test_json_lines_are_the_events() -> None:
    stream = io.StringIO()
    with JsonLinesReporter(stream) as report:
        for event in (RESOLVED, PLANNED, SAMPLE, PUBLISHED):
            report(event)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in told] == [
        "snapshot.resolved",
        "plan.made",
        "run.progressed",
        "snapshot.published",
    ]
    assert told[0] == {
        "event": "snapshot.resolved",
        "uri": URI,
        "commit": COMMIT,
        "files": 15,
        "bytes": 4 * GIB,
    }
    assert told[2]["active"][1]["path"] == LONG_NAME


@pytest.mark.parametrize(
    "end", [PUBLISHED, events.RunFailed("E", "m", "", 1), events.RunCancelled(1, 2)]
)
def test_json_samples_are_throttled_but_for_the_last(end: events.Event) -> None:
    stream, clock = io.StringIO(), Clock()
    report = JsonLinesReporter(stream, clock=clock)
    for done in range(12):
        report(replace(SAMPLE, bytes_done=done))
        report(events.FileSkipped("config.json", 1))
        clock.now += 0.2
    report(end)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    samples = [line["bytes_done"] for line in told if line["event"] == "run.progressed"]
    assert samples == [0, 5, 10, 11]
    assert told[-1]["event"] == end.name


# --- terminal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_bars_fill_the_width_and_no_more(width: int) -> None:
    lines = drawn(terminal(width), SAMPLE)
    assert [len(line) for line in lines] == [width] * 3
    total, large, small = lines
    assert total.startswith("3/12 files  ━")
    assert total.endswith("210 MiB/s   0:08 left   42 %  1.20/2.80 GiB")
    assert large.startswith("  original/consol")
    assert large.endswith(" 50 %      verifying")
    assert small.startswith("  model-1.safetensors  ")
    assert small.endswith(" 50 %  0.50/1.00 GiB")


def test_long_names_lose_their_middle_where_they_must() -> None:
    assert "…" in drawn(terminal(80), SAMPLE)[1]
    assert f"  {LONG_NAME}  ━" in drawn(terminal(160), SAMPLE)[1]


@pytest.mark.parametrize("width", [20, 30, 47, 48, 59, 60, 71, 72, 100, 200])
def test_bars_never_fold(width: int) -> None:
    assert all(len(line) <= width for line in drawn(terminal(width), SAMPLE))


def test_bars_show_the_largest_files_that_the_height_allows() -> None:
    active = tuple(events.FileProgress(f"{n}.bin", n * GIB, 1, 1) for n in range(1, 10))
    sample = replace(SAMPLE, active=active)
    tall, low, tiny = (drawn(terminal(80, height), sample) for height in (24, 6, 3))
    assert [line.split()[0] for line in tall[1:-1]] == [f"{n}.bin" for n in (9, 8, 7, 6, 5, 4)]
    assert tall[-1] == "  and 3 more"
    assert [line.split()[0] for line in low[1:]] == ["9.bin", "8.bin", "7.bin", "and"]
    assert len(tiny) == 1


def test_a_whole_run_leaves_its_story_and_no_bars() -> None:
    console = terminal(200)
    with TerminalReporter(console) as report:
        for event in (
            RESOLVED,
            PLANNED,
            SAMPLE,
            events.RetryScheduled("model-1.safetensors", "connection dropped", 2, 1.5),
            SAMPLE,
            events.ProtocolsSkipped(("FOO",)),
            events.ProtocolSwitched("model.bin", "XET", "HTTP", "another sha256"),
            events.ProtocolLeft("XET", "not installed"),
            events.EarlierSettled(1, GIB, 0, 0, ()),
            PUBLISHED,
        ):
            report(event)
    assert seen(written(console)) == [
        "hf://org/model at commit 0123456789ab: 12 files, 3 GiB",
        (
            "into /models/model; 512 MiB more of unfinished files are on disk already; "
            "already there: 2 files, 512 MiB; left out: 3 files, 1 GiB; "
            "kept, of an earlier revision: 1 file, 256 MiB"
        ),
        "weights in 2 formats",
        "Retry 2 in 1.5 s of model-1.safetensors: connection dropped",
        "Passed over, as no protocol has the name: FOO",
        "XET gives up, HTTP takes over model.bin: another sha256",
        "XET is left for the rest of this run: not installed",
        "1 file, 1 GiB, of an earlier revision is kept; --prune removes it",
        (
            "✓ 12 files, 3 GiB, verified, in /models/model; "
            "2 GiB received in 2 min 8 s (16.0 MiB/s), 1 GiB already there"
        ),
    ]


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (events.RunFailed("StorageError", "disk full", "free some", 73), "Stopped at 42 % (1.20/"),
        (events.RunCancelled(GIB, 2 * GIB), "Stopped at 50 % (1.00/2.00 GiB); the same command"),
    ],
)
def test_a_run_that_ends_early_says_how_far_it_came(end: events.Event, line: str) -> None:
    console = terminal(80)
    with TerminalReporter(console) as report:
        report(SAMPLE)
        report(end)
    (told,) = seen(written(console))
    assert told.startswith(line)


def test_bars_go_when_the_run_breaks() -> None:
    console = terminal(80)
    report = TerminalReporter(console)
    report(SAMPLE)
    report.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert seen(written(console)) == []


def test_a_narrower_window_is_wiped_by_the_rows_that_it_folds_into() -> None:
    console = terminal(120)
    report = TerminalReporter(console)
    report(SAMPLE)
    console.width = 50
    before = len(written(console))
    report(SAMPLE)
    # Three lines of 120 cells fill nine rows of 50.
    assert written(console)[before:].count("\x1b[1A\x1b[2K") == 9


def seen(text: str) -> list[str]:
    """What is on the screen in the end, by the one movement of the cursor that is used."""
    screen = [""]
    for piece in text.replace("\r", "").split("\n"):
        up = piece.count("\x1b[1A\x1b[2K")
        if up:
            del screen[-1 - up :]
            screen.append("")
        screen[-1] += piece.replace("\x1b[1A\x1b[2K", "")
        screen.append("")
    return [line for line in screen if line]


@pytest.mark.parametrize(
    ("names", "width", "told"),
    [
        (["a.json", "b.json"], 10, ["a.json", "b.json"]),
        (
            ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "vocab.json"],
            16,
            ["…00001…", "…00002…", "vocab.json"],
        ),
        (["unet/model.safetensors", "unet/other.safetensors"], 10, ["…model…", "…other…"]),
        (["left/model.safetensors", "right/a.json"], 12, ["left/m…nsors", "right/a.json"]),
    ],
)
def test_names_that_would_look_alike_are_told_apart(
    names: list[str], width: int, told: list[str]
) -> None:
    assert told_apart(names, width) == told


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("model.safetensors", 17, "model.safetensors"),
        ("model.safetensors", 11, "model…nsors"),
        ("model.safetensors", 4, "mo…s"),
        ("model.safetensors", 2, "mo"),
        ("model.safetensors", 0, ""),
        ("模型模型模型", 12, "模型模型模型"),
        ("模型模型模型", 9, "模型…模型"),
    ],
)
def test_shorten(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short


# --- all ------------------------------------------------------------------------------------------


def test_a_reader_that_is_gone_ends_no_run() -> None:
    for report in (LogReporter(BrokenPipe()), JsonLinesReporter(BrokenPipe())):
        report(RESOLVED)
        report(PUBLISHED)
    console = terminal(80)
    console.file = BrokenPipe()
    with TerminalReporter(console) as on_terminal:
        on_terminal(SAMPLE)
        on_terminal(PUBLISHED)


@pytest.mark.parametrize(
    ("json_wanted", "quiet", "on_terminal", "kind"),
    [
        (True, True, True, JsonLinesReporter),
        (False, True, True, QuietReporter),
        (False, False, True, TerminalReporter),
        (False, False, False, LogReporter),
    ],
)
def test_choose(json_wanted: bool, quiet: bool, on_terminal: bool, kind: type) -> None:
    with choose(json=json_wanted, quiet=quiet, terminal=on_terminal) as reporter:
        assert isinstance(reporter, kind)


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with QuietReporter() as report:
        report(PUBLISHED)
    assert capfd.readouterr() == ("", "")


# --- plan -----------------------------------------------------------------------------------------

PLAN = PlanTable(
    uri=URI,
    commit=COMMIT,
    target="model",
    rows=[
        PlanRow("config.json", 700, "there", digest="git-sha1:00"),
        PlanRow("model.safetensors", 3 * GIB, "fetch", digest="sha256:00"),
        PlanRow("original/x.pth", 5 * GIB, "left out", "--exclude *.pth", "sha256:11"),
    ],
    fetch_bytes=2 * GIB,
    resumed_bytes=GIB,
    needed_bytes=2 * GIB,
    free_bytes=GIB,
    shortage="9 inodes free and 10 are needed: 1 are missing",
)


def test_plan_as_text() -> None:
    assert PLAN.as_text().splitlines() == [
        f"hf://org/model at commit {COMMIT} into model",
        "config.json           700 B  there",
        "model.safetensors     3 GiB  fetch",
        "original/x.pth        5 GiB  left out: --exclude *.pth",
        "fetch: 1 file, 2 GiB (1 GiB more of it is on disk already)",
        "there: 1 file, 700 B",
        "left out: 1 file, 5 GiB",
        "does not fit: model has 9 inodes free and 10 are needed: 1 are missing",
    ]


def test_of_many_files_the_first_are_named() -> None:
    changed = tuple(f"{number}.bin" for number in range(1000))
    told = "ept, as changed since they were downloaded: 0.bin, 1.bin, 2.bin and 997 more"
    assert replace(PLAN, changed=changed).totals[-1] == f"k{told}"
    assert sentence(events.EarlierSettled(0, 0, 0, 0, changed)) == f"K{told}"


def test_plan_as_json() -> None:
    told = json.loads(PLAN.as_json())
    assert told["files"][0] == {
        "path": "config.json",
        "size": 700,
        "action": "held",
        "digest": "git-sha1:00",
    }
    assert told["files"][2]["reason"] == "--exclude *.pth"
    assert told["shortage"] == PLAN.shortage
    assert [file["action"] for file in told["files"]] == ["held", "fetch", "leftOut"]
    sizes = {key: value for key, value in told.items() if key.lower().endswith("bytes")}
    assert sizes == {
        "bytes": 3 * GIB + 700,
        "fetchBytes": 2 * GIB,
        "heldBytes": 700,
        "leftOutBytes": 5 * GIB,
        "keptBytes": 0,
        "removeBytes": 0,
        "neededBytes": 2 * GIB,
        "freeBytes": GIB,
    }


MOVED = replace(
    PLAN,
    rows=[
        PlanRow("a.bin", 5, "kept", "of an earlier revision"),
        PlanRow("b.bin", 6, "remove", "of an earlier revision"),
        PlanRow("c.bin", GIB, "fetch", "replaces a file that differs"),
    ],
    fetch_bytes=0,
    needed_bytes=0,
    resumed_bytes=0,
    shortage="",
    hint="weights in 2 formats",
    changed=["d.bin", "forged\nline"],
)


def test_plan_of_a_branch_that_moved_as_text() -> None:
    assert MOVED.as_text().splitlines()[1:] == [
        "a.bin       5 B  kept: of an earlier revision",
        "b.bin       6 B  remove: of an earlier revision",
        "c.bin     1 GiB  fetch: replaces a file that differs",
        "fetch: 1 file, 0 B",
        "kept: 1 file, 5 B; --prune removes it",
        "remove: 1 file, 6 B",
        "kept, as changed since they were downloaded: d.bin, forged\N{REPLACEMENT CHARACTER}line",
        "weights in 2 formats",
    ]


def test_plan_of_a_branch_that_moved_as_json() -> None:
    told = json.loads(MOVED.as_json())
    assert [file["action"] for file in told["files"]] == ["kept", "remove", "fetch"]
    assert (told["keptBytes"], told["removeBytes"], told["bytes"]) == (5, 6, GIB)
    assert told["changed"] == ["d.bin", "forged\nline"]
    assert told["hint"] == "weights in 2 formats"


def test_plan_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    PLAN.print()
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1].split() == ["file", "size", "what", "happens"]
    assert lines[4].split(maxsplit=3) == ["original/x.pth", "5", "GiB", "left out: --exclude *.pth"]
    assert lines[-1] == "does not fit: model has 9 inodes free and 10 are needed: 1 are missing"
