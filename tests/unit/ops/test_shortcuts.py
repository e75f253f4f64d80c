"""Shortcuts of the label stage: each is forced on and off, through `ra.associate`, and changes no label but for ties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import reidassoc as ra
from reidassoc import Association, Modality, Pair
from reidassoc.engine import associate as public
from reidassoc.ops import jaccard, near_pairs, neighbours, transition, transport
from reidassoc.ops.compiled.dispatch import compiled, without_numba
from reidassoc.ops.memory_limit import memory_limit
from reidassoc.recipe.requirements import candidates

PEOPLE, VISIBLE, INFRARED, WIDTH = 16, 192, 96, 64
PAIRS = VISIBLE * INFRARED  # of the cross-modality kernel, the size that most thresholds look at
NEVER = 1 << 62
OF_A_FILE = "from_file"  # its labels come from a file, not from the features
SPECS = [spec for spec, _ in candidates("associators") if not spec.startswith(OF_A_FILE)]
Settings = Mapping[tuple[Any, str], Any]


def pays(answer: bool) -> Settings:
    return {(module, "bfloat16_pays"): lambda device: answer for module in (transport, neighbours)}


def blocks(elements: int) -> Settings:
    return {(module, "BLOCK_ELEMENTS"): elements for module in (transport, neighbours, jaccard, near_pairs)}


def fast(threshold: int) -> Settings:
    return {(transport, "FAST_FROM"): threshold, (neighbours, "SCREEN_FROM"): threshold}


# Name -> settings, whether numba is used, and the memory limit in GiB (None = the default, which everything fits).
SHORTCUTS: dict[str, tuple[Settings, bool, float | None]] = {
    "compiled": (pays(False) | fast(NEVER), True, None),
    "over-relaxed": (pays(False) | fast(0), False, None),
    "compiled, over-relaxed": (pays(False) | fast(0), True, None),
    "bfloat16 at its threshold": (pays(True) | fast(PAIRS), True, None),
    "bfloat16 below its threshold": (pays(True) | fast(PAIRS + 1), True, None),
    "bfloat16, never truncated": (pays(True) | fast(0) | {(transition, "MAX_DENSITY"): 0.0}, True, None),
    "bfloat16, always truncated": (pays(True) | fast(0) | {(transition, "MAX_DENSITY"): 1.0}, True, None),
    "always truncated": (pays(False) | fast(NEVER) | {(transition, "MAX_DENSITY"): 1.0}, False, None),
    "small blocks": (pays(False) | fast(NEVER) | blocks(1 << 12), False, None),
    "bfloat16, small blocks": (pays(True) | fast(0) | blocks(1 << 12), True, None),
    "memory limit that just fits": (pays(True) | fast(0), True, PAIRS * 4 / 2**30),
    "near pairs": (pays(True) | fast(0), True, (PAIRS - 1) * 4 / 2**30),
    "near pairs in torch": (pays(False) | fast(NEVER), False, (PAIRS - 1) * 4 / 2**30),
}
PLAIN: tuple[Settings, bool, float | None] = (
    pays(False) | fast(NEVER) | {(transition, "MAX_DENSITY"): 0.0},
    False,
    None,
)


@contextmanager
def forced(settings: Settings, numba: bool, limit: float | None) -> Iterator[None]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for (module, name), value in settings.items():
            patch.setattr(module, name, value)
        if not numba:
            stack.enter_context(without_numba())
        stack.enter_context(memory_limit(limit))
        yield


def crowd(
    counts: Pair[int], people: int, width: int, *, uneven: float = 0.0, noise: float = 0.6
) -> tuple[Pair[Tensor], Pair[Tensor]]:
    """Features of so many images of the same people in both modalities with a gap between them, and who is on them."""
    centre = torch.randn(people, width, generator=torch.Generator().manual_seed(0))

    def one(modality: Modality) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1 + list(Modality).index(modality))
        share = torch.exp(uneven * torch.randn(people, generator=generator))
        extra = torch.multinomial(share, counts[modality] // 2, replacement=True, generator=generator)
        who = torch.cat([torch.arange(counts[modality] - len(extra)) % people, extra])
        gap = 0.3 * torch.randn(width, generator=generator)
        x = centre[who] + gap + noise * torch.randn(len(who), width, generator=generator)
        return F.normalize(x, dim=1), who

    made = Pair.build(one)
    return made.map(lambda pair: pair[0]), made.map(lambda pair: pair[1])


@cache
def small() -> tuple[Pair[Tensor], Pair[Tensor]]:
    return crowd(Pair(VISIBLE, INFRARED), PEOPLE, WIDTH)


def labelled(spec: str, x: Pair[Tensor], **options: Any) -> tuple[public.Associated, Association]:
    """What `ra.associate` returns, and the associator's whole answer, which passed the pipeline's checks."""
    answers: list[Association] = []
    run = public.run_associator

    def spy(*given: Any) -> Association:
        answers.append(run(*given))
        return answers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public, "run_associator", spy)
        found = ra.associate(spec, x.visible, x.infrared, device="cpu", **options)
    return found, answers[0]


def assert_distributions(association: Association) -> None:
    for pair in (association.own, association.cross, association.shared):
        for labels in pair or ():
            total = labels.prob.sum(1).double()
            assert bool(((total - 1).abs() <= 1e-5).logical_or(total == 0).all())


@cache
def plain(spec: str) -> public.Associated:
    x, identity = small()
    with forced(*PLAIN):
        return labelled(spec, x, clusterer="dbscan(k1=10)", identity=identity)[0]


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("spec", SPECS)
def test_a_shortcut_changes_no_label_but_ties(spec: str, shortcut: str) -> None:
    settings, numba, limit = SHORTCUTS[shortcut]
    if numba and compiled(torch.device("cpu")) is None:
        pytest.skip("numba is not installed")
    if spec.split("(")[0] == "mult" and limit is not None and limit < PAIRS * 4 / 2**30:
        pytest.skip("mult refuses what does not fit")
    x, identity = small()
    with forced(settings, numba, limit):
        found, association = labelled(spec, x, clusterer="dbscan(k1=10)", identity=identity)
    want = plain(spec)
    assert found.clusters == want.clusters
    for got, plainly in zip((*found.own, *found.cross), (*want.own, *want.cross), strict=True):
        assert (got == plainly).mean() >= 0.99
    assert_distributions(association)


def test_mult_labels_a_real_size_as_it_is() -> None:
    """No threshold is moved: with bfloat16 instructions, this is the plan that every real dataset gets."""
    counts = Pair(3000, 1600)
    assert counts.visible * counts.infrared >= transport.FAST_FROM
    found, association = labelled("mult", crowd(counts, 12, 64, uneven=0.5, noise=0.8)[0])
    assert min(found.clusters) >= 10  # few and large: the plan is too dense to be truncated
    assert_distributions(association)
