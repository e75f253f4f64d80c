"""Many small pictures as one JPEG image: tiles in rows of 32."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from reidassoc.errors import DataError

COLUMNS = 32  # tiles side by side
HEIGHT = 96  # pixels of a tile at most
BLOCK = 16  # JPEG's blocks with halved colour: tiles of whole blocks don't bleed into each other

Bytes = npt.NDArray[np.uint8]


def tile_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the tiles that show images of a size: whole blocks, nearly its shape, at most 96 high.

    >>> tile_size((288, 144)), tile_size((64, 32)), tile_size((48, 24))
    ((96, 48), (64, 32), (64, 32))
    """
    height = min(HEIGHT, -(-size[0] // (2 * BLOCK)) * 2 * BLOCK)
    return height, max(BLOCK, round(height * size[1] / size[0] / BLOCK) * BLOCK)


def pack(images: Tensor, *, tile: tuple[int, int], quality: int) -> Bytes:
    """Resize (n, 3, H, W) uint8 images to tiles and pack them; nothing if there is none."""
    if len(images) == 0:
        return np.zeros(0, np.uint8)
    images = resized(images, tile)
    rows = -(-len(images) // COLUMNS)
    sheet = torch.zeros(rows * COLUMNS, 3, *tile, dtype=torch.uint8)
    sheet[: len(images)] = images
    grid = sheet.view(rows, COLUMNS, 3, *tile).permute(0, 3, 1, 4, 2).reshape(rows * tile[0], COLUMNS * tile[1], 3)
    out = io.BytesIO()
    Image.fromarray(grid.numpy()).save(out, "JPEG", quality=quality, optimize=True)
    return np.frombuffer(out.getvalue(), np.uint8)


def packed_as(packed: Bytes, *, tile: tuple[int, int], count: int) -> bool:
    """Whether a packed image has the size that ``count`` tiles take; only its head is read."""
    if count == 0:
        return len(packed) == 0
    try:
        with Image.open(io.BytesIO(packed.tobytes()), formats=["JPEG"]) as image:
            return bool(image.size == (COLUMNS * tile[1], -(-count // COLUMNS) * tile[0]))
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, 3, H, W) uint8 images at another size."""
    if tuple(images.shape[2:]) == size or len(images) == 0:
        return images.reshape(len(images), 3, *size)
    smooth = torch.nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return smooth.round().clamp(0, 255).to(torch.uint8)


def unpack(packed: Bytes, *, tile: tuple[int, int], count: int) -> Tensor:
    """The first ``count`` tiles, (count, 3, height, width) uint8.

    Raises:
        DataError: the image is damaged, or of another size.
    """
    if not packed_as(packed, tile=tile, count=count):
        raise DataError(f"thumbnails are damaged: expected {count} of {tile[0]} × {tile[1]} pixels; delete their file")
    if count == 0:
        return torch.zeros(0, 3, *tile, dtype=torch.uint8)
    try:
        grid = torch.from_numpy(np.array(Image.open(io.BytesIO(packed.tobytes()), formats=["JPEG"]).convert("RGB")))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"thumbnails are damaged ({error}); delete their file") from None
    rows = len(grid) // tile[0]
    sheet = grid.view(rows, tile[0], COLUMNS, tile[1], 3).permute(0, 2, 4, 1, 3)
    return sheet.reshape(rows * COLUMNS, 3, *tile)[:count]
