"""The report: what it says agrees with the results, it holds everything itself, and it shows names without running them."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import reidassoc as ra
from reidassoc.cli import cli
from reidassoc.data.tiles import COLUMNS, pack
from reidassoc.errors import DataError
from reidassoc.evaluation.queries import load_scores, save_scores
from reidassoc.report import run_page as own_module
from reidassoc.report import sections
from reidassoc.report.associations import NONE, RIGHT, UNTOLD, WRONG, Face, faces, of_epoch
from reidassoc.report.chapters import Chapter, chapters, read_named
from reidassoc.report.charts import Curves, Line, ticks
from reidassoc.report.cost import costs
from reidassoc.report.curves import cmc, over_epochs
from reidassoc.report.page_writer import template
from reidassoc.report.pdf import write_figures
from reidassoc.report.retrieval import browsed
from reidassoc.report.run_page import OwnPage
from reidassoc.report.svg import DASHES
from reidassoc.report.svg import curves as svg_of
from reidassoc.report.thumbnails import joined, sheets_of
from reidassoc.runs.folder import SCORES
from reidassoc.runs.report_data import Images
from reidassoc.runs.result import Result
from reidassoc.tables.read import export, read_results
from reidassoc.types import Modality, Pair

HOSTILE = "</script><script>alert(1)</script>&\"'"
PROTOCOL = "all-search single-shot"


@pytest.fixture(scope="module")
def chapter(finished: Path, rival: Path) -> Chapter:
    (found,) = chapters(read_named([finished, rival]))
    return found


@pytest.fixture(scope="module")
def page(finished: Path, rival: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two methods, one of them with a name that tries to break out, with its figures."""
    folder = tmp_path_factory.mktemp("report")
    return ra.write_report([f"{HOSTILE}={finished}", rival], folder / "page.html", figures=folder / "figures")


def data_of(page: Path) -> dict[str, Any]:
    held = re.search(r'id="data">([^<]*)<', page.read_text(encoding="utf-8"))
    assert held is not None
    return json.loads(gzip.decompress(base64.b64decode(held[1])))  # type: ignore[no-any-return]


def test_the_page_needs_nothing_else_and_is_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 2 << 20
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    assert {address[:5] for address in re.findall(r'url\("?([^)"]+)', text)} == {"data:"}
    assert re.findall(r"https?://[^\s\"'<]+", text) == ["http://www.w3.org/2000/svg"]  # a name, never fetched
    assert "<!-- " not in text


def test_every_section_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = ["overview", "epochs", "cmc", "cost", "map", "associations", "retrieval", "sources"]
    assert re.findall(r'<section id="(\w+)-0">', text) == names
    assert re.findall(r'href="#(\w+)-0"', text) == names
    assert "nearest image first, last epoch, seed 0." in text


def test_names_are_shown_and_never_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert html.escape(HOSTILE) in text
    assert text.count("</script>") == text.count("<script") == 2
    assert data_of(page)["chapters"][0]["methods"][0] == [HOSTILE, 0]


