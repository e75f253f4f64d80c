"""The line that data follows, from features to targets: cluster, associate, refine."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from reidassoc.errors import DataError, PluginError, RecipeError, ReidassocError
from reidassoc.interfaces.banks import Bank, Banks
from reidassoc.interfaces.checks import refuse_association, refuse_banks, refuse_clustering, refuse_targets
from reidassoc.interfaces.plugins import Associator, Clusterer, Refiner
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.precision import broken_rows
from reidassoc.ops.unit_rows import rows_off_unit, zero_rows
from reidassoc.recipe.compose import Method
from reidassoc.recipe.requirements import needs
from reidassoc.registry.entry import name_of
from reidassoc.types import Association, Clustering, Features, Pair, Targets

T = TypeVar("T")


def check_features(features: Pair[Features]) -> None:
    """Refuse what no method can work on.

    Raises:
        DataError: NaN or infinite values, rows that are zero or not of length 1, or two widths.
    """
    if features.visible.width != features.infrared.width:
        raise DataError(f"visible features are {features.visible.width} wide, infrared ones {features.infrared.width}")
    for modality, name in ((features.visible, "visible"), (features.infrared, "infrared")):
        if where := broken_rows(modality.x):
            raise DataError(f"the {name} features have {where}: the network has diverged, or the file is damaged")
        if where := zero_rows(modality.x):
            raise DataError(f"the {name} features have {where}: such a row has no direction to compare; leave it out")
        if where := rows_off_unit(modality.x):
            raise DataError(
                f"the {name} features have {where}, and must have unit rows: torch.nn.functional.normalize(x, dim=1)"
            )


def cluster(
    clusterer: Clusterer,
    features: Pair[Features],
    *,
    epoch: int = 0,
    seed: int = 0,
    previous: Clustering | None = None,
    identity: Pair[Tensor] | None = None,
) -> Clustering:
    """Run a clusterer on checked features, check what it returns, and note its k1 and k2 for the scene's affinity."""
    check_features(features)
    call = informed(clusterer, clusterer, identity)
    answer = guarded("clusterer", clusterer, lambda: call(features, epoch=epoch, seed=seed, previous=previous))
    accepted("clusterer", clusterer, lambda: refuse_clustering(answer, features))
    return with_affinity_of(clusterer, answer)


def with_affinity_of(clusterer: Clusterer, clustering: Clustering) -> Clustering:
    """The clustering with the clusterer's ``k1`` and ``k2``, where it has such attributes and the clustering has none."""
    sizes: dict[str, Any] = {
        name: int(size)
        for name in ("k1", "k2")
        if getattr(clustering, name) is None and isinstance(size := getattr(clusterer, name, None), Integral)
    }
    return replace(clustering, **sizes)


def associate(associator: Associator, scene: Scene, identity: Pair[Tensor] | None = None) -> Association:
    """Run an associator on checked features, and look its answer over."""
    check_features(scene.features)
    call = informed(associator, associator, identity)
    answer = guarded("associator", associator, lambda: call(scene))
    accepted("associator", associator, lambda: refuse_association(answer, scene))
    return answer


def informed(part: object, call: Callable[..., T], identity: Pair[Tensor] | None) -> Callable[..., T]:
    """The call of a plug-in: true identities reach it only if it declares that it needs them, and they are given.

    Raises:
        RecipeError: it needs them, and there are none.
    """
    if "identity" not in needs(part):
        return call
    if identity is None:
        raise RecipeError(f"{name_of(type(part))} needs true identities, and there are none")
    return partial(call, identity=identity)


def target(method: Method, scene: Scene, *, identity: Pair[Tensor] | None = None) -> Targets:
    """Associate, if the stage does, and refine: the targets of an epoch."""
    association = associate(method.associator, scene, identity) if method.associator is not None else None
    refiners = [weighted.part for weighted in method.refiners]
    return refine(refiners, scene, Targets.compose(scene.clustering, association))


def refine(refiners: Sequence[Refiner], scene: Scene, targets: Targets) -> Targets:
    """Run the refiners in order, and look each one's answer over."""
    for refiner in refiners:
        before, refined = targets, guarded("refiner", refiner, partial(refiner.refine, scene, targets))
        accepted("refiner", refiner, partial(refuse_targets, refined, before, scene))
        targets = refined
    return targets


def declare(method: Method, scene: Scene, targets: Targets) -> Banks:
    """Make the banks that a stage's objectives and refiners declare for an epoch, and look each declaration over."""
    declared: list[Bank] = []
    for weighted in (*method.objectives, *method.refiners):
        part, kind = weighted.part, weighted.part.kind.removesuffix("s")
        found = guarded(kind, part, partial(part.banks, scene, targets))
        accepted(kind, part, partial(refuse_banks, found, scene, targets))
        declared += found
    return Banks.rebuild(declared)


def guarded(kind: str, part: object, call: Callable[[], T]) -> T:
    """Run a plug-in; say which one it was if it fails."""
    try:
        return call()
    except (ReidassocError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = f"{kind} {name_of(type(part))} failed: {type(error).__name__}: {error}"
        raise PluginError(text + place_of(error, part)) from error


def accepted(kind: str, part: object, refuse: Callable[[], None]) -> None:
    """Raise PluginError with the plug-in's name where its answer is refused."""
    try:
        refuse()
    except ValueError as error:
        name = name_of(type(part))
        raise PluginError(f"{kind} {name}: {error}; reidassoc check explains it on the smallest scene") from None


def place_of(error: Exception, part: object) -> str:
    """`` (my_idea.py, line 12)``: the deepest line of the plug-in's own file that an error came through."""
    try:
        file = inspect.getsourcefile(type(part))
    except TypeError:  # made by hand
        return ""
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}, line {own[-1]})" if file and own else ""
