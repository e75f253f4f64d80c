"""The speed suite: every stage runs, and equals the plain version beside which it is timed."""

from __future__ import annotations

import datetime
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from reidassoc.bench import perf
from reidassoc.cli import cli
from reidassoc.errors import ReidassocError
from reidassoc.recipe.compose import compose

PERF = Path(__file__).resolve().parents[3] / "benchmarks" / "perf"
SLOW = {"augmentation", "mmm"}  # a second each; their plain versions are compared in their own tests
STEPS = {
    "mult_step",
    "salcr_step",
    "mult_step_resnet",
    "salcr_step_resnet",
    "channels_last",
    "compile",
    "compile_resnet",
    "data_path",
    "extraction_read",
    "extraction_read_resnet",
}  # beside a bare step: no parity


@pytest.fixture(scope="module")
def stages() -> Iterator[ModuleType]:
    sys.path.insert(0, str(PERF))
    try:
        yield importlib.import_module("stages")
    finally:
        sys.path.remove(str(PERF))


def test_every_stage_equals_its_plain_version(stages: ModuleType) -> None:
    rates = importlib.import_module("meter").Rates(100.0, 300.0, 10.0)
    bench = importlib.import_module("bench").Bench(scale=0.012, width=96, runs=1, plain=True, rates=rates)
    names = [name for name in stages.STAGES if name not in SLOW | STEPS]
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
    assert set(wanted.split()) | STEPS == set(stages.STAGES)


@pytest.mark.parametrize("name", ["mult_step", "data_path", "extraction_read"])
def test_whole_steps_stand_beside_bare_ones(stages: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = importlib.import_module("steps")
    monkeypatch.setattr(steps, "IMAGES", 4)
    monkeypatch.setattr(stages.training, "in_place_and_read", lambda count: steps.in_place_and_read(2))
    rates = importlib.import_module("meter").Rates(100.0, 300.0, 10.0)
    row = stages.STAGES[name](stages.Bench(scale=0.012, width=96, runs=1, plain=True, rates=rates))
    assert row.ours_s > 0
    assert row.baseline_s > 0
    assert re.search(r"it is [\d.]+: (met|MISSED)", row.bar)


@pytest.mark.parametrize("method", ["mult", "salcr"])
def test_step_recipes_fit_together(stages: ModuleType, method: str) -> None:
    steps = importlib.import_module("steps")
    for network in ("tiny", "resnet50"):
        recipe = steps.recipe_of(method, network)
        assert compose(recipe).dataset.identities == steps.PEOPLE
        assert recipe.stages[-1].associator.name == method


def test_a_script_is_no_library(stages: ModuleType) -> None:
    for path in PERF.glob("*.py"):
        found = re.findall(
            r"^(?:from|import) (label_stage|run|scale)\b", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert not found, f"{path.name} imports {found}"


def test_the_label_stage_alone(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module("label_stage")
    monkeypatch.setattr(script, "BAR_S", 600.0)  # of the whole size, on a quiet machine
    monkeypatch.setattr(sys, "argv", ["label_stage.py", "--scale", "0.02", "--associator", "nearest"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    said = capfd.readouterr().out
    assert re.search(r"^dbscan \+ mult: [\d.]+ s, [\d.]+ s of processor time, [\d.]+ GiB", said, re.MULTILINE)
    assert re.search(r"^nearest: [\d.]+ \+ [\d.]+ s, ", said, re.MULTILINE)
    assert "asked 600 s and 2.7 GiB: met" in said


def test_the_label_stage_fails_above_its_bar(stages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("label_stage")
    cost = script.Cost(seconds=61.0, cpu_seconds=100.0, peak_gib=2.0)
    monkeypatch.setattr(script, "run", lambda command: cost)
    monkeypatch.setattr(script, "agreements", lambda labels, identity: {"own_visible": 1.0})
    monkeypatch.setattr(sys, "argv", ["label_stage.py"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1


def test_bench_perf_starts_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def spy(command: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(command[1:])
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(perf.subprocess, "run", spy)
    assert CliRunner().invoke(cli, ["bench", "perf", "--size", "tiny", "--no-write"]).exit_code == 3
    assert CliRunner().invoke(cli, ["bench", "perf", "scale", "--help"]).exit_code == 3
    assert asked == [[str(PERF / "run.py"), "--size", "tiny", "--no-write"], [str(PERF / "scale.py"), "--help"]]


def test_bench_perf_needs_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(perf, "PACKAGE", tmp_path / "site-packages" / "reidassoc")
    with pytest.raises(ReidassocError, match="clone the repository"):
        perf.run_suite(["--size", "tiny"])


def test_growth_is_fitted_and_judged(stages: ModuleType) -> None:
    scale = importlib.import_module("scale")
    assert scale.slope([10, 100, 1000], [0.3, 30.0, 3000.0]) == pytest.approx(2)
    row = {
        "visible": 200_000,
        "seconds": {"jaccard": 300, "dbscan": 10, "mult": 890},
        "peak_gib": dict.fromkeys(scale.STAGES, 6),
    }
    assert scale.verdicts(row)[0].endswith("20.0 minutes, 6.00 GiB; asked 20 minutes, 6 GiB: met")
    row["seconds"]["mult"] = 891
    assert scale.verdicts(row)[0].endswith("MISSED")


def test_the_growth_of_a_small_label_stage(stages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = importlib.import_module("scale")
    monkeypatch.setattr(scale, "WIDTH", 64)
    row = scale.measure(600, list(scale.STAGES))
    assert row["clusters"] == [12, 12]
    assert set(row["seconds"]) == set(scale.STAGES)
    record = {"device": "here", "date": "today", "torch": "2", "load_average": [0, 0], "neighbours_kept": 9}
    record |= {"memory_limit_gib": 2.0, "rows": [row], "agreement": scale.compare(600)}
    text = scale.page(record)
    assert text.count("| mult |") == 3
    assert record["agreement"]["mult"] == {"own": pytest.approx(1, abs=0.01), "cross": pytest.approx(1, abs=0.01)}


def test_some_stages_alone_leave_the_whole_suites_record(stages: ModuleType) -> None:
    name_of = importlib.import_module("run").name_of
    day = datetime.date(2026, 11, 22)
    whole, some = name_of("sysu", [], day), name_of("sysu", ["evaluation", "extraction"], day)
    assert whole.startswith("perf_sysu_")
    assert whole.endswith("_2026-11-22")
    assert some == whole.replace("perf_sysu_", "perf_sysu_evaluation_extraction_")