def test_the_page_says_what_the_results_say(page: Path, finished: Path, rival: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for folder in (finished, rival):
        result = json.loads((folder / "result.json").read_text())
        for protocol, found in result["protocols"].items():
            assert f'data-protocol="{protocol}"' in text
            assert f'data-value="{found["mAP"]["mean"]:.4f}"' in text
        assert result["digest"] in text
        assert result["peak_bytes"] > 64 << 20


def test_cmc_curves_go_through_the_table_s_ranks(chapter: Chapter) -> None:
    for chart in cmc(chapter):
        for line, method in zip(chart.lines, chapter.methods, strict=True):
            found = method.example.outcome.data["protocols"][chart.title]
            for rank in (1, 5, 10, 20):
                assert line.y[rank - 1] == pytest.approx(found[f"rank{rank}"]["mean"], abs=1e-9)


def test_curves_over_epochs_are_the_metrics(chapter: Chapter) -> None:
    charts = {chart.name: chart for chart in over_epochs(chapter)}
    assert set(charts) == {"map", "rank1", "precision", "recall", "ari", "clusters"}
    mult, pgm = charts["map"].lines
    assert (mult.x, pgm.x) == ((1.0, 3.0, 4.0), (4.0,))  # the epochs that were evaluated
    rows = chapter.methods[0].example.epochs
    assert mult.y[-1] == rows[-1]["retrieval"][PROTOCOL]["mAP"]["mean"]
    both = [rows[3]["labels"][f"{space}/precision_cross"] for space in ("visible", "infrared")]
    precision = dict(zip(charts["precision"].lines[0].x, charts["precision"].lines[0].y, strict=True))
    assert precision[3.0] == pytest.approx(100 * sum(both) / 2)
    assert min(precision) == 2.0  # nothing is associated before
    assert charts["clusters"].level == (16.0, "people")
    assert charts["clusters"].marks == (2.0,)


def test_a_single_evaluation_makes_no_curve(rival: Path) -> None:
    """The labels of every epoch do."""
    (alone,) = chapters(read_named([rival]))
    charts = over_epochs(alone)
    assert [chart.name for chart in charts] == ["precision", "recall", "ari", "clusters"]
    lead = sections.over_epochs(alone, charts).lead
    assert lead.startswith(
        "How right the labels are, by true identities, which no method sees; retrieval was measured at the end alone."
    )


def test_costs_are_those_of_the_epochs(chapter: Chapter) -> None:
    first = costs(chapter)[0]
    rows = chapter.methods[0].example.epochs
    assert first.total == pytest.approx(sum(sum(row["seconds"].values()) for row in rows))
    assert first.seconds["train"] > 0
    assert first.peak_gib is not None


def test_several_seeds_make_a_band(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "other", ignore=shutil.ignore_patterns("checkpoints"))
    text = (tmp_path / "other" / "result.json").read_text()
    (tmp_path / "other" / "result.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    rows = (tmp_path / "other" / "metrics.jsonl").read_text().splitlines()
    changed = [json.loads(row) for row in rows]
    changed[-1]["retrieval"][PROTOCOL]["mAP"]["mean"] += 2.0
    (tmp_path / "other" / "metrics.jsonl").write_text("\n".join(map(json.dumps, changed)))
    (found,) = chapters(read_named([finished, tmp_path / "other"]))
    (line,) = over_epochs(found)[0].lines
    assert (line.high[-1] - line.low[-1]) == pytest.approx(2 * math.sqrt(2))
    assert line.high[0] == line.low[0]
    assert 'class="band"' in svg_of(over_epochs(found)[0])


def test_a_pair_of_clusters_is_right_if_both_show_the_same_person() -> None:
    visible = Images(
        *(np.array(x, np.int32) for x in ([1, 1, 2, 2, 3, 3, 1], [1] * 7, [0, 2, 4])), np.zeros(0, np.uint8)
    )
    infrared = Images(*(np.array(x, np.int32) for x in ([1, 1, 3, 3], [3] * 4, [0, 1, 2])), np.zeros(0, np.uint8))
    labels = {
        "own_visible": np.array([0, 0, 1, 1, 2, 2, -1]),
        "own_infrared": np.array([5, 5, 6, 6]),
        "cross_visible": np.array([5, 5, 6, -1, -1, -1, 5]),
    }
    pairs, people = of_epoch(labels, Modality.VISIBLE, Pair(visible, infrared))
    assert [pair[:12] for pair in pairs] == [
        [0, 2, 1, 2, 2, 5, 100, 2, 1, 2, 2, RIGHT],
        [1, 2, 2, 2, 2, 6, 50, 2, 3, 2, 2, WRONG],
        [2, 2, 3, 2, 2, -1, 0, 0, -1, 0, 0, NONE],
    ]
    assert [pair[12:] for pair in pairs] == [[[0], [0, 1]], [[1], [2]], [[2], []]]  # places of thumbnails
    assert people == {1: RIGHT, 2: WRONG, 3: NONE}
    assert of_epoch(labels, Modality.INFRARED, Pair(visible, infrared)) == ([], {})  # nothing was labelled that way


def test_a_shared_space_is_explored_too_and_strangers_are_not_judged() -> None:
    nobody = Images(np.full(3, -1, np.int32), np.ones(3, np.int32), np.arange(3, dtype=np.int32), np.zeros(0, np.uint8))
    labels = {"shared_visible": np.array([0, 0, 1]), "shared_infrared": np.array([0, -1, 0])}
    pairs, people = of_epoch(labels, Modality.VISIBLE, Pair(nobody, nobody))
    assert [(pair[0], pair[5], pair[11]) for pair in pairs] == [(0, 0, UNTOLD), (1, 1, NONE)]
    assert people == {}


def test_the_commonest_person_of_a_cluster_is_a_known_one() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1])
    found = faces(labels, np.array([-1, -1, -1, 4, 4, 9, -1], np.int32))
    assert found == {0: Face(6, 4, 2, 3), 1: Face(1, -1, 0, 0)}


