"""Every function of `reidassoc.ops` gives on a GPU, and by its plain torch loops, what it gives by the compiled ones on a CPU."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import reidassoc.ops
from reidassoc.ops import partition, precision
from reidassoc.ops.affinity import affinity
from reidassoc.ops.assignment import (
    cosine_table,
    cross_labels,
    mixed_prototypes,
    of_samples,
    rows_of_samples,
    similar_pairs,
)
from reidassoc.ops.banks import Intake, plan_rounds, update_banks
from reidassoc.ops.bfloat16 import without_bfloat16
from reidassoc.ops.compiled.dispatch import without_numba
from reidassoc.ops.confidence import confidence, prototype_loss
from reidassoc.ops.dbscan import dbscan, smallest_of_component
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.losses import cross_prediction, mean_over_opinions, soft_cross_entropy
from reidassoc.ops.memories import memory_cost, sub_memories
from reidassoc.ops.mmd import kernel_width, mmd, mmd_by_label, same_label, squared_distances
from reidassoc.ops.near_pairs import blend, change, destinations, sparse_transport, top_softmax
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.part_features import PARTS, unit_parts
from reidassoc.ops.positives import Near, near_floor, near_rows, positive_loss
from reidassoc.ops.propagation import propagate
from reidassoc.ops.prototypes import (
    centroids,
    clusters_of,
    inner_products,
    nearest_prototype,
    updated_centroids,
)
from reidassoc.ops.sparse import (
    add_at,
    csr,
    csr_from_counts,
    pointers,
    product,
    ranges,
    row_normalised,
    rows_of,
    sum_equal,
    transposed,
)
from reidassoc.ops.tracklets import pooled
from reidassoc.ops.transition import TransitionMatrix
from reidassoc.ops.transport import transport
from reidassoc.ops.triplet import hardest_triplet
from reidassoc.ops.unit_rows import unit_rows
from reidassoc.ops.votes import vote, winner
from reidassoc.testing.fake_gpu import pretended_device
from reidassoc.types import Clusters, Features, Modality, Pair, SoftLabels

TOLERANCE = 1e-5  # of the largest value; whole numbers are equal. docs/reliability.md states it
LOOSER = {
    "transport.transport": 1e-4,
    "transport.Plan": 1e-4,
    "transition.TransitionMatrix": 1e-4,
    "near_pairs.sparse_transport": 1e-4,
}  # hundreds of rounds
CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

# What has nothing to compute on a device: values, switches, and what works on the host by its contract.
HOST = {
    "banks": {"Intake", "plan_rounds", "lasting_rounds"},
    "assignment": {"one_to_one", "in_rounds", "tiled", "greedy_pairs"},
    "seeds": {"seed_for", "generator_for"},
    "precision": {"full_float32", "products", "no_autocast", "broken_rows"},
    "unit_rows": {"zero_rows", "rows_off_unit"},
    "sinkhorn": {"Round", "in_range"},
}
SWITCHES = {"bfloat16", "memory_limit"}

Case = Callable[[torch.device], Sequence[Tensor]]
CASES: dict[str, Case] = {}


def case(*names: str) -> Callable[[Case], Case]:
    def keep(made: Case) -> Case:
        CASES.update(dict.fromkeys(names, made))
        return made

    return keep


def people(n: int, device: torch.device, seed: int = 0, of: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(of, 24, generator=torch.Generator().manual_seed(9))
    x = centre[torch.arange(n) % of] + 0.6 * torch.randn(n, 24, generator=generator)
    return F.normalize(x, dim=1).to(device)


def whole(*shape: int, below: int, device: torch.device, seed: int = 3) -> Tensor:
    return torch.randint(-1, below, shape, generator=torch.Generator().manual_seed(seed)).to(device)


def soft(n: int, k: int, device: torch.device) -> SoftLabels:
    logits = torch.randn(n, k, generator=torch.Generator().manual_seed(4))
    prob = F.softmax(3 * logits, dim=1)
    prob[::5] = 0  # no opinion
    return SoftLabels(prob.to(device), torch.linspace(0.1, 1, n).to(device))


@case("neighbours.nearest")
def _(device: torch.device) -> Sequence[Tensor]:
    x, y = people(90, device), people(70, device, 1)
    return [*nearest(x, x, 9), *nearest(x, y, 5)]


@case("jaccard.jaccard_similarity", "affinity.affinity", "dbscan.dbscan", "dbscan.smallest_of_component")
def _(device: torch.device) -> Sequence[Tensor]:
    x = people(90, device)
    group = (torch.arange(90) % 2).to(device)
    made = [jaccard_similarity(x, k1=12), jaccard_similarity(x, k1=12, group=group), affinity(Features(x), k1=10)]
    order = torch.randperm(90, generator=torch.Generator().manual_seed(2)).to(device)
    chain = order[:60], order[1:61]  # the longest way that a number can have to go
    first = smallest_of_component(torch.cat(chain), torch.cat(chain[::-1]), 90)
    return [*made, dbscan(made[0], eps=0.6, min_samples=3), first]


@case("transport.transport", "transport.Plan", "transition.TransitionMatrix")
def _(device: torch.device) -> Sequence[Tensor]:
    plan = transport(people(60, device), people(40, device, 1), strength=10.0)
    y = torch.softmax(people(40, device, 2), dim=1)
    few = plan.truncated(0.01)
    assert few is not None
    averaged = [TransitionMatrix.of_plan(plan) @ y, TransitionMatrix.of_affinity(few) @ y, plan.average(y)]
    return [plan.dense(), plan.row_argmax(), plan.transposed.dense(), *averaged, few.to_dense().sum(1)]


@case("sparse.csr", "sparse.pointers", "sparse.csr_from_counts", "sparse.rows_of", "sparse.row_normalised",
      "sparse.transposed", "sparse.product", "sparse.add_at", "sparse.ranges", "sparse.sum_equal")  # fmt: skip
def _(device: torch.device) -> Sequence[Tensor]:
    count = torch.tensor([2, 0, 3, 1]).to(device)
    column, value = torch.tensor([0, 4, 1, 2, 3, 0]).to(device), torch.linspace(0.1, 2, 6).to(device)
    made = csr_from_counts(count, column, value, 5)
    other = csr(pointers(count), column, value, (4, 5))
    added = [add_at(column, value, 5), *ranges(column, column), *sum_equal(column, column, value, 5, 5)]
    dense = people(5, device)
    return [made, other, rows_of(made), row_normalised(made), transposed(made), product(made, dense), *added]


@case("near_pairs.sparse_transport", "near_pairs.SparsePlan", "near_pairs.destinations",
      "sinkhorn.scales")  # fmt: skip
def _(device: torch.device) -> Sequence[Tensor]:
    x, y = people(60, device), people(40, device, 1)
    plan = sparse_transport(x, y, strength=10.0, neighbours=12)
    averages = [average.to_dense() for average in (*plan.averages(), *plan.averages(0.01))]
    return [*averages, plan.row_argmax(), destinations(x, y, strength=10.0)]


@case("near_pairs.top_softmax", "near_pairs.TopRows", "near_pairs.blend", "near_pairs.change")
def _(device: torch.device) -> Sequence[Tensor]:
    x, prototypes = people(50, device), people(9, device, 1)
    labels = top_softmax(x, prototypes, temperature=0.2, keep=4)
    average = row_normalised(jaccard_similarity(x, k1=12))
    mixed = blend(average, labels, labels, hold=0.3, count=9, keep=4)
    moved = torch.tensor(change(mixed, labels), dtype=torch.float32)
    return [x for rows in (labels, mixed) for x in rows] + [moved]


@case(
    "assignment.cosine_table", "assignment.of_samples", "assignment.rows_of_samples", "assignment.cross_labels",
    "assignment.mixed_prototypes", "assignment.similar_pairs", "prototypes.inner_products", "prototypes.nearest_prototype",
)  # fmt: skip
def _(device: torch.device) -> Sequence[Tensor]:
    a, b = people(6, device), people(4, device, 1)
    partner = Pair(torch.tensor([1, -1, 0, 3, -1, 2]), torch.tensor([2, 0, 5, 3]))
    mixed = mixed_prototypes(Pair(a, b), partner, own=0.8)
    labels = whole(20, below=6, device=device), whole(12, below=4, device=device)
    own = Pair(Clusters(labels[0], a), Clusters(labels[1], b))
    cross = cross_labels(own, partner).map(lambda found: found.prob)
    table = cosine_table(a, b)
    x = Pair(people(20, device), people(12, device, 1))
    similar = similar_pairs(x, own, floor=0.1)
    nearby = [similar, inner_products(x.visible, a), nearest_prototype(x.visible, a)]
    return [*nearby, table, of_samples(labels[0], partner.visible), rows_of_samples(labels[0], table), *cross, *mixed]


@case("banks.update_banks")
def _(device: torch.device) -> Sequence[Tensor]:
    labels = whole(30, below=6, device=device)
    intakes = [
        Intake(
            people(6, device, seed), people(30, device), labels, plan_rounds(labels.cpu().numpy()).to(device), momentum
        )
        for seed, momentum in ((1, 0.1), (2, 0.8))
    ]
    gates = [torch.tensor(open_).to(device) for open_ in (True, False)]
    return [*update_banks(intakes), *(bank for gate in gates for bank in update_banks(intakes, gate))]


@case("confidence.prototype_loss", "confidence.confidence")
def _(device: torch.device) -> Sequence[Tensor]:
    labels = soft(40, 6, device)
    loss = prototype_loss(people(40, device), people(6, device, 1), labels, temperature=0.05)
    return [loss, confidence(loss, labels.labelled, seed=0)]


@case("losses.soft_cross_entropy", "losses.mean_over_opinions", "losses.cross_prediction", "triplet.hardest_triplet",
      "positives.near_rows", "positives.near_floor", "positives.positive_loss", "positives.Near")  # fmt: skip
def _(device: torch.device) -> Sequence[Tensor]:
    x, labels = people(40, device).requires_grad_(), soft(40, 6, device)
    logits = x @ people(6, device, 1).T / 0.1
    near: Near = near_rows(logits, 3)
    losses = [
        soft_cross_entropy(logits, labels), mean_over_opinions(logits.square().sum(1), labels),
        cross_prediction(logits, logits.flip(0)).mean(), positive_loss(logits, near.index, near.has(logits, near.index)),
        hardest_triplet(x, whole(40, below=5, device=device), margin=0.3),
    ]  # fmt: skip
    slopes = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses]
    return [
        *(loss.detach() for loss in losses),
        *slopes,
        near.index.sort(dim=1).values,
        near.floor.detach(),
        near_floor(logits, 3),
    ]


@case("memories.sub_memories", "memories.memory_cost")
def _(device: torch.device) -> Sequence[Tensor]:
    x = people(60, device)
    made = sub_memories(x, (torch.arange(60) % 6).to(device), 6, count=3, seed=0)
    return [made, memory_cost(made, made[:4] + 0.1)]


@case("mmd.mmd", "mmd.mmd_by_label", "mmd.same_label", "mmd.squared_distances", "mmd.kernel_width")
def _(device: torch.device) -> Sequence[Tensor]:
    x, y = people(30, device), people(20, device, 1)
    a, b = whole(30, below=4, device=device), whole(20, below=4, device=device, seed=5)
    same, square = same_label(a), squared_distances(x)
    return [mmd(x, y), mmd_by_label(x, y, a, b), same, square, kernel_width(square, same.to(x.dtype))]


@case("propagation.propagate", "prototypes.centroids", "prototypes.clusters_of", "prototypes.updated_centroids",
      "partition.by_first_member", "precision.at_least_single", "precision.check_features", "unit_rows.unit_rows")  # fmt: skip
def _(device: torch.device) -> Sequence[Tensor]:
    x, labels = people(50, device), whole(50, below=7, device=device)
    precision.check_features("x", x)
    spread = [*propagate(Pair(x, people(30, device, 1)), k=4), precision.at_least_single(x.half()), unit_rows(x * 1e30)]
    mean = centroids(x, labels, 7)
    later = updated_centroids(x, labels.clamp(max=4), mean)
    return [*spread, mean, later, clusters_of(x, labels).centroids, partition.by_first_member(labels, least=2)]


@case("tracklets.pooled", "votes.vote", "votes.winner", "part_features.unit_parts")
def _(device: torch.device) -> Sequence[Tensor]:
    ballots = whole(30, 5, below=6, device=device)
    votes = vote(ballots, 6, people(30, device)[:, :5].abs())
    parts = people(60, device).reshape(20, 3, 24)
    features = Features(people(20, device), extra={"tracklet": whole(20, below=5, device=device), PARTS: parts})
    joined, member = pooled(features)
    return [joined.x, joined.index, member, votes, winner(votes), unit_parts(features, Modality.VISIBLE, "test")]


def public() -> Iterator[str]:
    for module in pkgutil.iter_modules(reidassoc.ops.__path__):
        if module.name in SWITCHES or module.name.startswith("compiled"):
            continue
        for name, value in vars(import_module(f"reidassoc.ops.{module.name}")).items():
            own = getattr(value, "__module__", "") == f"reidassoc.ops.{module.name}"
            if own and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
                yield f"{module.name}.{name}"


def test_every_function_has_a_case() -> None:
    host = {f"{module}.{name}" for module, names in HOST.items() for name in names}
    assert set(public()) == host | set(CASES)


@contextmanager
def plain() -> Iterator[torch.device]:
    with without_numba(), without_bfloat16():
        yield torch.device("cpu")


@contextmanager
def pretended() -> Iterator[torch.device]:
    with pretended_device() as device:
        yield device


@contextmanager
def gpu() -> Iterator[torch.device]:
    yield torch.device("cuda")


@pytest.mark.parametrize("where", [plain, pretended, pytest.param(gpu, marks=CUDA)])
@pytest.mark.parametrize("name", sorted({made: name for name, made in CASES.items()}.values()))
def test_it_agrees_with_the_compiled_loops_on_a_cpu(name: str, where: Callable[[], Iterator[torch.device]]) -> None:
    expected = CASES[name](torch.device("cpu"))
    with where() as device:  # type: ignore[attr-defined]
        found = CASES[name](device)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        a, b = (x.to_dense().cpu() if x.layout == torch.sparse_csr else x.cpu() for x in (one, other))
        assert a.dtype == b.dtype
        if not a.is_floating_point():
            assert torch.equal(a, b)
            continue
        bound = LOOSER.get(name, TOLERANCE) * max(float(b[torch.isfinite(b)].abs().max()), 1e-3)
        torch.testing.assert_close(a, b, rtol=0, atol=bound)
