"""Text as a file that appears whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from reidassoc.errors import DataError


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text.

    Raises:
        DataError: it can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(f"can't write {path}: {error.strerror or error}") from None
