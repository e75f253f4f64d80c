"""Contract checks of what trains and of what is trained on: refiners, objectives, networks, datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from reidassoc.engine.finite_step import finite_step, update
from reidassoc.engine.objective_modules import Head, make_head
from reidassoc.errors import PluginError
from reidassoc.interfaces.banks import Bank, Banks
from reidassoc.interfaces.batch import Batch, View
from reidassoc.interfaces.checks import refuse_banks
from reidassoc.interfaces.plugins import Dataset, Network, NetworkOutput, Objective, Refiner
from reidassoc.interfaces.scene import Scene
from reidassoc.recipe.model import Optimiser
from reidassoc.testing.contracts import (
    ContractError,
    Device,
    check_labels,
    guard,
    keeps_nothing,
    require,
    same,
    toy_targets,
    unchanged,
    valid,
)
from reidassoc.testing.scenes import CASES, Toy
from reidassoc.types import SHARED, STREAMS, Clustering, Features, Modality, Pair, Records, SoftLabels, Targets

SAMPLINGS = ("own", "paired", "shared")
TRAINABLE = {name: toy for name, toy in CASES.items() if min(toy.clusters) > 0}
"""The scenes on which an epoch trains: both modalities have a cluster."""
ROWS, PARTS, SIZE = 6, 3, (48, 24)


def toy_step(
    objective: Objective, toy: Toy | None = None, *, silent: bool = False, device: Device = "cpu"
) -> tuple[Batch, Banks]:
    """A batch of random features of every stream, with gradient, and the banks that an objective declares.

    Args:
        objective: whose banks, and whose ``needs`` (parts, shared labels) are served.
        toy: the scene; the ordinary case if not given. Both modalities need a cluster.
        silent: whether no row of the batch has a label.
        device: where all of it lies.
    """
    toy = toy or CASES["ordinary"]
    scene = toy.scene(device=device)
    generator = torch.Generator().manual_seed(toy.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    if "parts" in objective.needs:
        scene = replace(scene, features=scene.features.map(lambda f: with_parts(f, draw(len(f), PARTS, toy.width))))
    targets = toy_targets(scene, soft=True)
    if "shared" in objective.needs:
        scene, targets = with_shared(scene, targets)
    if silent:
        targets = targets.map(lambda labels: SoftLabels(torch.zeros_like(labels.prob)))
    views = {}
    rows = Pair.build(lambda m: torch.randint(len(scene.features[m]), (ROWS,), generator=generator).to(device))
    for stream, modality in STREAMS.items():
        parts = (
            {(stream, other): draw(ROWS, PARTS, toy.width) for other in STREAMS} if "parts" in objective.needs else {}
        )
        views[stream] = View(stream, rows[modality], draw(ROWS, toy.width), draw(ROWS, toy.width, 4, 2), parts)
    return Batch(views, scene.epoch, scene, targets), Banks.rebuild(objective.banks(scene, targets))


def with_parts(features: Features, parts: Tensor) -> Features:
    return replace(features, extra={**features.extra, "parts": parts.detach()})


def with_shared(scene: Scene, targets: Targets) -> tuple[Scene, Targets]:
    """The scene with clusters that both modalities share: cluster i of either is cluster i."""
    own = scene.clustering.own
    count = max(clusters.count for clusters in own)
    wide = own.map(
        lambda c: replace(
            c, centroids=torch.cat([c.centroids, c.centroids.new_zeros(count - c.count, c.centroids.shape[1])])
        )
    )
    labels = own.map(lambda clusters: SoftLabels.one_hot(clusters.labels, count))
    clustering = Clustering(own=own, shared=wide)
    table = {(modality, SHARED): labels[modality] for modality in Modality}
    return replace(scene, clustering=clustering), targets.replaced(table)


def check_refiner(refiner: Refiner, cases: Mapping[str, Toy] = CASES, device: Device = "cpu") -> None:
    """Call `refine` on every case, with hard and with soft targets, some rows silent; `losses`, if it has any, on a batch.

    Raises:
        ContractError: entries vanish or change shape, rows are no distributions, a loss is no finite number or has no
            gradient, inputs change, or answers differ; it has neither of the two methods.
    """
    cls = type(refiner)
    if cls.refine is Refiner.refine and cls.losses is Refiner.losses:
        own = ", ".join(name for name in vars(cls) if not name.startswith("_") and callable(vars(cls)[name])) or "none"
        raise ContractError(f"it has neither refine(scene, targets) nor losses(batch, banks); its own methods: {own}")
    for case, toy in cases.items():
        with keeps_nothing(refiner, case):
            for kind in ("hard", "soft"):
                scene, where = toy.scene(device=device), f"{case}, {kind} targets"
                targets = toy_targets(scene, soft=kind == "soft")
                result = unchanged(where, (scene, targets), partial(refiner.refine, scene, targets))
                require(isinstance(result, Targets), where, f"must return Targets, got {type(result).__name__}")
                for key, before in targets.table.items():
                    require(key in result.table, where, f"lost the labels of {key[0]} samples in space '{key[1]}'")
                    shape = (len(before), before.count)
                    check_labels(result.table[key], shape, f"{where}, {key[0]} in '{key[1]}'", device)
                same(where, result, refiner.refine(toy.scene(device=device), targets))
            if type(refiner).losses is not Refiner.losses and min(toy.clusters) > 0:
                check_losses(refiner, toy, f"{case}, losses", device)


@dataclass(frozen=True)
class Beside:
    """A refiner as :func:`toy_step` takes an objective: with a bank of every role and space that objectives may declare."""

    refiner: Refiner

    @property
    def needs(self) -> frozenset[str]:
        return self.refiner.needs

    def banks(self, scene: Scene, targets: Targets) -> list[Bank]:
        fed = {role: tuple(STREAMS) for role in ("specific", "cross", "agnostic")}
        declared = [
            Bank(name=f"toy.{role}.{m}", space=m, role=role, start=scene.prototypes(targets, m), fed_by=streams)
            for m in Modality
            for role, streams in fed.items()
        ]
        return [*declared, *self.refiner.banks(scene, targets)]


def check_losses(refiner: Refiner, toy: Toy, where: str, device: Device) -> None:
    """Call a refiner's `losses` on a batch, with the banks of objectives and its own; a term may be a 0 without gradient."""
    beside: Any = Beside(refiner)
    batch, banks = guard(where, partial(toy_step, beside, toy, device=device))
    check_banks(banks, batch, where)
    given = (batch, {live.bank.name: live.vectors for live in banks})
    terms = unchanged(where, given, partial(refiner.losses, batch, banks))
    require(isinstance(terms, Mapping), where, f"must return a mapping of loss terms, got {type(terms).__name__}")
    check_terms(terms, where)
    for name, term in terms.items():
        learns = term.requires_grad or bool(term == 0)
        require(learns, where, f"no gradient reaches the features by '{name}': nothing is learnt")
    moving = [term for term in terms.values() if term.requires_grad]
    if moving:
        guard(where, torch.stack(moving).sum().backward)
    slopes = [view.z.grad for view in batch if view.z.grad is not None]
    require(all(bool(torch.isfinite(g).all()) for g in slopes), where, "the gradient holds NaN or infinite values")
    same(where, dict(terms), dict(refiner.losses(*toy_step(beside, toy, device=device))))
    nobody, nothing = toy_step(beside, toy, silent=True, device=device)
    where = f"{where}, no row has a label"
    check_terms(guard(where, partial(refiner.losses, nobody, nothing)), where)


