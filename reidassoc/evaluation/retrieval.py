"""Retrieval results of every protocol from one pass of features: each test image is embedded once, whatever the trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reidassoc.errors import DataError
from reidassoc.evaluation.presorted import rank_sorted
from reidassoc.evaluation.ranking import Ranking, nearest_first, rank, refuse_nan
from reidassoc.evaluation.rerank import Rerank
from reidassoc.ops.compiled.dispatch import compiled_ranking
from reidassoc.ops.unit_rows import unit_rows
from reidassoc.types import Modality, Pair, Trial

QUERY_CHUNK = 2048  # queries whose similarities to the whole gallery are held at once
REPORTED_RANKS = (1, 5, 10, 20)

Figure = dict[str, float | None]  # {"mean": …, "std": …}; None where no query has a match
Summary = dict[str, dict[str, Figure]]


@dataclass(frozen=True)
class TrialResult:
    """One trial's ranking and what it was: ``metrics`` holds percentages."""

    protocol: str
    number: int
    query_modality: Modality
    ranking: Ranking

    @property
    def metrics(self) -> dict[str, float]:
        """``rank1``, ``rank5``, ``rank10``, ``rank20``, ``mAP`` and ``mINP`` in percent; NaN if no query has a match."""
        cmc = self.ranking.cmc
        values = {f"rank{r}": 100 * float(cmc[r - 1]) for r in REPORTED_RANKS}
        values["mAP"] = 100 * self.ranking.mean_average_precision
        values["mINP"] = 100 * self.ranking.mean_inverse_penalty
        return values


@dataclass(frozen=True)
class Retrieval:
    """The results of all trials, in the order of the trials."""

    trials: tuple[TrialResult, ...]

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the protocols, in the order of their first trial."""
        return tuple(dict.fromkeys(result.protocol for result in self.trials))

    def of(self, protocol: str) -> tuple[TrialResult, ...]:
        return tuple(result for result in self.trials if result.protocol == protocol)

    @property
    def summary(self) -> Summary:
        """Percent: ``{protocol: {metric: {"mean": …, "std": …}}}``; the sample deviation over trials, 0 for a single one.

        Both are None where no query of any trial has a match: a mean over nothing is not 0.
        """
        return {protocol: summarise([result.metrics for result in self.of(protocol)]) for protocol in self.protocols}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers must know: queries that no gallery image answers."""
        found = []
        for protocol in self.protocols:
            results = self.of(protocol)
            worst = max((result.ranking for result in results), key=lambda ranking: ranking.left_out)
            if not any(len(result.ranking) for result in results):
                found.append(f"{protocol}: there is no query: no figure")
            elif not any(result.ranking.counted for result in results):
                found.append(f"{protocol}: none of {len(worst)} queries has a relevant gallery image: no figure")
            elif worst.left_out:
                found.append(
                    f"{protocol}: up to {worst.left_out} of {len(worst)} queries have no relevant gallery image, left out"
                )
        return tuple(found)


def summarise(metrics: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """Mean and sample standard deviation (divisor n − 1; 0 for n = 1) of each metric, over the trials that have it."""
    return {name: summary_of([entry[name] for entry in metrics]) for name in metrics[0]}


def summary_of(values: Sequence[float]) -> Figure:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"mean": None, "std": None}
    mean = math.fsum(known) / len(known)
    spread = math.fsum((value - mean) ** 2 for value in known) / max(len(known) - 1, 1)
    return {"mean": mean, "std": math.sqrt(spread)}


