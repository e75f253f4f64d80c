"""Draw the pictures of the docs: ``python docs/make_pictures.py``."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from reidassoc_plugins.datasets.pedestrians import World, sheet

if __name__ == "__main__":
    Image.fromarray(sheet(World(), [1, 2, 3, 4, 5, 6])).save(
        Path(__file__).parent / "images" / "synthetic.png", optimize=True
    )
