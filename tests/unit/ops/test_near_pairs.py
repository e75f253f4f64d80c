"""Transport on the nearest pairs: the dense plan where all pairs are kept, nearly its labels where few are."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.ops.compiled.dispatch import without_numba
from reidassoc.ops.memory_limit import memory_limit
from reidassoc.ops.near_pairs import TopRows, _near_pairs, blend, change, destinations, sparse_transport, top_softmax
from reidassoc.ops.sparse import row_normalised
from reidassoc.ops.transport import transport
from reidassoc.types import SoftLabels


def people(count: int, number: int, width: int = 32, identities: int = 20) -> Tensor:
    centre = torch.randn(identities, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(number)
    noise = torch.randn(count, width, generator=generator)
    return F.normalize(centre[torch.arange(count) % identities] + 0.7 * noise, dim=1)


@pytest.mark.parametrize("lengths", [1.0, 3.0])
def test_with_all_pairs_it_is_the_dense_plan(lengths: float) -> None:
    x, y = people(90, 1), people(40, 2)
    y = y * torch.linspace(1, lengths, 40)[:, None]  # not unit: nearness is distance, not the inner product
    options = {"strength": 5.0, "tolerance": 1e-4, "max_rounds": 3000}
    sparse = sparse_transport(x, y, neighbours=90, **options)  # type: ignore[arg-type]
    dense = transport(x, y, **options)  # type: ignore[arg-type]
    there, back = sparse.averages()
    want = dense.dense()
    torch.testing.assert_close(there.to_dense(), want / want.sum(1, keepdim=True), rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(back.to_dense(), (want / want.sum(0)).T, rtol=1e-2, atol=1e-6)
    assert torch.equal(sparse.row_argmax(), dense.row_argmax())


def test_few_pairs_move_points_to_the_same_places() -> None:
    x, y = people(400, 1), people(200, 2)
    sparse = sparse_transport(x, y, strength=25.0, neighbours=20)
    assert sparse.kernel.values().numel() < 400 * 200 / 4
    dense = transport(x, y, strength=25.0)
    assert float((sparse.row_argmax() == dense.row_argmax()).double().mean()) >= 0.99


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_an_island_with_too_much_mass_is_served_by_far_pairs(engine: str) -> None:
    """Thirty points of one side near to ten of the other, none of them near to anyone else."""
    where = torch.tensor([0] * 30 + [1] * 10), torch.tensor([0] * 10 + [1] * 30)
    noise = torch.Generator().manual_seed(0)
    x, y = (F.normalize(torch.eye(8)[w] + 0.05 * torch.randn(40, 8, generator=noise), dim=1) for w in where)
    with without_numba() if engine == "torch" else nullcontext():
        plan = sparse_transport(x, y, strength=25.0, neighbours=5, max_rounds=5000)
    assert 0 < plan.rounds < 5000
    there, back = (average.to_dense() for average in plan.averages())
    for average in (there, back):
        assert bool(torch.isfinite(average).all())
        torch.testing.assert_close(average.sum(1), torch.ones(40))
    assert float(there[:30, :10].sum() + there[30:, 10:].sum()) > 39  # labels come from one's own island


def test_pairs_are_the_nearest_of_either_side() -> None:
    x, y = people(50, 1), 2 * torch.rand(30, 32, generator=torch.Generator().manual_seed(3))
    distance = torch.cdist(x, y)
    want = torch.zeros(50, 30, dtype=torch.bool)
    want.scatter_(1, distance.argsort(dim=1)[:, :4], True)
    want.scatter_(0, distance.argsort(dim=0)[:4], True)
    pairs = _near_pairs(x, y, 4)
    assert torch.equal(pairs.to_dense() != 0, want)
    torch.testing.assert_close(pairs.to_dense(), (x @ y.T) * want)


def test_compiled_and_torch_loops_agree() -> None:
    x, y = people(130, 1), people(70, 2)
    one = sparse_transport(x, y, strength=25.0, neighbours=12)
    with without_numba():
        two = sparse_transport(x, y, strength=25.0, neighbours=12)
    assert abs(one.rounds - two.rounds) <= 10
    for a, b in zip(one.averages(), two.averages(), strict=True):
        torch.testing.assert_close(a.to_dense(), b.to_dense(), rtol=1e-2, atol=1e-5)


def test_light_entries_may_be_left_out() -> None:
    plan = sparse_transport(people(130, 1), people(70, 2), strength=25.0, neighbours=30)
    for whole, kept in zip(plan.averages(), plan.averages(lost=0.05), strict=True):
        assert kept.values().numel() < whole.values().numel()
        dropped = whole.to_dense() * (kept.to_dense() == 0)
        assert float(dropped.sum(1).max()) <= 0.05
        torch.testing.assert_close(kept.to_dense().sum(1), torch.ones(kept.shape[0]))


def test_destinations_are_dense_within_the_limit_and_sparse_beyond() -> None:
    x, y = people(300, 1), people(150, 2)
    dense = destinations(x, y, strength=25.0)
    assert torch.equal(dense, transport(x, y, strength=25.0).row_argmax())
    with memory_limit(300 * 150 * 4 / 2**30 / 2):
        sparse = destinations(x, y, strength=25.0)
    assert torch.equal(sparse, sparse_transport(x, y, strength=25.0).row_argmax())
    assert float((dense == sparse).double().mean()) >= 0.98


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.0}, "strength must be positive"),
        ({"strength": 1.0, "neighbours": 0}, "neighbours and max_rounds must be at least 1"),
        ({"strength": 1.0, "max_rounds": 0}, "neighbours and max_rounds"),
    ],
)
def test_wrong_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparse_transport(people(9, 1), people(5, 2), **options)  # type: ignore[arg-type]


def test_wrong_sets() -> None:
    with pytest.raises(ValueError, match="neither empty"):
        sparse_transport(people(9, 1), torch.zeros(0, 32), strength=1.0)
    with pytest.raises(ValueError, match="neither empty"):
        sparse_transport(people(9, 1), people(5, 2, width=16), strength=1.0)


def top_rows(n: int, count: int, k: int, seed: int = 0) -> TopRows:
    """Random rows; every fifth one has no label."""
    logits = 2 * torch.randn(n, count, generator=torch.Generator().manual_seed(seed))
    value, cluster = torch.softmax(logits, dim=1).topk(k, dim=1)
    value = value / value.sum(1, keepdim=True)
    value[::5] = 0
    return TopRows(cluster, value)


def labels_of(rows: TopRows, count: int) -> SoftLabels:
    labels = SoftLabels(rows.value, index=rows.cluster, count=count)
    labels.validate()
    return labels


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("keep", [3, 9])
def test_blend_keeps_the_largest_of_the_dense_answer(engine: str, keep: int) -> None:
    generator = torch.Generator().manual_seed(1)
    average = torch.rand(30, 40, generator=generator) * (torch.rand(30, 40, generator=generator) < 0.2)
    average[4] = 0
    average = row_normalised(average.to_sparse_csr())
    labels, anchor = top_rows(40, 9, 4, seed=2), top_rows(30, 9, 2, seed=3)
    with without_numba() if engine == "torch" else nullcontext():
        blended = blend(average, labels, anchor, hold=0.3, count=9, keep=keep)
    want = 0.7 * average.to_dense() @ labels_of(labels, 9).prob + 0.3 * labels_of(anchor, 9).prob
    value, index = want.sort(dim=1, descending=True, stable=True)
    largest = torch.zeros_like(want).scatter(1, index[:, :keep], value[:, :keep])
    largest *= want.sum(1, keepdim=True) / largest.sum(1, keepdim=True).clamp(min=1e-30)
    got = SoftLabels(blended.value, index=blended.cluster, count=9)
    torch.testing.assert_close(got.prob, largest)
    torch.testing.assert_close(blended.value.sum(1), want.sum(1))
    assert torch.equal(got.hard[got.labelled], want.argmax(1)[got.labelled])
    assert bool((blended.value.diff(dim=1) <= 0).all())


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_change_is_the_relative_difference(engine: str) -> None:
    one, two = top_rows(50, 12, 5, seed=1), top_rows(50, 12, 3, seed=2)
    dense = [labels_of(rows, 12).prob for rows in (one, two)]
    with without_numba() if engine == "torch" else nullcontext():
        assert change(one, two) == pytest.approx(float((dense[0] - dense[1]).abs().sum() / dense[1].sum()), rel=1e-5)
        assert change(one, one) == pytest.approx(0, abs=1e-6)


def test_softmax_over_many_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    x, centres = (F.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (50, 20))
    want = torch.softmax(x @ centres.T / 0.05, dim=1)
    torch.testing.assert_close(labels_of(top_softmax(x, centres, temperature=0.05, keep=20), 20).prob, want)
    few = top_softmax(x, centres, temperature=0.05, keep=5)
    assert torch.equal(labels_of(few, 20).hard, want.argmax(1))
    torch.testing.assert_close(few.value, (v := want.topk(5).values) / v.sum(1, keepdim=True))
