"""Clocks, memory and the machine's rates, for the rows of the suite."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from watch import Peak, resident_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Rates:
    """What this process gets out of the machine now."""

    float32_gflops: float
    bfloat16_gflops: float
    gbytes_s: float

    @staticmethod
    def probe() -> Rates:
        a, b = torch.rand(2048, 2048), torch.rand(4096, 2048)
        out, half_out = torch.empty(2048, 4096), torch.empty(2048, 4096, dtype=torch.bfloat16)
        half = a.bfloat16(), b.bfloat16()
        work = 2 * 2048 * 2048 * 4096 / 1e9
        full = best(lambda: torch.mm(a, b.T, out=out))
        short = best(lambda: torch.mm(half[0], half[1].T, out=half_out))
        big = torch.rand(1 << 27)  # 512 MiB: past every cache
        read = best(lambda: big.sum())
        return Rates(work / full, work / short, big.numel() * 4 / read / 1e9)

    def products(self, gflop: float) -> float:
        """Seconds for float32 matrix products."""
        return gflop / self.float32_gflops

    def reads(self, gbytes: float) -> float:
        """Seconds to go through memory."""
        return gbytes / self.gbytes_s


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        size: what was worked on.
        ours_s: median over the runs.
        baseline_s: the plain version's single run in the same process on the same input; None = not run.
        floor_s: what the plain algorithm needs at the probed rates; None = not bound by products or memory.
        peak_gib: how far the process grew beyond what it held before the stage.
        agreement: share of equal results, or largest difference, as the name of it says.
        bar: what is asked, and whether it is met; empty = nothing is asked.
    """

    stage: str
    size: str
    ours_s: float
    baseline_s: float | None
    floor_s: float | None
    peak_gib: float
    agreement: str
    bar: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        against = "" if self.baseline_s is None else f"{self.baseline_s:.3f} | {self.baseline_s / self.ours_s:.1f}"
        floor = "" if self.floor_s is None else f"{self.floor_s:.3f} | {self.ours_s / self.floor_s:.2f}"
        cells = [self.stage, self.size, f"{self.ours_s:.3f}", against or " | ", floor or " | "]
        return "| " + " | ".join([*cells, f"{self.peak_gib:.2f}", self.agreement, self.bar]) + " |"


HEAD = (
    "| stage | size | ours, s | plain, s | plain / ours | floor, s | ours / floor | peak, GiB | against the plain | bar |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|---|---|"
)


def best(work: Callable[[], Any], runs: int = 3) -> float:
    work()
    return min(clocked(work)[0] for _ in range(runs))


def clocked(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measured(work: Callable[[], T], runs: int, *, warm: bool = True) -> tuple[float, float, T]:
    """Median seconds, GiB that the process grew by at most, and the last result; one run before them warms up."""
    if warm:
        work()
    before = resident_bytes()
    seconds = []
    with Peak(0.005) as peak:
        for _ in range(runs):
            spent, result = clocked(work)
            seconds.append(spent)
    return statistics.median(seconds), (peak.most - before) / 2**30, result
