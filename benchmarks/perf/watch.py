"""Time and memory of this process while it works."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def resident_bytes() -> int:
    """Memory of this process now; where there is no /proc, its peak so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Peak:
    """The most memory of this process inside ``with Peak(…) as peak:``, looked at every few milliseconds.

    Args:
        every: seconds between two looks.
        most: bytes, so far.
    """

    every: float
    most: int = field(default_factory=resident_bytes)

    def __enter__(self) -> Peak:
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(self.every):
            self.most = max(self.most, resident_bytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()


@dataclass
class Meter:
    """Wall and processor time of steps, and the peak memory of the process while they ran."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_gib: dict[str, float] = field(default_factory=dict)

    def measure(self, step: str, work: Callable[[], T]) -> T:
        with Peak(0.02) as peak:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
                torch.cuda.synchronize(self.device)
            started, worked = time.perf_counter(), time.process_time()
            result = work()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[step], self.cpu_seconds[step] = time.perf_counter() - started, time.process_time() - worked
        cuda = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        self.peak_gib[step] = max(peak.most, cuda) / 2**30
        return result