def check_objective(objective: Objective, cases: Mapping[str, Toy] = TRAINABLE, device: Device = "cpu") -> None:
    """Declare banks and call the objective on a batch of every case.

    Raises:
        ContractError: a bank doesn't fit its space, a term is no finite number, nothing learns, inputs change, a batch
            without any label is not survived, or answers differ.
    """
    drawn = getattr(objective, "sampling", None)
    require(drawn in SAMPLINGS, "sampling", f"must be one of {', '.join(SAMPLINGS)}, got {drawn!r}")
    for case, toy in cases.items():
        with keeps_nothing(objective, case):
            batch, banks = guard(case, partial(toy_step, objective, toy, device=device))
            check_banks(banks, batch, case)
            head = prepared(objective, batch, case, device)
            call: Callable[..., Any] = objective if head is None else partial(cast(Any, objective), module=head.module)
            terms = unchanged(
                case, (batch, {live.bank.name: live.vectors for live in banks}), partial(call, batch, banks)
            )
            require(
                isinstance(terms, Mapping), case, f"must return a mapping of loss terms, got {type(terms).__name__}"
            )
            check_terms(terms, case)
            require(bool(terms), case, "must return at least one loss term, got none")
            total = torch.stack(list(terms.values())).sum()
            require(total.requires_grad, case, "no gradient reaches the features: nothing is learnt")
            guard(case, total.backward)
            given = [view.z for view in batch] + [part for view in batch for part in view.parts.values()]
            slopes = [x.grad for x in given if x.grad is not None]
            require(bool(slopes), case, "no gradient reaches the features: nothing is learnt")
            require(
                all(bool(torch.isfinite(g).all()) for g in slopes), case, "the gradient holds NaN or infinite values"
            )
            again, fresh = toy_step(objective, toy, device=device)
            same(case, dict(terms), dict(call(again, fresh)))
            nobody, nothing = toy_step(objective, toy, silent=True, device=device)
            where = f"{case}, no row has a label"
            check_terms(guard(where, partial(call, nobody, nothing)), where)
            if head is not None:
                guard(
                    f"{case}, its module's step", partial(update, [head.optimiser], finite_step(total, [head.module]))
                )


