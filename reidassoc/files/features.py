"""Features and labels as files (.safetensors, .npz): how work done elsewhere comes in, and labels go out.

One list of names: ``visible``, ``infrared`` and, with suffix ``_visible`` or ``_infrared``, ``camera``, ``tracklet``, ``parts``,
``index``, ``identity``.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from reidassoc.errors import DataError
from reidassoc.files.arrays import read_arrays, write_arrays
from reidassoc.files.npz import Arrays
from reidassoc.files.paths import FEATURE_ARRAYS, check_ending, refuse_no_features
from reidassoc.ops.part_features import PARTS
from reidassoc.ops.precision import broken_rows
from reidassoc.ops.unit_rows import unit_rows
from reidassoc.types import TRACKLET, Features, Modality, Pair

KNOWN = (
    *map(str, Modality),
    *(f"{name}_{m}" for name in ("camera", TRACKLET, "index", PARTS, "identity") for m in Modality),
)
MISSPELT = 0.95  # similarity from which a name counts as another's: one letter too many or too few, not another word


@dataclass(frozen=True)
class FeatureFile:
    """The features of a file, and what it says of them.

    Args:
        features: of both modalities, unit rows.
        identity: (N,) int64 true identities per modality, for scoring only; None if the file has none.
        notes: where the features come from (``dataset``, ``recipe``, ``epoch``, ``clusterer`` …), if the file says so.
    """

    features: Pair[Features]
    identity: Pair[Tensor] | None
    notes: Mapping[str, str] = field(default_factory=dict)


def read_features(path: str | Path) -> FeatureFile:
    """Read ``visible``, ``infrared`` and, optionally, ``camera_*``, ``tracklet_*``, ``index_*``, ``parts_*`` and ``identity_*``.

    Rows need not be normalised; they are here. No pickled object is ever loaded. Arrays of other names are passed over, with a
    warning that names them.

    Raises:
        DataError: the file is missing, no .safetensors or .npz, or lacks or spoils one of the arrays; it has the identities of
            one modality alone.
    """
    path = Path(os.path.expanduser(path))
    refuse_no_features(path)
    arrays, notes, unread = read_arrays(path, KNOWN, FEATURE_ARRAYS)
    absent = [str(m) for m in Modality if str(m) not in arrays]
    if absent:
        names = ", ".join([*arrays, *unread]) or "none"
        raise DataError(f"{path} has no array '{absent[0]}'; {FEATURE_ARRAYS}; it has: {names}")
    if unread:
        refuse_misspelt(unread, arrays, path)
        warnings.warn(f"{path}: arrays that are not read: {', '.join(unread)}", stacklevel=2)
    features = Pair.build(lambda modality: features_from(arrays, modality, path))
    columns = [column(arrays, f"identity_{m}", len(features[m]), path) for m in Modality]
    if (columns[0] is None) != (columns[1] is None):
        here, lacking = Modality if columns[1] is None else reversed(Modality)
        raise DataError(f"{path} has 'identity_{here}' but no 'identity_{lacking}'; give both or neither")
    known = None if columns[0] is None or columns[1] is None else Pair(columns[0], columns[1])
    return FeatureFile(features, known, notes)


def refuse_misspelt(unread: Iterable[str], arrays: Arrays, path: Path) -> None:
    """Raise DataError for an array that is not read, but nearly has a name that the file lacks."""
    lacking = [name for name in KNOWN if name not in arrays]
    for name in unread:
        if near := difflib.get_close_matches(name, lacking, n=1, cutoff=MISSPELT):
            raise DataError(f"{path}: array '{name}' is not read; did you mean '{near[0]}'? Rename it, or leave it out")


def write_features(path: str | Path, file: FeatureFile) -> None:
    """Write a feature file, whole or not at all: .safetensors, or .npz, which has no room for the notes.

    Raises:
        DataError: it can't be written, or its name has another ending.
    """
    path = Path(path)
    check_ending(path)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for modality in Modality:
        features = file.features[modality]
        arrays[str(modality)] = features.x.cpu().numpy()
        arrays[f"camera_{modality}"] = features.camera.cpu().numpy()
        arrays[f"index_{modality}"] = features.index.cpu().numpy()
        for key in (PARTS, TRACKLET):
            if key in features.extra:
                arrays[f"{key}_{modality}"] = features.extra[key].cpu().numpy()
        if file.identity is not None:
            arrays[f"identity_{modality}"] = file.identity[modality].cpu().numpy()
    write_arrays(path, arrays, file.notes)


def features_from(arrays: Arrays, modality: Modality, path: Path) -> Features:
    name = str(modality)
    rows = len(arrays[name]) if arrays[name].ndim else 0
    unit = unit_features(arrays[name], name, column(arrays, f"camera_{name}", rows, path), str(path))
    index = column(arrays, f"index_{name}", len(unit), path)
    extra: dict[str, Tensor] = {}
    if (tracklet := column(arrays, f"{TRACKLET}_{name}", len(unit), path)) is not None:
        extra[TRACKLET] = tracklet
    if (parts := arrays.get(f"{PARTS}_{name}")) is not None:
        if parts.ndim != 3 or len(parts) != len(unit) or parts.dtype.kind != "f":
            raise DataError(
                f"{path}: 'parts_{name}' must be ({len(unit)}, P, D) floats, got {parts.shape} {parts.dtype}"
            )
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            extra[PARTS] = torch.from_numpy(parts.astype(np.float32))
        check_finite(extra[PARTS].flatten(1), f"{PARTS}_{name}", str(path))
    return Features(unit.x, index, unit.camera, extra)  # type: ignore[arg-type]  # no index: rows in order


def unit_features(
    array: ArrayLike | Tensor, name: str, camera: Tensor | None = None, where: str = "features"
) -> Features:
    """Check (N, D) floats, a tensor or what NumPy makes an array of, and normalise the rows; DataError says what is wrong."""
    given = array.detach() if isinstance(array, Tensor) else array_of(array, name, where)
    floats = given.is_floating_point() if isinstance(given, Tensor) else given.dtype.kind == "f"
    sparse = ", sparse" if isinstance(given, Tensor) and given.layout is not torch.strided else ""
    if given.ndim != 2 or not floats or 0 in given.shape[1:] or sparse:
        found = f"{tuple(given.shape)} {str(given.dtype).removeprefix('torch.')}{sparse}"
        raise DataError(f"{where}: '{name}' must be (N, D) floats, got {found}")
    if not isinstance(given, Tensor):
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            # Strides below 0, another byte order, wider floats and what is read-only are not for torch.
            dtype = np.float64 if given.dtype.itemsize > 4 else np.float32
            given = torch.from_numpy(np.require(given, dtype, ["C", "W"]))
    x = unit_rows(given)
    check_finite(x, name, where)
    return Features(x, camera=camera)  # type: ignore[arg-type]  # unknown without a camera


def array_of(values: ArrayLike, name: str, where: str) -> npt.NDArray[np.generic]:
    try:
        return np.asarray(values)
    except ValueError:
        raise DataError(f"{where}: '{name}' must be (N, D) floats, got rows that differ in length") from None


def check_finite(x: Tensor, name: str, where: str) -> None:
    """Refuse (N, D) values of which some are NaN or infinite; DataError says how many rows, and the first."""
    if found := broken_rows(x):
        raise DataError(f"{where}: '{name}' has {found}")


def column(arrays: Arrays, name: str, rows: int, path: Path) -> Tensor | None:
    if name not in arrays:
        return None
    values = arrays[name]
    if values.shape != (rows,) or values.dtype.kind not in "iu":
        raise DataError(f"{path}: '{name}' must be ({rows},) int64, got {values.shape} {values.dtype}")
    return torch.from_numpy(values.astype(np.int64))


def write_labels(path: str | Path, own: Pair[npt.NDArray[np.int64]], cross: Pair[npt.NDArray[np.int64]]) -> None:
    """Write ``own_*`` and ``cross_*`` int64 labels, −1 = none, as .npz; the file appears whole or not at all.

    Raises:
        DataError: it can't be written.
    """
    columns = {f"own_{m}": own[m] for m in Modality} | {f"cross_{m}": cross[m] for m in Modality}
    write_arrays(Path(path), columns)
