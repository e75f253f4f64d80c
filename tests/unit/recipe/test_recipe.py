"""Recipes: composed whole before any work; wrong ones end in one clear line."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

from reidassoc.errors import PluginError, RecipeError, SpecError
from reidassoc.recipe import load as recipe_module
from reidassoc.recipe.choose import choose
from reidassoc.recipe.compose import compose
from reidassoc.recipe.load import RECIPE_GROUP, load_recipe, parse_recipe, shipped_recipes
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.yaml_reader import read_yaml


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("mult/synthetic")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_composes(name: str, tmp_path: Path) -> None:
    chosen = load_recipe(name)
    assert chosen.name == name
    composed = compose(choose(recipe=name, root=str(tmp_path)) if "root" in _options(chosen) else chosen)
    assert len(composed.methods) == len(chosen.stages)


def _options(recipe: Recipe) -> set[str]:
    from reidassoc import registry
    from reidassoc.registry.options import options_of

    return {option.name for option in options_of(registry.get("datasets", recipe.dataset.name))}


def test_a_recipe_reads_back_from_its_own_text(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    again = load_recipe(str(path))
    assert again == recipe
    assert again.digest == recipe.digest
    assert choose(recipe=str(path), seed=1).digest != recipe.digest


def test_a_recipe_may_say_only_what_it_changes(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nextends: mult/synthetic\nseed: 3\nstages:\n  cross:\n    associator: pgm\n    refiners: []\n"
        "    augmentation: {erase: 0.4}\n"
    )
    chosen = load_recipe(str(path))
    expected = recipe.model_dump(mode="json")
    expected |= {"name": "mine", "reference": "", "seed": 3}
    expected["stages"][1] |= {"associator": "pgm", "refiners": []}
    expected["stages"][1]["augmentation"]["erase"] = 0.4
    assert chosen.model_dump(mode="json") == expected
    whole = tmp_path / "whole.yaml"
    whole.write_text(chosen.to_yaml())  # what a run folder holds: it needs no other file, and has the same hash
    assert "extends" not in whole.read_text()
    assert load_recipe(str(whole)).digest == chosen.digest
    beside = tmp_path / "beside.yaml"
    beside.write_text("name: other\nextends: whole.yaml\nevaluate_every: 7\n")
    assert load_recipe(str(beside)).stages == chosen.stages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nextends: malt/synthetic", "no recipe 'malt/synthetic'; did you mean 'mult/synthetic'"),
        ("name: x\nextends: [mult/synthetic]", "extends must be one recipe's name or file"),
        ("name: x\nextends: pgm/synthetic", "pgm/synthetic, which is no whole recipe"),
        ("name: x\nextends: none.yaml", "no recipe file .*none.yaml"),
        ("extends: mult/synthetic", "the key 'name' is missing$"),
        ("name: x\nextends: mult/synthetic\nstagse: {}", "no key 'stagse'; did you mean 'stages'"),
        (
            "name: x\nextends: mult/synthetic\nstages: {cros: {epochs: 1}}",
            "no stage 'cros' to change; did you mean 'cross'",
        ),
        ("name: x\nextends: mult/synthetic\nstages: {cross: pgm}", "stages.cross must be a mapping"),
        (
            "name: x\nextends: mult/synthetic\nstages: {cross: {epoch: 1}}",
            "no key 'stages.cross.epoch'; did you mean 'epochs'",
        ),
        (
            "name: x\nextends: mult/synthetic\nstages: {cross: {epochs: -3}}",
            r"wrong\.yaml: stages\.cross\.epochs: expected at least 1, got -3$",
        ),
        (
            "name: x\nextends: mult/synthetic\nstages: {cross: {associator: mult(alpha=1, k1=8)}}",
            r"its bracket is left open; in YAML, quote a spec that has commas, as in 'x\(a=1, b=2\)'$",
        ),
    ],
)
def test_wrong_inheritance_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("associator", "dataset", "name"),
    [
        ("pgm", "synthetic", "pgm/synthetic"),
        ("cma", "regdb", "adca/regdb"),
        ("nulc", "regdb", "nulc/regdb"),
        ("nearest", "synthetic", "mult/synthetic"),
        ("pgm", "manifest", "pgm/sysu_mm01"),
    ],
)
def test_an_associator_runs_in_its_method_s_recipe(associator: str, dataset: str, name: str) -> None:
    chosen, shipped = choose(associator=associator, dataset=dataset), load_recipe(name)
    assert chosen.name == name
    assert [stage.objectives for stage in chosen.stages] == [stage.objectives for stage in shipped.stages]
    assert chosen.stages[1].associator.name == associator
    assert chosen.stages == shipped.stages or associator == "nearest"


ALIKE = ("adca", "base", "cclnet", "gur", "hil", "mbccm", "nulc", "otla", "pgm", "rpnr", "supervised")


@pytest.mark.parametrize("name", [f"{method}/synthetic" for method in ALIKE])
def test_methods_on_the_synthetic_pedestrians_differ_in_nothing_but_the_method(name: str, recipe: Recipe) -> None:
    """Same pictures, network, clusterer, epochs, batches, learning rates, augmentation, and banks."""
    chosen = load_recipe(name)
    assert chosen.epochs == recipe.epochs
    method = {"name", "reference", "stages"} | ({"clusterer", "oracle"} if name.startswith("supervised/") else set())
    same = set(Recipe.model_fields) - method
    assert chosen.model_dump(include=same) == recipe.model_dump(include=same)
    pairs = zip(chosen.stages, recipe.stages, strict=True) if not name.startswith("base/") else ()
    for mine, theirs in pairs:
        parts = {"associator", "refiners", "objectives"}
        assert mine.model_dump(exclude=parts) == theirs.model_dump(exclude=parts)
        for option in ("momentum", "temperature"):
            values = {part.use.options.get(option) for part in (*mine.objectives, *theirs.objectives)}
            assert len(values) == 1, f"{name}: take the banks' {option} of mult/synthetic's stage {mine.name}"


def test_supervised_recipes_say_so() -> None:
    from reidassoc.runs.result import flags

    chosen = load_recipe("supervised/synthetic")
    assert chosen.oracle
    assert "uses true identities" in flags(compose(chosen))
    honest = chosen.model_dump(mode="json") | {"oracle": False}
    with pytest.raises(RecipeError, match="identity needs 'identity', but it sees true identities"):
        compose(parse_recipe(honest, "mine"))


def test_any_association_runs_in_another_method_s_training(recipe: Recipe) -> None:
    chosen = choose(recipe="mult/synthetic", associator="pgm")
    assert str(chosen.stages[1].associator) == "pgm"
    assert chosen.stages[1].objectives == recipe.stages[1].objectives
    assert chosen.stages[1].refiners == recipe.stages[1].refiners
    assert choose(associator="pgm").stages[1].objectives != recipe.stages[1].objectives


def test_names_on_the_command_line_replace_parts() -> None:
    chosen = choose(
        associator="nearest",
        refiners=["mix(beta=0.5)"],
        clusterer="dbscan(eps=0.4)",
        dataset="synthetic(size='tiny')",
        seed=7,
    )
    intra, cross = chosen.stages
    assert intra.associator is None
    assert str(cross.associator) == "nearest"
    assert [str(part) for part in cross.refiners] == ["mix(beta=0.5)"]
    assert [str(part) for part in cross.objectives] == ["amirl(momentum=0.8, per_row=True)"]
    assert str(chosen.clusterer) == "dbscan(eps=0.4, min_samples=4, k1=8, k2=4)"
    assert str(chosen.dataset) == "synthetic(size='tiny')"
    assert chosen.seed == 7


def test_a_method_with_a_recipe_of_its_own_is_run_by_it() -> None:
    assert choose(associator="mmm").name == "mmm/synthetic"
    assert choose(associator="mmm", dataset="regdb").name == "mmm/regdb"
    assert choose(recipe="mmm_released/synthetic").stages[-1].relabel == "once"
    assert choose(changes=[("cross.optimiser.network_rate", 0.1)]).stages[1].optimiser.network_rate == 0.1
    with pytest.raises(RecipeError, match=r"^on_nan=ignore: expected 'stop' or 'skip', got 'ignore'$"):
        choose(on_nan="ignore")


def test_a_part_of_the_recipe_s_own_name_keeps_what_is_not_named() -> None:
    assert choose(associator="mult(alpha=0.3)").stages[1].associator.options == {"alpha": 0.3, "strength": 50.0}
    assert str(choose(clusterer="dbscan(eps=0.5, k1=10)").clusterer) == "dbscan(eps=0.5, min_samples=4, k1=10, k2=4)"
    assert str(choose(recipe="salcr/synthetic", network="tiny(width=64)").network) == "tiny(width=64, parts=3)"
    assert str(choose(recipe="mult/sysu_mm01", root="x", network="tiny").network) == "tiny"


def test_changes_by_path() -> None:
    chosen = choose(
        changes=[
            ("associator.alpha", 0.4), ("clusterer.eps", 0.5), ("refiner.oclr.sharpening", 0.3), ("refiner.oclr.weight", 0.5),
            ("cross.epochs", 3), ("cross.augmentation.pad", 4), ("intra.optimiser.learning_rate", 1e-3), ("evaluate_every", 0),
            ("dataset.size", "tiny"),
        ]
    )  # fmt: skip
    intra, cross = chosen.stages
    assert cross.associator.options["alpha"] == 0.4
    assert chosen.clusterer.options["eps"] == 0.5
    assert str(cross.refiners[-1]) == "0.5 * oclr(sharpening=0.3)"
    assert (cross.epochs, cross.augmentation.pad, intra.optimiser.learning_rate) == (3, 4, 1e-3)
    assert (chosen.evaluate_every, chosen.dataset.options["size"]) == (0, "tiny")
    assert chosen.epochs == intra.epochs + 3
    assert chosen.stage_at(intra.epochs + 1) == (cross, 1)
    with pytest.raises(IndexError):
        chosen.stage_at(chosen.epochs)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("asociator.alpha", "no 'asociator' in the recipe; did you mean 'associator'"),
        ("stages.0.epochs", "name the stage itself, as in intra.epochs; there are: intra, cross"),
        ("cross.epoch", "no key 'epoch'; did you mean 'epochs'"),
        ("refiner.gpcrr.k", "expected refiner.NAME.OPTION with NAME one of: mix, oclr"),
        ("cross.name.deep", "'name' holds nothing to set 'deep' in"),
        ("seed", "^--set seed=x: expected a whole number, got 'x'$"),
        ("refiner.oclr.weight", "--set refiner.oclr.weight: expected a finite number from 0, got 'x'"),
    ],
)
def test_a_wrong_change_is_named(path: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        choose(changes=[(path, "x")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cross.epochs", -3), "--set cross.epochs=-3: expected at least 1, got -3"),
        (("intra.optimiser.learning_rate", 0), "--set intra.optimiser.learning_rate=0: expected more than 0, got 0"),
        (("cross.optimiser", 3), "--set cross.optimiser=3: expected a mapping, as in {key: value}, got 3"),
        (("size", [64, 0]), "--set size=[64, 0]: expected more than 0, got 0"),
        (("ema", 1), "--set ema=1: expected less than 1, got 1"),
        (("intra.optimiser.milestones", 8), "--set intra.optimiser.milestones=8: expected a list, as in [8], got 8"),
        (("cross.relabel", "never"), "--set cross.relabel=never: expected 'every_epoch' or 'once', got 'never'"),
        (("seed", 1.5), "--set seed=1.5: expected a whole number, got 1.5"),
    ],
)
def test_a_wrong_value_is_told_in_the_words_of_the_change(change: tuple[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
        choose(changes=[("evaluate_every", 0), change])


def test_a_wrong_option_stops_before_any_work() -> None:
    with pytest.raises(SpecError, match="dbscan: no option 'epss'; did you mean 'eps'"):
        compose(choose(changes=[("clusterer.epss", 0.3)]))
    with pytest.raises(SpecError, match="mult: alpha must be float"):
        compose(choose(changes=[("associator.alpha", "much")]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stagse": []}, "no key 'stagse'; did you mean 'stages'"),
        ({"stages": []}, r"stages: expected at least 1 of them, got \[\]"),
        ({"clusterer": "dbscan(0.6)"}, "options need names"),
        ({"size": [64]}, "size"),
        ({"size": [64, 0]}, r"size\.1: expected more than 0, got 0"),
        ({"memory_limit": float("inf")}, "memory_limit: expected a finite number, got inf"),
    ],
)
def test_a_wrong_recipe_is_named(recipe: Recipe, change: dict[str, object], message: str) -> None:
    data = {**yaml.safe_load(recipe.to_yaml()), **change}
    with pytest.raises((RecipeError, SpecError), match=message):
        parse_recipe(data, "mine.yaml")


def test_stages_are_told_apart_by_their_names(recipe: Recipe) -> None:
    data = yaml.safe_load(recipe.to_yaml())
    data["stages"].append(data["stages"][1])
    with pytest.raises(RecipeError, match=r"^mine: stages: two stages are called 'cross'; give one of them another"):
        parse_recipe(data, "mine")


@pytest.mark.parametrize("weight", [0.1234567, 1 / 3, 0.5, 1e-7, 12345678.0])
def test_a_weight_is_written_whole(recipe: Recipe, weight: float) -> None:
    chosen = choose(changes=[("refiner.oclr.weight", weight)])
    assert parse_recipe(yaml.safe_load(chosen.to_yaml()), "again") == chosen
    assert chosen.stages[1].refiners[-1].weight == weight


def test_a_key_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: x\nextends: mult/synthetic\nstages:\n  cross: {epochs: 1, epochs: 2}\n")
    with pytest.raises(RecipeError, match=r"twice\.yaml is no YAML: line 4: the key 'epochs' stands there already"):
        load_recipe(str(path))
    path.write_text("name: x\nseed: [1\n")
    with pytest.raises(RecipeError, match=r"twice\.yaml is no YAML: line 3: expected ',' or ']'"):
        load_recipe(str(path))
    merged = "b: &b {x: 1}\np: {a: &a {<<: *b, x: 2}}\nc: {<<: *a, x: 3}"
    assert read_yaml(merged, "x") == yaml.safe_load(merged)


@pytest.mark.parametrize("module", ["no_such_module_anywhere", "json.decoder"])
def test_a_broken_package_of_recipes_breaks_only_itself(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, real = EntryPoint("broken", module, RECIPE_GROUP), recipe_module.installed
    monkeypatch.setattr(recipe_module, "installed", lambda group: (broken, *real(group)))
    with pytest.warns(UserWarning, match=f"the recipes of {module} can't be listed: "):
        assert load_recipe("mult/synthetic").name == "mult/synthetic"


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))
    with pytest.raises(
        RecipeError, match=r"^no recipe 'pgm'; there are: pgm/llcm, pgm/regdb, pgm/synthetic, pgm/sysu_mm01$"
    ):
        load_recipe("pgm")
    with pytest.raises(RecipeError, match="no recipe 'malt/synthetic'; did you mean 'mult/synthetic'"):
        load_recipe("malt/synthetic")
    for number, text in enumerate(["[1, 2", "- a\n- b\n", "!!python/object/apply:os.system ['true']", "\x00"]):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError, match=r"is no YAML|expected a mapping"):
            load_recipe(str(path))


def test_parts_that_do_not_fit_are_refused_with_the_reason(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="oracle needs 'identity', but it sees true identities: say so with --oracle"):
        compose(choose(associator="oracle"))
    compose(choose(associator="oracle", oracle=True))
    alone = recipe.model_dump(mode="json")
    alone["stages"][1] |= {"associator": None, "refiners": []}
    with pytest.raises(RecipeError, match="stage 'cross': amirl needs 'cross', but the stage has no associator"):
        compose(parse_recipe(alone, "mine"))
    mixed = recipe.model_dump(mode="json")
    mixed["stages"][1]["objectives"] = ["amirl", "dcl"]
    with pytest.raises(RecipeError, match="its objectives draw batches differently: own, paired"):
        compose(parse_recipe(mixed, "mine"))
    with pytest.raises(RecipeError, match="no stage associates across modalities"):
        choose(recipe="base/synthetic", associator="mult")
    with pytest.raises(PluginError, match="no dataset 'sysu'; did you mean 'sysu_mm01'"):
        choose(dataset="sysu")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("eps", "clusterer.eps"),
        ("alpha", "associator.alpha"),
        ("sharpening", "refiner.oclr.sharpening"),
        ("momentum", "objective.dcl.momentum or objective.amirl.momentum"),
        ("epochs", "intra.epochs or cross.epochs"),
        ("sede", "'seed'"),
    ],
)
def test_a_key_without_its_place_is_told_where_it_belongs(key: str, meant: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"^--set {key}: no '{key}' in the recipe; did you mean {re.escape(meant)}\?; there are"
    ):
        choose(recipe="mult/synthetic", changes=[(key, 1)])
