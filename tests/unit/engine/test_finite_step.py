"""A step that is not finite takes no effect, whatever the optimiser, and a run stops or goes on as its recipe says."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import reidassoc as ra
from reidassoc import registry
from reidassoc.engine.finite_step import finite_step, update
from reidassoc.engine.loop import LOST
from reidassoc.engine.loss_meter import Tally
from reidassoc.engine.optim import build_optimiser
from reidassoc.engine.step import Step
from reidassoc.errors import PluginError, ReidassocError
from reidassoc.interfaces.banks import Bank, Banks, Feed
from reidassoc.interfaces.plugins import Objective, Sampling
from reidassoc.ops.banks import plan_rounds
from reidassoc.recipe.model import Optimiser, Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.testing import pretended_device

CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
PLACES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "cpu": lambda: nullcontext("cpu"),
    "cuda": lambda: nullcontext("cuda"),
    "pretended": pretended_device,
}
DEVICES = ["cpu", "pretended", pytest.param("cuda", marks=CUDA)]


def one_step(network: nn.Module, optimiser: torch.optim.Optimizer, factor: float, **how: Any) -> bool:
    optimiser.zero_grad(set_to_none=True)
    x = torch.arange(12.0, device=next(network.parameters()).device).view(3, 4)
    loss = network(x).square().sum() * factor
    loss.backward()  # type: ignore[no-untyped-call]
    finite = finite_step(loss, [network])
    update([optimiser], finite, **how)
    return bool(finite)


def everything(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {name: value.clone() for name, value in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        found |= {f"{number}.{name}": value.clone() for name, value in state.items()}
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_step_that_is_not_finite_changes_nothing(name: Any, on_host: bool, device: str) -> None:
    torch.manual_seed(0)
    with PLACES[device]() as place:
        network = nn.Linear(4, 2).to(place)
        optimiser = build_optimiser(network.parameters(), Optimiser(name=name, learning_rate=0.1))
        assert one_step(network, optimiser, 1.0, on_host=on_host)
        before = everything(network, optimiser)
        assert not one_step(network, optimiser, float("nan"), on_host=on_host)
        assert not one_step(network, optimiser, float("inf"), on_host=on_host)
        after = everything(network, optimiser)
        assert before.keys() == after.keys()
        assert len(before) > 2
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert one_step(network, optimiser, 1.0, on_host=on_host)
        assert not torch.equal(network.weight, before["weight"])


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_first_step_that_is_not_finite_leaves_no_trace(name: Any) -> None:
    ends = []
    for factors in ([float("nan"), 1.0, 1.0], [1.0, 1.0]):
        torch.manual_seed(0)
        network = nn.Linear(4, 2)
        optimiser = build_optimiser(network.parameters(), Optimiser(name=name, learning_rate=0.1))
        for factor in factors:
            one_step(network, optimiser, factor, on_host=False)
        ends.append(everything(network, optimiser))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[1])


def test_a_gradient_that_is_not_finite_counts_too() -> None:
    network = nn.Linear(2, 1)
    loss = network(torch.zeros(1, 2)).sum().mul(0).sqrt().sum()  # value 0, gradient 0 · ∞
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert not bool(finite_step(loss, [network]))


def test_the_tally_leaves_lost_steps_out_and_names_the_terms() -> None:
    tally = Tally()
    assert tally.read().mean == {}
    for a, b in [(1.0, 2.0), (float("nan"), 5.0), (3.0, 4.0)]:
        terms = {"loss": torch.tensor(a + b), "a": torch.tensor(a), "b": torch.tensor(b)}
        tally.add(terms, torch.isfinite(terms["loss"]))
    reading = tally.read()
    assert reading.mean == {"loss": 5.0, "a": 2.0, "b": 3.0}
    assert (reading.lost, reading.culprits) == (1, ("a",))


@dataclass(frozen=True, kw_only=True)
class Faulty(Objective):
    """Pulls features to the origin; not a number in one epoch, for the batches whose first row is odd (or for all)."""

    sampling: ClassVar[Sampling] = "paired"
    epoch: int = 3
    always: bool = False

    def banks(self, scene: Any, targets: Any) -> list[Any]:
        return []

    def __call__(self, batch: Any, banks: Any) -> dict[str, Tensor]:
        loss = batch["visible"].feature[:, 0].mean()
        wrong = batch.epoch == self.epoch and (self.always or int(batch["visible"].rows[0]) % 2)
        return {"pull": loss * float("nan") if wrong else loss}


def faulty(small: Recipe, spec: str, **changes: Any) -> Recipe:
    registry.add("faulty", Faulty)
    parts = [("cross.objectives", [spec]), ("cross.refiners", []), ("evaluate_every", 0)]
    return override(small, [*parts, *changes.items()])


def test_a_run_stops_at_the_next_reading_with_its_rows_saved(small: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ReidassocError, match=r"no longer finite in epoch 3, step ≤ 4 \(faulty/pull\).*--on-nan skip"):
        ra.run(faulty(small, "faulty"), out=tmp_path / "run", device="cpu")
    folder = RunFolder(tmp_path / "run")
    assert [row["epoch"] for row in folder.metrics] == [0, 1, 2, 3]
    last = folder.metrics[-1]
    assert last["stopped"] == {"step": 4, "not finite": ["faulty/pull"]}
    assert last["clusters"]
    assert set(last["losses"]) == {"loss", "faulty/pull"}
    assert folder.checkpoints()[0].name == "epoch_003.pt"


def test_a_run_that_skips_goes_on_with_what_it_had(small: Recipe, tmp_path: Path) -> None:
    result = ra.run(faulty(small, "faulty(always=True)", on_nan="skip"), out=tmp_path / "run", device="cpu")
    assert result.data["counts"] == {LOST: 4}
    assert [row["losses"] == {} for row in RunFolder(tmp_path / "run").metrics] == [False, False, False, True, False]
    before, after = (
        torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)
        for name in ("epoch_004.pt", "epoch_005.pt")
    )
    assert not torch.equal(before["network"]["project.weight"], after["network"]["project.weight"])


def test_banks_take_in_what_finite_steps_saw_and_nothing_else(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost step's features may well be finite."""
    seen: list[tuple[bool, bool]] = []
    real = Banks.update

    def update(self: Banks, feeds: Any, gate: Tensor | None = None) -> None:
        before = {live.bank.name: live.vectors.clone() for live in self}
        real(self, feeds, gate=gate)
        assert all(feed.features.isfinite().all() for feed in feeds.values())
        if feeds:
            seen.append(
                (
                    gate is None or bool(gate),
                    any(not torch.equal(live.vectors, before[live.bank.name]) for live in self),
                )
            )

    monkeypatch.setattr(Banks, "update", update)
    parts = {"cross.objectives": ["amirl", "faulty"], "cross.iterations": 8, "on_nan": "skip"}
    ra.run(faulty(small, "faulty", **parts), out=tmp_path / "run", device="cpu")
    assert set(seen) == {(True, True), (False, False)}


