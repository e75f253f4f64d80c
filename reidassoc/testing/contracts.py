"""Contract checks: what every plug-in of a kind must do, whatever its method is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from reidassoc.interfaces.plugins import Associator, Clusterer, Plugin
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.prototypes import centroids
from reidassoc.testing.fake_gpu import name_of
from reidassoc.testing.scenes import CASES, Toy
from reidassoc.testing.stateless import changed, state_of
from reidassoc.types import Association, Clustering, Clusters, Modality, Pair, SoftLabels, Targets

Device = torch.device | str


class ContractError(AssertionError):
    """A plug-in broke its contract; the message names the case and what was wrong."""


def check_associator(associator: Associator, cases: Mapping[str, Toy] = CASES, device: Device = "cpu") -> None:
    """Call an associator on every case: right shapes, valid distributions, inputs unchanged, nothing kept, the same answer twice.

    Raises:
        ContractError: it broke its contract; the exception it raised itself, if any, is the cause.
    """
    for case, toy in cases.items():
        with keeps_nothing(associator, case):
            scene = toy.scene(device=device)
            result = unchanged(case, scene, partial(run, associator, toy, scene))
            require(isinstance(result, Association), case, f"must return an Association, got {type(result).__name__}")
            for name in ("cross", "own", "shared"):
                pair = getattr(result, name)
                require(
                    pair is None or isinstance(pair, Pair), case, f"{name} must be a Pair, got {type(pair).__name__}"
                )
                for labels in pair or ():
                    require(isinstance(labels, SoftLabels), f"{case}, {name}", no_labels(labels))
            for modality in Modality:
                where = f"{case}, {modality} samples"
                count, space = len(scene.features[modality]), scene.clustering.own
                if result.cross is not None:
                    check_labels(
                        result.cross[modality], (count, space[modality.other].count), f"{where}, cross", device
                    )
                if result.own is not None:
                    check_labels(result.own[modality], (count, space[modality].count), f"{where}, own", device)
                if result.shared is not None:
                    width = result.shared.visible.count
                    check_labels(result.shared[modality], (count, width), f"{where}, shared", device)
            for name, rows in result.prototypes.items():
                if name in tuple(Modality):
                    clusters = scene.clustering.own[name]
                    shape = tuple(clusters.centroids.shape)
                    require(
                        tuple(rows.shape) == shape, case, f"prototypes of '{name}' must be {shape}, got {rows.shape}"
                    )
            same(case, result, run(associator, toy, toy.scene(device=device)))


def check_clusterer(clusterer: Clusterer, cases: Mapping[str, Toy] = CASES, device: Device = "cpu") -> None:
    """Call a clusterer on the features of every case.

    Raises:
        ContractError: labels out of range, empty clusters, centroids that are not the members' mean, inputs changed,
            or another answer to the same question.
    """
    for case, toy in cases.items():
        with keeps_nothing(clusterer, case):
            scene = toy.scene(device=device)
            features, previous = scene.features, None if scene.previous is None else last(toy, device)
            call: Any = partial(
                clusterer, epoch=scene.epoch, seed=0, previous=previous, **known(clusterer, toy, device)
            )
            result = unchanged(case, features, partial(call, features))
            require(isinstance(result, Clustering), case, f"must return a Clustering, got {type(result).__name__}")
            for modality in Modality:
                clusters, x, where = result.own[modality], features[modality].x, f"{case}, {modality}"
                require(len(clusters.labels) == len(x), where, f"{len(x)} samples, but {len(clusters.labels)} labels")
                valid(where, clusters.validate)
                used = torch.unique(clusters.labels[clusters.labels >= 0])
                require(len(used) == clusters.count, where, f"{clusters.count} clusters, but {len(used)} have members")
                mean = centroids(x, clusters.labels, clusters.count)
                near = torch.allclose(clusters.centroids, mean, atol=1e-5)
                require(near, where, "centroids are not the un-normalised means of the members")
            same(case, result, call(toy.scene(device=device).features))


def last(toy: Toy, device: Device) -> Clustering:
    """The last epoch's clusters, as a clusterer is given them."""
    return Clustering(toy.last.own.map(lambda c: Clusters(c.labels.clone().to(device), c.centroids.clone().to(device))))


