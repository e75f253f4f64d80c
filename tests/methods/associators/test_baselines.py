"""Associators `nearest`, `random`, `oracle` and refiner `mix`: contract, parity with a plain reading, property."""

from __future__ import annotations

import pytest
import torch

from reidassoc import Association, Clustering, Clusters, Features, Modality, Pair, Scene, SoftLabels, Targets, registry
from reidassoc.testing import (
    CASES,
    check_associator,
    check_permutation,
    check_refiner,
    check_swap,
    toy_identity,
    toy_scene,
)
from reidassoc_plugins.associators.nearest import Nearest
from reidassoc_plugins.associators.oracle import Oracle
from reidassoc_plugins.associators.random import Random
from reidassoc_plugins.refiners.mix import Mix


@pytest.mark.parametrize("name", ["nearest", "random", "oracle"])
def test_associator_contracts(name: str) -> None:
    check_associator(registry.build("associators", name))


@pytest.mark.parametrize("spec", ["mix", "mix(beta=0.0)", "mix(beta=1.0)", "mix(cross=0.0)"])
def test_refiner_contracts(spec: str) -> None:
    check_refiner(registry.build("refiners", spec))


@pytest.mark.parametrize("associator", [Nearest(), Oracle()])
def test_symmetries(associator: Nearest | Oracle) -> None:
    check_permutation(associator)
    check_swap(associator)


@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible"])
def test_nearest_is_the_centroid_of_largest_cosine(case: str) -> None:
    scene = CASES[case].scene()
    cross = Nearest()(scene).cross
    assert cross is not None
    for modality in Modality:
        centroids = scene.clustering.own[modality.other].centroids
        for x, label in zip(scene.features[modality].x, cross[modality].hard, strict=True):
            cosine = [float(torch.dot(x, c) / c.norm()) for c in centroids]
            assert int(label) == cosine.index(max(cosine))


@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible", "one_visible"])
def test_random_is_a_matching(case: str) -> None:
    scene = CASES[case].scene()
    cross = Random()(scene).cross
    assert cross is not None
    partner = {}
    for modality in Modality:
        labels, other = scene.clustering.own[modality].labels, cross[modality].hard
        assert bool((other[labels == -1] == -1).all())
        partner[modality] = dict(zip(labels.tolist(), other.tolist(), strict=True))
        assert all(partner[modality][a] == b for a, b in zip(labels.tolist(), other.tolist(), strict=True))
        partner[modality].pop(-1, None)
    small, large = sorted(Modality, key=lambda m: len(partner[m]))
    assert len(set(partner[small].values())) == len(partner[small])  # one-to-one from the smaller side
    assert all(partner[large][b] == a for a, b in partner[small].items())  # and back
    shares = torch.bincount(torch.tensor(list(partner[large].values())))
    assert int(shares.max() - shares.min()) <= 1  # the rest is spread evenly


def test_random_depends_on_seed_and_epoch_and_nothing_else() -> None:
    def hard(seed: int, epoch: int) -> list[int]:
        toy = CASES["ordinary"].scene(epoch=epoch)
        cross = Random()(Scene(epoch, seed, toy.features, toy.clustering)).cross
        assert cross is not None
        return cross.visible.hard.tolist()

    assert hard(0, 0) == hard(0, 0)
    assert len({tuple(hard(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_random_swap() -> None:
    """Swapped sizes, same rule: the answer is again a matching (the draw itself has no symmetry)."""
    scene = CASES["far_more_visible"].scene()
    cross = Random()(scene).cross
    assert cross is not None
    assert len(set(cross.visible.hard.tolist()) - {-1}) == scene.clustering.own.infrared.count


def test_oracle_is_the_majority() -> None:
    x = torch.eye(8)
    scene = Scene(
        0,
        0,
        Pair(Features(x[:4]), Features(x)),
        Clustering(
            own=Pair(
                Clusters(torch.tensor([0, 0, 1, -1]), torch.zeros(2, 8)),
                Clusters(torch.tensor([0, 1, 1, 1, 0, 0, -1, -1]), torch.zeros(2, 8)),
            )
        ),
    )
    identity = Pair(torch.tensor([7, 7, 5, 9]), torch.tensor([7, 7, 7, 5, 5, 5, 9, -1]))
    cross = Oracle()(scene, identity=identity).cross
    assert cross is not None
    # 7: two of three in cluster 1; 5: two of three in cluster 0; 9 is clustered nowhere; −1 is nobody.
    assert cross.visible.hard.tolist() == [1, 1, 0, -1]
    assert cross.infrared.hard.tolist() == [0, 0, 0, 1, 1, 1, -1, -1]


def test_oracle_finds_the_truth_of_a_clean_scene() -> None:
    scene, identity = toy_scene(), toy_identity()
    cross = Oracle()(scene, identity=identity).cross
    assert cross is not None
    for modality in Modality:
        known = identity[modality] < 8
        assert torch.equal(cross[modality].hard[known], identity[modality][known])
        assert bool((cross[modality].hard[~known] == -1).all())


def test_oracle_asks_for_identities() -> None:
    with pytest.raises(ValueError, match="oracle needs true identities"):
        Oracle()(toy_scene())
    with pytest.raises(ValueError, match="identity of the visible samples must be"):
        Oracle()(toy_scene(), identity=Pair(torch.zeros(3), torch.zeros(3)))


def test_mix_is_beta_hard_and_the_rest_soft() -> None:
    scene = toy_scene()
    count = len(scene.features.visible)
    prob = torch.softmax(torch.randn(count, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    prob[3] = 0
    weight = torch.rand(count)
    labels = SoftLabels(prob, weight)
    cross = Pair(labels, SoftLabels.one_hot(scene.clustering.own.infrared.labels, 8))
    mixed = Mix(beta=0.7).refine(scene, Targets.compose(scene.clustering, Association(cross=cross)))
    got = mixed.of(Modality.VISIBLE, "infrared")
    want = 0.3 * prob
    want[torch.arange(count), prob.argmax(1)] += 0.7
    want[3] = 0
    torch.testing.assert_close(got.prob, want)
    assert torch.equal(got.weight, weight)
    assert torch.equal(got.hard, labels.hard)
    untouched = mixed.of(Modality.INFRARED, "visible")  # hard labels stay hard, silent ones silent
    torch.testing.assert_close(untouched.prob, cross.infrared.prob)


def test_mix_has_a_beta_of_its_own_for_cross_labels() -> None:
    scene = toy_scene()
    soft = scene.features.map(lambda f: SoftLabels(torch.softmax(f.x[:, :8], dim=1)))
    targets = Targets.compose(scene.clustering, Association(cross=soft, own=soft))
    mixed = Mix(beta=0.7, cross=0.2).refine(scene, targets)
    for modality in Modality:
        own, cross = (mixed.of(modality, space).prob for space in (modality, modality.other))
        torch.testing.assert_close(own, Mix.mixed(soft[modality], 0.7).prob)
        torch.testing.assert_close(cross, Mix.mixed(soft[modality], 0.2).prob)


def test_mix_permutes_with_its_rows() -> None:
    prob = torch.softmax(torch.randn(20, 5), dim=1)
    order = torch.randperm(20)
    labels = SoftLabels(prob)
    torch.testing.assert_close(Mix.mixed(labels, 0.7).take(order).prob, Mix.mixed(labels.take(order), 0.7).prob)
