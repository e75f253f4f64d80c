"""Named arrays in a file: .safetensors or .npz, by the name's ending. No pickled object is ever loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reidassoc.archives import Arrays, read_npz
from reidassoc.data.whole_file import whole_file
from reidassoc.errors import DataError

SAFETENSORS = ".safetensors"


def read_arrays(path: Path, expected: str) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays of a file, and its notes (an .npz file has none).

    Args:
        expected: what the file ought to hold; ends every complaint.

    Raises:
        DataError: the file is missing, or none of either kind.
    """
    if path.suffix == SAFETENSORS and path.is_file():
        return _safetensors(path, expected)
    return read_npz(path, "feature file", expected), {}


def _safetensors(path: Path, expected: str) -> tuple[Arrays, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    arrays: dict[str, npt.NDArray[np.generic]] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping: it has keys() alone
                tensor = file.get_tensor(name)
                arrays[name] = (tensor.float() if tensor.dtype in {torch.bfloat16, torch.float16} else tensor).numpy()
            return arrays, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} can't be read as .safetensors: {first_line(error)}; {expected}") from None


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
