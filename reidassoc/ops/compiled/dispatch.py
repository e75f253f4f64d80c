"""The optional compiled loops: numba where it is installed (extra `fast`), torch where it is not. Same results.

Kernels release the interpreter lock and are run on row ranges by ordinary threads, so there is no second thread pool
that could quarrel with torch's, nor anything that a forked data loader could trip over.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType
from typing import TypeVar

import torch

T = TypeVar("T")
SMALL = 1 << 18  # elements that one thread goes through faster than two threads start
_disabled = 0


def compiled(device: torch.device) -> ModuleType | None:
    """The module of compiled kernels, or None: no numba, not a CPU, or inside `without_numba`."""
    return _kernels(device, "affinity")


def compiled_scaling(device: torch.device) -> ModuleType | None:
    """The compiled rounds of entropic transport, or None for the same reasons."""
    return _kernels(device, "sinkhorn")


def compiled_search(device: torch.device) -> ModuleType | None:
    """The compiled loops of neighbour search and encoding, or None for the same reasons."""
    return _kernels(device, "search")


def compiled_ranking(device: torch.device) -> ModuleType | None:
    """The compiled walk of the evaluation, or None for the same reasons."""
    return _kernels(device, "ranking")


def compiled_labels(device: torch.device) -> ModuleType | None:
    """The compiled loops over sparse labels, or None for the same reasons."""
    return _kernels(device, "labels")


def _kernels(device: torch.device, module: str) -> ModuleType | None:
    if _disabled or device.type != "cpu":
        return None
    try:
        return importlib.import_module(f"reidassoc.ops.compiled.{module}")  # lazy: numba costs 0.5 s and is optional
    except ImportError:
        return None


@contextmanager
def without_numba() -> Iterator[None]:
    """Use the torch loops inside this block, for tests and comparisons."""
    global _disabled
    _disabled += 1
    try:
        yield
    finally:
        _disabled -= 1


def over_rows(work: Callable[[int, int], T], rows: int, *, pieces_per_thread: int = 4, serial: bool = False) -> list[T]:
    """Call `work(start, stop)` on consecutive row ranges in threads; the results come in row order.

    `serial` calls it in this thread instead: for work of less than a millisecond, which threads would only delay.
    """
    threads = 1 if serial else torch.get_num_threads()
    pieces = max(1, min(rows, threads * pieces_per_thread))
    edges = [rows * piece // pieces for piece in range(pieces + 1)]
    if threads == 1 or pieces == 1:
        return [work(start, stop) for start, stop in pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))
