"""SYSU-MM01's official galleries: the permutations in ``exp/rand_perm_cam.mat``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from reidassoc.errors import DataError

KEY = "rand_perm_cam"
SOURCE = "https://github.com/wuancong/SYSU-MM01"


@dataclass(frozen=True)
class Permutations:
    """Orders of each camera's images of each identity, one per trial.

    Args:
        path: of the file, for messages.
        cells: ``cells[camera − 1][identity − 1]`` is (trials, images) and contains numbers from 1.
    """

    path: Path
    cells: Sequence[Sequence[npt.NDArray[Any]]]

    def choose(
        self, folders: Mapping[tuple[int, int], Sequence[int]], cameras: Sequence[int], trial: int, shots: int
    ) -> list[int]:
        """The first ``shots`` of each folder's images in the trial's order.

        Raises:
            DataError: a folder has no permutation, or one of another length.
        """
        chosen: list[int] = []
        for identity in sorted({identity for identity, _ in folders}):
            for camera in sorted(cameras):
                rows = folders.get((identity, camera), ())
                if rows:
                    chosen += [rows[place - 1] for place in self._order(identity, camera, trial, len(rows))[:shots]]
        return chosen

    def _order(self, identity: int, camera: int, trial: int, count: int) -> list[int]:
        where = f"{self.path}: camera {camera}, identity {identity}"
        if camera > len(self.cells) or not 1 <= identity <= len(self.cells[camera - 1]):
            raise DataError(f"{where}: no entry; expected one permutation per trial of its {count} images")
        table = np.atleast_2d(self.cells[camera - 1][identity - 1])
        if trial >= len(table) or sorted(table[trial].tolist()) != list(range(1, count + 1)):
            raise DataError(
                f"{where}: expected permutations of 1 … {count}, the images in its folder, one per trial, found {table.shape} "
                f"values in trial {trial}; use galleries='community', or restore the original folder"
            )
        return [int(place) for place in table[trial]]


def load(path: Path) -> Permutations:
    """Read the official file.

    Raises:
        DataError: it is missing, or not what its name says.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; galleries='official' needs it, galleries='community' does not; it is in the folder "
            f"evaluation/data_split of {SOURCE}"
        )
    try:
        table = loadmat(path)[KEY]
        cells = [list(np.ravel(camera)) for camera in np.ravel(table)]
    except Exception as error:  # the reader may fail in any way on corrupt bytes
        raise DataError(f"{path}: can't be read as a MATLAB file with the variable '{KEY}': {error!r}") from error
    if not all(isinstance(entry, np.ndarray) and entry.dtype.kind in "iuf" for camera in cells for entry in camera):
        raise DataError(f"{path}: '{KEY}' must hold one cell per camera and in it one matrix per identity")
    return Permutations(path, cells)
