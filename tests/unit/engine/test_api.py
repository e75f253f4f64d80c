"""Python as pleasant as the command line: names, objects, plain arrays."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from support.small import SMALL

import reidassoc as ra
from reidassoc import Association, Associator, Pair, Recipe, Scene, SoftLabels, registry
from reidassoc.engine import run
from reidassoc.errors import DataError, DeviceError, PluginError, RecipeError, ReidassocError, SpecError
from reidassoc.files.features import FeatureFile
from reidassoc.recipe.choose import choose
from reidassoc.registry.spec import Spec
from reidassoc.runs.observer import Everyone, Observer
from reidassoc.runs.result import Result
from reidassoc.testing import toy_features, toy_identity
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.associators.nearest import Nearest
from reidassoc_plugins.clusterers.dbscan import Dbscan
from reidassoc_plugins.clusterers.scikit_learn import FitPredict
from reidassoc_plugins.datasets.synthetic import Synthetic
from reidassoc_plugins.refiners.mix import Mix

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class FirstOnly(Associator):
    """Put everything into the first cluster."""

    weight: float = 1.0

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        return Association(cross=Pair.build(lambda m: SoftLabels.one_hot(0 * own[m].labels, own[m.other].count)))


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that would have been trained."""
    seen: list[Recipe] = []
    monkeypatch.setattr(run, "train", lambda recipe, **rest: seen.append(recipe))
    return seen


def test_names_mean_what_they_mean_on_the_command_line(recipes: list[Recipe]) -> None:
    ra.run("mult", dataset="synthetic")
    ra.run("mult/synthetic")
    ra.run(choose(associator="mult"))
    assert len({recipe.digest for recipe in recipes}) == 1
    ra.run("nearest", dataset="sysu_mm01", root="/data", seed=3, changes={"cross.epochs": 5})
    assert recipes[-1].digest == choose(
        associator="nearest", dataset="sysu_mm01", root="/data", seed=3, changes=[("cross.epochs", 5)]
    ).digest  # fmt: skip


def test_objects_are_as_good_as_names(recipes: list[Recipe]) -> None:
    ra.run(Mult(alpha=0.3), clusterer=Dbscan(eps=0.5, k1=8), refiners=[Mix(beta=0.5), "oclr"])
    same = choose(associator="mult(alpha=0.3)", clusterer="dbscan(eps=0.5, k1=8)", refiners=["mix(beta=0.5)", "oclr"])
    assert recipes[0].digest == same.digest
    ra.run(FirstOnly(weight=2.0))
    assert str(recipes[1].stages[-1].associator) == "first_only(weight=2.0)"
    assert registry.get("associator", "first_only") is FirstOnly


def test_one_thing_may_stand_where_several_may(recipes: list[Recipe], tmp_path: Path) -> None:
    listed = choose(refiners=["mix"], objectives=["amirl"])
    ra.run(refiners="mix", objectives="amirl")
    ra.run(refiners=Mix(), objectives=["amirl"])
    assert {recipe.digest for recipe in recipes} == {listed.digest}
    assert choose(refiners="mix", objectives="amirl").digest == listed.digest
    ra.run(refiners=None, objectives=None)  # the recipe's
    assert recipes[-1].digest == choose().digest
    rows = ra.lab(FeatureFile(toy_features(), toy_identity()), associators="nearest", sweeps="clusterer.k1=8,10").rows
    assert [str(row.combination.associator)[:7] for row in rows] == ["nearest", "nearest"]
    for read in (ra.read_results, ra.write_report):
        with pytest.raises(DataError, match=f"^{tmp_path} is no run folder"):
            read(str(tmp_path))  # type: ignore[operator]


def test_the_lab_takes_objects_too() -> None:
    found = ra.lab(
        FeatureFile(toy_features(), toy_identity()),
        clusterers=Dbscan(k1=10), associators=[FirstOnly(weight=2.0), "nearest"], refiners=[Mix(beta=0.5)], device=CPU,
    )  # fmt: skip
    tried = [(str(row.combination.clusterer), str(row.combination.associator)) for row in found.rows]
    assert tried == [("dbscan(k1=10)", "first_only(weight=2.0)"), ("dbscan(k1=10)", "nearest")]
    assert [(row.combination.refiner_text, row.problem) for row in found.rows] == [("mix(beta=0.5)", "")] * 2
    with pytest.raises(PluginError, match=r"only ra\.associate takes such an object"):
        ra.lab(FeatureFile(toy_features(), None), clusterers=[AgglomerativeClustering(n_clusters=4)])  # type: ignore[list-item]


