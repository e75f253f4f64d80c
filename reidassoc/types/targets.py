"""What an associator answers, and what training aims at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from reidassoc.types.labels import Clustering, SoftLabels
from reidassoc.types.modality import Modality, Pair

SHARED = "shared"  # the label space of clusters that hold both modalities


@dataclass(frozen=True)
class Association:
    """How the samples of each modality are labelled in the other one's space.

    Args:
        cross: ``cross.visible`` (N_v, K_r): the visible samples in the infrared space; ``cross.infrared`` (N_r, K_v).
        own: each modality's samples in their own space, if the method relabels them; None keeps the clusterer's labels.
        shared: labels in a space that both share.
        prototypes: (K, D) by space, if the method says from what the banks of a space start.
    """

    cross: Pair[SoftLabels] | None = None
    own: Pair[SoftLabels] | None = None
    shared: Pair[SoftLabels] | None = None
    prototypes: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Targets:
    """The labels that an epoch trains with: one ``SoftLabels`` per modality and label space.

    Spaces are ``"visible"``, ``"infrared"`` (a modality's own clusters), ``"shared"``, or a plug-in's own.

    Args:
        table: the labels (N, K) of a modality's N samples in a space of K clusters, by (modality, space).
        prototypes: (K, D) by space, where an associator said from what the banks of the space start.
    """

    table: Mapping[tuple[Modality, str], SoftLabels]
    prototypes: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def compose(clustering: Clustering, association: Association | None = None) -> Targets:
        """Lay a clustering and what an associator said about it into one table."""
        association = association or Association()
        table: dict[tuple[Modality, str], SoftLabels] = {}
        for modality in Modality:
            clusters = clustering.own[modality]
            relabelled = association.own[modality] if association.own else None
            if relabelled is None:  # labels of no sample are false, too
                relabelled = SoftLabels.one_hot(clusters.labels, clusters.count)
            table[modality, str(modality)] = relabelled
            if association.cross is not None:
                table[modality, str(modality.other)] = association.cross[modality]
            if association.shared is not None:
                table[modality, SHARED] = association.shared[modality]
            elif clustering.shared is not None:
                union = clustering.shared[modality]
                table[modality, SHARED] = SoftLabels.one_hot(union.labels, union.count)
        return Targets(table, association.prototypes)

    def has(self, modality: Modality, space: str) -> bool:
        """Whether a modality's samples have labels in a space."""
        return (modality, str(space)) in self.table

    def of(self, modality: Modality, space: str) -> SoftLabels:
        """The labels of a modality's samples in a space; KeyError names the spaces there are."""
        try:
            return self.table[modality, str(space)]
        except KeyError:
            known = ", ".join(f"{m} in {s}" for m, s in self.table)
            raise KeyError(f"no labels of {modality} samples in space '{space}'; there are: {known}") from None

    def map(self, fn: Callable[[SoftLabels], SoftLabels]) -> Targets:
        """Change every entry by the same rule."""
        return replace(self, table={key: fn(labels) for key, labels in self.table.items()})

    def replaced(self, table: Mapping[tuple[Modality, str], SoftLabels]) -> Targets:
        """The same targets with some entries exchanged."""
        return replace(self, table={**self.table, **table})
