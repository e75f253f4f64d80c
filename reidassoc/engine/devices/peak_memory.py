"""The peak of the memory that something took: of the process on a CPU, of torch on a GPU."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

RESET_PEAK = "5"  # written to clear_refs: Linux starts the peak of the resident set anew


def start_peak(device: torch.device) -> int:
    """Start the peak of the memory anew, where the system can; return the bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    return resident("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """Peak memory since :func:`start_peak`: of the process on a CPU (of its whole life where there is no Linux), else of
    torch on the device.
    """
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else resident("VmHWM")


def resident(name: str) -> int:
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at the peak; the peak of its life where there is no Linux."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
