"""Labels that keep the largest entries of each row: what they say, and what is computed with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reidassoc import OUTLIER, Modality, Pair, SoftLabels, Targets
from reidassoc.engine.checkpoint import pack_targets, unpack_targets
from reidassoc.ops.compiled.dispatch import compiled, without_numba
from reidassoc.ops.confidence import prototype_loss
from reidassoc.ops.sparse import row_normalised
from reidassoc.ops.sparse_labels import blend, change, top_softmax
from reidassoc.testing import toy_scene
from reidassoc.types import TopLabels
from reidassoc.types import labels as module
from reidassoc_plugins.refiners.agree import Agree
from reidassoc_plugins.refiners.mix import Mix
from reidassoc_plugins.refiners.propagate import Propagate

ENGINES = ["torch"] if compiled(torch.device("cpu")) is None else ["numba", "torch"]


def some(n: int, count: int, k: int, seed: int = 0) -> TopLabels:
    """Random rows, every fifth one silent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, count, generator=generator)
    value, index = torch.softmax(logits, dim=1).topk(k, dim=1)
    value = value / value.sum(1, keepdim=True)
    value[::5] = 0
    return TopLabels(index, value, count)


def test_says_what_its_dense_form_says() -> None:
    top = some(40, 9, 4)
    top = TopLabels(top.index, top.value, 9, torch.linspace(0, 1, 40))
    dense = SoftLabels(top.prob, top.weight)
    top.validate()
    dense.validate()
    assert len(top) == len(dense)
    assert top.count == dense.count == 9
    assert torch.equal(top.opinion, dense.opinion)
    assert torch.equal(top.hard, dense.hard)
    rows = torch.tensor([7, 3, 3, 20])
    assert type(top.take(rows)) is SoftLabels
    assert torch.equal(top.take(rows).prob, dense.take(rows).prob)
    assert torch.equal(top.take(rows).weight, dense.take(rows).weight)
    assert torch.equal(top.weighted(torch.ones(40)).prob, dense.weighted(torch.ones(40)).prob)


def test_certain_labels_of_many_clusters_are_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.tensor([3, OUTLIER, 0, 4])
    dense = SoftLabels.one_hot(labels, 5)
    monkeypatch.setattr(module, "DENSE_ENTRIES", 10)
    top = SoftLabels.one_hot(labels, 5)
    assert isinstance(top, TopLabels)
    assert torch.equal(top.prob, dense.prob)
    assert torch.equal(top.hard, labels)
    assert isinstance(top.take(torch.arange(4)), TopLabels)  # too many rows to be dense
    assert type(top.take(torch.arange(2))) is SoftLabels


