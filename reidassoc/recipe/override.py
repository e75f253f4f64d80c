"""Change single values of a recipe, as ``--set place=value`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

import reidassoc.registry as registry
from reidassoc.errors import RecipeError, nearest_name
from reidassoc.recipe.load import parse_recipe
from reidassoc.recipe.model import Part, Recipe
from reidassoc.registry.options import options_of
from reidassoc.registry.spec import Spec, plain


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
