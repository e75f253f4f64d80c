"""What makes two runs runs of one method: all of a recipe that decides figures, seed and place of the data apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING
from hashlib import sha256
from typing import Any

import reidassoc.registry as registry
from reidassoc.errors import ReidassocError
from reidassoc.recipe.code_version import code
from reidassoc.recipe.model import Part, Recipe
from reidassoc.registry.options import defaults_of
from reidassoc.registry.spec import Spec

ASIDE = {
    "name",
    "reference",
    "seed",
    "oracle",
    "batch_norm_gpus",
}  # decide no figure, or differ between runs of one method
PLUGINS = {"dataset", "network", "clusterer", "stages"}
STAGE_PLUGINS = {"name", "associator", "refiners", "objectives"}
PLACE = (
    "root",
    "split",
)  # of a dataset: where it lies; and RegDB's split, over which figures are averaged as over seeds
Content = dict[str, Any]


def configuration(recipe: Recipe) -> Content:
    """Every setting by its path, as JSON has it; options that are not named have their defaults.

    >>> from reidassoc.recipe import load_recipe
    >>> found = configuration(load_recipe("mult/synthetic"))
    >>> found["clusterer"], found["clusterer.eps"], found["cross.associator"]
    ('dbscan', 0.6, 'mult')
    """
    found = of_spec("dataset", "datasets", recipe.dataset.without_roots().without(*PLACE))
    found = {key: value for key, value in found.items() if key.rpartition(".")[2] not in PLACE}
    found |= of_spec("network", "networks", recipe.network) | of_spec("clusterer", "clusterers", recipe.clusterer)
    found |= recipe.model_dump(mode="json", exclude={*ASIDE, *PLUGINS})
    found["stages"] = ", ".join(stage.name for stage in recipe.stages)
    for stage in recipe.stages:
        own = {} if stage.associator is None else of_spec("associator", "associators", stage.associator)
        own |= of_parts("refiner", "refiners", stage.refiners) | of_parts("objective", "objectives", stage.objectives)
        settings = stage.model_dump(mode="json", exclude=STAGE_PLUGINS)
        found |= {f"{stage.name}.{key}": value for key, value in {"associator": None, **own, **flat(settings)}.items()}
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def method_digest(recipe: Recipe) -> str:
    """A short hash of the configuration and of the files of plug-ins: equal for runs of one method."""
    text = json.dumps(configuration(recipe), sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16] + code(recipe)


def of_spec(path: str, kind: str, spec: Spec) -> Content:
    """A plug-in's name and all its options."""
    try:
        options = {**defaults_of(registry.get(kind, spec.name)), **spec.options}
    except ReidassocError:  # it is not here
        options = dict(spec.options)
    return {path: spec.name, **{f"{path}.{key}": value for key, value in options.items() if value is not MISSING}}


def of_parts(path: str, kind: str, parts: Sequence[Part]) -> Content:
    """The names of some parts, and the weight and options of each; the second of one name has a number."""
    found: Content = {path: " + ".join(part.use.name for part in parts) or None}
    seen: Counter[str] = Counter()
    for part in parts:
        name = part.use.name
        seen[name] += 1
        place = f"{path}.{name}" + (f" {seen[name]}" if seen[name] > 1 else "")
        found |= {f"{place}.weight": part.weight, **of_spec(place, kind, part.use)}
    return found


def flat(settings: Content, path: str = "") -> Content:
    """Nested settings by their paths; that of a group says whether it is there."""
    found: Content = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= {f"{path}{key}": "own", **flat(value, f"{path}{key}.")}
        else:
            found[f"{path}{key}"] = value
    return found
