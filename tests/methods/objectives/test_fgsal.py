"""Objective `fgsal`: parity with the published code, gradients, banks, what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.salcr_step import leaves, live_banks, published_step, random_part_step, reordered, with_leaves
from support.training_step import R, V, double
from torch import Tensor

from reidassoc import Features, Modality, SoftLabels, Targets, registry
from reidassoc.errors import RecipeError
from reidassoc.interfaces.banks import Banks
from reidassoc.interfaces.batch import View
from reidassoc.types import STREAMS
from reidassoc_plugins.networks.two_stream import TwoStream
from reidassoc_plugins.objectives.fgsal import Fgsal

PUBLISHED = {(V, V): "bank_m_vp", (V, R): "bank_m_rp", (R, V): "bank_m_vpa", (R, R): "bank_m_rpa"}  # (side, space)


def test_its_losses_are_the_published_ones() -> None:
    stored, batch = published_step()
    banks = live_banks(
        {f"fgsal.{a}.{b}.{part}": rows for (a, b), key in PUBLISHED.items() for part, rows in enumerate(stored[key])}
    )
    terms = Fgsal()(batch, banks)
    for side in Modality:
        torch.testing.assert_close(terms[str(side)].double(), stored[f"loss_part_{side}"], atol=1e-4, rtol=0)


def test_it_is_what_its_description_says() -> None:
    batch = random_part_step()
    banks = double(Banks.rebuild(Fgsal().banks(batch.scene, batch.targets)))
    for side, streams in ((V, ("visible", "augmented")), (R, ("infrared",))):
        total = 0.0
        for part in range(2):
            for space in Modality:
                rows = []
                for stream in streams:
                    prob = batch.labels(batch[stream], space).prob
                    for x in batch[stream].parts.values():
                        logits = F.normalize(x[:, part], dim=1) @ banks[f"fgsal.{side}.{space}.{part}"].vectors.T / 0.05
                        rows.append(F.cross_entropy(logits, prob, reduction="none"))
                total += torch.cat(rows).mean().item() / 2
        assert Fgsal()(batch, banks)[str(side)].item() == pytest.approx(total, abs=1e-9)


def test_gradients_are_those_of_the_loss() -> None:
    batch = random_part_step(rows=2, width=3)
    banks = double(Banks.rebuild(Fgsal(temperature=0.5).banks(batch.scene, batch.targets)))

    def losses(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(Fgsal()(with_leaves(batch, tensors), banks).values())

    assert torch.autograd.gradcheck(losses, leaves(batch))  # each term by itself


def test_its_banks_start_from_the_part_centroids_of_the_spaces_own_modality() -> None:
    batch = random_part_step()
    banks = Banks.rebuild(Fgsal().banks(batch.scene, batch.targets))
    assert len(banks.live) == 8
    for space in Modality:
        parts = F.normalize(batch.scene.features[space].extra["parts"], dim=2)
        labels = batch.scene.clustering.own[space].labels
        for part in range(2):
            wanted = F.normalize(parts[labels == 1, part].mean(0), dim=0)
            for side in Modality:
                live = banks[f"fgsal.{side}.{space}.{part}"]
                torch.testing.assert_close(live.vectors[1], wanted)
                assert live.bank.part == part
                assert live.bank.role == ("specific" if side is space else "cross")
                assert live.bank.fed_by == (("augmented", "visible") if side is V else ("infrared",))
    assert banks.select("specific", "cross") == []  # refiners that look for global banks find none


def test_permuting_the_batch_changes_no_loss() -> None:
    batch = random_part_step()
    banks = double(Banks.rebuild(Fgsal().banks(batch.scene, batch.targets)))
    one, two = Fgsal()(batch, banks), Fgsal()(reordered(batch, torch.tensor([3, 1, 0, 2])), banks)
    for name, term in one.items():
        torch.testing.assert_close(term, two[name])


def test_outliers_and_modalities_without_clusters_have_no_loss() -> None:
    batch = random_part_step()
    silent = Targets({key: SoftLabels(torch.zeros_like(rows.prob)) for key, rows in batch.targets.table.items()})
    batch = replace(batch, targets=silent)
    terms = Fgsal()(batch, double(Banks.rebuild(Fgsal().banks(batch.scene, silent))))
    loss = torch.stack(list(terms.values())).sum()
    assert loss.item() == 0
    assert all(not bool(g.any()) for g in torch.autograd.grad(loss, [x for v in batch for x in v.parts.values()]))


def test_it_trains_on_what_two_stream_gives() -> None:
    torch.manual_seed(0)
    network = TwoStream(depth=18, weights="none", parts=2).build(size=(64, 32))
    outputs = network({stream: torch.randn(2, 3, 64, 32) for stream in STREAMS})
    views = {stream: View(stream, torch.arange(2), out.z, out.map, out.parts) for stream, out in outputs.items()}
    batch = replace(random_part_step(rows=2, width=512), views=views)
    banks = Banks.rebuild(Fgsal().banks(batch.scene, batch.targets))
    loss = torch.stack(list(Fgsal()(batch, banks).values())).sum()
    (gradient,) = torch.autograd.grad(loss, [dict(network.named_parameters())["heads.tokens"]])
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())
    assert registry.build("objectives", "fgsal").needs <= TwoStream(parts=2).gives | {"cross"}


def test_it_says_what_it_misses() -> None:
    batch = random_part_step()
    bare = batch.scene.features.map(lambda f: Features(f.x))
    with pytest.raises(RecipeError, match=r"fgsal needs part features, and the visible features have none"):
        Fgsal().banks(replace(batch.scene, features=bare), batch.targets)
    banks = double(Banks.rebuild(Fgsal().banks(batch.scene, batch.targets)))
    views = {name: View(name, view.rows, view.z) for name, view in batch.views.items()}
    with pytest.raises(RecipeError, match="the network gave none for the visible stream"):
        Fgsal()(replace(batch, views=views), banks)