def run(associator: Associator, toy: Toy, scene: Scene) -> Association:
    """Call an associator as the pipeline would, with identities only if it declares that it needs them."""
    call = cast(Any, associator)
    return cast(Association, call(scene, **known(associator, toy, scene.features.visible.x.device)))


def known(part: Plugin, toy: Toy, device: Device) -> dict[str, Any]:
    """The further argument of a plug-in that declares that it needs true identities."""
    if "identity" not in part.needs:
        return {}
    return {"identity": toy.identity.map(lambda numbers: numbers.to(device))}


def toy_targets(scene: Scene, *, soft: bool) -> Targets:
    """Targets in both spaces: the clusterer's, or random soft ones of which every fifth row is silent."""
    if not soft:
        return Targets.compose(scene.clustering)
    generator = torch.Generator().manual_seed(0)

    def labels(modality: Modality, space: Modality) -> SoftLabels:
        count = scene.clustering.own[space].count
        x = scene.features[modality].x
        prob = torch.softmax(3 * torch.randn(len(x), count, generator=generator), dim=1)
        prob[::5] = 0
        return SoftLabels(prob.to(x.device))

    own = Pair.build(lambda modality: labels(modality, modality))
    cross = Pair.build(lambda modality: labels(modality, modality.other))
    return Targets.compose(scene.clustering, Association(own=own, cross=cross))


def check_labels(labels: SoftLabels, shape: tuple[int, int], where: str, device: Device) -> None:
    require(isinstance(labels, SoftLabels), where, no_labels(labels))
    size = (len(labels), labels.count)
    require(size == shape, where, f"prob must be {shape}, got {size}")
    kind = str(labels.value.dtype).removeprefix("torch.")
    require(kind == "float32", where, f"prob is {kind}, expected float32")
    found, wanted = labels.value.device, torch.device(device)
    require(found.type == wanted.type, where, f"prob is on {name_of(found)}, the scene on {name_of(wanted)}")
    valid(where, labels.validate)


def no_labels(value: object) -> str:
    return f"must be SoftLabels, got {type(value).__name__}"


def tensors(value: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside a value, with the way to it. What is only remembered (private fields) is no part of it."""
    if isinstance(value, Tensor):
        yield path, value
    elif is_dataclass(value):
        for f in fields(value):
            if not f.name.startswith("_"):
                yield from tensors(getattr(value, f.name), f"{path}.{f.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            name = "/".join(map(str, key)) if isinstance(key, tuple) else key
            yield from tensors(item, f"{path}[{name}]")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from tensors(item, f"{path}[{number}]")


def unchanged(case: str, value: object, call: Callable[[], Any]) -> Any:
    """Call, and raise ContractError if the call fails or writes into one of the value's tensors."""
    before = [(path, tensor, tensor.clone()) for path, tensor in tensors(value)]
    result = guard(case, call)
    for path, tensor, copy in before:
        require(torch.equal(tensor, copy), case, f"wrote into its input{path}: return a new tensor instead")
    return result


def same(case: str, first: object, second: object) -> None:
    """Raise ContractError unless two answers to the same question are equal to the bit."""
    one, two = dict(tensors(first)), dict(tensors(second))
    require(one.keys() == two.keys(), case, "two calls with the same seed return different things")
    for path, tensor in one.items():
        require(torch.equal(tensor, two[path]), case, f"two calls with the same seed differ at {path}")


@contextmanager
def keeps_nothing(plugin: object, case: str) -> Iterator[None]:
    """Raise ContractError if a plug-in is another one after this block.

    That may be why it failed in the block, or answered differently the second time: it is told of first.
    """
    before = state_of(plugin)

    def check() -> None:
        name = changed(before, state_of(plugin))
        require(not name, case, f"keeps something between calls, in its attribute '{name}'")

    try:
        yield
    except ContractError:
        check()
        raise
    check()


def guard(case: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"{case}: {type(error).__name__}: {error}") from error


def valid(case: str, validate: Callable[[], None]) -> None:
    """Raise ContractError for values that break a rule; it has no cause, since no code of the plug-in raised."""
    try:
        validate()
    except ValueError as error:
        raise ContractError(f"{case}: {error}") from None


def require(right: bool, case: str, complaint: str) -> None:
    if not right:
        raise ContractError(f"{case}: {complaint}")
