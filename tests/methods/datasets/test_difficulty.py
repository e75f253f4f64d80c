"""How hard the default synthetic pedestrians are, fixed without any associator. Only the recipe may be tuned after this."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import reidassoc as ra
from reidassoc import registry
from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import normalise
from reidassoc.evaluation.retrieval import retrieve
from reidassoc.interfaces.plugins import Dataset
from reidassoc.recipe.choose import choose
from reidassoc.types import Modality, Pair
from reidassoc_plugins.networks.tiny import GRID, OrientedEdges

PROTOCOL = "all-search single-shot"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    made: Dataset = registry.build("datasets", "synthetic")
    return made


@pytest.fixture(scope="module")
def pictures(dataset: Dataset) -> Pair[Tensor]:
    """All test images, (N, 3, 64, 32) uint8 per modality."""
    return dataset.test().map(lambda records: ImageStore(records, size=(64, 32)).read(torch.arange(len(records))))


def mean_average_precision(dataset: Dataset, features: Pair[Tensor]) -> float:
    records = dataset.test()
    identity = Pair.build(lambda m: dataset.identity(records[m]))
    trials = [trial for trial in dataset.trials() if trial.protocol == PROTOCOL]
    result = retrieve(features, identity=identity, camera=records.map(lambda r: r.camera), trials=trials)  # type: ignore[arg-type]
    return result.summary[PROTOCOL]["mAP"]["mean"]


@pytest.fixture(scope="module")
def chance(dataset: Dataset, pictures: Pair[Tensor]) -> float:
    """mAP of random rankings."""
    generator = torch.Generator().manual_seed(0)
    draws = [pictures.map(lambda p: torch.randn(len(p), 16, generator=generator)) for _ in range(5)]
    return float(np.mean([mean_average_precision(dataset, features) for features in draws]))


def test_raw_pixels_say_next_to_nothing_across_modalities(
    dataset: Dataset, pictures: Pair[Tensor], chance: float
) -> None:
    raw = mean_average_precision(dataset, pictures.map(lambda p: p.float().flatten(1)))
    assert raw <= 2 * chance, f"raw pixels {raw:.1f} mAP, chance {chance:.1f}"


def test_oriented_edges_say_something(dataset: Dataset, pictures: Pair[Tensor], chance: float) -> None:
    edges = OrientedEdges(GRID)
    found = mean_average_precision(dataset, pictures.map(lambda p: edges(normalise(p)).flatten(1)))
    assert 3 * chance <= found <= 8 * chance, f"edges {found:.1f} mAP, chance {chance:.1f}"


def test_stage_1_learns_each_modality(
    dataset: Dataset, pictures: Pair[Tensor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Leave-one-out Rank-1 within each modality of unseen identities, after stage 1 alone."""
    from reidassoc.engine import checkpoint
    from reidassoc.runs.folder import RunFolder

    recipe = choose(recipe="base/synthetic", changes=[("intra.epochs", 8), ("evaluate_every", 0)])
    folder = tmp_path_factory.mktemp("stage") / "run"
    ra.run(recipe, out=folder, device="cpu")
    network = registry.build("networks", recipe.network).build(size=recipe.size)
    checkpoint.load_network(network, checkpoint.newest(RunFolder(folder), torch.device("cpu")))
    network.eval()
    records = dataset.test()
    for modality in Modality:
        with torch.no_grad():
            z = network({str(modality): normalise(pictures[modality])})[str(modality)].z
        similarity = F.normalize(z, dim=1) @ F.normalize(z, dim=1).T
        identity = dataset.identity(records[modality])
        assert identity is not None
        nearest = similarity.fill_diagonal_(-2).argmax(1)
        rank1 = float((identity[nearest] == identity).float().mean())
        assert rank1 >= 0.8, f"{modality}: Rank-1 {100 * rank1:.1f} %"
