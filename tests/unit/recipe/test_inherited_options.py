"""The affinity is the clusterer's unless an associator or refiner is told otherwise, wherever labels are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

import reidassoc as ra
from reidassoc import Association, Associator, Clusterer, Clustering, Features, Pair, Scene, registry
from reidassoc.files.features import FeatureFile
from reidassoc.ops import affinity as module
from reidassoc.recipe.choose import choose
from reidassoc.testing import toy_features, toy_identity
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.clusterers.dbscan import Dbscan
from reidassoc_plugins.clusterers.mixed import Mixed
from reidassoc_plugins.refiners.propagate import Propagate


@dataclass(frozen=True, kw_only=True)
class Sized(Clusterer):
    """A clusterer that has k1 and k2, and does not write them into its clustering."""

    k1: int = 9
    k2: int = 3

    def __call__(self, features: Pair[Features], **given: Any) -> Clustering:
        return Clustering(own=Dbscan(k1=12)(features, **given).own)


@dataclass(frozen=True, kw_only=True)
class Wrapper(Clusterer):
    """A clusterer that gives what another one makes, which its option describes."""

    inner: str = "dbscan(k1=11, k2=4)"

    def __call__(self, features: Pair[Features], **given: Any) -> Clustering:
        made: Clustering = registry.build("clusterers", self.inner)(features, **given)
        return replace(made, own=made.own)


@dataclass(frozen=True, kw_only=True)
class Neighbourly(Associator):
    """An associator that reads the scene's affinity and has no options."""

    def __call__(self, scene: Scene) -> Association:
        scene.affinity()
        return Association(own=None, cross=Mult()(scene).cross)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """The k1 and k2 of every affinity that is asked for, but for the clusterers' own."""
    asked: set[tuple[int, int]] = set()
    real = module.affinity

    def noted(features: Features, *, k1: int = 30, k2: int = 6) -> Any:
        asked.add((k1, k2))
        return real(features, k1=k1, k2=k2)

    monkeypatch.setattr("reidassoc.interfaces.scene.affinity", noted)
    return asked


def by_associate(clusterer: Any, associator: Any) -> None:
    ra.associate(associator, *toy_features(), clusterer=clusterer, device="cpu")


def by_the_lab(clusterer: Any, associator: Any) -> None:
    file = FeatureFile(toy_features(), toy_identity())
    (row,) = ra.lab(file, clusterers=clusterer, associators=associator, device="cpu").rows
    assert not row.problem


@pytest.mark.parametrize("path", [by_associate, by_the_lab])
@pytest.mark.parametrize(
    ("clusterer", "associator", "wanted"),
    [
        ("dbscan(k1=10)", "mult", (10, 6)),
        ("dbscan(k1=10, k2=3)", "mult(k2=5)", (10, 5)),
        ("dbscan(k1=10)", "mult(k1=7, k2=2)", (7, 2)),
        ("mixed(k1=10, k2=4)", "mult", (10, 4)),
        ("hdbscan", "mult", (30, 6)),
        (Dbscan(k1=10, k2=3), Mult(), (10, 3)),
        (Mixed(k1=10), Mult(k2=5), (10, 5)),
    ],
    ids=str,
)
def test_the_affinity_is_the_clusterer_s_unless_told_otherwise(
    path: Callable[[Any, Any], None], clusterer: Any, associator: Any, wanted: tuple[int, int], sizes: set[Any]
) -> None:
    path(clusterer, associator)
    assert sizes == {wanted}


@pytest.mark.parametrize(("clusterer", "wanted"), [(Sized(), (9, 3)), (Sized(k1=10), (10, 3)), (Wrapper(), (11, 4))])
def test_clusterers_of_others_share_their_affinity(
    clusterer: Clusterer, wanted: tuple[int, int], sizes: set[Any]
) -> None:
    by_associate(clusterer, Neighbourly())
    assert sizes == {wanted}


def test_a_refiner_takes_the_clusterer_s_affinity(sizes: set[Any]) -> None:
    file = FeatureFile(toy_features(), None)
    ra.lab(file, clusterers="dbscan(k1=10)", associators="pgm", refiners=["propagate", Propagate(k2=2)], device="cpu")
    assert sizes == {(10, 6), (10, 2)}


@pytest.mark.parametrize(("relabel", "epochs"), [("every_epoch", 1), ("once", 2)])
def test_a_run_takes_the_clusterer_s_affinity(relabel: str, epochs: int, sizes: set[Any], tmp_path: Any) -> None:
    steps = {f"{stage}.{key}": 1 for stage in ("intra", "cross") for key in ("epochs", "iterations")}
    ra.run(
        "mult", dataset="synthetic(size='tiny')", clusterer="dbscan(k1=9)", refiners="propagate", device="cpu",
        out=tmp_path / "run", changes={**steps, "cross.epochs": epochs, "cross.relabel": relabel},
    )  # fmt: skip
    assert sizes == {(9, 4)}


@pytest.mark.parametrize(
    ("words", "clusterer"),
    [
        ({}, "dbscan(eps=0.6, min_samples=4, k1=8, k2=4)"),
        ({"clusterer": "dbscan(k1=10, k2=5)"}, "dbscan(eps=0.6, min_samples=4, k1=10, k2=5)"),
        ({"clusterer": "mixed(eps=0.5, k2=3)"}, "mixed(eps=0.5, k2=3, k1=8)"),
        ({"clusterer": "hdbscan"}, "hdbscan"),
        ({"recipe": "mult/sysu_mm01", "clusterer": "mixed"}, "mixed(k1=30, k2=6)"),
    ],
)
def test_another_clusterer_keeps_the_recipe_s_k1_and_k2(words: dict[str, str], clusterer: str) -> None:
    chosen = choose(associator="mult(alpha=0.3)", **words)  # type: ignore[arg-type]
    assert str(chosen.clusterer) == clusterer
    assert str(chosen.stages[1].associator).startswith("mult(alpha=0.3")
    assert "k1" not in str(chosen.stages[1].associator)


def test_shipped_recipes_name_k1_and_k2_once() -> None:
    for name in ra.recipe.shipped_recipes():
        for stage in ra.recipe.load_recipe(name).stages:
            parts = [part.use for part in stage.refiners] + ([stage.associator] if stage.associator else [])
            assert not any({"k1", "k2"} & set(part.options) for part in parts), name
