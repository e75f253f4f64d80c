"""Exact, deterministic nearest neighbours."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support.exact_rows import exact_rows
from torch import Tensor

from reidassoc.ops import bfloat16, neighbours
from reidassoc.ops.compiled.dispatch import compiled_search, without_numba
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.precision import check_features, full_float32


def unit(n: int, d: int = 16, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def assert_nearest(queries: Tensor, keys: Tensor, similarity: Tensor, index: Tensor) -> None:
    """Compare with a sort in float64: other neighbours only where float32 can't tell which is nearer."""
    k = index.shape[1]
    want = queries.double() @ keys.double().T
    want_similarity, want_index = torch.sort(want, dim=1, descending=True, stable=True)
    torch.testing.assert_close(similarity.double(), want_similarity[:, :k], rtol=1e-6, atol=1e-6)
    differ = index != want_index[:, :k]
    gap = (want.gather(1, index) - want_similarity[:, :k]).abs() / want.abs().max()
    assert float(gap[differ].max() if bool(differ.any()) else 0.0) < 1e-6
    assert all(len(row.unique()) == k for row in index)


def plain(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    value, index = torch.sort(queries @ keys.T, dim=1, descending=True, stable=True)
    return value[:, :k], index[:, :k]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 120),
    k=st.integers(1, 12),
    block=st.sampled_from([1, 64, 1 << 24]),
)
def test_equals_a_full_sort_ties_included(seed: int, count: int, k: int, block: int) -> None:
    x, y = exact_rows(count, 16, seed), exact_rows(40, 16, seed + 1)
    with patch.object(neighbours, "BLOCK_ELEMENTS", block):
        for keys in (x, y):
            for got, want in zip(nearest(x, keys, k), plain(x, keys, k), strict=True):
                assert torch.equal(got, want)


@pytest.mark.parametrize("block", [1 << 9, 1 << 12, 1 << 24])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_a_full_sort(monkeypatch: pytest.MonkeyPatch, block: int, symmetric: bool, seed: int) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", block)
    x = unit(700, seed=seed)
    keys = x if symmetric else unit(600, seed=seed + 1)
    similarity, index = nearest(x, keys, 9)
    assert_nearest(x, keys, similarity, index)
    assert similarity.dtype == torch.float32
    assert index.dtype == torch.int64


