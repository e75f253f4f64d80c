"""How names on a command line become a recipe: the one that ships under a name, with parts exchanged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import reidassoc.registry as registry
from reidassoc.errors import RecipeError
from reidassoc.recipe.inherited_options import exchanged, in_place_of
from reidassoc.recipe.load import load_recipe, parse_recipe, shipped_recipes
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.registry.spec import Spec, several

BASE = "mult"  # the recipe whose other parts a method without a recipe of its own is run with
BASE_DATASET = "sysu_mm01"  # the settings for a dataset without a recipe of its own


def choose(
    *,
    recipe: str | None = None,
    dataset: str | None = None,
    clusterer: str | None = None,
    associator: str | None = None,
    refiners: str | Sequence[str] = (),
    objectives: str | Sequence[str] = (),
    network: str | None = None,
    changes: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    root: str | None = None,
    weights: str | None = None,
    seed: int | None = None,
    oracle: bool = False,
    on_nan: str | None = None,
    as_gpus: int | None = None,
) -> Recipe:
    """Find the recipe that the names mean, and exchange in it what is named.

    The recipe is the named one; else that of the associator's method on the dataset, if one ships (``pgm/DATASET``; of cma
    ``adca/DATASET``: the plug-in's ``recipe`` says so); else ``mult/DATASET``. A named associator, refiners and objectives
    replace those of the stages that associate across modalities: so ``recipe="mult/synthetic", associator="pgm"`` runs PGM's
    association in MULT's training, and methods compared that way differ in their association alone.

    A dataset, clusterer, network or associator of the recipe's own name keeps the recipe's options that its spec doesn't name.
    ``k1`` and ``k2`` belong to the data: another clusterer keeps the recipe's, if it has such options and its spec names none;
    associators and refiners take the clusterer's when they run.

    What is not listed here is as for :func:`reidassoc.run`.

    Args:
        recipe: the name of a shipped one, such as ``"mult/synthetic"``, or a YAML file.
        dataset: a spec, as those of the other parts.
        refiners: in the place of the recipe's; objectives likewise.
        changes: paths and values as in ``--set``, see :func:`override`; made last, in order.

    Raises:
        ReidassocError: a name is unknown or a change doesn't fit.

    Examples:
        >>> import reidassoc as ra
        >>> recipe = ra.choose(recipe="mult/synthetic", associator="pgm", changes={"cross.epochs": 5})
        >>> str(recipe.stages[1].associator), recipe.stages[1].epochs
        ('pgm', 5)
    """
    named = pairs_of(changes)
    wanted = Spec.parse(dataset) if dataset else None
    cross = Spec.parse(associator) if associator else None
    chosen = load_recipe(
        recipe or default_recipe(method_of(cross) if cross else BASE, wanted.name if wanted else "synthetic")
    )
    data = chosen.model_dump(mode="json")
    if wanted is not None:
        registry.find("datasets", wanted.name, outlined=True)
        data["dataset"] = str(exchanged(chosen.dataset, wanted))
    if clusterer:
        data["clusterer"] = str(in_place_of(chosen.clusterer, Spec.parse(clusterer)))
    if network:
        data["network"] = str(exchanged(chosen.network, Spec.parse(network)))
    users = [stage for stage in data["stages"] if stage["associator"]]
    if (associator or refiners or objectives) and not users:
        raise RecipeError(
            f"recipe {chosen.name}: no stage associates across modalities, so that associator, refiners and objectives have no "
            f"place in it; take another one, such as --recipe {BASE}/{chosen.dataset.name}"
        )
    for stage in users:
        if cross is not None:
            stage["associator"] = str(exchanged(Spec.parse(stage["associator"]), cross))
        stage["refiners"] = several(refiners) or stage["refiners"]
        stage["objectives"] = several(objectives) or stage["objectives"]
    extra: list[tuple[str, Any]] = [("dataset.root", root)] if root else []
    extra += [("network.weights", weights)] if weights else []
    extra += [("seed", seed)] if seed is not None else []
    extra += [("oracle", True)] if oracle else []
    extra += [("on_nan", on_nan)] if on_nan else []
    extra += [("as_gpus", as_gpus)] if as_gpus is not None else []
    return override(override(parse_recipe(data, chosen.name), named), extra, said="")


def pairs_of(changes: Any) -> list[tuple[str, Any]]:
    """Changes as paths and values; RecipeError if they are something else, such as the text of the command line."""
    pairs = list(changes.items()) if isinstance(changes, Mapping) else several(changes)
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise RecipeError(f"changes: expected paths with values, as in {{'clusterer.eps': 0.5}}, got {pair!r}")
    return [(path, value) for path, value in pairs]


def text_of(part: Any) -> Any:
    """A plug-in object as its spec, registered if it isn't yet; a path as text; text and None as they are."""
    if part is None or isinstance(part, str):
        return part
    return os.fspath(part) if isinstance(part, os.PathLike) else str(registry.spec_of(part))


def method_of(cross: Spec) -> str:
    """The name under which recipes of an associator's method ship."""
    return getattr(registry.get("associators", cross.name, outlined=True), "recipe", "") or cross.name


def default_recipe(method: str, dataset: str) -> str:
    shipped = shipped_recipes()
    for name in (f"{method}/{dataset}", f"{BASE}/{dataset}", f"{method}/{BASE_DATASET}"):
        if name in shipped:
            return name
    registry.find("datasets", dataset, outlined=True)  # an unknown name ends here, with the nearest one
    return f"{BASE}/{BASE_DATASET}"
