"""Whether a method takes an outlier's −1 for an index, which silently means the last cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reidassoc.interfaces import Associator
from reidassoc.testing.contracts import ContractError, require, run
from reidassoc.testing.properties import DISTINCT, check_renumbering, pairs
from reidassoc.testing.scenes import Toy

WRONG = "an outlier's −1 was used as an index, so that it took the label of the last cluster, whichever that is"


class FirstNotLast(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What is read at a negative index is the first row, not one counted from the end."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.index.Tensor:
            table, indices = args
            args = table, [clamped(index) for index in indices]
        return func(*args, **(kwargs or {}))


def clamped(index: Tensor | None) -> Tensor | None:
    return index if index is None or index.dtype in (torch.bool, torch.uint8) else index.clamp_min(0)


def check_outliers(associator: Associator, cases: Mapping[str, Toy] = DISTINCT) -> None:
    """No table of clusters is read at an outlier's −1.

    It was if both hold: the answer changes where negative indices read the first row in place of the last, and numbering the
    clusters anew changes outliers' labels. (A row of its own for outliers, last in the table, passes: its place is no cluster's.)
    Tensors alone are watched, not NumPy arrays.

    Raises:
        ContractError: it was; the message names the case.
    """
    for case, toy in cases.items():
        scene = toy.scene()
        before = run(associator, toy, scene)
        with FirstNotLast():  # type: ignore[no-untyped-call]
            after = run(associator, toy, toy.scene())
        same = all(torch.equal(one.prob, two.prob) for _, _, one, two in pairs(before, after))
        require(same or outliers_stay(associator, case, toy), case, WRONG)


def outliers_stay(associator: Associator, case: str, toy: Toy) -> bool:
    """Whether outliers keep their labels when the clusters are numbered anew."""
    try:
        check_renumbering(associator, {case: toy})
    except ContractError as error:
        return "the outliers' labels" not in str(error)
    return True
