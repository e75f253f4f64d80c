"""Rows of an ``.npy`` file, read when they are asked for. Not mapped: to read a mapped file that was cut off is a fatal signal."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reidassoc.errors import DataError


class ArrayFile:
    """An array (N, …) on the disk.

    Attributes:
        shape: as the file's header says.
        dtype: likewise.

    Raises:
        OSError: the file can't be opened.
        ValueError: it is not an ``.npy`` file of numbers in C order, or is shorter than its header says.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(6).reshape(3, 2))
        >>> ArrayFile(path).rows(np.array([2, 0])).tolist()
        [[4, 5], [0, 1]]
    """

    def __init__(self, path: Path) -> None:
        try:
            with np.errstate(over="ignore"):  # of a shape that no file has
                array = np.load(path, mmap_mode="r", allow_pickle=False)  # for its header; NumPy checks the length
        except OverflowError as error:
            raise ValueError(f"{path}: the header has an impossible shape") from error
        if not isinstance(array, np.memmap) or not array.ndim or not array.flags.c_contiguous:
            raise ValueError(f"{path}: expected one array of numbers (N, …) in C order")
        self.path, self.shape, self.dtype = path, array.shape, array.dtype
        self._begin = array.offset

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """One row; as :meth:`rows`."""
        image: npt.NDArray[Any] = self.rows(np.array([row]))[0]
        return image

    def rows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return some rows (n, …), a copy.

        Raises:
            IndexError: a row is out of range.
            DataError: the file was cut off or removed since the object was made, or its disk fails.
        """
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise IndexError(f"{self.path} has the rows 0 to {len(self) - 1}, not all of {numbers.tolist()}")
        size = prod(self.shape[1:])
        rows = np.empty((len(numbers), size), self.dtype)
        try:
            with open(self.path, "rb") as file:
                for place, number in enumerate(numbers.tolist()):
                    file.seek(self._begin + number * size * self.dtype.itemsize)
                    if file.readinto(rows[place].view(np.uint8)) < size * self.dtype.itemsize:
                        raise DataError(
                            f"{self.path} was cut off while it was in use; start again, a run with --resume"
                        )
        except OSError as error:
            raise DataError(f"{self.path} can't be read any more: {error.strerror}; look after its disk") from error
        return rows.reshape(len(numbers), *self.shape[1:])
