"""Reproduction of published figures, and released checkpoints as run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from support.released import released

import reidassoc as ra
from reidassoc import registry
from reidassoc.bench import reproduce as module
from reidassoc.bench.reproduce import Verdict, changes, flat, reproduce, targets
from reidassoc.cli.import_checkpoint import import_checkpoint as command
from reidassoc.cli.output import reproduction_table
from reidassoc.cli.reproduce import reproduce as reproduce_command
from reidassoc.data.export import export
from reidassoc.engine.import_checkpoint import FORMATS, import_checkpoint
from reidassoc.errors import CheckpointError, RecipeError
from reidassoc.evaluation.statistics import estimate
from reidassoc.recipe.choose import choose
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.tables.published import Published
from reidassoc_plugins.networks.two_stream import TwoStream

SMALL: list[tuple[str, Any]] = [
    ("network", "tiny(width=32)"), ("size", [64, 32]), ("clusterer", "dbscan(eps=0.6, min_samples=4, k1=8, k2=4)"),
    ("associator.k1", 8), ("associator.k2", 4), ("evaluate_every", 1),
    *[(f"{stage}.{key}", value) for stage in ("intra", "cross")
      for key, value in {"epochs": 1, "iterations": 2, "identities": 3, "images": 2}.items()],
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "sysu"
    small = registry.build("datasets", "synthetic(size='tiny', identities=8, test_identities=4, images=4)")
    export(small, place, layout="sysu_mm01")
    return place


def test_a_missed_figure_names_what_deviates(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = choose(recipe="mult/sysu_mm01", root=str(tree), changes=SMALL)
    found = reproduce(recipe, out=tmp_path / "out", device="cpu")
    assert [verdict.protocol for verdict in found.verdicts] == [
        f"{search}-search {shot}-shot" for shot in ("single", "multi") for search in ("all", "indoor")
    ]
    first = found.verdicts[0]
    assert first.published.figures["mAP"] == 59.23
    result = json.loads((tmp_path / "out" / "seed-0" / "result.json").read_text())
    assert first.ours["mAP"].mean == pytest.approx(result["protocols"][first.protocol]["mAP"]["mean"])
    assert first.interval[0] < first.ours["mAP"].mean < first.interval[1]
    told = "\n".join(found.deviations)
    for part in (
        "published with 2 GPUs", "data: ", 'network: "tiny(width=32)" instead of "two_stream(depth=50',
        "cross.epochs: 1 instead of 50", "ours: the last", "mean of 10 trials; ours: 1 seed(s)", "torch ",
    ):  # fmt: skip
        assert part in told, part
    reproduction_table(Console(width=160), found)
    printed = capsys.readouterr().out
    assert "64.8 / 59.2" in printed
    assert ("What deviates" in printed) == any(not verdict.reached for verdict in found.verdicts)
    before = (tmp_path / "out" / "seed-0" / "result.json").stat().st_mtime_ns
    assert reproduce(recipe, out=tmp_path / "out", device="cpu") == found
    assert (tmp_path / "out" / "seed-0" / "result.json").stat().st_mtime_ns == before
    assert reproduce(recipe, out=tmp_path / "out", seeds=[0, 0], device="cpu") == found  # one run, not two
    other = override(recipe, [("associator.alpha", 0.3)])
    with pytest.raises(RecipeError, match="seed-0 holds the result of another recipe; choose another --out"):
        reproduce(other, out=tmp_path / "out", device="cpu")


def test_a_protocol_without_a_published_figure_ends_before_anything_runs(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = choose(recipe="mult/sysu_mm01", root=str(tree), changes=SMALL)
    known = {f"{name} (official galleries)": row for name, row in targets(recipe).items()}
    monkeypatch.setattr(module, "targets", lambda recipe: known)
    with pytest.raises(
        RecipeError, match=r"has the protocols all-search single-shot, .* of all-search single-shot .off"
    ):
        reproduce(recipe, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_log_of_a_run_that_fails_is_closed(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Log(Observer):
        def close(self) -> None:
            closed.append(True)

    def run(what: Recipe, **more: Any) -> None:
        raise RecipeError("seen")

    monkeypatch.setattr(module, "run", run)
    with pytest.raises(RecipeError, match="seen"):
        reproduce(choose(recipe="mult/sysu_mm01", root=str(tree)), out=tmp_path / "out", device="cpu", log=Log)
    assert closed == [True]


def test_a_run_killed_before_its_first_checkpoint_is_begun_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = choose(recipe="mult/sysu_mm01", root=str(tree))
    asked: list[bool] = []

    def run(what: Recipe, *, resume: bool, **more: Any) -> None:
        asked.append(resume)
        raise RecipeError("seen")

    monkeypatch.setattr(module, "run", run)
    for _ in range(2):
        with pytest.raises(RecipeError, match="seen"):
            reproduce(recipe, out=tmp_path / "out", device="cpu")
        RunFolder(tmp_path / "out" / "seed-0").path.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "seed-0" / "recipe.yaml").write_text(recipe.to_yaml())
    assert asked == [False, True]


def test_verdicts() -> None:
    row = Published("X", "Y", {"rank1": 60.0, "mAP": 50.0}, "s", True, True, "10 trials")

    def verdict(low: float, high: float, best: float) -> str:
        return Verdict("p", row, {"mAP": estimate([(low + high) / 2])}, (low, high), best).text

    assert verdict(49, 52, 51) == "reproduced"
    assert verdict(51, 53, 53) == "above the published figure"
    assert verdict(44, 48, 49) == "missed by 4.0 mAP"
    assert verdict(44, 48, 50.5) == "missed by 4.0 mAP; the best epoch, which is what was published, reaches it"


def test_what_is_not_published_can_not_be_reproduced() -> None:
    with pytest.raises(RecipeError, match="no published figure of MULT on synthetic is known; no method is"):
        targets(choose(recipe="mult/synthetic"))
    with pytest.raises(RecipeError, match="no published figure of MULT on llcm is known; known there: ADCA, MMM"):
        targets(choose(recipe="mult/llcm", root="/nowhere"))
    for recipe_name, known in (("cclnet/sysu_mm01", "CCLNet"), ("nulc/regdb", "N-ULC"), ("mmm_released/llcm", "MMM")):
        assert {row.name for row in targets(choose(recipe=recipe_name, root="/nowhere")).values()} == {known}
    recipe = choose(recipe="mult/synthetic", seed=3)
    assert changes(recipe) == []
    assert changes(override(recipe, [("intra.epochs", 9)]))[0].startswith("intra.epochs: 9 instead of ")
    assert changes(recipe.model_copy(update={"name": "mine"})) == ["mine is no shipped recipe"]
    assert flat({"a": {"b": 1}, "c": [1, 2]}) == {"a.b": 1, "c": [1, 2]}


@pytest.mark.parametrize("form", FORMATS)
def test_a_released_checkpoint_becomes_a_run_folder(form: str, tree: Path, tmp_path: Path) -> None:
    state = released(form, tmp_path / "x.pth", epoch=41)
    folder = import_checkpoint(tmp_path / "x.pth", form=form, root=str(tree), out=tmp_path / "run")
    stored = torch.load(folder.checkpoints()[0], weights_only=True)
    assert stored["epoch"] == 42
    assert torch.equal(stored["network"]["neck.weight"], state["bottleneck.weight"])
    assert torch.equal(stored["network"]["stems.infrared.conv1.weight"], state["thermal_module.thermal.conv1.weight"])
    assert json.loads((folder.path / "imported.json").read_text())["format"] == form
    assert folder.recipe.name == f"imported/{form}"
    with pytest.raises(
        RecipeError, match="holds a released checkpoint, which can't be trained on; next: reidassoc evaluate"
    ):
        ra.run(folder.recipe, out=folder.path, device="cpu", resume=True)
    if form == "mult":  # small images: what is tested is the path, not the figures
        (folder.path / "recipe.yaml").write_text(folder.recipe.model_copy(update={"size": (32, 16)}).to_yaml())
        found = ra.evaluate(folder.path, device="cpu")
        assert found["epoch"] == 41
        assert len(found["protocols"]) == 4


def test_a_checkpoint_with_scores_becomes_a_run_and_a_start(tree: Path, tmp_path: Path) -> None:
    """AGW's, CAJ's and DEEN's ``train.py`` save {'net', 'cmc', 'mAP', 'mINP', 'epoch'}."""
    state = released("agw", tmp_path / "x.pth")
    scores = {"cmc": np.arange(3.0), "mAP": np.float64(0.5), "mINP": np.float64(0.4), "epoch": 7}
    torch.save({"net": state, **scores}, tmp_path / "x y.t")
    words = [str(tmp_path / "x y.t"), "--format", "agw", "--data", str(tree), "--out", str(tmp_path / "a run")]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.output.endswith(f"next: reidassoc evaluate '{tmp_path / 'a run'}'\n")
    stored = torch.load(tmp_path / "a run" / "checkpoints" / "epoch_008.pt", weights_only=True)
    assert torch.equal(stored["network"]["neck.weight"], state["bottleneck.weight"])
    network = TwoStream(non_local=True, weights=str(tmp_path / "x y.t")).build(size=(32, 16))
    assert torch.equal(network.neck.weight, state["bottleneck.weight"])


