"""The lab: every combination scored on saved features; shared work changes no figure, and neither does the order."""

from __future__ import annotations

import csv
import io
import json
import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import reidassoc as ra
from reidassoc import Association, Associator, Clustering, Features, Pair, Scene, registry
from reidassoc.cli import cli
from reidassoc.cli.output import lab_table
from reidassoc.engine.devices.peak_memory import peak_bytes, start_peak
from reidassoc.errors import DataError, PluginError, RecipeError, ReidassocError, SpecError
from reidassoc.files.arrays import write_arrays
from reidassoc.files.features import FeatureFile, read_features, write_features
from reidassoc.labs.combinations import Sweep, combinations, every_associator, split
from reidassoc.labs.result import Lab, Row, caption, columns, record, render, text_table
from reidassoc.labs.shared_cost import Ledger, metered
from reidassoc.ops.affinity import affinity
from reidassoc.pipeline import associate, cluster
from reidassoc.tables.terminal_table import laid_out
from reidassoc.testing import toy_features, toy_identity

TOY = FeatureFile(toy_features(), toy_identity())
GROUPING = "dbscan(k1=10)"


def figures(row: Row) -> dict[str, Any]:
    """A row's record without what a clock or the machine decides."""
    return {k: v for k, v in record(row).items() if not k.startswith("seconds") and not k.endswith("bytes")}


def test_shared_work_and_order_change_no_figure() -> None:
    asked: dict[str, Any] = {
        "clusterers": [GROUPING, "dbscan(k1=8, eps=0.5)"],
        "associators": ["mult", "random", "nulc"],
        "refiners": ["none", "propagate", "propagate+agree"],
        "sweeps": ["associator.alpha=0.1,0.4"],
    }
    shared, alone = ra.lab(TOY, **asked), ra.lab(TOY, **asked, cache=False)
    assert len(shared.rows) == 2 * 4 * 3
    assert [figures(row) for row in shared.rows] == [figures(row) for row in alone.rows]
    backwards = ra.lab(TOY, **{key: value[::-1] for key, value in asked.items()})

    def by_name(found: Lab) -> dict[str, dict[str, Any]]:
        return {str(row.combination): figures(row) for row in found.rows}

    assert by_name(backwards) == by_name(shared)
    assert len({row.cross["f1"] for row in shared.rows}) > 3  # the figures do tell the methods apart


def test_a_row_says_what_the_pipeline_says() -> None:
    (row,) = ra.lab(TOY, clusterers=[GROUPING], associators=["pgm"]).rows
    scene = Scene(0, 0, TOY.features, cluster(registry.build("clusterers", GROUPING), TOY.features))
    cross = associate(registry.build("associators", "pgm"), scene).cross
    assert cross is not None
    labelled = sum(int(labels.labelled.sum()) for labels in cross)
    assert row.coverage == labelled / sum(map(len, TOY.features))
    assert row.clusters == scene.clustering.own.map(lambda c: c.count)
    p, r = (row.quality[f"visible/{name}_cross"] for name in ("precision", "recall"))
    q, s = (row.quality[f"infrared/{name}_cross"] for name in ("precision", "recall"))
    assert row.cross["f1"] == pytest.approx((2 * p * r / (p + r) + 2 * q * s / (q + s)) / 2)


def test_one_affinity_serves_all_and_each_is_charged_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from reidassoc.ops import affinity as module

    made = []
    real = module.jaccard_similarity

    def counted(x: torch.Tensor, *, k1: int, k2: int) -> torch.Tensor:
        made.append((k1, k2))
        return real(x, k1=k1, k2=k2)

    monkeypatch.setattr(module, "jaccard_similarity", counted)
    found = ra.lab(TOY, clusterers=[GROUPING, "dbscan(k1=10, eps=0.5)"], associators=["mult", "mult(alpha=0.3)", "pgm"])
    assert made == [(10, 6)] * 2  # one for each modality: nobody made one with another k1
    mult, again, pgm = (row.seconds["shared"] for row in found.rows[:3])
    assert mult == again > 0
    assert pgm == 0
    assert all(row.seconds["cluster"] >= mult for row in found.rows)


