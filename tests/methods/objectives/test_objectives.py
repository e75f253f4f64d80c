"""Objectives, and the refiners that act on losses: parity, gradients, and what they promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from support.training_step import R, V, a_batch, a_scene, double, feed_for, random_step, update
from torch import Tensor

from reidassoc import registry
from reidassoc.errors import RecipeError
from reidassoc.interfaces.banks import Bank, Banks, LiveBank
from reidassoc.interfaces.batch import Batch
from reidassoc.interfaces.plugins import Objective, Refiner
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.losses import cross_prediction, soft_cross_entropy
from reidassoc.types import SHARED, Clustering, Clusters, Modality, Pair, SoftLabels, Targets
from reidassoc_plugins.objectives.acl import Acl
from reidassoc_plugins.objectives.amirl import Amirl
from reidassoc_plugins.objectives.dcl import Dcl
from reidassoc_plugins.objectives.dual import Dual
from reidassoc_plugins.refiners.oclr import Oclr

STREAMS = ("visible", "augmented", "infrared")


class PublishedBank(LiveBank):
    """A bank whose backward pass is that of the published code, which updates banks *during* it.

    Logits are those of the bank before the step; the gradient that reaches a stream that feeds the bank is by the bank as
    already updated by the streams before it.
    """

    def __init__(self, live: LiveBank, batch: Batch) -> None:
        super().__init__(live.bank, live.vectors)
        self.seen: dict[int, Tensor] = {}
        for number, stream in enumerate(live.bank.fed_by):
            banks = Banks({"bank": LiveBank(live.bank, live.vectors)})
            if number:
                banks.update({"bank": feed_for(live.bank, batch, *live.bank.fed_by[:number])})
            self.seen[id(batch[stream].feature)] = banks["bank"].vectors

    def logits(self, feature: Tensor) -> Tensor:
        logits = super().logits(feature)
        by = feature @ self.seen.get(id(feature), self.vectors).T / self.bank.temperature
        return by + (logits - by).detach()


def published_step(parity: str) -> tuple[dict[str, Tensor], Scene, Batch]:
    """The golden step of an epoch of this parity, with the banks' starts as centroids."""
    vectors = golden(f"amirl_oclr_{parity}")
    scene = a_scene(Pair(vectors["bank_v"], vectors["bank_r"]), Pair(18, 18), epoch=40 if parity == "even" else 41)
    table = {
        (V, "visible"): SoftLabels(vectors["soft_own_v"]),
        (V, "infrared"): SoftLabels(vectors["soft_cross_v"]),
        (R, "infrared"): SoftLabels(vectors["soft_own_r"]),
        (R, "visible"): SoftLabels(vectors["soft_cross_r"]),
    }
    z = {stream: vectors[f"feat_{stream}"].requires_grad_() for stream in STREAMS}
    return vectors, scene, a_batch(z, table, scene)


