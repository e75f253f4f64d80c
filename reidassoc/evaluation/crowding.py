"""A hint where one cluster contains so many samples of a modality that its labels say little."""

from __future__ import annotations

import shlex

from reidassoc.types import Modality, Pair

CROWDED = 1 / 3  # share of a modality's samples above which a cluster is worth a hint


def crowding(largest: Pair[float], file: str = "FILE") -> str:
    """The hint, with the command that suggests other settings; empty if no cluster is that large.

    Args:
        largest: share of each modality's samples that its largest cluster contains.
        file: the feature file, for the command.

    >>> crowding(Pair(0.97, 0.1))
    'One cluster contains 97 % of the visible samples; `reidassoc advise FILE` suggests eps and k1.'
    """
    found = [f"{100 * largest[m]:.0f} % of the {m} samples" for m in Modality if largest[m] > CROWDED]
    if not found:
        return ""
    return f"One cluster contains {', one '.join(found)}; `reidassoc advise {shlex.quote(file)}` suggests eps and k1."
