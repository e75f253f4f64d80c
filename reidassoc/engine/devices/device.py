"""Where a run computes: devices and precision, through lightning-fabric."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import re
import sys
import warnings
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

import lightning_fabric.utilities.distributed
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from reidassoc.errors import DeviceError

PACKAGES = (
    "reidassoc",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "POT",
    "faiss-gpu",
    "faiss-cpu",
    "scikit-learn",
    "lightning-fabric",
    "numba",
)


# For which a rank waits: the first one may label and score for long, and a lost rank is noticed without a clock.
TIMEOUT = timedelta(days=1)


def world() -> int:
    """The number of processes that torchrun, or ``--devices`` on this machine, started for this run; 1 without."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return int(os.environ["WORLD_SIZE"]) if all(os.environ.get(name) for name in names) else 1


def slurm_tasks() -> int:
    """The number of tasks that ``srun`` started beside this one, itself included; 1 without."""
    return int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_PROCID" in os.environ else 1


def open_devices(name: str | torch.device = "auto", precision: str = "32-true", devices: int = 1) -> Fabric:
    """Return a Fabric of this process among those that compute together: started by ``--devices``, torchrun or srun.

    Args:
        name: ``auto``, ``cpu`` or ``cuda``, or torch's object; with one process also ``cuda:N``.
        devices: of each node; torchrun says it itself.

    Raises:
        DeviceError: the device is unknown or not there, or there are not as many processes as devices.
    """
    name = str(name)
    if not isinstance(devices, int) or devices < 1:
        raise DeviceError(f"the number of devices must be at least 1, got {devices!r}")
    count, nodes = 1, 1
    place: ClusterEnvironment | None = None
    if world() > 1:
        place, count = TorchElasticEnvironment(), int(os.environ.get("LOCAL_WORLD_SIZE", devices))
        nodes = world() // max(count, 1)
        if devices not in (1, count) or count * nodes != world():
            raise DeviceError(f"torchrun started {world()} processes, {count} on this node; --devices says {devices}")
    elif devices > 1 and slurm_tasks() > 1:
        count, nodes = devices, int(os.environ.get("SLURM_NNODES", 1))
        if count * nodes != slurm_tasks() or os.environ.get("SLURM_NTASKS_PER_NODE", "").split("(")[0] != str(count):
            raise DeviceError(
                f"srun started {slurm_tasks()} tasks on {nodes} node(s); --devices {devices} needs --ntasks-per-node={devices}"
            )
        place = SLURMEnvironment(auto_requeue=False)
    elif devices > 1:
        raise DeviceError(
            f"{devices} devices need {devices} processes: use reidassoc run --devices {devices}, "
            f"or start the script with torchrun --nproc-per-node {devices}"
        )
    if place is None:
        return open_device(name, precision)
    return connect(name, precision, place, count, nodes)


def connect(name: str, precision: str, place: ClusterEnvironment, count: int, nodes: int) -> Fabric:
    """Join the other processes."""
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"--device {name} is one device; several are --device cuda or cpu with --devices N")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind = name if name != "auto" else "cuda" if there else "cpu"
    if kind == "cuda" and there < count:
        raise DeviceError(f"{count} CUDA devices asked for, torch sees {there}; take --devices {max(there, 1)}")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would announce itself
    fabric = Fabric(
        accelerator=kind,
        devices=count,
        num_nodes=nodes,
        precision=precision,  # type: ignore[arg-type]
        strategy=DDPStrategy(timeout=TIMEOUT),
        plugins=[place],
    )
    fabric.launch()
    with suppress(AttributeError):
        atexit.unregister(lightning_fabric.utilities.distributed._destroy_dist_connection)
    atexit.register(disband)
    return fabric


def disband() -> None:
    """Leave the group of processes as this one ends, unless by an error: NCCL's clean-up waits for every process."""
    if not hasattr(sys, "last_value"):
        torch.distributed.destroy_process_group()


def open_device(name: str | torch.device = "auto", precision: str = "32-true") -> Fabric:
    """Return a Fabric on ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``, or on torch's object.

    Raises:
        DeviceError: the device is unknown or not there.
    """
    name = str(name)
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
    """What a result must say of the machine, or of the first of several, that made it."""
    device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else processor()
    found: dict[str, str | int] = {
        "device": device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    if fabric.world_size > 1:
        found["devices"] = fabric.world_size
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
