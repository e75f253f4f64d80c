"""SALCR's part heads: learned tokens find a part in each horizontal stripe, and query it in other streams' maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from reidassoc.ops.precision import at_least_single
from reidassoc_plugins.networks.necks import neck

# (query stream, map stream), grouped as they pass the neck: each image on its own map, then its first and second view.
OWN = (("visible", "visible"), ("augmented", "augmented"), ("infrared", "infrared"))
FIRST = (("visible", "infrared"), ("augmented", "infrared"), ("infrared", "visible"))
SECOND = (("visible", "augmented"), ("augmented", "visible"), ("infrared", "augmented"))


def as_rows(x: Tensor) -> Tensor:
    """Fold a map's columns into its channels: (B, C, h, w) -> (B, C·w, h, 1), a position per row of cells.

    For maps of few channels, whose identity evidence is where on a row something is.
    """
    return x.transpose(2, 3).flatten(1, 2).unsqueeze(3)


class PartHeads(nn.Module):
    """Part features (B, P, D) by (query stream, map stream), after their BN neck. Source: SALCR, IJCV 2025, FGSAL.

    Training with all three streams, image i of each showing the same pseudo-identity, gives all nine pairs; otherwise
    every stream queries only its own map.
    """

    def __init__(self, parts: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(parts, width) * width**-0.5)
        self.neck = neck(parts * width)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        stripes = {stream: self.stripes(x) for stream, x in maps.items()}
        queries = {stream: self.locate(x) for stream, x in stripes.items()}
        kinds = [tuple(pair for pair in OWN if pair[0] in maps)]
        if self.training and len(maps) == len(OWN) and len({len(x) for x in maps.values()}) == 1:
            kinds += [FIRST, SECOND]
        found: dict[tuple[str, str], Tensor] = {}
        for pairs in kinds:
            answers = torch.cat([self.ask(queries[query], stripes[asked]) for query, asked in pairs])
            after: Tensor = self.neck(at_least_single(answers).flatten(1))
            split = torch.split(after.view(answers.shape), [len(queries[query]) for query, _ in pairs])
            found.update(zip(pairs, split, strict=True))
        return found

    def stripes(self, x: Tensor) -> Tensor:
        """Cut a map (B, D, h, w), row-major, into P runs of L = ⌊hw / P⌋ positions: (B, P, L, D), a view."""
        parts, positions = len(self.tokens), x.flatten(2).transpose(1, 2)
        length = positions.shape[1] // parts
        return positions[:, : parts * length].view(len(x), parts, length, -1)

    def locate(self, stripes: Tensor) -> Tensor:
        """Return the part features (B, P, D): positions weighted by the sigmoid of their token, weights summing to 1."""
        attention = at_least_single(torch.einsum("bpld,pd->bpl", stripes, self.tokens)).sigmoid()
        attention = attention / attention.sum(2, keepdim=True)
        return torch.einsum("bpl,bpld->bpd", attention.to(stripes.dtype), stripes)

    def ask(self, query: Tensor, stripes: Tensor) -> Tensor:
        """Return what part features (B, P, D) find in a map's stripes: positions weighted by softmax(⟨q, x⟩ / √D)."""
        return torch.einsum("bpl,bpld->bpd", self.attention(query, stripes).to(stripes.dtype), stripes)

    def attention(self, query: Tensor, stripes: Tensor) -> Tensor:
        """(B, P, L) float32, rows sum to 1."""
        scale = query.shape[2] ** -0.5
        logits: Tensor = at_least_single(torch.einsum("bpd,bpld->bpl", query, stripes)) * scale
        return logits.softmax(2)


def of_streams(
    heads: PartHeads | None, maps: Mapping[str, Tensor], fold: Callable[[Tensor], Tensor] = lambda x: x
) -> dict[str, dict[tuple[str, str], Tensor]]:
    """What the heads find on the folded maps, by query stream; nothing for any stream without heads."""
    found = heads({stream: fold(x) for stream, x in maps.items()}) if heads is not None else {}
    return {stream: {pair: x for pair, x in found.items() if pair[0] == stream} for stream in maps}
