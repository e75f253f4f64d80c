"""A whole run: what it leaves behind, that it is repeatable, and that degenerate labels don't stop it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reidassoc as ra
from reidassoc import registry
from reidassoc.data.export import export
from reidassoc.data.store import ImageStore
from reidassoc.engine import checkpoint, train
from reidassoc.engine.evaluate import evaluate
from reidassoc.engine.label_stage import FALLBACKS, KEPT_LABELS, RELAXED, SKIPPED
from reidassoc.engine.step import Step
from reidassoc.errors import CheckpointError, DataError, PluginError, RecipeError, ReidassocError
from reidassoc.evaluation.queries import load_scores
from reidassoc.interfaces.plugins import Clusterer, Objective, Sampling
from reidassoc.ops.prototypes import centroids
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.types import Clustering, Clusters, Features, Modality, Pair
from reidassoc_plugins.networks.tiny import Tiny


def rows_without_times(folder: Path) -> list[dict[str, Any]]:
    rows = RunFolder(folder).metrics
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_run_leaves_everything_that_a_table_row_is_traced_to(finished: Path, small: Recipe) -> None:
    result = json.loads((finished / "result.json").read_text())
    single = result["protocols"]["all-search single-shot"]
    assert set(single) == {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}
    assert all(set(value) == {"mean", "std"} and 0 <= value["mean"] <= 100 for value in single.values())
    assert set(result["protocols"]) == {f"{a}-search {b}-shot" for a in ("all", "indoor") for b in ("single", "multi")}
    assert result["best_epoch_oracle"]["all-search single-shot"]["mAP"]["mean"] >= single["mAP"]["mean"]
    assert 0 <= result["labels"]["visible/precision_cross"] <= 1
    assert result["digest"] == small.digest
    assert result["flags"] == []
    rows = RunFolder(finished).metrics
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["stage"] for row in rows] == ["intra"] * 2 + ["cross"] * 3
    assert [("retrieval" in row) for row in rows] == [False, True, False, True, True]
    assert rows[-1]["retrieval"] == result["protocols"]
    for protocol, scores in load_scores(finished / "queries.npz").items():
        mean = 100 * np.nanmean(scores.average_precision, axis=1).mean()
        assert mean == pytest.approx(result["protocols"][protocol]["mAP"]["mean"], abs=1e-4)
    assert {"amirl/specific_visible", "oclr/agreement", "loss"} <= set(rows[-1]["losses"])
    with np.load(finished / "labels" / "epoch_004.npz") as labels:
        assert set(labels.files) == {"own_visible", "own_infrared", "cross_visible", "cross_infrared"}
        assert labels["own_visible"].dtype == np.int64
    assert [path.name for path in RunFolder(finished).checkpoints()] == ["epoch_005.pt", "epoch_004.pt"]
    assert not list(finished.rglob(".*"))


def test_the_same_seed_gives_the_same_run(finished: Path, small: Recipe, tmp_path: Path) -> None:
    ra.run(small, out=tmp_path / "again", device="cpu")
    assert rows_without_times(tmp_path / "again") == rows_without_times(finished)
    other = ra.run(override(small, [("seed", 1)]), out=tmp_path / "other", device="cpu")
    assert other.protocols != json.loads((finished / "result.json").read_text())["protocols"]


class Cut(BaseException):
    """The process ends here."""


CUTS = [
    (0, "labels"),
    (0, "save"),
    (1, "step"),
    (1, "metrics"),
    (2, "saved"),
    (3, "half"),
    (4, "metrics"),
    (5, "result"),
]


def cut(monkeypatch: pytest.MonkeyPatch, where: str, at: int) -> None:
    """Have a run end at a certain point of an epoch; 5 is its end."""
    steps = iter(range(10**6))
    write_labels, append, save, write = (
        RunFolder.write_labels,
        RunFolder.append_metrics,
        torch.save,
        RunFolder.write_json,
    )

    def labels(self: RunFolder, epoch: int, targets: Any) -> None:  # between training an epoch and its row
        write_labels(self, epoch, targets)
        die(where == "labels" and epoch == at)

    def step(self: Step, host: Any) -> Any:
        die(where == "step" and self.scene.epoch == at and next(steps) == 2)
        return call(self, host)

    def metrics(self: RunFolder, row: Mapping[str, Any]) -> None:  # between the row and the checkpoint
        append(self, row)
        die(where == "metrics" and row["epoch"] == at)

    def saving(value: Any, path: Path) -> None:
        die(where == "save" and value["epoch"] == at + 1)
        if where == "half" and value["epoch"] == at + 1:
            Path(path).write_bytes(b"half")
            die(True)
        save(value, path)
        die(where == "saved" and value["epoch"] == at + 2)

    def json_file(self: RunFolder, name: str, value: Mapping[str, Any]) -> None:
        die(where == "result" and name == "result.json")
        write(self, name, value)

    def die(here: bool) -> None:
        if here:
            raise Cut

    call = Step.__call__
    monkeypatch.setattr(RunFolder, "write_labels", labels)
    monkeypatch.setattr(RunFolder, "append_metrics", metrics)
    monkeypatch.setattr(RunFolder, "write_json", json_file)
    monkeypatch.setattr(Step, "__call__", step)
    monkeypatch.setattr(torch, "save", saving)


def test_a_run_cut_off_again_and_again_goes_on_to_the_same_end(
    finished: Path, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    for number, (epoch, where) in enumerate(CUTS):
        with monkeypatch.context() as patch:
            cut(patch, where, epoch)
            with pytest.raises(Cut):
                ra.run(small, out=folder, device="cpu", resume=number > 0, keep=4)
    for place in ("", "labels/", "checkpoints/"):  # what a kill -9 leaves half written
        (folder / f"{place}.some.0123abcd.part").write_bytes(b"half")
    ra.run(RunFolder.open(folder).recipe, out=folder, device="cpu", resume=True, keep=4)
    assert rows_without_times(folder) == rows_without_times(finished)
    first, second = (json.loads((path / "result.json").read_text()) for path in (finished, folder))
    assert second["protocols"] == first["protocols"]
    names = [path.name for path in RunFolder(folder).checkpoints()]
    assert names == [f"epoch_00{epoch}.pt" for epoch in (5, 4, 3, 2)]  # as many as were asked for
    states = [torch.load(path / "checkpoints" / names[0], weights_only=True) for path in (finished, folder)]
    for kind in ("network", "optimiser"):
        assert same(states[0][kind], states[1][kind])  # to the bit
    assert not list(folder.rglob(".*"))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@dataclass(frozen=True, kw_only=True)
class Forgetful(Tiny):
    """Tiny with dropout, which draws from torch's own generator."""

    def build(self, *, size: tuple[int, int]) -> nn.Module:
        network = super().build(size=size)
        project = network.get_submodule("project")
        project.register_forward_hook(lambda module, _, output: F.dropout(output, 0.3, module.training))
        return network


