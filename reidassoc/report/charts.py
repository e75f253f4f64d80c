"""Charts as data: what is drawn, without how. ``svg`` draws them on the page, ``pdf`` for papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

COLOURS = 10  # then they start again, with another dash


@dataclass(frozen=True)
class Line:
    """One method's curve, with the spread over its seeds.

    Args:
        name: of the method.
        colour: its number.
        x, y: equally long; y may hold NaN where the curve has a gap.
        low, high: the band around y; empty for a single seed.
    """

    name: str
    colour: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Curves:
    """Lines over one axis.

    Args:
        name: of the file that a figure of it goes to.
        title, x_label, y_label: shown.
        marks: x of dotted vertical lines: where a stage begins.
        level: y of a dashed horizontal line, such as the true number of people; with what it means.
        span: of the axis; that of the lines if not given.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    marks: tuple[float, ...] = ()
    level: tuple[float, str] | None = None
    span: tuple[float, float] | None = None

    @property
    def x_range(self) -> tuple[float, float]:
        values = [*(self.span or ()), *(x for line in self.lines for x in line.x)]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        return (low, high) if high > low else (low - 0.5, low + 0.5)

    @property
    def y_range(self) -> tuple[float, float]:
        """From zero, or a little below the lowest value where all lie far from it, to a little above the highest."""
        values = [y for line in self.lines for y in (*line.y, *line.low, *line.high) if not math.isnan(y)]
        values += [self.level[0]] if self.level else []
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        margin = 0.06 * (high - low or 1.0)
        return (0.0 if low < 0.5 * high else low - margin), high + margin


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, each made of the same parts.

    Args:
        parts: their names.
        rows: (name, value of each part).
    """

    name: str
    title: str
    x_label: str
    parts: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Dots:
    """Points in a plane without axes.

    Args:
        points: (x, y, group, whether it is infrared), x and y in [0, 1]; groups are coloured.
    """

    name: str
    title: str
    points: tuple[tuple[float, float, int, bool], ...]
    groups: tuple[int, ...] = field(default=())


Chart = Curves | Bars | Dots


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within a range, about ``count`` of them.

    >>> ticks(0, 63.6)
    [0.0, 20.0, 40.0, 60.0]
    """
    raw = (high - low) / max(count - 1, 1)
    if raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's label."""
    return f"{value:g}"


def average(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation of the known ones; 0 for a single one."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return 0.0
    mean = math.fsum(known) / len(known)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
