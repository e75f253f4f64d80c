"""Comparison tables: what they refuse, what they mark, how they are drawn and escaped, what stands beside them."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console
from support.cells import ALL, cell

from reidassoc import registry
from reidassoc.cli.table import table as command
from reidassoc.engine.devices import processes
from reidassoc.errors import DataError
from reidassoc.files.features import read_features
from reidassoc.recipe.load import load_recipe, parse_recipe
from reidassoc.registry.spec import Spec
from reidassoc.runs.folder import RunFolder
from reidassoc.tables.formats import FORMATS, as_csv, as_html, figure, latex, markdown, terminal_table, write_between
from reidassoc.tables.published import content, published
from reidassoc.tables.read import Results, export, read_results
from reidassoc.tables.table import Table, compare_results
from reidassoc.tables.terminal_table import print_columns


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for seed in range(3):
        cell(tmp_path / "cells", "good", seed, 6.0, place=0)
        cell(tmp_path / "cells", "near", seed + 10, 5.6, place=1)
        cell(tmp_path / "cells", "bad & <i>ug|ly_1</i>", seed + 20, place=2)
    return tmp_path / "cells"


def entries(table: Table, column: str) -> dict[str, Any]:
    return {row.name: row.entries[table.columns.index(column)] for row in table.rows}


def test_best_second_and_what_can_not_be_told_apart(three: Path) -> None:
    table = compare_results(read_results([three]))
    assert [row.name for row in table.rows] == ["good", "near", "bad & <i>ug|ly_1</i>"]
    found = entries(table, "mAP")
    assert [entry.mark for entry in found.values()] == ["best", "second", ""]
    assert [entry.alike for entry in found.values()] == [False, True, False]
    stored = [json.loads((three / f"good-{seed}.json").read_text()) for seed in range(3)]
    each = [data["protocols"][ALL]["mAP"]["mean"] for data in stored]
    assert found["good"].std == pytest.approx(np.std(each, ddof=1))
    assert entries(table, "seeds")["good"].text == "3"
    assert entries(table, "best")["good"].mean == pytest.approx(found["good"].mean + 1)
    low, high = map(float, entries(table, "interval")["good"].text.split(" to "))
    assert low < found["good"].mean < high
    assert high - low > 4  # over people, far wider than over three seeds
    assert "over seeds 0, 1, 2, 10" in table.remarks[0]
    assert any("not distinguishable from good's" in remark for remark in table.remarks)
    assert compare_results(read_results([three])) == table


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    table = compare_results(read_results([cell(tmp_path, "only", 4)]))
    assert "one seed (4): its spread is unknown" in table.remarks[0]
    assert np.isnan(entries(table, "mAP")["only"].std)
    assert "±" not in markdown(table).split("\n", 2)[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": {"fingerprint": "f2"}}, r"data fingerprint \(f1: good; f2: odd\)"),
        ({"setting": {"batch_norm_groups": 2}}, r"batch-norm groups \(1: good; 2: odd\)"),
        ({"setting": {"test_time": ["cmfp"]}}, r"test-time steps \(plain: good; cmfp: odd\)"),
        ({"method": {"network": "tiny(width=64)"}}, r"backbone \(tiny\(width=512\): good; tiny\(width=64\): odd\)"),
        ({"dataset": {"spec": "sysu_mm01(galleries='official')"}}, r"galleries \(community: good; official: odd\)"),
    ],
)
def test_what_can_not_be_compared_is_refused_or_footnoted(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    both = [cell(tmp_path, "good", 0), cell(tmp_path, "odd", 0, 3.0, **changes)]
    with pytest.raises(DataError, match=f"can't stand in one table; they differ in .*{said}") as caught:
        compare_results(read_results(both))
    assert "\n" not in str(caught.value)
    table = compare_results(read_results(both), allow=True, beside_published=False)
    first, second = (" | ".join(table.notes[number - 1] for number in row.notes) for row in table.rows)
    value = next(iter(changes.values()))
    assert first != second
    assert str(next(iter(value.values()))).strip("[]'").split("'")[-2 if "galleries" in str(value) else -1] in second


def test_mixed_protocols_and_double_runs_are_refused(tmp_path: Path) -> None:
    good = cell(tmp_path, "good", 0)
    other = cell(tmp_path, "other", 0)
    data = json.loads(other.read_text())
    data["protocols"] = {"visible-to-infrared": data["protocols"][ALL]}
    other.write_text(json.dumps(data))
    for allow in (False, True):
        with pytest.raises(DataError, match=f"not every row has the protocol '{ALL}': other has visible-to-infrared"):
            compare_results(read_results([good, other]), allow=allow)
    (tmp_path / "copy").mkdir()
    twice = tmp_path / "copy" / "x.json"
    twice.write_text(good.read_text())
    with pytest.raises(DataError, match="row 'good' has seed 0 twice"):
        compare_results(read_results([good, twice]))
    with pytest.raises(DataError, match="no column 'rank11'; did you mean 'rank"):
        compare_results(read_results([good]), columns=["rank11"])


def test_the_oracle_is_not_ranked_and_regdb_s_splits_are_counted(tmp_path: Path) -> None:
    paths = [cell(tmp_path, "mult", 0, 2.0), cell(tmp_path, "weak", 0)]
    paths.append(cell(tmp_path, "oracle", 0, 20.0, flags=["uses true identities"]))
    table = compare_results(read_results(paths))
    assert {name: entry.mark for name, entry in entries(table, "mAP").items()} == {
        "mult": "best", "weak": "second", "oracle": "",
    }  # fmt: skip
    assert "an upper bound" in table.notes[table.rows[2].notes[0] - 1]
    split = cell(tmp_path, "split", 0, dataset={"spec": "regdb(split=3)"})
    assert "1/10 of RegDB's splits" in compare_results(read_results([split])).notes[0]


def test_latex_is_booktabs_and_escaped(three: Path) -> None:
    text = latex(compare_results(read_results([three])))
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"bad \& \textless{}i\textgreater{}ug|ly\_1" in text
    assert re.search(r"\\textbf\{\d\d\.\d \$\\pm\$ \d\.\d\}", text)
    assert r"\underline{" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {7}


def test_markdown_html_and_csv_are_escaped(three: Path) -> None:
    table = compare_results(read_results([three]))
    lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9}
    assert r"bad & \<i\>ug\|ly\_1\</i\>" in lines[-1]
    assert "**" in lines[2]
    assert "<u>" in lines[3]
    assert "≈" in lines[3]
    root = ElementTree.fromstring(f"<div>{as_html(table)}</div>")
    assert [row.find("th").text for row in root.iter("tr")][3] == "bad & <i>ug|ly_1</i>"  # type: ignore[union-attr]
    records = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert records[2]["method"] == "bad & <i>ug|ly_1</i>"
    assert float(records[0]["mAP"]) == pytest.approx(entries(table, "mAP")["good"].mean, abs=1e-4)
    assert [record["alike_best"] for record in records] == ["false", "true", "false"]


def test_every_format_is_drawn_by_the_command(three: Path, tmp_path: Path) -> None:
    for kind in FORMATS:
        done = CliRunner().invoke(command, [str(three), "--format", kind])
        assert done.exit_code == 0, done.output
        assert "good" in done.output
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: mine -->\nold\n<!-- end of table -->\nafter\n")
    for _ in range(2):
        assert CliRunner().invoke(command, [str(three), "--into", str(page), "--marker", "mine"]).exit_code == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- table: mine -->\nMeasured on CPU, 1 thread, torch 2.15, 2026-11-21.")
    assert text.endswith("<!-- end of table -->\nafter\n")
    assert "old" not in text
    for more in (["--out", "other.md"], ["--format", "latex"]):
        done = CliRunner().invoke(command, [str(three), "--into", str(page), *more])
        assert "--into writes Markdown into a page; leave out --out and --format" in done.output
    assert page.read_text() == text
    with pytest.raises(DataError, match="has no lines '<!-- table: other -->'"):
        write_between(page, "", "other")
    with pytest.raises(DataError, match="can't read"):
        write_between(tmp_path / "none.md", "", "other")


def test_how_to_go_on_with_a_run_names_the_files_that_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = "from reidassoc_plugins.associators.nearest import Nearest\n\n\nclass CamWalk(Nearest):\n    pass\n"
    (tmp_path / "camwalk.py").write_text(mine)
    folder = RunFolder(tmp_path / "cam2")
    recipe = load_recipe("mult/synthetic").model_dump(mode="json")
    recipe["stages"][1]["associator"] = "cam_walk"
    folder.create(parse_recipe(recipe, "mine"))
    folder.write_json("environment.json", {"files": {"camwalk.py": "0123"}})
    again = re.escape(
        f"{folder.path}: the run has not ended; go on with: reidassoc run --resume {folder.path} --plugin "
    )
    with pytest.raises(DataError, match=f"^{again}camwalk\\.py$"):
        read_results(folder.path)
    monkeypatch.setattr(registry.lookup, "_added", dict(registry.lookup._added))
    registry.load_file(str(tmp_path / "camwalk.py"))  # its place is known then
    with pytest.raises(DataError, match=f"^{again}{re.escape(str(tmp_path))}/camwalk\\.py$"):
        read_results(folder.path)


def test_commands_to_type_quote_paths_with_spaces(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a run")
    folder.create(load_recipe("mult/synthetic"))
    folder.write_json("environment.json", {"files": {"my idea.py": "0123"}})
    quoted = f"'{folder.path}'"
    with pytest.raises(DataError) as unfinished:
        read_results(folder.path)
    assert str(unfinished.value).endswith(f"go on with: reidassoc run --resume {quoted} --plugin 'my idea.py'")
    with pytest.raises(DataError) as taken:
        RunFolder.free(folder.path)
    assert str(taken.value).endswith(f"--resume {quoted}")
    with pytest.raises(DataError) as not_features:
        read_features(folder.path)
    assert str(not_features.value).endswith(f"next: reidassoc features {quoted} --out FILE")
    (tmp_path / processes.FOLDER).write_text(str(folder.path))
    again = processes.next_step(tmp_path, 2, ["--plugin", "my idea.py"])
    assert again.endswith(f"go on with reidassoc run --resume {quoted} --plugin 'my idea.py' --devices 2")


def test_unreadable_runs_are_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="is no run folder, benchmark folder or exported cell"):
        read_results([tmp_path / "run"])
    (tmp_path / "run" / "recipe.yaml").touch()
    (tmp_path / "run" / "environment.json").write_text("{}")  # every run has one: it is no exported cell
    with pytest.raises(DataError, match="the run has not ended; go on with: reidassoc run --resume"):
        read_results([tmp_path / "run"])
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(DataError, match="holds no result of a run"):
        read_results([tmp_path / "run"])
    (tmp_path / "run" / "plan.json").write_text("[]")
    with pytest.raises(DataError, match=r"plan\.json can't be read"):
        read_results([tmp_path / "run"])
    with pytest.raises(DataError, match="there is no run to show"):
        read_results([])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seconds": None}, "seconds.*: Input should be a valid number"),
        ({"seconds": {"this_session": 3.0}}, "seconds.*"),
        ({"environment": 3}, "environment: Input should be a valid dictionary"),
        ({"queries": {ALL: {"precision": [0.5, 0.6], "person": [1]}}}, "2 queries have a precision and 1 a person"),
        ({"queries": {ALL: {"precision": [50.0], "person": [1]}}}, "should be less than or equal to 1"),
    ],
)
def test_what_a_table_would_stumble_over_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = cell(tmp_path, "odd", 0)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(DataError, match=rf"odd-0\.json holds no result of a run: .*{said}"):
        read_results([path])


def test_a_run_without_a_match_has_a_dash_and_a_note(tmp_path: Path) -> None:
    nothing = {ALL: {key: {"mean": None, "std": None} for key in ("rank1", "rank10", "mAP", "mINP")}}
    note = f"{ALL}: none of 3 queries has a relevant gallery image: no figure"
    unmatched = {ALL: {"precision": [None] * 3, "person": [0, 1, 2]}}
    lacking = cell(tmp_path, "lacking", 0, protocols=nothing, notes=[note], queries=unmatched)
    lacking.write_text(json.dumps({**json.loads(lacking.read_text()), "best_epoch_oracle": {}}))
    first, second = (table := compare_results(read_results([cell(tmp_path, "good", 0), lacking]))).rows
    assert [figure(entry) for entry in second.entries[1:5]] == ["–"] * 4
    assert [table.notes[number - 1] for number in second.notes] == [note.removeprefix(f"{ALL}: ")]
    assert not first.notes
    half = cell(tmp_path, "lacking", 1)
    (both,) = compare_results(read_results([lacking, half])).rows
    assert both.entries[3].mean == pytest.approx(json.loads(half.read_text())["protocols"][ALL]["mAP"]["mean"])


def test_queries_without_any_score_are_as_none(tmp_path: Path) -> None:
    path = cell(tmp_path, "odd", 0, queries={ALL: {"precision": [None, None], "person": [1, 2]}})
    assert entries(compare_results(read_results([path])), "interval")["odd"].text == ""


@pytest.mark.parametrize("spoilt", ["{", "[]", "{}"])
def test_a_damaged_failure_hides_no_other_cell(tmp_path: Path, spoilt: str) -> None:
    cells = [{"id": name, "method": name, "dataset": "synthetic", "seed": 0} for name in ("whole", "broken")]
    (tmp_path / "plan.json").write_text(json.dumps({"cells": cells}))
    (tmp_path / "cells" / "whole").mkdir(parents=True)
    cell(tmp_path, "whole", 0).rename(tmp_path / "cells" / "whole" / "result.json")
    (tmp_path / "cells" / "broken.error.json").write_text(spoilt)
    found = read_results([tmp_path])
    assert [outcome.row for outcome in found.outcomes] == ["whole"]
    assert found.missing == (("broken", "synthetic", "seed 0 failed: broken.error.json can't be read"),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": 3}, "'protocol' is no text"),
        ({"title": ["x"]}, "'title' is no text"),
        ({"dataset": "f("}, r"can't read 'f\('"),
    ],
)
def test_a_damaged_plan_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    one = {"id": "a", "method": "m", "dataset": changes.pop("dataset", "synthetic"), "seed": 0}
    (tmp_path / "plan.json").write_text(json.dumps({"cells": [one], **changes}))
    with pytest.raises(DataError, match=rf"plan\.json can't be read \({said}"):
        read_results([tmp_path])


def test_exported_cells_make_the_same_table(three: Path, tmp_path: Path) -> None:
    results = read_results([three])
    written = export(results, tmp_path / "out")
    assert sorted(path.name for path in written)[0] == "bad_i_ug_ly_1_i_-20.json"
    assert max(len(line) for line in written[0].read_text().splitlines()) > 300  # numbers stand on one line
    again = read_results([tmp_path / "out"])
    assert markdown(compare_results(again)) == markdown(compare_results(results))
    with pytest.raises(DataError, match="two results would be called"):
        export(Results(results.outcomes[:1] * 2, names=results.names), tmp_path / "twice")


def test_a_union_is_one_dataset_wherever_its_members_lie(tmp_path: Path) -> None:
    for seed, place in enumerate(("/data/a", "/mnt/b")):
        inner = f"regdb(split=2, root='{place}')"
        nested = str(Spec("union", {"first": inner, "second": "synthetic(size='tiny')"}))
        spec = str(Spec("union", {"first": nested, "second": f"sysu_mm01(root='{place}')", "tested": "root"}))
        cell(tmp_path / "cells", "good", seed, dataset={"spec": spec})
    (results,) = read_results([tmp_path / "cells"]).by_dataset()
    assert len(results.outcomes) == 2
    for path in export(results, tmp_path / "out"):
        kept = Spec.parse(json.loads(path.read_text())["dataset"]["spec"])
        assert Spec.parse(kept.options["first"]).options == {
            "first": "regdb(split=2)",
            "second": "synthetic(size='tiny')",
        }
        assert (kept.options["second"], kept.options["tested"]) == ("sysu_mm01", "root")


def test_published_figures_stand_beside_ours_with_their_source(tmp_path: Path) -> None:
    ours = cell(tmp_path, "mult", 0, dataset={"spec": "sysu_mm01(root='/x')"})
    table = compare_results(read_results([ours]))
    rows = {row.name: row for row in table.rows}
    mult = rows["MULT (IJCV 2024)"]
    assert mult.published
    assert [mult.entries[table.columns.index(c)].mean for c in ("rank1", "mAP", "mINP")] == [64.77, 59.23, 43.46]
    notes = [table.notes[number - 1] for number in mult.notes]
    assert "as printed in: SALCR" in notes[0]
    assert "chosen on the test set" in notes[1]
    assert mult.entries[table.columns.index("best")].mean == 59.23
    unverified = [table.notes[number - 1] for number in rows["DMDL (PR 2026)"].notes]
    assert unverified[0].endswith("(unverified)")
    assert all(not row.published for row in compare_results(read_results([ours]), beside_published=False).rows)
    assert r"\midrule" in latex(table).split("MULT")[0].split("mult")[1]
    steps = cell(tmp_path, "cmfp", 0, dataset={"spec": "sysu_mm01"}, setting={"test_time": ["cmfp"]})
    names = {row.name for row in compare_results(read_results([steps])).rows}
    assert names == {"cmfp", "SALCR + CMFP", "MULT + CMFP"}


def test_the_published_data_are_whole() -> None:
    data = content()
    for key, where in data["protocols"].items():
        assert published(where["dataset"], where["protocol"]), key
    assert set(data) == {
        "sources",
        "best_on_test",
        "protocols",
        "methods",
        "with_transductive_reranking",
    }  # all of it is read
    rows = [*data["methods"], *data["with_transductive_reranking"]]
    assert {entry["source"] for entry in rows} == set(data["sources"])
    for entry in rows:
        known = set(data["protocols"]) | {"name", "venue", "source", "note"}
        assert set(entry) <= known
        for key in set(entry) & set(data["protocols"]):
            assert len(entry[key]) == 3
            assert all(value is None or 0 < value < 100 for value in entry[key])
    assert set(data["best_on_test"]) <= {entry["name"] for entry in data["methods"]}
    assert published("synthetic", ALL) == []
    assert load_recipe("mult/sysu_mm01").name.partition("/")[0].upper() in {entry["name"] for entry in data["methods"]}


def drawn_at(width: int, table: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    columns, cells, ours = terminal_table(table)
    print_columns(console, columns, cells, sections=ours)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 100])
def test_a_terminal_s_table_breaks_no_figure_and_cuts_no_heading(tmp_path: Path, width: int) -> None:
    for seed in range(3):
        cell(tmp_path, "good", seed, 6.0, labels={"visible/precision_cross": 0.4 + seed / 100})
        cell(tmp_path, "near, with a longer name", seed + 10, 5.6)
    columns = ("seeds", "rank1", "mAP", "each", "precision", "seconds")
    table = compare_results(read_results([tmp_path]), columns=columns)
    lines = drawn_at(width, table)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for row in table.rows:
        for entry in row.entries:
            assert figure(entry) in text or figure(entry).replace(" ± ", "±") in text
    rule = next(number for number, line in enumerate(lines) if set(line) == {"─"})
    shown = " ".join(lines[:rule])
    assert all(piece in shown for heading in table.headings for piece in heading.replace("s-m", "s- m").split())


def test_a_table_too_wide_for_its_terminal_goes_beyond_its_edge(three: Path) -> None:
    table = compare_results(read_results([three]))
    lines = drawn_at(40, table)
    assert max(map(len, lines)) > 40
    assert "…" not in "".join(lines)
    assert any(figure(table.rows[0].entries[1]).replace(" ± ", "±") in line for line in lines)
    assert all(piece in "\n".join(lines) for piece in ("bad &", "<i>ug|ly_1</", "i>"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("synthetic", "synthetic"),
        ("synthetic(size='default')", "synthetic"),
        ("synthetic(size='tiny', identities=12)", "synthetic(size='tiny', identities=12)"),
        ("sysu_mm01(root='/data')", "sysu_mm01"),
        ("regdb(root='/data', split=3)", "regdb"),
        ("somebody_s(size=3)", "somebody_s(size=3)"),
    ],
)
def test_a_caption_names_the_options_of_another_dataset_than_the_default(spec: str, said: str, tmp_path: Path) -> None:
    results = read_results([cell(tmp_path, "good", 0, dataset={"spec": spec})])
    assert compare_results(results, beside_published=False).title == f"{said}: {ALL}"
    assert f"{said}: {ALL}".replace("'", "&#x27;") in as_html(compare_results(results, beside_published=False))
