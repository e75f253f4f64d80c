"""A run from Python: by a method's name, by an object, or by a whole recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from reidassoc.engine.train import run as train
from reidassoc.errors import RecipeError
from reidassoc.interfaces.plugins import Associator, Clusterer, Dataset, Network, Objective, Refiner
from reidassoc.recipe.choose import BASE, choose, text_of
from reidassoc.recipe.model import Recipe
from reidassoc.registry.options import checked
from reidassoc.registry.spec import plain, several
from reidassoc.runs.folder import KEPT, RunFolder
from reidassoc.runs.observer import Everyone, Observer
from reidassoc.runs.result import Result


def run(
    method: str | Path | Recipe | Associator = BASE,
    *,
    dataset: str | Dataset | None = None,
    clusterer: str | Clusterer | None = None,
    refiners: str | Refiner | Sequence[str | Refiner] = (),
    objectives: str | Objective | Sequence[str | Objective] = (),
    network: str | Network | None = None,
    changes: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    root: str | Path | None = None,
    weights: str | None = None,
    seed: int | None = None,
    oracle: bool = False,
    on_nan: str | None = None,
    as_gpus: int | None = None,
    out: str | Path | None = None,
    device: str | torch.device = "auto",
    devices: int = 1,
    resume: bool = False,
    keep: int = KEPT,
    pictures: bool = True,
    log: Observer | Sequence[Observer] | None = None,
) -> Result:
    """Train, evaluate, and return the result; what ``reidassoc run`` does.

    Args:
        method: an associator, as a spec such as ``"mult(alpha=0.3)"`` or an object of your own; or a recipe, as its name
            (``"mult/sysu_mm01"``), its YAML file, or an object, for instance from :func:`reidassoc.choose`.
        dataset: a spec such as ``"synthetic(size='tiny')"``, or an object; the recipe's if not given.
        clusterer: likewise a spec or an object; so are the refiners, the objectives and the network. Of a dataset, clusterer,
            network or associator that is the recipe's own, options that you leave at their defaults keep the recipe's values;
            another clusterer keeps its ``k1`` and ``k2``.
        refiners: one or several, in the place of the recipe's; objectives likewise.
        changes: paths and values as in ``--set``, such as ``{"cross.epochs": 5}``.
        root: the folder of a dataset that is kept on disk; of a resumed run, if it isn't where it was.
        weights: of the network at the start: ``imagenet``, ``none`` or a file.
        seed: everything random follows from it.
        oracle: let clusterer and associator see true identities, if they need them; flagged in the result.
        on_nan: what to do about a step whose loss is not finite: ``stop`` or ``skip``; the recipe's if not given.
        as_gpus: GPUs whose ``DataParallel`` batch norm is imitated; the recipe's if not given.
        out: the run folder; ``runs/METHOD-DATASET-NUMBER`` if not given, with the plug-ins that are not the recipe's
            (``runs/mult-synthetic-nearest-1``).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; or torch's object.
        devices: of this machine; more than one need a process each, see :func:`reidassoc.engine.train.run`.
        resume: go on with the run in ``out``; needs no method.
        keep: number of checkpoints to keep, the newest ones.
        pictures: whether the run folder keeps thumbnails of the dataset's images for reports. Agreements of datasets of real
            people restrict passing images on.
        log: who is told how the run goes on, one or several; nobody if not given.

    Raises:
        ReidassocError: something is wrong with the names, the data, the device or the folder; the message says what.

    Examples:
        >>> import reidassoc as ra
        >>> result = ra.run("mult", dataset="synthetic")  # doctest: +SKIP
        >>> print(result.protocols["all-search single-shot"]["mAP"]["mean"])  # doctest: +SKIP
    """
    keep = checked(plain(keep), Annotated[int, Field(ge=1)], "keep")
    everyone = Everyone(observers(log))
    names = {
        "dataset": text_of(dataset),
        "clusterer": text_of(clusterer),
        "refiners": [text_of(refiner) for refiner in several(refiners)],
        "objectives": [text_of(objective) for objective in several(objectives)],
        "network": text_of(network),
        "changes": changes,
        "root": None if root is None else str(root),
        "weights": weights,
        "seed": seed,
        "oracle": oracle,
        "on_nan": on_nan,
        "as_gpus": as_gpus,
    }
    given = [
        name for name, value in names.items() if value is not None and value is not False and (name == "seed" or value)
    ]
    if resume:
        if out is None:
            raise RecipeError("resume needs the run folder, as in out='runs/mult-synthetic-1'")
        if set(given) - {"root"} or not (isinstance(method, Recipe) or text_of(method) == BASE):
            raise RecipeError(
                "resume goes on with the recipe of the run folder: give out=…, and nothing that changes it"
            )
        recipe = method if isinstance(method, Recipe) else RunFolder.open(Path(out)).located_recipe(root)
    elif isinstance(method, Recipe):
        if given:
            raise RecipeError(
                f"a recipe object says everything; leave out {', '.join(given)}, or give them to choose(…)"
            )
        recipe = method
    else:
        text = text_of(method)
        if not text:
            raise RecipeError(
                f"expected a method, such as 'mult', or a recipe, such as 'mult/synthetic', got {text!r}; leave it out for mult"
            )
        whole = "/" in text.partition("(")[0] or text.endswith((".yaml", ".yml"))
        recipe = choose(**{"recipe" if whole else "associator": text}, **names)
    try:
        return train(
            recipe, out=out, device=device, devices=devices, resume=resume, keep=keep, pictures=pictures, log=everyone
        )
    finally:
        everyone.close()


def observers(log: Observer | Sequence[Observer] | None) -> list[Observer]:
    """Who is told how a run goes on; RecipeError if something among it can't be, before any work."""
    given, methods = several(log), [name for name in vars(Observer) if not name.startswith("_")]
    for one in given:
        if isinstance(one, type) or not all(callable(getattr(one, name, None)) for name in methods):
            what = getattr(one, "__name__", type(one).__name__)
            raise RecipeError(f"log: expected an object of a subclass of reidassoc.runs.observer.Observer, got {what}")
    return given
