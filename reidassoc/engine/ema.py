"""Averaged weights: a copy of the network that follows the trained one, and speaks for it outside of the training step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of a network's weights and batch-norm statistics.

    After step t each value is d · value + (1 − d) · (the trained network's), d the smaller of ``decay`` and t / (t + 1): a plain
    mean until the window, 1 / (1 − decay) steps, is full. Whole numbers are copied. ``torch.optim.swa_utils.AveragedModel``
    has no such start, and moves its count to the device in every step.
    Source: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def follow(self, trained: nn.Module) -> None:
        """Take in the trained network as it is after a step."""
        self.steps += 1
        share = max(1 - self.decay, 1 / (self.steps + 1))
        pairs = list(zip(values(self.network), values(trained), strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in real], [new for _, new in real], share)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)

    def packed(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load(self, data: Mapping[str, Any]) -> None:
        self.network.load_state_dict(data["network"])
        self.steps = int(data["steps"])


def values(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())
