"""Features and labels as .npz files: how work done elsewhere comes in, and labels go out."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reidassoc.errors import DataError
from reidassoc.types import Features, Modality, Pair

NAMES = "expected float32 'visible' (N_v, D) and 'infrared' (N_r, D)"


@dataclass(frozen=True)
class FeatureFile:
    """The features of a file, and the true identities if it holds them: (N,) int64 per modality, for scoring only."""

    features: Pair[Features]
    identity: Pair[Tensor] | None


def read_features(path: str | Path) -> FeatureFile:
    """Read ``visible``, ``infrared`` and, optionally, ``camera_*`` and ``identity_*`` from an .npz file.

    Rows need not be normalised; they are here. No pickled object is ever loaded.

    Raises:
        DataError: the file is missing, no .npz, or lacks or spoils one of the arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no feature file {path}; {NAMES}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} can't be read as .npz: {str(error).splitlines()[0]}; {NAMES}") from None
    except AttributeError:  # a lone .npy array has no names
        raise DataError(f"{path} holds one array without a name, not an .npz archive; {NAMES}") from None
    features = Pair.build(lambda modality: features_from(arrays, modality, path))
    columns = [column(arrays, f"identity_{m}", len(features[m]), path) for m in Modality]
    known = None if columns[0] is None or columns[1] is None else Pair(columns[0], columns[1])
    return FeatureFile(features, known)


def features_from(arrays: Mapping[str, npt.NDArray[np.generic]], modality: Modality, path: Path) -> Features:
    name = str(modality)
    if name not in arrays:
        raise DataError(f"{path} has no array '{name}'; {NAMES}; it has: {', '.join(arrays) or 'none'}")
    return unit_features(arrays[name], name, column(arrays, f"camera_{name}", len(arrays[name]), path), str(path))


def unit_features(
    array: npt.NDArray[np.generic] | Tensor, name: str, camera: Tensor | None = None, where: str = "features"
) -> Features:
    """Check an (N, D) floating-point array and normalise its rows; DataError says what is wrong with it."""
    tensor = torch.as_tensor(array)
    if tensor.ndim != 2 or not tensor.dtype.is_floating_point or 0 in tensor.shape[1:]:
        found = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        raise DataError(f"{where}: '{name}' must be (N, D) float32, got {found}")
    x = tensor.float()
    bad = (~torch.isfinite(x)).any(1).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"{where}: {len(bad)} rows of '{name}' hold NaN or infinite values; the first is row {int(bad[0])}"
        )
    return Features(torch.nn.functional.normalize(x, dim=1), camera=camera)  # type: ignore[arg-type]


def column(arrays: Mapping[str, npt.NDArray[np.generic]], name: str, rows: int, path: Path) -> Tensor | None:
    if name not in arrays:
        return None
    values = arrays[name]
    if values.shape != (rows,) or values.dtype.kind not in "iu":
        raise DataError(f"{path}: '{name}' must be ({rows},) int64, got {values.shape} {values.dtype}")
    return torch.from_numpy(values.astype(np.int64))


def write_labels(path: str | Path, own: Pair[npt.NDArray[np.int64]], cross: Pair[npt.NDArray[np.int64]]) -> None:
    """Write ``own_*`` and ``cross_*`` int64 labels, −1 = none; the file appears whole or not at all.

    Raises:
        DataError: it can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    columns = {f"own_{m}": own[m] for m in Modality} | {f"cross_{m}": cross[m] for m in Modality}
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"can't write {path}: {error.strerror or error}") from None
