"""The files that a recipe's plug-ins come from, and what they held: unlike what we ship, they change between two runs."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import reidassoc.registry as registry
from reidassoc.recipe.model import Recipe, Stage
from reidassoc.registry.spec import Spec


def sources(recipe: Recipe, epochs: int | None = None) -> dict[str, str]:
    """Each file's path → a short hash of its text as it was loaded; empty where all plug-ins are those of reidassoc.

    Of a stranger's package, that is the module that holds the class.

    Args:
        recipe: whose plug-ins are registered.
        epochs: only what the first so many epochs use; all of them if not given.
    """
    found = (registry.find(kind, spec.name) for kind, spec in parts(recipe, epochs))
    return dict(sorted({entry.file: entry.text_hash for entry in found if entry.text_hash}.items()))


def named_sources(recipe: Recipe) -> dict[str, str]:
    """The same by the files' names alone, as results tell it."""
    return {Path(path).name: text_hash for path, text_hash in sources(recipe).items()}


def code(recipe: Recipe, epochs: int | None = None) -> str:
    """What the files hold, as an addition to a digest: ``-0123abcd``, or nothing. Where the files lie has no part in it."""
    hashes = sorted(sources(recipe, epochs).values())
    return "-" + sha256(" ".join(hashes).encode()).hexdigest()[:8] if hashes else ""


def start_name(recipe: Recipe, epochs: int) -> str:
    """Runs whose recipes and files agree in this reach the same state after so many epochs."""
    return recipe.prefix_digest(epochs) + code(recipe, epochs)


def parts(recipe: Recipe, epochs: int | None = None) -> Iterator[tuple[str, Spec]]:
    """Kind and spec of every plug-in of a recipe, or of its first epochs."""
    yield "datasets", recipe.dataset
    yield "networks", recipe.network
    yield "clusterers", recipe.clusterer
    for stage in begun(recipe, epochs):
        if stage.associator is not None:
            yield "associators", stage.associator
        yield from (("refiners", part.use) for part in stage.refiners)
        yield from (("objectives", part.use) for part in stage.objectives)


def check_parts(recipe: Recipe) -> None:
    """Check every plug-in of a recipe by name, options, ranges and files, before anything heavy is imported.

    Raises:
        ReidassocError: something is wrong with one.
    """
    for kind, spec in parts(recipe):
        registry.check(kind, spec)


def begun(recipe: Recipe, epochs: int | None) -> Iterator[Stage]:
    """The stages that the first epochs reach into."""
    left = recipe.epochs if epochs is None else epochs
    for stage in recipe.stages:
        if left > 0:
            yield stage
        left -= stage.epochs
