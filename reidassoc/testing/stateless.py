"""What a plug-in holds, to be compared before and after a call: it keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

MISSING = object()


def state_of(value: object) -> dict[str, object]:
    """The attributes of an object, and the containers of its classes, as they are at this moment.

    What a `cached_property` remembers is no part of it: that follows from the options.
    """
    classes = [vars(cls) for cls in reversed(type(value).__mro__)]
    cached = {name for names in classes for name, of in names.items() if isinstance(of, cached_property)}
    held = {name: of for names in classes for name, of in names.items() if isinstance(of, (list, dict, set))}
    held |= getattr(value, "__dict__", {})
    return {name: copied(of) for name, of in held.items() if name not in cached and not name.startswith("__")}


def changed(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """The first attribute that came, went or changed from one state to another; empty if none did."""
    names = dict.fromkeys([*before, *now])
    return next((name for name in names if not alike(before.get(name, MISSING), now.get(name, MISSING))), "")


def copied(value: object) -> object:
    """A value as it is at this moment; what can't be looked into stands for itself."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(item) for item in value]
    if isinstance(value, set):
        return set(value)
    if is_dataclass(value) and not isinstance(value, type):
        return state_of(value)
    return value


def alike(one: object, two: object) -> bool:
    """Whether two copies are of the same state."""
    if one is two:
        return True
    if type(one) is not type(two):
        return False
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape == two.shape and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(item, two[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(alike, one, two))
    return isinstance(one, (str, int, float, set)) and one == two
