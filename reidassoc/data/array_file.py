"""Rows of an ``.npy`` file, read when they are asked for. Not mapped: a mapped file that somebody cuts off is a fatal signal."""

from __future__ import annotations

import os
import threading
import weakref
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reidassoc.errors import DataError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ArrayFile:
    """An array (N, …) on the disk; the file stays open as long as the object lives.

    Attributes:
        shape: as the file's header says.
        dtype: likewise.

    Raises:
        OSError: the file can't be opened.
        ValueError: it is no ``.npy`` file of numbers in C order, or is shorter than its header says.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(6).reshape(3, 2))
        >>> ArrayFile(path).rows(np.array([2, 0])).tolist()
        [[4, 5], [0, 1]]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)  # also where the rest is refused
        self._alone = threading.Lock()
        version = np.lib.format.read_magic(self._file)
        if version not in HEADERS:
            raise ValueError(f"{path}: .npy format {version} is not read here")
        shape, fortran, dtype = HEADERS[version](self._file)
        if not shape or min(shape) < 0 or fortran or dtype.hasobject:
            raise ValueError(f"{path}: expected an array of numbers (N, …) in C order, got {shape} {dtype}")
        self.shape, self.dtype = tuple(map(int, shape)), dtype
        self._begin = self._file.tell()
        self._row_bytes = prod(self.shape[1:]) * dtype.itemsize
        if os.fstat(self._file.fileno()).st_size < self._begin + len(self) * self._row_bytes:
            raise ValueError(f"{path}: shorter than its header says")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """One row; as :meth:`rows`."""
        found: npt.NDArray[Any] = self.rows(np.array([row]))[0]
        return found

    def rows(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return some rows (n, …), a copy.

        Raises:
            IndexError: there is no such row.
            DataError: the file was cut off since it was opened, or its disk fails.
        """
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(f"{self.path} has the rows 0 to {len(self) - 1}, not all of {wanted.tolist()}")
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        if found.size:
            for row, place in zip(wanted.tolist(), found.reshape(len(wanted), -1).view(np.uint8), strict=True):
                self._fill(place.data, self._begin + row * self._row_bytes)
        return found

    def _fill(self, place: memoryview, begin: int) -> None:
        done = 0
        while done < len(place):
            try:
                count = self._read(place[done:], begin + done)
            except OSError as error:
                raise DataError(f"{self.path} can't be read any more: {error.strerror}; look after its disk") from error
            if count == 0:
                raise DataError(f"{self.path} was cut off while it was in use; start again, a run with --resume")
            done += count

    def _read(self, place: memoryview, begin: int) -> int:
        if hasattr(os, "preadv"):  # threads need not wait for each other
            return os.preadv(self._file.fileno(), [place], begin)
        with self._alone:
            self._file.seek(begin)
            return int(self._file.readinto(place) or 0)
