"""What a plug-in sees and must return: the six protocols, scenes, batches and banks."""

from reidassoc.interfaces.banks import Bank, Banks
from reidassoc.interfaces.batch import Batch, View
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
from reidassoc.interfaces.scene import Scene

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