def test_a_network_that_draws_for_itself_goes_on_to_the_same_end(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("forgetful", Forgetful)
    few = [("intra.epochs", 2), ("cross.epochs", 1), ("evaluate_every", 0)]
    recipe = override(small, few).model_copy(update={"network": ra_spec("forgetful")})
    ra.run(recipe, out=tmp_path / "whole", device="cpu")
    with monkeypatch.context() as patch:
        cut(patch, "step", 1)
        with pytest.raises(Cut):
            ra.run(recipe, out=tmp_path / "cut", device="cpu")
    torch.rand(7)  # whatever the process drew before
    ra.run(recipe, out=tmp_path / "cut", device="cpu", resume=True)
    assert rows_without_times(tmp_path / "cut") == rows_without_times(tmp_path / "whole")
    plain = ra.run(recipe.model_copy(update={"network": small.network}), out=tmp_path / "plain", device="cpu")
    assert rows_without_times(plain.folder)[0]["losses"] != rows_without_times(tmp_path / "whole")[0]["losses"]


def test_evaluating_the_checkpoint_gives_the_run_s_result(finished: Path) -> None:
    found = ra.evaluate(finished, device="cpu")
    assert found["epoch"] == 4
    assert found["protocols"] == json.loads((finished / "result.json").read_text())["protocols"]


def test_transductive_figures_are_kept_apart(finished: Path) -> None:
    plain = ra.evaluate(finished, device="cpu")
    found = ra.evaluate(finished, device="cpu", transductive=["cmfp(k=4)", "k_reciprocal"])
    assert "transductive" not in plain
    apart = found.pop("transductive")
    assert found == plain
    assert list(apart) == ["cmfp(k=4)", "k_reciprocal"]
    for step in apart.values():
        assert step["flags"] == ["transductive: ranks each trial's queries and gallery together"]
        assert step["protocols"].keys() == plain["protocols"].keys()
        assert step["protocols"] != plain["protocols"]


def test_a_spoilt_checkpoint_falls_back_to_the_one_before(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    newest, older = RunFolder(folder).checkpoints()
    newest.write_bytes(newest.read_bytes()[:1000])
    assert checkpoint.newest(RunFolder(folder), torch.device("cpu"))["epoch"] == 4
    older.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"epoch_005.pt can't be read as a checkpoint"):
        ra.evaluate(folder)
    torch.save({"format": 99}, newest)
    older.unlink()
    with pytest.raises(CheckpointError, match="is no checkpoint of this version"):
        ra.evaluate(folder)
    newest.unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        ra.evaluate(folder)


def test_no_checkpoint_can_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "evil": Path("/")}, path)  # any class outside the allowed ones
    with pytest.raises(CheckpointError, match="can't be read as a checkpoint"):
        checkpoint.read(path, torch.device("cpu"))