@dataclass(frozen=True, kw_only=True)
class ByHand(Objective):
    """Feeds its bank itself; not a number for the batches whose first row is odd."""

    sampling: ClassVar[Sampling] = "own"
    how: str = "update"

    def banks(self, scene: Any, targets: Any) -> list[Bank]:
        start = scene.prototypes(targets, "visible")
        return [Bank(name="by_hand", space="visible", role="specific", start=start)]

    def __call__(self, batch: Any, banks: Any) -> dict[str, Tensor]:
        view, live = batch["visible"], banks["by_hand"]
        labels, feature = batch.labels(view, "visible").hard, view.feature.detach()
        loss = view.feature[:, 0].mean()
        if self.how == "update":
            banks.update({"by_hand": Feed(feature, labels, plan_rounds(labels.numpy()))})
        elif self.how == "vectors":
            live.vectors = live.vectors.index_copy(0, labels.clamp_min(0), feature)
        elif self.how == "in place":
            live.vectors[labels.clamp_min(0)] = feature
        else:  # as published scripts do
            loss = Feeding.apply(loss, live.vectors, labels.clamp_min(0), feature)
        return {"pull": loss * float("nan") if int(view.rows[0]) % 2 else loss}


class Feeding(torch.autograd.Function):
    """Writes into a bank on the way back."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *bank: Tensor) -> Tensor:
        ctx.bank = bank
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        vectors, labels, feature = ctx.bank
        vectors[labels] = feature
        return slope, None, None, None


@pytest.mark.parametrize("how", ["update", "vectors"])
def test_a_lost_step_leaves_no_trace_in_a_bank_fed_by_hand(
    how: str, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, bool]] = set()
    call = Step.__call__

    def compared(self: Step, host: Any) -> tuple[dict[str, Tensor], Tensor]:
        before = {live.bank.name: live.vectors.clone() for live in self.banks}
        terms, finite = call(self, host)
        if "by_hand" in before:
            seen.add((bool(finite), not torch.equal(self.banks["by_hand"].vectors, before["by_hand"])))
        return terms, finite

    registry.add("by_hand", ByHand)
    monkeypatch.setattr(Step, "__call__", compared)
    parts = {"cross.objectives": [f"by_hand(how='{how}')"], "cross.iterations": 8, "on_nan": "skip"}
    ra.run(faulty(small, "faulty", **parts), out=tmp_path / "run", device="cpu")
    assert seen == {(True, True), (False, False)}


@pytest.mark.parametrize("how", ["in place", "backward"])
def test_a_bank_written_into_in_place_is_refused(how: str, small: Recipe, tmp_path: Path) -> None:
    registry.add("by_hand", ByHand)
    parts = {"cross.objectives": [f"by_hand(how='{how}')"]}
    with pytest.raises(PluginError, match=r"bank 'by_hand': its vectors were written into in place .* fed_by"):
        ra.run(faulty(small, "faulty", **parts), out=tmp_path / "run", device="cpu")


def test_a_skipped_epoch_leaves_the_network_as_it_was(small: Recipe, tmp_path: Path) -> None:
    chosen = faulty(small, "faulty(always=True, epoch=4)", on_nan="skip")
    ra.run(chosen, out=tmp_path / "run", device="cpu")
    before, after = (
        torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)
        for name in ("epoch_004.pt", "epoch_005.pt")
    )
    assert all(torch.equal(value, after["network"][key]) for key, value in before["network"].items())
    states = deepcopy(before["optimiser"]["state"]), after["optimiser"]["state"]
    assert all(torch.equal(states[0][n][key], states[1][n][key]) for n in states[0] for key in states[0][n])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["counts"] == {LOST: 4}


def test_a_recipe_stops_unless_it_says_otherwise() -> None:
    assert ra.choose().on_nan == "stop"
    assert ra.choose(on_nan="skip").on_nan == "skip"
