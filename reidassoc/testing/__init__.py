"""For plug-in authors: toy scenes, and checks that a plug-in keeps its contract.

>>> from reidassoc.testing import check_associator
>>> from reidassoc import registry
>>> check_associator(registry.build("associators", "nearest"))
"""

from reidassoc.testing.contracts import ContractError, check_associator, check_clusterer
from reidassoc.testing.fake_gpu import PretendError, pretended_device
from reidassoc.testing.outliers import check_outliers
from reidassoc.testing.properties import check_permutation, check_renumbering, check_swap
from reidassoc.testing.scenes import CASES, Toy, permuted, renumbered, swapped, toy_features, toy_identity, toy_scene
from reidassoc.testing.training import check_dataset, check_network, check_objective, check_refiner, toy_step

__all__ = [
    "CASES",
    "ContractError",
    "PretendError",
    "Toy",
    "check_associator",
    "check_clusterer",
    "check_dataset",
    "check_network",
    "check_objective",
    "check_outliers",
    "check_permutation",
    "check_refiner",
    "check_renumbering",
    "check_swap",
    "permuted",
    "pretended_device",
    "renumbered",
    "swapped",
    "toy_features",
    "toy_identity",
    "toy_scene",
    "toy_step",
]
