"""The authors' released checkpoints as run folders, so that every protocol can be evaluated without training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

import reidassoc.registry as registry
from reidassoc.engine import checkpoint
from reidassoc.errors import CheckpointError, nearest_name
from reidassoc.recipe.choose import choose
from reidassoc.recipe.model import Recipe
from reidassoc.runs.folder import IMPORTED, RunFolder
from reidassoc.weights import Layout, load_checkpoint, load_into, read_state, strip_prefixes

# What the published networks are, as options of two_stream. agw is ADCA's, PGM's and that of MMM's first stage.
FORMATS: Mapping[str, Mapping[str, Any]] = {"mult": {}, "salcr": {"parts": 3}, "agw": {"non_local": True}}


def import_checkpoint(
    file: str | Path,
    *,
    form: str,
    dataset: str = "sysu_mm01",
    root: str | None = None,
    out: str | Path | None = None,
) -> RunFolder:
    """Make a run folder from a released checkpoint; ``evaluate`` takes it.

    Args:
        file: the authors' file.
        form: whose: one of ``FORMATS``.
        dataset: spec of the dataset that it was trained on.
        root: where that lies.
        out: the run folder; ``runs/imported-FILE`` if not given.

    Raises:
        CheckpointError: the form is unknown, or the file can't be read or is not of that form; the message lists keys.
        ReidassocError: the dataset's spec is wrong, or the folder can't be written.
    """
    file = Path(os.path.expanduser(file))
    if form not in FORMATS:
        raise CheckpointError(f"no format '{form}'{nearest_name(form, FORMATS)}; formats: {', '.join(FORMATS)}")
    recipe = imported_recipe(form, dataset, root)
    state = read_state(file)
    layouts: Mapping[str, Layout] = registry.get("networks", "two_stream").layouts  # type: ignore[attr-defined]
    if not any(layouts[form].fits(candidate) for candidate in strip_prefixes(state)):
        found = next((name for name, layout in layouts.items() if layout.fits(state)), None)
        hint = f"it looks like {found}" if found else f"its keys begin with {', '.join(list(state)[:3])}"
        raise CheckpointError(f"{file} is no checkpoint of the format {form}: {hint}")
    network = registry.build("networks", recipe.network).build(size=recipe.size)
    load_into(network, state, [layouts[form]], source=str(file))
    folder = RunFolder.free(Path(out) if out else Path("runs") / f"imported-{file.stem}")
    folder.create(recipe)
    stored = checkpoint.State(network, torch.optim.SGD(network.parameters(), 0.0), epoch=epochs_of(file), counts={})
    checkpoint.save(folder, stored, recipe.digest)
    digest = sha256(file.read_bytes()).hexdigest()
    folder.write_json(IMPORTED, {"file": file.name, "sha256": digest, "format": form})
    return folder


def imported_recipe(form: str, dataset: str, root: str | None) -> Recipe:
    """A recipe that says what the network and the data are; how it was trained is not known to it."""
    options = ", ".join([f"{key}={value}" for key, value in FORMATS[form].items()])
    network = f"two_stream(depth=50, weights='none'{', ' + options if options else ''})"
    recipe = choose(associator="mult", dataset=dataset, network=network, root=root)
    return recipe.model_copy(update={"name": f"imported/{form}", "reference": f"released checkpoint, format {form}"})


def epochs_of(file: Path) -> int:
    """The number of epochs behind a released checkpoint, as it says; 1 if it doesn't."""
    held = load_checkpoint(file)
    epoch = held.get("epoch") if isinstance(held, Mapping) else None
    return epoch + 1 if isinstance(epoch, int) and 0 <= epoch < 999 else 1
