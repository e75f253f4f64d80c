"""`unison` against everybody on the same features: settings, seeds and measure are those of benchmarks/unison.yaml.

    python benchmarks/unison.py develop FILES…   # choose every method's setting on development features (seeds 0 to 4)
    python benchmarks/unison.py judge            # once: make the features of the judging seeds, score, write the table
    python benchmarks/unison.py table            # only write the table from what is stored

Choices are stored in benchmarks/results/unison_settings.json, scores in benchmarks/results/unison.json, the table in
docs/unison.md. `develop` takes files of `reidassoc features`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml
from scipy import stats

from reidassoc import Clustering, Clusters, Features, Pair, Recipe, choose, registry, run, save_features
from reidassoc.evaluation.labels import coverage, label_quality
from reidassoc.evaluation.statistics import holm
from reidassoc.files.features import FeatureFile, read_features
from reidassoc.interfaces.scene import Scene
from reidassoc.labs.combinations import Combination, combinations
from reidassoc.labs.result import Row
from reidassoc.ops.prototypes import centroids
from reidassoc.pipeline import associate, cluster, refine
from reidassoc.registry.spec import Spec
from reidassoc.runs.observer import Observer
from reidassoc.types import Modality, Targets

HERE = Path(__file__).parent
SPEC: dict[str, Any] = yaml.safe_load((HERE / "unison.yaml").read_text(encoding="utf-8"))
SETTINGS, RESULT = HERE / "results" / "unison_settings.json", HERE / "results" / "unison.json"
PAGE = HERE.parent / "docs" / "unison.md"
START, END = "<!-- table: benchmarks/unison.py -->", "<!-- end of table -->"
OWN = "unison"
Score = dict[str, float]


def combination(text: str) -> Combination:
    """A setting such as ``mult(alpha=0.4)+agree`` on the spec's clusterer."""
    associator, _, refiner = text.partition("+")
    (found,) = combinations([SPEC["clusterer"]], [associator], [refiner or "none"], [])
    return found


class Judge:
    """One feature file, and any setting scored on it. What is remembered with the features serves all."""

    def __init__(self, file: FeatureFile, clustering: Clustering | None = None) -> None:
        assert file.identity is not None
        self.features, self.identity = file.features, file.identity
        clusterer = registry.build("clusterers", SPEC["clusterer"])
        self.scene = Scene(0, 0, file.features, clustering or cluster(clusterer, file.features))
        theirs = file.identity.swapped
        self.alone = Pair.build(lambda m: ~torch.isin(file.identity[m], theirs[m]))  # type: ignore[index]

    def score(self, text: str) -> Score:
        """F1, precision, recall and ARI (means over both spaces), coverage, false labels (−1: nobody is alone), seconds."""
        choice = combination(text)
        started = time.perf_counter()
        answer = associate(registry.build("associators", choice.associator), self.scene)
        parts = [registry.build("refiners", link) for link in choice.refiners]
        targets = refine(parts, self.scene, Targets.compose(self.scene.clustering, answer))
        seconds = time.perf_counter() - started
        row = Row(choice, Pair(0, 0), Pair(0.0, 0.0), quality=label_quality(targets, self.identity))
        flags = torch.cat([targets.of(m, m.other).labelled[self.alone[m]] for m in Modality])
        false = float(flags.double().mean()) if len(flags) else -1.0
        return {**row.cross, "coverage": coverage(targets), "false": false, "seconds": seconds}

    def in_the_metric(self, text: str) -> Score:
        """A method on unison's features instead of the network's, the clusters the same."""
        unison: Any = registry.build("associators", combination(OWN).associator)
        own = self.scene.clustering.own
        moved = unison.whitened(self.scene.features.map(unison.centred), own)
        features = moved.map(lambda x: Features(x.float()))
        clusters = Pair.build(lambda m: Clusters(own[m].labels, centroids(features[m].x, own[m].labels, own[m].count)))
        return Judge(FeatureFile(features, self.identity), replace(self.scene.clustering, own=clusters)).score(text)


