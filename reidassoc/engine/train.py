"""A training run, from a recipe to a result: what it starts from, and what it leaves behind."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from lightning_fabric import Fabric

from reidassoc.data.store import ImageStore
from reidassoc.engine import checkpoint
from reidassoc.engine.device import environment, open_device
from reidassoc.engine.epochs import Run
from reidassoc.engine.evaluate import prepare_evaluation
from reidassoc.engine.folder import RunFolder
from reidassoc.engine.log import Observer
from reidassoc.engine.optim import build_optimiser
from reidassoc.engine.replicas import refuse_uneven
from reidassoc.engine.result import Result, summarise
from reidassoc.engine.start import build_network, calibrate, training_images
from reidassoc.errors import RecipeError
from reidassoc.pipeline import Composed, compose
from reidassoc.recipe import Optimiser, Recipe
from reidassoc.types import Pair


def run(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    log: Observer | None = None,
) -> Result:
    """Train by a recipe from its first epoch to its last, or go on with a run that was interrupted.

    Args:
        recipe: what to do; see :func:`reidassoc.overrides.choose` for how names become one.
        out: the run folder; ``runs/<recipe>-<number>`` if not given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on with the run in ``out``, repeating the epoch in which it was interrupted.
        log: where progress is shown; nowhere if not given.

    Returns:
        The result, as ``result.json`` in the run folder holds it.

    Raises:
        ReidassocError: something is wrong with the recipe, the data, the device or the folder; the message says what.

    Example:
        >>> import reidassoc as ra
        >>> result = ra.run(ra.choose(associator="mult", dataset="synthetic(size='tiny')"))  # doctest: +SKIP
    """
    log = log or Observer()
    composed = compose(recipe)
    refuse_uneven(recipe)
    fabric = open_device(device, recipe.precision)
    folder = chosen_folder(out, recipe, resume)
    under_way = prepare(
        composed, fabric, folder, log, resume
    )  # whatever is wrong shows here, before anything is written
    if not resume:
        folder.create(recipe)
        folder.write_json("environment.json", environment(fabric))
        checkpoint.save(folder, under_way.state, recipe.digest)
    log.start(folder.path)
    started = time.perf_counter()
    under_way.epochs()
    result = summarise(
        folder,
        composed,
        environment=environment(fabric),
        counts={**under_way.counts, **skipped_images(under_way.stores)},
        seconds=time.perf_counter() - started,
    )
    folder.write_json("result.json", result.data)
    log.finish(result)
    return result


def chosen_folder(out: str | Path | None, recipe: Recipe, resume: bool) -> RunFolder:
    """The folder of a run: one that exists and fits if it is resumed, else one that is free."""
    if resume:
        if out is None:
            raise RecipeError("resume needs the run folder, as in --resume runs/mult-synthetic-1")
        folder = RunFolder.open(Path(out))
        if folder.recipe.digest != recipe.digest:
            raise RecipeError(
                f"{out} was started with another recipe; resume takes the recipe.yaml of the folder, unchanged"
            )
        return folder
    if out is None:
        number = 1
        while (path := Path("runs") / f"{recipe.name.replace('/', '-')}-{number}").exists():
            number += 1
        return RunFolder(path)
    return RunFolder.free(Path(out))


def prepare(composed: Composed, fabric: Fabric, folder: RunFolder, log: Observer, resume: bool) -> Run:
    """Load images, build the network, and start from scratch or from the newest checkpoint."""
    recipe, dataset = composed.recipe, composed.dataset
    stores, identity = training_images(dataset, recipe, log.once)
    evaluation = prepare_evaluation(dataset, recipe)
    network = build_network(composed.network, recipe, fabric)
    optimiser = build_optimiser(network.parameters(), recipe.stages[0].optimiser or Optimiser())
    state = checkpoint.State(network, optimiser, counts={})
    if resume:
        data = checkpoint.newest(folder, fabric.device)
        stage, _ = recipe.stage_at(max(data["epoch"] - 1, 0))
        run_so_far = Run(composed, fabric, folder, stores, identity, evaluation, state, Counter(), log)
        state.optimiser = build_optimiser(network.parameters(), run_so_far.optimiser_settings(stage))
        checkpoint.restore(state, data, recipe.digest)
        folder.forget_from(state.epoch)
        log.once(f"going on with epoch {state.epoch} of {recipe.epochs}")
    else:
        calibrate(network, stores, fabric, recipe)
    return Run(composed, fabric, folder, stores, identity, evaluation, state, Counter(state.counts), log)


def skipped_images(stores: Pair[ImageStore]) -> dict[str, int]:
    return {"unreadable training images": bad} if (bad := sum(len(store.bad) for store in stores)) else {}
