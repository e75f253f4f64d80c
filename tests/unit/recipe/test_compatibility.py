"""The matrix tells the truth: every allowed pair labels a scene and has a finite loss; every refused one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from reidassoc import Features, Modality, Pair, Scene, registry
from reidassoc.cli.list_matrix import print_matrix
from reidassoc.data.samplers import Sampler
from reidassoc.errors import RecipeError
from reidassoc.interfaces.banks import Banks
from reidassoc.interfaces.batch import Batch, View
from reidassoc.pipeline import associate, cluster, refine
from reidassoc.recipe.compatibility import PAIRS, Cell, Grid, matrix
from reidassoc.recipe.compose import Method, Weighted, compose
from reidassoc.recipe.load import parse_recipe
from reidassoc.recipe.requirements import candidates, gives, misfits, needs
from reidassoc.testing import toy_identity
from reidassoc.testing.scenes import Toy
from reidassoc.types import SHARED, STREAMS, Association, Clustering, Targets

SMALL = {"k1": 6, "k2": 3, "mixed_k1": 10, "mixed_k2": 3}  # neighbourhoods that fit the toy
PARTS, WIDTH, ROWS = 3, 32, 8
PARTS_OF = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def grids() -> list[Grid]:
    return matrix()


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


@pytest.mark.parametrize("kinds", PAIRS, ids=" x ".join)
def test_every_allowed_pair_runs(kinds: tuple[str, str], grids: list[Grid], known: PARTS_OF, label_file: Path) -> None:
    grid = next(grid for grid in grids if grid.kinds == kinds)
    runner = Runner(known, label_file)
    ran = 0
    for pair, cell in grid.cells.items():
        if cell.fits:
            loss = runner.loss(cell.stage.parts)
            assert torch.isfinite(loss), pair
            ran += 1
    assert ran >= len(grid.rows)


def recipe_of(cell: Cell) -> Any:
    parts = cell.stage.parts
    stage = {
        "name": "cross", "epochs": 1, "iterations": 1, "identities": 2, "images": 2, "associator": parts["associators"],
        "refiners": [parts["refiners"]] if "refiners" in parts else [], "objectives": [parts["objectives"]],
    }  # fmt: skip
    return {
        "name": "pair", "dataset": "synthetic(size='tiny')", "network": parts["networks"], "size": [64, 32],
        "clusterer": parts["clusterers"], "oracle": cell.stage.oracle, "stages": [stage],
    }  # fmt: skip


def test_compose_says_what_the_matrix_says(grids: list[Grid]) -> None:
    refused = {cell.note: cell for grid in grids for cell in grid.cells.values() if not cell.fits}
    allowed = {cell.note: cell for grid in grids for cell in grid.cells.values() if cell.fits}
    assert len(refused) >= 4
    assert len(allowed) >= 4
    for note, cell in refused.items():
        with pytest.raises(RecipeError) as error:
            compose(parse_recipe(recipe_of(cell), "pair"))
        assert note in str(error.value)
    for cell in allowed.values():
        compose(parse_recipe(recipe_of(cell), "pair"))


def test_what_is_known_of_some_pairs(grids: list[Grid]) -> None:
    cells = {(*grid.kinds, *pair): cell for grid in grids for pair, cell in grid.cells.items()}
    for associator in ("mult", "pgm", "salcr"):
        assert cells["associators", "refiners", associator, "oclr"].note == ""
        assert "tiny(parts=3)" in cells["associators", "objectives", associator, "fgsal"].note
        assert "mixed" in cells["associators", "objectives", associator, "joint"].note
    assert cells["associators", "refiners", "oracle", "mix"].note == "with --oracle"
    assert not cells["objectives", "refiners", "dual", "oclr"].fits
    assert "oclr needs 'specific bank' or 'cross bank'" in cells["objectives", "refiners", "dual", "oclr"].note
    assert (
        "gpcr needs 'paired', but the objectives draw own batches"
        in cells["objectives", "refiners", "dcl", "gpcr"].note
    )
    assert not cells["objectives", "clusterers", "joint", "dbscan"].fits
    assert cells["objectives", "clusterers", "joint", "mixed"].fits
    assert not cells["objectives", "networks", "fgsal", "two_stream"].fits
    assert cells["objectives", "networks", "fgsal", "two_stream(parts=3)"].fits
    assert cells["refiners", "networks", "gpcr", "tiny"].fits is False
    assert cells["refiners", "networks", "gpcr(parts=false)", "tiny"].fits


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


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_the_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_matrix("objectives", Console(width=width, highlight=False))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    for word in ("objectives × clusterers", "objectives × refiners", "gpcr", "✗", "✓", "amirl"):
        assert word in printed
