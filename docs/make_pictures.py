"""Draw the pictures of the docs: ``python docs/make_pictures.py``; with run folders, that of a report on them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import reidassoc as ra
from reidassoc_plugins.datasets.pedestrians import World, sheet

IMAGES = Path(__file__).parent / "images"

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