def test_a_ledger_takes_nested_work_once() -> None:
    ledger = Ledger()
    ledger.open()
    ledger.time("outer", lambda: ledger.time("inner", lambda: sum(range(10_000)), known=False), known=False)
    assert ledger.used == {"outer"}
    assert ledger.shared == ledger.spent == ledger.cost["outer"] >= ledger.cost["inner"] > 0
    ledger.open()
    assert ledger.shared == 0
    features = metered(TOY.features.visible, ledger)
    assert affinity(features, k1=5, k2=2) is affinity(features, k1=5, k2=2)
    assert len(ledger.used) == 1
    assert ledger.spent >= ledger.shared > 0


def test_peak_memory_is_that_of_the_work() -> None:
    device = torch.device("cpu")
    before = start_peak(device)
    with mmap.mmap(-1, 64 << 20) as block:  # fresh pages: a tensor may be given those that earlier tests have freed
        block.write(b"\1" * (1 << 20) * 64)
    assert peak_bytes(device) - before > 48 << 20


def test_without_names_it_is_every_associator_that_sees_no_identity() -> None:
    names = every_associator(oracle=False)
    assert {"mult", "mmm", "salcr", "pgm", "nearest"} <= set(names)
    assert not {"oracle", "from_file", "dagi"} & set(names)  # identities, a required option, an alias
    assert "oracle" in every_associator(oracle=True)