def test_symmetric_and_general_path_agree() -> None:
    x = unit(1000, 64)
    for one, two in zip(nearest(x, x, 20), nearest(x, x.clone(), 20), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("symmetric", [True, False])
def test_ties_go_to_the_smaller_index(monkeypatch: pytest.MonkeyPatch, symmetric: bool) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", 1 << 10)
    x = unit(600, 48)
    x[[5, 100, 301, 599]] = x[3].clone()
    x[400:450] = x[2].clone()
    keys = x if symmetric else x.clone()
    _, index = nearest(x, keys, 8)
    for row in (3, 5, 100, 301, 599):
        assert index[row, :5].tolist() == [3, 5, 100, 301, 599]
    for row in (2, 400, 449):
        assert index[row].tolist() == [2, 400, 401, 402, 403, 404, 405, 406]


def test_ties_between_different_keys_are_cut_deterministically() -> None:
    keys = torch.eye(6)
    _, index = nearest(torch.tensor([[0.5, 1.0, 1.0, 1.0, 0.5, 1.0]]), keys, 3)
    assert index.tolist() == [[1, 2, 3]]
    x = F.one_hot(torch.arange(40), 40).float()  # everybody is equally far from everybody else
    _, index = nearest(x, x, 3)
    assert index[0].tolist() == [0, 1, 2]
    assert index[7].tolist() == [7, 0, 1]


def blobs(n: int, d: int = 96, seed: int = 0, spread: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(20, d, generator=generator)
    return F.normalize(centre[torch.arange(n) % 20] + spread * torch.randn(n, d, generator=generator), dim=1)


@pytest.fixture
def screened(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every search is screened in bfloat16, on this machine too."""
    if compiled_search(torch.device("cpu")) is None:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(neighbours, "SCREEN_FROM", 0)
    monkeypatch.setattr(neighbours, "bfloat16_pays", lambda device: True)
    return monkeypatch


@pytest.mark.parametrize("block", [1 << 12, 1 << 24])
@pytest.mark.parametrize("spread", [0.02, 0.3, 2.0])  # crowded: everything is a candidate; to scattered
def test_screening_changes_nothing(screened: pytest.MonkeyPatch, block: int, spread: float) -> None:
    screened.setattr(neighbours, "BLOCK_ELEMENTS", block)
    x, y = blobs(500, spread=spread), blobs(300, seed=1, spread=spread)
    for queries, keys in ((x, x), (x, y), (3 * y, 2 * x)):
        assert_nearest(queries, keys, *nearest(queries, keys, 9))


def test_screening_gives_rows_up_that_it_cannot_tell(screened: pytest.MonkeyPatch) -> None:
    screened.setattr(neighbours, "SCREEN_LIMIT", 12)  # fewer than the 25 of a blob
    searched: list[int] = []
    exact = neighbours._nearest_exact

    def counted(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
        searched.append(len(queries))
        return exact(queries, keys, k)

    screened.setattr(neighbours, "_nearest_exact", counted)
    x = torch.cat([blobs(500, spread=0.02), unit(200, 96, seed=5), -blobs(30)])
    similarity, index = nearest(x, x, 9)
    want = exact(x, x, 9)
    torch.testing.assert_close(similarity, want[0])
    assert float((index == want[1]).double().mean()) > 0.99
    assert 0 < searched[0] < len(x)  # some rows, not all of them


def test_screening_keeps_the_order_of_ties(screened: pytest.MonkeyPatch) -> None:
    x = blobs(600)
    x[[5, 100, 301, 599]] = x[3].clone()
    _, index = nearest(x, x, 8)
    for row in (3, 5, 100, 301, 599):
        assert index[row, :5].tolist() == [3, 5, 100, 301, 599]


def test_the_rounding_bound_holds() -> None:
    x, y = blobs(300, 512), unit(200, 512, seed=3)
    hx, hy = x.bfloat16(), y.bfloat16()
    bound = hx.float().norm(dim=1, keepdim=True) * neighbours._rounded_off(y, hy) + neighbours._rounded_off(x, hx)[
        :, None
    ] * y.norm(dim=1)
    error = (x.double() @ y.double().T - hx.double() @ hy.double().T).abs()
    assert bool((error <= bound).all())
    assert float(bound.max()) < 3 * neighbours.HALF


def test_screening_needs_the_processor_and_numba() -> None:
    cpu = torch.device("cpu")
    with bfloat16.without_bfloat16():
        assert not bfloat16.bfloat16_pays(cpu)
    assert not bfloat16.bfloat16_pays(torch.device("meta"))
    with without_numba():
        assert neighbours._nearest_screened(unit(30), unit(30), 3) is None
    if compiled_search(cpu) is not None:
        assert neighbours._nearest_screened(1e9 * unit(30), 1e9 * unit(30), 3) is None  # beyond bfloat16's safe range


@pytest.mark.parametrize(("n", "m", "k", "want"), [(0, 5, 3, 3), (4, 0, 3, 0), (1, 1, 9, 1), (2, 2, 9, 2)])
def test_small_and_empty(n: int, m: int, k: int, want: int) -> None:
    similarity, index = nearest(unit(n), unit(m), k)
    assert similarity.shape == index.shape == (n, want)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        nearest(unit(3), unit(3), 0)
    with pytest.raises(ValueError, match=r"got \(3, 16\), \(3, 8\)"):
        nearest(unit(3), unit(3, 8), 1)
    with pytest.raises(ValueError, match="move one of them"):
        nearest(unit(3), unit(3).to("meta"), 1)


def test_full_float32_restores_the_callers_setting() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with full_float32(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_and_gradients_stay_outside() -> None:
    x = unit(64).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        similarity, _ = nearest(x, x, 4)
    assert not similarity.requires_grad
    torch.testing.assert_close(similarity, plain(x.detach(), x.detach(), 4)[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    x = unit(10)
    x[4, 3] = bad
    with pytest.raises(ValueError, match=r"features has NaN or infinite values in 1 of 10 rows \(first: row 4\)"):
        check_features("features", x)
    with pytest.raises(ValueError, match="must be a floating"):
        check_features("features", torch.zeros(3, 2, dtype=torch.int64))
