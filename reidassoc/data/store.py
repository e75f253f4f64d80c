"""All images of a modality, decoded and resized once: in memory where they fit, else in a cache on disk that runs share."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reidassoc.data.array_file import ArrayFile
from reidassoc.data.file_lock import locked
from reidassoc.data.images import decoder_threads
from reidassoc.data.progress import Progress, Say, silent
from reidassoc.errors import DataError
from reidassoc.types import Records

MEMORY_LIMIT = 512 * 2**20  # bytes; a larger set goes to the cache on disk
CACHE_VARIABLE = "REIDASSOC_CACHE"
CACHE_FORMAT = 2  # raise it when the decoded pixels change
BLOCK = 256  # images decoded before they are written
NAMED_AT_MOST = 3  # bad images that an error message names

Pixels = npt.NDArray[np.uint8]


def cache_folder() -> Path:
    """``$REIDASSOC_CACHE``, or ``~/.cache/reidassoc``."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "reidassoc"


def resize(image: Pixels, size: tuple[int, int]) -> Tensor:
    """Return an (H, W, 3) image as a (3, height, width) uint8 tensor: bilinear with antialias, bit-exact if it fits already."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)).copy())
    if tuple(tensor.shape[1:]) == size:
        return tensor
    return torch.nn.functional.interpolate(tensor[None], size=size, mode="bilinear", antialias=True)[0]


class ImageStore:
    """The images of some records at one size, read by row.

    Images that can't be decoded are listed in ``bad`` and must not be read: training leaves them out and counts them.
    With ``strict`` (evaluation) the first of them ends in an error instead.

    Args:
        records: whose images.
        size: (height, width) in pixels.
        strict: refuse corrupt images.
        cache: folder for decoded images; ``cache_folder()`` if not given.
        memory_limit: bytes; what needs more is kept on disk.
        say: takes a line a minute as long as images are read.

    Attributes:
        bad: rows that can't be read, ascending.
        problems: why, one message for each bad row.

    Raises:
        DataError: strict, and an image is corrupt; every image is; the cache folder can't be written or the
            disk is full.

    Examples:
        >>> from reidassoc.data.images import ArrayImages
        >>> from reidassoc.types import Modality
        >>> pictures = np.zeros((2, 8, 4, 3), np.uint8)
        >>> records = Records(Modality.VISIBLE, torch.tensor([1, 1]), ("a", "b"), ArrayImages(pictures))
        >>> ImageStore(records, size=(8, 4)).read(torch.tensor([1, 0, 1])).shape
        torch.Size([3, 3, 8, 4])
    """

    def __init__(
        self,
        records: Records,
        *,
        size: tuple[int, int],
        strict: bool = False,
        cache: Path | None = None,
        memory_limit: int = MEMORY_LIMIT,
        say: Say = silent,
    ) -> None:
        if min(size) < 1:
            raise DataError(
                f"image size must be positive, got {size[0]} × {size[1]}; expected (height, width) in pixels"
            )
        self.records = records
        self._progress = Progress(f"reading {records.modality} images", say)
        self.size = (int(size[0]), int(size[1]))
        problems: dict[int, str]
        self._pixels: Pixels | ArrayFile
        if self.nbytes <= memory_limit:
            pixels = np.empty((len(records), 3, *self.size), np.uint8)
            problems = {}
            start = 0
            for block in self._decode(problems):
                pixels[start : start + len(block)] = block
                start += len(block)
            self._pixels = pixels
        else:
            self._pixels, problems = self._open_cache(cache or cache_folder())
        self.bad = tuple(sorted(problems))
        self.problems = tuple(problems[row] for row in self.bad)
        self._refuse(strict)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def nbytes(self) -> int:
        return len(self.records) * 3 * self.size[0] * self.size[1]

    @property
    def on_disk(self) -> bool:
        """Whether the pixels are in the cache rather than in memory."""
        return isinstance(self._pixels, ArrayFile)

    @property
    def good(self) -> Tensor:
        """(n,) int64: the rows that can be read."""
        good = np.ones(len(self), dtype=bool)
        good[list(self.bad)] = False
        return torch.from_numpy(good.nonzero()[0])

    def read(self, rows: npt.NDArray[np.int64] | Tensor) -> Tensor:
        """Return the images of ``rows`` as (B, 3, H, W) uint8, a copy.

        Raises:
            IndexError: a row is out of range.
            DataError: a row is one of the bad ones, or the cache was cut off since it was opened.
        """
        wanted = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(f"rows {int(wanted.min())} to {int(wanted.max())} of {len(self)} images")
        if self.bad and np.isin(wanted, self.bad).any():
            row = int(wanted[np.isin(wanted, self.bad)][0])
            raise DataError(
                f"image {row} can't be read: {self.problems[self.bad.index(row)]}; read only the rows in `good`"
            )
        pixels = self._pixels
        return torch.from_numpy(pixels.rows(wanted) if isinstance(pixels, ArrayFile) else pixels[wanted])

    def _refuse(self, strict: bool) -> None:
        count = len(self.bad)
        if not count or (not strict and count < len(self)):
            return
        listed = "; ".join(self.problems[:NAMED_AT_MOST]) + ("; …" if count > NAMED_AT_MOST else "")
        reason = "evaluation needs every image" if strict else "nothing is left to train on"
        raise DataError(
            f"{count} of {len(self)} {self.records.modality} images can't be read, and {reason}: {listed}. "
            "Replace them; `reidassoc data check ROOT` lists all"
        )

    def _decode(self, problems: dict[int, str]) -> Iterator[Pixels]:
        """Yield blocks of decoded images in order; a bad one is black, and its message goes into ``problems``."""

        def decode(row: int) -> Pixels:
            try:
                return resize(self.records.source.load(row), self.size).numpy()
            except DataError as error:
                problems[row] = str(error)
                return np.zeros((3, *self.size), np.uint8)

        with ThreadPoolExecutor(decoder_threads()) as pool:
            for start in range(0, len(self), BLOCK):
                end = min(start + BLOCK, len(self))
                yield np.stack(list(pool.map(decode, range(start, end))))
                self._progress(end, len(self))

    def _open_cache(self, cache: Path) -> tuple[ArrayFile, dict[int, str]]:
        """Open the cached pixels, decoding them first if no run has done so."""
        content = f"{CACHE_FORMAT} {self.size} {len(self)} {self.records.source.fingerprint()}"
        folder = cache / hashlib.sha256(content.encode()).hexdigest()[:32]
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(cache / f"{folder.name}.lock", wait=True, without=False) as alone:
                entry = self._open_entry(folder)
                if entry is None:
                    for left in cache.glob(f"{folder.name}.*.part") if alone else ():  # of a run that was killed
                        shutil.rmtree(left, ignore_errors=True)
                    self._fill(folder)
                    entry = self._open_entry(folder)
        except OSError as error:
            raise DataError(no_room(error, cache, self.nbytes)) from error
        if entry is None:
            raise DataError(
                f"{folder}: the cache of decoded images was damaged while it was made; delete it and try again"
            )
        return entry

    def _open_entry(self, folder: Path) -> tuple[ArrayFile, dict[int, str]] | None:
        """Open a finished cache entry; None where there is none, or where it is damaged or lists problems since fixed."""
        try:
            pixels = ArrayFile(folder / "images.npy")
            listed = json.loads((folder / "problems.json").read_text(encoding="utf-8"))
            problems = {int(row): str(message) for row, message in listed.items()}
        except (OSError, ValueError, EOFError, AttributeError):
            return None
        if pixels.shape != (len(self), 3, *self.size) or pixels.dtype != np.uint8:
            return None
        return (
            None if any(not 0 <= row < len(self) or self._is_readable(row) for row in problems) else (pixels, problems)
        )

    def _is_readable(self, row: int) -> bool:
        try:
            self.records.source.load(row)
        except DataError:
            return False
        return True

    def _fill(self, folder: Path) -> None:
        """Decode everything into a new folder, then move it into place."""
        making = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        try:
            making.mkdir()
            problems: dict[int, str] = {}
            with (making / "images.npy").open("wb") as file:
                write_header(file, (len(self), 3, *self.size))
                for block in self._decode(problems):
                    file.write(block.tobytes())
            (making / "problems.json").write_text(json.dumps(problems), encoding="utf-8")
            if folder.exists():  # damaged: else it would have been used
                shutil.rmtree(folder)
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def no_room(error: OSError, cache: Path, needed: int) -> str:
    """What to tell a user whose cache folder can't be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"no space left for decoded images in {cache}: {needed / 2**30:.1f} GiB are needed; "
            f"free some, or set {CACHE_VARIABLE} to a folder on another disk"
        )
    return f"can't keep decoded images in {cache}: {error}; set {CACHE_VARIABLE} to a folder that you may write to"
