"""Associators that look at samples, or at plans (`otla`, `clu`, `brst`, `rpnr`, `nulc`): contract, parity, property."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from support.cluster_scenes import golden_scene, random_scene
from support.golden_vectors import golden

from reidassoc import Associator, Clustering, Clusters, Features, Modality, Pair, Scene, SoftLabels, registry
from reidassoc.ops.votes import vote, winner
from reidassoc.testing import CASES, check_associator, check_permutation, check_swap, toy_scene
from reidassoc_plugins.associators.brst import Brst
from reidassoc_plugins.associators.clu import Clu
from reidassoc_plugins.associators.nulc import Nulc
from reidassoc_plugins.associators.otla import Otla
from reidassoc_plugins.associators.pgm import Pgm
from reidassoc_plugins.associators.rpnr import Rpnr

MANY = ("ordinary", "more_infrared", "far_more_visible", "one_visible")


def cross(associator: Associator, scene: Scene) -> Pair[SoftLabels]:
    found = associator(scene).cross
    assert found is not None
    return found


@pytest.mark.parametrize(
    "spec",
    [
        "otla",
        "otla(outliers=true)",
        "clu",
        "clu(outliers=true, within=1)",
        "clu(temperature=1e-3)",
        "brst",
        "brst(outliers=true, ratio=1.0)",
        "rpnr",
        "nulc",
        "nulc(neighbours=1, sharpness=1000.0)",
    ],
)
def test_contract(spec: str) -> None:
    check_associator(registry.build("associators", spec))


@pytest.mark.parametrize("associator", [Otla(), Otla(outliers=True), Clu(), Brst(), Rpnr(), Nulc()], ids=str)
def test_symmetries(associator: Associator) -> None:
    check_permutation(associator)
    check_swap(associator)


@pytest.mark.parametrize("spec", ["otla", "clu", "brst"])
def test_outliers_have_a_cross_label_only_if_asked_for(spec: str) -> None:
    scene = toy_scene()
    without, with_them = (
        cross(registry.build("associators", f"{spec}(outliers={o})"), scene) for o in ("false", "true")
    )
    for modality in Modality:
        outlier = scene.clustering.own[modality].labels == -1
        assert bool((without[modality].hard[outlier] == -1).all())
        if spec != "brst":
            assert bool((with_them[modality].hard >= 0).all())


# ---- otla


def test_otla_parity_with_the_published_code() -> None:
    stored, found = golden("cluster_matching"), cross(Otla(), golden_scene())
    assert torch.equal(found.visible.hard, stored["otla_cross_v"])
    assert torch.equal(found.infrared.hard, stored["otla_cross_r"])


@pytest.mark.parametrize("case", MANY)
def test_otla_agrees_with_pot(case: str) -> None:
    scene = CASES[case].scene()
    for modality in Modality:
        clusters, target = scene.clustering.own[modality], scene.clustering.own[modality.other].centroids.double()
        x = scene.features[modality].x[clusters.clustered].double()
        cost = torch.cdist(x, target).square().numpy()
        plan = ot.sinkhorn(
            ot.unif(len(x)), ot.unif(len(target)), cost, 1 / 25.0, numItermax=5000, stopThr=1e-12, warn=False
        )
        found = cross(Otla(), scene)[modality].hard[clusters.clustered].numpy()
        # Two stopping rules: only near ties may differ.
        chosen = plan[np.arange(len(x)), found] / plan.max(axis=1)
        assert (chosen > 0.8).all()
        assert (found == plan.argmax(axis=1)).mean() >= 0.95


# ---- votes


def test_votes() -> None:
    ballots = torch.tensor([[0, 1, 1], [2, -1, 0], [-1, -1, -1]])
    assert vote(ballots, 3).tolist() == [[1, 2, 0], [1, 0, 1], [0, 0, 0]]
    assert winner(vote(ballots, 3)).tolist() == [1, 0, -1]  # the smaller of equals; nobody voted
    assert winner(vote(ballots, 3, torch.tensor([[5.0, 1, 1], [1, 9, 0.5], [1, 1, 1]]))).tolist() == [0, 2, -1]
    assert winner(vote(torch.full((2, 4), -1), 0)).tolist() == [-1, -1]
    assert vote(torch.zeros(0, 3, dtype=torch.int64), 5).shape == (0, 5)


# ---- clu


@pytest.mark.parametrize("case", MANY)
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_clu_against_a_plain_reading(case: str, temperature: float) -> None:
    scene = CASES[case].scene()
    found = cross(Clu(across=7, within=5, temperature=temperature), scene)
    for modality in Modality:
        mine, target = scene.clustering.own[modality], scene.clustering.own[modality.other]
        x, y = scene.features[modality].x[mine.clustered], scene.features[modality.other].x[target.clustered]
        labels = F.one_hot(target.labels[target.clustered], target.count).double()
        soft = torch.softmax((x @ y.T).double() / temperature, dim=1)
        top = soft.topk(min(7, len(y)), dim=1)
        first = (torch.zeros_like(soft).scatter(1, top.indices, top.values) @ labels).argmax(dim=1)
        near = (x @ x.T).topk(min(5, len(x)), dim=1).indices
        second = [min(votes, key=lambda k: (-votes[k], k)) for votes in (Counter(r.tolist()) for r in first[near])]
        assert found[modality].hard[mine.clustered].tolist() == second


def test_clu_of_a_clean_scene_is_the_truth() -> None:
    scene = toy_scene()
    for modality in Modality:
        labels = scene.clustering.own[modality].labels
        assert torch.equal(cross(Clu(across=6, within=6), scene)[modality].hard, labels)


# ---- brst


@pytest.mark.parametrize("case", MANY)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9, 1.0])
def test_brst_against_a_plain_reading(case: str, ratio: float) -> None:
    scene = CASES[case].scene()
    found = cross(Brst(ratio=ratio), scene)
    for modality in Modality:
        rows = scene.clustering.own[modality].clustered
        cosine = scene.features[modality].x[rows] @ F.normalize(scene.clustering.own[modality.other].centroids, dim=1).T
        for row, label in zip(cosine, found[modality].hard[rows].tolist(), strict=True):
            nearest = int(row.argmax())
            assert label == (nearest if row[nearest] >= ratio * cosine[:, nearest].max() else -1)


# ---- rpnr


@pytest.mark.parametrize(("k_v", "k_r"), [(6, 6), (4, 9), (9, 4), (1, 5), (5, 1)])
@pytest.mark.parametrize("regularisation", [5.0, 0.05])
def test_rpnr_is_the_largest_entry_of_the_plan(k_v: int, k_r: int, regularisation: float) -> None:
    """Against Sinkhorn's scaling written out in float64. With one cluster on a side all entries are equal, but for rounding."""
    scene = random_scene(k_v, k_r)
    cosine = scene.features.visible.x.double() @ scene.features.infrared.x.double().T
    plan = torch.exp(-torch.exp(-cosine) / regularisation)
    for _ in range(3000):
        plan = plan / plan.sum(dim=1, keepdim=True) / k_v
        plan = plan / plan.sum(dim=0, keepdim=True) / k_r
    found = cross(Rpnr(regularisation=regularisation), scene)
    for labels, side in zip(found, (plan, plan.T), strict=True):
        taken = side.gather(1, labels.hard[:, None]).flatten()
        torch.testing.assert_close(taken, side.amax(dim=1), rtol=1e-12, atol=0)