def test_torch_s_devices_are_devices(tmp_path: Path) -> None:
    short = {**dict(SMALL), "cross.epochs": 1, "intra.epochs": 1}
    result = ra.run(dataset="synthetic(size='tiny')", changes=short, out=tmp_path / "run", device=CPU)
    assert ra.evaluate(result, device=CPU)["protocols"] == result.protocols
    assert ra.save_features(result, tmp_path / "end.npz", device=CPU).notes["epoch"] == "2"
    assert ra.advise(tmp_path / "end.npz", k1=4, device=CPU).curves[0].k1 == 4
    assert ra.write_report(result, tmp_path / "page.html", device=CPU).is_file()
    (tmp_path / "spec.yaml").write_text("name: x\nmethods: {a: }", encoding="utf-8")
    assert ra.open_benchmark(tmp_path / "spec.yaml", device=CPU).device == "cpu"
    visible, infrared = toy_features()
    assert ra.associate("nearest", visible, infrared, clusterer="dbscan(k1=10)", device=CPU).clusters  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="no device 'meta'; expected auto, cpu, cuda or cuda:N"):
        ra.run(dataset="synthetic(size='tiny')", device=torch.device("meta"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": None}, "expected a method, such as 'mult', or a recipe, such as 'mult/synthetic', got None"),
        (
            {"changes": ["clusterer.eps=0.5"]},
            "changes: expected paths with values, as in {'clusterer.eps': 0.5}, got 'clus",
        ),
        (
            {"changes": "clusterer.eps=0.5"},
            "changes: expected paths with values, as in {'clusterer.eps': 0.5}, got 'clus",
        ),
        ({"changes": [("clusterer.eps", 0.5, 1)]}, "changes: expected paths with values"),
        ({"log": print}, "log: expected an object of a subclass of reidassoc.runs.observer.Observer, got print"),
        ({"log": [Everyone([]), Everyone]}, "log: expected an object of a subclass of .*, got Everyone"),
        ({"log": 3}, "log: expected an object of a subclass of .*, got int"),
        ({"keep": "x"}, "keep must be int ≥ 1, got 'x'"),
        ({"keep": 0}, "keep must be int ≥ 1, got 0"),
        ({"keep": None}, "keep must be int ≥ 1, got None"),
        ({"devices": "two"}, "the number of devices must be at least 1, got 'two'"),
        ({"seed": -1}, "seed=-1: expected at least 0, got -1"),
        ({"seed": "a"}, "seed=a: expected a whole number, got 'a'"),
    ],
)
def test_what_python_gets_wrong_ends_in_one_line(words: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ReidassocError, match=f"^{message}"):
        ra.run(**{"out": tmp_path / "run", **words})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, "a"])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(SpecError, match=r"^seed must be int ≥ 0, got"):
        ra.lab(FeatureFile(toy_features(), None), seed=seed)
    with pytest.raises(SpecError, match=r"^seed must be int ≥ 0, got"):
        ra.associate("nearest", *toy_features(), seed=seed)


def test_features_are_made_of_arrays_too() -> None:
    draw = np.random.default_rng(0)
    x, camera = draw.normal(size=(20, 8)), np.arange(20, dtype=np.int32) % 3
    made = ra.Features(x, camera=camera, extra={"tracklet": camera, "parts": draw.normal(size=(20, 2, 8))})  # type: ignore[arg-type]
    kinds = [t.dtype for t in (made.x, made.camera, made.tracklet, made.extra["parts"])]
    assert kinds == [torch.float32, torch.int64, torch.int64, torch.float32]
    found, same = (ra.associate("nearest", f, f, clusterer="dbscan(k1=4)", device="cpu") for f in (made, x))
    assert (found.own.visible == same.own.visible).all()
    with pytest.raises(ValueError, match=r"camera must be \(20,\) int64, got \(3,\) torch\.int64"):
        ra.Features(x, camera=camera[:3])  # type: ignore[arg-type]


