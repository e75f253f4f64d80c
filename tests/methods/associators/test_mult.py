"""Associators `mult` and `mult_near`: contract, parity with the published code, permutation, swap."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden

import reidassoc as ra
from reidassoc import Association, Clustering, Clusters, Features, Pair, Scene, registry
from reidassoc.errors import RecipeError
from reidassoc.ops import transition
from reidassoc.ops import transport as transport_module
from reidassoc.ops.memory_limit import memory_limit
from reidassoc.ops.near_pairs import ENTRIES
from reidassoc.testing import check_associator, check_permutation, check_swap, toy_scene
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.associators.mult_near import MultNear
from reidassoc_plugins.clusterers.dbscan import Dbscan

SPACES = (("visible", "v"), ("infrared", "r"))


def golden_scene() -> Scene:
    """The stored inputs, the stored Jaccard distance included."""
    stored = golden("mult")
    features = Pair(Features(stored["features_v"]), Features(stored["features_r"]))
    for mine, suffix in zip(features, "vr", strict=True):
        affinity = (1 - stored[f"jaccard_{suffix}"]).to_sparse_csr()
        mine.memo(("affinity", 30, 6), lambda a=affinity: a)  # type: ignore[misc]
    own = Pair(Clusters(stored["labels_v"], stored["centroids_v"]), Clusters(stored["labels_r"], stored["centroids_r"]))
    return Scene(0, 0, features, Clustering(own=own))


def agreement(one: Association, two: Association) -> float:
    assert one.own is not None
    assert one.cross is not None
    assert two.own is not None
    assert two.cross is not None
    same = [a.hard == b.hard for a, b in zip((*one.own, *one.cross), (*two.own, *two.cross), strict=True)]
    return float(torch.cat(same).double().mean())


def many_people(people: int = 50, each: int = 24, width: int = 128) -> Scene:
    """Separate enough for a sparse plan, big enough for one to pay."""
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn(people, width, generator=generator)

    def one(count: int) -> Features:
        who = torch.arange(people).repeat_interleave(count)
        return Features(F.normalize(centre[who] + 0.6 * torch.randn(len(who), width, generator=generator), dim=1))

    features = Pair(one(each), one(each // 2))
    return Scene(0, 0, features, Dbscan(k1=12)(features, epoch=0, seed=0, previous=None))


@pytest.mark.parametrize("spec", ["mult", "mult(truncation=0.0)", "mult(rounds=0)", "mult_near(neighbours=5)"])
def test_contract(spec: str) -> None:
    check_associator(registry.build("associators", spec))


@pytest.mark.parametrize("truncation", [0.0, Mult.truncation])
def test_parity(truncation: float) -> None:
    stored = golden("mult")
    association = Mult(truncation=truncation)(golden_scene())
    assert association.own is not None
    assert association.cross is not None
    for modality, suffix in SPACES:
        own, cross = association.own[modality], association.cross[modality]
        torch.testing.assert_close(own.prob, stored[f"soft_own_{suffix}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(cross.prob, stored[f"soft_cross_{suffix}"], atol=1e-5, rtol=0)
        assert torch.equal(own.hard, stored[f"own_{suffix}"])
        assert torch.equal(cross.hard, stored[f"cross_{suffix}"])


@pytest.mark.parametrize("clusterer", ["dbscan(k1=20)", Dbscan(k1=20)], ids=["spec", "object"])
@pytest.mark.parametrize("associator", ["mult", Mult(truncation=0.0)], ids=["spec", "object"])
def test_associate_gives_the_published_labels(clusterer: str | Dbscan, associator: str | Mult) -> None:
    """From the features on; 0.98 to 1.0 of them while `mult` had a k1 of its own."""
    stored = golden("mult")
    found = ra.associate(associator, stored["features_v"], stored["features_r"], clusterer=clusterer, device="cpu")
    for modality, suffix in SPACES:
        assert found.own[modality].tolist() == stored[f"own_{suffix}"].tolist()
        assert found.cross[modality].tolist() == stored[f"cross_{suffix}"].tolist()


def test_default_truncation_changes_no_more_than_a_label_in_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = many_people()
    exact = Mult(truncation=0.0)(scene)
    assert agreement(Mult()(scene), exact) >= 0.999
    monkeypatch.setattr(transition, "MAX_DENSITY", 1.0)  # truncated, whether it pays or not
    assert agreement(Mult()(scene), exact) >= 0.999
    assert agreement(Mult()(golden_scene()), Mult(truncation=0.0)(golden_scene())) >= 0.999


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_shortcuts_change_no_more_than_a_label_in_a_thousand(
    monkeypatch: pytest.MonkeyPatch, bfloat16: bool, dense: bool
) -> None:
    scene = many_people()
    exact = Mult(truncation=0.0)(scene)
    monkeypatch.setattr(transport_module, "FAST_FROM", 0)
    monkeypatch.setattr(transport_module, "bfloat16_pays", lambda device: bfloat16)
    if dense:
        monkeypatch.setattr(transition, "MAX_DENSITY", 0.0)
    assert agreement(Mult()(scene), exact) >= 0.999


def test_default_truncation_is_used_where_it_pays() -> None:
    scene = many_people()
    plan = transition.Plan
    from reidassoc.ops.transport import transport

    moved = transport(scene.features.visible.x, scene.features.infrared.x, strength=25.0)
    assert isinstance(moved, plan)
    assert not isinstance(transition.TransitionMatrix.of_plan(moved, lost=Mult.truncation).source, plan)


def test_outliers_get_labels_and_rows_sum_to_one() -> None:
    scene = toy_scene()
    association = Mult()(scene)
    assert association.own is not None
    for modality, labels in zip(("visible", "infrared"), association.own, strict=True):
        assert bool((scene.clustering.own[modality].labels == -1).any())
        assert bool((labels.hard >= 0).all())
        torch.testing.assert_close(labels.prob.sum(1), torch.ones(len(labels)), atol=1e-4, rtol=0)


def test_permuting_samples_permutes_rows() -> None:
    check_permutation(Mult())


def test_swapping_modalities_swaps_the_answer() -> None:
    # Nearly: the plan's columns are exact and its rows are not, and which is which depends on the modality.
    check_swap(Mult(), agreement=0.95)


def test_arrays_beyond_the_memory_limit_name_mult_near() -> None:
    scene = toy_scene()
    kernel = len(scene.features.visible) * len(scene.features.infrared) * 4 / 2**30
    with memory_limit(kernel * 0.99), pytest.raises(RecipeError, match="an array of"):
        Mult()(scene)


def test_mult_near_with_all_pairs_is_mult() -> None:
    scene = toy_scene()
    every = max(len(features) for features in scene.features)
    # Rounds of the plain plan stop early, those of the sparse one converge; so both stop where labels no longer change.
    one, two = (
        Mult(truncation=0.0, rounds=5, tolerance=0)(scene),
        MultNear(truncation=0.0, rounds=5, tolerance=0, neighbours=every)(scene),
    )
    assert agreement(one, two) >= 0.99
    for a, b in zip((*(one.own or ()), *(one.cross or ())), (*(two.own or ()), *(two.cross or ())), strict=True):
        torch.testing.assert_close(a.prob, b.prob, atol=0.02, rtol=0)


def test_mult_near_gives_nearly_the_labels_of_mult() -> None:
    scene = many_people()
    whole, near = Mult(k1=12)(scene), MultNear(k1=12, neighbours=30)(scene)
    assert near.cross is not None
    assert near.cross.visible.value.shape[1] <= ENTRIES
    assert agreement(whole, near) >= 0.99
    for one, two in zip(whole.cross or (), near.cross, strict=True):
        assert float((one.prob - two.prob).abs().sum(1).mean()) < 0.05


def test_mult_near_permutes_with_the_samples() -> None:
    check_permutation(MultNear(neighbours=12))


def test_mult_near_swaps_with_the_modalities() -> None:
    check_swap(MultNear(neighbours=12), agreement=0.95)
