"""Refiner `gpcr` and its loss: contract, parity with the published code, gradients, what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.salcr_step import MAPS, leaves, published_step, random_part_step, reordered, with_leaves
from support.training_step import double
from torch import Tensor

from reidassoc import Features, Modality, Pair, registry
from reidassoc.errors import RecipeError
from reidassoc.interfaces.banks import Banks
from reidassoc.interfaces.batch import Batch, View
from reidassoc.ops.positives import near_floor, near_rows, positive_loss
from reidassoc.testing import check_refiner
from reidassoc.types import STREAMS
from reidassoc_plugins.objectives.dual import Dual
from reidassoc_plugins.refiners.gpcr import Gpcr


def loss_of(gpcr: Gpcr, batch: Batch) -> tuple[Banks, Tensor]:
    banks = double(Banks.rebuild(gpcr.banks(batch.scene, batch.targets)))
    return banks, torch.stack(list(gpcr.losses(batch, banks).values())).sum()


@pytest.mark.parametrize("spec", ["gpcr", "gpcr(parts=false)"])
def test_contract(spec: str) -> None:
    check_refiner(registry.build("refiners", spec))


def test_its_losses_are_the_published_ones() -> None:
    stored, batch = published_step()
    gpcr = Gpcr(k=int(stored["k_instance"]), temperature=float(stored["temperature"]))
    terms = gpcr.losses(batch, Banks.rebuild(gpcr.banks(batch.scene, batch.targets)))
    for name in ("global", "part"):
        torch.testing.assert_close(terms[name].double(), stored[f"loss_instance_{name}"], atol=1e-4, rtol=0)


def test_with_dual_its_gradient_is_the_published_one() -> None:
    stored, batch = published_step()
    gpcr, dual = Gpcr(k=int(stored["k_instance"])), Dual()
    banks = Banks.rebuild([*dual.banks(batch.scene, batch.targets), *gpcr.banks(batch.scene, batch.targets)])
    loss_dual = torch.stack(list(dual(batch, banks).values())).sum()
    torch.testing.assert_close(loss_dual.double(), stored["loss_global"], atol=1e-4, rtol=0)
    loss = loss_dual + 0.5 * gpcr.losses(batch, banks)["global"]
    found = torch.cat(torch.autograd.grad(loss, [view.z for view in batch]))
    torch.testing.assert_close(found, stored["grad_feat"], atol=1e-6, rtol=1e-4)


def test_it_is_what_its_description_says() -> None:
    batch, k = random_part_step(), 5
    banks = double(Banks.rebuild(Gpcr(k=k).banks(batch.scene, batch.targets)))

    def near(feature: Tensor, name: str) -> tuple[Tensor, set[int]]:
        logits = banks[name].vectors @ F.normalize(feature, dim=0) / 0.05
        return logits.softmax(0), set(logits.argsort(descending=True)[:k].tolist())

    total = {"global": 0.0, "part": 0.0}
    for m in Modality:
        rows = []
        for i in range(4):
            found = [near(batch[s].z[i], f"gpcr.{m}") for s in STREAMS]
            alike = set.intersection(*(hits for _, hits in found))
            rows += [-p[sorted(alike)].sum().log().item() for p, _ in found if alike]
        total["global"] += sum(rows) / max(1, len(rows))
        for part in range(2):
            rows = []
            for i in range(4):
                for s in STREAMS:
                    mine = near(batch[s].z[i], f"gpcr.{m}")[1]
                    found = [near(batch[s].parts[s, asked][i, part], f"gpcr.{m}.{part}") for asked in MAPS[s]]
                    for number, (p, _) in enumerate(found):
                        hits = mine & {row for other in range(3) if other != number for row in found[other][1]}
                        rows += [-p[sorted(hits)].sum().log().item()] if hits else []
            total["part"] += sum(rows) / max(1, len(rows)) / 2
    for name, term in Gpcr(k=k).losses(batch, banks).items():
        assert total[name] > 0
        assert abs(term.item() - total[name]) < 1e-9


@pytest.mark.parametrize("k", [1, 3, 30])
def test_gradients_are_those_of_the_loss(k: int) -> None:
    batch = random_part_step(rows=2, width=3)
    gpcr = Gpcr(k=k, temperature=0.5)
    banks = double(Banks.rebuild(gpcr.banks(batch.scene, batch.targets)))

    def losses(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(gpcr.losses(with_leaves(batch, tensors), banks).values())

    assert torch.autograd.gradcheck(losses, leaves(batch))  # each term by itself


def test_its_banks_are_frozen_unit_images() -> None:
    batch = random_part_step()
    banks = Banks.rebuild(Gpcr().banks(batch.scene, batch.targets))
    assert [live.bank.name for live in banks] == [
        "gpcr.visible", "gpcr.infrared",
        "gpcr.visible.0", "gpcr.visible.1", "gpcr.infrared.0", "gpcr.infrared.1",
    ]  # fmt: skip
    assert all(live.bank.fed_by == () and live.bank.level == "instance" for live in banks)
    parts = batch.scene.features.infrared.extra["parts"]
    torch.testing.assert_close(banks["gpcr.infrared.1"].vectors, F.normalize(parts[:, 1], dim=1))


def test_permuting_the_batch_or_swapping_the_modalities_changes_nothing() -> None:
    batch = random_part_step()
    gpcr = Gpcr(k=4)
    banks, loss = loss_of(gpcr, batch)
    moved = torch.stack(list(gpcr.losses(reordered(batch, torch.tensor([2, 0, 3, 1])), banks).values())).sum()
    torch.testing.assert_close(moved, loss)
    swapped = replace(batch, scene=replace(batch.scene, features=batch.scene.features.swapped))
    torch.testing.assert_close(loss_of(gpcr, swapped)[1], loss)


def test_small_banks_and_rows_that_agree_on_nobody() -> None:
    batch = random_part_step(images=(2, 0))
    _, loss = loss_of(Gpcr(k=5), batch)
    assert loss.item() == pytest.approx(0, abs=1e-9)  # everybody is near: Σ p = 1
    apart = {
        stream: View(stream, torch.arange(1), torch.eye(3, dtype=torch.float64)[[number]].clone().requires_grad_())
        for number, stream in enumerate(STREAMS)
    }
    features = Pair(Features(torch.eye(3)), Features(torch.eye(3)))
    lonely = Batch(apart, 0, replace(batch.scene, features=features), batch.targets)
    _, loss = loss_of(Gpcr(k=1, parts=False), lonely)
    assert loss.item() == 0
    assert all(float(g.abs().sum()) == 0 for g in torch.autograd.grad(loss, [view.z for view in lonely]))


def test_it_says_what_it_misses() -> None:
    batch = random_part_step()
    bare = batch.scene.features.map(lambda f: Features(f.x))
    with pytest.raises(RecipeError, match=r"gpcr needs part features, and the visible features have none"):
        Gpcr().banks(replace(batch.scene, features=bare), batch.targets)
    flat = batch.scene.features.map(lambda f: Features(f.x, extra={"parts": f.x}))
    with pytest.raises(RecipeError, match=r"must be \(N, P, D\), got \(12, 5\)"):
        Gpcr().banks(replace(batch.scene, features=flat), batch.targets)
    banks = double(Banks.rebuild(Gpcr().banks(batch.scene, batch.targets)))
    views = {name: View(name, view.rows, view.z) for name, view in batch.views.items()}
    with pytest.raises(RecipeError, match="there are none of visible on visible"):
        Gpcr().losses(replace(batch, views=views), banks)
    assert list(Gpcr(parts=False).losses(replace(batch, views=views), banks)) == ["global"]
    views["infrared"] = View("infrared", torch.arange(3), batch["infrared"].z[:3])
    with pytest.raises(RecipeError, match="the streams differ in size"):
        Gpcr(parts=False).losses(replace(batch, views=views), banks)
    assert Gpcr().needs == {"paired", "parts"}
    assert Gpcr(parts=False).needs == {"paired"}


def near_mask(logits: Tensor, k: int) -> list[list[bool]]:
    near = near_rows(logits, k)
    assert torch.equal(near_floor(logits, k), near.floor)
    mask = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, near.index, near.has(logits, near.index))
    assert torch.equal(mask, logits > near.floor)  # the index holds every entry above the floor
    return mask.tolist()


def test_near_rows_leave_ties_with_the_next_one_out() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    assert near_mask(logits, 2) == [[True, True, False, False, False], [False] * 5]
    assert near_mask(logits, 3) == [[True, True, False, False, False], [False] * 5]
    assert near_mask(logits, 5) == [[True] * 5] * 2
    many = torch.randn(40, 90, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
    for k in (1, 8, 30, 89, 90):
        near_mask(many, k)


def test_positive_loss_is_finite_where_a_row_has_none() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, 1, 2], [3, 1, 0], [1, 2, 3]])
    positive = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    loss = positive_loss(logits, index, positive)
    p = logits.softmax(1)
    torch.testing.assert_close(loss, -(p[0, [0, 2]].sum().log() + p[2, 1:].sum().log()) / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(torch.isfinite(gradient).all())
    assert not bool(gradient[1].any())
