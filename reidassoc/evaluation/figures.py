"""A stored figure, ``{"mean": …, "std": …}`` in percent, as a number and as text; a dash where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping

NOTHING = "–"


def mean_of(figure: Mapping[str, float | None]) -> float:
    """The mean; NaN where no query has a match.

    >>> mean_of({"mean": 59.4, "std": 1.6}), mean_of({"mean": None, "std": None})
    (59.4, nan)
    """
    mean = figure["mean"]
    return math.nan if mean is None else float(mean)


def figure_text(mean: float | None, std: float | None = None) -> str:
    """One digit after the point, with the deviation if there is one.

    >>> figure_text(59.44, 1.6), figure_text(59.44), figure_text(None)
    ('59.4 ± 1.6', '59.4', '–')
    """
    if mean is None or math.isnan(mean):
        return NOTHING
    return f"{mean:.1f}" if std is None or math.isnan(std) else f"{mean:.1f} ± {std:.1f}"
