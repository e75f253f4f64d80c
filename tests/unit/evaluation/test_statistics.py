"""Statistics over seeds and queries: against SciPy, by their properties, and that they are repeatable."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from reidassoc.errors import DataError
from reidassoc.evaluation.queries import QueryScores, load_scores, query_scores, save_scores
from reidassoc.evaluation.retrieval import retrieve
from reidassoc.evaluation.statistics import compare, estimate, holm, interval, known_mean, permutation_test
from reidassoc.types import Modality, Pair, Rule, Trial


def test_an_estimate_is_that_of_numpy() -> None:
    values = [58.0, 59.5, 61.0, 57.2]
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert min(values) < found.low < found.mean < found.high < max(values)
    assert found.count == 4
    assert estimate(values) == found
    single = estimate([3.0])
    assert (single.mean, single.count) == (3.0, 1)
    assert math.isnan(single.std)
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        estimate([1.0, 2.0], level=95)


def test_a_bootstrap_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).normal(size=60)
    found = estimate(list(values))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    people = np.arange(60)
    assert interval(values[None], people) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_queries_of_one_person_count_as_one() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=30)
    people = np.arange(30)
    narrow = interval(values[None], people)
    same = interval(np.repeat(values, 10)[None], np.repeat(people, 10))
    fooled = interval(np.repeat(values, 10)[None], np.arange(300))
    assert same == pytest.approx(narrow)
    assert fooled[1] - fooled[0] < 0.5 * (same[1] - same[0])
    seeds = values[None] + np.array([[-1.0], [0.0], [1.0]])
    assert interval(seeds, people)[1] > narrow[1]  # seeds that differ widen it
    assert interval(seeds, people, seed=1) != interval(seeds, people)


def test_the_sign_flip_test_is_that_of_scipy() -> None:
    random = np.random.default_rng(3)
    for people, tolerance in ((9, 1e-12), (40, 0.012)):
        difference = random.normal(0.3, 1.0, people)
        theirs = stats.permutation_test(
            (difference,), np.mean, permutation_type="samples", n_resamples=19999 if people > 20 else np.inf, rng=0
        ).pvalue
        assert permutation_test(difference, np.arange(people)) == pytest.approx(theirs, abs=tolerance)


def test_the_test_keeps_its_level_and_finds_what_is_there() -> None:
    random = np.random.default_rng(4)
    people = np.repeat(np.arange(12), 5)
    wrong = sum(permutation_test(random.normal(size=12)[people], people) < 0.05 for _ in range(300))
    assert wrong < 300 * 0.08
    careless = sum(permutation_test(random.normal(size=12)[people], np.arange(60)) < 0.05 for _ in range(60))
    assert careless > 60 * 0.2  # what treating the queries as independent would have claimed
    assert permutation_test(random.normal(1.0, 0.5, 60), people) < 0.01
    assert permutation_test(np.zeros(60), people) == 1.0


def test_holm_is_the_textbook_s() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_compare_averages_seeds_and_leaves_unanswered_queries_out() -> None:
    random = np.random.default_rng(5)
    easy = random.uniform(0.2, 0.9, 80)
    scores = {
        "a": easy + 0.05 + random.normal(0, 0.02, (3, 80)),
        "b": easy + random.normal(0, 0.02, (3, 80)),
        "c": easy + random.normal(0, 0.02, (2, 80)),
    }
    scores["a"][:, 0] = np.nan
    scores["b"][1, 1] = np.nan
    found = compare(scores, np.arange(80), [("a", "b"), ("b", "c")])
    assert found[0].difference == pytest.approx(0.05, abs=0.01)
    assert found[0].distinguishable()
    assert not found[1].distinguishable()
    assert found[0].adjusted == pytest.approx(2 * found[0].p_value)
    assert np.isnan(known_mean(scores["a"])[0])
    with pytest.raises(ValueError, match=r"scores must be \(S, Q\) and person \(Q,\)"):
        compare({"a": scores["a"], "b": scores["b"]}, np.arange(79), [("a", "b")])
    with pytest.raises(ValueError, match="no query has a score"):
        permutation_test(np.full(3, np.nan), np.arange(3))


def test_scores_of_queries_are_kept_per_trial(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    features = Pair(*(torch.nn.functional.normalize(torch.randn(6, 4, generator=generator), dim=1) for _ in range(2)))
    identity = Pair(torch.tensor([5, 5, 3, 3, 9, 9]), torch.tensor([9, 3, 5, 3, 9, 7]))
    camera = identity.map(torch.zeros_like)

    def trial(number: int, query: list[int]) -> Trial:
        rows = {"query": torch.tensor(query), "gallery": torch.arange(6), "query_modality": Modality.INFRARED}
        return Trial(protocol="all-search", number=number, rule=Rule(), **rows)

    trials = [trial(0, [0, 1, 2, 5]), trial(1, [3, 2, 1])]
    retrieval = retrieve(features, identity=identity, camera=camera, trials=trials)
    scores = query_scores(retrieval, trials=trials, identity=identity)
    save_scores(tmp_path / "q.npz", scores)
    found = load_scores(tmp_path / "q.npz")["all-search"]
    assert isinstance(found, QueryScores)
    assert found.query.tolist() == [0, 1, 2, 3, 5]
    assert found.person.tolist() == [0, 1, 2, 1, 3]
    first, second = (result.ranking.average_precision.float().numpy() for result in retrieval.trials)
    expected = np.array(
        [[first[0], first[1], first[2], np.nan, np.nan], [np.nan, second[2], second[1], second[0], np.nan]]
    )
    np.testing.assert_array_equal(found.average_precision, expected)
    np.testing.assert_allclose(found.mean[[0, 3]], [first[0], second[0]])
    assert np.isnan(found.mean[4])  # nobody in the gallery is person 7
    assert found.first[0, 4] == 0
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="holds no scores of queries"):
        load_scores(tmp_path / "bad.npz")
