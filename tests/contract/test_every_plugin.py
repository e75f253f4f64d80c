"""Every registered plug-in keeps its contract, and has a parity test and a property test: a new name without them fails here."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import reidassoc as ra
from reidassoc import Association, Features, Pair, SoftLabels, Targets, registry
from reidassoc.errors import DataError
from reidassoc.interfaces.plugins import KINDS
from reidassoc.pipeline import associate, cluster
from reidassoc.testing import (
    CASES,
    check_associator,
    check_clusterer,
    check_network,
    check_objective,
    check_outliers,
    check_refiner,
    pretended_device,
    toy_features,
    toy_identity,
    toy_scene,
)

TESTS = Path(__file__).resolve().parents[1]
CONTRACTS = {
    "clusterers": check_clusterer,
    "associators": check_associator,
    "refiners": check_refiner,
    "objectives": check_objective,
    "networks": check_network,
}
NEEDS_A_FILE = {("associators", "from_file")}  # its labels fit one scene: its own test calls the contract check
REQUIRED = {  # options without a default, or too large a one, as the contract check sets them
    ("networks", "two_stream"): "two_stream(depth=18, weights='none')",
    ("networks", "vit"): "vit(backbone='test_vit', weights='none')",
    ("clusterers", "kmeans"): "kmeans(clusters=5)",
    ("clusterers", "sklearn"): "sklearn(estimator='AgglomerativeClustering(n_clusters=5)')",
}

# (kind, name) -> parity test (golden vectors, or an independent oracle), property test
TRUST = {
    ("clusterers", "dbscan"): (
        "test_dbscan.py::test_parity",
        "test_dbscan.py::test_permuting_samples_permutes_the_partition",
    ),
    ("clusterers", "hdbscan"): (
        "test_clusterers.py::test_hdbscan_parity",
        "test_clusterers.py::test_clear_clusters_are_found_in_any_order",
    ),
    ("clusterers", "identity"): (
        "test_clusterers.py::test_identity_parity",
        "test_clusterers.py::test_identity_follows_the_order_of_samples_and_modalities",
    ),
    ("clusterers", "kmeans"): (
        "test_clusterers.py::test_kmeans_parity",
        "test_clusterers.py::test_clear_clusters_are_found_in_any_order",
    ),
    ("clusterers", "infomap"): (
        "test_clusterers.py::test_infomap_parity",
        "test_clusterers.py::test_clear_clusters_are_found_in_any_order",
    ),
    ("clusterers", "sklearn"): (
        "test_clusterers.py::test_sklearn_parity",
        "test_clusterers.py::test_clear_clusters_are_found_in_any_order",
    ),
    ("clusterers", "mixed"): (
        "test_mixed.py::test_the_distance_is_the_published_one_and_so_are_its_clusters",
        "test_mixed.py::test_the_order_of_samples_and_modalities_does_not_matter",
    ),
    ("associators", "mult"): ("test_mult.py::test_parity", "test_mult.py::test_permuting_samples_permutes_rows"),
    ("associators", "mult_near"): (
        "test_mult.py::test_mult_near_with_all_pairs_is_mult",
        "test_mult.py::test_mult_near_permutes_with_the_samples",
    ),
    ("associators", "nearest"): (
        "test_baselines.py::test_nearest_is_the_centroid_of_largest_cosine",
        "test_baselines.py::test_symmetries",
    ),
    ("associators", "random"): ("test_baselines.py::test_random_is_a_matching", "test_baselines.py::test_random_swap"),
    ("associators", "oracle"): ("test_baselines.py::test_oracle_is_the_majority", "test_baselines.py::test_symmetries"),
    ("associators", "mmm"): (
        "test_mmm.py::test_greedy_matching_is_the_published_one",
        "test_mmm.py::test_permuting_samples_permutes_rows",
    ),
    ("associators", "salcr"): ("test_salcr.py::test_parity", "test_salcr.py::test_permuting_and_swapping"),
    ("associators", "dagi"): ("test_salcr.py::test_parity", "test_salcr.py::test_permuting_and_swapping"),
    ("associators", "unison"): (
        "test_unison.py::test_without_its_ingredients_it_is_balanced_transport_of_cluster_sizes",
        "test_unison.py::test_permuting_and_swapping",
    ),
    ("associators", "otla"): (
        "test_rivals.py::test_otla_parity_with_the_published_code",
        "test_rivals.py::test_symmetries",
    ),
    ("associators", "clu"): ("test_rivals.py::test_clu_against_a_plain_reading", "test_rivals.py::test_symmetries"),
    ("associators", "brst"): ("test_rivals.py::test_brst_against_a_plain_reading", "test_rivals.py::test_symmetries"),
    ("associators", "rpnr"): (
        "test_rivals.py::test_rpnr_is_the_largest_entry_of_the_plan",
        "test_rivals.py::test_symmetries",
    ),
    ("associators", "nulc"): ("test_rivals.py::test_nulc_against_a_plain_reading", "test_rivals.py::test_symmetries"),
    ("associators", "pgm"): (
        "test_matching.py::test_parity_with_the_published_code",
        "test_matching.py::test_symmetries",
    ),
    ("associators", "bccm"): (
        "test_matching.py::test_parity_with_the_published_code",
        "test_matching.py::test_symmetries",
    ),
    ("associators", "cma"): (
        "test_matching.py::test_cma_against_a_plain_reading",
        "test_matching.py::test_symmetries",
    ),
    ("associators", "cclnet"): (
        "test_matching.py::test_cclnet_maximises_similarity_and_drops_weak_pairs",
        "test_matching.py::test_symmetries",
    ),
    ("associators", "from_file"): (
        "test_from_file.py::test_round_trip_with_associate",
        "test_from_file.py::test_swapping_the_modalities_of_file_and_scene_swaps_the_answer",
    ),
    ("refiners", "mix"): (
        "test_baselines.py::test_mix_is_beta_hard_and_the_rest_soft",
        "test_baselines.py::test_mix_permutes_with_its_rows",
    ),
    ("refiners", "oclr"): (
        "test_objectives.py::test_a_step_of_amirl_and_oclr_is_the_published_one",
        "test_objectives.py::test_permuting_the_batch_changes_no_loss",
    ),
    ("refiners", "gpcr"): (
        "test_gpcr.py::test_its_losses_are_the_published_ones",
        "test_gpcr.py::test_permuting_the_batch_or_swapping_the_modalities_changes_nothing",
    ),
    ("refiners", "propagate"): (
        "test_refiners.py::test_propagate_is_the_formula",
        "test_refiners.py::test_permuting_samples_permutes_rows",
    ),
    ("refiners", "agree"): (
        "test_refiners.py::test_agree_against_a_plain_reading",
        "test_refiners.py::test_permuting_samples_permutes_rows",
    ),
    ("refiners", "proximity"): (
        "test_refiners.py::test_proximity_against_a_plain_reading",
        "test_refiners.py::test_permuting_samples_permutes_rows",
    ),
    ("objectives", "dcl"): (
        "test_objectives.py::test_dcl_is_one_cross_entropy_per_modality_without_outliers",
        "test_objectives.py::test_permuting_the_batch_changes_no_loss",
    ),
    ("objectives", "amirl"): (
        "test_objectives.py::test_a_step_of_amirl_and_oclr_is_the_published_one",
        "test_objectives.py::test_permuting_the_batch_changes_no_loss",
    ),
    ("objectives", "acl"): (
        "test_objectives.py::test_acl_visits_the_other_bank_by_turns",
        "test_objectives.py::test_permuting_the_batch_changes_no_loss",
    ),
    ("objectives", "dual"): (
        "test_objectives.py::test_dual_is_the_published_global_loss",
        "test_objectives.py::test_permuting_the_batch_changes_no_loss",
    ),
    ("objectives", "joint"): (
        "test_mixed.py::test_joint_is_three_cross_entropies",
        "test_mixed.py::test_permuting_the_batch_changes_no_loss_of_joint",
    ),
    ("objectives", "fgsal"): (
        "test_fgsal.py::test_its_losses_are_the_published_ones",
        "test_fgsal.py::test_permuting_the_batch_changes_no_loss",
    ),
    ("objectives", "classifier"): (
        "test_classifier.py::test_it_is_a_weighted_cross_entropy_and_a_triplet",
        "test_classifier.py::test_permuting_the_batch_changes_no_loss",
    ),
    ("objectives", "sca"): (
        "test_sca.py::test_it_is_what_its_description_says",
        "test_sca.py::test_permuting_a_modalitys_rows_changes_no_loss",
    ),
}


def built_in(*kinds: str) -> list[tuple[str, str]]:
    return [(kind, name) for kind in kinds for name in registry.names(kind)]


@cache
def checked_in(file: str) -> set[str]:
    tree = ast.parse(next(TESTS.rglob(file)).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any(_asserts(n) for n in ast.walk(node))
    }


def _asserts(node: ast.AST) -> bool:
    """Whether a node asserts, expects an error, or calls a check that does."""
    called = getattr(node, "func", None)
    name = getattr(called, "attr", getattr(called, "id", ""))
    return (
        isinstance(node, ast.Assert)
        or name in {"raises", "gradcheck", "assert_close", "close"}
        or name.startswith(("check", "assert"))
    )


@pytest.mark.parametrize(("kind", "name"), [p for p in built_in(*CONTRACTS) if p not in NEEDS_A_FILE], ids=str)
def test_contract(kind: str, name: str) -> None:
    check: Any = CONTRACTS[kind]
    check(registry.build(kind, REQUIRED.get((kind, name), name)))


@pytest.mark.parametrize(
    ("kind", "name"), [p for p in built_in("clusterers", "associators") if p not in NEEDS_A_FILE], ids=str
)
def test_broken_features_are_refused(kind: str, name: str) -> None:
    """By the pipeline, before the plug-in sees them: no file of labels may come from a diverged network."""
    part: Any = registry.build(kind, REQUIRED.get((kind, name), name))
    scene = toy_scene()
    x = scene.features.infrared.x.clone()
    x[5, 2] = float("nan")
    features = Pair(scene.features.visible, Features(x))

    def use() -> object:
        if kind == "clusterers":
            return cluster(part, features, identity=toy_identity())
        return associate(part, replace(scene, features=features), toy_identity())

    with pytest.raises(
        DataError, match=r"the infrared features have NaN or infinite values in 1 of \d+ rows \(first: row 5\)"
    ):
        use()


def answer(kind: str, name: str, device: torch.device | str = "cpu") -> list[torch.Tensor]:
    """What a plug-in that makes or changes labels says of the toy scene."""
    part: Any = registry.build(kind, REQUIRED.get((kind, name), name))
    scene = CASES["ordinary"].scene(device=device)
    identity = toy_identity().map(lambda numbers: numbers.to(device))
    if kind == "clusterers":
        return [clusters.labels for clusters in cluster(part, scene.features, identity=identity).own]
    if kind == "associators":
        found = associate(part, scene, identity)
        return [of.prob for pair in (found.cross, found.own) if pair is not None for of in pair]
    soft = scene.features.map(lambda f: SoftLabels(torch.softmax(5 * f.x[:, :8], dim=1)))
    targets = Targets.compose(scene.clustering, Association(cross=soft, own=soft))
    return [x for of in part.refine(scene, targets).table.values() for x in (of.prob, of.weight)]


ASSOCIATORS = [name for kind, name in built_in("associators") if (kind, name) not in NEEDS_A_FILE]
LABELLING = [p for p in built_in("clusterers", "associators", "refiners") if p not in NEEDS_A_FILE]


@pytest.mark.parametrize(("kind", "name"), LABELLING, ids=str)
def test_labels_are_as_precise_whatever_the_training_loop_allowed_itself(kind: str, name: str) -> None:
    """Under autocast a neighbour list at eight bits would be another one."""
    plain = answer(kind, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, plain, answer(kind, name)))


@pytest.mark.parametrize(("kind", "name"), LABELLING, ids=str)
def test_labels_are_the_same_with_a_gpus_manners(kind: str, name: str) -> None:
    """No operand in two places, no draw that depends on the device, no matrix of all pairs copied to the host."""
    count = min(len(features) for features in toy_scene().features)
    with pretended_device(to_host=count * count - 1) as device:
        there = answer(kind, name, device)
        assert all(x.device == device for x in there)
        found = [x.cpu() for x in there]
    for one, other in zip(found, answer(kind, name), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), [p for p in built_in(*CONTRACTS) if p not in NEEDS_A_FILE], ids=str)
def test_contract_with_a_gpus_manners(kind: str, name: str) -> None:
    if kind != "networks":  # networks are moved whole, and run in tests/unit/engine/test_pretended_training.py
        check: Any = CONTRACTS[kind]
        cases = {case: CASES[case] for case in ("far_more_visible", "one_sample")}
        with pretended_device() as device:
            check(registry.build(kind, REQUIRED.get((kind, name), name)), cases, device)


@pytest.mark.parametrize("name", ASSOCIATORS)
def test_no_table_is_read_at_an_outliers_minus_one(name: str) -> None:
    check_outliers(registry.build("associators", name))


@pytest.mark.parametrize("name", ASSOCIATORS)
def test_anybodys_features(name: str) -> None:
    """Half precision gives the labels of the same numbers in single precision; a modality without images gets no labels."""
    spec, identity = str(REQUIRED.get(("associators", name), name)), toy_identity()
    half = toy_features().map(lambda f: f.x.half())

    def labels(visible: torch.Tensor, infrared: torch.Tensor) -> Pair[Any]:
        known = Pair(identity.visible, identity.infrared[: len(infrared)])
        found = ra.associate(spec, visible, infrared, clusterer="dbscan(k1=10)", identity=known, device="cpu")
        return found.cross

    for found, same in zip(labels(*half), labels(*half.map(torch.Tensor.float)), strict=True):
        assert (found == same).all()
    alone = labels(half.visible, half.infrared[:0])
    assert (alone.visible == -1).all()
    assert len(alone.infrared) == 0


@pytest.mark.parametrize(("kind", "name"), built_in("clusterers", "associators", "refiners", "objectives"), ids=str)
def test_parity_and_property_are_tested(kind: str, name: str) -> None:
    assert (kind, name) in TRUST, f"{kind} {name}: name its parity and its property test in TRUST"
    for test in TRUST[kind, name]:
        file, _, function = test.partition("::")
        assert function in checked_in(file), f"{test} does not exist, or asserts nothing"


@pytest.mark.parametrize(("kind", "name"), built_in(*KINDS), ids=str)
def test_it_says_what_it_is(kind: str, name: str) -> None:
    cls = registry.get(kind, name)
    claim = registry.find(kind, name).claim
    assert claim.endswith("."), f"{name}: the first line of its docstring is its claim"
    assert cls.__dataclass_params__.frozen, f"{name} must be frozen"  # type: ignore[attr-defined]