def test_what_is_no_released_checkpoint_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    released("salcr", path)
    with pytest.raises(CheckpointError, match="no format 'mlt'; did you mean 'mult'"):
        import_checkpoint(path, form="mlt", root="/nowhere")
    with pytest.raises(CheckpointError, match="is no checkpoint of the format agw: it looks like salcr"):
        import_checkpoint(path, form="agw", root="/nowhere", out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="left over"):
        import_checkpoint(path, form="mult", root="/nowhere", out=tmp_path / "run")
    torch.save({"a.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"its keys begin with a\.weight"):
        import_checkpoint(path, form="mult", root="/nowhere", out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="no weights file"):
        import_checkpoint(tmp_path / "none.pth", form="mult", root="/nowhere")
    assert not (tmp_path / "run").exists()
    assert CliRunner().invoke(command, [str(path), "--format", "mult", "--data", "/nowhere"]).exception is not None


def test_a_run_is_tested_on_another_dataset(tree: Path, tmp_path: Path) -> None:
    """Train on one, test on another: one option."""
    recipe = choose(recipe="mult/sysu_mm01", root=str(tree), changes=SMALL)
    folder = tmp_path / "run"
    ra.run(recipe, out=folder, device="cpu")
    other = "synthetic(size='tiny', identities=8, test_identities=4, images=4, seed=5)"
    crossed, own = ra.evaluate(folder, dataset=other, device="cpu"), ra.evaluate(folder, device="cpu")
    assert crossed["dataset"] == other
    assert crossed["protocols"] != own["protocols"]
    assert RunFolder(folder).metrics


def test_it_runs_as_on_the_published_number_of_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def attempt(recipe: Recipe, **more: Any) -> None:
        asked.append(recipe.as_gpus)
        assert changes(recipe) == []
        raise RecipeError("seen")

    monkeypatch.setattr(module, "reproduce", attempt)
    for extra in ([], ["--as-gpus", "1"]):
        CliRunner().invoke(reproduce_command, ["mult/sysu_mm01", "--data", str(tmp_path), *extra])
    assert asked == [2, 1]
