"""Rows of tables: a name and a method; what differs names them apart, and seeds of different methods are never averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cells import ALL, cell

from reidassoc.errors import DataError
from reidassoc.recipe.choose import choose
from reidassoc.recipe.configuration import configuration, method_digest
from reidassoc.recipe.model import Recipe
from reidassoc.report.chapters import chapters, read_named
from reidassoc.tables.read import export, read_results
from reidassoc.tables.rows import row_names
from reidassoc.tables.table import compare_results


def stored(folder: Path, seed: int, recipe: Recipe, name: str = "pgm", gain: float = 0.0, **changes: Any) -> Path:
    """A result as a run of the recipe writes it."""
    made = folder / f"{name}-{method_digest(recipe)}"
    made.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"recipe": recipe.name, "configuration": configuration(recipe), "files": {}}
    return cell(made, name, seed, gain, **{**facts, **changes})


def small(**choices: Any) -> Recipe:
    return choose(**{"recipe": "mult/synthetic", "associator": "pgm", **choices})


def test_two_objectives_under_one_name_are_two_rows(tmp_path: Path) -> None:
    one, other = small(objectives=["acl"]), small(objectives=["dcl"])
    paths = [stored(tmp_path, 0, one), stored(tmp_path, 1, other, gain=9.0), stored(tmp_path, 2, one)]
    table = compare_results(read_results(paths))
    assert [row.name for row in table.rows] == ["pgm (objective=acl)", "pgm (objective=dcl)"]
    assert [row.entries[0].text for row in table.rows] == ["2", "1"]
    means = [json.loads(path.read_text())["protocols"][ALL]["mAP"]["mean"] for path in paths]
    place = table.columns.index("mAP")
    assert table.rows[0].entries[place].mean == pytest.approx((means[0] + means[2]) / 2)
    assert table.rows[1].entries[place].mean == pytest.approx(means[1])
    assert {(c.first, c.second) for c in table.comparisons} == {("pgm (objective=dcl)", "pgm (objective=acl)")}
    backwards = {row.name for row in compare_results(read_results(paths[::-1])).rows}
    assert backwards == {row.name for row in table.rows}


def test_every_option_that_differs_is_told(tmp_path: Path) -> None:
    one = small(associator="mult(alpha=0.05)", changes={"clusterer.eps": 0.6})
    other = small(associator="mult(alpha=0.9)", changes={"clusterer.eps": 0.4})
    results = read_results([stored(tmp_path, 0, one, "mult"), stored(tmp_path, 1, other, "mult")])
    assert results.rows == ("mult (alpha=0.05, eps=0.6)", "mult (alpha=0.9, eps=0.4)")


def test_seed_place_and_oracle_are_no_other_method(tmp_path: Path) -> None:
    one = small()
    again = small(seed=5, oracle=True).model_copy(update={"name": "mine", "reference": "x"})
    regdb = [choose(associator="pgm", dataset=f"regdb(split={split})", root=f"/data/{split}") for split in (1, 2)]
    for first, second in ((one, again), regdb):
        assert configuration(first) == configuration(second)
        assert method_digest(first) == method_digest(second)
    results = read_results([stored(tmp_path, 0, one), stored(tmp_path / "again", 5, again)])
    assert results.rows == ("pgm",)


def test_an_option_at_its_default_is_no_other_method() -> None:
    plain = configuration(small(objectives=["acl"]))
    default = plain["cross.objective.acl.momentum"]
    assert configuration(small(objectives=[f"acl(momentum={default})"])) == plain
    assert configuration(small(objectives=[f"acl(momentum={default / 2})"])) != plain


def test_an_edited_file_of_plug_ins_is_another_method(tmp_path: Path) -> None:
    paths = [
        stored(tmp_path / text_hash, seed, small(), files={"mine.py": text_hash})
        for seed, text_hash in enumerate(("0123456789ab", "ba9876543210"))
    ]
    assert read_results(paths).rows == ("pgm (file mine.py=01234567)", "pgm (file mine.py=ba987654)")


def test_named_runs_of_two_methods_are_two_rows_of_a_report(tmp_path: Path) -> None:
    for seed, objective in enumerate(("acl", "dcl")):
        stored(tmp_path / "runs" / objective, seed, small(objectives=[objective]))
    paths = [f"mine={next(tmp_path.glob(f'runs/{objective}/*'))}" for objective in ("acl", "dcl")]
    (chapter,) = chapters(read_named(paths))
    assert [method.name for method in chapter.methods] == ["mine (objective=acl)", "mine (objective=dcl)"]


def test_many_differences_are_cut_short_but_tell_apart() -> None:
    def result(**settings: Any) -> dict[str, Any]:
        return {"method": {}, "recipe": "r", "configuration": {f"cross.{key}": v for key, v in settings.items()}}

    many = [result(**dict.fromkeys("abcdef", n)) for n in (1, 2)]
    first, second = row_names([("m", data) for data in many])
    assert (first, second) == ("m (a=1, b=1, c=1, d=1 and 2 more)", "m (a=2, b=2, c=2, d=2 and 2 more)")
    recipes = [{**data, "recipe": f"r/{n}"} for n, data in enumerate(many)]
    assert row_names([("m", data) for data in recipes]) == ["m (recipe r/0)", "m (recipe r/1)"]
    hidden = [result(a=1, b=1, c=1, d=1, e=n, f=n) for n in (1, 2)] + [result(a=2, b=2, c=2, d=2, e=3, f=3)]
    assert len(set(row_names([("m", data) for data in hidden]))) == 3
    weights = [
        {"method": {}, "configuration": {"cross.objective.acl.weight": w, "intra.objective.dcl.weight": 1 - w}}
        for w in (0.25, 0.5)
    ]
    assert row_names([("m", data) for data in weights])[0] == (
        "m (cross.objective.acl.weight=0.25, intra.objective.dcl.weight=0.75)"
    )


def test_exported_cells_keep_what_tells_rows_apart(tmp_path: Path) -> None:
    paths = [stored(tmp_path, seed, small(objectives=[name])) for seed, name in enumerate(("acl", "dcl"))]
    results = read_results(paths)
    export(results, tmp_path / "out")
    assert read_results([tmp_path / "out"]).rows == results.rows


def test_a_row_of_two_data_is_refused(tmp_path: Path) -> None:
    paths = [
        stored(tmp_path / data, seed, small(), dataset={"spec": "manifest(root='/a')", "fingerprint": data})
        for seed, data in enumerate(("one", "two"))
    ]
    with pytest.raises(DataError, match=r"differ in data fingerprint \(one: pgm; two: pgm\)"):
        compare_results(read_results(paths))
