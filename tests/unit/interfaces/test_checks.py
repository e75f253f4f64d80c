"""What plug-ins answer is looked over where they answer: in runs, in the lab and for anybody's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import reidassoc as ra
from reidassoc import Association, Associator, Clusterer, Pair, Refiner, Scene, SoftLabels, Targets, registry
from reidassoc.errors import DataError, PluginError
from reidassoc.files.features import FeatureFile
from reidassoc.interfaces.checks import refuse_association, refuse_clustering, refuse_targets
from reidassoc.labs.lab import lab
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.pipeline import cluster, refine
from reidassoc.testing import CASES, toy_features, toy_scene
from reidassoc.types import Clustering

Made = Callable[[Scene], Any]


def uniform(scene: Scene) -> Association:
    """Every label is as likely as every other: nothing is wrong with it."""
    own = scene.clustering.own

    def rows(modality: ra.Modality) -> SoftLabels:
        count = own[modality.other].count
        return SoftLabels(torch.full((len(scene.features[modality]), count), 1 / count))

    return Association(cross=Pair.build(rows))


def with_cross(change: Callable[[SoftLabels], Any], space: str = "cross") -> Made:
    def answer(scene: Scene) -> Association:
        made = uniform(scene).cross
        assert made is not None
        return Association(**{space: Pair(made.visible, change(made.infrared))})

    return answer


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda scene: None, r"must return an Association, got NoneType; is there a return\?"),
        (lambda scene: uniform(scene).cross, "must return an Association, got Pair"),
        (lambda scene: Association(cross=tuple(uniform(scene).cross)), "cross must be a Pair, got tuple"),  # type: ignore[arg-type]
        (with_cross(lambda s: s.prob), "cross labels of the infrared samples must be SoftLabels, got Tensor"),
        (with_cross(lambda s: SoftLabels(s.prob[:3])), r"of the infrared samples must be \(\d+, \d+\), .*, got \(3, \d+\)"),
        (with_cross(lambda s: SoftLabels(s.prob * 2)), "infrared samples: rows of prob must sum to 1 .* sums to 2.0000"),
        (with_cross(lambda s: SoftLabels(s.prob * float("nan"))), "prob contains NaN"),
        (with_cross(lambda s: s.with_weight(-s.weight)), "weight contains NaN, infinite or negative"),
        (with_cross(lambda s: s, space="own"), r"own labels of the visible samples must be"),
        (with_cross(lambda s: SoftLabels(s.prob[:, :1]), space="shared"), r"shared labels of the infrared samples must be"),
    ],
)  # fmt: skip
def test_a_wrong_association_is_refused(answer: Made, complaint: str) -> None:
    scene = CASES["far_more_visible"].scene()
    assert scene.clustering.own.visible.count != scene.clustering.own.infrared.count
    refuse_association(uniform(scene), scene)
    refuse_association(Association(), scene)
    with pytest.raises(ValueError, match=complaint):
        refuse_association(answer(scene), scene)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (lambda old: old[:5], r"^infrared: 5 labels for \d+ samples"),
        (lambda old: old + 1, r"^infrared: labels must lie in \[-1, \d+\)"),
        (
            lambda old: torch.where(old == 0, -1, old),
            r"^infrared: (\d+) clusters, but \d+ have members; number them without",
        ),
    ],
)
def test_a_wrong_clustering_is_refused(labels: Callable[[torch.Tensor], torch.Tensor], complaint: str) -> None:
    scene = toy_scene()
    own = scene.clustering.own
    refuse_clustering(scene.clustering, scene.features)
    wrong = replace(own.infrared, labels=labels(own.infrared.labels))
    with pytest.raises(ValueError, match=complaint):
        refuse_clustering(Clustering(Pair(own.visible, wrong)), scene.features)
    with pytest.raises(ValueError, match="must return a Clustering, got Pair"):
        refuse_clustering(own, scene.features)


def test_wrong_targets_are_refused() -> None:
    scene = toy_scene()
    before = Targets.compose(scene.clustering, uniform(scene))
    refuse_targets(before, before, scene)
    (key, labels), *_ = before.table.items()
    with pytest.raises(
        ValueError, match=r"lost the labels of the visible samples in space 'visible'; targets.replaced keeps"
    ):
        refuse_targets(Targets({k: v for k, v in before.table.items() if k != key}), before, scene)
    with pytest.raises(ValueError, match=r"labels of the visible samples in space 'visible' must be \("):
        refuse_targets(before.replaced({key: labels.take(torch.arange(2))}), before, scene)
    with pytest.raises(ValueError, match=r"must return Targets, got NoneType; is there a return\?"):
        refuse_targets(None, before, scene)


@dataclass(frozen=True, kw_only=True)
class Doubled(Associator):
    """Rows sum to two."""

    def __call__(self, scene: Scene) -> Association:
        return Association(cross=uniform(scene).cross.map(lambda s: SoftLabels(2 * s.prob)))  # type: ignore[union-attr]


@dataclass(frozen=True, kw_only=True)
class Forgetful(Refiner):
    """Lacks its return."""

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        return None  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Gappy(Clusterer):
    """Gives no image the number 0."""

    def __call__(self, features: Any, **told: Any) -> Clustering:
        found = registry.build("clusterers", "dbscan(k1=10)")(features, **told)
        return Clustering(found.own.map(lambda c: replace(c, labels=torch.where(c.labels == 0, -1, c.labels))))


def test_the_plug_in_is_named_wherever_it_answers() -> None:
    features = toy_features()
    said = "associator doubled: cross labels of the visible samples: rows of prob must sum to 1 .* reidassoc check explains"
    with pytest.raises(PluginError, match=said):
        ra.associate(Doubled(), *features, clusterer="dbscan(k1=10)", device="cpu")
    with pytest.raises(PluginError, match=r"clusterer gappy: visible: .* number them without gaps"):
        ra.associate("nearest", *features, clusterer=Gappy(), device="cpu")
    with pytest.raises(PluginError, match="refiner forgetful: must return Targets, got NoneType"):
        refine([Forgetful()], toy_scene(), Targets.compose(toy_scene().clustering))
    registry.add("doubled", Doubled)
    found = lab(
        FeatureFile(features, None), clusterers=["dbscan(k1=10)"], associators=["doubled", "nearest"], device="cpu"
    )
    assert [bool(row.problem) for row in found.rows] == [True, False]
    assert "associator doubled: cross labels" in found.rows[0].problem


def test_features_that_are_longer_than_unit_rows_are_normalised_or_refused() -> None:
    """They crashed the compiled loops of the Jaccard distance: its weights underflowed to 0."""
    draw = torch.Generator().manual_seed(0)
    people = torch.randn(20, 64, generator=draw).repeat_interleave(8, 0)
    x = Pair.build(lambda m: people + 0.5 * torch.randn(160, 64, generator=draw))
    long = x.map(lambda each: ra.Features(each, camera=torch.arange(160) % 3))
    found, same = (ra.associate("nearest", *given, device="cpu") for given in (long, x))
    assert found.clusters == same.clusters == Pair(20, 20)
    assert (found.cross.visible == same.cross.visible).all()
    with pytest.raises(
        DataError, match=r"the visible features have a row of length [\d.]+ \(row 0\), and must have unit"
    ):
        cluster(registry.build("clusterers", "dbscan"), long)
    with pytest.raises(ValueError, match=r"features must have unit rows, got a row of length 8 \(row 1\): torch"):
        jaccard_similarity(torch.tensor([[1.0, 0.0], [0.0, 8.0]]))
