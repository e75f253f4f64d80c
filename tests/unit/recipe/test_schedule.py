"""Learning rates: the formula, what a run sets step by step over its stages, and the published settings of the recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reidassoc as ra
from reidassoc import registry
from reidassoc.engine import loop
from reidassoc.engine.optim import build_optimiser, learning_rate, set_learning_rate
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.model import Optimiser, Recipe
from reidassoc.recipe.override import override


def test_a_rate_falls_at_each_milestone_and_rises_over_the_first_steps() -> None:
    settings = Optimiser(learning_rate=0.5, milestones=(2, 4), gamma=0.1, warmup_steps=4)
    assert [learning_rate(settings, epoch, 100) for epoch in range(6)] == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 5e-3, 5e-3]
    )
    assert [learning_rate(settings, 0, step) for step in range(6)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert learning_rate(settings, 2, 1) == pytest.approx(0.025)
    assert learning_rate(Optimiser(learning_rate=0.5), 10**6, 0) == 0.5


def test_optimisers_are_torch_s_with_the_settings_of_the_recipe() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    adam = build_optimiser(network.parameters(), Optimiser(learning_rate=0.25, weight_decay=0.125))
    assert type(adam) is torch.optim.Adam
    (group,) = adam.param_groups
    assert group["params"] == [network.weight]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.25, 0.125, (0.9, 0.999))
    sgd = build_optimiser(network.parameters(), Optimiser(name="sgd", learning_rate=0.25, weight_decay=0.125))
    assert type(sgd) is torch.optim.SGD
    (group,) = sgd.param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"]) == (0.25, 0.125, 0.9, True)
    set_learning_rate(sgd, 1.0)
    assert sgd.param_groups[0]["lr"] == 1.0


def rates(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], int]:
    """The network's rate in each step of a run, and how many optimisers it had."""
    found: list[tuple[int, float]] = []
    kept = []  # else another one may get the number of one that is gone

    def note(optimiser: torch.optim.Optimizer, rate: float) -> None:
        kept.append(optimiser)
        found.append((id(optimiser), rate))
        set_learning_rate(optimiser, rate)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_learning_rate", note)
        ra.run(recipe, out=folder, device="cpu")
    return [rate for _, rate in found], len({number for number, _ in found})


def scheduled(small: Recipe, **second: Any) -> Recipe:
    """Two stages of two epochs of two steps; in epoch 1 and 3 of the run the rate falls."""
    short = [(f"{stage}.{key}", 2) for stage in ("intra", "cross") for key in ("epochs", "iterations")]
    first = {"name": "sgd", "learning_rate": 1e-3, "milestones": [1, 3], "warmup_steps": 4}
    chosen = override(small, [*short, ("evaluate_every", 0), ("intra.optimiser", first)])
    return override(chosen, [("cross.optimiser", second or None)])