def test_the_explorer_and_the_browser_hold_what_the_runs_kept(page: Path, finished: Path) -> None:
    held = data_of(page)["chapters"][0]
    explorer = held["associations"][0]
    assert explorer["epochs"] == [2, 3, 4]
    with np.load(finished / "labels" / "epoch_004.npz") as labels:
        clusters = [int(label) for label in np.unique(labels["own_visible"]) if label >= 0]
        sizes = [int((labels["own_visible"] == label).sum()) for label in clusters]
    last = explorer["directions"][0]["pairs"][-1]
    assert [pair[:2] for pair in last] == [list(pair) for pair in zip(clusters, sizes, strict=True)]
    browser = held["retrieval"][PROTOCOL]
    query, gallery = held["tiles"]["test-infrared"]["person"], held["tiles"]["test-visible"]["person"]
    first = browser["methods"][0]
    right = [
        gallery[places[0]] == query[tile] for places, tile in zip(first["nearest"][0], browser["query"], strict=True)
    ]
    with np.load(finished / "queries.npz") as scores:
        assert right == (scores[f"{PROTOCOL}/first"][0] == 1).tolist()
        assert (
            first["precision"][0]
            == (1000 * scores[f"{PROTOCOL}/average_precision"][0].astype(float)).round().astype(int).tolist()
        )


def test_tiles_lie_where_the_page_looks_for_them(page: Path) -> None:
    assert data_of(page)["columns"] == COLUMNS
    script = template("start.js")
    assert "place % DATA.columns" in script
    assert "place / DATA.columns" in script


def test_figures_for_papers_are_the_same_twice(page: Path, chapter: Chapter, tmp_path: Path) -> None:
    every = sorted((page.parent / "figures").glob("*.pdf"))
    assert len(every) == 6 + 4 + 1 + 2
    assert all(path.read_bytes().startswith(b"%PDF") for path in every)
    chart = over_epochs(chapter)[0]
    first, second = (write_figures([chart], tmp_path / name)[0].read_bytes() for name in ("one", "two"))
    assert first == second


