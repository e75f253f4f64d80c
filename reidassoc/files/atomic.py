"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reidassoc.errors import DataError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` if the block ends without an error.

    Of a link, what it points to is replaced. What is no ordinary file, such as ``/dev/stdout``, is not replaced: the path
    itself is yielded.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text; the file appears whole or not at all.

    Raises:
        DataError: it can't be written.
    """
    try:
        with whole_file(Path(path)) as place:
            place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}") from None
