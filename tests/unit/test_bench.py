"""The bench: its arithmetic, its tables, and that it works at all. What it measures is no test."""

import importlib.util
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from bench.board import Board
from bench.contenders import HF, Aria2, Contender, Curl, HfDownload, HfTransfer, Ours, Task
from bench.content import MIB, Model, joined, small, sparse, weights
from bench.measure import BenchError, Sample, measure
from bench.operator import Run
from bench.operator import shown as told
from bench.origin import NGINX, PROJECT, Hub
from bench.paired import Spread, alternate, cpu, fastest, paired_ratios, spread, wall_and_check
from bench.picture import Bar, bars, drawn
from bench.result import Number, Series
from bench.store import store
from bench.table import numbers_table, replaced, series_table, series_tables
from bench.timeline import Line, Panel, rounded_up
from bench.timeline import drawn as timeline
from tests.xet.need import need_server


def sample(wall: float = 1.0, cpu: float = 1.0, check: float | None = None) -> Sample:
    return Sample(wall, cpu, 10 * MIB, check=check)


def number(value: Spread, goal: float | None = 1.3, unit: str = "") -> Number:
    return Number("P3", "a case", "2.00 s", "curl 2.00 s", value, goal, unit)


# --- pairs ----------------------------------------------------------------------------------------


def test_contenders_take_turns_after_a_warm_up() -> None:
    order: list[str] = []

    def run(name: str) -> Sample:
        order.append(name)
        return sample(wall=len(order))

    runs = alternate({"a": lambda: run("a"), "b": lambda: run("b")}, 2)
    assert "".join(order) == "ab" + "abab"
    assert [one.wall for one in runs["a"]] == [3, 5]
    assert [one.wall for one in runs["b"]] == [4, 6]


def test_a_single_run_has_no_warm_up() -> None:
    runs = alternate({"a": iter([sample(wall=1), sample(wall=2)]).__next__}, 1)
    assert [one.wall for one in runs["a"]] == [1]


def test_spread_has_the_median_and_the_bounds() -> None:
    assert spread([3, 1, 2]) == Spread(2, 1, 3)
    assert spread([4, 1, 2, 3]) == Spread(2.5, 1, 4)
    assert spread([7]) == Spread(7, 7, 7)


def test_ratios_are_taken_round_by_round() -> None:
    # The medians alone would say 1.0: the second round was slow for both.
    ours = [sample(1), sample(9), sample(2)]
    theirs = [sample(2), sample(6), sample(1)]
    assert paired_ratios(ours, theirs) == [0.5, 1.5, 2.0]


def test_ratios_of_other_things_than_the_wall() -> None:
    ours = [sample(wall=3, cpu=1)]
    theirs = [sample(wall=2, cpu=4, check=4)]
    assert paired_ratios(ours, theirs, cpu) == [0.25]
    assert paired_ratios(ours, theirs, against=wall_and_check) == [0.5]


def test_runs_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([sample()], [sample(), sample()])


def test_fastest_goes_by_the_median() -> None:
    assert fastest({"lucky": [sample(1), sample(9), sample(9)], "steady": [sample(5)] * 3}) == (
        "steady"
    )


# --- numbers --------------------------------------------------------------------------------------


def board() -> Board:
    runs = {"ours": [sample(2), sample(3)], "peer": [sample(4, check=4), sample(4, check=2)]}
    return Board("large", runs, "Large")


def test_a_duel_keeps_the_ratios_that_it_came_from() -> None:
    found = board()
    found.duel("P2", "plain", "ours", "peer", 1.25)
    found.duel("P1", "checked", "ours", "peer", 0.7, against=wall_and_check, then=", verified:")
    assert [(one.id, one.ours, one.against, one.value) for one in found.numbers] == [
        ("P2", "2.50 s", "peer 4.00 s", Spread(0.625, 0.5, 0.75)),
        ("P1", "2.50 s", "peer, verified: 7.00 s", Spread(0.375, 0.25, 0.5)),
    ]
    ours, peer = found.outcome(verifying=["ours"]).series
    assert ours.facts == {"P2": [0.5, 0.75], "P1": [0.25, 0.5]}
    assert (ours.verifies, peer.verifies, peer.facts) == (True, False, {})
    assert (peer.case, peer.title) == ("large", "Large")


