"""The bench: its arithmetic, its tables, and that it works at all. What it measures is no test."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contenders import HF
from bench.content import MIB, small, sparse, weights
from bench.measure import BenchError, Sample, measure
from bench.origin import NGINX, PROJECT
from bench.paired import Spread, alternate, cpu, fastest, paired_ratios, spread, wall_and_check
from bench.result import Number, Series
from bench.store import store
from bench.table import BEGIN, END, numbers_table, replaced, series_table


def sample(wall: float = 1.0, cpu: float = 1.0, check: float | None = None) -> Sample:
    return Sample(wall, cpu, 10 * MIB, check=check)


def number(value: Spread, goal: float = 1.3, unit: str = "") -> Number:
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


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "goal", "unit", "cells"),
    [
        (Spread(1.25, 1.1, 1.4), 1.3, "", ["1.25 (1.10 to 1.40)", "≤ 1.30", "reached"]),
        (Spread(1.3, 1.3, 1.3), 1.3, "", ["1.30", "≤ 1.30", "reached"]),
        (Spread(1.31, 1.1, 1.4), 1.3, "", ["1.31 (1.10 to 1.40)", "≤ 1.30", "**missed**"]),
        (Spread(52.4, 51, 53), 160, "MiB", ["52 MiB (51 to 53)", "≤ 160 MiB", "reached"]),
        (Spread(0, 0, 0), 0, "", ["0", "none", "reached"]),
        (Spread(3, 3, 3), 0, "", ["3", "none", "**missed**"]),
    ],
)
def test_each_number_is_held_against_its_goal(
    value: Spread, goal: float, unit: str, cells: list[str]
) -> None:
    row = numbers_table([number(value, goal, unit)]).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[5:-1]] == cells


def test_tables_line_up() -> None:
    lines = numbers_table([number(Spread(1, 1, 1)), number(Spread(10, 9, 11))]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == {"|", "-"}


def test_series_leave_blank_what_was_not_measured() -> None:
    samples = [Sample(2.0, 3.0, 20 * MIB, sent=5 * MIB), Sample(4.0, 5.0, 30 * MIB, sent=5 * MIB)]
    row = series_table([Series("P3", "curl", samples)]).splitlines()[2]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == ["P3", "curl", "3.00 (2.00 to 4.00)", "4.00", "25", "5", ""]


def test_the_document_keeps_what_is_outside_the_markers() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(document, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("document", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_document_without_markers_is_left_alone(document: str) -> None:
    with pytest.raises(ValueError, match="has no"):
        replaced(document, "new")


def test_the_document_of_the_project_has_its_markers() -> None:
    replaced((PROJECT / "docs" / "benchmarks.md").read_text("utf-8"), "new")


# --- what is downloaded, measured and kept --------------------------------------------------------


def test_models_have_the_sizes_asked_for(tmp_path: Path) -> None:
    for model, count, size in (
        (weights(tmp_path / "a", 3 * MIB, 3), 3, 3 * MIB),
        (small(tmp_path / "b", 5, 100), 5, 500),
        (sparse(tmp_path / "c", 2 * MIB), 1, 2 * MIB),
    ):
        assert (len(model.files), model.size) == (count, size)
        assert all(model.path(file).stat().st_size == file.size for file in model.files)


def test_measure_counts_wall_cpu_and_memory_of_the_tree() -> None:
    # The child of the child works; both are waited for.
    child = "x = bytearray(50_000_000); sum(i * i for i in range(1_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    taken = measure([sys.executable, "-c", parent], {})
    assert taken.wall > 0
    assert taken.cpu > 0.01
    assert taken.peak > 50_000_000


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


@pytest.mark.skipif(NGINX is None, reason="nginx, the origin, is not installed")
@pytest.mark.skipif(not HF.exists(), reason="hf, a peer, is not installed")
@pytest.mark.skipif(
    importlib.util.find_spec("hf_transfer") is None, reason="hf_transfer, a peer, is not installed"
)
def test_a_quick_bench_works(tmp_path: Path) -> None:
    words = ["--quick", "--only", "P4,P9", "--store", str(tmp_path)]
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| P")]
    assert [row[1].strip() for row in rows] == ["P4", "P9", "P9"] + ["P4"] * 2 + ["P9"] * 2
    assert rows[2][5].strip() == "0"  # requests: the one number that no busy machine changes
    assert len(list(tmp_path.rglob("0001_quick.json"))) == 1


@pytest.mark.parametrize("words", [["--only", "P99"], ["--write", "--quick"], ["--runs", "0"]])
def test_words_that_cannot_be_meant_are_refused(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], cwd=PROJECT, capture_output=True, check=False
    )
    assert done.returncode == 2
