"""The sparse k-reciprocal Jaccard affinity: the published code, and a plain reading of the definition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from torch import Tensor

from reidassoc.ops import jaccard
from reidassoc.ops.compiled.dispatch import compiled, without_numba
from reidassoc.ops.jaccard import jaccard_similarity


def plain(x: npt.NDArray[np.float32], k1: int, k2: int) -> npt.NDArray[np.float64]:
    """The definition, word by word, dense, in Python; no ties in its inputs."""
    n = len(x)
    similarity = x @ x.T
    order = np.argsort(-similarity, axis=1, kind="stable")
    half = int(np.around(k1 / 2)) + 1

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in order[i, :k] if i in order[j, :k]}

    encoding = np.zeros((n, n))
    for i in range(n):
        near = reciprocal(i, k1)
        expanded = set(near)
        for j in near:
            friends = reciprocal(j, half)
            if len(friends & near) > 2 / 3 * len(friends):
                expanded |= friends
        members = sorted(expanded)
        weight = np.exp(-(2 - 2 * similarity[i, members]).astype(np.float64))
        encoding[i, members] = weight / weight.sum()
    if k2 > 1:
        encoding = np.stack([encoding[order[i, :k2]].mean(0) for i in range(n)])
    overlap = np.stack([np.minimum(encoding[i], encoding).sum(1) for i in range(n)])
    return overlap / (2 - overlap)


def people(n: int, identities: int, seed: int, noise: float = 0.6, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(identities, width, generator=generator)
    x = centre[torch.arange(n) % identities] + noise * torch.randn(n, width, generator=generator)
    return F.normalize(x, dim=1)


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (20, 6), (15, 1)])
def test_equals_the_published_code(loops: str, k1: int, k2: int) -> None:
    stored = golden("jaccard")
    got = 1 - jaccard_similarity(stored["features"], k1=k1, k2=k2).to_dense()
    torch.testing.assert_close(got, stored[f"k1_{k1}_k2_{k2}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("k1", "k2"), [(30, 12), (20, 6)])
def test_balanced_expansion_equals_the_published_code(loops: str, k1: int, k2: int) -> None:
    stored = golden("cmc_jaccard")
    group = stored["is_infrared"].long()
    got = 1 - jaccard_similarity(stored["features"], k1=k1, k2=k2, group=group).to_dense()
    torch.testing.assert_close(got, stored[f"k1_{k1}_k2_{k2}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("k1", [1, 2, 3, 4, 5, 7, 13, 25, 26, 27])  # 25/2 rounds down, 27/2 up: half to even
@pytest.mark.parametrize("k2", [1, 3])
def test_equals_the_definition(loops: str, k1: int, k2: int) -> None:
    x = people(90, 6, seed=k1)
    got = jaccard_similarity(x, k1=k1, k2=min(k2, k1)).to_dense().double().numpy()
    np.testing.assert_allclose(got, plain(x.numpy(), k1, min(k2, k1)), atol=1e-5)


def test_half_rounds_to_even() -> None:
    x = people(200, 5, seed=3, noise=1.0)
    got = jaccard_similarity(x, k1=25, k2=1).to_dense().numpy()
    np.testing.assert_allclose(got, plain(x.numpy(), 25, 1), atol=1e-5)  # 13 columns, not 14
    wrong = jaccard._encode(x, *half_columns(x, 14))
    right = jaccard._encode(x, *half_columns(x, 13))
    assert wrong.values().numel() != right.values().numel()  # so the other rounding would have shown


def half_columns(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    rank = jaccard.nearest(x, x, 25)[1]
    return rank, rank[:, :half]


def test_compiled_and_torch_loops_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled(torch.device("cpu")) is None:
        pytest.skip("numba is not installed")
    x = people(500, 20, seed=1)
    fast = jaccard_similarity(x)
    for block in (1 << 23, 1 << 12):  # also with many small chunks
        monkeypatch.setattr(jaccard, "BLOCK_ELEMENTS", block)
        with without_numba():
            slow = jaccard_similarity(x)
        assert torch.equal(fast.crow_indices(), slow.crow_indices())
        assert torch.equal(fast.col_indices(), slow.col_indices())
        torch.testing.assert_close(fast.values(), slow.values(), atol=1e-6, rtol=0)


def test_is_a_similarity(loops: str) -> None:
    got = jaccard_similarity(people(300, 12, seed=2))
    dense = got.to_dense()
    torch.testing.assert_close(dense, dense.T, atol=1e-6, rtol=0)
    torch.testing.assert_close(dense.diagonal(), torch.ones(300), atol=1e-5, rtol=0)
    assert float(got.values().max()) <= 1
    assert float(got.values().min()) > 0
    for row in range(300):
        columns = got.col_indices()[got.crow_indices()[row] : got.crow_indices()[row + 1]]
        assert bool((columns.diff() > 0).all())


def test_permuting_samples_permutes_the_matrix(loops: str) -> None:
    x = people(250, 10, seed=4)
    order = torch.randperm(250, generator=torch.Generator().manual_seed(0))
    straight = jaccard_similarity(x).to_dense()[order][:, order]
    torch.testing.assert_close(jaccard_similarity(x[order]).to_dense(), straight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
def test_fewer_samples_than_neighbours(loops: str, n: int) -> None:
    x = people(n, 2, seed=0)
    got = jaccard_similarity(x, k1=30, k2=6)
    assert got.shape == (n, n)
    if n:
        np.testing.assert_allclose(got.to_dense().numpy(), plain(x.numpy(), 30, 6), atol=1e-5)


def test_copies_are_near_each_other_even_beyond_k1(loops: str) -> None:
    x = people(40, 40, seed=5).repeat_interleave(50, dim=0)  # 50 copies of each, more than k1
    got = jaccard_similarity(x, k1=30, k2=6)
    dense = got.to_dense()
    torch.testing.assert_close(dense.diagonal(), torch.ones(len(x)), atol=1e-5, rtol=0)
    person = torch.arange(len(x)) // 50
    assert float(dense[person[:, None] == person].min()) > 0.4  # DBSCAN at eps 0.6 finds them
    assert float(dense[person[:, None] != person].max()) == 0


def test_group_of_one_kind_changes_nothing(loops: str) -> None:
    x = people(100, 5, seed=6)
    plainly = jaccard_similarity(x, k1=10, k2=4).to_dense()
    grouped = jaccard_similarity(x, k1=10, k2=4, group=torch.ones(100, dtype=torch.int64)).to_dense()
    torch.testing.assert_close(plainly, grouped, atol=1e-6, rtol=0)


def test_wrong_arguments_are_refused() -> None:
    x = people(10, 2, seed=0)
    with pytest.raises(ValueError, match="k1=0"):
        jaccard_similarity(x, k1=0)
    with pytest.raises(ValueError, match="k2=0"):
        jaccard_similarity(x, k2=0)
    with pytest.raises(ValueError, match=r"group must be \(10,\)"):
        jaccard_similarity(x, group=torch.zeros(3, dtype=torch.int64))
    x[3, 0] = float("nan")
    with pytest.raises(ValueError, match="first: row 3"):
        jaccard_similarity(x)
