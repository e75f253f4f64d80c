"""Whether a method takes an outlier's −1 for an index, which silently means the last cluster."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reidassoc.interfaces.plugins import Associator
from reidassoc.testing.check.lines import own_line
from reidassoc.testing.contracts import ContractError, run
from reidassoc.testing.properties import DISTINCT, check_renumbering, pairs
from reidassoc.testing.scenes import Toy
from reidassoc.types import Association

WRONG = "an outlier's −1 was used as an index, so that it took the label of the last cluster, whichever that is"


class FirstNotLast(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What is read at a negative index is the first row, not one counted from the end.

    Args:
        plugin: whose lines are remembered.
        only: the line at which it is so; everywhere, if none is given.
    """

    def __init__(self, plugin: object, only: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plugin, self.only = plugin, only
        self.lines: dict[str, None] = {}  # of the plug-in's file, at which an index was negative, in that order

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (torch.ops.aten.index.Tensor, torch.ops.aten.take.default):
            table, indices = args[0], args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
            if any(negative(index) for index in indices):
                line = own_line(traceback.walk_stack(inspect.currentframe()), self.plugin)
                self.lines[line] = None
                if self.only in (None, line):
                    first = [index.clamp_min(0) if negative(index) else index for index in indices]
                    args = table, first if func is torch.ops.aten.index.Tensor else first[0]
        return func(*args, **(kwargs or {}))


def negative(index: Tensor | None) -> bool:
    """Whether an index counts from the end somewhere; a mask doesn't."""
    return index is not None and index.dtype not in (torch.bool, torch.uint8) and bool((index < 0).any())


def check_outliers(associator: Associator, cases: Mapping[str, Toy] = DISTINCT) -> None:
    """No table of clusters is read at an outlier's −1.

    It was if both hold: the answer changes where negative indices read the first row in place of the last, and numbering the
    clusters anew changes outliers' labels. (A row of its own for outliers, last in the table, passes: its place is no cluster's.)
    Tensors alone are watched, not NumPy arrays.

    Raises:
        ContractError: it was; the message names the case, and the first line of the method's own file where it matters.
    """
    for case, toy in cases.items():
        before = run(associator, toy, toy.scene())
        same, lines = without_the_last(associator, toy, before)
        if same or outliers_stay(associator, case, toy):
            continue
        guilty = (line for line in lines if line and not without_the_last(associator, toy, before, only=line)[0])
        line = next(guilty, next(filter(None, lines), ""))  # where two matter only together, the first
        raise ContractError(f"{case}: {WRONG}" + (f" ({line})" if line else ""))


def without_the_last(
    associator: Associator, toy: Toy, before: Association, only: str | None = None
) -> tuple[bool, list[str]]:
    """Whether the answer stays what it was if negative indices read the first row, and the lines that have such an index."""
    with FirstNotLast(associator, only) as watched:
        after = run(associator, toy, toy.scene())
    return all(torch.equal(one.prob, two.prob) for _, _, one, two in pairs(before, after)), list(watched.lines)


def outliers_stay(associator: Associator, case: str, toy: Toy) -> bool:
    """Whether outliers keep their labels when the clusters are numbered anew."""
    try:
        check_renumbering(associator, {case: toy})
    except ContractError as error:
        return "the outliers' labels" not in str(error)
    return True
