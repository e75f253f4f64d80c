"""Property checks: what must follow from symmetry, for the methods that have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from reidassoc.interfaces.plugins import Associator
from reidassoc.interfaces.scene import Scene
from reidassoc.testing.contracts import require, run
from reidassoc.testing.scenes import CASES, Toy, permuted, renumbered, swapped
from reidassoc.types import Association, Modality, Pair, SoftLabels

TIE = 1e-5  # clusters whose probabilities differ by less are equally probable: which of them is the label says nothing
# Copies of an image tie everywhere, and ties are broken by position: no symmetry there.
DISTINCT = {name: toy for name, toy in CASES.items() if toy.copies == 1}


def check_permutation(
    associator: Associator, cases: Mapping[str, Toy] = DISTINCT, *, agreement: float = 1.0, seed: int = 0
) -> None:
    """The order of the samples does not matter: permuting them permutes the rows of the answer.

    Args:
        associator: to be checked.
        cases: to try it on.
        agreement: share of hard labels that must agree (below 1 for methods with near ties).
        seed: of the permutation.

    Raises:
        ContractError: it does matter.
    """
    for case, toy in cases.items():
        scene = toy.scene()
        generator = torch.Generator().manual_seed(seed)
        order = scene.features.map(lambda f: torch.randperm(len(f), generator=generator))  # noqa: B023
        moved = permuted(scene, order)
        identity = Pair.build(lambda m: toy.identity[m][order[m]])  # noqa: B023
        before, after = run(associator, toy, scene), answer(associator, moved, identity)
        for where, modality, one, two in pairs(before, after):
            compare(f"{case}, {where}", one.take(order[modality]), two, agreement, "permuting the samples")


def check_swap(associator: Associator, cases: Mapping[str, Toy] = DISTINCT, *, agreement: float = 1.0) -> None:
    """The modalities' names do not matter: swapping them swaps the answer.

    Raises:
        ContractError: they do.
    """
    for case, toy in cases.items():
        scene = toy.scene()
        before, after = run(associator, toy, scene), answer(associator, swapped(scene), toy.identity.swapped)
        back = Association(
            cross=after.cross.swapped if after.cross else None,
            own=after.own.swapped if after.own else None,
            shared=after.shared.swapped if after.shared else None,
        )
        for where, _, one, two in pairs(before, back):
            compare(f"{case}, {where}", one, two, agreement, "swapping the modalities")


def check_renumbering(associator: Associator, cases: Mapping[str, Toy] = DISTINCT, *, agreement: float = 1.0) -> None:
    """The clusters' numbers do not matter: numbering them anew renumbers the answer, and changes nothing for outliers.

    An outlier's −1 used as an index is the last cluster, whichever that is: the usual reason why it fails. Labels in a
    space of the method's own (``shared``) are not compared.

    Args:
        associator: to be checked.
        cases: to try it on.
        agreement: share of hard labels that must agree, of outliers and of others (below 1 for methods with near ties).

    Raises:
        ContractError: they do.
    """
    for case, toy in cases.items():
        scene = toy.scene()
        before, after = run(associator, toy, scene), answer(associator, renumbered(scene), toy.identity)
        for where, modality, one, two in pairs(replace(before, shared=None), replace(after, shared=None)):
            moved = SoftLabels(two.prob.roll(1, 1), two.weight)  # under the numbers that the clusters had
            outlier = scene.clustering.own[modality].labels < 0
            for rows, who in ((outlier, "the outliers'"), (~outlier, "the clustered samples'")):
                text = f"numbering the clusters anew leaves only {{:.2%}} of {who} labels the same"
                require_same(f"{case}, {where}", one.take(rows), moved.take(rows), agreement, text)


def answer(associator: Associator, scene: Scene, identity: Pair[Tensor]) -> Association:
    if "identity" in associator.needs:
        return associator(scene, identity=identity)  # type: ignore[call-arg]
    return associator(scene)


def pairs(first: Association, second: Association) -> Iterator[tuple[str, Modality, SoftLabels, SoftLabels]]:
    for field in ("cross", "own", "shared"):
        one, two = getattr(first, field), getattr(second, field)
        require((one is None) == (two is None), field, "is there in one answer and not in the other")
        if one is not None:
            for modality in Modality:
                yield f"{field} labels of {modality} samples", modality, one[modality], two[modality]


def compare(where: str, one: SoftLabels, two: SoftLabels, agreement: float, what: str) -> None:
    require_same(where, one, two, agreement, f"{what} leaves only {{:.2%}} of the labels the same")


def require_same(where: str, one: SoftLabels, two: SoftLabels, agreement: float, text: str) -> None:
    share = float(agree(one, two).double().mean()) if len(one) else 1.0
    require(share >= agreement, where, text.format(share))


def agree(one: SoftLabels, two: SoftLabels) -> Tensor:
    """(N,) bool: rows that have the same label, or each a label that ties with the other's."""
    return (one.hard == two.hard) | (ties(one, two.hard) & ties(two, one.hard))


def ties(labels: SoftLabels, other: Tensor) -> Tensor:
    """(N,) bool: rows in which another cluster is as probable as the most probable one; −1 is none."""
    there = labels.labelled & (other >= 0) & (other < labels.count)
    if labels.count == 0:
        return there
    column = other.clamp(0, labels.count - 1)[:, None]
    return there & (labels.prob.gather(1, column)[:, 0] >= labels.prob.amax(1) - TIE)
