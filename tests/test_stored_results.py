"""The stored comparison on the default synthetic pedestrians says what the docs say of it; it is never re-run here."""

from __future__ import annotations

import importlib.util
import json
import statistics
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from reidassoc import registry

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_table", ROOT / "benchmarks" / "synthetic_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def column(benchmark: ModuleType, method: str, name: str) -> list[float]:
    return [benchmark.cell(method, seed)[name] for seed in benchmark.SEEDS]


def test_the_table_is_that_of_the_stored_cells(benchmark: ModuleType) -> None:
    assert benchmark.TABLE.read_text(encoding="utf-8") == benchmark.table()
    assert benchmark.table() in (ROOT / "docs" / "synthetic.md").read_text(encoding="utf-8")


def test_the_cells_are_of_today_s_pictures(benchmark: ModuleType) -> None:
    today = registry.build("datasets", "synthetic").fingerprint()
    for path in benchmark.STORE.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["dataset"]["fingerprint"] == today, path.name


def standard_error_of_gap(above: list[float], below: list[float]) -> float:
    return ((statistics.variance(above) + statistics.variance(below)) / len(above)) ** 0.5


@pytest.mark.parametrize("figure", ["mAP", "precision"])
def test_the_order_is_oracle_mult_random(benchmark: ModuleType, figure: str) -> None:
    ordered = [column(benchmark, method, figure) for method in ("oracle", "mult", "random")]
    for above, below in pairwise(ordered):
        assert statistics.mean(above) - statistics.mean(below) > standard_error_of_gap(above, below)


def test_mult_gains_in_every_seed_and_the_oracle_reaches_its_bound(benchmark: ModuleType) -> None:
    gains = [m - b for m, b in zip(column(benchmark, "mult", "mAP"), column(benchmark, "base", "mAP"), strict=True)]
    assert min(gains) >= 5
    assert min(column(benchmark, "oracle", "rank1")) >= 60


def test_the_main_job_took_less_than_four_minutes_and_four_gib() -> None:
    """As stored by benchmarks/main_job.py; the cells' own seconds are of runs side by side."""
    kept = json.loads((ROOT / "benchmarks" / "results" / "main_job.json").read_text(encoding="utf-8"))
    assert kept["seconds"] <= 240
    assert kept["peak_gib"] <= 4