# ---- nulc


@pytest.mark.parametrize("case", MANY)
def test_nulc_against_a_plain_reading(case: str) -> None:
    scene = CASES[case].scene()
    association = Nulc(neighbours=9)(scene)
    assert association.own is not None
    assert association.cross is not None
    matched = cross(Pgm(), scene)
    for modality in Modality:
        for space in Modality:
            target = scene.clustering.own[space]
            given = association.own if space is modality else association.cross
            hard = scene.clustering.own[modality].labels if space is modality else matched[modality].hard
            members = [set((target.labels == k).nonzero().flatten().tolist()) for k in range(target.count)]
            keys = target.clustered
            similar = scene.features[modality].x @ scene.features[space].x[keys].T
            for i, row in enumerate(similar.topk(min(9, len(keys)), dim=1).indices):
                label = int(hard[i])
                near = set(keys[row].tolist())
                share = [len(near & cluster) / len(near | cluster) for cluster in members]
                total = sum(share)
                want = (
                    [0.3 * s / total + 0.7 * (k == label) for k, s in enumerate(share)]
                    if label >= 0
                    else [0.0] * len(share)
                )
                assert given[modality].prob[i].tolist() == pytest.approx(want, abs=1e-6)
                sure = share[label] / total if label >= 0 else 0.0
                assert float(given[modality].weight[i]) == pytest.approx(math.exp(-10 * (1 - sure) ** 2), abs=1e-6)


def test_nulc_keeps_a_label_that_no_neighbour_supports() -> None:
    """Its target still names it first, with the least weight."""
    labels = Nulc().calibrate(torch.tensor([0, 1, -1]), torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(labels.prob, torch.tensor([[0.7, 0.3], [0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(labels.weight, torch.exp(torch.tensor([-10.0, -10.0, -10.0])))
    assert labels.hard.tolist() == [0, 1, -1]


def test_a_cluster_of_neighbours_backs_a_label_fully() -> None:
    x = torch.eye(2).repeat_interleave(4, 0)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    own = Clusters(labels, torch.eye(2))
    scene = Scene(0, 0, Pair(Features(x), Features(x)), Clustering(own=Pair(own, own)))
    association = Nulc(neighbours=4)(scene)
    assert association.own is not None
    for found in (*association.own, *cross(Nulc(neighbours=4), scene)):
        assert torch.equal(found.prob, SoftLabels.one_hot(labels, 2).prob)
        assert torch.equal(found.weight, torch.ones(8))