def test_the_oracle_must_be_asked_for_and_is_flagged() -> None:
    with pytest.raises(RecipeError, match=r"oracle sees true identities: say so with --oracle"):
        ra.lab(TOY, clusterers=[GROUPING], associators=["oracle"])
    found = ra.lab(TOY, clusterers=[GROUPING], associators=["oracle", "pgm"], oracle=True)
    assert [row.oracle for row in found.rows] == [True, False]
    assert "† saw true identities" in render(found, "markdown")
    with pytest.raises(RecipeError, match="needs 'identity'"):
        ra.lab(FeatureFile(TOY.features, None), clusterers=[GROUPING], associators=["oracle"], oracle=True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"associators": ["malt"]}, "no associator 'malt'; did you mean 'mult'"),
        ({"associators": ["mult(alpa=1)"]}, "mult: no option 'alpa'; did you mean 'alpha'"),
        ({"sweeps": ["associator.alpha"]}, "can't read sweep 'associator.alpha'"),
        ({"sweeps": ["objective.weight=1,2"]}, "can't read sweep"),
        ({"sweeps": ["associator.alpa=0.1,0.2"]}, "none of mult has it; did you mean 'alpha'"),
        ({"sweeps": ["associator.mlt.alpha=0.1"]}, "it is not among those tried, mult; did you mean 'mult'"),
        ({"sweeps": ["associator.=0.1"]}, "can't read sweep 'associator.=0.1'"),
        ({"sweeps": ["associator.alpha=0.1,much"]}, "mult: alpha must be float"),
        ({"refiners": ["oclr"]}, "refiner oclr acts in training steps alone"),
        ({"refiners": []}, "the lab needs at least one refiner"),
        ({"device": "tpu"}, "no device 'tpu'"),
    ],
)
def test_bad_requests_are_refused_before_any_work(
    asked: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reidassoc.labs.lab.cluster", lambda *a, **k: pytest.fail("work was done"))
    with pytest.raises(ReidassocError, match=message):
        ra.lab(TOY, **{"clusterers": [GROUPING], "associators": ["mult"], **asked})


def test_a_method_that_fails_fails_alone() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Faulty(Associator):
        """Always fails."""

        def __call__(self, scene: Scene) -> Association:
            raise IndexError("index 7")

    registry.add("faulty", Faulty)
    found = ra.lab(TOY, clusterers=[GROUPING, "dbscan(min_samples=50, k1=10)"], associators=["faulty", "pgm"])
    problems = [row.problem for row in found.rows[:2]]
    assert problems[0].startswith("associator faulty failed: IndexError: index 7 (test_lab.py, line ")  # of the method
    assert problems[1] == ""
    assert all("found" in row.problem and "clusters" in row.problem for row in found.rows[2:])
    assert "| failed |" in render(found, "markdown")


def test_a_class_without_options_to_read_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "half_done.py"
    file.write_text(
        "from reidassoc import Associator\n\n\nclass HalfDone(Associator):\n"
        '    """No dataclass."""\n\n    def __call__(self, scene): ...\n'
    )
    registry.load_file(str(file))
    assert "half_done" not in every_associator(oracle=True)
    with pytest.raises(PluginError, match="HalfDone must be a frozen, keyword-only dataclass"):
        ra.lab(TOY, associators=["nearest", "half_done"])


def test_a_clusterer_takes_over_what_the_file_s_own_says() -> None:
    """As in a run: else a rival on the defaults of another dataset would look worse than it is."""
    file = FeatureFile(TOY.features, TOY.identity, {"clusterer": "dbscan(eps=0.5, k1=10, k2=4)"})
    found = ra.lab(file, clusterers=["dbscan(eps=0.7)", "mixed"], associators=["nearest"], device="cpu")
    used = [str(row.combination.clusterer) for row in found.rows]
    assert used == ["dbscan(eps=0.7, k1=10, k2=4)", "mixed(k1=10, k2=4)"]
    assert str(found).splitlines()[-1].startswith("|")
    (row,) = ra.lab(file, associators=["nearest"], device="cpu").rows
    assert str(row.combination.clusterer) == "dbscan(eps=0.5, k1=10, k2=4)"
    strange = FeatureFile(TOY.features, TOY.identity, {"clusterer": "of_a_stranger"})
    assert len(ra.lab(strange, clusterers=[GROUPING], associators=["nearest"], device="cpu").rows) == 1


def test_a_misspelt_array_is_told(tmp_path: Path) -> None:
    arrays = {"visible": TOY.features.visible.x.numpy(), "infrared": TOY.features.infrared.x.numpy()}
    np.savez(tmp_path / "mine.npz", **arrays, cameras_visible=np.zeros(len(arrays["visible"]), np.int64))
    with pytest.raises(DataError, match=r"'cameras_visible' is not read; did you mean 'camera_visible'\? Rename it"):
        read_features(tmp_path / "mine.npz")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_arrays_of_other_names_are_passed_over_with_a_note(tmp_path: Path, ending: str) -> None:
    arrays = {"visible": TOY.features.visible.x.numpy(), "infrared": TOY.features.infrared.x.numpy()}
    path = tmp_path / f"mine.{ending}"
    write_arrays(path, {**arrays, "paths_visible": np.zeros(3), "paths_infrared": np.zeros(3)})
    if ending == "npz":
        np.savez(path, **arrays, paths_visible=np.array(["a.png"]), paths_infrared=np.array(["a.png"], object))
    with pytest.warns(UserWarning, match="arrays that are not read: paths_(visible|infrared), paths_") as caught:
        assert len(read_features(path).features.visible) == len(arrays["visible"])
    assert len(caught) == 1


def test_a_file_without_features_lists_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", rgb=np.eye(3), ir=np.eye(3))
    with pytest.raises(DataError, match=r"has no array 'visible'; .* it has: rgb, ir$"):
        read_features(tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npz", b"<!DOCTYPE html>", "it is a web page; download the file itself"),
        ("x.safetensors", b"<!DOCTYPE html>", "it is a web page; download the file itself"),
        ("x.pt", None, r"it is a torch file; save its arrays as \.npz or \.safetensors; expected floats"),
        ("x.safetensors", None, r"it is a torch file; save its arrays as \.npz or \.safetensors; expected floats"),
        ("x.npz", b"", "it is empty; download or copy it again"),
    ],
)
def test_another_file_than_features_is_named(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is None:
        torch.save({"visible": torch.eye(3), "infrared": torch.eye(3)}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_features(tmp_path / name)


@pytest.mark.parametrize("values", [np.array(["a", "b", "c"]), np.ones(3)])
def test_identities_that_are_not_whole_numbers_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    arrays = {f"identity_{m}": values for m in ("visible", "infrared")}
    np.savez(tmp_path / "f.npz", visible=np.eye(3), infrared=np.eye(3), **arrays)
    with pytest.raises(DataError, match=r"'identity_visible' must be \(3,\) int64, got \(3,\) (<U1|float64)"):
        read_features(tmp_path / "f.npz")


def test_what_is_split_and_swept() -> None:
    assert split("mult(alpha=0.1, k1=8), pgm,,from_file(path='a,b')") == [
        "mult(alpha=0.1, k1=8)",
        "pgm",
        "from_file(path='a,b')",
    ]
    sweeps = [Sweep.parse("associator.alpha=0.1,0.2"), Sweep.parse("refiner.propagate.rounds=1,2")]
    made = combinations(["dbscan(k1=8)"], ["mult", "pgm"], ["none", "propagate+agree"], sweeps)
    texts = [(str(c.associator), c.refiner_text) for c in made]
    assert ("mult(alpha=0.1)", "none") in texts
    assert ("pgm", "propagate(rounds=2)+agree") in texts
    assert len(made) == 3 * 3


@pytest.mark.parametrize("form", ["rich", "csv"])
def test_the_command_says_where_its_table_went(form: str, tmp_path: Path) -> None:
    write_features(tmp_path / "toy.npz", TOY)
    words = ["--clusterer", GROUPING, "--associator", "nearest,pgm", "--format", form, "--out", str(tmp_path / "sweep")]
    done = CliRunner().invoke(cli, ["lab", str(tmp_path / "toy.npz"), *words, "--device", "cpu"])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"2 combinations: {tmp_path / 'sweep'}\n")
    assert "nearest" in (tmp_path / "sweep").read_text()


@pytest.mark.parametrize("form", ["markdown", "csv", "json"])
def test_every_format_holds_every_row(form: str) -> None:
    found = ra.lab(TOY, clusterers=[GROUPING], associators=["mult", "pgm", "nearest"])
    text = render(found, form)
    if form == "json":
        assert [row["associator"] for row in json.loads(text)["rows"]] == ["mult", "pgm", "nearest"]
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert float(rows[1]["cross_f1"]) == found.rows[1].cross["f1"]
        assert float(rows[1]["visible/ari"]) == found.rows[1].quality["visible/ari"]
    else:
        header, rows_ = text_table(found)
        f1 = [float(row[header.index("F1")]) for row in rows_]
        assert f1 == sorted(f1, reverse=True)
        assert all("| " + " | ".join(row) + " |" in text for row in rows_)


def test_refiners_stand_on_the_left_with_the_other_words() -> None:
    found = ra.lab(TOY, clusterers=[GROUPING], associators=["pgm"], refiners=["none", "agree"])
    assert "\n| --- | --- | --: |" in render(found, "markdown")


def test_an_odd_epoch_in_a_file_is_none() -> None:
    odd = FeatureFile(TOY.features, TOY.identity, {"epoch": "²"})
    assert ra.lab(odd, clusterers=[GROUPING], associators=["pgm"]).rows[0].problem == ""


def test_methods_see_the_epoch_that_the_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def watched(part: Associator, scene: Scene, known: Pair[torch.Tensor] | None) -> Association:
        seen.append(scene.epoch)
        return associate(part, scene, known)

    monkeypatch.setattr("reidassoc.labs.lab.associate", watched)
    for notes in ({"epoch": "7"}, {}):
        ra.lab(FeatureFile(TOY.features, TOY.identity, notes), clusterers=[GROUPING], associators=["pgm"])
    assert seen == [7, 0]


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_feature_files_come_back_as_they_went(ending: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def one(features: Features) -> Features:
        n = len(features)
        extra = {"parts": torch.randn(n, 3, 4, generator=generator), "tracklet": torch.arange(n) // 4 - 1}
        return Features(features.x, torch.arange(n) + 5, torch.ones(n).long(), extra)

    file = FeatureFile(TOY.features.map(one), TOY.identity, {"epoch": "7"})
    path = tmp_path / f"f.{ending}"
    write_features(path, file)
    back = read_features(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert back.identity is not None
    for m in ("visible", "infrared"):
        torch.testing.assert_close(back.features[m].x, file.features[m].x)
        for name in ("index", "camera", "tracklet"):
            assert torch.equal(getattr(back.features[m], name), getattr(file.features[m], name))
        assert torch.equal(back.features[m].extra["parts"], file.features[m].extra["parts"])
        assert torch.equal(back.identity[m], TOY.identity[m])  # type: ignore[index]
    assert back.notes == ({"epoch": "7"} if ending == "safetensors" else {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity_visible": np.arange(3)}, "has 'identity_visible' but no 'identity_infrared'; give both or neither"),
        (
            {"identity_infrared": np.arange(3)},
            "has 'identity_infrared' but no 'identity_visible'; give both or neither",
        ),
        ({"parts_visible": np.full((3, 2, 4), np.nan)}, "'parts_visible' has NaN or infinite values in 3 of 3 rows"),
        ({"parts_visible": np.full((3, 2, 4), 1e300)}, "'parts_visible' has NaN"),  # infinite as float32
        (
            {"infrared": np.array([[1.0, 0], [0, np.inf], [1, 0]])},
            r"'infrared' has NaN .* in 1 of 3 rows \(first: row 1\)",
        ),
    ],
)
def test_feature_files_that_would_be_read_wrongly_are_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "f.npz", **{"visible": np.eye(3), "infrared": np.eye(3), **changes})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "f.npz")


def test_a_modality_without_samples_may_have_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", visible=np.eye(3), infrared=np.zeros((0, 3)), parts_infrared=np.zeros((0, 2, 4)))
    assert read_features(tmp_path / "f.npz").features.infrared.extra["parts"].shape == (0, 2, 4)


def test_the_file_s_own_clusterer_is_the_default(tmp_path: Path) -> None:
    write_features(tmp_path / "f.safetensors", FeatureFile(TOY.features, TOY.identity, {"clusterer": GROUPING}))
    found = ra.lab(tmp_path / "f.safetensors", associators=["pgm"])
    assert str(found.rows[0].combination.clusterer) == GROUPING


def test_advice_takes_one_size_alone() -> None:
    assert ra.advise(TOY, k1=8, device="cpu") == ra.advise(TOY, k1=[8], device="cpu")


def test_half_precision_files_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({m: TOY.features[m].x.bfloat16() for m in ("visible", "infrared")}, tmp_path / "f.safetensors")
    back = read_features(tmp_path / "f.safetensors")
    assert back.identity is None
    assert float((back.features.visible.x - TOY.features.visible.x).abs().max()) < 0.01


def test_advice_finds_the_clusters_without_identities() -> None:
    blind = FeatureFile(TOY.features, Pair(*(torch.zeros(len(f), dtype=torch.int64) for f in TOY.features)))
    advice = ra.advise(blind, k1=[5, 6])
    assert advice == ra.advise(TOY, k1=[6, 5])
    assert advice.clusterer is not None
    made = registry.build("clusterers", advice.clusterer)(TOY.features, epoch=0, seed=0, previous=None)
    assert isinstance(made, Clustering)
    assert made.own.map(lambda c: c.count) == Pair(8, 8)
    best = max(advice.curves, key=lambda curve: curve.width)
    assert best.stable is not None
    assert best.stable[0] <= float(advice.clusterer.partition("eps=")[2].partition(",")[0]) <= best.stable[1]
    inside = [p for p in best.curve.visible if best.stable[0] <= p.eps <= best.stable[1]]
    assert all(p.stable for p in inside)


def test_noise_gets_no_advice() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = Pair.build(
        lambda m: Features(torch.nn.functional.normalize(torch.randn(80, 64, generator=generator), dim=1))
    )
    assert ra.advise(FeatureFile(noise, None), k1=[8]).clusterer is None
    with pytest.raises(SpecError, match=r"k1 must lie in \[2, 79\]"):
        ra.advise(FeatureFile(noise, None), k1=[80])
    with pytest.raises(SpecError, match="min_samples must be at least 1, got 0"):
        ra.advise(FeatureFile(noise, None), k1=[8], min_samples=0)
    single = Pair(noise.visible, noise.infrared.take(torch.tensor([0])))
    with pytest.raises(ReidassocError, match="at least two samples"):
        ra.advise(FeatureFile(single, None))


def test_a_plug_in_that_is_none_is_named() -> None:
    with pytest.raises(PluginError, match="no clusterer 'dbscam'"):
        ra.lab(TOY, clusterers=["dbscam"], associators=["pgm"])


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_narrow_table_keeps_its_words(width: int) -> None:
    """The choices are what a reader looks for: figures go first."""
    found = ra.lab(TOY, clusterers=[GROUPING, "dbscan(k1=10, eps=0.5)"], associators=["pgm", "nearest"])
    header, rows = text_table(found)
    shown = laid_out(columns(header), rows, width)
    kept = [column.heading for column in shown.columns]
    assert kept[:3] == ["clusterer", "clusters", "associator"]
    assert {"coverage", "F1"} <= set(kept)
    assert all(len(row) == len(kept) for row in shown.rows)
    assert bool(shown.left_out) == (width < 100)
    assert not set(shown.left_out) & set(kept)


def test_one_clusterer_stands_above_the_table_and_leaves_room_for_figures() -> None:
    found = ra.lab(TOY, clusterers=[GROUPING], associators=["mult"], sweeps=["associator.alpha=0.1,0.2"])
    header, rows = text_table(found)
    shown = laid_out(columns(header), rows, 80)
    assert header[0] == "associator"
    assert {"coverage", "precision", "recall", "F1", "ARI"} <= {column.heading for column in shown.columns}
    assert {row[0].plain for row in shown.rows} == {str(row.combination.associator) for row in found.rows}
    counts = found.rows[0].clusters
    assert f"Clusterer {GROUPING}: {counts.visible} visible and {counts.infrared} infrared clusters." in caption(found)
    two = ra.lab(TOY, clusterers=[GROUPING, "dbscan(k1=10, eps=0.5)"], associators=["pgm"])
    assert not any(line.startswith("Clusterer") for line in caption(two))


@pytest.mark.parametrize(("sweep", "same"), [("associator.power=2.0,2.5", True), ("associator.power=1.0,9.0", False)])
def test_rows_with_equal_figures_are_explained(sweep: str, same: bool) -> None:
    registry.add("sure", Sure)
    found = ra.lab(TOY, clusterers=[GROUPING], associators=["sure"], sweeps=[sweep])
    assert any("equal figures" in line for line in caption(found)) == same


@dataclass(frozen=True, kw_only=True)
class Sure(Associator):
    """The nearest cluster, as sure as the power says; from 5 on no label at all."""

    power: float = 1.0

    def __call__(self, scene: Scene) -> Association:
        found = registry.build("associators", "nearest")(scene)
        weight = 0.0 if self.power > 5 else 1.0
        return Association(cross=found.cross.map(lambda labels: labels.with_weight(torch.full((len(labels),), weight))))


def test_specs_of_a_narrow_table_break_at_their_signs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    associators, refiners = ["unison(floor=0.25)", "mult(alpha=0.3, strength=20.0, k1=10)"], ["mix(beta=0.5)+agree"]
    clusterers = ["dbscan(eps=0.5, k1=10)", GROUPING]
    lab_table(ra.lab(TOY, clusterers=clusterers, associators=associators, refiners=refiners))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    table = "\n".join(lines).partition("─\n")[2].partition("combinations")[0]
    whole = {word for spec in (*clusterers, *associators, *refiners) for word in re.findall(r"[a-z]\w*", spec)}
    assert set(re.findall(r"[a-z]\w*", table)) == whole
    assert "\n  " in table  # it had to be folded
