"""Associator `mmm` and its parts: contract, parity with the published code and scikit-learn, property."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.golden_vectors import golden

from reidassoc import OUTLIER, Clustering, Clusters, Modality, Pair, Scene, registry
from reidassoc.ops.assignment import in_rounds
from reidassoc.ops.memories import memory_cost, sub_memories
from reidassoc.testing import CASES, check_associator, check_permutation, check_swap, toy_scene
from reidassoc_plugins.associators.mmm import Mmm

SPECS = ["mmm", "mmm(matcher=greedy, direction=infrared)", "mmm(matcher=greedy, limit=0.5)", "mmm(memories=1)"]


@pytest.mark.parametrize("spec", SPECS)
def test_contract(spec: str) -> None:
    check_associator(registry.build("associators", spec))


def test_sub_memories_are_the_published_ones() -> None:
    stored = golden("mmm_matching")
    for side in "vr":
        labels, wanted = stored[f"labels_{side}"], stored[f"memories_{side}"]
        found = sub_memories(stored[f"features_{side}"], labels, len(wanted), count=4, seed=0)
        sizes = torch.bincount(labels[labels >= 0])
        torch.testing.assert_close(found[sizes > 4], wanted[sizes > 4], atol=1e-4, rtol=0)
        for cluster in (sizes == 4).nonzero().flatten():  # one centre a sample: ours in the order of the samples
            assert (torch.cdist(found[cluster], wanted[cluster]) < 1e-3).sum() == 4


def test_greedy_matching_is_the_published_one() -> None:
    stored = golden("mmm_matching")
    memories = Pair(stored["memories_v"], stored["memories_r"][:-1])  # the code forgets the last infrared cluster
    partner = Mmm(matcher="greedy", direction="infrared").match(memories).visible
    labels = stored["labels_v"]
    for cluster in range(len(memories.visible) - 1):  # and the last visible one
        assert set(stored["matched_labels_v"][labels == cluster].tolist()) == {int(partner[cluster])}
    assert torch.equal(stored["matched_labels_r"], stored["labels_r"])


def test_cost_is_the_sum_over_one_side_of_the_nearest_of_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    own, other = torch.randn(3, 4, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    cost = memory_cost(own, other)
    for i, j in itertools.product(range(3), range(2)):
        wanted = sum(min(float((a - b).norm()) for b in other[j]) for a in own[i])
        assert abs(float(cost[i, j]) - wanted) < 1e-5
    assert memory_cost(own, other[:0]).shape == (3, 0)


def test_a_small_cluster_keeps_its_samples_padded_by_their_mean() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0], [0.5, 0.5]])
    found = sub_memories(x, torch.tensor([0, 0, -1, 1]), 2, count=3, seed=0)
    assert torch.equal(found[0], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    assert torch.equal(found[1], x[[3, 3, 3]])
    with pytest.raises(ValueError, match="cluster 2 has no member"):
        sub_memories(x, torch.tensor([0, 0, -1, 1]), 3, count=3, seed=0)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        sub_memories(x, torch.tensor([0, 0, -1, 1]), 2, count=0, seed=0)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (2, 5), (5, 2), (1, 4), (7, 3)])
def test_every_round_is_the_cheapest_matching(shape: tuple[int, int]) -> None:
    cost = torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    row, column = in_rounds(cost)
    assert bool((row >= 0).all())
    assert bool((column >= 0).all())
    small, large, table = (row, column, cost.numpy()) if shape[0] <= shape[1] else (column, row, cost.T.numpy())
    assert len(set(small.tolist())) == len(small)
    assert all(int(large[partner]) == number for number, partner in enumerate(small.tolist()))  # first round: mutual
    best = min(sum(table[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(len(large)), len(small)))
    assert abs(sum(table[i, j] for i, j in enumerate(small.tolist())) - best) < 1e-12
    most = -(-len(large) // len(small))
    assert max(large.tolist().count(i) for i in range(len(small))) <= most  # so many rounds, one partner in each
    turned = in_rounds(cost.T)
    assert torch.equal(turned.visible, column)
    assert torch.equal(turned.infrared, row)


def test_nobody_to_match_with() -> None:
    for matcher in ("hungarian", "greedy"):
        mmm = registry.build("associators", f"mmm(matcher={matcher})")
        partner = mmm.match(Pair(torch.zeros(3, 4, 2), torch.zeros(0, 4, 2)))
        assert partner.visible.tolist() == [OUTLIER] * 3
        assert len(partner.infrared) == 0


def test_greedy_leaves_dear_clusters_alone_and_answers_the_cheapest() -> None:
    cost = torch.tensor([[1.0, 5.0], [0.5, 5.0], [9.0, 8.0]], dtype=torch.float64)
    partner = Mmm(matcher="greedy", limit=7.0).greedy(cost)
    assert partner.visible.tolist() == [0, 0, OUTLIER]
    assert partner.infrared.tolist() == [1, OUTLIER]


def test_it_finds_the_right_partners_and_leaves_outliers_out() -> None:
    for case in ("ordinary", "more_infrared", "far_more_visible"):
        scene = CASES[case].scene()
        cross = Mmm()(scene).cross
        assert cross is not None
        for modality in Modality:
            own = scene.clustering.own[modality].labels
            shared = (own >= 0) & (own < min(c.count for c in scene.clustering.own))
            assert torch.equal(cross[modality].hard[shared], own[shared])
            assert bool((cross[modality].hard[own < 0] == OUTLIER).all())
            assert bool((cross[modality].hard[own >= 0] >= 0).all())


@pytest.mark.parametrize("memories", [1, 8])
@pytest.mark.parametrize("matcher", ["hungarian", "greedy"])
def test_permuting_samples_permutes_rows(matcher: str, memories: int) -> None:
    # In between K-means starts from other samples, and the leftovers of a round may find other partners.
    check_permutation(registry.build("associators", f"mmm(matcher={matcher}, memories={memories})"))


def test_swapping_modalities_and_the_direction_swaps_the_answer() -> None:
    check_swap(Mmm(memories=1))  # one memory each: both directions are the same

    scene = toy_scene()
    own = scene.clustering.own
    turned = Scene(
        0, scene.seed, scene.features.swapped, Clustering(Pair(*(Clusters(c.labels, c.centroids) for c in own.swapped)))
    )
    one, two = Mmm(direction="visible")(scene).cross, Mmm(direction="infrared")(turned).cross
    assert one is not None
    assert two is not None
    assert torch.equal(one.visible.hard, two.infrared.hard)
    assert torch.equal(one.infrared.hard, two.visible.hard)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_contract_on_cuda() -> None:
    for spec in SPECS:
        check_associator(registry.build("associators", spec), device="cuda")