def prepared(objective: Objective, batch: Batch, case: str, device: Device) -> Head | None:
    """The module that an objective trains beside the network, made as a run makes it."""
    make = partial(make_head, objective, batch.scene, batch.targets, name="", settings=Optimiser())
    try:
        return make(device=torch.device(device))
    except PluginError as error:
        raise ContractError(f"{case}, modules: {error}") from error.__cause__


def check_banks(banks: Banks, batch: Batch, case: str) -> None:
    """Raise ContractError for a bank that a run would refuse."""
    valid(case, partial(refuse_banks, [live.bank for live in banks], batch.scene, batch.targets))


def check_terms(terms: Mapping[str, Tensor], where: str) -> None:
    for name, term in terms.items():
        require(isinstance(term, Tensor) and term.ndim == 0, where, f"loss '{name}' must be a tensor of no dimension")
        require(bool(torch.isfinite(term)), where, f"loss '{name}' is {term.item()}, no finite number")


def check_network(network: Network, *, size: tuple[int, int] = SIZE) -> None:
    """Build a network and show it images: all streams together, each by itself, one image.

    Raises:
        ContractError: width or shapes are wrong, values are not finite, chance or the other streams change the answer in
            evaluation, or no gradient reaches the weights.
    """
    module = guard("build", partial(network.build, size=size))
    require(isinstance(module, nn.Module), "build", f"must return a torch.nn.Module, got {type(module).__name__}")
    width: Any = getattr(module, "width", None)
    require(
        isinstance(width, int), "build", f"the module needs an attribute width, the D of its features; got {width!r}"
    )
    generator = torch.Generator().manual_seed(0)
    images = {stream: torch.rand(2, 3, *size, generator=generator) for stream in STREAMS}
    found = seen(module.train(), images, width, "training")
    total = torch.stack([output.z.square().sum() for output in found.values()]).sum()
    require(total.requires_grad, "training", "no gradient reaches the weights: nothing is learnt")
    guard("training", total.backward)
    learnt = [p for p in module.parameters() if p.grad is not None and bool((p.grad != 0).any())]
    require(bool(learnt), "training", "no gradient reaches the weights: nothing is learnt")
    module.eval()
    with torch.no_grad():
        together, again = (seen(module, images, width, "evaluation") for _ in range(2))
        steady = all(torch.allclose(again[stream].z, together[stream].z, rtol=1e-3, atol=1e-4) for stream in images)
        require(steady, "evaluation", "the same images, shown twice, have other features")
        for stream, x in images.items():
            alone = seen(module, {stream: x}, width, f"evaluation, {stream} images alone")[stream].z
            close = torch.allclose(alone, together[stream].z, rtol=1e-3, atol=1e-4)
            require(close, "evaluation", f"features of {stream} images depend on which other streams are there")
        seen(module, {"infrared": images["infrared"][:1]}, width, "evaluation, one image")


