"""How a recipe says only what it changes in another one.

``extends: mult/synthetic`` takes everything of that recipe but its ``name`` and ``reference``. A mapping changes the keys
that it names; anything else, lists included, replaces. ``stages`` may be a mapping, too: of the other recipe's stages by
their names. One level: a recipe that extends can't be extended. What is stored and hashed is the whole recipe.

A shipped file ``pgm.yaml`` with a *list* of recipes to extend is a family: ``mult/synthetic`` in it makes ``pgm/synthetic``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reidassoc.errors import RecipeError, nearest_name

NOT_INHERITED = ("name", "reference", "extends")


def members(family: str, parents: Sequence[str]) -> dict[str, str]:
    """The recipes of a family, each with the one that it extends.

    >>> members("pgm", ["adca/regdb", "mult/synthetic"])
    {'pgm/regdb': 'adca/regdb', 'pgm/synthetic': 'mult/synthetic'}
    """
    return {f"{family}/{parent.rpartition('/')[2]}": parent for parent in parents}


def extended(parent: Any, child: Mapping[str, Any], *, where: str, of: str) -> dict[str, Any]:
    """The recipe ``of`` with the changes of ``where``, both as read from YAML.

    Raises:
        RecipeError: the parent is no recipe or extends another one, or a stage is not one of the parent's.
    """
    if not isinstance(parent, Mapping) or "extends" in parent or not isinstance(parent.get("stages"), list):
        raise RecipeError(
            f"{where}: extends {of}, which is no whole recipe (one that extends can't be extended); "
            "extend one that says everything, such as mult/synthetic"
        )
    base = {key: value for key, value in parent.items() if key not in NOT_INHERITED}
    own = {key: value for key, value in child.items() if key != "extends"}
    if isinstance(own.get("stages"), Mapping):
        own["stages"] = changed_stages(base["stages"], own["stages"], where)
    return merged(base, own)


def changed_stages(stages: Sequence[Any], changes: Mapping[Any, Any], where: str) -> list[Any]:
    names = [str(stage.get("name")) if isinstance(stage, Mapping) else "" for stage in stages]
    for name in changes:
        if name not in names:
            hint = nearest_name(str(name), names)
            raise RecipeError(f"{where}: no stage '{name}' to change{hint}; there are: {', '.join(names)}")
        if not isinstance(changes[name], Mapping):
            raise RecipeError(f"{where}: stages.{name} must be a mapping of the keys to change")
    return [
        merged(stage, changes[name]) if name in changes else stage for name, stage in zip(names, stages, strict=True)
    ]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; whatever else replaces.

    >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
    {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result