def all_terms(objective: Objective, refiners: tuple[Refiner, ...], batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
    terms = dict(objective(batch, banks))
    for refiner in refiners:
        terms.update(refiner.losses(batch, banks))
    return terms


def gradients(terms: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    loss = torch.stack(list(terms.values())).sum()
    inputs = [batch[stream].z for stream in STREAMS]
    return dict(zip(STREAMS, torch.autograd.grad(loss, inputs, retain_graph=True), strict=True))


def close(found: Tensor, golden_value: Tensor, what: str) -> None:
    torch.testing.assert_close(
        found.double(), golden_value.double(), rtol=1e-5, atol=1e-4, msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_a_step_of_amirl_and_oclr_is_the_published_one(parity: str) -> None:
    expected, scene, batch = published_step(parity)
    objective, refiner = Amirl(), Oclr()
    banks = Banks.rebuild(objective.banks(scene, batch.targets))
    terms = all_terms(objective, (refiner,), batch, banks)

    ms = {m: sum(terms.get(f"{role}_{m}", torch.zeros(())) for role in ("specific", "cross")) for m in Modality}
    for modality in Modality:
        close(ms[modality], expected[f"loss_ms_{modality}"], f"ms {modality}")
        close(terms[f"agnostic_{modality}"], expected[f"loss_ma_{modality}"], f"ma {modality}")
    close(terms["agreement"], expected["loss_oclr"], "oclr")

    # Of our own gradients the infrared one is the published one as it is: infrared feeds every bank first.
    close(gradients(terms, batch)["infrared"], expected["grad_infrared"], "gradient of infrared")
    published = Banks({live.bank.name: PublishedBank(live, batch) for live in banks})
    for stream, gradient in gradients(all_terms(objective, (refiner,), batch, published), batch).items():
        close(gradient, expected[f"grad_{stream}"], f"gradient of {stream}")

    update(banks, batch)
    space, of = ("visible", "v") if parity == "even" else ("infrared", "r")
    cross = "m_rcm" if parity == "even" else "m_vcm"
    after = {
        "m_v": "specific.visible",
        "m_r": "specific.infrared",
        f"m_{of}a": f"agnostic.{space}",
        cross: f"cross.{space}",
    }
    for name, ours in after.items():
        close(banks[f"amirl.{ours}"].vectors, expected[f"after_{name}"], name)
    assert len(banks.live) == len(after)


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_oclr_compares_the_published_pairs(parity: str) -> None:
    _, scene, batch = published_step(parity)
    banks = Banks.rebuild(Amirl().banks(scene, batch.targets))
    even = {"a": "agnostic.visible", "s": "specific.visible", "c": "cross.visible"}
    odd = {"a": "agnostic.infrared", "s": "specific.infrared", "c": "cross.infrared"}
    name = even if parity == "even" else odd

    def logits(stream: str, bank: str) -> Tensor:
        return banks[f"amirl.{name[bank]}"].logits(batch[stream].feature)

    total = torch.zeros(())
    for stream, twin in (("visible", "augmented"), ("augmented", "visible"), ("infrared", "infrared")):
        for bank in ("s", "c"):
            total = total + cross_prediction(logits(stream, "a"), logits(twin, bank)).mean()
    torch.testing.assert_close(Oclr().losses(batch, banks)["agreement"], total)


def test_oclr_can_stop_the_targets_gradient() -> None:
    scene, batch = random_step()
    banks = double(Banks.rebuild(Amirl().banks(scene, batch.targets)))
    loss = Oclr(detach_target=True).losses(batch, banks)["agreement"]
    agnostic = banks.select("agnostic")[0]
    expected = torch.zeros((), dtype=torch.float64)
    for other in banks.select("specific", "cross", space="visible"):
        for view in batch:
            target = F.softmax(other.logits(batch.twin(view).feature.detach()) / 0.2, dim=1)
            expected = expected - (target * F.log_softmax(agnostic.logits(view.feature), 1)).sum(1).mean()
    ours, wanted = (gradients({"loss": term}, batch) for term in (loss, expected))
    for stream in STREAMS:
        torch.testing.assert_close(ours[stream], wanted[stream])


def test_oclr_says_what_it_misses() -> None:
    scene, batch = random_step()
    banks = Banks.rebuild(Dcl().banks(scene, batch.targets))
    with pytest.raises(RecipeError, match=r"oclr compares an agnostic bank .* such as amirl"):
        Oclr().losses(batch, banks)
    alone = Bank(name="alone", space="visible", role="agnostic", start=torch.eye(3, 8))
    with pytest.raises(RecipeError, match="declare none"):
        Oclr().losses(batch, Banks.rebuild([alone]))


def test_oclr_takes_part_with_any_objectives_banks() -> None:
    _, batch = random_step()
    banks = double(
        Banks.rebuild(
            Bank(name=role, space="mine", role=role, start=torch.randn(3, 8)) for role in ("agnostic", "specific")
        )
    )
    assert torch.isfinite(Oclr().losses(batch, banks)["agreement"])


def test_dcl_is_one_cross_entropy_per_modality_without_outliers() -> None:
    scene, batch = random_step(rows=5)
    labels = {V: torch.tensor([0, -1, 2, 2, 1]), R: torch.tensor([3, 3, -1, 0, 1])}
    targets = Targets({(m, str(m)): SoftLabels.one_hot(labels[m], scene.clustering.own[m].count) for m in Modality})
    batch = Batch(batch.views, 0, scene, targets)
    banks = double(Banks.rebuild(Dcl().banks(scene, targets)))
    terms = Dcl()(batch, banks)
    for modality, streams in {V: ("visible", "augmented"), R: ("infrared",)}.items():
        logits = torch.cat([banks[f"dcl.{modality}"].logits(batch[stream].feature) for stream in streams])
        wanted = F.cross_entropy(logits, labels[modality].repeat(len(streams)), ignore_index=-1)
        torch.testing.assert_close(terms[str(modality)], wanted)
    assert {live.bank.name: live.bank.fed_by for live in banks} == {
        "dcl.visible": ("augmented", "visible"),
        "dcl.infrared": ("infrared",),
    }


def test_dual_is_the_published_global_loss() -> None:
    vectors = golden("salcr_losses")
    scene = a_scene(Pair(vectors["bank_m_v"], vectors["bank_m_r"]), Pair(16, 16))
    table = {
        (V, "visible"): SoftLabels.one_hot(vectors["own_v"], 14),
        (V, "infrared"): SoftLabels.one_hot(vectors["cross_v"], 11),
        (R, "infrared"): SoftLabels.one_hot(vectors["own_r"], 11),
        (R, "visible"): SoftLabels.one_hot(vectors["cross_r"], 14),
    }
    batch = a_batch(dict(zip(STREAMS, vectors["feat"].split(16), strict=True)), table, scene)
    objective = Dual(temperature=float(vectors["temperature"]))
    terms = objective(batch, Banks.rebuild(objective.banks(scene, batch.targets)))
    close(terms["visible"] + terms["infrared"], vectors["loss_global"], "global loss")


def test_all_streams_feed_the_dual_banks_in_random_order() -> None:
    scene, batch = random_step(epoch=0)
    banks = Dual().banks(scene, batch.targets)
    assert [sorted(bank.fed_by) for bank in banks] == [sorted(STREAMS)] * 2
    assert all(bank.shuffled for bank in banks)


@pytest.mark.parametrize("epoch", [0, 1])
def test_acl_visits_the_other_bank_by_turns(epoch: int) -> None:
    scene, batch = random_step(epoch=epoch)
    visited, visitors = (V, ("infrared",)) if epoch == 1 else (R, ("visible", "augmented"))
    banks = double(Banks.rebuild(Acl().banks(scene, batch.targets)))
    terms = Acl()(batch, banks)
    wanted = torch.stack(
        [
            soft_cross_entropy(banks[f"acl.{visited}"].logits(batch[s].feature), batch.labels(batch[s], visited))
            for s in visitors
        ]
    ).mean()
    torch.testing.assert_close(terms["cross"], 0.25 * wanted)
    dcl = double(Banks.rebuild(Dcl().banks(scene, batch.targets)))
    for name, term in Dcl()(batch, dcl).items():
        torch.testing.assert_close(terms[name], term)
    fed_by = {str(live.bank.space): live.bank.fed_by for live in banks}
    assert fed_by[visited] == ("infrared", "augmented", "visible")
    alone = {str(bank.space): bank.fed_by for bank in Acl(feed_cross=False).banks(scene, batch.targets)}
    assert alone == {"visible": ("augmented", "visible"), "infrared": ("infrared",)}
    assert fed_by[visited.other] == alone[visited.other]


def test_a_batch_of_outliers_has_no_loss_and_no_gradient() -> None:
    scene, batch = random_step()
    silent = Targets({key: SoftLabels(torch.zeros_like(labels.prob)) for key, labels in batch.targets.table.items()})
    batch = Batch(batch.views, 0, scene, silent)
    for objective in (Dcl(), Amirl(), Acl(), Dual()):
        terms = objective(batch, double(Banks.rebuild(objective.banks(scene, silent))))
        assert all(float(term.detach()) == 0 for term in terms.values())
        assert all(float(gradient.abs().sum()) == 0 for gradient in gradients(terms, batch).values())


def test_weights_of_labels_weigh_rows() -> None:
    logits = torch.randn(4, 3)
    prob = torch.rand(4, 3).softmax(1)
    weight = torch.tensor([1.0, 0.0, 3.0, 0.0])
    rows = -(prob * F.log_softmax(logits, 1)).sum(1)
    loss = soft_cross_entropy(logits, SoftLabels(prob, weight))
    torch.testing.assert_close(loss, (rows[0] + 3 * rows[2]) / 4)
    loss = soft_cross_entropy(logits, SoftLabels(prob, weight), per_row=True)
    torch.testing.assert_close(loss, (rows[0] + 3 * rows[2]) / 2)  # two rows have an opinion
    none = SoftLabels(prob, torch.zeros(4))
    assert float(soft_cross_entropy(logits, none, per_row=True)) == 0


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("name", ["dcl", "acl", "dual", "amirl", "amirl + oclr", "oclr, detached"])
def test_gradients_are_those_of_the_loss(name: str, epoch: int) -> None:
    scene, batch = random_step(rows=2, width=3, clusters=(3, 2), epoch=epoch)
    objective = {"dcl": Dcl(), "acl": Acl(), "dual": Dual()}.get(name, Amirl())
    refiners = {"amirl + oclr": (Oclr(),), "oclr, detached": (Oclr(detach_target=True),)}.get(name, ())
    banks = double(Banks.rebuild(objective.banks(scene, batch.targets)))

    def losses(*z: Tensor) -> tuple[Tensor, ...]:
        made = a_batch(dict(zip(STREAMS, z, strict=True)), batch.targets.table, scene)
        return tuple(all_terms(objective, refiners, made, banks).values())

    inputs = [view.z for view in batch]
    if name == "oclr, detached":  # not the gradient of a function: it only has to be finite
        found = torch.autograd.grad(torch.stack(losses(*inputs)).sum(), inputs)
        assert all(torch.isfinite(gradient).all() for gradient in found)
    else:
        assert torch.autograd.gradcheck(losses, inputs)  # each term by itself


@pytest.mark.parametrize("loss", [soft_cross_entropy, cross_prediction])
def test_gradients_of_the_losses_are_right(loss: Callable[..., Tensor]) -> None:
    logits, other = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    if loss is soft_cross_entropy:
        prob = torch.rand(4, 3, dtype=torch.float64).softmax(1)
        prob[1] = 0
        labels = SoftLabels(prob, torch.tensor([1.0, 2.0, 0.0, 0.5], dtype=torch.float64))
        assert torch.autograd.gradcheck(lambda x: soft_cross_entropy(x, labels), [logits])
    else:
        assert torch.autograd.gradcheck(loss, [logits, other])


@pytest.mark.parametrize("epoch", [0, 1])
def test_permuting_the_batch_changes_no_loss(epoch: int) -> None:
    scene, batch = random_step(epoch=epoch)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    table = {key: labels.take(order) for key, labels in batch.targets.table.items()}
    permuted = a_batch({view.stream: view.z[order] for view in batch}, table, scene)
    for objective, refiners in ((Dcl(), ()), (Amirl(), (Oclr(),)), (Acl(), ()), (Dual(), ())):
        banks = double(Banks.rebuild(objective.banks(scene, batch.targets)))
        one, two = (all_terms(objective, refiners, b, banks) for b in (batch, permuted))
        for name, term in one.items():
            torch.testing.assert_close(term, two[name])


def test_without_the_augmented_stream_the_rest_is_trained() -> None:
    scene, batch = random_step()
    views = {stream: batch[stream] for stream in ("visible", "infrared")}
    batch = Batch(views, 0, scene, batch.targets)
    banks = double(Banks.rebuild(Amirl().banks(scene, batch.targets)))
    terms = {**Dcl()(batch, double(Banks.rebuild(Dcl().banks(scene, batch.targets)))), **Amirl()(batch, banks)}
    assert all(torch.isfinite(term) for term in terms.values())
    assert torch.isfinite(Oclr().losses(batch, banks)["agreement"])


def test_banks_start_from_what_the_associator_says_else_from_the_centroids() -> None:
    scene, batch = random_step()
    own = scene.clustering.own
    given = {"infrared": torch.eye(4, 8)}
    targets = Targets(batch.targets.table, given)
    assert torch.equal(scene.prototypes(targets, "visible"), own.visible.centroids)
    assert torch.equal(scene.prototypes(targets, Modality.INFRARED), given["infrared"])
    both = Pair(1.0, 0.0).map(lambda x: Clusters(torch.zeros(6, dtype=torch.int64), torch.full((1, 8), x)))
    shared = Scene(0, 0, scene.features, Clustering(own, both, {"coarse": both}))
    assert torch.equal(shared.prototypes(targets, SHARED), torch.full((1, 8), 0.5))
    assert torch.equal(shared.prototypes(targets, "coarse"), torch.full((1, 8), 0.5))
    with pytest.raises(RecipeError, match="no clusters of the space 'shared'"):
        scene.prototypes(targets, SHARED)


@pytest.mark.parametrize(("kind", "name"), [("objectives", "dcl"), ("objectives", "amirl"), ("refiners", "oclr")])
def test_they_are_found_by_name(kind: str, name: str) -> None:
    assert type(registry.build(kind, name)).__name__.lower() == name
