"""Every protocol of a dataset from one network: each test image is embedded once, with its mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import reidassoc.registry as registry
from reidassoc.data.progress import Say, silent
from reidassoc.data.store import ImageStore
from reidassoc.engine import checkpoint
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.extract import extract
from reidassoc.errors import DataError, RecipeError
from reidassoc.evaluation.queries import QueryScores, query_scores
from reidassoc.evaluation.rerank import Rerank
from reidassoc.evaluation.rerank import transductive as make_step
from reidassoc.evaluation.retrieval import Retrieval, retrieve
from reidassoc.interfaces.plugins import Dataset
from reidassoc.recipe.model import Recipe
from reidassoc.registry.spec import Spec, several
from reidassoc.runs.folder import RunFolder
from reidassoc.types import Pair, Trial

TRANSDUCTIVE = "transductive: ranks each trial's queries and gallery together"


@dataclass(frozen=True)
class Evaluation:
    """A dataset's test images and trials, ready for one network after another."""

    stores: Pair[ImageStore]
    identity: Pair[Tensor]
    trials: tuple[Trial, ...]
    batch: int

    def __call__(self, network: nn.Module, fabric: Fabric) -> Retrieval:
        return self.score(self.embed(network, fabric))

    def embed(self, network: nn.Module, fabric: Fabric, progress: Say = silent) -> Pair[Tensor]:
        """(N, D) unit features of all test images, each averaged with its mirror image's, on the CPU."""
        found = extract(network, self.stores, fabric, batch=self.batch, mirror=True, progress=progress)
        return found.map(lambda features: features.x.cpu())

    def score(self, features: Pair[Tensor], rerank: Rerank | None = None) -> Retrieval:
        """Rank every trial; with a transductive step, from that trial's queries and gallery together."""
        camera = self.stores.map(lambda store: store.records.camera)
        return retrieve(features, identity=self.identity, camera=camera, trials=self.trials, rerank=rerank)

    def scores(self, retrieval: Retrieval) -> dict[str, QueryScores]:
        """How each query fared, by protocol."""
        return query_scores(retrieval, trials=self.trials, identity=self.identity)


def prepare_evaluation(dataset: Dataset, recipe: Recipe, progress: Say = silent) -> Evaluation | None:
    """Load the test images; None if the dataset has no trials. An image that can't be read is refused."""
    trials = tuple(dataset.trials())
    if not trials:
        return None
    records = dataset.test()
    identity = records.map(dataset.identity)
    if identity.visible is None or identity.infrared is None:
        raise DataError("the dataset's test images have no identities; retrieval can't be scored without them")
    stores = records.map(lambda images: ImageStore(images, size=recipe.size, strict=True, say=progress))
    return Evaluation(stores, Pair(identity.visible, identity.infrared), trials, recipe.extract_batch)


def evaluate(
    run: str | PathLike[str],
    *,
    dataset: str | None = None,
    root: str | Path | None = None,
    device: str | torch.device = "auto",
    transductive: str | Sequence[str] = (),
    progress: Say = silent,
) -> dict[str, Any]:
    """Evaluate the newest checkpoint of a run under every protocol of its dataset, or of another one.

    Args:
        run: a run folder, or a run's result.
        dataset: spec of the dataset to test on; the run's own if not given.
        root: where it lies, if it is kept on disk.
        device: as for ``run``.
        transductive: test-time steps to report beside the plain result, such as ``"cmfp(k=30)"`` or ``"k_reciprocal"``.
        progress: takes a line a minute, such as ``print``.

    Returns:
        ``{"epoch": …, "dataset": …, "protocols": {protocol: {metric: {"mean", "std"}}}, "notes": […]}``, in percent; and,
        if asked for, ``"transductive": {step: {"flags": […], "protocols": …}}``: each step's own figures, kept apart.

    Raises:
        ReidassocError: the run, its checkpoint or the dataset can't be used; a RegDB split other than the trained one.
    """
    steps = [make_step(text) for text in several(transductive)]
    folder = RunFolder.open(Path(run))
    recipe = folder.recipe
    spec = asked_for(folder.dataset, dataset, root)
    if root is None and spec.options.get("root") == folder.dataset.options.get("root"):
        folder.refuse_missing(spec)
    tested, trained = registry.build("datasets", spec), registry.build("datasets", folder.dataset)
    refuse_leak(tested, trained)
    fabric = open_device(device, recipe.precision)
    evaluation = prepare_evaluation(tested, recipe, progress)
    if evaluation is None:
        raise DataError(f"{spec} has no trials: it lists no query or gallery images")
    network = registry.build("networks", untrained(recipe.network)).build(size=recipe.size).to(fabric.device)
    data = checkpoint.newest(folder, fabric.device)
    checkpoint.load_network(network, data)
    features = evaluation.embed(network, fabric, progress)
    result = evaluation.score(features)
    apart = {
        name: {"flags": [TRANSDUCTIVE], "protocols": evaluation.score(features, rerank).summary}
        for name, rerank in steps
    }
    return {
        "epoch": data["epoch"] - 1,
        "dataset": str(spec),
        "protocols": result.summary,
        "notes": list(result.notes),
        **({"transductive": apart} if apart else {}),
    }


def untrained(spec: Spec) -> Spec:
    """The network without its initial weights, where it has any: a checkpoint replaces them."""
    return spec.with_options(weights="none") if hasattr(registry.get("networks", spec.name), "weights") else spec


def asked_for(trained: Spec, dataset: str | None, root: str | Path | None) -> Spec:
    """The dataset to test on: the trained one's options stay where it is the same, and nothing else is said.

    >>> str(asked_for(Spec.parse("regdb(root='/data', split=3)"), "regdb", "/mnt"))
    "regdb(root='/mnt', split=3)"
    """
    spec = Spec.parse(dataset) if dataset else trained
    if spec.name == trained.name:
        spec = Spec(spec.name, {**trained.options, **spec.options})
    return spec if root is None else spec.with_options(root=root)


def refuse_leak(tested: Dataset, trained: Dataset) -> None:
    """Raise RecipeError if the test identities were trained on: another split of the same dataset."""
    for one, other in product(tested.members(), trained.members()):
        if type(one) is type(other) and getattr(one, "split", None) != getattr(other, "split", None):
            raise RecipeError(
                f"the run trained on split {getattr(other, 'split', '?')}; "
                f"split {getattr(one, 'split', '?')} tests identities that it has seen"
            )