def test_who_follows_a_run_needs_the_methods_and_no_base_class() -> None:
    methods = {name: lambda self, *told, **more: None for name in vars(run.Observer) if name[0] != "_"}
    own: Any = type("Own", (), methods)()
    assert run.observers(own) == [own]
    assert run.observers([own, Observer()])[0] is own
    for wrong in (print, type(own), Observer):
        with pytest.raises(
            RecipeError, match=r"^log: expected an object of a subclass of reidassoc\.runs\.observer\.Observer"
        ):
            run.observers(wrong)  # type: ignore[arg-type]


def test_an_object_s_options_keep_their_ranges() -> None:
    with pytest.raises(SpecError, match=r"^Mult: temperature must be float > 0, got -1\.0"):
        ra.associate(Mult(temperature=-1.0), *toy_features(), device="cpu")
    with pytest.raises(SpecError, match=r"^Dbscan: k1 must be int ≥ 1, got '5'"):
        ra.associate("nearest", *toy_features(), clusterer=Dbscan(k1="5"), device="cpu")  # type: ignore[arg-type]


def test_a_class_is_not_its_object() -> None:
    for call in (
        lambda: ra.run(clusterer=Dbscan),  # type: ignore[arg-type]
        lambda: ra.associate("nearest", *toy_features(), clusterer=Dbscan),  # type: ignore[arg-type]
        lambda: ra.lab(FeatureFile(toy_features(), None), clusterers=[Dbscan]),  # type: ignore[list-item]
    ):
        with pytest.raises(PluginError, match=r"^Dbscan is a class: give an object of it, as in Dbscan\(\)$"):
            call()


def test_datasets_and_recipe_files_are_objects_too(recipes: list[Recipe], tmp_path: Path) -> None:
    ra.run(dataset=Synthetic(size="tiny"))
    assert str(recipes[-1].dataset) == "synthetic(size='tiny')"
    (tmp_path / "mine.yaml").write_text(choose(seed=7).to_yaml(), encoding="utf-8")
    ra.run(tmp_path / "mine.yaml")
    assert recipes[-1].seed == 7


def test_values_of_numpy_and_paths_are_values(recipes: list[Recipe], tmp_path: Path) -> None:
    eps = np.linspace(0.3, 0.5, 3)[1]
    ra.run(changes={"clusterer.eps": eps, "cross.epochs": np.int64(5), "refiner.oclr.weight": np.float64(3.0)})
    ra.run(clusterer=Dbscan(eps=eps), changes={"cross.epochs": 5, "refiner.oclr.weight": 3})
    assert recipes[0].clusterer.options["eps"] == recipes[1].clusterer.options["eps"] == 0.4
    assert recipes[0].stages[1] == recipes[1].stages[1]
    assert "np." not in recipes[0].to_yaml()
    rooted = choose(dataset="regdb", changes={"dataset.root": tmp_path})
    assert rooted.digest == choose(dataset="regdb", root=str(tmp_path)).digest


class Noting(Observer):
    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self, folder: Path) -> None:
        self.told.append("start")

    def epoch(self, number: int, total: int, stage: str, steps: int) -> None:
        self.told.append("epoch")

    def step(self, number: int, losses: Mapping[str, float], *, images: int) -> None:
        self.told.append("step")

    def report(self, row: Mapping[str, Any]) -> None:
        self.told.append("report")

    def once(self, text: str) -> None:
        self.told.append("once")

    def finish(self, result: Result) -> None:
        self.told.append("finish")

    def close(self) -> None:
        self.told.append("close")


def test_several_may_be_told(recipes: list[Recipe]) -> None:
    told = [Noting(), Noting(), Noting()]
    ra.run(log=told[:2])
    ra.run(log=told[2])
    assert [one.told for one in told] == [["close"]] * 3
    everyone = Everyone(told[:2])
    everyone.start(Path())
    everyone.epoch(0, 1, "intra", 1)
    everyone.step(1, {"loss": 1.0}, images=4)
    everyone.report({})
    everyone.once("a note")
    everyone.finish(Result(Path(), {}))
    assert [one.told[1:] for one in told[:2]] == [["start", "epoch", "step", "report", "once", "finish"]] * 2