def seen(module: nn.Module, images: Mapping[str, Tensor], width: int, where: str) -> Mapping[str, NetworkOutput]:
    """What a module says of some streams, checked."""
    found: Mapping[str, NetworkOutput] = unchanged(where, dict(images), partial(module, images))
    require(isinstance(found, Mapping), where, f"must return a mapping by stream, got {type(found).__name__}")
    require(set(found) == set(images), where, f"was shown {sorted(images)}, answers for {sorted(found)}")
    for stream, output in found.items():
        require(
            isinstance(output, NetworkOutput), where, f"'{stream}' must be a NetworkOutput, got {type(output).__name__}"
        )
        for name, x in {"z": output.z, "pooled": output.pooled}.items():
            shape = (len(images[stream]), width)
            require(tuple(x.shape) == shape, where, f"{name} of '{stream}' must be {shape}, got {tuple(x.shape)}")
            require(bool(torch.isfinite(x).all()), where, f"{name} of '{stream}' holds NaN or infinite values")
    return found


def check_dataset(dataset: Dataset) -> None:
    """List a dataset's images and trials, and load the first image of each list.

    Raises:
        ContractError: a list is empty, names repeat, identities or trials don't fit, people are in both splits, or names,
            images or the fingerprint change when the dataset is read once more.
    """
    train, test = guard("train", dataset.train), guard("test", dataset.test)
    anew: Any = replace(dataset)  # type: ignore[type-var]
    for split, records, others in (
        ("train", train, guard("train", anew.train)),
        ("test", test, guard("test", anew.test)),
    ):
        for modality in Modality:
            check_repeats(records[modality], others[modality], f"{split}, {modality}")
    people: dict[str, set[int]] = {"train": set(), "test": set()}
    for split, records in (("train", train), ("test", test)):
        for modality in Modality:
            known = check_records(dataset, records[modality], modality, f"{split}, {modality}")
            people[split] |= set() if known is None else set(known.tolist())
    both = sorted((people["train"] & people["test"]) - {-1})
    require(not both, "test", f"{len(both)} people are in training too, such as {both[:3]}: they must be others")
    trials = guard("trials", dataset.trials)
    require(bool(trials), "trials", "there are none: retrieval can't be judged")
    for trial in trials:
        where = f"trial {trial.number} of '{trial.protocol}'"
        for name, rows, modality in (
            ("query", trial.query, trial.query_modality),
            ("gallery", trial.gallery, trial.query_modality.other),
        ):
            require(len(rows) > 0, where, f"its {name} is empty")
            inside = int(rows.min()) >= 0 and int(rows.max()) < len(test[modality])
            require(
                inside, where, f"its {name} has rows outside test().{modality}, which has {len(test[modality])} images"
            )
    mark = dataset.fingerprint()
    steady = isinstance(mark, str) and mark == dataset.fingerprint() == anew.fingerprint()
    require(steady, "fingerprint", "must be a text, the same every time")


def check_repeats(records: Records, again: Records, where: str) -> None:
    if not (isinstance(records, Records) and isinstance(again, Records)) or len(records) == 0:
        return  # said of the records by themselves
    require(records.names == again.names, where, "read once more, it lists other images, or in another order")
    first, second = (guard(where, partial(found.source.load, 0)) for found in (records, again))
    require(np.array_equal(first, second), where, f"read once more, image '{records.names[0]}' is another one")


def check_records(dataset: Dataset, records: Records, modality: Modality, where: str) -> Tensor | None:
    require(isinstance(records, Records), where, f"must be Records, got {type(records).__name__}")
    require(records.modality is modality, where, f"says that it is {records.modality}")
    require(len(records) > 0, where, "holds no image")
    require(len(set(records.names)) == len(records), where, "two images have the same name")
    pixels = guard(where, partial(records.source.load, 0))
    shape: tuple[int, ...] = getattr(pixels, "shape", ())
    good = len(shape) == 3 and shape[2] == 3 and str(pixels.dtype) == "uint8"
    require(good, where, f"an image must be (H, W, 3) uint8, got {shape}")
    known: Tensor | None = guard(where, partial(dataset.identity, records))
    if known is not None:
        right = known.dtype == torch.int64 and tuple(known.shape) == (len(records),)
        require(right, where, f"identities must be ({len(records)},) int64, got {tuple(known.shape)} {known.dtype}")
    return known
