"""Scores of each query by itself: what paired tests between methods, and intervals over queries, are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reidassoc.errors import DataError
from reidassoc.evaluation.statistics import known_mean
from reidassoc.files.npz import read_npz
from reidassoc.types import Modality, Pair, Trial

if TYPE_CHECKING:
    from torch import Tensor

    from reidassoc.evaluation.retrieval import Retrieval

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

FIELDS = ("average_precision", "first", "query", "person")
EXPECTED = "it holds no scores of queries: run or evaluate the run again"


@dataclass(frozen=True)
class QueryScores:
    """How each of Q queries fared in each of T trials of one protocol.

    Args:
        average_precision: (T, Q) float32, fractions of 1; NaN where the query is not in the trial, or nothing answers it.
        first: (T, Q) int32 rank of the first match as CMC counts it, from 1; 0 where there is none.
        query: (Q,) int32 rows of ``test()`` of the query modality, ascending.
        person: (Q,) int32, equal for queries of the same person, numbered from 0 in the order of the rows.
    """

    average_precision: Floats
    first: Ints
    query: Ints
    person: Ints

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """(Q,) average precision of each query over the trials in which something answers it; NaN if there is none."""
        return known_mean(self.average_precision)


def query_scores(retrieval: Retrieval, *, trials: Sequence[Trial], identity: Pair[Tensor]) -> dict[str, QueryScores]:
    """Return the scores of every protocol.

    Args:
        retrieval: of the trials, in their order.
        trials: the dataset's.
        identity: (N,) int64 per modality, of the rows that trials index.
    """
    found = {}
    for protocol in retrieval.protocols:
        chosen = [(t, r) for t, r in zip(trials, retrieval.trials, strict=True) if t.protocol == protocol]
        side: Modality = chosen[0][0].query_modality
        rows = np.unique(np.concatenate([trial.query.numpy() for trial, _ in chosen]))
        precision = np.full((len(chosen), len(rows)), np.nan, np.float32)
        first = np.zeros((len(chosen), len(rows)), np.int32)
        for number, (trial, result) in enumerate(chosen):
            place = np.searchsorted(rows, trial.query.numpy())
            precision[number, place] = result.ranking.average_precision.numpy()
            first[number, place] = result.ranking.first.numpy()
        person = order_of_appearance(identity[side].cpu().numpy()[rows])
        found[protocol] = QueryScores(precision, first, rows.astype(np.int32), person)
    return found


def order_of_appearance(values: npt.NDArray[np.int64]) -> Ints:
    """Number the different values from 0, in the order in which they first come."""
    _, start, code = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(start))[code].astype(np.int32)


def save_scores(path: Path, scores: Mapping[str, QueryScores]) -> None:
    """Write scores as a compressed ``.npz`` with keys ``PROTOCOL/FIELD``."""
    columns = {f"{name}/{field}": getattr(score, field) for name, score in scores.items() for field in FIELDS}
    with open(path, "wb") as file:
        np.savez_compressed(file, **columns)


def load_scores(path: Path) -> dict[str, QueryScores]:
    """Read what ``save_scores`` wrote.

    Raises:
        DataError: the file is missing or of another kind, or its parts don't fit together.
    """
    held = read_npz(path, "scores of queries", EXPECTED)
    names = dict.fromkeys(key.rpartition("/")[0] for key in held)
    found = {}
    for name in names:
        try:
            columns = [held[f"{name}/{key}"] for key in FIELDS]
        except KeyError as error:
            raise DataError(f"{path} lacks {error}; {EXPECTED}") from None
        kinds = [(column.dtype.kind, column.ndim) for column in columns]
        if kinds != [("f", 2), ("i", 2), ("i", 1), ("i", 1)] or len({column.shape[-1] for column in columns}) != 1:
            raise DataError(f"{path}: {name} has shapes that don't fit; {EXPECTED}")
        if len(columns[0]) != len(columns[1]):
            raise DataError(f"{path}: {name} has two numbers of trials; {EXPECTED}")
        found[name] = QueryScores(*columns)  # type: ignore[arg-type]
    return found
