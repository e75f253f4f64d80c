"""What the machine is called, and where figures taken on it are kept."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parents[1] / "results"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpu.read_text()) if cpu.exists() else None
    return f"{found.group(1) if found else platform.processor() or 'CPU'}, {torch.get_num_threads()} threads"


def slug(device: str) -> str:
    """A device's name as part of a file's: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
