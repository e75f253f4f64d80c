"""Reproduction of a published figure: run the shipped recipe, set the result beside it, and name what differs on a miss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import reidassoc.registry as registry
from reidassoc.engine.train import run
from reidassoc.errors import DataError, RecipeError
from reidassoc.evaluation.figures import mean_of
from reidassoc.evaluation.statistics import Estimate, estimate, interval
from reidassoc.recipe.code_version import named_sources
from reidassoc.recipe.configuration import configuration
from reidassoc.recipe.load import load_recipe, shipped_recipes
from reidassoc.recipe.model import Recipe
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.tables.paired_tests import matrix
from reidassoc.tables.published import Published, content, published
from reidassoc.tables.read import Outcome, read_run

SHOWN = ("rank1", "mAP", "mINP")


@dataclass(frozen=True)
class Verdict:
    """One protocol's published figures beside ours.

    Args:
        protocol: its name.
        published: the row as printed.
        ours: estimate over our runs by metric, last epoch.
        interval: of our mAP, 95 %, over seeds and people.
        best: our best epoch's mAP on the test set, an oracle.
    """

    protocol: str
    published: Published
    ours: Mapping[str, Estimate]
    interval: tuple[float, float]
    best: float

    @property
    def reached(self) -> bool:
        """Whether the published mAP lies within our interval, or below it."""
        return self.interval[1] >= self.published.figures["mAP"]

    @property
    def text(self) -> str:
        target, ours = self.published.figures["mAP"], self.ours["mAP"].mean
        if self.reached:
            return "above the published figure" if self.interval[0] > target else "reproduced"
        missed = f"missed by {target - ours:.1f} mAP"
        if self.published.best_on_test and self.best >= target:
            return f"{missed}; the best epoch, which is what was published, reaches it"
        return missed


@dataclass(frozen=True)
class Reproduction:
    """The verdict of every protocol, and how our runs deviate from the published ones."""

    recipe: str
    verdicts: tuple[Verdict, ...]
    deviations: tuple[str, ...]


def targets(recipe: Recipe) -> dict[str, Published]:
    """The published row of a recipe's method under each protocol of its dataset.

    Raises:
        RecipeError: nothing is published of it there, as far as we know.
    """
    method = recipe.name.partition("/")[0].partition("_")[0]
    dataset = recipe.dataset.name
    rows = {p["protocol"]: published(dataset, p["protocol"]) for p in content()["protocols"].values()}
    found = {protocol: row for protocol, known in rows.items() for row in known if plain(row.name) == plain(method)}
    if not found:
        names = sorted({row.name for known in rows.values() for row in known})
        there = f"known there: {', '.join(names)}" if names else "no method is"
        raise RecipeError(f"no published figure of {method.upper()} on {dataset} is known; {there}")
    return found


def plain(method: str) -> str:
    """A method's name as a recipe's has it.

    >>> plain("N-ULC")
    'nulc'
    """
    return method.replace("-", "").lower()


def judged(known: Mapping[str, Published], recipe: Recipe) -> dict[str, Published]:
    """The published rows under the protocols that the dataset has, with its options; RecipeError if it has none of them."""
    trials = registry.build("datasets", recipe.dataset).trials()
    held = dict.fromkeys(trial.protocol for trial in trials)
    found = {protocol: row for protocol, row in known.items() if protocol in held}
    if not found:
        raise RecipeError(
            f"{recipe.dataset} has the protocols {', '.join(held)}; published figures are of {', '.join(known)}"
        )
    return found


def reproduce(
    recipe: Recipe,
    *,
    out: str | Path,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "auto",
    log: Callable[[], Observer] = Observer,
) -> Reproduction:
    """Run a recipe once per seed, going on where it was stopped, and judge the result.

    Args:
        recipe: a shipped one, with its dataset's root; changes to it are named as deviations.
        out: folder of the runs, ``seed-N`` each; one that holds a result of this recipe is not run again.
        seeds: of the runs; a seed named twice is run once.
        device: as for ``run``.
        log: makes the log of each run.

    Raises:
        ReidassocError: nothing is published of the method under the dataset's protocols, a folder holds another recipe's
            run, or a run fails.
    """
    known = judged(targets(recipe), recipe)
    outcomes = []
    for seed in dict.fromkeys(seeds):
        wanted, folder = recipe.model_copy(update={"seed": seed}), RunFolder(Path(out) / f"seed-{seed}")
        if not (folder.path / "result.json").is_file():
            begun = (folder.path / "recipe.yaml").is_file()
            told = log()
            try:
                run(wanted, out=folder.path, device=device, resume=begun, log=told)
            finally:
                told.close()
        outcomes.append(read_run(folder.path))
        if not is_of(outcomes[-1], wanted):
            raise RecipeError(f"{folder.path} holds the result of another recipe; choose another --out, or delete it")
    verdicts = tuple(judge(protocol, row, outcomes) for protocol, row in known.items())
    return Reproduction(recipe.name, verdicts, tuple(deviations(recipe, outcomes, next(iter(known.values())))))


def is_of(outcome: Outcome, recipe: Recipe) -> bool:
    """Whether a run is of a recipe, its seed and its files of plug-ins, wherever the data lie."""
    held = outcome.data.get("configuration"), outcome.data.get("files"), outcome.seed
    return held == (configuration(recipe), named_sources(recipe), recipe.seed)


def judge(protocol: str, row: Published, outcomes: Sequence[Outcome]) -> Verdict:
    figures = [outcome.data["protocols"][protocol] for outcome in outcomes]
    if unmatched := [o.origin for o, figure in zip(outcomes, figures, strict=True) if figure["mAP"]["mean"] is None]:
        raise DataError(
            f"{unmatched[0]} has no figure under {protocol}: no query has a match in the gallery; check the data"
        )
    ours = {metric: estimate([mean_of(figure[metric]) for figure in figures]) for metric in SHOWN}
    best = estimate([mean_of(outcome.data["best_epoch_oracle"][protocol]["mAP"]) for outcome in outcomes]).mean
    stacked = matrix(outcomes, protocol)
    if stacked:
        low, high = interval(*stacked)
        return Verdict(protocol, row, ours, (100 * low, 100 * high), best)
    ends = (ours["mAP"].low, ours["mAP"].high) if len(outcomes) > 1 else (ours["mAP"].mean, ours["mAP"].mean)
    return Verdict(protocol, row, ours, ends, best)


def deviations(recipe: Recipe, outcomes: Sequence[Outcome], row: Published) -> list[str]:
    """In what our runs are known to differ from the published ones."""
    found = []
    first = outcomes[0].data
    groups = first.get("setting", {}).get("batch_norm_groups", 1)
    if groups != recipe.batch_norm_gpus:
        found.append(f"batch-norm statistics of {groups} group(s); published with {recipe.batch_norm_gpus} GPUs")
    found += [f"data: {note}" for note in registry.build("datasets", recipe.dataset).notes()]
    found += changes(recipe)
    for outcome in outcomes:
        found += [f"seed {outcome.seed}: {count} {name}" for name, count in outcome.data["counts"].items()]
    if row.best_on_test:
        found.append("published: the epoch that is best on the test set; ours: the last")
    found.append(f"published: mean of {row.over}; ours: {len(outcomes)} seed(s)")
    if not row.verified:
        found.append(f"the published figure is unverified: {row.source}")
    if recipe.precision != "32-true":
        found.append(f"precision {recipe.precision}")
    environment = first["environment"]
    found.append(f"torch {environment['torch']} on {environment['device']}; published versions and devices differ")
    return found


def changes(recipe: Recipe) -> list[str]:
    """Keys in which a recipe differs from the shipped one of its name."""
    if recipe.name not in shipped_recipes():
        return [f"{recipe.name} is no shipped recipe"]
    ours, theirs = (flat(r.model_dump(mode="json")) for r in (recipe, load_recipe(recipe.name)))
    different = [
        key
        for key in {**theirs, **ours}
        if ours.get(key) != theirs.get(key) and key not in ("seed", "dataset", "as_gpus")
    ]
    return [f"{key}: {json.dumps(ours.get(key))} instead of {json.dumps(theirs.get(key))}" for key in different]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys; stages by their names."""
    if isinstance(value, dict):
        return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{prefix}{name}.").items()}
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        return {key: leaf for inner in value for key, leaf in flat(inner, f"{inner['name']}.").items()}
    return {prefix.removesuffix("."): value}
