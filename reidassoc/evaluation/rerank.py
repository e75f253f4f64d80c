"""Test-time steps that look at all queries and the whole gallery at once. Their figures are never mixed with the plain ones.

An ordinary result ranks a gallery for one query that comes alone. These let the queries of a trial tell of each other, and
so use what a deployed system may not have: every result that they touch says so, in a column of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from reidassoc.errors import SpecError, nearest_name
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.precision import full_float32
from reidassoc.ops.propagation import propagate
from reidassoc.registry.options import construct
from reidassoc.registry.spec import Spec
from reidassoc.types import Pair

Rerank = Callable[[Tensor, Tensor], Tensor]
"""(Q, D) query and (G, D) gallery features, unit rows -> (Q, G) distances, small is near."""


@dataclass(frozen=True, kw_only=True)
class Cmfp:
    """Propagate features over query and gallery, both modalities, then rank by cosine.

    Source: SALCR, IJCV 2025, arXiv 2504.19244 (CMFP at test time). At most all images of a side are used.
    """

    k: Annotated[int, Field(ge=1, description="neighbours of either modality (SYSU-MM01: 30, RegDB: 8)")] = 30

    def __call__(self, query: Tensor, gallery: Tensor) -> Tensor:
        spread = propagate(Pair(query, gallery), k=self.k)
        with full_float32(query.device):
            return 1 - spread.visible @ spread.infrared.T


@dataclass(frozen=True, kw_only=True)
class KReciprocal:
    """Rank by a mix of the cosine distance and the Jaccard distance of k-reciprocal neighbours among query and gallery.

    ``weight`` · (1 − cosine) + (1 − ``weight``) · Jaccard distance. Source: Zhong et al., CVPR 2017, on the affinity that
    the clusterers use (its neighbour lists count the image itself), and with the cosine distance as it is.
    """

    k1: Annotated[int, Field(ge=1, description="neighbours that make up a neighbourhood")] = 20
    k2: Annotated[int, Field(ge=1, description="neighbours over which neighbourhoods are averaged")] = 6
    weight: Annotated[float, Field(ge=0, le=1, description="of the cosine distance")] = 0.3

    def __call__(self, query: Tensor, gallery: Tensor) -> Tensor:
        alike = jaccard_similarity(torch.cat([query, gallery]), k1=self.k1, k2=self.k2)
        pointer, size = alike.crow_indices(), len(query)
        stop = int(pointer[size])  # the rows of the queries
        row = torch.repeat_interleave(torch.arange(size, device=query.device), pointer[: size + 1].diff())
        column, value = alike.col_indices()[:stop] - size, alike.values()[:stop]
        across = column >= 0
        jaccard = torch.ones(size, len(gallery), device=query.device)
        jaccard[row[across], column[across]] = 1 - value[across]
        with full_float32(query.device):
            return self.weight * (1 - query @ gallery.T) + (1 - self.weight) * jaccard


STEPS: dict[str, type] = {"cmfp": Cmfp, "k_reciprocal": KReciprocal}


def transductive(text: str) -> tuple[str, Rerank]:
    """Make a test-time step from ``cmfp``, ``cmfp(k=8)``, ``k_reciprocal(k1=20, k2=6, weight=0.3)``: (spec, step).

    Raises:
        SpecError: no such step, or a wrong option.
    """
    spec = Spec.parse(text)
    if spec.name not in STEPS:
        raise SpecError(
            f"no transductive step '{spec.name}'{nearest_name(spec.name, STEPS)}; there are: {', '.join(STEPS)}"
        )
    step: Any = construct(STEPS[spec.name], spec.options, spec.name)
    return str(spec), step
