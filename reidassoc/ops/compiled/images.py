"""The compiled augmentation of images. Import through `reidassoc.ops.compiled.dispatch.compiled_images` only.

Its torch twin stands in `reidassoc.data.transforms`, and a test says that both make the same pictures, bit for bit.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from reidassoc.ops.compiled.affinity import EXACT

Array = Any


@njit(**EXACT)  # type: ignore[untyped-decorator]
def augmented(
    images: Array,
    pad: int,
    shift: Array,
    mirror: Array,
    lit: Array,
    gain: Array,
    erased: Array,
    channel: Array,
    grey: Array,
    tables: tuple[Array, Array],
    constants: tuple[Array, Array, Array, Array],
    out: Array,
) -> None:
    """See `reidassoc.data.transforms.Draw` for the choices.

    Args:
        images: (B, 3, H, W) uint8.
        tables: (256,) of each byte as a fraction of 255; (3, 256) the same, normalised, of each channel.
        constants: (3,) each, of each channel: mean, deviation, what is erased becomes, share in the luminance.
        out: (B, 3, H, W) float32, filled here.
    """
    height, width = images.shape[2:]
    fraction, normal = tables
    mean, deviation, fill, share = constants
    for b in range(len(images)):
        down, along = shift[b, 0] - pad, shift[b, 1] - pad
        first, last = 0, 3
        if channel[b] >= 0 and not grey[b]:
            first, last = channel[b], channel[b] + 1
        for c in range(first, last):
            plane = out[b, c]
            for i in range(height):
                source = i + down
                if source < 0 or source >= height:
                    plane[i] = normal[c, 0]
                    continue
                row = images[b, c, source]
                for j in range(width):
                    k = (width - 1 - j if mirror[b] else j) + along
                    plane[i, j] = normal[c, row[k]] if 0 <= k < width else normal[c, 0]
            for i in range(lit[b, 0], lit[b, 0] + lit[b, 2]):
                source = i + down
                for j in range(lit[b, 1], lit[b, 1] + lit[b, 3]):
                    k = (width - 1 - j if mirror[b] else j) + along
                    there = 0 <= source < height and 0 <= k < width
                    value = fraction[images[b, c, source, k]] if there else fraction[0]
                    plane[i, j] = (value * gain[b, c] - mean[c]) / deviation[c]
            for i in range(erased[b, 0], erased[b, 0] + erased[b, 2]):
                plane[i, erased[b, 1] : erased[b, 1] + erased[b, 3]] = fill[c]
        if grey[b]:
            for i in range(height):
                for j in range(width):
                    x = out[b, 0, i, j] * share[0] + out[b, 1, i, j] * share[1] + out[b, 2, i, j] * share[2]
                    out[b, 0, i, j] = out[b, 1, i, j] = out[b, 2, i, j] = x
        elif first == channel[b]:
            for c in range(3):
                if c != first:
                    out[b, c] = out[b, first]
