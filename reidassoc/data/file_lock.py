"""Locks on files. The operating system lets go of one when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool = False, without: bool | None = None) -> Iterator[bool]:
    """Lock a file for this process as long as the block runs; yield whether it is.

    Args:
        path: the file, made if it is not there; its content is not changed.
        wait: for another process that has the lock, instead of yielding False.
        without: what to yield on a file system that has no locks; an OSError if not given.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        except BlockingIOError:
            mine = False
        except OSError:
            if without is None:
                raise
            mine = without
        yield mine
    finally:
        os.close(handle)  # lets go of the lock


def held(path: Path) -> bool:
    """Whether a process has the lock of a file."""
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who look don't see each other
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
