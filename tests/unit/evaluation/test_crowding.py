"""One line points to `reidassoc advise` where one cluster contains more than a third of a modality's samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import reidassoc as ra
from reidassoc import Clusters, Pair
from reidassoc.cli import cli
from reidassoc.evaluation.crowding import crowding
from reidassoc.files.features import FeatureFile, write_features
from reidassoc.testing import toy_features, toy_identity

MERGED, APART = "dbscan(k1=30)", "dbscan(k1=10)"
HINT = "`reidassoc advise FILE` suggests eps and k1."
TOY = FeatureFile(toy_features(), toy_identity())


@pytest.mark.parametrize(
    ("labels", "share"), [([], 0.0), ([-1, -1], 0.0), ([0], 1.0), ([0, 1, -1, 1], 0.5), ([0, 1, 2], 1 / 3)]
)
def test_the_largest_cluster_s_share_is_of_all_samples(labels: list[int], share: float) -> None:
    assert Clusters(torch.tensor(labels, dtype=torch.int64), torch.zeros(3, 2)).largest == share


def test_the_hint_names_each_modality_above_a_third() -> None:
    assert crowding(Pair(1 / 3, 0.2)) == ""
    assert crowding(Pair(0.34, 0.2)) == f"One cluster contains 34 % of the visible samples; {HINT}"
    both = "One cluster contains 97 % of the visible samples, one 95 % of the infrared samples; `reidassoc advise 'a b.npz'`"
    assert crowding(Pair(0.97, 0.95), "a b.npz").startswith(both)


def test_associate_prints_the_hint_where_clusters_merged(tmp_path: Path) -> None:
    merged, apart = (ra.associate("nearest", *TOY.features, clusterer=c, device="cpu") for c in (MERGED, APART))
    assert min(merged.largest) > 1 / 3 > max(apart.largest)
    assert str(merged).endswith(HINT)
    assert "advise" not in str(apart)
    write_features(file := tmp_path / "toy.npz", TOY)
    words = [
        "associate",
        str(file),
        "--associator",
        "nearest",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "labels.npz"),
    ]
    hint = f"; `reidassoc advise {file}` suggests eps and k1."
    for clusterer, shown in ((MERGED, True), (APART, False)):
        done = CliRunner().invoke(cli, [*words, "--clusterer", clusterer])
        assert (done.exit_code, hint in done.stdout) == (0, shown)


def test_the_lab_prints_the_hint_under_its_table(tmp_path: Path) -> None:
    merged, apart, both = (
        ra.lab(TOY, clusterers=clusterers, associators=["nearest", "pgm"], device="cpu")
        for clusterers in (MERGED, APART, [MERGED, APART])
    )
    assert str(merged).splitlines()[-1].endswith(HINT)
    assert "advise" not in str(apart)
    assert [line for line in str(both).splitlines() if "advise" in line] == [
        f"{MERGED}: {str(merged).splitlines()[-1]}"
    ]
    write_features(file := tmp_path / "toy.npz", TOY)
    done = CliRunner().invoke(
        cli, ["lab", str(file), "--clusterer", MERGED, "--associator", "nearest", "--device", "cpu"]
    )
    assert f"; `reidassoc advise {file}` suggests eps and k1.\n1 combination in" in done.stdout
