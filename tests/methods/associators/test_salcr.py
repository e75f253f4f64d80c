"""Associators `salcr` and `dagi`, and feature propagation: contract, parity, property."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from torch import Tensor

from reidassoc import OUTLIER, Clustering, Clusters, Features, Modality, Pair, Scene, registry
from reidassoc.ops.memory_limit import memory_limit
from reidassoc.ops.propagation import propagate
from reidassoc.ops.prototypes import centroids
from reidassoc.testing import CASES, check_associator, check_permutation, check_swap, toy_scene
from reidassoc_plugins.associators.salcr import Salcr

SPECS = ["salcr", "dagi", "salcr(k=3, relabel_own=false)", "salcr(propagate=false)", "salcr(strength=25.0)"]


def golden_scene() -> tuple[dict[str, Tensor], Scene]:
    """The stored scene. Its outliers are not stored: one is added to each modality, to be left out."""
    stored = golden("salcr_dagi")

    def one(side: str) -> tuple[Features, Clusters]:
        x, labels = stored[f"global_{side}"].float(), stored[f"labels_{side}"]
        x = F.normalize(torch.cat([x, torch.ones(1, x.shape[1])]), dim=1)
        labels = torch.cat([labels, torch.tensor([OUTLIER])])
        return Features(x), Clusters(labels, centroids(x, labels, int(labels.max()) + 1))

    (visible, own_v), (infrared, own_r) = one("v"), one("r")
    return stored, Scene(0, 0, Pair(visible, infrared), Clustering(Pair(own_v, own_r)))


@pytest.mark.parametrize("spec", SPECS)
def test_contract(spec: str) -> None:
    check_associator(registry.build("associators", spec))


def test_parity() -> None:
    stored, scene = golden_scene()
    association = Salcr(k=int(stored["k"]), strength=float(stored["lambda_ot"]))(scene)
    assert association.own is not None
    assert association.cross is not None
    for modality, side in ((Modality.VISIBLE, "v"), (Modality.INFRARED, "r")):
        assert torch.equal(association.own[modality].hard[:-1], stored[f"own_{side}"])
        assert torch.equal(association.cross[modality].hard[:-1], stored[f"cross_{side}"])
        assert int(association.own[modality].hard[-1]) == int(association.cross[modality].hard[-1]) == OUTLIER


def test_propagation_is_the_published_one() -> None:
    stored, scene = golden_scene()
    fused = propagate(scene.features.map(lambda f: f.x[:-1]), k=int(stored["k"]))
    for found, side in zip(fused, "vr", strict=True):
        torch.testing.assert_close(found[:8], stored[f"fused_{side}_first8"], atol=1e-4, rtol=0)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))


@pytest.mark.parametrize("k", [1, 4, 100])
def test_propagation_is_what_dense_matrices_say(k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    v, r = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (12, 7))

    def block(a: Tensor, b: Tensor) -> Tensor:
        similarity = a @ b.T
        least = similarity.sort(dim=1, descending=True).values[:, min(k, len(b)) - 1 :][:, :1]
        kept = torch.where(similarity >= least, similarity, 0).clamp(min=0)
        return kept / kept.sum(dim=1, keepdim=True).clamp(min=1e-12)

    graph = torch.cat([torch.cat([block(v, v), block(v, r)], 1), torch.cat([block(r, v), block(r, r)], 1)])
    wanted = F.normalize(graph @ torch.cat([v, r]), dim=1)
    torch.testing.assert_close(torch.cat(list(propagate(Pair(v, r), k=k))), wanted)


def test_propagation_without_the_other_modality() -> None:
    x = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    fused = propagate(Pair(x, x[:0]), k=1)
    torch.testing.assert_close(fused.visible, x)
    assert fused.infrared.shape == (0, 4)


def test_propagation_refuses_what_it_cannot_use() -> None:
    x = torch.eye(3)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        propagate(Pair(x, x), k=0)
    with pytest.raises(ValueError, match=r"same width, got \(3, 3\) and \(3, 2\)"):
        propagate(Pair(x, x[:, :2]), k=1)
    with pytest.raises(ValueError, match="infrared features has NaN or infinite values in 1 of 3 rows"):
        propagate(Pair(x, x / torch.tensor([[1.0], [0.0], [1.0]])), k=1)


def test_own_labels_can_be_kept() -> None:
    scene = toy_scene()
    assert Salcr(relabel_own=False)(scene).own is None
    own = Salcr(k=5)(scene).own
    assert own is not None
    for modality in Modality:
        assert torch.equal(own[modality].hard, scene.clustering.own[modality].labels)  # easy: nothing to correct


def test_it_finds_the_right_partners() -> None:
    for case in ("ordinary", "more_infrared"):
        scene = CASES[case].scene()
        cross = Salcr(k=6)(scene).cross
        assert cross is not None
        for modality in Modality:
            own = scene.clustering.own[modality].labels
            known = (own >= 0) & (own < scene.clustering.own[modality.other].count)
            assert float((cross[modality].hard[known] == own[known]).double().mean()) > 0.9
            assert bool((cross[modality].hard[own < 0] == OUTLIER).all())


@pytest.mark.parametrize("spec", ["salcr(k=5)", "salcr(propagate=false)"])
def test_permuting_and_swapping(spec: str) -> None:
    check_permutation(registry.build("associators", spec))
    check_swap(registry.build("associators", spec))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_contract_on_cuda() -> None:
    for spec in SPECS:
        check_associator(registry.build("associators", spec), device="cuda")


def test_a_small_memory_limit_leaves_nearly_all_labels() -> None:
    scene = toy_scene()
    whole = Salcr(k=5)(scene)
    with memory_limit(1e-7):  # 107 bytes: blocks of one row, centroids' kernels on near pairs
        small = Salcr(k=5)(scene)
    for one, two in zip((*whole.own, *whole.cross), (*small.own, *small.cross), strict=True):  # type: ignore[misc]
        assert float((one.hard == two.hard).double().mean()) >= 0.98
