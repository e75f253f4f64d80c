"""Where pixels come from: image files, recognised by their content, and arrays in memory or on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from reidassoc.data.array_file import ArrayFile
from reidassoc.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MAX_PIXELS = 40_000_000  # a pedestrian crop has some 50 000; beyond this it is a mistake or an attack
MARKED = 64  # images of an array that its mark reads
DECODERS = 16  # threads at most
MISSING_SIZE = -1  # stands for the size of a file that is not there
ORIENTATION = 0x0112  # EXIF's tag; 1 means upright, 2 to 8 a turn or a mirror image
DEEP = ";16B"  # how Pillow's names of a PNG's 16-bit channels end; it would read colours and alpha at 8 bits

Pixels = npt.NDArray[np.uint8]


def read_image(path: Path) -> Pixels:
    """Decode a PNG, JPEG or BMP file, whatever its suffix, to (H, W, 3) uint8 RGB.

    EXIF orientation is ignored, as the published loaders do; `data check` counts the images that ask for a turn.

    Raises:
        DataError: the file is missing, of another format, corrupt, absurdly large or not of 8 bits per channel.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {width} × {height} pixels is more than {MAX_PIXELS // 1_000_000} million; crop it"
                )
            deep = image.format == "PNG" and any(str(tile[3]).endswith(DEEP) for tile in image.tile)
            if deep or image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{path}: more than 8 bits per channel; convert it to 8 bits, with a scale of your choice"
                )
            return np.array(image.convert("RGB"))
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: not an image; expected the content of a {', '.join(FORMATS)} file with 8 bits per channel"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {MAX_PIXELS // 1_000_000} million pixels; crop it") from None
    except Exception as error:  # a decoder may fail in any way on corrupt bytes
        raise DataError(f"{path}: corrupt image ({error})") from error


def asks_for_a_turn(path: Path) -> bool:
    """Whether an image's EXIF data ask viewers to turn or mirror it; False for a file that can't be read."""
    with contextlib.suppress(Exception), Image.open(path, formats=FORMATS) as image:
        return "exif" in image.info and image.getexif().get(ORIENTATION) in range(2, 9)
    return False


class FileImages:
    """Images in files below a root.

    Args:
        root: folder that the names are relative to.
        names: relative paths, one per image.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def load(self, row: int) -> Pixels:
        return read_image(self.root / self.names[row])

    def asks_for_a_turn(self, row: int) -> bool:
        """Whether the EXIF data of an image ask for a turn, which :meth:`load` ignores."""
        return asks_for_a_turn(self.root / self.names[row])

    def mark(self) -> str:
        """Hash of the file sizes, the same for every copy of the data: part of a dataset's fingerprint."""
        return hashlib.sha256(repr([size for size, _ in self._states()]).encode()).hexdigest()

    def fingerprint(self) -> str:
        """Hash of the root and of every file's name, size and time of change; nothing is decoded."""
        digest = hashlib.sha256(str(self.root.resolve()).encode())
        for name, (size, changed) in zip(self.names, self._states(), strict=True):
            digest.update(f"\n{name}\t{size}\t{changed}".encode())
        return digest.hexdigest()

    def _states(self) -> list[tuple[int, int]]:
        states = []
        for name in self.names:
            try:
                state = (self.root / name).stat()
                states.append((state.st_size, state.st_mtime_ns))
            except OSError:
                states.append((MISSING_SIZE, 0))
        return states


class ArrayImages:
    """Images in one array or a list of them; of an array on the disk, see :func:`open_array`, each is read when needed.

    Args:
        arrays: N images (H, W, 3) uint8 RGB: a list, or one (N, H, W, 3) array in memory or on the disk.
        key: what stands for the content in the fingerprint; a hash of all pixels if not given.

    Raises:
        DataError: an image is not (H, W, 3) uint8.
    """

    def __init__(self, arrays: Sequence[Pixels] | Pixels | ArrayFile, *, key: str | None = None) -> None:
        alike = isinstance(arrays, (np.ndarray, ArrayFile))
        for row in range(min(len(arrays), 1) if alike else len(arrays)):
            image = arrays[row]
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise DataError(f"array image {row} must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
        self.arrays = arrays
        self.key = key

    def __len__(self) -> int:
        return len(self.arrays)

    def load(self, row: int) -> Pixels:
        return np.asarray(self.arrays[row])

    def mark(self) -> str:
        """Hash of the number of images and of some of them, the same for every copy: part of a dataset's fingerprint."""
        digest = hashlib.sha256(str(len(self)).encode())
        for row in np.linspace(0, max(len(self) - 1, 0), min(len(self), MARKED)).astype(int):
            digest.update(np.ascontiguousarray(self.load(row)).data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Hash of the key if one was given, else of every image's shape and pixels."""
        if self.key is not None:
            return hashlib.sha256(self.key.encode()).hexdigest()
        digest = hashlib.sha256()
        for row in range(len(self)):
            image = self.load(row)
            digest.update(f"{image.shape}".encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


def decoder_threads() -> int:
    """How many images to decode at once: one per processor that this process may use, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(DECODERS, usable)


def open_array(path: Path) -> ArrayFile:
    """Open an ``.npy`` file of images (N, H, W, 3) uint8 without reading them.

    Raises:
        DataError: the file is not such an array.
    """
    try:
        array = ArrayFile(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: can't be read as an array: {error}") from error
    if len(array.shape) != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        raise DataError(f"{path}: expected images (N, H, W, 3) uint8, found {array.shape} {array.dtype}")
    return array
