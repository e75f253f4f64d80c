"""Sparse rows, and centroids."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reidassoc.ops.compiled.dispatch import compiled, over_rows, without_numba
from reidassoc.ops.prototypes import centroids
from reidassoc.ops.sparse import product, row_normalised, transposed
from reidassoc.ops.transition import TransitionMatrix


def matrix(n: int = 37, m: int = 23, density: float = 0.2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(n, m, generator=generator) * (torch.rand(n, m, generator=generator) < density)
    dense[5] = 0
    return dense


@pytest.mark.parametrize("width", [0, 1, 8, 395])
def test_product_equals_dense(width: int) -> None:
    dense, y = matrix(), torch.rand(23, width)
    want = dense @ y
    torch.testing.assert_close(product(dense.to_sparse_csr(), y), want)
    with without_numba():
        assert compiled(torch.device("cpu")) is None
        torch.testing.assert_close(product(dense.to_sparse_csr(), y), want)


def test_strided_input() -> None:
    dense, y = matrix(), torch.rand(9, 23).T
    torch.testing.assert_close(product(dense.to_sparse_csr(), y), dense @ y)


def test_empty_product() -> None:
    empty = torch.zeros(0, 5).to_sparse_csr()
    assert product(empty, torch.rand(5, 3)).shape == (0, 3)
    with without_numba():
        assert product(empty, torch.rand(5, 3)).shape == (0, 3)
        assert product(torch.zeros(4, 5).to_sparse_csr(), torch.rand(5, 3)).tolist() == [[0.0] * 3] * 4


def test_rows_sum_to_one_and_empty_ones_stay() -> None:
    got = row_normalised(matrix().to_sparse_csr()).to_dense()
    want = torch.ones(37)
    want[5] = 0
    torch.testing.assert_close(got.sum(1), want)
    torch.testing.assert_close(TransitionMatrix.of_affinity(matrix().to_sparse_csr()) @ torch.eye(23), got)


def test_transpose() -> None:
    assert torch.equal(transposed(matrix().to_sparse_csr()).to_dense(), matrix().T)


def test_over_rows_covers_every_row_once() -> None:
    for rows in (0, 1, 2, 17):
        covered = [i for start, stop in over_rows(lambda a, b: (a, b), rows) for i in range(start, stop)]
        assert covered == list(range(rows))


def test_centroids_are_means_of_members() -> None:
    x = torch.randn(10, 4)
    labels = torch.tensor([2, 0, 0, -1, 2, 2, -1, 0, 2, 0])
    got = centroids(x, labels, 4)
    torch.testing.assert_close(got[0], x[labels == 0].mean(0))
    torch.testing.assert_close(got[2], x[labels == 2].mean(0))
    assert got[[1, 3]].abs().sum() == 0
    assert got.dtype == x.dtype


def test_centroids_of_nothing() -> None:
    assert centroids(torch.randn(3, 4), torch.full((3,), -1), 2).tolist() == torch.zeros(2, 4).tolist()
    assert centroids(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0).shape == (0, 4)


def test_centroids_refuse_wrong_labels() -> None:
    with pytest.raises(ValueError, match=r"labels must be in \[-1, 2\), got 0 to 2"):
        centroids(torch.randn(3, 4), torch.arange(3), 2)
    with pytest.raises(ValueError, match="got -2 to"):
        centroids(torch.randn(3, 4), torch.tensor([-2, 0, 1]), 2)
    with pytest.raises(ValueError, match=r"labels \(N,\)"):
        centroids(torch.randn(3, 4), torch.arange(2), 2)
