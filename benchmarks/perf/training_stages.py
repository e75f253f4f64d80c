"""The stages that train: augmentation, losses, banks, whole steps, the data path; and extraction."""

from __future__ import annotations

from collections.abc import Callable

import baselines
import torch
import torch.nn.functional as F
from bench import Bench, largest, unit, verdict
from meter import Row, measured
from steps import alone_and_extracted, as_is_and_changed, bare_and_whole, in_place_and_read
from torch import Tensor

from reidassoc.data.transforms import augment, draw
from reidassoc.ops.banks import Intake, plan_rounds, update_banks
from reidassoc.ops.losses import cross_prediction
from reidassoc.ops.positives import near_rows, positive_loss
from reidassoc.recipe.model import Augmentation
from reidassoc_plugins.networks.tiny import Tiny

BATCH, POSITIVES = 144, 30
BANK_BAR = 0.05  # of a bare step
STEP_BARS = {"mult": 1.15, "salcr": 1.3}  # times the bare step
READING_BAR = 1.05  # times the step on images that are in place
EXTRACTION_BAR = 1.1  # times the network alone on images in place


def bank_update(b: Bench) -> Row:
    """Five banks, as in MULT, of 395 clusters; the bar compares with a bare step of the tiny network."""
    g = torch.Generator().manual_seed(0)
    batch, width, count = 64, 256, 395
    intakes = []
    for _ in range(5):
        labels = torch.randint(0, 16, (batch,), generator=g)
        rounds = plan_rounds(labels.numpy())
        intakes.append(Intake(unit(g, count, width), unit(g, batch, width), labels, rounds, 0.1))
    step = bare_step(batch)
    step_s, _, _ = measured(step, max(5, b.runs))
    return b.row(
        "bank update",
        lambda: update_banks(intakes),
        lambda: [baselines.fed(i.vectors, i.features, i.labels, i.momentum) for i in intakes],
        lambda got, want: largest(torch.cat(got), torch.cat(want)),
        size=f"5 banks {count} x {width}, batch {batch}",
        bar=lambda s, _: verdict(f"5 % of a bare tiny step ({step_s:.3f} s)", s <= BANK_BAR * step_s),
    )


def bare_step(batch: int) -> Callable[[], None]:
    """Forward, backward and optimiser of the tiny network on three streams, without losses of ours."""
    torch.manual_seed(0)
    network = Tiny().build(size=(64, 32))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    images = {name: torch.randn(batch, 3, 64, 32) for name in ("visible", "augmented", "infrared")}

    def step() -> None:
        loss = torch.stack([output.z.square().mean() for output in network(images).values()]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def training_step(b: Bench) -> Row:
    return b.row("training step, bare tiny", bare_step(64), size="3 x 64 images 64 x 32")


def whole_step(b: Bench, method: str, network: str, size: str) -> Row:
    """The engine's step beside the bare network's on the same batch, both in processor seconds."""
    bare, whole = bare_and_whole(method, network, max(15, b.runs) if network == "tiny" else 3)
    asked, ratio = STEP_BARS[method], whole / bare
    said = verdict(f"{asked} x the bare step (plain); it is {ratio:.3f}", ratio <= asked)
    return Row(f"{method} step, {network}", size, whole, bare, None, 0.0, "processor seconds", said)


def option(b: Bench, network: str, key: str, size: str) -> Row:
    """The bare step with a key of the recipe true, beside the one without; adopted by default only if it wins."""
    as_is, changed = as_is_and_changed(network, key, max(15, b.runs) if network == "tiny" else 2)
    said = verdict(f"faster than without (plain); it takes {changed / as_is:.3f} of that", changed < as_is)
    return Row(f"bare step, {network}, {key}", size, changed, as_is, None, 0.0, "processor seconds", said)


def data_path(b: Bench) -> Row:
    """Steps that read the cache of decoded images beside steps whose batches are in place."""
    in_place, read = in_place_and_read(max(10, b.runs))
    ratio = read / in_place
    said = verdict(f"{READING_BAR} x a step with its data in place (plain); it is {ratio:.3f}", ratio <= READING_BAR)
    return Row("data path, mult step", "3 x 64 images 64 x 32", read, in_place, None, 0.0, "processor seconds", said)


def extraction_read(b: Bench, network: str) -> Row:
    """Features of images that are read from the cache, as the engine makes them, beside the network alone."""
    images = 512 if network == "tiny" else 128
    alone, whole = alone_and_extracted(network, images, max(3, b.runs) if network == "tiny" else 1)
    ratio = whole / alone
    said = verdict(f"{EXTRACTION_BAR} x the network alone (plain); it is {ratio:.3f}", ratio <= EXTRACTION_BAR)
    size = f"{images} images " + ("64 x 32" if network == "tiny" else "288 x 144")
    return Row(f"extraction from the cache, {network}", size, whole, alone, None, 0.0, "processor seconds", said)


def oclr(b: Bench) -> Row:
    g = torch.Generator().manual_seed(0)
    logits, target = 10 * torch.randn(BATCH, 395, generator=g), 10 * torch.randn(BATCH, 395, generator=g)
    return b.row(
        "oclr loss",
        lambda: cross_prediction(logits, target, sharpening=0.2).mean(),
        lambda: baselines.agreement_loss(logits, target, 0.2),
        largest,
        size=f"{BATCH} x 395",
    )


def gpcr(b: Bench) -> Row:
    g = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(BATCH, len(b.x.visible), generator=g) / b.width**0.5

    def ours() -> Tensor:
        near = near_rows(logits, POSITIVES)
        return positive_loss(logits, near.index, near.has(logits, near.index))

    return b.row(
        "gpcr loss, one bank",
        ours,
        lambda: baselines.positive_loss_by_sort(logits, POSITIVES),
        largest,
        size=f"{BATCH} x {logits.shape[1]}, k = {POSITIVES}",
    )


def augmentation(b: Bench) -> Row:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 288, 144), generator=g, dtype=torch.uint8)
    settings = Augmentation(intensity=0.5)
    chosen = draw(settings, "augmented", BATCH, (288, 144), g)
    one = [chosen.take(slice(i, i + 1)) for i in range(BATCH)]
    return b.row(
        "augmentation",
        lambda: augment(images, chosen, settings.pad),
        lambda: torch.cat([augment(images[i : i + 1], one[i], settings.pad) for i in range(BATCH)]),
        largest,
        size=f"{BATCH} images 288 x 144",
    )


def extraction(b: Bench) -> Row:
    torch.manual_seed(0)
    network, images = Tiny().build(size=(64, 32)).eval(), torch.randn(256, 3, 64, 32)

    def ours() -> Tensor:
        with torch.no_grad():
            return F.normalize(network({"visible": images})["visible"].z, dim=1)

    return b.row("extraction, tiny", ours, size="256 images 64 x 32")