def test_resume_refuses_another_recipe(finished: Path, small: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with pytest.raises(RecipeError, match="was started with another recipe"):
        ra.run(override(small, [("seed", 3)]), out=folder, resume=True)
    other = override(small, [("seed", 3)])
    (folder / "recipe.yaml").write_text(other.to_yaml())
    with pytest.raises(CheckpointError, match="written under another recipe"):
        ra.run(other, out=folder, resume=True)
    shorter = override(small, [("cross.epochs", 1)])  # than what was trained already
    (folder / "recipe.yaml").write_text(shorter.to_yaml())
    with pytest.raises(CheckpointError, match="written under another recipe"):
        ra.run(shorter, out=folder, resume=True)
    with pytest.raises(RecipeError, match="resume needs the run folder"):
        ra.run(small, resume=True)


def test_a_folder_that_holds_something_is_left_alone(finished: Path, small: Recipe, tmp_path: Path) -> None:
    before = sorted(finished.rglob("*"))
    with pytest.raises(DataError, match="exists already; choose another --out"):
        ra.run(small, out=finished)
    assert sorted(finished.rglob("*")) == before
    with pytest.raises(CheckpointError, match="is no run folder"):
        ra.evaluate(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't make the run folder"):
        ra.run(small, out=tmp_path / "file" / "run")


@pytest.mark.parametrize(("count", "said"), [(0, "no"), (1, "1")])
def test_a_modality_without_two_training_images_is_refused_before_anything_is_written(
    count: int, said: str, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ImageStore.good

    def good(store: ImageStore) -> Tensor:
        found: Tensor = real.fget(store)  # type: ignore[attr-defined]
        return found[:count] if store.records.modality is Modality.INFRARED else found

    monkeypatch.setattr(ImageStore, "good", property(good))
    with pytest.raises(DataError, match=f"^the dataset has {said} readable infrared training image; at least 2 are"):
        ra.run(small, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_stays(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.save

    def full(value: Any, path: Path) -> None:
        if value["epoch"] == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(value, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match="no disk space left"):
        ra.run(small, out=tmp_path / "run", device="cpu")
    monkeypatch.undo()
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(names) == ["epoch_000.pt", "epoch_001.pt"]
    resumed = ra.run(RunFolder.open(tmp_path / "run").recipe, out=tmp_path / "run", device="cpu", resume=True)
    assert resumed.data["epochs"] == 5


@dataclass(frozen=True, kw_only=True)
class Scripted(Clusterer):
    """Groups as the test says, by epoch."""

    mode: str

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        def make(modality: Modality) -> Clusters:
            n = len(features[modality])
            count = {"one": 1, "more_infrared": 4 if modality is Modality.VISIBLE else 12}.get(self.mode, 6)
            if self.mode == "many_visible":
                count = 14 if modality is Modality.VISIBLE else 4
            gone = self.mode == "outliers" or (modality is Modality.INFRARED and self.mode == "no_infrared")
            if gone or (self.mode == "fades" and epoch >= 2):
                labels, count = torch.full((n,), -1), 0
            else:
                labels = torch.arange(n) * count // n
            return Clusters(labels, centroids(features[modality].x, labels, count))

        return Clustering(Pair.build(make))

    def relaxed(self) -> Clusterer | None:
        return Scripted(mode="even") if self.mode == "no_infrared" else None


class Heard(Observer):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def once(self, text: str) -> None:
        self.said.append(text)


FELL_BACK = {  # in which epochs, and how
    "fades": dict.fromkeys((2, 3, 4), KEPT_LABELS),
    "no_infrared": {0: RELAXED, **dict.fromkeys((1, 2, 3, 4), KEPT_LABELS)},
    "outliers": dict.fromkeys(range(5), SKIPPED),
}


@pytest.mark.parametrize(
    ("mode", "counts"),
    [
        ("one", {}),
        ("more_infrared", {}),
        ("many_visible", {}),
        ("fades", {KEPT_LABELS: 3}),
        ("no_infrared", {RELAXED: 1, KEPT_LABELS: 4}),
        ("outliers", {SKIPPED: 5}),
    ],
)
def test_degenerate_labels_do_not_stop_a_run(mode: str, counts: dict[str, int], small: Recipe, tmp_path: Path) -> None:
    registry.add("scripted", Scripted)
    recipe = override(small, [("evaluate_every", 0)]).model_copy(update={"clusterer": ra_spec("scripted", mode=mode)})
    heard = Heard()
    result = ra.run(recipe, out=tmp_path / "run", device="cpu", log=heard)
    assert result.data["counts"] == counts
    said = [f"epoch {epoch}: {FALLBACKS[name]}" for epoch, name in FELL_BACK.get(mode, {}).items()]
    assert [text for text in heard.said if text.startswith("epoch")] == said
    few = [text for text in heard.said if text.startswith("fewer than 6 usable labels in epoch 4")]
    assert [("a few epochs" in text, "--set cross.identities=N" in text) for text in few] == [(True, True)] * (
        mode == "one"
    )
    assert result.data["epochs"] == 5
    assert result.protocols


def test_what_was_counted_before_a_run_was_cut_off_is_counted_once(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("scripted", Scripted)
    recipe = override(small, [("evaluate_every", 0)]).model_copy(
        update={"clusterer": ra_spec("scripted", mode="fades")}
    )
    with monkeypatch.context() as patch:
        cut(patch, "metrics", 3)  # the epoch is counted, and repeated
        with pytest.raises(Cut):
            ra.run(recipe, out=tmp_path / "run", device="cpu")
    heard = Heard()
    result = ra.run(recipe, out=tmp_path / "run", device="cpu", resume=True, log=heard)
    assert result.data["counts"] == {KEPT_LABELS: 3}
    assert "going on after epoch 2: 3 of 5 epochs are trained" in heard.said
    again = ra.run(recipe, out=tmp_path / "run", device="cpu", resume=True, log=(ended := Heard()))
    assert "the run is finished already: all its 5 epochs are trained" in ended.said
    assert again.protocols == result.protocols
    assert "from the start, 5 epochs" in train.going_on(0, 5)


def ra_spec(name: str, **options: Any) -> Any:
    from reidassoc.registry.spec import Spec

    return Spec(name, options)


@dataclass(frozen=True, kw_only=True)
class Diverging(Objective):
    """A loss that is not a number."""

    sampling: ClassVar[Sampling] = "paired"
    term: bool = True

    def banks(self, scene: Any, targets: Any) -> list[Any]:
        return []

    def __call__(self, batch: Any, banks: Any) -> dict[str, Tensor]:
        return {"nan": batch["visible"].z.sum() * float("nan")} if self.term else {}


def test_a_loss_that_is_not_finite_is_named(small: Recipe, tmp_path: Path) -> None:
    registry.add("diverging", Diverging)
    chosen = override(small, [("cross.objectives", ["diverging"]), ("cross.refiners", [])])
    with pytest.raises(ReidassocError, match=r"no longer finite in epoch 2, step ≤ 4 \(diverging/nan\)"):
        ra.run(chosen, out=tmp_path / "run", device="cpu")
    assert RunFolder(tmp_path / "run").checkpoints()[0].name == "epoch_002.pt"
    silent = override(small, [("cross.objectives", ["diverging(term=False)"]), ("cross.refiners", [])])
    with pytest.raises(PluginError, match="objectives returned no loss"):
        ra.run(silent, out=tmp_path / "silent", device="cpu")


def test_a_failing_plugin_is_named(small: Recipe, tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Faulty(ra.Associator):
        """Always fails."""

        def __call__(self, scene: ra.Scene) -> ra.Association:
            raise IndexError("index 7 is out of bounds")

    registry.add("faulty", Faulty)
    cross = small.stages[1].model_copy(update={"associator": ra_spec("faulty")})
    with pytest.raises(PluginError, match="associator faulty failed: IndexError: index 7 is out of bounds"):
        ra.run(small.model_copy(update={"stages": (small.stages[0], cross)}), out=tmp_path / "run", device="cpu")


def test_oracle_runs_are_flagged(small: Recipe, tmp_path: Path) -> None:
    cross = small.stages[1].model_copy(update={"associator": ra_spec("oracle")})
    recipe = small.model_copy(update={"stages": (small.stages[0], cross), "oracle": True})
    result = ra.run(recipe, out=tmp_path / "run", device="cpu")
    assert result.data["flags"] == ["uses true identities"]
    assert result.labels["visible/precision_cross"] > 0.5


def test_the_exported_tree_gives_the_same_run_as_memory(finished: Path, tmp_path: Path) -> None:
    from support.small import SMALL

    export(registry.build("datasets", "synthetic(size='tiny')"), tmp_path / "tree", layout="sysu_mm01")
    recipe = ra.choose(recipe="mult/synthetic", dataset="sysu_mm01", root=str(tmp_path / "tree"), changes=SMALL)
    result = ra.run(recipe, out=tmp_path / "run", device="cpu")
    assert result.protocols == json.loads((finished / "result.json").read_text())["protocols"]
    assert rows_without_times(tmp_path / "run") == rows_without_times(finished)


def test_a_run_scores_the_same_on_the_exported_tree_and_nearly_so_from_jpeg(finished: Path, tmp_path: Path) -> None:
    for name in ("png", "jpeg"):
        export(
            registry.build("datasets", "synthetic(size='tiny')"),
            tmp_path / name,
            layout="sysu_mm01",
            jpeg=name == "jpeg",
        )
    memory, png, jpeg = (
        evaluate(finished, dataset=dataset, root=root, device="cpu")["protocols"]
        for dataset, root in ((None, None), ("sysu_mm01", str(tmp_path / "png")), ("sysu_mm01", str(tmp_path / "jpeg")))
    )
    assert png == memory
    assert len(memory) == 4
    for protocol, metrics in memory.items():
        assert 0 < abs(jpeg[protocol]["mAP"]["mean"] - metrics["mAP"]["mean"]) < 1