def test_memory_may_be_told_without_a_goal() -> None:
    found = board()
    found.peak("P10", "memory", "ours")
    found.peak("P10", "memory", "ours", 5)
    assert [(one.value.median, one.reached) for one in found.numbers] == [(10, True), (10, False)]


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "goal", "unit", "cells"),
    [
        (Spread(1.25, 1.1, 1.4), 1.3, "", ["1.25 (1.10 to 1.40)", "≤ 1.30", "reached"]),
        (Spread(1.3, 1.3, 1.3), 1.3, "", ["1.30", "≤ 1.30", "reached"]),
        (Spread(1.31, 1.1, 1.4), 1.3, "", ["1.31 (1.10 to 1.40)", "≤ 1.30", "**missed**"]),
        (Spread(52.4, 51, 53), 160, "MiB", ["52 MiB (51 to 53)", "≤ 160 MiB", "reached"]),
        (Spread(52.4, 52.4, 52.4), None, "MiB", ["52 MiB", "", ""]),
        (Spread(0, 0, 0), 0, "", ["0", "none", "reached"]),
        (Spread(3, 3, 3), 0, "", ["3", "none", "**missed**"]),
    ],
)
def test_each_number_is_held_against_its_goal(
    value: Spread, goal: float | None, unit: str, cells: list[str]
) -> None:
    row = numbers_table([number(value, goal, unit)]).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[5:-1]] == cells


