"""Figures on pages whose tables no command writes are those of the stored records."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCALING = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def record(pattern: str) -> Any:
    (path,) = RESULTS.glob(f"{pattern}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def row(start: str, text: str = SCALING) -> list[str]:
    """The cells of the one row of a page that starts so; the first cell left out, marks too."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip().strip("*") for cell in line.split("|")[2:-1]]


def assert_shown(cells: list[str], values: list[float | None]) -> None:
    """Each cell is its value, rounded to the digits that it shows; an empty one says nothing."""
    for cell, value in zip(cells, values, strict=True):
        if cell:
            number = cell.split(" ")[0]
            assert number == f"{value:.{len(number.partition('.')[2])}f}", (cells, values)


@pytest.mark.parametrize(
    ("start", "stage"),
    [
        ("30 neighbours, exact", "neighbours"),
        ("Jaccard affinity, neighbours included", "jaccard"),
        ("DBSCAN on it", "dbscan"),
        ("instance transport (Sinkhorn)", "instance transport"),
        ("**clustering + MULT, whole**", "label stage"),
        ("SALCR's CMFP", "cmfp"),
        ("evaluation: 40 trials, 3803 × 6775", "evaluation, ten trials"),
    ],
)
def test_a_stage_s_cost(start: str, stage: str) -> None:
    (found,) = [row for row in record("perf_sysu_intel-*")["rows"] if row["stage"] == stage]
    ours, floor = found["ours_s"], found["floor_s"]
    assert_shown(row(start), [ours, floor, ours / floor if floor else None, found["peak_gib"]])


@pytest.mark.parametrize(
    ("start", "stage"),
    [
        ("`mult`, ResNet-50, 3 × 8 images of 288 × 144", "mult step, resnet50"),
        ("`salcr`, ResNet-50 with three parts", "salcr step, resnet50"),
        ("`mult`, `tiny`, 3 × 64 images of 64 × 32", "mult step, tiny"),
        ("`salcr`, `tiny` with three parts", "salcr step, tiny"),
    ],
)
def test_a_step_s_cost(start: str, stage: str) -> None:
    (found,) = [row for row in record("perf_sysu_intel-*")["rows"] if row["stage"] == stage]
    asked = float(found["bar"].split()[0])
    assert_shown(row(start), [found["baseline_s"], found["ours_s"], found["ours_s"] / found["baseline_s"], asked])


def test_a_bank_update_s_cost() -> None:
    (found,) = [row for row in record("perf_sysu_intel-*")["rows"] if row["stage"] == "bank update"]
    said = re.search(r"A bank update for five banks takes ([\d.]+) ms, (\d) % of a bare step", SCALING)
    assert said
    assert_shown([said[1]], [1000 * found["ours_s"]])
    bare = re.search(r"bare tiny step \(([\d.]+) s\)", found["bar"])
    assert bare
    assert_shown([said[2]], [100 * found["ours_s"] / float(bare[1])])


def ratio_of(stage: str, pattern: str = "perf_sysu_intel-*") -> str:
    """What a row of a record says beside its plain version, as pages show it."""
    (found,) = [row for row in record(pattern)["rows"] if row["stage"] == stage]
    return f"{found['ours_s'] / found['baseline_s']:.2f}"


def test_extraction_beside_the_network_alone() -> None:
    found = [ratio_of(f"extraction from the cache, {network}") for network in ("resnet50", "tiny")]
    assert f"it takes {found[0]} of the processor seconds of the network alone" in SCALING
    assert f"288 × 144, {found[1]} on `tiny`" in SCALING


def test_options_and_one_thread() -> None:
    compiled = [ratio_of(f"bare step, {network}, compile") for network in ("tiny", "resnet50")]
    assert f"`compile` takes {compiled[0]} of the bare step on `tiny` and {compiled[1]} on ResNet-50" in SCALING
    assert f"`channels_last` takes {ratio_of('bare step, resnet50, channels_last')} of it" in SCALING
    alone = [ratio_of(f"{method} step, tiny", "perf_sysu_mult_step_*-1-threads_*") for method in ("mult", "salcr")]
    assert f"it is {alone[0]} for `mult`, within its bar, and {alone[1]} for `salcr`" in SCALING


@pytest.mark.parametrize(
    ("start", "stage"),
    [
        ("neighbours, visible", "neighbours"),
        ("Jaccard, both modalities, neighbours included", "jaccard"),
        ("DBSCAN", "dbscan"),
        ("`mult`", "mult"),
        ("`salcr`", "salcr"),
    ],
)
def test_how_a_stage_grows(start: str, stage: str) -> None:
    time, _, memory = SCALING.partition("## How it grows")[2].partition("| peak above")
    rows = record("scale_*")["rows"]
    assert_shown(row(start, time)[:-1], [size["cpu_seconds"][stage] for size in rows])
    if stage in ("mult", "salcr"):
        assert_shown(row(start, memory)[:-1], [size["peak_gib"][stage] for size in rows])
        minutes = sum(rows[-1]["seconds"][part] for part in ("jaccard", "dbscan", stage)) / 60
        said = f"clustering and `{stage}` in {minutes:.1f} minutes and {rows[-1]['peak_gib'][stage]:.2f} GiB"
        assert said in SCALING


def test_the_main_job_s_time() -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    assert f"({record('main_job')['seconds']:.0f} s in" in page


def test_where_the_main_job_ends() -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    ended = record("synthetic/mult-0")["protocols"]["all-search single-shot"]["mAP"]["mean"]
    assert f"about 60 % mAP (all-search single-shot): {ended:.1f} in the stored run" in page


def test_affinities_per_image() -> None:
    assert_shown(row("stored affinities per image")[:-1], [size["affinities"] for size in record("scale_*")["rows"]])


def test_unison_s_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import unison

    page = (ROOT / "docs" / "unison.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- table: benchmarks/unison.py -->\n")[2].partition("<!-- end of table -->")[0]
    assert shown.strip() == unison.table(record("unison")).strip()
    sys.modules.pop("unison")


def test_the_picture_of_growth_is_that_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from make_pictures import growth

    drawn = (ROOT / "docs" / "images" / "growth.svg").read_text(encoding="utf-8")
    assert drawn == growth(record("scale_*")["rows"])
