"""Bank updates: parity, the sequential rule they stand for, gating, and their plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from torch import Tensor

from reidassoc.errors import RecipeError
from reidassoc.interfaces.banks import Bank, Banks, Feed
from reidassoc.ops.banks import Intake, lasting_rounds, plan_rounds, update_banks
from reidassoc.ops.losses import soft_cross_entropy
from reidassoc.testing import pretended_device
from reidassoc.types import SoftLabels

CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def unit(rows: int, width: int, generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=generator), dim=1)


def one_by_one(vectors: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """The rule itself, row after row, in float64."""
    bank = vectors.double().clone()
    for feature, label in zip(features.double(), labels.tolist(), strict=True):
        if label >= 0:
            bank[label] = F.normalize(momentum * bank[label] + (1 - momentum) * feature, dim=0)
    return bank.float()


def intake(count: int, rows: int, *, width: int = 16, momentum: float = 0.1, seed: int = 0, lowest: int = -1) -> Intake:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(lowest, count, (rows,), generator=generator)
    features = unit(rows, width, generator)
    return Intake(unit(count, width, generator), features, labels, plan_rounds(labels.numpy()), momentum)


def expected(given: Intake) -> Tensor:
    return one_by_one(given.vectors, given.features, given.labels, given.momentum)


def test_one_batch_is_the_published_one() -> None:
    vectors = golden("memory_update")
    tau, momentum = float(vectors["temperature"]), float(vectors["momentum"])
    bank = Bank(
        name="bank", space="visible", role="specific", start=vectors["bank_before"], temperature=tau, momentum=momentum
    )
    banks = Banks.rebuild([bank])
    batch = vectors["batch"].requires_grad_()
    logits = banks["bank"].logits(F.normalize(batch))
    loss = soft_cross_entropy(logits, SoftLabels.one_hot(vectors["targets"], 12))
    loss.backward()
    feed = Feed(F.normalize(batch.detach()), vectors["targets"], plan_rounds(vectors["targets"].numpy()))
    banks.update({"bank": feed})
    torch.testing.assert_close(logits, vectors["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(loss, vectors["loss"], rtol=0, atol=1e-4)
    torch.testing.assert_close(batch.grad, vectors["grad_batch"], rtol=0, atol=1e-4)
    torch.testing.assert_close(banks["bank"].vectors, vectors["bank_after"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.2, 0.32, 0.34, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_an_update_is_the_rule_row_after_row(momentum: float, count: int) -> None:
    given = intake(count, 60, momentum=momentum, seed=count)
    torch.testing.assert_close(update_banks([given])[0], expected(given), rtol=0, atol=2e-6)


def test_opposite_rows_are_forgotten_as_fast_as_promised() -> None:
    """The slowest case: every row points away from the bank."""
    bank = torch.tensor([[1.0, 0.0]])
    features = F.normalize(torch.tensor([[-1.0, 1e-3], [1.0, 1e-3]])).repeat(20, 1)
    labels = torch.zeros(40, dtype=torch.int64)
    given = Intake(bank, features, labels, plan_rounds(labels.numpy()), 0.3)
    torch.testing.assert_close(update_banks([given])[0], expected(given), rtol=0, atol=1e-6)


def test_only_rounds_that_leave_a_trace_are_kept() -> None:
    assert lasting_rounds(0.1) == 10
    assert lasting_rounds(0.0) == 1
    assert lasting_rounds(0.5) is None


def test_banks_of_all_kinds_update_together_as_they_do_alone() -> None:
    given = [
        intake(5, 30, seed=1),
        intake(9, 80, seed=2, momentum=0.6),
        intake(4, 7, width=8, seed=3),
        intake(3, 0, seed=4),
    ]
    for vectors, alone in zip(update_banks(given), given, strict=True):
        torch.testing.assert_close(vectors, expected(alone), rtol=0, atol=2e-6)


def test_an_update_changes_nothing_that_it_was_given() -> None:
    given = intake(5, 30)
    before = [tensor.clone() for tensor in (given.vectors, given.features, given.labels, given.rounds)]
    update_banks([given])
    for tensor, was in zip((given.vectors, given.features, given.labels, given.rounds), before, strict=True):
        assert torch.equal(tensor, was)


@pytest.mark.parametrize("open_", [True, False])
def test_a_closed_gate_keeps_nan_out(open_: bool) -> None:
    given = intake(5, 30, lowest=0)
    spoilt = given.features.clone()
    if not open_:
        spoilt[3] = torch.nan
    after = update_banks([Intake(given.vectors, spoilt, given.labels, given.rounds, 0.1)], torch.tensor(open_))[0]
    assert torch.equal(after, given.vectors) != open_
    assert torch.isfinite(after).all()


def test_the_plan_ends_with_every_labels_last_row() -> None:
    plan = plan_rounds(np.array([2, -1, 2, 0, 2]))
    assert plan.tolist() == [[-1, 0], [-1, 2], [3, 4]]
    assert plan_rounds(np.array([-1, -1])).shape == (0, 0)
    assert plan_rounds(np.array([], dtype=np.int64)).shape == (0, 0)


def test_a_name_is_taken_once() -> None:
    bank = Bank(name="mine", space="visible", role="specific", start=torch.eye(3))
    with pytest.raises(RecipeError, match="declare a bank 'mine'"):
        Banks.rebuild([bank, bank])


def test_banks_start_normalised_and_are_found_by_role_space_and_part() -> None:
    def bank(name: str, role: str, space: str = "visible", part: int | None = None) -> Bank:
        return Bank(name=name, space=space, role=role, part=part, start=3 * torch.eye(2))

    banks = Banks.rebuild(
        [bank("a", "specific"), bank("b", "cross"), bank("c", "specific", "infrared"), bank("d", "specific", part=0)]
    )
    assert torch.equal(banks["a"].vectors, torch.eye(2))
    assert [live.bank.name for live in banks.select("specific", "cross")] == ["a", "b", "c"]
    assert [live.bank.name for live in banks.select("specific", space="infrared")] == ["c"]
    assert [live.bank.name for live in banks.select("specific", part=0)] == ["d"]


@contextmanager
def cuda() -> Iterator[torch.device]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield torch.device("cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("where", [partial(pretended_device, waits=False), pytest.param(cuda, marks=CUDA)])
def test_a_gpu_agrees_and_never_waits(where: Callable[[], AbstractContextManager[torch.device]]) -> None:
    given = [intake(395, 432, width=2048, seed=seed) for seed in range(4)]
    with where() as device:

        def moved(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        there = [Intake(*map(moved, (g.vectors, g.features, g.labels, g.rounds)), g.momentum) for g in given]
        after = update_banks(there, torch.ones((), dtype=torch.bool, device=device))
    for vectors, alone in zip(after, given, strict=True):
        torch.testing.assert_close(vectors.cpu(), expected(alone), rtol=0, atol=2e-6)
