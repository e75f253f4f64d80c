"""What a run ends with. The last epoch is the result; the best one on the test set is an oracle, and kept apart."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reidassoc.registry as registry
from reidassoc.errors import PluginError, RecipeError
from reidassoc.evaluation.figures import figure_text, mean_of
from reidassoc.recipe.code_version import named_sources, parts
from reidassoc.recipe.compose import Composed
from reidassoc.recipe.configuration import configuration
from reidassoc.recipe.model import Recipe
from reidassoc.runs.folder import ENVIRONMENT, RunFolder

ORACLE = "uses true identities"  # the flag of a run that is a bound, not a method


@dataclass(frozen=True)
class Result:
    """The content of ``result.json``, and where it lies."""

    folder: Path
    data: Mapping[str, Any]

    @property
    def protocols(self) -> Mapping[str, Any]:
        """``{protocol: {"rank1": {"mean", "std"}, …, "mAP", "mINP"}}`` of the last epoch, in percent; None without a match."""
        return self.data["protocols"]  # type: ignore[no-any-return]

    @property
    def labels(self) -> Mapping[str, float]:
        """Label quality of the last epoch; empty if the training identities are unknown."""
        return self.data["labels"]  # type: ignore[no-any-return]

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the figures must know: how many queries have no match."""
        return self.data["notes"]  # type: ignore[no-any-return]

    def __fspath__(self) -> str:
        """A result is as good as its run folder wherever one is asked for."""
        return str(self.folder)

    def __str__(self) -> str:
        """One line per protocol, and where the rest is."""
        rows = [
            f"{name}: Rank-1 {figure_text(found['rank1']['mean'])}, mAP {figure_text(found['mAP']['mean'])}"
            for name, found in self.protocols.items()
        ]
        return "\n".join([*rows, *self.notes, f"run folder: {self.folder}"])


def summarise(
    folder: RunFolder,
    composed: Composed,
    *,
    groups: int,
    environment: Mapping[str, Any],
    counts: Mapping[str, int],
    seconds: float,
    peak_bytes: int,
) -> dict[str, Any]:
    """Read the run's metrics and make the content of ``result.json``."""
    recipe = composed.recipe
    rows = folder.metrics
    scored = [row for row in rows if "retrieval" in row]
    labelled = [row for row in rows if "labels" in row]
    protocols = scored[-1]["retrieval"] if scored else {}
    best = {}
    for protocol in protocols:
        if known := [row for row in scored if row["retrieval"][protocol]["mAP"]["mean"] is not None]:
            top = max(known, key=lambda row: mean_of(row["retrieval"][protocol]["mAP"]))
            best[protocol] = {"epoch": top["epoch"], **top["retrieval"][protocol]}
    return {
        "recipe": recipe.name,
        "digest": recipe.digest,
        "method": {
            "clusterer": str(recipe.clusterer),
            "associator": next((str(s.associator) for s in reversed(recipe.stages) if s.associator), None),
            "refiners": [str(part) for part in recipe.stages[-1].refiners],
            "objectives": [str(part) for part in recipe.stages[-1].objectives],
            "network": str(recipe.network),
        },
        "configuration": configuration(recipe),
        "dataset": {"spec": str(folder.recipe.dataset), "fingerprint": composed.dataset.fingerprint()},
        "files": named_sources(recipe),
        "seed": recipe.seed,
        "epochs": len(rows),
        "flags": [
            *flags(composed, groups),
            *(f"{name} changed during the run" for name in changed_files(folder, recipe)),
        ],
        "setting": {"batch_norm_groups": groups, "test_time": []},
        "protocols": protocols,
        "notes": scored[-1].get("notes", []) if scored else [],
        "best_epoch_oracle": best,
        "labels": labelled[-1]["labels"] if labelled else {},
        "clusters": rows[-1].get("clusters", {}) if rows else {},
        "counts": dict(counts),
        "seconds": {
            "this_session": round(seconds, 1),
            "all_epochs": round(sum(sum(r["seconds"].values()) for r in rows), 1),
        },
        "peak_bytes": peak_bytes,  # of the first process on a CPU, of torch on its GPU; of this session
        "environment": dict(environment),
    }


def flags(composed: Composed, groups: int = 1) -> list[str]:
    """What a reader must know before comparing the figures, of a run with so many groups of batch-norm statistics."""
    recipe = composed.recipe
    parts = [part for method in composed.methods for part in (method.clusterer, method.associator)]
    found = [ORACLE] if any(uses_identity(part) for part in parts) else []
    if recipe.batch_norm_gpus not in (1, groups):
        here = "one device" if groups == 1 else f"{groups} GPUs"
        found.append(f"published with {recipe.batch_norm_gpus} GPUs; batch-norm statistics here are of {here}")
    return found


def changed_files(folder: RunFolder, recipe: Recipe) -> list[str]:
    """Files with plug-ins that are not what they were when the run began."""
    began = folder.read_json(ENVIRONMENT).get("files")
    if not isinstance(began, dict):
        return []
    return [name for name, text_hash in named_sources(recipe).items() if began.get(name) != text_hash]


def go_on_with(folder: RunFolder) -> str:
    """The command that goes on with a run, with the plug-in files that it was begun with, as far as its folder names them."""
    try:
        files = {str(name): str(name) for name in folder.read_json(ENVIRONMENT)["files"]}
        for kind, spec in parts(folder.recipe):
            with suppress(PluginError):  # of a file that is not loaded here
                entry = registry.find(kind, spec.name)
                if entry.file == entry.origin and entry.file:  # of one that is, whose place is known
                    files[Path(entry.file).name] = entry.file
                else:  # of an installed package, which is found by its name
                    files.pop(Path(entry.file).name, None)
    except (KeyError, TypeError, RecipeError):  # files of a folder that somebody changed
        files = {}
    plugins = [word for file in files.values() for word in ("--plugin", file)]
    return shlex.join(["reidassoc", "run", "--resume", str(folder.path), *plugins])


def uses_identity(part: object) -> bool:
    return "identity" in getattr(part, "needs", ())
