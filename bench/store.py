"""Keeps results as pytest-benchmark does: `pytest-benchmark compare` and its like read them."""

import importlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.result import Number, Series

# They say that they are typed, and are not.
_package: Any = importlib.import_module("pytest_benchmark")
_plugin: Any = importlib.import_module("pytest_benchmark.plugin")
_stats: Any = importlib.import_module("pytest_benchmark.stats")
_files: Any = importlib.import_module("pytest_benchmark.storage.file")
_utils: Any = importlib.import_module("pytest_benchmark.utils")


def store(folder: Path, name: str, series: Sequence[Series], numbers: Sequence[Number]) -> None:
    """Save one bench as the next file below `folder`."""
    machine = _plugin.pytest_benchmark_generate_machine_info()
    del machine["node"]  # whose it is says nothing about speed
    content = {
        "machine_info": machine,
        "commit_info": _utils.get_commit_info(),
        "benchmarks": [_benchmark(one, numbers) for one in series],
        "datetime": datetime.now(UTC).isoformat(),
        "version": _package.__version__,
    }
    logger = logging.getLogger(__name__)
    storage = _files.FileStorage(str(folder), logger, default_machine_id=_utils.get_machine_id())
    storage.save(content, name)


def _benchmark(series: Series, numbers: Sequence[Number]) -> dict[str, Any]:
    stats = _stats.Stats()
    for sample in series.samples:
        stats.update(sample.wall)
    goals = {
        n.id: {"goal": n.goal, "median": n.value.median} for n in numbers if n.id in series.facts
    }
    extra = {
        **{
            what: [getattr(s, what) for s in series.samples]
            for what in ("cpu", "peak", "sent", "check", "sync")
        },
        **series.facts,
        "goals": goals,
    }
    name = f"{series.case} {series.name}"
    return {
        "group": series.case,
        "name": name,
        "fullname": f"bench::{name}",
        "params": None,
        "param": None,
        "extra_info": extra,
        "options": {},
        "stats": {**stats.as_dict(), "data": stats.data, "iterations": 1},
    }