def develop(paths: list[str]) -> None:
    """Score every setting on the development files; keep each method's best."""
    found: dict[str, dict[str, list[float]]] = {
        name: {text: [] for text in grid} for name, grid in SPEC["methods"].items()
    }
    for path in paths:
        judge = Judge(read_features(path))
        for grid in found.values():
            for text, scores in grid.items():
                scores.append(judge.score(text)["f1"])
        print(path, {name: [round(s[-1], 3) for s in grid.values()] for name, grid in found.items()}, flush=True)
    means = {name: {text: statistics.mean(s) for text, s in grid.items()} for name, grid in found.items()}
    chosen = {name: max(grid, key=grid.__getitem__) for name, grid in means.items()}
    kept = {
        "chosen": chosen,
        "mean_f1": means,
        "files": [Path(path).name for path in paths],
        "date": date.today().isoformat(),
    }
    SETTINGS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def recipe_of(seed: int, share: float) -> Recipe:
    options = {**SPEC["world"], **SPEC["settings"][seed], "seed": seed, "unpaired": float(share)}
    changes = [(f"{stage}.epochs", epochs) for stage, epochs in SPEC["epochs"].items()]
    return choose(
        recipe=SPEC["recipe"],
        dataset=str(Spec("synthetic", options)),
        seed=seed,
        changes=[*changes, ("evaluate_every", 0)],
    )


class AfterStageOne(Observer):
    """Saves the features when stage 1 is over."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, Path()

    def start(self, folder: Path) -> None:
        self.folder = folder

    def report(self, row: Mapping[str, Any]) -> None:
        if row["epoch"] + 1 == SPEC["epochs"]["intra"]:
            save_features(self.folder, self.out, epoch=row["epoch"] + 1, device="cpu")


def worlds(place: Path) -> Iterator[tuple[dict[str, Any], FeatureFile]]:
    """Every judged feature file, with seed, share and stage."""
    for seed in SPEC["seeds"]:
        for share in SPEC["unpaired"]:
            key = {"seed": seed, "unpaired": share, "stage": "untrained"}
            yield key, save_features(recipe_of(seed, share), place / "untrained.safetensors", device="cpu")
        share = SPEC["trained"][seed]
        one, folder = place / f"one-{seed}.safetensors", place / f"run-{seed}"
        run(recipe_of(seed, share), out=folder, device="cpu", log=AfterStageOne(one))
        yield {"seed": seed, "unpaired": share, "stage": "stage 1"}, read_features(one)
        end = save_features(folder, place / "end.safetensors", device="cpu")
        yield {"seed": seed, "unpaired": share, "stage": "cross"}, end


def judge() -> None:
    """Score the chosen settings on the judging seeds: once."""
    if RESULT.exists():
        raise SystemExit(f"{RESULT} exists: these seeds have been judged")
    chosen = json.loads(SETTINGS.read_text(encoding="utf-8"))["chosen"]
    started, cells = time.time(), []
    with tempfile.TemporaryDirectory() as place:
        for key, file in worlds(Path(place)):
            one = Judge(file)
            scores = {name: one.score(text) for name, text in chosen.items()}
            for name, change in SPEC["ablation"].items():
                changed = Spec.parse(f"{OWN}({change})")
                text = Spec.parse(chosen[OWN]).with_options(**changed.options)
                scores[f"{OWN}, {name}"] = one.score(str(text))
            scores |= {f"{name}, in unison's metric": one.in_the_metric(chosen[name]) for name in SPEC["in_the_metric"]}
            cells.append({**key, "scores": scores})
            print(
                key,
                {name: round(scores[name].get("f1", scores[name]["false"]), 3) for name in (OWN, *SPEC["against"])},
                flush=True,
            )
    kept = {
        "spec": SPEC,
        "chosen": chosen,
        "cells": cells,
        "seconds": time.time() - started,
        "date": date.today().isoformat(),
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def per_seed(cells: list[dict[str, Any]], name: str, figure: str) -> list[float]:
    """Each seed's mean over its cells; F1, precision and coverage where somebody is seen in both modalities."""
    kept = [c for c in cells if (c["unpaired"] < 1 if figure != "false" else c["scores"][name]["false"] >= 0)]
    seeds = sorted({c["seed"] for c in kept})
    return [statistics.mean(c["scores"][name][figure] for c in kept if c["seed"] == seed) for seed in seeds]


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values) / len(values) ** 0.5:.1f}"


