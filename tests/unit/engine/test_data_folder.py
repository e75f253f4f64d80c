"""Where a run's data lie: found again from any working folder, no part of a digest, and named where it is gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.small import SMALL

import reidassoc as ra
from reidassoc.bench.plan import read_plan
from reidassoc.cli import cli
from reidassoc.data.export import export
from reidassoc.engine import train
from reidassoc.errors import DataError, RecipeError
from reidassoc.recipe.choose import choose
from reidassoc.registry.spec import Spec
from reidassoc.runs.folder import RunFolder
from reidassoc_plugins.datasets.synthetic import Synthetic

LOST = r"{run}: its data were in {data}, where nothing is now; give --data FOLDER"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with `mine`, a dataset, and `run`, a run on it that was given the relative path."""
    place = tmp_path_factory.mktemp("begun")
    export(Synthetic(size="tiny"), place / "mine", layout="manifest")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        changes = [*SMALL, ("intra.epochs", 1), ("cross.epochs", 1), ("evaluate_every", 0)]
        recipe = choose(recipe="mult/synthetic", dataset="manifest", root="mine", changes=changes)
        ra.run(recipe, out="run", device="cpu")
    return place


@pytest.fixture
def moved(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, whose data are gone from where they were, seen from a third folder; `there` has them."""
    shutil.copytree(begun, tmp_path / "copy")
    (tmp_path / "copy" / "mine").rename(tmp_path / "there")
    stored = {"dataset": f"manifest(root='{tmp_path}/copy/mine')", "pictures": True}
    (tmp_path / "copy" / "run" / "settings.json").write_text(json.dumps(stored))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def test_a_run_keeps_the_typed_folder_and_the_absolute_one(begun: Path) -> None:
    folder = RunFolder(begun / "run")
    assert str(folder.recipe.dataset) == "manifest(root='mine')"
    assert str(folder.dataset) == f"manifest(root='{begun}/mine')"
    result = json.loads((begun / "run" / "result.json").read_text())
    assert result["dataset"]["spec"] == "manifest(root='mine')"


def test_a_relative_folder_is_found_from_any_other(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = begun / "run"
    result = json.loads((run / "result.json").read_text())
    assert ra.evaluate(run, device="cpu")["protocols"] == result["protocols"]
    assert len(ra.save_features(run, tmp_path / "f.npz", device="cpu").features.visible) == 128
    assert ra.run(out=run, resume=True, device="cpu").protocols == result["protocols"]
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "exhibits.npz").unlink()  # the report makes it again from the data
    assert b"data:image/jpeg" in ra.write_report(tmp_path / "copy", "page.html", device="cpu").read_bytes()
    assert str(RunFolder(run).recipe.dataset) == "manifest(root='mine')"


def test_data_that_are_gone_are_named_and_may_be_given(moved: Path) -> None:
    run, there = moved / "copy" / "run", moved / "there"
    lost = LOST.format(run=run, data=moved / "copy" / "mine")
    for call in (
        lambda: ra.evaluate(run, device="cpu"),
        lambda: ra.save_features(run, "f.npz", device="cpu"),
        lambda: ra.run(out=run, resume=True, device="cpu"),
    ):
        with pytest.raises(DataError, match=lost):
            call()
    assert ra.evaluate(run, root=there, device="cpu")["epoch"] == 1
    assert len(ra.save_features(run, "f.npz", root=there, device="cpu").features.visible) == 128
    assert ra.run(out=run, resume=True, root=there, device="cpu").protocols
    assert ra.evaluate(run, device="cpu")["epoch"] == 1  # the resumed run says where they are now


def test_the_command_line_takes_the_data_of_a_run_s_folder(moved: Path) -> None:
    run, there = str(moved / "copy" / "run"), str(moved / "there")
    for words in (["features", run, "--out", "f.npz"], ["run", "--resume", run], ["evaluate", run]):
        refused = CliRunner().invoke(cli, [*words, "--device", "cpu"])
        assert isinstance(refused.exception, DataError)
    for words in (["features", run, "--out", "f.npz"], ["run", "--resume", run, "--no-report"], ["evaluate", run]):
        done = CliRunner().invoke(cli, [*words, "--device", "cpu", "--data", there], catch_exceptions=False)
        assert done.exit_code == 0, done.output


def test_a_run_is_not_resumed_on_other_data(moved: Path) -> None:
    export(Synthetic(size="tiny", seed=1), moved / "other", layout="manifest")
    with pytest.raises(
        DataError, match=r"run began on other data than manifest\(root='.*other'\): names, people or sizes"
    ):
        ra.run(out=moved / "copy" / "run", resume=True, root=moved / "other", device="cpu")


def test_a_recipe_object_says_itself_where_its_data_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a recipe says where its data are"):
        ra.save_features(choose(), tmp_path / "f.npz", root="mine")


def test_a_digest_does_not_depend_on_where_the_data_are() -> None:
    one, other = (choose(recipe="mult/sysu_mm01", root=root) for root in ("mine", "/data/SYSU-MM01"))
    assert one.digest == other.digest == choose(recipe="mult/sysu_mm01").digest
    assert one.prefix_digest(1) == other.prefix_digest(1)
    joined = [f"union(first='regdb(split=2, root=\"{root}\")', second='llcm', root='{root}')" for root in "ab"]
    assert len({choose(dataset=spec).digest for spec in joined}) == 1
    assert one.digest != choose(dataset="sysu_mm01(galleries='official')", root="mine").digest


def test_folders_become_absolute_wherever_a_spec_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    here = {
        "synthetic(size='tiny')": "synthetic(size='tiny')",
        "manifest(root='mine')": f"manifest(root='{tmp_path}/mine')",
        "manifest(root='~/mine')": "manifest(root='/home/me/mine')",
        "union(first='a', second='b', root='x:/y')": f"union(first='a', second='b', root='{tmp_path}/x:/y')",
        "union(first='a(root=x)', second='b')": f"union(first=\"a(root='{tmp_path}/x')\", second='b')",
        "union(first='a', second='b', root='')": "union(first='a', second='b', root='')",
    }
    assert {spec: str(Spec.parse(spec).with_absolute_roots()) for spec in here} == here
    (tmp_path / "x:y").mkdir()  # one folder, whatever its name
    assert str(Spec.parse("manifest(root='x:y')").with_absolute_roots()) == f"manifest(root='{tmp_path}/x:y')"


def test_datasets_that_differ_in_their_folder_alone_are_refused_in_one_grid(tmp_path: Path) -> None:
    text = "name: two\nrecipe: mult/synthetic\ndatasets: [manifest(root='a'), manifest(root='b')]\nmethods: {mult: }\n"
    (tmp_path / "two.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"differ in their folders alone, .* make two benchmarks"):
        read_plan(tmp_path / "two.yaml")


@pytest.mark.parametrize(
    ("recipe", "dataset", "name"),
    [
        ("mult/synthetic", "manifest", "mult-manifest"),
        ("mult/synthetic", "synthetic", "mult-synthetic"),
        ("mult/sysu_mm01", "regdb", "mult-regdb"),
        ("mult/sysu_mm01_vit", "llcm", "mult-llcm_vit"),
    ],
)
def test_a_run_folder_is_named_after_the_dataset_that_is_used(recipe: str, dataset: str, name: str) -> None:
    assert train.title(choose(recipe=recipe, dataset=dataset)) == name
    assert train.title(choose(recipe=recipe, dataset=dataset, associator="nearest")) == f"{name}-nearest"
