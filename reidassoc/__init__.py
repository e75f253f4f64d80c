"""reidassoc: every step of unsupervised visible-infrared person re-identification as a plug-in on one engine.

The names below are imported when first used, so that ``reidassoc --help`` starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reidassoc._version import __version__

_PUBLIC = {
    "reidassoc.types": (
        "OUTLIER",
        "SHARED",
        "Association",
        "Clustering",
        "Clusters",
        "Features",
        "Modality",
        "Pair",
        "Records",
        "Rule",
        "SoftLabels",
        "Targets",
        "Trial",
    ),
    "reidassoc.interfaces.scene": ("Scene",),
    "reidassoc.interfaces.batch": ("Batch", "View"),
    "reidassoc.interfaces.banks": ("Bank", "Banks"),
    "reidassoc.interfaces": (
        "Associator",
        "Clusterer",
        "Dataset",
        "Network",
        "NetworkOutput",
        "Objective",
        "Refiner",
    ),
    "reidassoc.recipe": ("Recipe", "load_recipe"),
    "reidassoc.recipe.choose": ("choose",),
    "reidassoc.engine.associate": ("associate",),
    "reidassoc.engine.run": ("run",),
    "reidassoc.engine.evaluate": ("evaluate",),
    "reidassoc.tables.read": ("read_results",),
    "reidassoc.tables.table": ("compare_results",),
    "reidassoc.bench.runner": ("open_benchmark",),
    "reidassoc.engine.features": ("save_features",),
    "reidassoc.labs.lab": ("lab",),
    "reidassoc.labs.advise": ("advise",),
    "reidassoc.labs.advise_epochs": ("advise_epochs",),
    "reidassoc.report.page_writer": ("write_report",),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

if TYPE_CHECKING:
    import reidassoc.registry as registry
    from reidassoc.bench.runner import open_benchmark
    from reidassoc.engine.associate import associate
    from reidassoc.engine.evaluate import evaluate
    from reidassoc.engine.features import save_features
    from reidassoc.engine.run import run
    from reidassoc.interfaces.banks import Bank, Banks
    from reidassoc.interfaces.batch import Batch, View
    from reidassoc.interfaces.plugins import Associator, Clusterer, Dataset, Network, NetworkOutput, Objective, Refiner
    from reidassoc.interfaces.scene import Scene
    from reidassoc.labs.advise import advise
    from reidassoc.labs.advise_epochs import advise_epochs
    from reidassoc.labs.lab import lab
    from reidassoc.recipe.choose import choose
    from reidassoc.recipe.load import load_recipe
    from reidassoc.recipe.model import Recipe
    from reidassoc.report.page_writer import write_report
    from reidassoc.tables.read import read_results
    from reidassoc.tables.table import compare_results
    from reidassoc.types import (
        OUTLIER,
        SHARED,
        Association,
        Clustering,
        Clusters,
        Features,
        Modality,
        Pair,
        Records,
        Rule,
        SoftLabels,
        Targets,
        Trial,
    )

__all__ = [
    "OUTLIER",
    "SHARED",
    "Association",
    "Associator",
    "Bank",
    "Banks",
    "Batch",
    "Clusterer",
    "Clustering",
    "Clusters",
    "Dataset",
    "Features",
    "Modality",
    "Network",
    "NetworkOutput",
    "Objective",
    "Pair",
    "Recipe",
    "Records",
    "Refiner",
    "Rule",
    "Scene",
    "SoftLabels",
    "Targets",
    "Trial",
    "View",
    "__version__",
    "advise",
    "advise_epochs",
    "associate",
    "choose",
    "compare_results",
    "evaluate",
    "lab",
    "load_recipe",
    "open_benchmark",
    "read_results",
    "registry",
    "run",
    "save_features",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "registry":
        return importlib.import_module("reidassoc.registry")
    if name not in _HOME:
        raise AttributeError(f"module 'reidassoc' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
