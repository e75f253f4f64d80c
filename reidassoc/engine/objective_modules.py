"""Modules that objectives train beside the network, a classifier say: when they are made, and what of them is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from reidassoc.engine.label_stage import Labelled
from reidassoc.engine.optim import build_optimiser, load_optimiser
from reidassoc.errors import CheckpointError
from reidassoc.interfaces.checks import refuse_module
from reidassoc.interfaces.plugins import Objective
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.seeds import seed_for
from reidassoc.pipeline import accepted, guarded
from reidassoc.recipe.compose import Method
from reidassoc.recipe.model import Optimiser
from reidassoc.types import Targets


@dataclass(frozen=True)
class Head:
    """One objective's module and its own optimiser, which has nothing to do if the module has no parameters."""

    module: nn.Module
    optimiser: torch.optim.Optimizer

    def packed(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict()}


def make_head(
    objective: Objective, scene: Scene, targets: Targets, *, name: str, settings: Optimiser, device: torch.device
) -> Head | None:
    """Make the module of an objective and its optimiser; None if the objective has none.

    Raises:
        PluginError: the objective fails, or returns something else.
    """
    # A generator of its own: a head that is made again for a resumed run shifts no other draw.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_for(scene.seed, scene.epoch, "head", name))
        module = guarded("objective", objective, partial(objective.modules, scene, targets))
    accepted("objective", objective, partial(refuse_module, module))
    if module is None:
        return None
    module = module.to(device)
    return Head(module, build_optimiser(module.parameters(), settings))


@dataclass
class Heads:
    """The heads of a stage's objectives, by the objective's number in the stage and its name.

    They are made in the first epoch of a stage, and again whenever the labels were made anew, unless the objective says
    that its modules outlive them (``outlives_labels``). A head made anew starts with an optimiser that remembers nothing.

    Args:
        live: those in use.
        stored: those that a checkpoint holds, until the next epoch's labels say of what shape they are.
    """

    live: dict[str, Head] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)

    def prepare(self, method: Method, labelled: Labelled, *, settings: Optimiser, device: torch.device) -> None:
        """Make or keep each objective's head for an epoch."""
        scene = labelled.scene
        if scene.stage_epoch == 0:
            self.live, self.stored = {}, {}
        for number, weighted in enumerate(method.objectives):
            name = f"{number}.{weighted.name}"
            if labelled.fresh and not weighted.part.outlives_labels:
                self.live.pop(name, None)
                self.stored.pop(name, None)
            if name in self.live:
                continue
            head = make_head(weighted.part, scene, labelled.targets, name=name, settings=settings, device=device)
            if head is not None:
                self.live[name] = self.restored(name, head)

    def restored(self, name: str, head: Head) -> Head:
        """A head as the checkpoint has it, or as it was made.

        Raises:
            CheckpointError: the checkpoint's does not fit.
        """
        if name in self.stored:
            stored = self.stored.pop(name)
            try:
                head.module.load_state_dict(stored["module"])
                load_optimiser(head.optimiser, stored["optimiser"])
            except Exception as error:  # a spoilt state fails in any way
                raise CheckpointError(f"the checkpoint's module of {name} does not fit: {error}") from None
        return head

    def of(self, number: int, name: str) -> dict[str, nn.Module]:
        """The keyword argument by which an objective gets its module; none if it has none."""
        head = self.live.get(f"{number}.{name}")
        return {"module": head.module} if head else {}

    def __iter__(self) -> Iterator[Head]:
        return iter(self.live.values())

    def packed(self) -> Mapping[str, Any]:
        return {**self.stored, **{name: head.packed() for name, head in self.live.items()}}
