"""Features of any magnitude give the same labels; rows of zeros are refused with their number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import reidassoc as ra
from reidassoc import Features, Pair, registry
from reidassoc.errors import DataError
from reidassoc.files.features import FeatureFile, read_features
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.unit_rows import rows_off_unit, unit_rows, zero_rows
from reidassoc.pipeline import associate, cluster
from reidassoc.testing import toy_features, toy_scene

FACTORS = (1e-38, 1e-25, 1e-19, 1e-13, 1e19, 1e25, 1e37)
CLUSTERERS = ("dbscan(k1=8, k2=4)", "mixed(k1=8, k2=4)", "hdbscan", "kmeans(clusters=6)")


def crowd() -> Pair[np.ndarray[Any, np.dtype[np.float64]]]:
    """Six people, eight images in each modality."""
    draw = np.random.default_rng(0)
    people = draw.normal(size=(6, 16))
    return Pair(*(np.repeat(people, 8, axis=0) + 0.2 * draw.normal(size=(48, 16)) for _ in range(2)))


def labels(x: Pair[Any], clusterer: str) -> list[list[int]]:
    found = ra.associate("nearest", *x, clusterer=clusterer, device="cpu")
    return [values.tolist() for values in (*found.own, *found.cross)]


@pytest.mark.parametrize("clusterer", CLUSTERERS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_features_of_any_magnitude_give_the_same_labels(clusterer: str, kind: type[np.floating[Any]]) -> None:
    wanted = labels(crowd(), clusterer)
    more = () if kind is np.float32 else (1e-300, 1e300)
    for factor in (*FACTORS, *more):
        assert labels(crowd().map(lambda x: (x * factor).astype(kind)), clusterer) == wanted, factor  # noqa: B023


@pytest.mark.parametrize("factor", FACTORS)
def test_features_objects_and_files_are_of_any_magnitude(factor: float, tmp_path: Path) -> None:
    wanted = labels(crowd(), CLUSTERERS[0])
    scaled = crowd().map(lambda x: (x * factor).astype(np.float32))
    np.savez(tmp_path / "mine.npz", visible=scaled.visible, infrared=scaled.infrared)
    assert labels(scaled.map(lambda x: Features(torch.from_numpy(x))), CLUSTERERS[0]) == wanted
    assert labels(read_features(tmp_path / "mine.npz").features, CLUSTERERS[0]) == wanted


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 5),
    width=st.integers(1, 40),
    power=st.integers(-105, 120),
    double=st.booleans(),
)
def test_powers_of_two_change_no_bit(seed: int, rows: int, width: int, power: int, double: bool) -> None:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    plain = unit_rows(x)
    torch.testing.assert_close(plain, F.normalize(x, dim=1), rtol=0, atol=1e-6)
    ordinary = x.abs() > 2**-20  # what is smaller may leave float32's normal numbers, and lose digits
    scaled = torch.where(ordinary, x, 0).to(torch.float64 if double else torch.float32) * 2.0**power
    exact = unit_rows(torch.where(ordinary, x, 0))
    assert unit_rows(scaled).equal(exact)


@settings(deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    double=st.booleans(),
)
def test_finite_values_make_unit_rows_or_zeros(values: list[float], double: bool) -> None:
    x = torch.tensor([values], dtype=torch.float64 if double else torch.float32)
    unit = unit_rows(x)
    assert unit.dtype == torch.float32
    assert bool(zero_rows(x)) == bool(zero_rows(unit)) == (not any(values))
    assert not rows_off_unit(unit[~torch.tensor([not any(values)])])


def test_unit_rows_of_many_axes_types_and_none() -> None:
    assert unit_rows(torch.ones(2, 3, 4).half()).equal(torch.full((2, 3, 4), 0.5))
    assert unit_rows(torch.zeros(0, 4)).shape == (0, 4)
    assert not unit_rows(torch.ones(2, 2, requires_grad=True)).requires_grad
    broken = unit_rows(torch.tensor([[float("inf"), 1.0], [float("nan"), 1.0], [0.0, 5e-324]]))
    assert broken.isfinite().all(dim=1).tolist() == [False, False, True]


def use_arrays(x: Pair[Any], folder: Path) -> None:
    ra.associate("nearest", *x, device="cpu")


def use_features(x: Pair[Any], folder: Path) -> None:
    ra.associate("nearest", *x.map(Features), device="cpu")


def use_lab(x: Pair[Any], folder: Path) -> None:
    ra.lab(FeatureFile(x.map(Features), None), associators="nearest", device="cpu")


def use_advice(x: Pair[Any], folder: Path) -> None:
    np.savez(folder / "mine.npz", visible=x.visible, infrared=x.infrared)
    ra.advise(folder / "mine.npz", device="cpu")


def use_clusterer(x: Pair[Any], folder: Path) -> None:
    cluster(registry.build("clusterers", "hdbscan"), x.map(Features))


def use_associator(x: Pair[Any], folder: Path) -> None:
    associate(registry.build("associators", "mult"), Scene(0, 0, x.map(Features), toy_scene().clustering))


@pytest.mark.parametrize("use", [use_arrays, use_features, use_lab, use_advice, use_clusterer, use_associator])
def test_rows_of_zeros_are_refused_with_their_number(use: Callable[[Any, Path], None], tmp_path: Path) -> None:
    x = toy_features().map(lambda f: f.x.clone().numpy())
    x.infrared[[3, 7]] = 0
    with pytest.raises(DataError, match=r"^the infrared features have only zeros in 2 of 51 rows \(first: row 3\)"):
        use(x, tmp_path)
