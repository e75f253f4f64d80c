"""Shared starts: the first epochs of a run, kept so that other runs that begin alike go on from there.

A snapshot is a folder named by the recipe's prefix digest, and by what files with plug-ins hold. In it is what a run folder
holds at the end of those epochs: a checkpoint, the rows of the metrics, the labels. A run that starts from it ends in the
same numbers as one that trains the epochs itself.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch

from reidassoc.engine import checkpoint
from reidassoc.errors import CheckpointError
from reidassoc.recipe.code_version import named_sources, start_name
from reidassoc.recipe.model import Recipe
from reidassoc.runs.folder import ENVIRONMENT, METRICS, RunFolder, labels_name

CHECKPOINT = "checkpoint.pt"


def snapshot_path(store: Path, recipe: Recipe, epochs: int) -> Path:
    """Where the snapshot of a recipe's first ``epochs`` epochs lies, whether it is there or not."""
    return store / start_name(recipe, epochs)


def leave_snapshot(store: Path, folder: RunFolder, recipe: Recipe, epochs: int) -> Path:
    """Keep the state of a run at the end of its first ``epochs`` epochs, unless that is kept already.

    Raises:
        CheckpointError: the run has no checkpoint of that epoch.
    """
    final = snapshot_path(store, recipe, epochs)
    source = folder.path / f"checkpoints/epoch_{epochs:03d}.pt"
    if final.is_dir():
        return final
    if not source.is_file():
        raise CheckpointError(f"{folder.path} holds no checkpoint of epoch {epochs}; expected {source.name}")
    store.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=store, prefix=".new-"))
    try:
        shutil.copy2(source, temporary / CHECKPOINT)
        shutil.copy2(folder.path / ENVIRONMENT, temporary)
        rows = [row for row in folder.metrics if row["epoch"] < epochs]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (temporary / METRICS).write_text(text, encoding="utf-8")
        (temporary / "labels").mkdir()
        for epoch in range(epochs):
            labels = folder.path / labels_name(epoch)
            if labels.exists():
                shutil.copy2(labels, temporary / "labels")
        publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def start_from(snapshot: Path, out: Path, recipe: Recipe) -> RunFolder:
    """Make a run folder that has trained a snapshot's epochs; ``run(…, resume=True)`` goes on with it.

    Raises:
        CheckpointError: the snapshot can't be read.
        DataError: the folder can't be written.
    """
    data = checkpoint.read(snapshot / CHECKPOINT, torch.device("cpu"))
    if start_name(recipe, data["epoch"]) != snapshot.name:
        raise CheckpointError(f"{snapshot} was left by a run that begins otherwise than {recipe.name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        folder = RunFolder(temporary)
        folder.create(recipe)
        shutil.copy2(snapshot / METRICS, temporary)
        machine = RunFolder(snapshot).read_json(ENVIRONMENT)
        folder.write_json(ENVIRONMENT, {**machine, "files": named_sources(recipe)})  # of this run; those epochs agree
        shutil.copytree(snapshot / "labels", temporary / "labels", dirs_exist_ok=True)
        with folder.replacing(f"checkpoints/epoch_{data['epoch']:03d}.pt") as path:
            torch.save({**data, "recipe": recipe.digest}, path)
        folder.write_json("shared.json", {"epochs": data["epoch"], "snapshot": snapshot.name})
        temporary.chmod(0o755)
        publish(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return RunFolder(out)


def publish(temporary: Path, final: Path) -> None:
    """Give a finished folder its name; if another process was first, that one stays."""
    try:
        temporary.rename(final)
    except OSError:
        if not final.is_dir():
            raise
