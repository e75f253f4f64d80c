"""Draw the pictures of the docs: ``python docs/make_pictures.py``; with run folders, that of a report on them."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import reidassoc as ra
from reidassoc_plugins.datasets.pedestrians.world import World, sheet

IMAGES = Path(__file__).parent / "images"
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"

# The line that data follows. A box: column, row, title, what it holds, and whether it is a plug-in.
BOXES = {
    "images": (0, 0, "images", "visible, infrared", False),
    "network": (1, 0, "network", "one vector per image", True),
    "features": (2, 0, "features", "(N, D) per modality", False),
    "clusterer": (3, 0, "clusterer", "groups each modality", True),
    "scene": (4, 0, "scene", "features and clusters", False),
    "associator": (4, 1, "associator", "labels across modalities", True),
    "targets": (3, 1, "targets", "labels by modality, space", False),
    "refiner": (2, 1, "refiners", "repair labels", True),
    "objective": (1, 1, "objectives", "losses against banks", True),
    "evaluation": (0, 1, "evaluation", "retrieval, label quality", False),
}
ARROWS = (
    ("images", "network"), ("network", "features"), ("features", "clusterer"), ("clusterer", "scene"),
    ("scene", "associator"), ("associator", "targets"), ("targets", "refiner"), ("refiner", "objective"),
    ("objective", "network"), ("network", "evaluation"),
)  # fmt: skip
WIDTH, HEIGHT, GAP, DROP, EDGE = 168, 58, 34, 74, 12
PLUGIN, VALUE, INK = "#3f51b5", "#eceff1", "#37474f"


def corner(name: str) -> tuple[int, int]:
    column, row = BOXES[name][:2]
    return EDGE + column * (WIDTH + GAP), EDGE + row * (HEIGHT + DROP)


def line() -> str:
    """The picture of the concepts page, as SVG."""
    wide, high = 5 * WIDTH + 4 * GAP + 2 * EDGE, 2 * HEIGHT + DROP + 2 * EDGE + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" role="img">',
        "<title>images, network, features, clusterer, scene, associator, targets, refiners, objectives, network</title>",
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>',
    ]
    for start, end in ARROWS:
        (x, y), (u, v) = corner(start), corner(end)
        if y == v:
            x, u = (x + WIDTH, u) if u > x else (x, u + WIDTH)
            y = v = y + HEIGHT // 2
        elif v > y:
            x, u, y = x + WIDTH // 2, u + WIDTH // 2, y + HEIGHT
        else:
            x, u, v = x + WIDTH // 2, u + WIDTH // 2, v + HEIGHT
        parts.append(f'<path d="M{x} {y}L{u} {v}" stroke="{INK}" stroke-width="1.6" marker-end="url(#tip)"/>')
    for name, (_, _, title, text, plugin) in BOXES.items():
        x, y = corner(name)
        fill, ink = (PLUGIN, "#ffffff") if plugin else (VALUE, INK)
        middle = x + WIDTH // 2
        parts += [
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{fill}"/>',
            f'<text x="{middle}" y="{y + 25}" text-anchor="middle" font-size="16" font-weight="bold" fill="{ink}">{title}</text>',
            f'<text x="{middle}" y="{y + 44}" text-anchor="middle" font-size="12.5" fill="{ink}">{text}</text>',
        ]
    parts.append(
        f'<text x="{EDGE}" y="{high - 12}" font-size="13" fill="{INK}">blue: a plug-in, which you can exchange; '
        "grey: a value, or what the engine does. Once per epoch; steps repeat objectives and network.</text>"
    )
    return "\n".join([*parts, "</svg>", ""])


# How the label stage grows. Of each panel: title, key in the record, first and last power of ten, and its stages.
PANELS = (
    ("processor seconds", "cpu_seconds", (-2, 3), ("dbscan", "neighbours", "jaccard", "mult", "salcr")),
    ("peak above the imports, GiB", "peak_gib", (-1, 1), ("mult", "salcr")),
)
CURVES = {  # stage: its label, colour (Okabe and Ito's), dashes
    "dbscan": ("DBSCAN", "#7a7a7a", "2 3"),
    "neighbours": ("neighbours", "#0072b2", "7 4"),
    "jaccard": ("Jaccard", "#009e73", "none"),
    "mult": ("mult", "#8e24aa", "none"),
    "salcr": ("salcr", "#d55e00", "none"),
}
SQUARE, PANEL_LEFT, PANEL_TOP, LABELS, LETTER = 300, 52, 34, 84, 15


def growth(rows: Sequence[Mapping[str, Any]]) -> str:
    """Time and memory of the label stage against the number of visible images, log-log, as SVG."""
    wide, high = len(PANELS) * (PANEL_LEFT + SQUARE + LABELS), PANEL_TOP + SQUARE + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" '
        'font-size="12.5" role="img">',
        "<title>Time and memory of the label stage against the number of visible images</title>",
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(PANELS):
        parts += axes(rows, number * (PANEL_LEFT + SQUARE + LABELS) + PANEL_LEFT, panel)
    return "\n".join([*parts, "</svg>", ""])


def axes(
    rows: Sequence[Mapping[str, Any]], left: int, panel: tuple[str, str, tuple[int, int], Sequence[str]]
) -> list[str]:
    """One panel of :func:`growth`, its plot's left edge at ``left``."""
    title, key, (low, high), stages = panel
    bottom = PANEL_TOP + SQUARE

    def x(images: float) -> float:
        return left + SQUARE * math.log(images / 8000) / math.log(250_000 / 8000)

    def y(value: float) -> float:
        return bottom - SQUARE * (math.log10(value) - low) / (high - low)

    parts = [f'<text x="{left}" y="20" font-weight="bold" fill="{INK}">{title}</text>']
    for power in range(low, high + 1):
        parts += [
            f'<path d="M{left} {y(10**power):.1f}h{SQUARE}" stroke="#dfe3e6"/>',
            f'<text x="{left - 7}" y="{y(10**power) + 4:.1f}" text-anchor="end" fill="{INK}">{10**power:g}</text>',
        ]
    for row in rows:
        at, count = x(row["visible"]), f"{row['visible'] // 1000} 000"
        parts += [
            f'<path d="M{at:.1f} {PANEL_TOP}V{bottom}" stroke="#dfe3e6"/>',
            f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle" font-size="11" fill="{INK}">{count}</text>',
        ]
    middle = left + SQUARE / 2
    parts.append(f'<text x="{middle}" y="{bottom + 40}" text-anchor="middle" fill="{INK}">visible images</text>')
    free = math.inf  # the next label stands at least a line above the last one
    for stage in stages:
        label, colour, dashes = CURVES[stage]
        points = [(x(row["visible"]), y(row[key][stage])) for row in rows]
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        end, free = points[-1], min(points[-1][1] + 4, free - LETTER)
        parts.append(f'<text x="{end[0] + 26:.1f}" y="{free:.1f}" fill="{colour}">{label}</text>')
        parts.append(
            f'<path d="M{end[0] + 5:.1f} {end[1]:.1f}L{end[0] + 23:.1f} {free - 4:.1f}" stroke="{colour}" stroke-width="0.8"/>'
        )
    return parts


def report(runs: list[str]) -> bytes:
    """A report on some runs as a headless Chromium shows it, WebP."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        page, shot = ra.write_report(runs, Path(folder) / "report.html"), Path(folder) / "shot.png"
        subprocess.run(
            [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1240,4420",
             "--virtual-time-budget=5000", f"--screenshot={shot}", page.as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip
        picture = Image.open(shot).convert("RGB")
    out = io.BytesIO()
    picture.resize((1000, picture.height * 1000 // picture.width)).save(out, "WEBP", quality=80, method=6)
    return out.getvalue()


if __name__ == "__main__":
    if runs := sys.argv[1:]:
        (IMAGES / "report.webp").write_bytes(report(runs))
    else:
        Image.fromarray(sheet(World(), [1, 2, 3, 4, 5, 6])).save(IMAGES / "synthetic.png", optimize=True)
        (IMAGES / "line.svg").write_text(line(), encoding="utf-8")
        (record,) = RESULTS.glob("scale_*.json")
        measured = json.loads(record.read_text(encoding="utf-8"))["rows"]
        (IMAGES / "growth.svg").write_text(growth(measured), encoding="utf-8")
