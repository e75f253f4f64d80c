"""Read recipes from YAML: shipped ones by name, others from files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    ValidationError,
)

from reidassoc.errors import RecipeError, SpecError, nearest_file, nearest_name
from reidassoc.recipe.extends import extended, members
from reidassoc.recipe.model import Augmentation, Optimiser, Recipe, Stage
from reidassoc.recipe.validation_messages import first_fault, in_words, unknown_key
from reidassoc.recipe.yaml_reader import read_yaml
from reidassoc.registry.entry_points import installed

if TYPE_CHECKING:
    from importlib.abc import Traversable  # moved to importlib.resources.abc in Python 3.11


RECIPE_GROUP = "reidassoc.recipes"


def parse_recipe(data: Any, where: str, told: Callable[[str], str] = lambda place: "") -> Recipe:
    """Check a mapping as read from YAML; RecipeError names the first fault.

    Args:
        where: what is read, for the error.
        told: by whose words a value came to its place, such as ``--set cross.epochs=-3``; empty where it stands in ``where``.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected a mapping with the keys {', '.join(Recipe.model_fields)}")
    try:
        return Recipe.model_validate(dict(data))
    except ValidationError as error:
        fault = first_fault(error)
        place = ".".join(steps_of(fault["loc"], data))
        if fault["type"] == "extra_forbidden":
            known = {name for model in (Recipe, Stage, Optimiser, Augmentation) for name in model.model_fields}
            raise RecipeError(f"{where}: {unknown_key(fault['loc'][-1], place, known)}") from None
        said = told(place)
        raise RecipeError(in_words(fault, said) if said else f"{where}: {in_words(fault, place)}") from None
    except SpecError as error:
        raise RecipeError(f"{where}: {error}") from None


def steps_of(place: Sequence[str | int], data: Mapping[str, Any]) -> list[str]:
    """A place in a recipe as one writes it: a stage goes by its name, not its number."""
    steps = [str(step) for step in place]
    if len(place) > 1 and place[0] == "stages" and isinstance(place[1], int):
        stage = data["stages"][place[1]]
        steps[1] = str(stage["name"]) if isinstance(stage, Mapping) and stage.get("name") else steps[1]
    return steps


def load_recipe(name: str) -> Recipe:
    """Load a recipe that ships under a name such as ``mult/synthetic``, or from a YAML file.

    Raises:
        RecipeError: there is none, or it does not hold what a recipe must.
    """
    data = read(name)
    if isinstance(data, Mapping) and "extends" in data:
        parent, data = parent_of(name, data)
        data = extended(read(parent), data, where=name, of=parent)
    return parse_recipe(data, name)


def parent_of(name: str, data: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The recipe that another one extends, and the latter with its name if it is of a family."""
    parent = data["extends"]
    if isinstance(parent, list) and name in (family := members(name.partition("/")[0], parent)):
        return family[name], {**data, "name": name}
    if not isinstance(parent, str):
        raise RecipeError(f"{name}: extends must be one recipe's name or file, such as mult/synthetic, got {parent!r}")
    if is_file(parent) and is_file(name):  # beside the file that names it
        parent = str(Path(name).expanduser().parent / Path(parent).expanduser())
    return parent, data


def is_file(name: str) -> bool:
    return Path(name).suffix in {".yaml", ".yml"}


def read(name: str) -> Any:
    """What the YAML of a recipe says; RecipeError if there is none."""
    path = Path(name).expanduser()
    if is_file(name):
        if not path.is_file():
            meant = nearest_file(path, ".yaml", ".yml")
            raise RecipeError(f"no recipe file {path}{meant}; shipped recipes: {', '.join(shipped_recipes())}")
        text = path.read_text(encoding="utf-8", errors="replace")
    else:
        shipped = shipped_recipes()
        if name not in shipped:
            if family := [other for other in shipped if other.startswith(f"{name}/")]:
                raise RecipeError(f"no recipe '{name}'; there are: {', '.join(family)}")
            listed = ", ".join(shipped)
            raise RecipeError(
                f"no recipe '{name}'{nearest_name(name, shipped)}; shipped: {listed}; or name a .yaml file"
            )
        text = shipped[name].read_text(encoding="utf-8")
    return read_yaml(text, name)


def shipped_recipes() -> dict[str, Traversable]:
    """All recipes that installed packages ship, as ``method/dataset``; a family's file stands for several.

    A package whose recipes can't be listed is left out, with a warning.
    """
    families: dict[str, Traversable] = {}
    found: dict[str, Traversable] = {}
    for point in sorted(installed(RECIPE_GROUP), key=lambda point: point.name, reverse=True):
        try:
            folders = list(files(point.value).iterdir())
        except Exception as error:  # a stranger's package may fail in any way; it breaks only itself
            warnings.warn(
                f"the recipes of {point.value} can't be listed: {type(error).__name__}: {error}", stacklevel=2
            )
            continue
        for folder in folders:
            if folder.name.endswith(".yaml"):
                families |= dict.fromkeys(members(folder.name.removesuffix(".yaml"), parents_in(folder)), folder)
            elif folder.is_dir():
                for file in folder.iterdir():
                    if file.name.endswith(".yaml"):
                        found[f"{folder.name}/{file.name.removesuffix('.yaml')}"] = file
    return dict(sorted({**families, **found}.items()))


def parents_in(file: Traversable) -> list[str]:
    """The recipes that a family extends; none if the file is no family: a stranger's package breaks only itself."""
    try:
        data = read_yaml(file.read_text(encoding="utf-8"), file.name)
    except (RecipeError, ValueError):
        return []
    parents = data.get("extends") if isinstance(data, Mapping) else None
    return [str(parent) for parent in parents] if isinstance(parents, list) else []
