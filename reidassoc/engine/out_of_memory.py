"""What is done where memory runs out: features come in smaller batches; a training step's error names the size that fits."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from reidassoc.errors import DeviceError

T = TypeVar("T")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or in main memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def released() -> None:
    """Give back what a failed attempt has left behind; call it outside of the ``except`` that caught it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def by_batches(
    rows: Tensor, batch: int, embed: Callable[[Tensor], T], say: Callable[[str], None] = warnings.warn
) -> Iterator[T]:
    """Yield ``embed(rows)`` batch by batch; where memory runs out, go on with half the batch, and say so.

    Raises:
        DeviceError: there is not enough memory for a single image.
    """
    at = 0
    while at < len(rows):
        try:
            found: T | None = embed(rows[at : at + batch])
        except Exception as error:
            if not ran_out(error):
                raise
            if batch == 1:
                raise DeviceError("out of memory: not one image fits; take a smaller network or image size") from None
            found = None
        if found is None:
            released()
            batch = max(1, batch // 2)
            say(
                f"out of memory: features are extracted {batch} images at a time; --set extract_batch={batch} starts so"
            )
            continue
        yield found
        at += batch


def too_large(stage: str, identities: int, images: int, attempt: Callable[[int], object]) -> DeviceError:
    """The error for a training step that memory doesn't suffice for.

    Args:
        attempt: make a step with so many identities, or this device's share of it. What it changes doesn't matter any more.
    """
    said = f"out of memory in a training step of {identities} identities × {images} images"
    count = identities // 2
    while count:
        released()
        try:
            attempt(count)
        except Exception as error:
            if not ran_out(error):
                raise
        else:
            return DeviceError(f"{said}; {count} × {images} fit: start anew with --set {stage}.identities={count}")
        count //= 2
    return DeviceError(f"{said}, and one identity does not fit either; take a smaller network or image size")
