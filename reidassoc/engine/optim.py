"""Optimisers and their learning-rate schedule, both read off the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from reidassoc.recipe.model import Optimiser


def build_optimiser(parameters: Iterable[nn.Parameter], settings: Optimiser) -> torch.optim.Optimizer:
    """Return the optimiser over the parameters that can be trained, if any. Its state lies on their device: no step waits."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    fused = True if trained and trained[0].device.type != "cpu" else None  # else Adam counts its steps on the host
    group = [{"params": trained}]  # torch takes an empty group, though no empty list
    if settings.name == "sgd":
        return torch.optim.SGD(
            group, settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
        )
    return torch.optim.Adam(group, settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)


def load_optimiser(optimiser: torch.optim.Optimizer, data: dict[str, Any]) -> None:
    """Load a checkpoint's state, which may come from another device: how steps are computed stays this device's."""
    fused = [group.get("fused") for group in optimiser.param_groups]
    optimiser.load_state_dict(data)
    for group, own in zip(optimiser.param_groups, fused, strict=True):
        group["fused"] = own


def learning_rate(settings: Optimiser, epoch: int, step: int) -> float:
    """The rate of a step: divided at each milestone passed, and warmed up linearly.

    Args:
        epoch: of the run.
        step: steps since the optimiser was made.
    """
    passed = sum(epoch >= milestone for milestone in settings.milestones)
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    return settings.learning_rate * settings.gamma**passed * warm


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