def test_exported_figures_make_a_page_of_what_they_hold(finished: Path, tmp_path: Path) -> None:
    export(read_results([finished]), tmp_path / "cells")
    text = ra.write_report([tmp_path / "cells"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)-0">', text) == ["overview", "cmc", "sources"]
    assert "mult: exported figures alone; curves" in text


def test_a_run_without_pictures_is_shown_without_them(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints", "exhibits.npz"))
    text = ra.write_report([tmp_path / "bare"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "mult: no pictures; the run kept none" in text
    assert re.findall(r'<section id="(\w+)-0">', text) == ["overview", "epochs", "cmc", "cost", "sources"]


def test_pictures_of_other_data_are_not_mixed_in(finished: Path, rival: Path, tmp_path: Path) -> None:
    shutil.copytree(rival, tmp_path / "other", ignore=shutil.ignore_patterns("checkpoints"))
    result = json.loads((rival / "result.json").read_text())
    result["dataset"]["fingerprint"] = "another"
    (tmp_path / "other" / "result.json").write_text(json.dumps(result))
    (found,) = chapters(read_named([finished, tmp_path / "other"]), allow=True)
    assert found.methods[1].example.exhibits is None
    assert found.notes == ("pgm: no pictures; its data are not those of the first row",)
    sheets = sheets_of(found)
    assert sheets is not None
    browser = browsed(found, sheets)
    assert browser is not None
    assert browser[PROTOCOL]["methods"][1] is None


def test_sheets_join_the_thumbnails_of_runs_of_other_sizes(chapter: Chapter) -> None:
    mult, pgm = (method.example.exhibits for method in chapter.methods)
    assert mult is not None
    assert pgm is not None
    assert mult.test is not None
    few, many = mult.test.visible, mult.train.visible
    part = replace(
        few, shown=few.shown[:5], tiles=pack(torch.zeros(5, 3, 96, 48, dtype=torch.uint8), tile=(96, 48), quality=80)
    )
    sheet = joined([(few, mult.tile), (part, (96, 48))], mult.tile)
    assert np.array_equal(sheet.rows, few.shown)
    assert np.array_equal(sheet.person, few.identity[few.shown])
    assert sheet.jpeg != joined([(many, mult.tile)], mult.tile).jpeg
    sheets = sheets_of(chapter)
    assert sheets is not None
    assert sheets.places("test", Modality.VISIBLE, [int(few.shown[3]), 10**6]) == [3, -1]


def test_a_benchmark_s_datasets_are_chapters(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr("reidassoc.report.page_writer.write_figures", lambda charts, folder: drawn.append(folder))
    cells = []
    for name, dataset in (("a", "synthetic(size='tiny')"), ("b", "synthetic(size='default')")):
        cells.append({"id": name, "method": "mult", "dataset": dataset, "seed": 0})
        shutil.copytree(
            finished, tmp_path / "cells" / name, ignore=shutil.ignore_patterns("checkpoints", "exhibits.npz")
        )
        result = json.loads((finished / "result.json").read_text())
        result["dataset"]["spec"] = dataset
        (tmp_path / "cells" / name / "result.json").write_text(json.dumps(result))
    (tmp_path / "plan.json").write_text(json.dumps({"title": "A & <B>", "cells": cells}))
    page = ra.write_report([tmp_path], tmp_path / "page.html", figures=tmp_path / "figures")
    text = page.read_text(encoding="utf-8")
    assert "<title>A &amp; &lt;B&gt;</title>" in text
    assert re.findall(r'<section id="overview-(\d)">', text) == ["0", "1"]
    assert re.findall(r'<h2 class="dataset">([^<]*)</h2>', text) == [
        html.escape(f"A & <B> {cell['dataset']}") for cell in cells
    ]
    assert len(data_of(page)["chapters"]) == 2
    assert drawn == [tmp_path / "figures" / "0", tmp_path / "figures" / "1"]


def test_runs_of_several_datasets_are_chapters_that_say_of_what(finished: Path, tmp_path: Path) -> None:
    for name, dataset in (("a", "synthetic(size='tiny')"), ("b", "synthetic(size='default')")):
        shutil.copytree(finished, tmp_path / name, ignore=shutil.ignore_patterns("checkpoints", "exhibits.npz"))
        result = json.loads((finished / "result.json").read_text())
        result["dataset"]["spec"] = dataset
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    text = html.unescape(ra.write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html").read_text("utf-8"))
    assert "<title>mult on synthetic(size='tiny') and synthetic</title>" in text
    headings = ["mult on synthetic(size='tiny')", "mult on synthetic"]
    assert re.findall(r'<h2 class="dataset">([^<]*)</h2>', text) == headings
    assert re.findall(r"<ul><li><a href=\"#chapter-\d\"><b>([^<]*)</b>", text) == headings
    text = html.unescape(
        ra.write_report([tmp_path / "a", f"other={tmp_path / 'b'}"], tmp_path / "page.html").read_text("utf-8")
    )
    assert "<title>mult on synthetic(size='tiny'); other on synthetic</title>" in text


def test_the_command_line_writes_it(finished: Path, rival: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["report", str(finished), str(rival), "--out", str(out), "--no-published"])
    assert done.exit_code == 0, done.output
    assert re.match(rf"report in {re.escape(str(out))} \(0\.\d MiB\)\n$", done.output)
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["NOWHERE"], "is no run folder, benchmark folder or exported cell"),
        (["RUN", "RUN"], "row 'mult' has seed 0 twice"),
        (["RUN", "--protocol", "all"], "no protocol 'all' that all runs have; there are: all-search single-shot"),
        (["RUN", "--out", "nowhere/page.html"], "can't write nowhere/page.html"),
    ],
)
def test_what_can_t_be_reported_is_said(
    words: list[str], message: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["report", *(str(finished) if word == "RUN" else word for word in words)])
    assert isinstance(done.exception, DataError)
    assert message in str(done.exception)


def test_spoilt_files_of_a_run_are_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    np.savez(tmp_path / "run" / "labels" / "epoch_004.npz", own_visible=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"epoch_004\.npz holds no labels: expected one int64 per image"):
        ra.write_report([tmp_path / "run"], tmp_path / "page.html")
    rows = (finished / "metrics.jsonl").read_text().replace('"stage": "cross"', '"stage": 5', 1)
    (tmp_path / "run" / "metrics.jsonl").write_text(rows)
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 3: stage: Input should be a valid string"):
        ra.write_report([tmp_path / "run"], tmp_path / "page.html")


def test_figures_that_can_t_be_written_are_said(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write figures into"):
        ra.write_report([finished], tmp_path / "page.html", figures=tmp_path / "file")


def test_a_run_makes_its_own_page_unless_told_not_to(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for words, there in ((["--no-report"], False), ([], True)):
        done = CliRunner().invoke(cli, ["run", "--resume", str(tmp_path / "run"), "--device", "cpu", *words])
        assert done.exit_code == 0, done.output
        assert (tmp_path / "run" / "report.html").is_file() == there
        assert ("Page: " in done.output) == there


def test_a_page_that_can_t_be_made_does_not_spoil_the_run(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    own = OwnPage()
    own.finish(Result(tmp_path, {}))
    assert own.problem.startswith("no report.html: ")


def test_nor_does_a_fault_of_ours(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object, **__: object) -> None:
        raise KeyError("a\nb")

    monkeypatch.setattr(own_module, "write_report", faulty)
    own = OwnPage()
    own.finish(Result(finished, {}))
    assert own.problem.startswith("no report.html, by a fault of reidassoc's: KeyError: ")
    assert own.problem.endswith(f"the run is whole; more: reidassoc report {finished}")
    assert "\n" not in own.problem


def test_methods_of_one_colour_differ_in_the_legend_as_their_lines_do() -> None:
    methods = [SimpleNamespace(name=f"method {number}", colour=number) for number in range(25)]
    keys = re.findall(r'class="key (m\d d\d)"', sections.legend(SimpleNamespace(methods=methods)))  # type: ignore[arg-type]
    lines = tuple(Line(method.name, method.colour, (1.0, 2.0), (1.0, 2.0)) for method in methods)
    drawn = re.findall(
        r'class="line (m\d)".*?class="stroke"(?: stroke-dasharray="(.*?)")?', svg_of(Curves("n", "t", "x", "y", lines))
    )
    assert len(set(keys)) == len(set(drawn)) == 25
    assert len(set(zip(keys, drawn, strict=True))) == 25
    for number, dash in enumerate(DASHES):
        assert (f".key.d{number}::before{{" in template("report.css")) == bool(dash)


def test_a_run_without_a_match_is_reported_without_figures(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "unmatched"
    shutil.copytree(finished, copy)
    data = json.loads((copy / "result.json").read_text())
    nothing = {name: {key: {"mean": None, "std": None} for key in found} for name, found in data["protocols"].items()}
    note = f"{PROTOCOL}: none of 9 queries has a relevant gallery image: no figure"
    (copy / "result.json").write_text(
        json.dumps({**data, "protocols": nothing, "best_epoch_oracle": {}, "notes": [note]})
    )
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    rows = [{**row, "retrieval": nothing} if "retrieval" in row else row for row in rows]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = load_scores(copy / SCORES)
    save_scores(copy / SCORES, {name: replace(held, first=0 * held.first) for name, held in scores.items()})
    text = ra.write_report([copy], tmp_path / "page.html").read_text()
    assert "no query has a match" in text
    assert "none of 9 queries has a relevant gallery image" in text


def test_gaps_and_single_points_are_drawn() -> None:
    line = Line("a", 0, (1.0, 2.0, 3.0), (1.0, math.nan, 3.0))
    drawn = svg_of(Curves("name", "title", "x", "y", (line,)))
    assert re.search(r'class="stroke" d="M[\d. ]+M[\d. ]+"', drawn)
    assert "NaN" not in drawn
    assert "nan" not in drawn
    svg_of(Curves("name", "title", "x", "y", (Line("a", 0, (1.0,), (1.0,)),)))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (43.0, 47.0), (0.0, 1e6), (-2.0, 3.0), (5.0, 5.0)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert all(low <= tick <= high for tick in found)
    assert 1 <= len(found) <= 9