@pytest.mark.parametrize(
    ("index", "value", "count", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), 4, "int64 and floating point"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 1), 4, "index and value must be"),
        (torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 0), 4, "k and count must be at least 1"),
    ],
)
def test_wrong_shapes(index: torch.Tensor, value: torch.Tensor, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopLabels(index, value, count)


def test_wrong_values() -> None:
    index = torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match=r"weight must be \(1,\)"):
        TopLabels(index, torch.tensor([[0.6, 0.4]]), 2, torch.ones(2))
    for wrong, message in (
        (TopLabels(index, torch.tensor([[0.6, 0.4]]), 1), "index must lie in"),
        (TopLabels(index, torch.tensor([[0.4, 0.6]]), 2), "descend"),
        (TopLabels(index, torch.tensor([[0.6, 0.1]]), 2), "sum to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong.validate()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("keep", [3, 9])
def test_blend_keeps_the_largest_of_the_dense_answer(engine: str, keep: int) -> None:
    generator = torch.Generator().manual_seed(1)
    average = torch.rand(30, 40, generator=generator) * (torch.rand(30, 40, generator=generator) < 0.2)
    average[4] = 0
    average = row_normalised(average.to_sparse_csr())
    labels, anchor = some(40, 9, 4, seed=2), some(30, 9, 2, seed=3)
    if engine == "torch":
        with without_numba():
            found = blend(average, labels, anchor, hold=0.3, keep=keep)
    else:
        found = blend(average, labels, anchor, hold=0.3, keep=keep)
    want = 0.7 * average.to_dense() @ labels.prob + 0.3 * anchor.prob
    value, index = want.sort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(want).scatter(1, index[:, :keep], value[:, :keep])
    kept *= want.sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1e-30)
    torch.testing.assert_close(found.prob, kept)
    torch.testing.assert_close(found.value.sum(1), want.sum(1))
    assert torch.equal(found.hard[found.opinion], want.argmax(1)[found.opinion])
    assert bool((found.value.diff(dim=1) <= 0).all())


@pytest.mark.parametrize("engine", ENGINES)
def test_change_is_the_relative_difference(engine: str) -> None:
    one, two = some(50, 12, 5, seed=1), some(50, 12, 3, seed=2)
    want = float((one.prob - two.prob).abs().sum() / two.prob.sum())
    if engine == "torch":
        with without_numba():
            assert change(one, two) == pytest.approx(want, rel=1e-5)
            assert change(one, one) == pytest.approx(0, abs=1e-6)
    else:
        assert change(one, two) == pytest.approx(want, rel=1e-5)
        assert change(one, one) == pytest.approx(0, abs=1e-6)


def test_softmax_over_many_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    x, centres = (F.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (50, 20))
    want = torch.softmax(x @ centres.T / 0.05, dim=1)
    torch.testing.assert_close(top_softmax(x, centres, temperature=0.05, keep=20).prob, want)
    few = top_softmax(x, centres, temperature=0.05, keep=5)
    few.validate()
    assert torch.equal(few.hard, want.argmax(1))
    torch.testing.assert_close(few.value, (v := want.topk(5).values) / v.sum(1, keepdim=True))


def targets(kind: type[SoftLabels]) -> Targets:
    """Random labels of the toy scene's samples, dense or as their largest entries: the same ones."""
    scene = toy_scene()
    table = {}
    for mine in Modality:
        for space in Modality:
            top = some(len(scene.features[mine]), scene.clustering.own[space].count, 3, seed=len(table))
            table[mine, str(space)] = top if kind is TopLabels else SoftLabels(top.prob)
    return Targets(table)


@pytest.mark.parametrize("refiner", [Mix(), Mix(beta=0.2, cross=0.9), Agree(), Propagate(k1=6, k2=2)])
def test_refiners_serve_both_forms(refiner: Mix | Agree | Propagate) -> None:
    scene = toy_scene()
    dense, sparse = (refiner.refine(scene, targets(kind)) for kind in (SoftLabels, TopLabels))
    for key, want in dense.table.items():
        got = sparse.table[key]
        assert isinstance(got, TopLabels)
        got.validate()
        torch.testing.assert_close(got.prob, want.prob, atol=1e-6, rtol=1e-4)
        assert torch.equal(got.weight, want.weight)


def test_checkpoints_hold_both_forms() -> None:
    table = {**targets(TopLabels).table, (Modality.VISIBLE, "visible"): SoftLabels(torch.eye(4))}
    again = unpack_targets(pack_targets(Targets(table)))
    assert again is not None
    for key, labels in table.items():
        assert type(again.table[key]) is type(labels)
        assert torch.equal(again.table[key].prob, labels.prob)
        assert torch.equal(again.table[key].weight, labels.weight)


def test_losses_to_prototypes_serve_both_forms() -> None:
    x, centres = Pair.build(
        lambda m: F.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(3)), dim=1)
    )
    top = some(20, 20, 3)
    dense = prototype_loss(x, centres, SoftLabels(top.prob), temperature=0.1)
    assert torch.equal(prototype_loss(x, centres, top, temperature=0.1), dense)
