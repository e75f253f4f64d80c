"""Part features: what a network must give, and how they are read."""

from __future__ import annotations

from torch import Tensor

from reidassoc.errors import RecipeError
from reidassoc.ops.unit_rows import unit_rows
from reidassoc.types import Features, Modality

PARTS = "parts"  # key of Features.extra


def unit_parts(features: Features, modality: Modality, who: str) -> Tensor:
    """(N, P, D): the part features of all samples, every part a unit vector.

    Raises:
        RecipeError: the features have none; `who` is named as the plug-in that asks.
    """
    if PARTS not in features.extra:
        raise RecipeError(
            f"{who} needs part features, and the {modality} features have none (extra['{PARTS}'], (N, P, D)); take a network "
            "that gives them, such as two_stream(parts=3)"
        )
    parts = features.extra[PARTS]
    if parts.ndim != 3:
        raise RecipeError(f"extra['{PARTS}'] of the {modality} features must be (N, P, D), got {tuple(parts.shape)}")
    return unit_rows(parts)
