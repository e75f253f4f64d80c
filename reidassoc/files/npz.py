"""Read untrusted .npz files: no pickles, no decompression bombs."""

from __future__ import annotations

import zipfile
from collections.abc import Container, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reidassoc.errors import DataError
from reidassoc.files.kinds import NPZ, kind_of
from reidassoc.files.paths import refuse_no_file

Arrays = Mapping[str, npt.NDArray[np.generic]]
SUSPECT_BYTES = 2**28  # smaller archives fit any memory
RATIO = 100  # features and labels shrink by a few times, zeros without end by a thousand


def read_npz(path: Path, what: str, expected: str, names: Container[str] | None = None) -> Arrays:
    """Return the arrays of an .npz file by name; no pickled object is ever loaded.

    Args:
        what: what the file is called where it is missing.
        expected: what it ought to contain; ends every complaint.
        names: of the arrays to read; all if not given.

    Raises:
        DataError: it is missing, no archive of arrays, or unpacks to far more than its size.
    """
    refuse_no_file(path, what, expected)
    if reason := bomb(path):
        raise DataError(f"{path} {reason}; {expected}")
    try:
        kind, step = kind_of(path)
        if kind not in (NPZ, ""):
            raise DataError(f"{path} can't be read as .npz: it is {kind}; {f'{step}; ' if step else ''}{expected}")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if names is None or name in names}
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} contains an array that is too large for this machine's memory; {expected}") from None
    except Exception as error:  # a damaged archive fails in many ways
        found = (str(error) or "damaged").splitlines()[0]
        if "allow_pickle" in found:
            found = "it has an array of Python objects, which are not read; save numbers"
        raise DataError(f"{path} can't be read as .npz: {found}; {expected}") from None


def bomb(path: Path) -> str:
    """Why a ZIP archive should not be unpacked; "" if it may be, or is not an archive."""
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, LookupError, UnicodeError):
        return ""
    packed = path.stat().st_size
    if size > SUSPECT_BYTES and size > RATIO * packed:
        return f"unpacks from {packed / 2**20:.1f} to {size / 2**20:.0f} MiB, as a decompression bomb does"
    return ""
