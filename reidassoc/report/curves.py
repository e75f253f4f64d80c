"""Charts over epochs and over ranks: retrieval, label quality, CMC."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from reidassoc.evaluation.figures import mean_of
from reidassoc.evaluation.ranking import MAX_RANK
from reidassoc.report.chapters import Chapter, Method, Shown
from reidassoc.report.charts import Curves, Line, average, deviation
from reidassoc.tables.read import data_name

RANKS = tuple(range(1, MAX_RANK + 1))
SPARSE_RANKS = (1, 5, 10, 20)  # what a result without its queries still knows
Row = Mapping[str, Any]


def over_epochs(chapter: Chapter) -> list[Curves]:
    """Retrieval and label quality over epochs; charts of which no run knows more than one epoch are left out."""
    protocol = chapter.protocol
    people = known_people(chapter)
    epochs = [float(row["epoch"]) for run in chapter.runs for row in run.epochs]
    span = (min(epochs), max(epochs)) if epochs else None
    wanted: list[tuple[str, str, str, Callable[[Row], float], bool]] = [
        ("map", f"mAP, {protocol}", "percent", lambda row: retrieved(row, protocol, "mAP"), False),
        ("rank1", f"Rank-1, {protocol}", "percent", lambda row: retrieved(row, protocol, "rank1"), False),
        ("precision", "Pair precision across modalities", "percent", lambda row: quality(row, "precision_cross"), False),
        ("recall", "Pair recall across modalities", "percent", lambda row: quality(row, "recall_cross"), False),
        ("ari", "Adjusted Rand index, both modalities", "percent", lambda row: quality(row, "ari"), False),
        ("clusters", "Clusters of a modality", "mean of both", clusters, True),
    ]  # fmt: skip
    charts = []
    for name, title, unit, read, counted in wanted:
        lines = [line for method in chapter.methods if (line := line_over_epochs(method, read)) is not None]
        if any(len(line.x) > 1 for line in lines):
            level = (float(people), "people") if counted and people else None
            charts.append(Curves(name, title, "epoch", unit, tuple(lines), stage_starts(chapter), level, span))
    return charts


def line_over_epochs(method: Method, read: Callable[[Row], float]) -> Line | None:
    """Mean over the seeds at each epoch that any of them knows; None if none knows any."""
    found: dict[int, list[float]] = {}
    for run in method.runs:
        for row in run.epochs:
            if not math.isnan(value := read(row)):
                found.setdefault(int(row["epoch"]), []).append(value)
    if not found:
        return None
    return with_band(method, sorted(found), [found[epoch] for epoch in sorted(found)])


def with_band(method: Method, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    values = [[value if math.isfinite(value) else math.nan for value in held] for held in values]
    mean = tuple(average(held) for held in values)
    spread = tuple(deviation(held) for held in values)
    several = any(len(held) > 1 for held in values)
    low = tuple(m - s for m, s in zip(mean, spread, strict=True)) if several else ()
    high = tuple(m + s for m, s in zip(mean, spread, strict=True)) if several else ()
    return Line(method.name, method.colour, tuple(map(float, x)), mean, low, high)


def retrieved(row: Row, protocol: str, metric: str) -> float:
    found = row.get("retrieval", {}).get(protocol)
    return mean_of(found[metric]) if found and metric in found else math.nan


def quality(row: Row, name: str) -> float:
    """In percent, mean over the label spaces; NaN while no space holds both modalities, or where nobody knows."""
    labels = row.get("labels", {})
    spaces = [key.partition("/")[0] for key in labels if key.endswith("/precision_cross")]
    found = [labels[key] for space in spaces if (key := f"{space}/{name}") in labels]
    return 100 * statistics.fmean(found) if found else math.nan


def clusters(row: Row) -> float:
    found = row.get("clusters", {}).values()
    return statistics.fmean(found) if found else math.nan


def known_people(chapter: Chapter) -> int:
    """True identities of the training images, where all runs know the same number; else 0."""
    found = {
        value
        for run in chapter.runs
        for key, value in run.outcome.data.get("labels", {}).items()
        if key.endswith("/identities") and value is not None and math.isfinite(value)
    }
    return int(found.pop()) if len(found) == 1 else 0


def stage_starts(chapter: Chapter) -> tuple[float, ...]:
    """Epochs at which a later stage begins, if all runs agree on them."""
    found = {starts_of(run) for run in chapter.runs if run.epochs}
    return found.pop() if len(found) == 1 else ()


def starts_of(run: Shown) -> tuple[float, ...]:
    rows = run.epochs
    return tuple(float(b["epoch"]) for a, b in pairwise(rows) if a["stage"] != b["stage"])


def cmc(chapter: Chapter) -> list[Curves]:
    """CMC of every protocol that all runs have, mean over trials and seeds."""
    charts = []
    for protocol in chapter.protocols:
        lines = [cmc_line(method, protocol) for method in chapter.methods]
        name = "cmc-" + protocol.replace(" ", "-")
        charts.append(Curves(name, protocol, "rank", "percent of queries", tuple(lines)))
    return charts


def cmc_line(method: Method, protocol: str) -> Line:
    if all(protocol in run.scores for run in method.runs):
        values = [cmc_of(run, protocol) for run in method.runs]
        return with_band(method, RANKS, list(zip(*values, strict=True)))
    known = [run.outcome.data["protocols"][protocol] for run in method.runs]
    values = [tuple(mean_of(held.get(f"rank{rank}", {"mean": None})) for rank in SPARSE_RANKS) for held in known]
    return with_band(method, SPARSE_RANKS, list(zip(*values, strict=True)))


def cmc_of(run: Shown, protocol: str) -> tuple[float, ...]:
    """Percent at each rank: trials weigh the same, as in the table; NaN where no query has a match."""
    shares = []
    for first in run.scores[protocol].first:
        counted = np.bincount(np.minimum(first[first > 0], MAX_RANK + 1), minlength=MAX_RANK + 2)
        if counted.any():
            shares.append(counted[1 : MAX_RANK + 1].cumsum() / counted.sum())
    return tuple(float(100 * value) for value in np.mean(shares, axis=0)) if shares else (math.nan,) * MAX_RANK


def subtitle(chapter: Chapter) -> str:
    """Dataset and seeds."""
    seeds = sorted({run.outcome.seed for run in chapter.runs})
    return f"{data_name(chapter.runs[0].outcome.dataset)}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