def table(result: Mapping[str, Any]) -> str:
    """Mean ± standard error over the seeds, the paired tests, and every stage and share by itself."""
    cells = result["cells"]
    names = list(cells[0]["scores"])
    figure_names = ("f1", "precision", "coverage", "false")
    lines = ["| method | setting | F1 | precision | coverage | false labels |", "|---|---|--:|--:|--:|--:|"]
    ordered = sorted(result["chosen"], key=lambda name: -statistics.mean(per_seed(cells, name, "f1")))
    for name in ordered:
        shown = " | ".join(spread(per_seed(cells, name, figure)) for figure in figure_names)
        lines.append(f"| {name} | `{result['chosen'][name]}` | {shown} |")
    lines += ["", "| variant | F1 | precision | coverage | false labels |", "|---|--:|--:|--:|--:|"]
    for name in [OWN, *(name for name in names if "," in name)]:
        lines.append(f"| {name} | {' | '.join(spread(per_seed(cells, name, figure)) for figure in figure_names)} |")
    mine = per_seed(cells, OWN, "f1")
    theirs = {name: per_seed(cells, name, "f1") for name in SPEC["against"]}
    p_values = [float(stats.ttest_rel(mine, values).pvalue) for values in theirs.values()]
    p = dict(zip(theirs, holm(p_values), strict=True))
    lines += ["", "| unison against | gain in F1 | each seed | files won | paired t, Holm |", "|---|--:|---|--:|--:|"]
    counted = [c["scores"] for c in cells if c["unpaired"] < 1]
    for name, values in theirs.items():
        gains = [a - b for a, b in zip(mine, values, strict=True)]
        won = sum(s[OWN]["f1"] > s[name]["f1"] for s in counted)
        each = ", ".join(f"{100 * gain:+.1f}" for gain in gains)
        lines.append(f"| {name} | {spread(gains)} | {each} | {won} / {len(counted)} | {p[name]:.4f} |")
    best = ordered[:1] if ordered[0] != OWN else ordered[1:2]
    shown_names = list(dict.fromkeys([OWN, *SPEC["against"], *best]))
    lines += [
        "",
        f"| F1 by stage, unpaired | files | {' | '.join(shown_names)} |",
        "|---|--:" + "|--:" * len(shown_names) + "|",
    ]
    for stage, share in dict.fromkeys((c["stage"], c["unpaired"]) for c in cells if c["unpaired"] < 1):
        these = [c["scores"] for c in cells if (c["stage"], c["unpaired"]) == (stage, share)]
        values = " | ".join(f"{100 * statistics.mean(s[name]['f1'] for s in these):.1f}" for name in shown_names)
        lines.append(f"| {stage}, {100 * share:.0f} % | {len(these)} | {values} |")
    minutes = f"{len(cells)} feature files, {result['seconds'] / 60:.0f} minutes, {result['date']}"
    head = f"Percent, mean ± standard error over seeds {', '.join(map(str, SPEC['seeds']))}; {minutes}."
    return "\n".join([head, "", *lines, ""])


def write_page() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    text = table(json.loads(RESULT.read_text(encoding="utf-8")))
    PAGE.write_text(before + START + "\n" + text + END + rest.partition(END)[2], encoding="utf-8")
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["develop", *files] if files:
            develop(files)
        case ["judge"]:
            judge()
            write_page()
        case ["table"]:
            write_page()
        case _:
            sys.exit(__doc__)