def test_tables_line_up() -> None:
    lines = numbers_table([number(Spread(1, 1, 1)), number(Spread(10, 9, 11))]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == {"|", "-"}


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_series_leave_out_what_was_not_measured() -> None:
    samples = [Sample(2.0, 3.0, 20 * MIB, sent=5 * MIB), Sample(4.0, 5.0, 30 * MIB, sent=5 * MIB)]
    others = [Series("P3", "curl", samples), Series("P4", "wget", [sample()])]
    assert rows(series_table(others)) == [
        ["Case", "Who", "Wall, s (min to max)", "CPU, s", "Peak, MiB", "Sent, MiB"],
        ["P3", "curl", "3.00 (2.00 to 4.00)", "4.00", "25", "5"],
        ["P4", "wget", "1.00 (1.00 to 1.00)", "1.00", "10", ""],
    ]


def test_series_of_one_title_share_a_table() -> None:
    one = Series("large", "ours", [sample()], verifies=True, title="Large: 2 GiB")
    two = Series("large", "curl", [sample(check=2)], verifies=False, title="Large: 2 GiB")
    large, others = series_tables([one, two, Series("P4", "ours", [sample(wall=0)])]).split(
        "### The other cases"
    )
    assert large.startswith("### Large: 2 GiB\n")
    assert [row[:4] for row in rows(large)] == [
        ["Who", "Verified", "Wall, s (min to max)", "then verify, s"],
        ["ours", "yes", "1.00 (1.00 to 1.00)", ""],
        ["curl", "no", "1.00 (1.00 to 1.00)", "2.00"],
    ]
    assert rows(others)[1][:2] == ["ours", "killed"]


BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def test_the_document_keeps_what_is_outside_the_markers() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(document, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("document", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_document_without_markers_is_left_alone(document: str) -> None:
    with pytest.raises(ValueError, match="has no"):
        replaced(document, "new")


@pytest.mark.parametrize("name", ["bench", "bench.operator"])
def test_the_document_of_the_project_has_its_markers(name: str) -> None:
    replaced((PROJECT / "docs" / "benchmarks.md").read_text("utf-8"), "new", name)


# --- the picture ----------------------------------------------------------------------------------


def test_bars_are_medians_with_those_first_who_verify() -> None:
    found = bars(
        [
            Series("large", "slow", [sample(2, check=3)], verifies=False),
            Series("large", "quick", [sample(3, check=1)], verifies=False),
            Series("large", "ours", [sample(4), sample(9), sample(5)], verifies=True),
        ]
    )
    assert found == [
        Bar("ours", 5, True),
        Bar("quick", 3, False, 1),
        Bar("slow", 2, False, 3),
    ]


def test_the_picture_is_drawn_to_scale_and_needs_nobody() -> None:
    shown = drawn("a < b", ["here", "now"], [Bar("ours", 2, True), Bar("peer", 3, False, 1)])
    picture = ET.fromstring(shown)
    drawn_bars = {
        (kind, float(one.get("width", "0")))
        for one in picture.iter("{http://www.w3.org/2000/svg}rect")
        if (kind := one.get("class")) and one.get("height") == "18"
    }
    widths = dict(drawn_bars)
    assert widths["verified"] * 2 == pytest.approx(widths["plain"] + widths["check"])
    assert widths["plain"] == pytest.approx(widths["check"] * 3)
    words = {one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a < b", "here", "now", "ours", "2.0 s", "peer", "3.0 + 1.0 s"} <= words
    assert "script" not in shown
    assert shown.count("http") == 1  # the name of SVG itself


# --- who is measured ------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path: Path) -> Task:
    model = weights(tmp_path / "models", MIB, 1)
    return Task(model, Hub("http://hub", "http://cdn", tmp_path), tmp_path, tmp_path)


@pytest.mark.parametrize("protocol", ["XET", "HF_TRANSFER", "HTTP"])
def test_ours_is_pinned_to_a_protocol(task: Task, protocol: str) -> None:
    assert Ours(protocol).name == f"aim_downloader ({protocol})"
    assert Ours(protocol).command(task)[-2:] == ["--protocol", protocol]
    assert "--protocol" not in Ours().command(task)


def test_hf_goes_over_xet_or_not(task: Task) -> None:
    xet, http = HfDownload("Xet"), HfDownload("HTTP")
    assert xet.command(task) == http.command(task)
    assert (xet.settings(), http.settings()) == ({}, {"HF_HUB_DISABLE_XET": "1"})


@pytest.mark.parametrize("contender", [HfTransfer(), Curl(), Aria2()])
def test_peers_without_a_hub_are_given_addresses(
    task: Task, tmp_path: Path, contender: Contender
) -> None:
    def told(of: Model) -> str:
        words = contender.command(Task(of, task.hub, task.target, task.scratch))
        listed = task.scratch / "aria2.txt"
        return " ".join(words) + (listed.read_text() if listed.exists() else "")

    assert f"http://cdn/{task.model.files[0].sha256}" in told(task.model)
    tiny = small(tmp_path / "small", 1, 10)
    assert f"http://hub/bench/small/resolve/main/{tiny.files[0].path}" in told(tiny)


# --- what is downloaded, measured and kept --------------------------------------------------------


def test_models_have_the_sizes_asked_for(tmp_path: Path) -> None:
    for model, count, size in (
        (weights(tmp_path / "a", 3 * MIB, 3), 3, 3 * MIB),
        (small(tmp_path / "b", 5, 100), 5, 500),
        (sparse(tmp_path / "c", 2 * MIB), 1, 2 * MIB),
        (joined(tmp_path / "d", weights(tmp_path / "e", 2 * MIB, 2), 2), 1, 4 * MIB),
    ):
        assert (len(model.files), model.size) == (count, size)
        for file in model.files:
            content = model.path(file).read_bytes()
            assert (len(content), sha256(content).hexdigest()) == (file.size, file.sha256)


def test_measure_counts_wall_cpu_and_memory_of_the_tree() -> None:
    # The child of the child works; both are waited for.
    child = "x = bytearray(50_000_000); sum(i * i for i in range(1_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    taken = measure([sys.executable, "-c", parent], {})
    assert taken.wall > 0
    assert taken.cpu > 0.01
    assert taken.peak > 50_000_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_is_that_of_all_processes_together() -> None:
    # Neither has 100 MB by itself; the child has a child of its own in between.
    hold = "x = bytearray(60_000_000); import time; time.sleep(2)"
    between = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    parent = (
        "import subprocess, sys; x = bytearray(60_000_000); "
        f"subprocess.run([sys.executable, '-c', {between!r}])"
    )
    assert measure([sys.executable, "-c", parent], {}).peak > 120_000_000


def test_measure_tells_what_a_failing_command_said() -> None:
    with pytest.raises(BenchError, match=r"ended with 3(?s:.)*no luck"):
        measure([sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"], {})


def test_results_are_stored_as_pytest_benchmark_does(tmp_path: Path) -> None:
    series = Series("P3", "aim_downloader", [sample(2.0), sample(1.0)], {"P3": [1.0, 1.2]})
    store(tmp_path, "bench", [series], [number(Spread(1.1, 1.0, 1.2))])
    (path,) = tmp_path.rglob("0001_bench.json")
    (stored,) = json.loads(path.read_text())["benchmarks"]
    assert stored["stats"]["median"] == 1.5
    assert stored["extra_info"]["P3"] == [1.0, 1.2]
    assert stored["extra_info"]["goals"] == {"P3": {"goal": 1.3, "median": 1.1}}


def quick(tmp_path: Path, only: str) -> str:
    words = ["--quick", "--only", only, "--store", str(tmp_path)]
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("0001_quick.json"))) == 1
    return done.stdout


needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx, the origin, is not installed")
needs_hf = pytest.mark.skipif(not HF.exists(), reason="hf, a peer, is not installed")


@needs_nginx
@needs_hf
@pytest.mark.skipif(
    importlib.util.find_spec("hf_transfer") is None, reason="hf_transfer, a peer, is not installed"
)
def test_a_quick_bench_works(tmp_path: Path) -> None:
    found = [row for row in rows(quick(tmp_path, "P4,P9")) if row[0].startswith("P")]
    assert [row[0] for row in found] == ["P4", "P9", "P9"] + ["P4"] * 2 + ["P9"] * 2
    assert found[2][4] == "0"  # requests: the one number that no busy machine changes


@needs_nginx
@needs_hf
def test_a_quick_bench_over_xet_works(tmp_path: Path) -> None:
    need_server()
    found = rows(quick(tmp_path, "P2"))
    assert found[1][0] == "P2"
    assert [(row[0], row[1], row[-1]) for row in found[3:]] == [
        ("aim_downloader (XET)", "yes", "64"),
        ("hf download (Xet)", "no", "64"),
    ]


@pytest.mark.parametrize("words", [["--only", "P99"], ["--write", "--quick"], ["--runs", "0"]])
def test_words_that_cannot_be_meant_are_refused(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], cwd=PROJECT, capture_output=True, check=False
    )
    assert done.returncode == 2


# --- the picture of what metrics say over time ----------------------------------------------------


@pytest.mark.parametrize(
    ("value", "top"), [(0.0, 1), (1, 1), (1.2, 1.5), (7, 8), (10, 10), (96, 100), (1234, 1500)]
)
def test_an_axis_ends_with_a_round_number(value: float, top: float) -> None:
    assert rounded_up(value) == top


def test_a_timeline_is_a_picture_of_its_own_with_all_that_it_names() -> None:
    stacked = Panel(
        "Artifacts", [Line("Ready", "s1", [0, 1]), Line("<Failed>", "s4", [2, 1])], True
    )
    lines = Panel("Speed", [Line("all", "s2", [0, 0.2])])
    shown = timeline("A title", ["under this", "and that"], [100.0, 130.0], [stacked, lines])
    root = ET.fromstring(shown)
    words = {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert words >= {
        "A title",
        "under this",
        "Artifacts",
        "Ready",
        "<Failed>",
        "Speed",
        "30 s",
        "2",
    }
    # The name of a line that is alone says nothing.
    assert "all" not in words
    assert "script" not in shown
    # The areas stand on one another: where the first ends, the second begins.
    areas = re.findall(r'class="area \w+" d="M([^L]*)L([^L]*)L([^L]*)L([^Z]*)Z"', shown)
    (_, up, *_), (_, _, lower, _) = areas
    assert up == lower


# --- the operator ---------------------------------------------------------------------------------


def test_what_many_artifacts_took_is_told_for_each_of_them() -> None:
    requests = Counter({("get", "Job"): 40, ("apply", "Job"): 20, ("create", "Event"): 50})
    requests["apply status", "AIMArtifact"] = 30
    run = Run(10, 1.25, 2.5, 0.5, 90 * MIB, requests, made=30)
    assert (run.writes, run.events) == (50, 50)
    shown = told([run])
    cells = [cell.strip() for cell in shown.splitlines()[2].split("|")[1:-1]]
    assert cells == ["10", "1.2", "2.5", "0.5", "90", "14.0", "5.0", "5.0"]
    assert "10 artifacts: create Event 5.0, get Job 4.0" in shown