def test_one_s_own_class_trains(tmp_path: Path) -> None:
    short = {**dict(SMALL), "cross.epochs": 1, "intra.epochs": 1}
    result = ra.run(FirstOnly(), dataset="synthetic(size='tiny')", changes=short, out=tmp_path / "run", device="cpu")
    assert result.data["method"]["associator"] == "first_only"
    assert str(result).splitlines()[-1] == f"run folder: {tmp_path / 'run'}"
    assert "all-search single-shot: Rank-1 " in str(result)
    assert ra.run(out=tmp_path / "run", resume=True, device="cpu").protocols == result.protocols
    # A result is as good as its folder.
    assert ra.evaluate(result, device="cpu")["protocols"] == result.protocols
    assert ra.read_results(result).rows == ra.read_results([tmp_path / "run"]).rows
    assert ra.save_features(result, tmp_path / "end.npz", device="cpu").notes["epoch"] == "2"
    assert ra.write_report([result], tmp_path / "page.html", device="cpu").is_file()
    assert ra.write_report(result, tmp_path / "page.html", device="cpu").is_file()


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a recipe object says everything; leave out dataset"):
        ra.run(choose(), dataset="regdb")
    with pytest.raises(RecipeError, match="resume goes on with the recipe of the run folder"):
        ra.run("mult", seed=3, out=tmp_path, resume=True)
    with pytest.raises(RecipeError, match="resume goes on with the recipe of the run folder"):
        ra.run("nearest", out=tmp_path, resume=True)
    with pytest.raises(RecipeError, match="resume needs the run folder"):
        ra.run(resume=True)
    with pytest.raises(PluginError, match="int is no plug-in"):
        ra.run(3)  # type: ignore[arg-type]

    @dataclass(frozen=True, kw_only=True)
    class Mult(Associator):
        """Another one's name."""

        def __call__(self, scene: Scene) -> Association:
            return Association()

    with pytest.raises(PluginError, match="has associator 'mult' already; rename Mult"):
        registry.spec_of(Mult())

    @dataclass(frozen=True, kw_only=True)
    class Odd(Associator):
        """An option that no text can say."""

        thing: object = None

        def __call__(self, scene: Scene) -> Association:
            return Association()

    with pytest.raises(PluginError, match="can't be written as text"):
        registry.spec_of(Odd(thing=object()))
    with pytest.raises(PluginError, match=r"only ra\.associate takes such an object; .* sklearn\(estimator='"):
        ra.run("mult", clusterer=FitPredict(estimator=AgglomerativeClustering(n_clusters=4)))
    with pytest.raises(PluginError, match=r"only ra\.associate takes such an object; .* sklearn\(estimator='"):
        ra.run("mult", clusterer=AgglomerativeClustering(n_clusters=4))


def test_an_object_that_is_no_plug_in_is_told_what_would_be_one() -> None:
    x = torch.eye(4).repeat_interleave(8, 0)
    with pytest.raises(PluginError, match=r"AgglomerativeClustering is a class: give an object of it"):
        ra.associate("nearest", x, x, clusterer=AgglomerativeClustering)
    with pytest.raises(PluginError, match=r"^Nearest is a class: give an object of it, as in Nearest\(\)$"):
        ra.associate(Nearest, x, x)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"expected a spec as text, .* got an object of Nearest"):
        Spec.parse(Nearest())  # type: ignore[arg-type]


def test_a_clusterer_of_scikit_learn_is_taken_as_it_is() -> None:
    x = torch.eye(4).repeat_interleave(8, 0) + 0.01 * torch.randn(32, 4, generator=torch.manual_seed(0))
    estimator = AgglomerativeClustering(n_clusters=4)
    labels = ra.associate("nearest", x, x[8:], clusterer=estimator, device="cpu")
    first, second = str(labels).splitlines()
    assert first == f"visible: {len(x)} samples, 4 clusters, 0 outliers; {len(x)} labelled among the infrared clusters"
    assert second.startswith(f"infrared: {len(x) - 8} samples, ")
    assert labels.own.visible.tolist() == np.arange(4).repeat(8).tolist()
    assert labels.clusters == Pair(4, 4)
    assert not hasattr(estimator, "labels_")  # a copy of it was used
    wrapped = ra.associate("nearest", x, x[8:], clusterer=FitPredict(estimator=estimator), device="cpu")
    assert (wrapped.cross.infrared == labels.cross.infrared).all()


