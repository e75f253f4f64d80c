"""DBSCAN on a sparse graph against scikit-learn's on the dense distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN
from support.golden_vectors import golden
from torch import Tensor

from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.jaccard import jaccard_similarity


def graph(n: int, density: float, seed: int, levels: int) -> Tensor:
    """A random symmetric similarity with many equal values, and ones on the diagonal."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, n)) < density, rng.integers(1, levels + 1, (n, n)) / (levels + 1), 0)
    dense = np.triu(dense, 1)
    dense = dense + dense.T + np.eye(n)
    return torch.from_numpy(dense.astype(np.float32))


def sklearn_labels(similarity: Tensor, eps: float, min_samples: int) -> list[int]:
    distance = (1 - similarity).numpy().astype(np.float64)
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distance).labels_.tolist()


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 60),
    density=st.floats(0.0, 0.3),
    seed=st.integers(0, 10**6),
    eps=st.floats(0.05, 0.999),
    min_samples=st.integers(1, 6),
)
def test_labels_equal_scikit_learns(n: int, density: float, seed: int, eps: float, min_samples: int) -> None:
    similarity = graph(n, density, seed, levels=31)
    distance = 1 - similarity
    if bool(((distance - eps).abs() < 1e-6).any()):
        return  # a tie between float32 and float64
    got = dbscan(similarity.to_sparse_csr(), eps=eps, min_samples=min_samples)
    assert got.tolist() == sklearn_labels(similarity, eps, min_samples)


@pytest.mark.parametrize("modality", ["v", "r"])
def test_equals_the_published_code(modality: str) -> None:
    stored = golden("dbscan")
    similarity = jaccard_similarity(stored[f"features_{modality}"], k1=20, k2=6)
    got = dbscan(similarity, eps=float(stored["eps"]), min_samples=int(stored["min_samples"]))
    assert torch.equal(got, stored[f"labels_{modality}"])


def test_border_sample_joins_the_lowest_cluster() -> None:
    # 0..3 and 5..8 are cliques, 4 touches one sample of each and is no core itself.
    dense = torch.eye(9)
    dense[:4, :4] = dense[5:, 5:] = 1
    dense[4, 8] = dense[8, 4] = dense[4, 3] = dense[3, 4] = 0.9
    assert dbscan(dense.to_sparse_csr(), eps=0.5, min_samples=4).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_sample_itself_counts_whether_stored_or_not() -> None:
    dense = torch.ones(4, 4) - torch.eye(4)
    assert dbscan(dense.to_sparse_csr(), eps=0.5, min_samples=4).tolist() == [0, 0, 0, 0]
    assert dbscan(dense.to_sparse_csr(), eps=0.5, min_samples=5).tolist() == [-1, -1, -1, -1]


def test_eps_of_one_reaches_everybody() -> None:
    similarity = torch.eye(5).to_sparse_csr()
    assert dbscan(similarity, eps=1.0, min_samples=5).tolist() == [0] * 5
    assert dbscan(similarity, eps=1.0, min_samples=6).tolist() == [-1] * 5
    assert sklearn_labels(torch.eye(5), 1.0, 5) == [0] * 5


def test_empty() -> None:
    assert dbscan(torch.zeros(0, 0).to_sparse_csr(), eps=0.5, min_samples=4).tolist() == []


def test_wrong_arguments_are_refused() -> None:
    similarity = torch.eye(3).to_sparse_csr()
    with pytest.raises(ValueError, match=r"eps must be in \(0, 1\] for a Jaccard distance, got 1.5"):
        dbscan(similarity, eps=1.5, min_samples=4)
    with pytest.raises(ValueError, match="min_samples must be at least 1"):
        dbscan(similarity, eps=0.5, min_samples=0)
    with pytest.raises(ValueError, match="square sparse CSR"):
        dbscan(torch.eye(3), eps=0.5, min_samples=4)
