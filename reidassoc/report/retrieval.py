"""What the retrieval browser shows: for each query and method, the first gallery images and the average precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reidassoc.evaluation.nearest_images import Leaders
from reidassoc.report.chapters import Chapter, Method
from reidassoc.report.thumbnails import Sheets

PER_MILLE = 1000


def browsed(chapter: Chapter, sheets: Sheets) -> dict[str, Any] | None:
    """By protocol: ``{"side", "query": tiles, "row", "trials", "methods": [{"precision", "nearest"} or None]}``.

    ``precision`` is (T, Q) in per mille, None where nothing answers; ``nearest`` is (T, Q, ≤ 10) tiles of the gallery's sheet.
    Methods whose queries are others than the first one's are left out. None if no run kept any.
    """
    found = {}
    for protocol in chapter.protocols:
        first = next((held for method in chapter.methods if (held := leaders_of(method, protocol)) is not None), None)
        if first is None:
            continue
        found[protocol] = {
            "side": str(first.side),
            "query": sheets.places("test", first.side, first.query),
            "row": first.query.tolist(),
            "trials": len(first.nearest),
            "methods": [of_method(method, protocol, first, sheets) for method in chapter.methods],
        }
    return found or None


def leaders_of(method: Method, protocol: str) -> Leaders | None:
    held = method.example.exhibits
    return held.leaders.get(protocol) if held is not None else None


def of_method(method: Method, protocol: str, first: Leaders, sheets: Sheets) -> dict[str, Any] | None:
    held = leaders_of(method, protocol)
    if held is None or held.side != first.side or not np.array_equal(held.query, first.query):
        return None
    nearest = [
        [[place for place in sheets.places("test", first.side.other, rows) if place >= 0] for rows in trial]
        for trial in held.nearest
    ]
    return {"precision": precision_of(method, protocol, held), "nearest": nearest}


def precision_of(method: Method, protocol: str, held: Leaders) -> list[list[int | None]]:
    """(T, Q) average precision in per mille; None where it is unknown."""
    scores = method.example.scores.get(protocol)
    if (
        scores is None
        or len(scores.average_precision) < len(held.nearest)
        or not np.isin(held.query, scores.query).all()
    ):
        return [[None] * len(held.query) for _ in held.nearest]
    place = np.searchsorted(scores.query, held.query)
    return [
        [
            None if math.isnan(value) else round(PER_MILLE * float(value))
            for value in scores.average_precision[trial, place]
        ]
        for trial in range(len(held.nearest))
    ]
