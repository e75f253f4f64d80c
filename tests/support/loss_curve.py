"""The losses of 60 training steps with fixed labels, stored to pin training: a script, and a module.

    python tests/support/loss_curve.py    # adds, or replaces, the curve of this machine in tests/golden/loss_curves.json

A curve belongs to torch's version, the CPU's capability and the number of threads. Do this when training is meant to
change, and say why in the commit.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path

import torch

from reidassoc.data.loader import batches
from reidassoc.data.samplers import Sampler
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.extract import extract
from reidassoc.engine.label_stage import Given, label
from reidassoc.engine.objective_modules import Heads
from reidassoc.engine.optim import build_optimiser
from reidassoc.engine.setup import build_network, calibrate, training_images
from reidassoc.engine.step import Step
from reidassoc.interfaces.banks import Banks
from reidassoc.recipe.choose import choose
from reidassoc.recipe.compose import compose
from reidassoc.recipe.model import Optimiser

STEPS = 60
STORE = Path(__file__).resolve().parents[1] / "golden" / "loss_curves.json"


def key() -> str:
    """What a curve depends on."""
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def curve() -> list[float]:
    """The losses of MULT's cross stage on the tiny pedestrians, labelled by their true identities, once."""
    recipe = choose(
        recipe="mult/synthetic", dataset="synthetic(size='tiny')", clusterer="identity", associator="oracle", oracle=True,
        refiners=["oclr"], objectives=["amirl(momentum=0.8)"], changes=[("cross.identities", 6)],
    )  # fmt: skip
    composed, fabric, stage = compose(recipe), open_device("cpu"), recipe.stages[1]
    stores, identity = training_images(composed.dataset, recipe)
    network = build_network(composed.network, recipe, fabric)
    calibrate(network, stores, fabric, recipe)
    labelled = label(
        composed.methods[1], stage, Given(extract(network, stores, fabric, batch=64), epoch=1, stage_epoch=0, seed=0),
        counts=Counter(), identity=identity,
    )  # fmt: skip
    assert labelled is not None
    scene, targets, method = labelled.scene, labelled.targets, composed.methods[1]
    parts = (*method.objectives, *method.refiners)
    banks = Banks.rebuild(chain.from_iterable(part.part.banks(scene, targets) for part in parts))
    optimiser = build_optimiser(network.parameters(), Optimiser())
    network.train()
    step = Step(fabric, network, optimiser, method, scene, targets, banks, Heads(), stage.augmentation.pad)
    prepared = batches(
        sampler=Sampler.build(targets, "paired", identities=stage.identities, images=stage.images), stores=stores,
        index=scene.features.map(lambda f: f.index.numpy()), targets=targets, banks=[live.bank for live in banks],
        augmentation=stage.augmentation, steps=STEPS, seed=0, epoch=1,
    )  # fmt: skip
    return [float(step(host)[0]["loss"]) for host in prepared]


def stored() -> dict[str, list[float]]:
    return dict(json.loads(STORE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    torch.set_num_threads(1)
    curves = (stored() if STORE.exists() else {}) | {key(): curve()}
    STORE.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    print(f"{STORE}: {key()}")