def retrieve(
    features: Pair[Tensor],
    *,
    identity: Pair[Tensor],
    camera: Pair[Tensor],
    trials: Sequence[Trial],
    rerank: Rerank | None = None,
) -> Retrieval:
    """Rank every trial's gallery for its queries by cosine.

    The distance is 1 − cosine; the rows are normalised again here, so that features of any length give the cosine
    order. A transductive ``rerank`` replaces it: it sees the queries and the gallery of one trial, never those of others.

    Args:
        features: (N, D) per modality, rows in the order of ``dataset.test()``.
        identity: (N,) int64 per modality; negative = unknown: such gallery images are left out, such queries have no match.
        camera: (N,) int64 per modality; negative = unknown: not the same as any other.
        trials: the dataset's trials; their rows index the above.
        rerank: a test-time step of :mod:`reidassoc.evaluation.rerank`; its figures must be kept apart.

    Returns:
        One result per trial, in the order given.

    Raises:
        ValueError: lengths differ.
        DataError: a feature is not finite.

    Examples:
        >>> from reidassoc.types import Rule
        >>> eye, ids = torch.eye(2), torch.arange(2)
        >>> columns = {"query": ids, "gallery": ids, "query_modality": Modality.VISIBLE}
        >>> trial = Trial(protocol="whole gallery", number=0, rule=Rule(), **columns)
        >>> result = retrieve(Pair(eye, eye), identity=Pair(ids, ids), camera=Pair(ids, ids), trials=[trial])
        >>> result.summary["whole gallery"]["rank1"]
        {'mean': 100.0, 'std': 0.0}
    """
    for modality in Modality:
        lengths = {len(features[modality]), len(identity[modality]), len(camera[modality])}
        if len(lengths) != 1:
            raise ValueError(f"{modality}: features, identity and camera differ in length: {sorted(lengths)}")
    unit = features.map(unit_rows)
    if rerank is not None:
        return Retrieval(tuple(reranked(unit, trial, identity, camera, rerank) for trial in trials))
    parts: dict[int, list[Ranking]] = {number: [] for number in range(len(trials))}
    for modality in Modality:
        wanted = [number for number, trial in enumerate(trials) if trial.query_modality == modality]
        for start in range(0, len(unit[modality]) if wanted else 0, QUERY_CHUNK):
            stop = min(start + QUERY_CHUNK, len(unit[modality]))
            similarity = unit[modality][start:stop] @ unit[modality.other].T
            distance = 1 - similarity
            several = len(wanted) > 1 and compiled_ranking(distance.device) is not None
            order = None
            if several:  # one sort serves all trials
                refuse_nan(distance)
                order = nearest_first(distance).int()
            for number in wanted:
                parts[number].append(rank_trial(distance, trials[number], start, identity, camera, order))
    results = []
    for number, trial in enumerate(trials):
        ranking = in_query_order(parts[number], trial)
        results.append(TrialResult(trial.protocol, trial.number, trial.query_modality, ranking))
    return Retrieval(tuple(results))


def reranked(
    unit: Pair[Tensor], trial: Trial, identity: Pair[Tensor], camera: Pair[Tensor], rerank: Rerank
) -> TrialResult:
    """One trial, its distances made from its own queries and gallery together."""
    side, query, gallery = trial.query_modality, trial.query.cpu(), trial.gallery.cpu()
    rows, theirs = unit[side][query.to(unit[side].device)], unit[side.other][gallery.to(unit[side.other].device)]
    if not all(bool(torch.isfinite(x).all()) for x in (rows, theirs)):
        raise DataError(
            "the features to rerank hold NaN or infinite values: the run has diverged; take an earlier checkpoint"
        )
    ranking = rank(
        rerank(rows, theirs),
        query_identity=identity[side].cpu()[query],
        gallery_identity=identity[side.other].cpu()[gallery],
        query_camera=camera[side].cpu()[query],
        gallery_camera=camera[side.other].cpu()[gallery],
        rule=trial.rule,
    )
    return TrialResult(trial.protocol, trial.number, side, ranking)


def rank_trial(
    distance: Tensor, trial: Trial, start: int, identity: Pair[Tensor], camera: Pair[Tensor], order: Tensor | None
) -> Ranking:
    """Rank those queries of a trial that lie in rows ``start`` … of the distance chunk, sorted already or not."""
    here = (trial.query >= start) & (trial.query < start + len(distance))
    query, gallery, side = trial.query[here], trial.gallery, trial.query_modality
    rows = (query - start).to(distance.device)
    asked = {"query_identity": identity[side].cpu()[query], "query_camera": camera[side].cpu()[query]}
    shown, taken = identity[side.other].cpu(), camera[side.other].cpu()
    if order is not None:
        ranking = rank_sorted(
            order, distance, rows, gallery, gallery_identity=shown, gallery_camera=taken, rule=trial.rule, **asked
        )
        if ranking is not None:
            return ranking
    whole = len(rows) == len(distance) and bool((rows.diff() == 1).all())
    chosen = distance if whole else distance[rows]
    return rank(
        chosen[:, gallery.to(distance.device)],
        gallery_identity=shown[gallery],
        gallery_camera=taken[gallery],
        rule=trial.rule,
        **asked,
    )


def in_query_order(parts: list[Ranking], trial: Trial) -> Ranking:
    """Undo the chunking: the joined parts are ordered by chunk, then by place in the trial's query list."""
    if not parts:
        empty = torch.zeros(0, dtype=torch.float64)
        return Ranking(torch.zeros(0, dtype=torch.int64), empty, empty)
    joined = Ranking.join(parts)
    place = (trial.query // QUERY_CHUNK).argsort(stable=True).argsort()
    return Ranking(joined.first[place], joined.average_precision[place], joined.inverse_penalty[place])
