"""Soft labels: certain ones, dense ones and rows of the largest entries say the same through one type."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reidassoc import OUTLIER, Modality, Pair, SoftLabels, Targets
from reidassoc.engine.checkpoint import pack_targets, unpack_targets
from reidassoc.ops.confidence import prototype_loss
from reidassoc.testing import toy_scene
from reidassoc_plugins.refiners.agree import Agree
from reidassoc_plugins.refiners.mix import Mix
from reidassoc_plugins.refiners.propagate import Propagate


def top_rows(n: int, count: int, k: int, seed: int = 0) -> SoftLabels:
    """Random rows of k entries; every fifth one has no label."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, count, generator=generator)
    value, index = torch.softmax(logits, dim=1).topk(k, dim=1)
    value = value / value.sum(1, keepdim=True)
    value[::5] = 0
    return SoftLabels(value, index=index, count=count)


def test_top_rows_say_what_their_dense_form_says() -> None:
    top = top_rows(40, 9, 4).with_weight(torch.linspace(0, 1, 40))
    dense = SoftLabels(top.prob, top.weight)
    top.validate()
    dense.validate()
    assert len(top) == len(dense)
    assert top.count == dense.count == 9
    assert torch.equal(top.labelled, dense.labelled)
    assert torch.equal(top.hard, dense.hard)
    rows = torch.tensor([7, 3, 3, 20])
    assert torch.equal(top.take(rows).prob, dense.take(rows).prob)
    assert torch.equal(top.take(rows).weight, dense.take(rows).weight)
    assert torch.equal(top.take(dense.labelled).prob, dense.take(dense.labelled).prob)
    assert torch.equal(top.with_weight(torch.ones(40)).prob, dense.with_weight(torch.ones(40)).prob)


def test_certain_labels_take_one_number_a_row() -> None:
    labels = torch.tensor([3, OUTLIER, 0, 4])
    certain = SoftLabels.one_hot(labels, 5)
    certain.validate()
    assert certain.value.shape == (4, 1)
    assert certain.prob.tolist() == [[0, 0, 0, 1, 0], [0] * 5, [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert torch.equal(certain.hard, labels)
    assert torch.equal(certain.take(torch.tensor([3, 1])).hard, labels[[3, 1]])


def test_certain_labels_of_no_cluster_are_empty() -> None:
    certain = SoftLabels.one_hot(torch.full((3,), OUTLIER), 0)
    certain.validate()
    assert certain.prob.shape == (3, 0)
    assert certain.hard.tolist() == [OUTLIER] * 3


@pytest.mark.parametrize(
    ("index", "value", "count", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), 4, "index must be"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 1), 4, "index must be"),
        (torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 1), None, "count must be given"),
    ],
)
def test_wrong_shapes_are_refused(index: torch.Tensor, value: torch.Tensor, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftLabels(value, index=index, count=count)


def test_wrong_values_are_refused() -> None:
    index = torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match=r"weight must be \(1,\)"):
        SoftLabels(torch.tensor([[0.6, 0.4]]), torch.ones(2), index, 2)
    for wrong, message in (
        (SoftLabels(torch.tensor([[0.6, 0.4]]), index=index, count=1), "index must lie in"),
        (SoftLabels.one_hot(torch.tensor([2]), 2), "index must lie in"),
        (SoftLabels(torch.tensor([[0.5, 0.5]]), index=torch.tensor([[1, 1]]), count=2), "index must name different"),
        (SoftLabels(torch.tensor([[0.6, 0.1]]), index=index, count=2), "rows of prob"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong.validate()


def test_entries_of_zero_may_name_any_cluster() -> None:
    SoftLabels(torch.tensor([[1.0, 0.0, 0.0]]), index=torch.tensor([[1, 0, 0]]), count=2).validate()


def targets(*, dense: bool) -> Targets:
    """Random labels of the toy scene's samples, dense or as their largest entries: the same ones."""
    scene = toy_scene()
    table = {}
    for mine in Modality:
        for space in Modality:
            top = top_rows(len(scene.features[mine]), scene.clustering.own[space].count, 3, seed=len(table))
            table[mine, str(space)] = SoftLabels(top.prob) if dense else top
    return Targets(table)


@pytest.mark.parametrize("refiner", [Mix(), Mix(beta=0.2, cross=0.9), Agree(), Propagate(k1=6, k2=2)])
def test_refiners_serve_every_form(refiner: Mix | Agree | Propagate) -> None:
    scene = toy_scene()
    dense, sparse = (refiner.refine(scene, targets(dense=dense)) for dense in (True, False))
    for key, want in dense.table.items():
        got = sparse.table[key]
        got.validate()
        torch.testing.assert_close(got.prob, want.prob, atol=1e-6, rtol=1e-4)
        assert torch.equal(got.weight, want.weight)


def test_checkpoints_keep_every_form() -> None:
    table = {**targets(dense=False).table, (Modality.VISIBLE, "visible"): SoftLabels(torch.eye(4))}
    again = unpack_targets(pack_targets(Targets(table)))
    assert again is not None
    for key, labels in table.items():
        assert again.table[key].value.shape == labels.value.shape
        assert torch.equal(again.table[key].prob, labels.prob)
        assert torch.equal(again.table[key].weight, labels.weight)


def test_losses_to_prototypes_serve_every_form() -> None:
    x, centres = Pair.build(
        lambda m: F.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(3)), dim=1)
    )
    top = top_rows(20, 20, 3)
    dense = prototype_loss(x, centres, SoftLabels(top.prob), temperature=0.1)
    assert torch.equal(prototype_loss(x, centres, top, temperature=0.1), dense)
