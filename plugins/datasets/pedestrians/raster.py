"""Integer drawing: convex polygons on a canvas of material numbers, the same on every machine.

A picture is 16384 ticks tall and 8192 ticks wide whatever its size in pixels, so a figure is described once and drawn at any
resolution. A canvas contains one small number per sample: three times a material plus a tone (shade, plain, light). Which colour
that is, the camera decides later. No floating-point number takes part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

TALL = 16384  # ticks from the top to the bottom of a picture
WIDE = 8192  # ticks from its left to its right edge
ONE = 1024  # what `sine` calls 1
TONES = 3  # shade, plain, light
EDGES = 12  # the most edges a polygon may have

Point = tuple[int, int]
Index = npt.NDArray[np.uint8]
Ticks = npt.NDArray[np.int64]


def sine(degrees: int) -> int:
    """Sine of whole degrees, times 1024, by Bhaskara's rational approximation (error below 0.002): integers only."""
    turn = degrees % 360
    half = turn % 180
    arc = half * (180 - half)
    value = 4 * ONE * arc // (40500 - arc)
    return value if turn < 180 else -value


def cosine(degrees: int) -> int:
    """Cosine of whole degrees, times 1024."""
    return sine(degrees + 90)


def root(square: int) -> int:
    """The whole part of a square root."""
    guess = square
    while guess * guess > square:
        guess = (guess + square // guess) // 2
    return guess


def capsule(start: Point, end: Point, start_radius: int, end_radius: int) -> list[Point]:
    """A limb: two discs and what lies between them, as a convex polygon of eight corners."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length = max(1, root(along_x * along_x + along_y * along_y))
    corners = []
    # Round each end by four corners, at 90 and 30 degrees to either side of the axis.
    for (x, y), radius, sign in ((start, start_radius, -1), (end, end_radius, 1)):
        for ahead, aside in ((0, -8), (7, -4), (7, 4), (0, 8)):
            forward, sideways = sign * ahead * radius, sign * aside * radius
            corners.append(
                (
                    x + (forward * along_x - sideways * along_y) // (8 * length),
                    y + (forward * along_y + sideways * along_x) // (8 * length),
                )
            )
    return corners


def ellipse(centre: Point, across: int, down: int) -> list[Point]:
    """An ellipse with the given half-axes, as a polygon of twelve corners."""
    return [(centre[0] + across * cosine(a) // ONE, centre[1] + down * sine(a) // ONE) for a in range(15, 375, 30)]


def box(left: int, top: int, right: int, bottom: int) -> list[Point]:
    """An upright rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


@dataclass(frozen=True, kw_only=True)
class Print:
    """A pattern on cloth: where it is, the next material number is painted instead.

    It lives in the coordinates of the cloth: `origin` is the middle of the neck line, `squeeze` (times 1024) how much the turn
    of the body narrows it. Lengths are in ticks.
    """

    kind: str = "plain"  # plain, bars, poles, checks, block, disc, yoke, sash, dots
    period: int = 800  # from one bar to the next, or the size of what stands alone
    duty: int = 400  # how much of that is printed
    origin: Point = (0, 0)
    squeeze: int = ONE

    def covers(self, columns: Ticks, rows: Ticks) -> npt.NDArray[np.bool_]:
        """Where the print is: (rows, columns) bool."""
        return np.broadcast_to(self._covers(columns, rows), (len(rows), len(columns)))

    def _covers(self, columns: Ticks, rows: Ticks) -> Any:  # numpy types its operators so
        """The same, of any shape that broadcasts to it: bars depend on the row alone."""
        across = ((columns - self.origin[0]) * ONE // max(self.squeeze, 256))[None, :]
        down = (rows - self.origin[1])[:, None]
        period, duty = self.period, self.duty
        if self.kind == "bars":
            return down % period < duty
        if self.kind == "poles":
            return (across + duty // 2) % period < duty
        if self.kind == "checks":
            return ((across + duty // 2) % period < duty) ^ (down % period < duty)
        if self.kind == "block":
            return (abs(across) < period * 3 // 4) & (down > 900) & (down < 900 + 2 * duty)
        if self.kind == "disc":
            return across * across + (down - 1500) ** 2 < period * period * 3 // 4
        if self.kind == "yoke":
            return down < 700 + duty
        if self.kind == "sash":
            return abs(across + (down - 1700) * 3 // 4) < duty
        if self.kind == "dots":
            return ((across % period - period // 2) ** 2 + (down % period - period // 2) ** 2) < duty * duty // 2
        return np.False_


@dataclass(kw_only=True)
class Canvas:
    """Collects polygons back to front, then draws them all at once.

    `samples` is how many samples a pixel has in each direction. `light` is the side the light comes from: +1 right, -1 left.
    """

    height: int
    width: int
    samples: int = 2
    light: int = 1
    shapes: list[tuple[list[Point], int, Print | None, bool]] = field(default_factory=list)

    def paint(self, corners: Sequence[Point], material: int, *, cloth: Print | None = None, flat: bool = False) -> None:
        """Put a convex polygon (at most twelve corners) on top of what is there; `flat` leaves its tones out."""
        self.shapes.append((list(corners), material, cloth, flat))

    def render(self) -> Index:
        """The picture as (height * samples, width * samples) uint8 of TONES * material + tone."""
        rows, columns = self.height * self.samples, self.width * self.samples
        row = (2 * np.arange(rows, dtype=np.int64) + 1) * TALL // (2 * rows)
        column = (2 * np.arange(columns, dtype=np.int64) + 1) * WIDE // (2 * columns)
        row_list, column_list = row.tolist(), column.tolist()
        drawn = np.ones((rows, columns), dtype=np.uint8)  # material 0 in its plain tone
        left, right = self._spans(row)
        for number, (corners, material, cloth, flat) in enumerate(self.shapes):
            top = bisect_left(row_list, min(y for _, y in corners))
            bottom = bisect_left(row_list, max(y for _, y in corners))
            first = bisect_left(column_list, min(x for x, _ in corners))
            last = bisect_left(column_list, max(x for x, _ in corners))
            if top >= bottom or first >= last:
                continue
            here = column[first:last]
            start, stop = left[number, top:bottom, None], right[number, top:bottom, None]
            inside = (here >= start) & (here < stop)
            value: Index | int = TONES * material + 1
            if not flat:
                # Light falls from one side: the outer fifth there is light, the far third is in shade.
                breadth = stop - start
                lit = here >= stop - breadth // 5 if self.light > 0 else here < start + breadth // 5
                dim = here < start + breadth // 3 if self.light > 0 else here >= stop - breadth // 3
                value = np.uint8(TONES * material + 1) + lit.view(np.uint8) - dim.view(np.uint8)
            if cloth is not None:
                value = value + TONES * cloth.covers(here, row[top:bottom]).astype(np.uint8)
            np.copyto(drawn[top:bottom, first:last], value, where=inside, casting="unsafe")
        return drawn

    def _spans(self, row: Ticks) -> tuple[Ticks, Ticks]:
        """Where each row enters and leaves each shape: two (shapes, rows) arrays of ticks."""
        padded = [[*(corners + [corners[-1]] * EDGES)[: EDGES - 1], corners[-1]] for corners, _, _, _ in self.shapes]
        corner = np.array(padded, dtype=np.int64)
        following = np.roll(corner, -1, axis=1)
        x, y = corner[..., 0], corner[..., 1]
        rise = following[..., 1] - y
        # Slope in 1/4096 ticks; a level edge crosses no row, so its slope is never used.
        slope = ((following[..., 0] - x) << 12) // np.where(rise == 0, 1, rise)
        lower, upper = np.minimum(y, following[..., 1]), np.maximum(y, following[..., 1])
        shape = (len(self.shapes), len(row))
        left, right = np.full(shape, WIDE * 4, dtype=np.int64), np.full(shape, -WIDE * 4, dtype=np.int64)
        for edge in range(EDGES):
            meets = (row >= lower[:, edge, None]) & (row < upper[:, edge, None])
            crossing = x[:, edge, None] + ((row - y[:, edge, None]) * slope[:, edge, None] >> 12)
            np.minimum(left, crossing, out=left, where=meets)
            np.maximum(right, crossing, out=right, where=meets)
        return left, right
