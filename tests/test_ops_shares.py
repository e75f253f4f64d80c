"""Work that several processes share: the same answer to the bit, wherever it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from threading import Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.ops import jaccard, neighbours, shares
from reidassoc.ops.accelerate import compiled_search, without_numba
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.shares import cut, known, shareable, shared, shared_by


class Row:
    """A team in one process: one part after the other, by name, as another process would be asked."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.done: list[str] = []

    def __call__(self, name: str, edges: Sequence[int], arguments: Sequence[Any]) -> list[tuple[Tensor, ...]]:
        self.done.append(name.partition(":")[2])
        copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
        return [known(name)(start, stop, *copies) for start, stop in pairwise(edges) if stop > start]


@pytest.fixture(params=["numba", "torch"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", 1 << 14)
    monkeypatch.setattr(jaccard, "BLOCK_ELEMENTS", 1 << 18)
    monkeypatch.setattr(shares, "ROWS", 64)
    if request.param == "torch":
        with without_numba():
            yield monkeypatch
        return
    if compiled_search(torch.device("cpu")) is None:
        pytest.skip("numba is not installed")
    yield monkeypatch


def crowd(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(40, 48, generator=generator)
    x = F.normalize(centre[torch.arange(n) % 40] + 0.5 * torch.randn(n, 48, generator=generator), dim=1)
    x[[7, 300, n - 1]] = x[3].clone()  # ties
    return x


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [2, 40])
@pytest.mark.parametrize("screened", [False, True])
def test_neighbours_are_the_same_to_the_bit(small_blocks: pytest.MonkeyPatch, size: int, screened: bool) -> None:
    if screened:
        small_blocks.setattr(neighbours, "SCREEN_FROM", 0)
        small_blocks.setattr(neighbours, "SCREEN_LIMIT", 12)  # some rows are given up
        small_blocks.setattr(neighbours, "bfloat16_pays", lambda device: True)
    x, y, team = crowd(1300, 0), crowd(700, 1), Row(size)
    for queries, keys in ((x, x), (x, y), (y, x)):
        alone = nearest(queries, keys, 9)
        with shared_by(team):
            same(nearest(queries, keys, 9), alone)
    kernels = compiled_search(torch.device("cpu")) is not None
    assert set(team.done) == ({"_screened_blocks", "_blocks"} if screened and kernels else {"_strips", "_blocks"})


def csr_parts(matrix: Tensor) -> list[Tensor]:
    return [matrix.crow_indices(), matrix.col_indices(), matrix.values()]


@pytest.mark.parametrize("size", [3])
def test_the_jaccard_affinity_is_the_same_to_the_bit(small_blocks: pytest.MonkeyPatch, size: int) -> None:
    x, team = crowd(400, 0), Row(size)
    group = torch.arange(400) % 3 // 2
    for options in ({"k1": 12}, {"k1": 20, "k2": 1}, {"k1": 12, "group": group}):
        alone = csr_parts(jaccard_similarity(x, **options))
        with shared_by(team):
            same(csr_parts(jaccard_similarity(x, **options)), alone)
    assert {"_strips", "_mutual_rows", "_encoded_rows", "_mean_rows", "_overlap_rows"} <= set(team.done)


@shareable
def _squares(start: int, stop: int, x: Tensor) -> tuple[Tensor]:
    if len(x) > 1:
        shared(_squares, 2, x[:1])  # what a part calls is not shared again
    return (x[start:stop] ** 2,)


def test_parts_are_shared_once_in_this_thread_alone() -> None:
    team, x = Row(2), torch.arange(5.0)
    with shared_by(team):
        assert torch.cat([part for (part,) in shared(_squares, 5, x)]).equal(x**2)
        assert team.done == ["_squares"]
        thread = Thread(target=shared, args=(_squares, 5, x))
        thread.start()
        thread.join()
        shared(_squares, 1, x[:1])  # nothing to share
        with pytest.raises(ZeroDivisionError), shared_by(None):
            raise ZeroDivisionError
        shared(_squares, 5, x)
    shared(_squares, 5, x)
    assert team.done == ["_squares"] * 2
    with pytest.raises(KeyError):
        known("reidassoc.ops.shares:cut")  # not everything may be asked for


def test_parts_have_about_the_same_cost() -> None:
    assert cut([1.0] * 10, 3) == [0, 3, 7, 10]
    assert cut([1.0], 3)[-1] == 1
    edges = cut([29.0 - strip for strip in range(29)], 4)
    costs = [sum(29 - strip for strip in range(*part)) for part in pairwise(edges)]
    assert sum(costs) == 435
    assert max(costs) < 1.3 * 435 / 4
