"""Refiners `propagate`, `agree` and `proximity`: contract, parity with a plain reading, property."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from reidassoc import Association, Clustering, Clusters, Features, Modality, Pair, Scene, SoftLabels, Targets, registry
from reidassoc.testing import CASES, check_refiner, toy_scene
from reidassoc_plugins.associators.nearest import Nearest
from reidassoc_plugins.associators.pgm import Pgm
from reidassoc_plugins.associators.random import Random
from reidassoc_plugins.refiners.agree import Agree
from reidassoc_plugins.refiners.propagate import Propagate
from reidassoc_plugins.refiners.proximity import Proximity


def soft_targets(scene: Scene, seed: int = 0) -> Targets:
    """Random distributions and weights in both spaces, some rows silent, some weights 0."""
    generator = torch.Generator().manual_seed(seed)

    def labels(modality: Modality, space: Modality) -> SoftLabels:
        n, k = len(scene.features[modality]), scene.clustering.own[space].count
        prob = torch.softmax(3 * torch.randn(n, k, generator=generator), dim=1)
        prob[3::7] = 0
        weight = torch.rand(n, generator=generator)
        weight[5::9] = 0
        return SoftLabels(prob, weight)

    own, cross = (Pair.build(lambda m: labels(m, m)), Pair.build(lambda m: labels(m, m.other)))
    return Targets.compose(scene.clustering, Association(own=own, cross=cross))


@pytest.mark.parametrize(
    "spec",
    [
        "propagate",
        "propagate(k1=6)",
        "propagate(rounds=0)",
        "propagate(rounds=5, fill=false, k1=6)",
        "agree",
        "proximity",
    ],
)
def test_contract(spec: str) -> None:
    check_refiner(registry.build("refiners", spec))


def permuted_targets(targets: Targets, order: Pair[torch.Tensor]) -> Targets:
    return targets.replaced({key: labels.take(order[key[0]]) for key, labels in targets.table.items()})


@pytest.mark.parametrize("refiner", [Propagate(k1=6, k2=3, rounds=2), Agree(), Proximity()], ids=str)
def test_permuting_samples_permutes_rows(refiner: Propagate | Agree | Proximity) -> None:
    scene = CASES["more_infrared"].scene()
    targets = soft_targets(scene)
    order = scene.features.map(lambda f: torch.randperm(len(f), generator=torch.Generator().manual_seed(1)))
    features = Pair.build(lambda m: scene.features[m].take(order[m]))
    moved = Scene(0, 0, features, Clustering(own=scene.clustering.own))
    one = permuted_targets(refiner.refine(scene, targets), order)
    two = refiner.refine(moved, permuted_targets(targets, order))
    for key, labels in one.table.items():
        torch.testing.assert_close(labels.prob, two.table[key].prob)
        assert torch.equal(labels.weight, two.table[key].weight)


# ---- propagate


@pytest.mark.parametrize("rounds", [0, 1, 4])
@pytest.mark.parametrize("fill", [True, False])
def test_propagate_is_the_formula(rounds: int, fill: bool) -> None:
    scene = CASES["more_infrared"].scene()
    targets = soft_targets(scene)
    found = Propagate(k1=6, k2=3, rounds=rounds, fill=fill).refine(scene, targets)
    for (modality, space), labels in targets.table.items():
        a = scene.affinity(k1=6, k2=3)[modality].to_dense()
        a = a / a.sum(dim=1, keepdim=True)
        y = torch.where(labels.labelled[:, None], labels.prob, 0)
        for _ in range(rounds):
            y = (a @ y + y) / 2
        y = torch.nn.functional.normalize(y, p=1, dim=1)
        kept = labels.weight > 0 if fill else labels.labelled
        got = found.of(modality, space)
        torch.testing.assert_close(got.prob, torch.where(kept[:, None], y, labels.prob), atol=1e-5, rtol=0)
        assert torch.equal(got.weight, labels.weight)
        if not fill:
            assert torch.equal(got.labelled, labels.labelled)


def test_propagate_repairs_a_wrong_label_and_labels_an_outlier() -> None:
    scene = toy_scene()
    labels = scene.clustering.own.visible.labels.clone()
    labels[2], labels[10] = 5, -1  # of clusters 0 and 1
    targets = Targets.compose(scene.clustering).replaced({(Modality.VISIBLE, "visible"): SoftLabels.one_hot(labels, 8)})
    found = Propagate(k1=6, k2=1, rounds=8).refine(scene, targets).of(Modality.VISIBLE, "visible").hard
    assert int(found[2]) == 0
    assert int(found[10]) == 1
    kept = Propagate(k1=6, k2=1, rounds=8, fill=False).refine(scene, targets).of(Modality.VISIBLE, "visible").hard
    assert int(kept[10]) == -1


# ---- agree


@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible", "one_visible"])
@pytest.mark.parametrize("seed", range(3))
def test_agree_against_a_plain_reading(case: str, seed: int) -> None:
    scene = CASES[case].scene()
    targets = soft_targets(scene, seed)
    found = Agree().refine(scene, targets)
    for modality in Modality:
        home = targets.of(modality.other, modality.other).hard.tolist()
        said = targets.of(modality.other, modality).hard.tolist()
        mine, labels = targets.of(modality, modality).hard.tolist(), targets.of(modality, modality.other)
        got = found.of(modality, modality.other)
        assert torch.equal(got.prob, labels.prob)
        for i, (a, b) in enumerate(zip(mine, labels.hard.tolist(), strict=True)):
            votes = Counter(s for h, s in zip(home, said, strict=True) if h == b and s >= 0)
            agreed = a >= 0 and b >= 0 and votes[a] > 0 and votes[a] == max(votes.values())
            assert float(got.weight[i]) == (float(labels.weight[i]) if agreed else 0.0)
        own = found.of(modality, modality)
        assert own is targets.of(modality, modality)


def test_agree_counts_ties_as_answers() -> None:
    x = torch.eye(4)
    own = Pair(Clusters(torch.tensor([0, 1, 2, -1]), x[:3]), Clusters(torch.tensor([0, 0, 1, 1]), x[:2]))
    scene = Scene(0, 0, Pair(Features(x), Features(x)), Clustering(own=own))
    cross = Pair(SoftLabels.one_hot(torch.tensor([0, 0, 0, 0]), 2), SoftLabels.one_hot(torch.tensor([0, 1, -1, -1]), 3))
    found = Agree().refine(scene, Targets.compose(scene.clustering, Association(cross=cross)))
    # Infrared cluster 0 answers 0 and 1 equally often, never 2; an outlier has nothing to be answered with.
    assert found.of(Modality.VISIBLE, "infrared").weight.tolist() == [1, 1, 0, 0]
    # Visible clusters 0 and 1 name infrared cluster 0; the silent rows stay silent.
    assert found.of(Modality.INFRARED, "visible").weight.tolist() == [1, 1, 0, 0]


def test_agree_keeps_a_matching_and_mutual_choices() -> None:
    scene = toy_scene()
    targets = Targets.compose(scene.clustering, Pgm()(scene))
    found = Agree().refine(scene, targets)
    for modality in Modality:
        clustered = scene.clustering.own[modality].labels >= 0
        assert torch.equal(found.of(modality, modality.other).weight, clustered.float())
    scene = CASES["far_more_visible"].scene()
    found = Agree().refine(scene, Targets.compose(scene.clustering, Nearest()(scene)))
    assert set(found.of(Modality.VISIBLE, "infrared").hard.tolist()) == {-1, 0, 1, 2, 3}  # the four that both have


def test_agree_without_cross_labels_changes_nothing() -> None:
    scene = toy_scene()
    targets = Targets.compose(scene.clustering)
    assert Agree().refine(scene, targets) is targets


# ---- proximity


@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible", "one_visible"])
@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_proximity_against_a_plain_reading(case: str, temperature: float) -> None:
    scene = CASES[case].scene()
    targets = soft_targets(scene)
    found = Proximity(temperature=temperature).refine(scene, targets)
    for modality in Modality:
        labels, got = targets.of(modality, modality.other), found.of(modality, modality.other)
        assert torch.equal(got.prob, labels.prob)
        assert found.of(modality, modality) is targets.of(modality, modality)
        centroids = scene.clustering.own[modality.other].centroids
        for x, named, before, after in zip(
            scene.features[modality].x, labels.hard.tolist(), labels.weight, got.weight, strict=True
        ):
            cosines = [float(torch.cosine_similarity(x, centroid, dim=0)) for centroid in centroids]
            share = 1.0 if named < 0 else math.exp((cosines[named] - max(cosines)) / temperature)
            assert float(after) == pytest.approx(float(before) * share, abs=1e-5)


def test_proximity_keeps_the_nearest_and_fades_what_is_far() -> None:
    scene = toy_scene()
    targets = Targets.compose(scene.clustering, Nearest()(scene))
    wrong = Targets.compose(scene.clustering, Random()(scene))
    kept, faded = (Proximity().refine(scene, given).of("visible", "infrared").weight for given in (targets, wrong))
    assert float(kept.mean()) > 0.9
    assert float(faded.mean()) < float(kept.mean())
