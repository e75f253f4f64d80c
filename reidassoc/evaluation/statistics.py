"""What figures of several seeds and many queries allow one to say: spread, intervals, and whether two methods differ.

Everything is deterministic: random draws come from a seed that is an argument. Queries of one person are not independent
of each other, so they are drawn, and their signs flipped, together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 2000
PERMUTATIONS = 9999
EXACT_BLOCKS = 13  # up to so many people all 2^n sign patterns are tried
CHUNK = 512  # draws made at once


@dataclass(frozen=True)
class Estimate:
    """Mean and spread of one figure over n runs.

    Args:
        mean: over the runs.
        std: sample standard deviation (divisor n − 1); NaN for one run.
        low, high: bootstrap interval of the mean; NaN for one run.
        count: n.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int


def estimate(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean, sample deviation and percentile bootstrap interval of the mean of independent runs.

    With few runs the interval is too short: for three it can't leave their range. It is a description, not a test.

    Raises:
        ValueError: there is no value, or ``level`` is not between 0 and 1.

    >>> estimate([58.0, 60.0, 62.0]).std
    2.0
    """
    check_level(level)
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        raise ValueError("an estimate needs at least one value")
    mean = math.fsum(x) / len(x)
    if len(x) == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1)
    std = math.sqrt(math.fsum((x - mean) ** 2) / (len(x) - 1))
    drawn = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = ends(x[drawn].mean(1), level)
    return Estimate(mean, std, low, high, len(x))


def interval(scores: Floats, person: Ints, *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of a mean over seeds and queries: seeds are drawn, and, apart from them, people.

    Args:
        scores: (S, Q), one row per seed; NaN where a query is left out.
        person: (Q,), equal for queries of one person.
        level: of the interval.
        seed: of the draws.

    Returns:
        Its lower and upper end. With a single seed it holds for this trained network alone.

    Raises:
        ValueError: shapes differ, no query has a score, or ``level`` is not between 0 and 1.
    """
    check_level(level)
    totals, counts = blocks(scores, person)  # (S, G) each
    random = np.random.default_rng(seed)
    seeds, people = totals.shape
    means = []
    for start in range(0, RESAMPLES, CHUNK):
        n = min(CHUNK, RESAMPLES - start)
        weight_s = random.multinomial(seeds, np.full(seeds, 1 / seeds), n).astype(np.float64)
        weight_p = random.multinomial(people, np.full(people, 1 / people), n).astype(np.float64)
        means.append(((weight_s @ totals) * weight_p).sum(1) / ((weight_s @ counts) * weight_p).sum(1))
    return ends(np.concatenate(means), level)


def permutation_test(difference: Floats, person: Ints, *, seed: int = 0) -> float:
    """Two-sided p-value of "the mean difference is zero" by flipping the signs of each person's differences together.

    Args:
        difference: (Q,), method A minus method B for each query; NaN where either is left out.
        person: (Q,), equal for queries of one person.
        seed: of the draws, used where there are too many people to try all sign patterns.

    Raises:
        ValueError: lengths differ, or no query has a difference.
    """
    totals, _ = blocks(difference[None], person)
    sums = totals[0]
    observed = abs(sums.sum())
    slack = observed * (1 - 1e-12)  # the pattern that was observed counts, whatever the order of the additions
    if len(sums) <= EXACT_BLOCKS:
        patterns = 1 - 2.0 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float((np.abs(patterns @ sums) >= slack).mean())
    random = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, PERMUTATIONS, CHUNK):
        signs = random.integers(0, 2, (min(CHUNK, PERMUTATIONS - start), len(sums)), dtype=np.int8)
        extreme += int((np.abs((1 - 2.0 * signs) @ sums) >= slack).sum())
    return (extreme + 1) / (PERMUTATIONS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """One method against another on the same queries.

    Args:
        first, second: their names.
        difference: of the means, first minus second, in the unit of the scores.
        p_value: of the paired test, before correction.
        adjusted: after Holm's, over all comparisons made together.
    """

    first: str
    second: str
    difference: float
    p_value: float
    adjusted: float

    def distinguishable(self, level: float = 0.05) -> bool:
        """Whether the corrected p-value is below the level."""
        return self.adjusted < level


def compare(
    scores: Mapping[str, Floats], person: Ints, pairs: Sequence[tuple[str, str]], *, seed: int = 0
) -> list[Comparison]:
    """Test pairs of methods on the same queries, each method's scores averaged over its seeds first.

    What is tested is whether these trained networks differ on queries like these; the spread over seeds stands beside it.

    Args:
        scores: (S, Q) of each method.
        person: (Q,), equal for queries of one person.
        pairs: names of the methods to test against each other.
        seed: of the draws.

    Raises:
        ValueError: numbers of queries differ, or two methods have no query in common.
    """
    means = {name: known_mean(values) for name, values in scores.items()}
    differences = [means[first] - means[second] for first, second in pairs]
    p_values = [permutation_test(difference, person, seed=seed) for difference in differences]
    return [
        Comparison(first, second, float(np.nanmean(difference)), p_value, adjusted)
        for (first, second), difference, p_value, adjusted in zip(
            pairs, differences, p_values, holm(p_values), strict=True
        )
    ]


def known_mean(scores: npt.NDArray[np.floating]) -> Floats:
    """(Q,) mean of (R, Q) scores over those rows, seeds or trials, that have one; NaN for a query without any."""
    known = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, scores, 0.0).sum(0, dtype=np.float64) / known.sum(0)
    return mean


def blocks(scores: Floats, person: Ints) -> tuple[Floats, Floats]:
    """Sum and number of the known scores of each seed and person, (S, G) each; people without any are left out."""
    if scores.ndim != 2 or person.shape != (scores.shape[1],):
        raise ValueError(f"scores must be (S, Q) and person (Q,), got {scores.shape} and {person.shape}")
    _, code = np.unique(person, return_inverse=True)
    known = ~np.isnan(scores)
    one_hot = np.zeros((len(code), int(code.max()) + 1 if len(code) else 0))
    one_hot[np.arange(len(code)), code] = 1.0
    totals, counts = np.where(known, scores, 0.0) @ one_hot, known.astype(np.float64) @ one_hot
    kept = counts.sum(0) > 0
    if not kept.any():
        raise ValueError("no query has a score")
    return totals[:, kept], counts[:, kept]


def ends(means: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, as 0.95, got {level}")
