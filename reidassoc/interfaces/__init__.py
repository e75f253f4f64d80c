"""What a plug-in sees and must return: the six protocols, scenes, batches and banks.

Scenes, batches and banks are imported when first used: they need torch, which commands that only look at names don't load.
"""

import importlib
from typing import TYPE_CHECKING, Any

from reidassoc.interfaces.plugins import (
    KINDS,
    Associator,
    Clusterer,
    Dataset,
    Network,
    NetworkOutput,
    Objective,
    Plugin,
    Refiner,
    Sampling,
)

if TYPE_CHECKING:
    from reidassoc.interfaces.banks import Bank, Banks
    from reidassoc.interfaces.batch import Batch, View
    from reidassoc.interfaces.scene import Scene

_MODULES = {"Bank": "banks", "Banks": "banks", "Batch": "batch", "View": "batch", "Scene": "scene"}

__all__ = [
    "KINDS",
    "Associator",
    "Bank",
    "Banks",
    "Batch",
    "Clusterer",
    "Dataset",
    "Network",
    "NetworkOutput",
    "Objective",
    "Plugin",
    "Refiner",
    "Sampling",
    "Scene",
    "View",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'reidassoc.interfaces' has no attribute '{name}'")
    return getattr(importlib.import_module(f"reidassoc.interfaces.{_MODULES[name]}"), name)
