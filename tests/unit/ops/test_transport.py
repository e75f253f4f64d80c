"""Entropic transport: the published code's plans, POT as an oracle, and what must hold for every plan."""

from __future__ import annotations

import ot
import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from torch import Tensor

from reidassoc.ops import sinkhorn
from reidassoc.ops import transport as module
from reidassoc.ops.compiled.dispatch import compiled, without_numba
from reidassoc.ops.transition import TransitionMatrix
from reidassoc.ops.transport import transport


def unit(n: int, d: int = 8, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def distributions(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.softmax(torch.randn(n, k, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(
    ("rows", "columns", "strength", "name"),
    [
        ("features_v", "centroids_r", 25.0, "plan_v_to_cr_lambda25"),
        ("features_r", "centroids_v", 5.0, "plan_r_to_cv_lambda5"),
    ],
)
def test_equals_the_published_code(loops: str, rows: str, columns: str, strength: float, name: str) -> None:
    stored = golden("sinkhorn")
    plan = transport(stored[rows], stored[columns], strength=strength)
    want = stored[name]
    assert float(((plan.dense() - want).abs() / want.amax(1, keepdim=True)).max()) < 1e-4
    assert torch.equal(plan.row_argmax(), want.argmax(1))


def test_a_converged_plan_equals_pots(loops: str) -> None:
    x, y = unit(60), unit(40, seed=1)
    cost = torch.cdist(x.double(), y.double()) ** 2
    want = ot.sinkhorn(ot.unif(60), ot.unif(40), cost.numpy(), reg=1 / 10.0, numItermax=100_000, stopThr=1e-14)
    plan = transport(x, y, strength=10.0, tolerance=1e-6, max_rounds=20_000)
    want = torch.from_numpy(want).float()
    assert float(((plan.dense() - want).abs() / want.amax(1, keepdim=True)).max()) < 1e-4


def test_mass_is_conserved(loops: str) -> None:
    plan = transport(unit(70), unit(30, seed=1), strength=25.0).dense()
    torch.testing.assert_close(plan.sum(0), torch.full((30,), 1 / 30), rtol=1e-5, atol=0)
    assert float(plan.sum()) == pytest.approx(1, abs=1e-5)


def test_stops_where_the_published_code_looks(loops: str) -> None:
    x, y = unit(50), unit(20, seed=1)
    assert transport(x, y, strength=1e-6).rounds == 1  # nothing changes after the first round: looked at once
    assert transport(x, y, strength=25.0, max_rounds=7, tolerance=0.0).rounds == 7
    assert transport(x, y, strength=25.0, tolerance=0.5).rounds % 10 == 1


@pytest.mark.parametrize("strength", [25.0, 100.0, 400.0])
def test_nothing_vanishes_when_everything_is_far(loops: str, strength: float) -> None:
    x = torch.cat([unit(30), -torch.ones(2, 8) / 8**0.5])
    y = torch.ones(6, 8) / 8**0.5 + 0.05 * unit(6, seed=3)
    plan = transport(x, F.normalize(y, dim=1), strength=strength, max_rounds=50)
    dense = plan.dense()
    assert bool(torch.isfinite(dense).all())
    assert bool((dense.sum(1) > 0).all())
    assert bool((dense.sum(0) > 0).all())


def test_sides_may_be_empty() -> None:
    assert transport(unit(5), unit(0), strength=25.0).row_argmax().tolist() == [-1] * 5
    assert transport(unit(0), unit(5), strength=25.0).row_argmax().tolist() == []
    assert transport(unit(0), unit(0), strength=25.0).dense().shape == (0, 0)
    plan = transport(unit(5), unit(0), strength=25.0)
    assert plan.average(torch.zeros(0, 3)).tolist() == torch.zeros(5, 3).tolist()
    empty = transport(unit(0), unit(5), strength=25.0).truncated(0.1)
    assert empty is not None
    assert empty.shape == (0, 5)


def test_average_is_the_row_normalised_plan(loops: str) -> None:
    plan = transport(unit(50), unit(20, seed=1), strength=25.0)
    y, z = distributions(20, 7), distributions(50, 3)
    dense = plan.dense()
    torch.testing.assert_close(plan.average(y), dense / dense.sum(1, keepdim=True) @ y)
    torch.testing.assert_close(plan.transposed.average(z), (dense / dense.sum(0)).T @ z)
    torch.testing.assert_close(plan.transposed.dense(), dense.T)


@pytest.mark.parametrize("lost", [0.0, 1e-4, 1e-2, 0.3])
def test_truncation_keeps_its_promise(loops: str, lost: float) -> None:
    plan = transport(unit(50), unit(80, seed=1), strength=25.0)
    for side in (plan, plan.transposed):
        dense = side.dense()
        rows = dense / dense.sum(1, keepdim=True)
        kept = side.truncated(lost)
        assert kept is not None
        got = kept.to_dense()
        torch.testing.assert_close(got.sum(1), torch.ones(len(got)), atol=1e-5, rtol=0)
        assert float((rows * (got == 0)).sum(1).max()) <= lost + 1e-6
        if lost == 0:
            torch.testing.assert_close(got, rows, atol=1e-6, rtol=1e-4)
        if lost >= 1e-2:
            assert kept.values().numel() < rows.numel()


def test_compiled_and_torch_loops_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled(torch.device("cpu")) is None:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 1 << 10)
    x, y = unit(203), unit(61, seed=1)
    fast = transport(x, y, strength=25.0)
    few = fast.truncated(0.01)
    with without_numba():
        slow = transport(x, y, strength=25.0)
        few_slow = fast.truncated(0.01)
    assert fast.rounds == slow.rounds
    torch.testing.assert_close(fast.dense(), slow.dense(), rtol=1e-4, atol=1e-9)
    assert few is not None
    assert few_slow is not None
    assert torch.equal(few.col_indices(), few_slow.col_indices())
    torch.testing.assert_close(few.values(), few_slow.values())


def test_dense_plans_are_not_truncated() -> None:
    plan = transport(unit(1000), unit(50, seed=1), strength=1e-3)  # flat: nothing to leave out
    assert plan.truncated(1e-3, max_density=0.05) is None
    assert plan.truncated(1e-3, max_density=0.9) is None
    assert transport(unit(20), unit(50, seed=1), strength=1e-3).truncated(1e-3, max_density=0.05) is None
    averaging = TransitionMatrix.of_plan(plan, lost=1e-3)
    assert averaging.source is plan


@pytest.fixture(params=["float32", "bfloat16", "torch"])
def shortcut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small plans are made fast, too: in either precision, and by the torch loops."""
    monkeypatch.setattr(module, "FAST_FROM", 0)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 1 << 13)
    monkeypatch.setattr(module, "bfloat16_pays", lambda device: request.param == "bfloat16")
    if request.param == "torch":
        with without_numba():
            yield "torch"
    else:
        if compiled(torch.device("cpu")) is None:
            pytest.skip("numba is not installed")
        yield request.param


def people(count: int, number: int, width: int = 64) -> Tensor:
    """Uneven groups that both sides share: plain rounds take hundreds to move the excess."""
    generator = torch.Generator().manual_seed(number)
    centre = torch.randn(12, width, generator=torch.Generator().manual_seed(0))
    share = torch.exp(0.2 * torch.randn(12, generator=generator))
    who = torch.multinomial(share, count, replacement=True, generator=generator)
    return F.normalize(centre[who] + 0.6 * torch.randn(count, width, generator=generator), dim=1)


def test_a_fast_plan_is_nearer_to_the_converged_one_in_fewer_rounds(shortcut: str) -> None:
    x, y = people(203, 1), people(120, 2)
    fast = transport(x, y, strength=25.0, fast=True)
    plain = transport(x, y, strength=25.0)
    converged = transport(x, y, strength=25.0, tolerance=1e-3, max_rounds=5000)
    assert (fast.kernel.dtype == torch.bfloat16) == (shortcut == "bfloat16")
    assert plain.rounds > 150
    assert fast.rounds < plain.rounds / 2

    def away(plan: module.Plan) -> float:
        dense, want = plan.dense(), converged.dense()
        return float((dense / dense.sum(1, keepdim=True) - want / want.sum(1, keepdim=True)).abs().sum(1).mean())

    assert away(fast) < (1e-2 if shortcut == "bfloat16" else away(plain))
    assert float((fast.row_argmax() == plain.row_argmax()).double().mean()) > 0.99
    torch.testing.assert_close(fast.dense().sum(0), torch.full((120,), 1 / 120), rtol=1e-4, atol=0)


def test_a_bfloat16_plan_averages_and_truncates_like_its_dense_form(shortcut: str) -> None:
    plan = transport(people(203, 1), people(120, 2), strength=25.0, fast=True)
    for side, y in ((plan, distributions(120, 7)), (plan.transposed, distributions(203, 7))):
        dense = side.dense()
        rows = dense / dense.sum(1, keepdim=True)
        tolerance = 1e-2 if shortcut == "bfloat16" else 1e-5
        torch.testing.assert_close(side.average(y), rows @ y, rtol=tolerance, atol=0)
        torch.testing.assert_close(TransitionMatrix.of_plan(side) @ y, side.average(y))
        torch.testing.assert_close(side.average(y).sum(1), torch.ones(len(rows)), rtol=1e-6, atol=0)
        sparse = side.truncated(1e-2)
        assert sparse is not None
        assert float((sparse.to_dense() - rows).abs().sum(1).max()) < 0.03


def test_a_plan_that_converges_at_once_takes_no_shortcut(shortcut: str) -> None:
    x, y = unit(50), unit(20, seed=1)
    fast = transport(x, y, strength=1e-6, fast=True)
    assert fast.rounds == 1
    assert transport(x, y, strength=25.0, fast=True, tolerance=0.0, max_rounds=15).rounds == 15


def test_rounds_that_run_away_are_made_plainly(shortcut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = people(203, 1), people(120, 2)
    monkeypatch.setattr(sinkhorn, "OMEGA", 2.3)  # beyond 2 no start is near enough
    fast = transport(x, y, strength=25.0, fast=True)
    plain = transport(x, y, strength=25.0)
    assert fast.rounds == pytest.approx(plain.rounds, abs=20)
    torch.testing.assert_close(fast.dense(), plain.dense(), rtol=0.2, atol=1e-9)


def test_a_kernel_beyond_bfloat16s_range_stays_float32(shortcut: str) -> None:
    x = torch.cat([unit(300), F.normalize(torch.full((1, 8), -1.0), dim=1)])
    y = torch.cat(
        [F.normalize(torch.ones(6, 8) + 0.05 * unit(6, seed=3), dim=1), -F.normalize(torch.ones(1, 8), dim=1)]
    )
    plan = transport(x, y, strength=2000.0, fast=True, max_rounds=30)
    assert bool(torch.isfinite(plan.dense()).all())


def at_degrees(*degrees: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.mark.parametrize("strength", [25.0, 100.0, 200.0, 500.0, 1e3, 1e4, 1e5])
def test_a_far_point_is_moved_at_any_strength(loops: str, strength: float) -> None:
    plan = transport(at_degrees(0, 10, 20, 80), at_degrees(15, 75), strength=strength)
    assert plan.row_argmax().tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(plan.dense().sum(0), torch.full((2,), 0.5))
    torch.testing.assert_close(plan.dense().sum(1), torch.full((4,), 0.25), rtol=0.05, atol=0)
    for side, y in ((plan, distributions(2, 3)), (plan.transposed, distributions(4, 3))):
        torch.testing.assert_close(side.average(y).sum(1), torch.ones(len(side.row)))


def test_a_strong_plan_equals_pots_in_float64(shortcut: str) -> None:
    x, y = unit(40, 4), unit(40, 4, seed=1)
    cost = (torch.cdist(x.double(), y.double()) ** 2).numpy()
    want = ot.sinkhorn(ot.unif(40), ot.unif(40), cost, reg=1 / 90, numItermax=20_000, stopThr=1e-7, warn=False)
    plan = transport(x, y, strength=90.0, tolerance=1e-4, max_rounds=5000, fast=True).dense()
    torch.testing.assert_close(
        plan, torch.from_numpy(want).float(), rtol=0, atol=(0.05 if shortcut == "bfloat16" else 2e-3) / 40
    )


def test_what_leaves_the_range_at_every_strength_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALVINGS", 1)
    with pytest.raises(ValueError, match=r"leaves float32's range at strength 10000\.0; use a smaller strength"):
        transport(at_degrees(0, 10, 20, 80), at_degrees(15, 75), strength=1e4)


def test_permuting_rows_permutes_the_plan(loops: str) -> None:
    x, y = unit(70), unit(30, seed=1)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    straight, moved = transport(x, y, strength=10.0), transport(x[order], y, strength=10.0)
    torch.testing.assert_close(moved.dense(), straight.dense()[order], rtol=1e-4, atol=1e-9)


def test_wrong_arguments_are_refused() -> None:
    x, y = unit(5), unit(4, seed=1)
    with pytest.raises(ValueError, match="strength must be positive, got 0"):
        transport(x, y, strength=0)
    with pytest.raises(ValueError, match="max_rounds must be at least 1"):
        transport(x, y, strength=1.0, max_rounds=0)
    with pytest.raises(ValueError, match="same width, got 8 and 4"):
        transport(x, unit(4, 4), strength=1.0)
    with pytest.raises(ValueError, match="lost must be in"):
        transport(x, y, strength=1.0).truncated(1.0)
    with pytest.raises(ValueError, match="strength must be at most 1e"):
        transport(x, y, strength=1e7)
    y[0, 0] = float("nan")
    with pytest.raises(ValueError, match="y has NaN"):
        transport(x, y, strength=1.0)
