"""Objective `sca`, the discrepancy and the confidence it stands on: parity, oracles, gradients, what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from support.training_step import R, V, a_batch, hard_step
from torch import Tensor

from reidassoc import SHARED, Modality, Pair, SoftLabels, Targets, registry
from reidassoc.interfaces.banks import Banks
from reidassoc.ops.confidence import confidence, prototype_loss
from reidassoc.ops.mmd import kernel_width, mmd, mmd_by_label, same_label, squared_distances
from reidassoc.types import STREAMS
from reidassoc_plugins.objectives.sca import Sca

NOTHING = Banks()


def discrepancy(x: Tensor, y: Tensor) -> float:
    """MMD² pair by pair, as the formula says."""
    z = torch.cat([x, y])
    n = len(z)
    h = sum(float((a - b).square().sum()) for a in z for b in z) / (n * (n - 1)) / 4

    def k(a: Tensor, b: Tensor) -> float:
        return sum(float(torch.exp(-(p - q).square().sum() / (h * 2**i))) for p in a for q in b for i in range(5))

    return k(x, x) / len(x) ** 2 + k(y, y) / len(y) ** 2 - 2 * k(x, y) / (len(x) * len(y))


def test_mmd_is_the_published_one() -> None:
    stored = golden("mmd")
    torch.testing.assert_close(mmd(stored["source"], stored["target"]), stored["loss"], atol=1e-4, rtol=0)


def test_mmd_by_label_is_the_mean_over_common_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (7, 6))
    a, b = torch.tensor([0, 0, 1, 1, 1, 4, -1]), torch.tensor([1, 0, 0, 0, 5, -1])
    wanted = (discrepancy(x[a == 0], y[b == 0]) + discrepancy(x[a == 1], y[b == 1])) / 2
    assert mmd_by_label(x, y, a, b).item() == pytest.approx(wanted, abs=1e-12)
    order = torch.randperm(7, generator=generator)
    assert mmd_by_label(x[order], y, a[order], b).item() == pytest.approx(wanted, abs=1e-12)
    assert mmd_by_label(y, x, b, a).item() == pytest.approx(wanted, abs=1e-12)


def test_mmd_where_there_is_little_to_compare() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    for y in (x.detach()[:0], x.detach()):
        loss = mmd(x, y)
        (gradient,) = torch.autograd.grad(loss, x)
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert bool(torch.isfinite(gradient).all())
    same = torch.ones(4, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(mmd(same, same.detach()), same)
    assert bool(torch.isfinite(gradient).all())
    assert mmd_by_label(x, x, torch.tensor([0, 1, 1]), torch.tensor([2, -1, -1])).item() == 0


def test_gradients_of_mmd_are_right_with_the_width_held_fixed() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a, b = torch.tensor([0, 0, 1, -1]), torch.tensor([0, 1, 1, 1])
    label = torch.cat([a, b])
    h = kernel_width(squared_distances(torch.cat([x, y])), same_label(label).double())

    def loss(p: Tensor, q: Tensor) -> Tensor:
        return mmd_by_label(p, q, a, b, width=h)

    assert torch.autograd.gradcheck(loss, (x, y))
    ours = torch.autograd.grad(mmd_by_label(x, y, a, b), (x, y))
    for found, wanted in zip(ours, torch.autograd.grad(loss(x, y), (x, y)), strict=True):
        torch.testing.assert_close(found, wanted)


def test_confidence_tells_low_losses_from_high_ones() -> None:
    losses = torch.cat([torch.linspace(0, 0.2, 20), torch.linspace(2, 2.2, 10), torch.tensor([9.0])])
    known = torch.arange(31) < 30
    sure = confidence(losses, known, seed=0)
    assert bool((sure[:20] > 0.99).all())
    assert bool((sure[20:30] < 0.01).all())
    assert sure[30] == 0
    assert torch.equal(sure, confidence(losses, known, seed=0))
    assert torch.equal(sure, confidence(torch.where(known, losses, torch.nan), torch.ones_like(known), seed=0))
    order = torch.randperm(31, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(confidence(losses[order], known[order], seed=0), sure[order], atol=1e-3, rtol=0)


@pytest.mark.parametrize("losses", [[], [3.0], [1.0, 1.0, 1.0]])
def test_confidence_is_one_where_losses_tell_nothing(losses: list[float]) -> None:
    sure = confidence(torch.tensor(losses), torch.ones(len(losses), dtype=torch.bool), seed=0)
    assert sure.tolist() == [1.0] * len(losses)
    nobody = confidence(torch.tensor(losses), torch.zeros(len(losses), dtype=torch.bool), seed=0)
    assert nobody.tolist() == [0.0] * len(losses)


def test_prototype_loss_is_a_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(5, 3, generator=generator), dim=1)
    prototypes = torch.randn(4, 3, generator=generator)
    labels = torch.tensor([0, 3, -1, 1, 1])
    found = prototype_loss(x, prototypes, SoftLabels.one_hot(labels, 4), temperature=0.1)
    logits = x @ F.normalize(prototypes, dim=1).T / 0.1
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none", ignore_index=-1))
    assert prototype_loss(x, prototypes[:0], SoftLabels(torch.zeros(5, 0)), temperature=0.1).tolist() == [0.0] * 5


@pytest.mark.parametrize("distance", ["squared_l2", "l1"])
def test_it_is_what_its_description_says(distance: str) -> None:
    generator = torch.Generator().manual_seed(5)
    losses = Pair(*(torch.rand(8, generator=generator) for _ in range(2)))
    batch = hard_step(losses=losses)
    terms = registry.build("objectives", f"sca(distance={distance})")(batch, NOTHING)
    total = weights = 0.0
    x, y = {}, {}
    for m in Modality:
        label = batch.targets.of(m, "infrared").hard
        streams = [s for s in STREAMS if STREAMS[s] is m]
        # The seed of the mixture is the plug-in's business: its weights are taken as they are.
        w = Sca(distance=distance).trust(batch.scene, batch.targets, m).double().repeat(len(streams))  # type: ignore[arg-type]
        assert bool((w[: len(label)][label < 0] == 0).all())
        x[m], y[m] = torch.cat([batch[s].feature for s in streams]).detach(), label.repeat(len(streams))
        for k in range(3):
            rows = (y[m] == k).nonzero().flatten()
            if len(rows):
                offset = x[m][rows] - (w[rows, None] * x[m][rows]).sum(0) / w[rows].sum()
                far = offset.square().sum(1) if distance == "squared_l2" else offset.abs().sum(1)
                total, weights = total + float((w[rows] * far).sum()), weights + float(w[rows].sum())
    assert terms["intra"].item() == pytest.approx(0.5 * total / weights, abs=1e-6)
    apart = [discrepancy(x[V][y[V] == k], x[R][y[R] == k]) for k in (0, 1)]  # label 2 has no infrared sample
    assert terms["inter"].item() == pytest.approx(0.05 * 2 * sum(apart) / 2, abs=1e-6)


def test_gradients_of_the_intra_term_are_right() -> None:
    batch = hard_step()

    def loss(*z: Tensor) -> Tensor:
        made = a_batch(dict(zip(STREAMS, z, strict=True)), batch.targets.table, batch.scene)
        return Sca()(made, NOTHING)["intra"]

    assert torch.autograd.gradcheck(loss, [view.z for view in batch])


def test_the_inter_term_moves_both_modalities_from_its_epoch_on() -> None:
    batch = hard_step(epoch=4)
    assert list(Sca(inter_from=5)(batch, NOTHING)) == ["intra"]
    loss = Sca(inter_from=4)(batch, NOTHING)["inter"]
    assert all(bool(g.any()) for g in torch.autograd.grad(loss, [view.z for view in batch]))


def test_trust_is_made_once_per_epoch_and_for_each_labelling() -> None:
    batch = hard_step()
    sca = Sca()
    assert sca.banks(batch.scene, batch.targets) == ()
    first = sca.trust(batch.scene, batch.targets, V)
    assert sca.trust(batch.scene, batch.targets, V) is first
    other = batch.targets.replaced({(V, "infrared"): SoftLabels.one_hot(torch.full((8,), -1), 3)})
    assert not bool(sca.trust(batch.scene, other, V).any())


def test_a_batch_of_outliers_has_no_loss_and_no_gradient() -> None:
    batch = hard_step()
    silent = Targets({key: SoftLabels(torch.zeros_like(rows.prob)) for key, rows in batch.targets.table.items()})
    loss = torch.stack(list(Sca()(replace(batch, targets=silent), NOTHING).values())).sum()
    assert loss.item() == 0
    assert all(not bool(g.any()) for g in torch.autograd.grad(loss, [view.z for view in batch]))


def test_it_can_read_the_shared_space() -> None:
    batch = hard_step()
    shared = registry.build("objectives", "sca(space=shared, draw=shared)")
    assert shared.needs == {"shared", "losses"}
    assert shared.sampling == "shared"
    assert Sca().needs == {"cross", "losses"}
    assert Sca().sampling == "paired"
    table = {(m, SHARED): batch.targets.of(m, "infrared") for m in Modality}
    prototypes = {SHARED: batch.scene.clustering.own.infrared.centroids}
    one = Sca()(batch, NOTHING)
    two = shared(replace(batch, targets=Targets(table, prototypes)), NOTHING)
    torch.testing.assert_close(two["inter"], one["inter"])


def test_permuting_a_modalitys_rows_changes_no_loss() -> None:
    batch = hard_step(losses=Pair(torch.arange(8.0), torch.arange(8.0)))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    views = {name: replace(view, rows=view.rows[order], z=view.z[order]) for name, view in batch.views.items()}
    one, two = Sca()(batch, NOTHING), Sca()(replace(batch, views=views), NOTHING)
    for name, term in one.items():
        torch.testing.assert_close(term, two[name])
