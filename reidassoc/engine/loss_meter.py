"""Adds up the losses of an epoch on the device, to be read now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """The losses so far.

    Args:
        mean: of every term, over the steps that were finite; empty if none was.
        lost: steps that were not finite, and so changed nothing.
        culprits: terms that were not finite in some step; empty where only a gradient was not.
    """

    mean: Mapping[str, float]
    lost: int
    culprits: tuple[str, ...]


class Tally:
    """Sums of loss terms over finite steps, and counts of those that were not."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None  # (3, T): sum of each term; steps in which it was not finite; steps lost
        self.names: tuple[str, ...] = ()
        self.steps = 0

    def add(self, terms: Mapping[str, Tensor], finite: Tensor) -> None:
        """Count one step.

        Args:
            terms: () each, on the device; the same ones in every step.
            finite: () bool, whether the step took effect.
        """
        values = torch.stack([term.float() for term in terms.values()])
        kept, faulty, lost = torch.where(finite, values, 0.0), ~torch.isfinite(values), (~finite).expand_as(values)
        rows = torch.stack([kept, faulty.to(kept.dtype), lost.to(kept.dtype)]).double()
        self.names, self.steps = tuple(terms), self.steps + 1
        self.sums = rows if self.sums is None else self.sums + rows

    def read(self) -> Reading:
        """Read the sums, which waits for the device once."""
        if self.sums is None:
            return Reading({}, 0, ())
        total, faulty, lost = self.sums.tolist()
        count = self.steps - round(lost[0])
        mean = {name: value / count for name, value in zip(self.names, total, strict=True)} if count else {}
        culprits = tuple(name for name, steps in zip(self.names, faulty, strict=True) if steps and name != "loss")
        return Reading(mean, round(lost[0]), culprits)
