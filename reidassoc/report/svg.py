"""Charts as inline SVG: colours come from the page's style sheet, so that they follow its light or dark scheme."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from html import escape

from reidassoc.report.charts import COLOURS, Curves, Dots, Line, short, ticks

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 38
SIDE = 300  # of a map
DASHES = ("", "6 3", "2 3")

Scale = Callable[[float], float]  # a value to its place in the picture


def curves(chart: Curves) -> str:
    """A figure with its title, its lines with their bands, and what a script needs to read values off it."""
    (x_low, x_high), (y_low, y_high) = chart.x_range, chart.y_range

    def x(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (y_high - value) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in ticks(x_low, x_high, 7):
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{short(tick)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts += [f'<path class="mark" d="M{x(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"/>' for mark in chart.marks]
    if chart.level:
        parts.append(f'<path class="level" d="M{LEFT} {y(chart.level[0]):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{WIDTH - RIGHT}" y="{y(chart.level[0]) - 5:.1f}" text-anchor="end">'
            f"{escape(chart.level[1])} {short(chart.level[0])}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    for line in chart.lines:
        band = f'<path class="band" d="{outline(line, x, y)}"/>' if line.low else ""
        dash = DASHES[line.colour // COLOURS % len(DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<g class="line m{line.colour % COLOURS}" data-method="{line.colour}">{band}'
            f'<path class="stroke"{dashed} d="{path(line, x, y)}"/>{ends(line, x, y)}</g>'
        )
    read = {
        "x": [x_low, x_high, LEFT / WIDTH, (WIDTH - RIGHT) / WIDTH],
        "label": chart.x_label,
        "lines": [[line.name, line.colour, points(line)] for line in chart.lines],
    }
    data = escape(json.dumps(read, ensure_ascii=False, allow_nan=False), quote=True)
    named = ", ".join(f"{line.name} {last(line)}" for line in chart.lines)
    return (
        f'<figure class="chart" data-lines="{data}"><figcaption>{escape(chart.title)} <small>{escape(chart.y_label)}</small>'
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{chart.title}; at the end: {named}")}">'
        f'{"".join(parts)}<path class="cursor" d=""/></svg><p class="readout" aria-live="polite"></p></figure>'
    )


def points(line: Line) -> list[list[float | None]]:
    return [[x, None if math.isnan(y) else round(y, 2)] for x, y in zip(line.x, line.y, strict=True)]


def last(line: Line) -> str:
    known = [value for value in line.y if not math.isnan(value)]
    return f"{known[-1]:.1f}" if known else "–"


def path(line: Line, x: Scale, y: Scale) -> str:
    """A polyline with gaps where a value is missing."""
    text, pen = [], "M"
    for a, b in zip(line.x, line.y, strict=True):
        if math.isnan(b):
            pen = "M"
            continue
        text.append(f"{pen}{x(a):.1f} {y(b):.1f}")
        pen = "L"
    return "".join(text)


def outline(line: Line, x: Scale, y: Scale) -> str:
    known = [(a, low, high) for a, low, high in zip(line.x, line.low, line.high, strict=True) if not math.isnan(low)]
    forth = [f"{x(a):.1f} {y(high):.1f}" for a, _, high in known]
    back = [f"{x(a):.1f} {y(low):.1f}" for a, low, _ in reversed(known)]
    return f"M{'L'.join([*forth, *back])}Z" if known else ""


def ends(line: Line, x: Scale, y: Scale) -> str:
    """A dot at the last value: the result is that of the last epoch."""
    known = [(a, b) for a, b in zip(line.x, line.y, strict=True) if not math.isnan(b)]
    return f'<circle class="end" cx="{x(known[-1][0]):.1f}" cy="{y(known[-1][1]):.1f}" r="3"/>' if known else ""


def dots(chart: Dots) -> str:
    """A map: visible images are discs, infrared ones triangles; people have colours."""
    parts = []
    for across, down, group, infrared in chart.points:
        x, y = 8 + across * (SIDE - 16), 8 + (1 - down) * (SIDE - 16)
        person = chart.groups[group]
        said = f"<title>person {person}, {'infrared' if infrared else 'visible'}</title>"
        where = f'class="dot g{group % 12}" data-group="{group}"'
        if infrared:
            parts.append(f'<path {where} d="M{x:.1f} {y - 4.6:.1f}l4.2 7.4h-8.4z">{said}</path>')
        else:
            parts.append(f'<circle {where} cx="{x:.1f}" cy="{y:.1f}" r="3.6">{said}</circle>')
    label = escape(f"map of the test features of {chart.title}", quote=True)
    return (
        f'<figure class="map"><figcaption>{escape(chart.title)}</figcaption>'
        f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'
    )