def test_one_optimiser_goes_through_both_stages_unless_the_second_has_its_own(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milestones are epochs of the run; warm-up counts the optimiser's own steps."""
    found, count = rates(scheduled(small), tmp_path / "one", monkeypatch)
    assert found == pytest.approx([2.5e-4, 5e-4, 7.5e-5, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5], rel=1e-12)
    assert count == 1
    own = {"name": "adam", "learning_rate": 1e-2, "milestones": [3], "warmup_steps": 3, "network_rate": 0.5}
    found, count = rates(scheduled(small, **own), tmp_path / "two", monkeypatch)
    again = [1e-2 / 3 / 2, 2e-2 / 3 / 2, 1e-3 / 2, 1e-3 / 2]
    assert found == pytest.approx([2.5e-4, 5e-4, 7.5e-5, 1e-4, *again], rel=1e-12)
    assert count == 2


@dataclass(frozen=True)
class Published:
    """A stage as its paper or code has it: P × K images per modality, the rate, and the epochs of the run in which it falls."""

    epochs: int
    iterations: int
    batch: tuple[int, int]
    falls: tuple[int, ...]
    own: bool = True  # an optimiser of the stage's own
    name: str = "adam"
    rate: float = 3.5e-4


def of_mult(first: int, second: int) -> list[Published]:
    return [Published(40, first, (12, 12), (20, 60, 80)), Published(50, second, (12, 12), (20, 60, 80), own=False)]


def of_salcr(steps: int) -> list[Published]:
    return [Published(40, steps, (12, 12), (20,)), Published(40, steps, (8, 8), (60,))]


def of_adca(steps: int) -> list[Published]:
    return [Published(50, steps, (16, 16), (20, 40)), Published(50, steps, (16, 16), (70, 90))]


def of_mmm(steps: int, last: Published) -> list[Published]:
    return [Published(50, steps, (8, 16), (20, 40)), Published(50, steps, (8, 16), (70, 90)), last]


PUBLISHED = {
    "mult/sysu_mm01": of_mult(300, 200),
    "mult/regdb": of_mult(100, 100),
    "salcr/sysu_mm01": of_salcr(300),
    "salcr/regdb": of_salcr(100),
    "adca/sysu_mm01": of_adca(200),
    "adca/regdb": of_adca(100),
    "pgm/sysu_mm01": of_adca(200),
    "pgm/regdb": of_adca(100),
    # The last stage passes once over the images, 22 258 visible ones or 2060, in batches of P × K.
    "mmm/sysu_mm01": of_mmm(200, Published(80, 695, (8, 4), (120, 140))),
    "mmm/regdb": of_mmm(100, Published(80, 64, (8, 4), (120, 140))),
    "mmm_released/sysu_mm01": of_mmm(200, Published(100, 927, (6, 4), (120, 140), name="sgd", rate=0.1)),
    "mmm_released/regdb": of_mmm(100, Published(100, 86, (6, 4), (120, 140), name="sgd", rate=0.1)),
}
CLUSTERING = {"sysu_mm01": 0.6, "regdb": 0.3}  # eps; min_samples 4, k1 30, k2 6


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_train_as_published(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.size == (288, 144)
    assert len(recipe.stages) == len(PUBLISHED[name])
    in_force = None
    for stage, published in zip(recipe.stages, PUBLISHED[name], strict=True):
        assert (stage.epochs, stage.iterations) == (published.epochs, published.iterations), stage.name
        assert (stage.identities, stage.images) == published.batch, stage.name
        assert (stage.optimiser is not None) == published.own, stage.name
        in_force = stage.optimiser or in_force
        assert in_force is not None
        assert (in_force.name, in_force.learning_rate, in_force.milestones) == (
            published.name, published.rate, published.falls,
        ), stage.name  # fmt: skip
        assert (in_force.gamma, in_force.weight_decay) == (0.1, 5e-4), stage.name
    clusterer = registry.build("clusterers", recipe.clusterer)
    dataset = name.partition("/")[2]
    assert (clusterer.eps, clusterer.min_samples, clusterer.k1, clusterer.k2) == (CLUSTERING[dataset], 4, 30, 6)


def test_the_published_constants_of_methods() -> None:
    found = {
        name: [stage.model_dump(mode="json") for stage in load_recipe(f"{name}/regdb").stages][-1]
        for name in ("mult", "salcr", "mmm", "mmm_released")
    }
    assert found["mult"]["associator"] == "mult(alpha=0.2, strength=25.0)"
    assert found["mult"]["refiners"] == ["mix(beta=0.7)", "oclr"]
    assert found["salcr"]["associator"] == "salcr(k=8, strength=5.0)"
    assert (
        load_recipe("salcr/sysu_mm01").stages[-1].model_dump(mode="json")["associator"] == "salcr(k=30, strength=5.0)"
    )
    assert found["salcr"]["refiners"] == ["0.5 * gpcr(k=30)"]
    assert "memories=4" in found["mmm"]["associator"]
    assert "sca(intra=0.5, inter=0.05" in found["mmm"]["objectives"][1]
    assert "sca(intra=0.5, inter=0.05" in found["mmm_released"]["objectives"][1]
    assert found["mmm_released"]["relabel"] == "once"
    last = load_recipe("mmm_released/regdb").stages[-1].optimiser
    assert last is not None
    assert (last.network_rate, last.warmup_steps) == (0.1, 10 * 86)
