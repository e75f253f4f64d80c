"""Where a run computes: device and precision, through lightning-fabric."""

from __future__ import annotations

import platform
import re
import warnings
from importlib.metadata import PackageNotFoundError, version

import torch
from lightning_fabric import Fabric

from reidassoc.errors import DeviceError

PACKAGES = (
    "reidassoc",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "POT",
    "faiss-gpu",
    "scikit-learn",
    "lightning-fabric",
    "numba",
)


def open_device(name: str = "auto", precision: str = "32-true") -> Fabric:
    """Return a Fabric on ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceError: the device is unknown or not there.
    """
    match = re.fullmatch(r"(auto|cpu|cuda)(?::(\d+))?", name)
    if match is None or (match[2] and match[1] != "cuda"):
        raise DeviceError(f"no device '{name}'; expected auto, cpu, cuda or cuda:N")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = int(match[2] or 0)
    if match[1] == "cuda" and wanted >= there:
        seen = f"{there} CUDA device{'s' if there != 1 else ''}"
        raise DeviceError(f"device '{name}' is not there: torch sees {seen}; take --device cpu or auto")
    on_cuda = match[1] == "cuda" or (match[1] == "auto" and there > 0)
    devices: int | list[int] = [wanted] if on_cuda else 1
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # one process is what was asked for
    return Fabric(accelerator="cuda" if on_cuda else "cpu", devices=devices, precision=precision)  # type: ignore[arg-type]


def environment(fabric: Fabric) -> dict[str, str | int]:
    """What a result must say of the machine that made it."""
    device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else processor()
    found: dict[str, str | int] = {
        "device": device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    found["system"] = f"{platform.system()} {platform.machine()}"
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "CPU"
