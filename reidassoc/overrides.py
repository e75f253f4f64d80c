"""How names on a command line become a recipe: the one that ships under a name, with parts exchanged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

import reidassoc.registry as registry
from reidassoc.affinity import exchanged, in_place_of
from reidassoc.errors import RecipeError, nearest_name
from reidassoc.options import options_of
from reidassoc.recipe import Part, Recipe, load_recipe, parse_recipe, shipped_recipes
from reidassoc.spec import Spec, plain, several

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


def override(recipe: Recipe, changes: Sequence[tuple[str, Any]], *, said: str = "--set ") -> Recipe:
    """Apply ``--set path=value`` changes in order.

    A path is ``clusterer.eps``, ``associator.alpha`` (every stage that has one), ``refiner.oclr.sharpening``,
    ``objective.amirl.…``, ``network.depth``, ``dataset.size``, ``cross.epochs`` (a stage by its name, deeper with further
    dots) or a key of the recipe such as ``seed``.

    Args:
        said: what stands before a path where a change is quoted in an error.
    """
    data = recipe.model_dump(mode="json")
    for path, value in changes:
        apply_change(data, path, plain(value))
    return parse_recipe(data, "recipe with --set", told=lambda place: quoted_change(place, changes, said))


def quoted_change(place: str, changes: Sequence[tuple[str, Any]], said: str) -> str:
    """The change by which a value came to its place in a recipe, as one typed it; the last one counts."""
    place = place.removeprefix("stages.")
    made = [f"{said}{path}={value}" for path, value in changes if place == path or place.startswith(f"{path}.")]
    return made[-1] if made else ""


def apply_change(data: dict[str, Any], path: str, value: Any) -> None:
    head, _, rest = path.partition(".")
    stages = {stage["name"]: stage for stage in data["stages"]}
    if head in {"clusterer", "network", "dataset"} and rest:
        data[head] = changed(data[head], rest, value)
    elif head == "associator" and rest:
        users = [stage for stage in stages.values() if stage["associator"]]
        if not users:
            raise RecipeError(f"--set {path}: no stage of the recipe has an associator")
        for stage in users:
            stage["associator"] = changed(stage["associator"], rest, value)
    elif head in {"refiner", "objective"} and rest:
        name, _, option = rest.partition(".")
        change_parts(stages, f"{head}s", name, option, value, path)
    elif head in stages and rest:
        change_key(stages[head], rest, value, path)
    elif head in data and head != "stages":
        change_key(data, path, value, path)
    elif head == "stages":
        raise RecipeError(
            f"--set {path}: name the stage itself, as in {next(iter(stages))}.epochs; there are: {', '.join(stages)}"
        )
    else:
        known = ["clusterer", "associator", "refiner", "objective", "network", "dataset", *stages, *data]
        known = [key for key in dict.fromkeys(known) if key != "stages"]
        meant = f"; did you mean {' or '.join(found)}?" if (found := places(data, path)) else nearest_name(head, known)
        raise RecipeError(f"--set {path}: no '{head}' in the recipe{meant}; there are: {', '.join(known)}")


def places(data: Mapping[str, Any], key: str) -> list[str]:
    """Where a recipe has a key: the paths that end in it, by options of plug-ins and keys of stages."""
    used = {kind: (f"{kind}s", data[kind]) for kind in ("clusterer", "network", "dataset")}
    for stage in data["stages"]:
        if stage["associator"]:
            used["associator"] = "associators", stage["associator"]
        for kind in ("refiner", "objective"):
            for part in stage[f"{kind}s"]:
                use = Part.model_validate(Part.parse(part)).use
                used[f"{kind}.{use.name}"] = f"{kind}s", str(use)
    found = [
        path
        for path, (kind, text) in used.items()
        if any(option.name == key for option in options_of(registry.get(kind, Spec.parse(text).name, outlined=True)))
    ]
    stages = [stage["name"] for stage in data["stages"] if key in stage and key != "name"]
    return [f"{path}.{key}" for path in [*found, *stages]]


def changed(text: str, option: str, value: Any) -> str:
    return str(Spec.parse(text).with_options(**{option: value}))


def change_parts(stages: Mapping[str, Any], kind: str, name: str, option: str, value: Any, path: str) -> None:
    hit, seen = False, set()
    for stage in stages.values():
        parts = [Part.model_validate(Part.parse(part)) for part in stage[kind]]
        seen |= {part.use.name for part in parts}
        for number, part in enumerate(parts):
            if part.use.name == name and option:
                hit = True
                stage[kind][number] = str(changed_part(part, option, value, path))
    if not hit:
        raise RecipeError(
            f"--set {path}: expected {kind.removesuffix('s')}.NAME.OPTION with NAME one of: {', '.join(sorted(seen))}"
        )


def changed_part(part: Part, option: str, value: Any, path: str) -> Part:
    if option != "weight":
        return Part(use=part.use.with_options(**{option: value}), weight=part.weight)
    try:
        return Part(use=part.use, weight=value)
    except ValidationError:
        raise RecipeError(f"--set {path}: expected a finite number from 0, got {value!r}") from None


def change_key(data: dict[str, Any], path: str, value: Any, whole: str) -> None:
    *outer, last = path.split(".")
    for key in outer:
        if data.get(key) is None and key == "optimiser":
            data[key] = {}
        data = data.get(key)  # type: ignore[assignment]
        if not isinstance(data, dict):
            raise RecipeError(f"--set {whole}: '{key}' holds nothing to set '{last}' in")
    if last not in data and "learning_rate" not in data and data:
        raise RecipeError(f"--set {whole}: no key '{last}'{nearest_name(last, data)}; keys: {', '.join(data)}")
    data[last] = value
