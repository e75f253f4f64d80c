"""Named arrays in a file: .safetensors or .npz, by the name's ending. No pickled object is ever loaded."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reidassoc.errors import DataError
from reidassoc.files.atomic import whole_file
from reidassoc.files.kinds import SAFETENSORS as KIND
from reidassoc.files.kinds import kind_of
from reidassoc.files.npz import Arrays, read_npz

SAFETENSORS = ".safetensors"


def read_arrays(path: Path, names: Container[str], expected: str) -> tuple[Arrays, dict[str, str], tuple[str, ...]]:
    """Return those arrays of a file that are in ``names``, its notes (an .npz file has none), and the names of its other arrays.

    Args:
        expected: what the file ought to contain; ends every complaint.

    Raises:
        DataError: the file is missing, or none of either kind.
    """
    if path.suffix == SAFETENSORS and path.is_file():
        return _safetensors(path, names, expected)
    arrays = read_npz(path, "feature file", expected, names)
    with np.load(path, allow_pickle=False) as file:
        return arrays, {}, tuple(name for name in file.files if name not in arrays)


def _safetensors(path: Path, names: Container[str], expected: str) -> tuple[Arrays, dict[str, str], tuple[str, ...]]:
    from safetensors import SafetensorError, safe_open

    arrays: dict[str, npt.NDArray[np.generic]] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            known = list(file.keys())
            for name in known:
                if name in names:
                    tensor = file.get_tensor(name)
                    half = tensor.dtype in {torch.bfloat16, torch.float16}
                    arrays[name] = (tensor.float() if half else tensor).numpy()
            return arrays, dict(file.metadata() or {}), tuple(name for name in known if name not in arrays)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        kind, step = kind_of(path) if os.access(path, os.R_OK) else ("", "")
        found = first_line(error) if kind in ("", KIND) else f"it is {kind}{f'; {step}' if step else ''}"
        raise DataError(f"{path} can't be read as .safetensors: {found}; {expected}") from None


def write_arrays(path: Path, arrays: Arrays, notes: Mapping[str, str] | None = None) -> None:
    """Write arrays, and notes where the format has room for them; the file appears whole or not at all.

    Raises:
        DataError: it can't be written.
    """
    try:
        with whole_file(path) as place:
            if path.suffix == SAFETENSORS:
                from safetensors.numpy import save_file

                save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, place, dict(notes or {}))
            else:
                with open(place, "wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}") from None
    except Exception as error:  # how safetensors says that the folder is missing or the disk is full
        raise DataError(f"can't write {path}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    return (str(error) or "damaged").splitlines()[0]
