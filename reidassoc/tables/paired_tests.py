"""What the queries that runs kept say of a table's rows: an interval for each, and tests of all against the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from reidassoc.evaluation.figures import mean_of
from reidassoc.evaluation.statistics import Comparison, compare, estimate, interval
from reidassoc.runs.result import ORACLE
from reidassoc.tables.read import Outcome


def interval_text(outcomes: Sequence[Outcome], protocol: str) -> str:
    """The mAP's bootstrap interval over seeds and people, or over seeds alone where no query was kept."""
    if stacked := matrix(outcomes, protocol):
        low, high = interval(*stacked)
        return f"{100 * low:.1f} to {100 * high:.1f}"
    means = [mean_of(o.data["protocols"][protocol]["mAP"]) for o in outcomes if protocol in o.data["protocols"]]
    known = [mean for mean in means if not math.isnan(mean)]
    if len(known) < 2:
        return ""
    found = estimate(known)
    return f"{found.low:.1f} to {found.high:.1f}"


def matrix(outcomes: Sequence[Outcome], protocol: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]] | None:
    """Average precision (S, Q) of a row's seeds and the queries' people, if all kept the same queries and some have a score."""
    held = [outcome.queries.get(protocol) for outcome in outcomes]
    known = [queries for queries in held if queries is not None]
    if not known or len(known) < len(held):
        return None
    if any(not np.array_equal(queries.person, known[0].person) for queries in known):
        return None
    stacked = np.stack([queries.precision for queries in known])
    return None if np.isnan(stacked).all() else (stacked, known[0].person)


def against_best(rows: Mapping[str, Sequence[Outcome]], protocol: str) -> list[Comparison]:
    """Paired tests of the row with the best mAP against every other one on the same queries, Holm-corrected together."""
    scores, people = {}, {}
    for name, outcomes in rows.items():
        if not is_oracle(outcomes) and (stacked := matrix(outcomes, protocol)):
            scores[name], people[name] = stacked
    if len(scores) < 2:
        return []
    best = max(scores, key=lambda name: float(np.nanmean(scores[name])))
    scores = {name: values for name, values in scores.items() if np.array_equal(people[name], people[best])}
    pairs = [(best, name) for name in scores if name != best]
    return compare(scores, people[best], pairs) if pairs else []


def is_oracle(outcomes: Sequence[Outcome]) -> bool:
    return any(ORACLE in outcome.data["flags"] for outcome in outcomes)
