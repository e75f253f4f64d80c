"""What the stages of the suite share: their inputs, and how a result is compared and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from crowd import synthetic
from meter import Rates, Row, clocked, measured
from torch import Tensor

from reidassoc.interfaces.scene import Scene
from reidassoc.pipeline import cluster
from reidassoc.types import Pair
from reidassoc_plugins.clusterers.dbscan import Dbscan


@dataclass(frozen=True)
class Bench:
    """The inputs that stages share.

    Args:
        scale: share of SYSU-MM01's training size.
        runs: timed runs of ours, after a warm-up.
        plain: run the plain versions, too; they need N x N memory.
    """

    scale: float
    width: int
    runs: int
    plain: bool
    rates: Rates = field(default_factory=Rates.probe)

    @cached_property
    def scene(self) -> tuple[Scene, Pair[Tensor]]:
        features, identity = synthetic(self.scale, 0, width=self.width)
        clustering = cluster(Dbscan(), features)
        return Scene(0, 0, features, clustering), identity

    @cached_property
    def x(self) -> Pair[Tensor]:
        return self.scene[0].features.map(lambda f: f.x)

    @cached_property
    def centroids(self) -> Pair[Tensor]:
        return self.scene[0].clustering.own.map(lambda c: c.centroids)

    @property
    def size(self) -> str:
        return " + ".join(str(len(x)) for x in self.x) + f" x {self.width}"

    def row(
        self,
        stage: str,
        ours: Callable[[], Any],
        plain: Callable[[], Any] | None = None,
        compare: Callable[[Any, Any], str] | None = None,
        *,
        size: str = "",
        floor: float | None = None,
        bar: Callable[[float, float], str] | None = None,
    ) -> Row:
        seconds, peak, result = measured(ours, self.runs)
        plain_s, said = None, ""
        if plain is not None and self.plain:
            plain_s, want = clocked(plain)
            said = compare(result, want) if compare else ""
        return Row(stage, size or self.size, seconds, plain_s, floor, peak, said, bar(seconds, peak) if bar else "")


def same(one: Tensor, two: Tensor) -> str:
    return f"{100 * float((one == two).double().mean()):.3f} % equal"


def largest(one: Tensor, two: Tensor) -> str:
    return f"differs by {float((one - two).abs().max()):.1e}"


def verdict(asked: str, met: bool) -> str:
    return f"{asked}: {'met' if met else 'MISSED'}"


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)
