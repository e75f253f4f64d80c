"""Lets a training step take effect only if it is finite, without asking the device whether it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn


def finite_step(loss: Tensor, modules: Iterable[nn.Module]) -> Tensor:
    """Return () bool on the device: whether the loss and all gradients of the modules are finite."""
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    return torch.isfinite(loss.detach()) & torch.isfinite(torch.nn.utils.get_total_norm(gradients))


class Before:
    """Copies of tensors, made before something changes them in place."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        self.values = [(value, value.detach().clone()) for value in values]

    @torch.no_grad()
    def restore_unless(self, finite: Tensor) -> None:
        """Put the old values back where ``finite`` () bool is false."""
        for value, before in self.values:
            value.copy_(torch.where(finite, value, before))


def update(optimisers: Sequence[torch.optim.Optimizer], finite: Tensor, *, on_host: bool | None = None) -> None:
    """Step the optimisers if ``finite`` () bool is true; else parameters and optimiser state stay what they were.

    State that an optimiser would have made in this first step is zero then, from which Adam and SGD start anyway. It has
    to lie on the device of the parameters, as :func:`reidassoc.engine.optim.build_optimiser` sees to.

    Args:
        on_host: decide by reading ``finite``; by default on the CPU alone, where there is nothing to wait for. Elsewhere
            the step is made and taken back.
    """
    if on_host if on_host is not None else finite.device.type == "cpu":
        for optimiser in optimisers if bool(finite) else ():
            optimiser.step()
        return
    parameters = [p for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]]
    before = Before(parameters)
    state = {place: value.clone() for place, value in states(optimisers)}
    for optimiser in optimisers:
        optimiser.step()
    before.restore_unless(finite)
    with torch.no_grad():
        for place, value in states(optimisers):
            value.copy_(torch.where(finite, value, state.get(place, torch.zeros_like(value))))


def states(optimisers: Iterable[torch.optim.Optimizer]) -> Iterator[tuple[tuple[Tensor, str], Tensor]]:
    """The tensors of the optimisers' state, by parameter and name."""
    for optimiser in optimisers:
        for parameter, state in optimiser.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    yield (parameter, name), value