def test_features_of_another_form_are_told_what_is_taken() -> None:
    x = np.eye(4)
    for wrong, found in (
        (x[0], "(4,) float64"),
        (x.astype(int), "(4, 4) int64"),
        (None, "() object"),
        ("features.npz", "() <U12"),
        ([[0.1, 0.2], [0.3]], "rows that differ in length"),
        (torch.tensor(x).to_sparse(), "(4, 4) float64, sparse"),
    ):
        with pytest.raises(DataError, match=re.escape(f"'visible' must be (N, D) floats, got {found}")):
            ra.associate("nearest", wrong, x)


def test_floats_are_taken_however_they_lie_in_memory() -> None:
    x = np.eye(4).repeat(8, 0) + 0.01 * np.random.default_rng(0).normal(size=(32, 4))
    wanted = ra.associate("nearest", x, x[8:], device="cpu")
    fixed = x.copy()
    fixed.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (x.tolist(), x[::-1][::-1], np.asfortranarray(x), x.astype(">f8"), x.astype(np.longdouble), fixed):
            labels = ra.associate("nearest", same, x[8:], device="cpu")
            assert (labels.cross.visible == wanted.cross.visible).all()
    turned = ra.associate("nearest", x[::-1], x[8:], device="cpu")  # negative strides
    assert (turned.own.visible == 3 - wanted.own.visible[::-1]).all()
    assert labels != wanted  # no comparison of arrays, which would raise


def test_identities_are_tensors_arrays_or_lists() -> None:
    x = torch.eye(4).repeat_interleave(8, 0)
    true = np.arange(4).repeat(8)
    wanted = ra.associate("nearest", x, x, identity=Pair(torch.tensor(true), torch.tensor(true)), device="cpu").quality
    assert wanted["visible/ari"] == 1.0
    for given in (
        (true, true),
        Pair(true, true),
        (true.tolist(), torch.tensor(true)),
        (true[::-1].copy()[::-1], 1.0 * true),
    ):
        assert ra.associate("nearest", x, x, identity=given, device="cpu").quality == wanted  # type: ignore[arg-type]
    for wrong in ((true[1:], true), (true + 0.5, true), (true, ["a"] * 32), 3, (true,), (true, None)):
        with pytest.raises(DataError, match="identities must be whole numbers, one for each feature row"):
            ra.associate("nearest", x, x, identity=wrong, device="cpu")  # type: ignore[arg-type]


def test_the_seed_reaches_clusterer_and_associator() -> None:
    seen: list[int] = []

    class Draws:
        random_state: int | None = None

        def fit_predict(self, x: object) -> np.ndarray:
            assert self.random_state is not None
            seen.append(self.random_state)
            return np.arange(24) // 4

    x = torch.randn(24, 8, generator=torch.manual_seed(0))
    found = [ra.associate("random", x, x, clusterer=Draws(), seed=seed, device="cpu").cross for seed in (3, 3, 4)]
    assert seen[0] == seen[2] != seen[4]
    assert (found[0].visible == found[1].visible).all()
    assert (found[0].visible != found[2].visible).any()


@pytest.mark.parametrize("kind", ["tensor", "float64 array", "float32 array"])
def test_plain_features_give_labels(kind: str) -> None:
    x = torch.eye(4).repeat_interleave(8, 0) + 0.01 * torch.randn(32, 4, generator=torch.manual_seed(0))
    y = x[8:]
    if kind != "tensor":
        x, y = (v.numpy().astype(kind.split()[0]) for v in (3 * x, y))
    for method in ("nearest", Nearest()):
        labels = ra.associate(method, x, y, clusterer="dbscan(k1=8)", device="cpu")
        assert labels.own.visible.tolist() == np.arange(4).repeat(8).tolist()
        assert labels.cross.infrared.tolist() == np.arange(1, 4).repeat(8).tolist()
