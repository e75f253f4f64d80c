"""The stored comparison on the default synthetic pedestrians says what the docs say of it; it is never re-run here."""

from __future__ import annotations

import importlib.util
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
    import json

    today = registry.build("datasets", "synthetic").fingerprint()
    for path in benchmark.STORE.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["dataset"]["fingerprint"] == today, path.name
