"""The speed suite: every stage runs, and equals the plain version beside which it is timed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PERF = Path(__file__).resolve().parents[1] / "benchmarks" / "perf"
SLOW = {"augmentation", "mmm"}  # a second each; their plain versions are compared in their own tests


@pytest.fixture(scope="module")
def stages() -> Iterator[ModuleType]:
    sys.path.insert(0, str(PERF))
    try:
        yield importlib.import_module("stages")
    finally:
        sys.path.remove(str(PERF))


def test_every_stage_equals_its_plain_version(stages: ModuleType) -> None:
    rates = importlib.import_module("meter").Rates(100.0, 300.0, 10.0)
    bench = stages.Bench(scale=0.012, width=96, runs=1, plain=True, rates=rates)
    names = [name for name in stages.STAGES if name not in SLOW]
    for row in stages.rows(bench, names):
        assert row.ours_s > 0, row.stage
        assert row.line().count("|") == 11, row.stage
        share = re.search(r"([\d.]+) % equal", row.agreement)
        gap = re.search(r"differs by (\S+)", row.agreement)
        assert share is None or float(share[1]) >= 99.0, (row.stage, row.agreement)
        assert gap is None or float(gap[1]) < 1e-4, (row.stage, row.agreement)
        assert row.baseline_s is None or row.agreement, row.stage


def test_the_suite_covers_the_stages_of_an_epoch(stages: ModuleType) -> None:
    wanted = "neighbours jaccard dbscan centroid_transport instance_transport label_transfer mmm cmfp bank_update oclr"
    wanted += " gpcr augmentation training_step extraction evaluation label_quality label_stage"
    assert set(wanted.split()) == set(stages.STAGES)
