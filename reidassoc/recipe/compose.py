"""Turn a recipe into objects: look every part up, and check that the parts fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import reidassoc.registry as registry
from reidassoc.errors import RecipeError
from reidassoc.interfaces.plugins import Associator, Clusterer, Dataset, Network
from reidassoc.recipe.model import Recipe, Stage
from reidassoc.recipe.requirements import misfits


@dataclass(frozen=True)
class Weighted:
    """A refiner or objective and the weight of its losses."""

    name: str
    part: Any
    weight: float


@dataclass(frozen=True)
class Method:
    """The plug-ins of one stage."""

    clusterer: Clusterer
    associator: Associator | None
    refiners: tuple[Weighted, ...]
    objectives: tuple[Weighted, ...]


@dataclass(frozen=True)
class Composed:
    """A recipe as objects: everything is looked up and checked, nothing has run."""

    recipe: Recipe
    dataset: Dataset
    network: Network
    methods: tuple[Method, ...]


def compose(recipe: Recipe) -> Composed:
    """Look every part of a recipe up and check that they fit together, before any work.

    Raises:
        ReidassocError: a part is unknown, an option is wrong, or a part needs what the others don't give.
    """
    clusterer = registry.build("clusterers", recipe.clusterer)
    network = registry.build("networks", recipe.network)
    dataset = registry.build("datasets", recipe.dataset)
    methods = []
    for stage in recipe.stages:
        method = Method(
            clusterer=clusterer,
            associator=registry.build("associators", stage.associator) if stage.associator else None,
            refiners=tuple(Weighted(p.use.name, registry.build("refiners", p.use), p.weight) for p in stage.refiners),
            objectives=tuple(
                Weighted(p.use.name, registry.build("objectives", p.use), p.weight) for p in stage.objectives
            ),
        )
        refuse_misfits(recipe, stage, method, network)
        methods.append(method)
    return Composed(recipe, dataset, network, tuple(methods))


def refuse_misfits(recipe: Recipe, stage: Stage, method: Method, network: Network) -> None:
    """Raise RecipeError with the reason if a part of the stage needs what the stage doesn't give."""
    parts: list[tuple[str, Any]] = [(recipe.clusterer.name, method.clusterer)]
    parts += [(stage.associator.name, method.associator)] if stage.associator else []
    parts += [(weighted.name, weighted.part) for weighted in (*method.refiners, *method.objectives)]
    for misfit in misfits([*parts, (recipe.network.name, network)], oracle=recipe.oracle):
        raise RecipeError(f"stage '{stage.name}': {misfit}")
