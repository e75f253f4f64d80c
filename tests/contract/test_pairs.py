"""Every pair of plug-ins labels a scene and has a finite loss, or is refused with a reason; what parts give is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reidassoc import Features, Modality, Pair, Scene, registry
from reidassoc.data.samplers import Sampler
from reidassoc.errors import RecipeError
from reidassoc.interfaces.banks import Banks
from reidassoc.interfaces.batch import Batch, View
from reidassoc.pipeline import associate, cluster, refine
from reidassoc.recipe.compose import Method, Weighted, compose
from reidassoc.recipe.load import parse_recipe
from reidassoc.recipe.requirements import candidates, gives, misfits, needs
from reidassoc.testing import toy_identity
from reidassoc.testing.scenes import Toy
from reidassoc.types import SHARED, STREAMS, Association, Clustering, Targets

SMALL = {"k1": 6, "k2": 3, "mixed_k1": 10, "mixed_k2": 3}  # neighbourhoods that fit the toy
PARTS, WIDTH, ROWS = 3, 32, 8
PARTS_OF = dict[tuple[str, str], Any]
PAIRS = (
    ("associators", "clusterers"),
    ("associators", "objectives"),
    ("associators", "refiners"),
    ("objectives", "clusterers"),
    ("objectives", "refiners"),
    ("objectives", "networks"),
    ("refiners", "networks"),
)
PLAIN = {"clusterers": "dbscan", "associators": "nearest", "objectives": "amirl", "networks": "tiny"}
RICHER: tuple[dict[str, str], ...] = (
    {},
    {"networks": "tiny(parts=3)"},
    {"clusterers": "mixed", "networks": "tiny(parts=3)"},
    {"objectives": "dual", "networks": "tiny(parts=3)"},
)


@pytest.fixture(scope="module")
def known() -> PARTS_OF:
    kinds = {kind for pair in PAIRS for kind in pair}
    return {(kind, spec): part for kind in kinds for spec, part in candidates(kind)}


@cache
def toy() -> Pair[Features]:
    generator = torch.Generator().manual_seed(0)
    return Toy(noise=0.3).features.map(
        lambda f: Features(f.x, extra={"parts": torch.randn(len(f), PARTS, WIDTH, generator=generator)})
    )


def small(part: Any) -> Any:
    there = {f.name for f in fields(part)} & SMALL.keys()
    return replace(part, **{name: SMALL[name] for name in there})


@pytest.fixture(scope="module")
def label_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.npz"
    labels = {f"cross_{m}": np.zeros(len(toy()[m]), np.int64) for m in Modality}
    np.savez(path, **labels)
    return path


class Runner:
    """Runs stages on the toy; clusterings and associations are made once."""

    def __init__(self, known: PARTS_OF, labels: Path) -> None:
        self.known, self.labels = known, labels
        self.clusterings: dict[str, Clustering] = {}
        self.associations: dict[tuple[str, str], Association] = {}

    def part(self, kind: str, spec: str) -> Any:
        part = small(self.known[kind, spec])
        return replace(part, path=self.labels) if spec.startswith("from_file") else part

    def loss(self, specs: Mapping[str, str]) -> torch.Tensor:
        """The labels of an epoch, and the loss of one batch."""
        grouping, matching = specs["clusterers"], specs["associators"]
        if grouping not in self.clusterings:
            self.clusterings[grouping] = cluster(self.part("clusterers", grouping), toy(), identity=toy_identity())
        scene = Scene(0, 0, toy(), self.clusterings[grouping])
        assert scene.clustering.usable
        if (grouping, matching) not in self.associations:
            identity = toy_identity()
            self.associations[grouping, matching] = associate(self.part("associators", matching), scene, identity)
        chosen = {kind: (Weighted(spec, self.part(kind, spec), 1.0),) for kind, spec in specs.items()}
        method = Method(
            self.part("clusterers", grouping), self.part("associators", matching), chosen.get("refiners", ()),
            chosen["objectives"],
        )  # fmt: skip
        composed = Targets.compose(scene.clustering, self.associations[grouping, matching])
        targets = refine([weighted.part for weighted in method.refiners], scene, composed)
        losers = [weighted.part for weighted in (*method.refiners, *method.objectives)]
        banks = Banks.rebuild(bank for part in losers for bank in part.banks(scene, targets))
        objective = method.objectives[0].part
        sampler = Sampler.build(targets, objective.sampling, identities=ROWS // 2, images=2)
        assert sampler.usable
        rows = sampler.batch(np.random.default_rng(0))
        has_parts = "parts" in gives(self.known["networks", specs["networks"]])
        batch = Batch(views_of(rows, parts=has_parts), 0, scene, targets)
        module = objective.modules(scene, targets)
        terms = dict(objective(batch, banks) if module is None else objective(batch, banks, module=module))
        for weighted in method.refiners:
            terms |= weighted.part.losses(batch, banks)
        return torch.stack(list(terms.values())).sum()


def views_of(rows: Pair[Any], *, parts: bool) -> dict[str, View]:
    """Random views of some rows, with or without part features."""
    views = {}
    generator = torch.Generator().manual_seed(1)
    for stream, modality in STREAMS.items():
        taken = torch.from_numpy(rows[modality])
        z = torch.randn(len(taken), WIDTH, generator=generator).requires_grad_()
        shape = (len(taken), PARTS, WIDTH)
        found = {(stream, s): torch.randn(shape, generator=generator) for s in STREAMS} if parts else {}
        views[stream] = View(stream, taken, z, None, found)
    return views


def named(specs: Mapping[str, str], known: PARTS_OF) -> list[tuple[str, Any]]:
    return [(spec.partition("(")[0], known[kind, spec]) for kind, spec in specs.items()]


def recipe_of(specs: Mapping[str, str]) -> Any:
    stage = {
        "name": "cross", "epochs": 1, "iterations": 1, "identities": 2, "images": 2, "associator": specs["associators"],
        "refiners": [specs["refiners"]] if "refiners" in specs else [], "objectives": [specs["objectives"]],
    }  # fmt: skip
    return {
        "name": "pair", "dataset": "synthetic(size='tiny')", "network": specs["networks"], "size": [64, 32],
        "clusterer": specs["clusterers"], "oracle": True, "stages": [stage],
    }  # fmt: skip


@pytest.mark.parametrize("kinds", PAIRS, ids=" x ".join)
def test_a_pair_runs_or_is_refused_with_a_reason(kinds: tuple[str, str], known: PARTS_OF, label_file: Path) -> None:
    """In the plain stage, or in one whose network has parts, or whose clusterer finds shared clusters, too."""
    runner, ran = Runner(known, label_file), 0
    specs_of = {kind: [spec for of, spec in known if of == kind] for kind in kinds}
    for pair in product(*specs_of.values()):
        stages = [{**PLAIN, **more, **dict(zip(kinds, pair, strict=True))} for more in RICHER]
        fitting = [stage for stage in stages if not misfits(named(stage, known), oracle=True)]
        if fitting:
            assert torch.isfinite(runner.loss(fitting[0])), pair
            ran += 1
        else:
            with pytest.raises(RecipeError, match="needs"):
                compose(parse_recipe(recipe_of(stages[-1]), "pair"))
    assert ran >= len(specs_of[kinds[0]])


def test_what_is_known_of_some_pairs(known: PARTS_OF) -> None:
    def reason(**parts: str) -> str:
        return "; ".join(misfits(named({**PLAIN, **parts}, known), oracle=True))

    for associator in ("mult", "pgm", "salcr"):
        assert reason(associators=associator, refiners="oclr") == ""
        assert reason(associators=associator, objectives="fgsal", networks="tiny(parts=3)") == ""
        assert reason(associators=associator, objectives="joint", clusterers="mixed") == ""
    assert "oclr needs 'specific bank' or 'cross bank'" in reason(objectives="dual", refiners="oclr")
    assert "gpcr needs 'paired', but the objectives draw own batches" in reason(objectives="dcl", refiners="gpcr")
    assert "joint needs 'shared'" in reason(objectives="joint")
    assert "fgsal needs 'parts'" in reason(objectives="fgsal", networks="two_stream")
    assert reason(objectives="dual", refiners="gpcr(parts=false)") == ""


def test_the_pieces_of_a_stage_may_complete_each_other() -> None:
    """``dual`` alone has no specific bank for oclr; ``joint`` beside it has."""
    build = registry.build
    parts = [
        ("mixed", build("clusterers", "mixed")), ("mult", build("associators", "mult")), ("oclr", build("refiners", "oclr")),
        ("dual", build("objectives", "dual")), ("joint", build("objectives", "joint(draw='paired')")),
    ]  # fmt: skip
    assert misfits(parts) == []
    assert "oclr needs" in misfits(parts[:-1])[0]
    assert misfits([*parts[:-1], ("joint", build("objectives", "joint"))])[-1].endswith("differently: own, paired")


@pytest.mark.parametrize("kind", ["objectives", "refiners"])
def test_banks_are_given_as_declared(kind: str, known: PARTS_OF) -> None:
    """Roles of global banks, over two epochs, on clusters of both kinds: exactly those that `gives` names."""
    clustering = cluster(small(registry.build("clusterers", "mixed")), toy())
    for (of, spec), part in known.items():
        if of != kind:
            continue
        roles = set()
        for epoch in (0, 1):
            scene = Scene(epoch, 0, toy(), clustering)
            targets = Targets.compose(clustering, associate(registry.build("associators", "nearest"), scene))
            roles |= {f"{bank.role} bank" for bank in part.banks(scene, targets) if bank.part is None}
        assert roles == {word for word in gives(part) if word.endswith(" bank")}, spec


def test_networks_clusterers_and_associators_give_what_they_declare(known: PARTS_OF, label_file: Path) -> None:
    runner = Runner(known, label_file)
    for kind, spec in known:
        if kind == "clusterers":
            made = cluster(runner.part(kind, spec), toy(), identity=toy_identity())
            assert (made.shared is not None) == ("shared" in gives(known[kind, spec])), spec
        if kind == "associators":
            scene = Scene(0, 0, toy(), cluster(runner.part("clusterers", "dbscan"), toy()))
            found = associate(runner.part(kind, spec), scene, toy_identity())
            assert (found.cross is not None) == ("cross" in gives(known[kind, spec])), spec
            assert (found.shared is not None) == ("shared" in gives(known[kind, spec])), spec
    for spec in ("tiny", "tiny(parts=3)"):
        network = registry.build("networks", spec)
        output = network.build(size=(64, 32))({"visible": torch.zeros(2, 3, 64, 32)})["visible"]
        assert bool(output.parts) == ("parts" in gives(network))


def test_who_meets_a_need_is_who_gives_it() -> None:
    objective = registry.build("objectives", "fgsal")
    assert "parts" in needs(objective)
    (line,) = [
        line
        for line in misfits([("fgsal", objective), ("tiny", registry.build("networks", "tiny"))])
        if "'parts'" in line
    ]
    named = line.partition("no part of this stage gives it; ")[2]
    assert "tiny(parts=3)" in named
    assert "dbscan" not in named


def test_what_draws_a_batch_is_needed() -> None:
    assert needs(registry.build("objectives", "dcl")) == frozenset()
    assert needs(registry.build("objectives", "joint(draw='paired')")) == {"shared", "cross"}
    assert needs(registry.build("objectives", "joint(draw='shared')")) == {SHARED}
