"""Two datasets as one: nobody is in both, and the test is one dataset's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.toy_dataset import Odd, Toy

from reidassoc import Dataset, Modality, registry
from reidassoc.data.export import export
from reidassoc.engine.evaluate import asked_for, refuse_leak
from reidassoc.errors import DataError, RecipeError, ReidassocError
from reidassoc.recipe.choose import choose
from reidassoc.recipe.compose import compose
from reidassoc.registry.spec import Spec
from reidassoc.testing import check_dataset


@pytest.fixture(autouse=True)
def known() -> None:
    """The toys by name."""
    registry.add("toy", Toy)
    registry.add("odd", Odd)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("trees")
    for layout in ("sysu_mm01", "regdb"):
        export(Toy(), base / layout, layout=layout)
    return {layout: base / layout for layout in ("sysu_mm01", "regdb")}


def union(**options: str) -> Dataset:
    given = {"first": "toy", "second": "toy(seed=1)", **options}
    return registry.build("datasets", f"union({', '.join(f'{key}={value!r}' for key, value in given.items())})")


def test_a_copy_under_another_name_is_noted(trees: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(trees["sysu_mm01"], tmp_path / "copy")
    specs = [f"sysu_mm01(root='{root}')" for root in (trees["sysu_mm01"], tmp_path / "copy")]
    joined = registry.build("datasets", Spec("union", {"first": specs[0], "second": specs[1]}))
    assert joined.notes()[-1].endswith("hold copies of one dataset: people train who are tested, or twice")
    assert not any("copies" in note for note in union(second="toy(seed=1)").notes())


@pytest.mark.parametrize("tested", ["first", "second"])
def test_contract(tested: str) -> None:
    check_dataset(union(tested=tested))


def test_it_trains_on_both_and_nobody_is_in_both() -> None:
    joined, members = union(), (Toy(), Toy(seed=1))
    for modality in Modality:
        records, parts = joined.train()[modality], [member.train()[modality] for member in members]
        assert len(records) == sum(map(len, parts))
        assert records.names == tuple(
            f"{place}/{name}" for place, part in zip(("first", "second"), parts, strict=True) for name in part.names
        )
        identity = joined.identity(records)
        cut = len(parts[0])
        assert torch.equal(identity[:cut], members[0].identity(parts[0]))
        assert len(torch.unique(identity[cut:] - members[1].identity(parts[1]))) == 1  # all shifted alike
        everyone = [int(member.identity(r).max()) for member in members[:1] for r in (*member.train(), *member.test())]
        assert int(identity[cut:].min()) > max(everyone)
        assert not set(records.camera[:cut].tolist()) & set(records.camera[cut:].tolist())
        for row in (0, cut - 1, cut, len(records) - 1):
            own = (parts[0], row) if row < cut else (parts[1], row - cut)
            assert np.array_equal(records.source.load(row), own[0].source.load(own[1]))
    both = [set(joined.train()[m].camera.tolist()) for m in Modality]
    assert not both[0] & both[1]


@pytest.mark.parametrize("tested", ["first", "second"])
def test_the_test_is_one_dataset_s_own(tested: str) -> None:
    joined, own = union(tested=tested), Toy(seed=int(tested == "second"))
    for modality in Modality:
        records, expected = joined.test()[modality], own.test()[modality]
        assert records.names == tuple(f"{tested}/{name}" for name in expected.names)
        assert torch.equal(records.camera, expected.camera)
        one, other = joined.identity(records), own.identity(expected)
        assert torch.equal(one[:, None] == one, other[:, None] == other)
    for one, other in zip(joined.trials(), own.trials(), strict=True):
        assert (one.protocol, one.rule) == (other.protocol, other.rule)
        assert torch.equal(one.gallery, other.gallery)


def test_what_is_unknown_stays_unknown() -> None:
    joined = union(second="odd(camera_unknown=true)")
    records = joined.train().visible
    assert (records.camera < 0).sum() == len(Odd().train().visible)
    blind = union(second="toy(seed=1, blind=true)")
    assert blind.identity(blind.train().visible) is None
    assert blind.identity(blind.test().visible) is not None
    some = union(second="odd(person_unknown=true)")  # not one of the first dataset's twelve people
    own = some.identity(some.train().visible)[-len(Odd().train().visible) :]
    assert own.unique().tolist() == [-1, 14, 15]
    with pytest.raises(DataError, match="is not a visible image of this union"):
        joined.identity(Toy().train().visible)


def test_tracklets_stay_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines = "v.png,visible,0,1,train,2\nw.png,visible,0,1,train,\ni.png,infrared,0,2,train,7\n"
        (tmp_path / f"{name}.csv").write_text("path,modality,identity,camera,split,tracklet\n" + lines)
    roots = f"{tmp_path}/a.csv:{tmp_path}/b.csv"
    joined = union(first="manifest", second="manifest", root=roots)
    assert joined.train().visible.tracklet.tolist() == [2, -1, 5, -1]
    assert joined.train().infrared.tracklet.tolist() == [7, 15]
    assert joined.train().visible.camera.tolist() == [1, 1, 4, 4]


def test_the_fingerprint_is_of_both_and_of_what_is_tested() -> None:
    one = union().fingerprint()
    assert one == union().fingerprint()
    others = {union(second="toy(seed=2)"), union(first="toy(seed=3)"), union(tested="second")}
    assert one not in {other.fingerprint() for other in others}
    assert len({other.fingerprint() for other in others}) == 3
    source, again = union().train().visible.source, union(second="toy(seed=2)").train().visible.source
    assert source.fingerprint() != again.fingerprint()
    assert len(source) == len(union().train().visible)


def test_folders_come_by_one_option(trees: dict[str, Path]) -> None:
    """``--data A:B``, through the recipe and back from its text."""
    roots = f"{trees['sysu_mm01']}:{trees['regdb']}"
    recipe = choose(dataset="union(first='sysu_mm01', second='regdb(split=2)')", root=roots)
    assert recipe.stages == choose(dataset="sysu_mm01", root="x").stages  # SYSU-MM01's settings
    dataset = compose(recipe).dataset
    people = dataset.identity(dataset.train().visible).unique()
    assert dataset.trials()[0].protocol == "all-search single-shot"
    assert len(people) > len(Toy().identity(Toy().train().visible).unique())
    one = registry.build("datasets", f"union(first='sysu_mm01', second='toy', root='{trees['sysu_mm01']}')")
    assert len(one.train().visible) > len(Toy().train().visible)
    assert any(note.startswith("first: train: ") for note in one.notes())


def test_a_union_within_a_union_hands_its_folders_on(trees: dict[str, Path]) -> None:
    inner = "union(first='regdb', second='toy(seed=1)')"
    here = {"Regdb": trees["regdb"], "Toy": None, "SysuMm01": trees["sysu_mm01"]}
    for order in (["Regdb", "Toy", "SysuMm01"], ["SysuMm01", "Regdb", "Toy"]):
        pair = (inner, "sysu_mm01") if order[0] == "Regdb" else ("sysu_mm01", inner)
        roots = ":".join(str(here[name]) for name in order if here[name])
        members = union(first=pair[0], second=pair[1], root=roots).members()
        assert [type(member).__name__ for member in members] == order
        assert all(
            str(getattr(member, "root", None)) == str(here[name]) for member, name in zip(members, order, strict=True)
        )


def test_three_datasets_joined_keep_the_contract() -> None:
    joined = union(first="union(first='toy(seed=1)', second='toy(seed=2)')", second="toy(seed=3)")
    check_dataset(joined)
    assert len(joined.train().visible) == sum(len(Toy(seed=seed).train().visible) for seed in (1, 2, 3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"second": "toy"}, "toy and toy are one dataset"),
        ({"second": "sysu_mm01"}, r"a folder each, here 1 \(--data /data/sysu_mm01\); got 0: ''"),
        ({"first": "regdb", "second": "llcm", "root": "/a"}, r"here 2 \(--data /data/regdb:/data/llcm\); got 1: '/a'"),
        ({"root": "/a"}, "a folder each, here none; got 1: '/a'"),
        ({"first": "regdb(split=1)", "second": "regdb(split=2)", "root": "/a:/a/"}, "are one dataset"),
        ({"second": "toyy"}, "no dataset 'toyy'; did you mean 'toy'"),
        ({"second": "union(first='toy(seed=1)', second='toy')"}, r"toy and union\(.*\) hold one dataset: people would"),
        ({"second": "union(first='toy(seed=1)')"}, "union: option 'second' is required"),
        ({"second": "union(first='regdb', second='llcm')"}, r"here 2 \(--data /data/regdb:/data/llcm\); got 0"),
        ({"tested": "third"}, "tested must be 'first' | 'second'"),
    ],
)
def test_what_can_not_be_joined_is_refused_before_any_work(options: dict[str, str], words: str) -> None:
    with pytest.raises(ReidassocError, match=words) as caught:
        union(**options)
    assert "\n" not in str(caught.value)


def test_a_split_that_was_trained_on_is_not_tested() -> None:
    trained = union(second="regdb(split=1)", root="/data")
    for other in (
        registry.build("datasets", "regdb(root='/data', split=2)"),
        union(second="regdb(split=2)", root="/d"),
    ):
        with pytest.raises(RecipeError, match="the run trained on split 1; split 2 tests identities"):
            refuse_leak(other, trained)
    refuse_leak(registry.build("datasets", "regdb(root='/data', split=1)"), trained)


def test_the_trained_datasets_options_stay_unless_another_is_named() -> None:
    trained = Spec.parse("regdb(root='/data', split=3)")
    for dataset, root, wanted in (
        (None, None, "regdb(root='/data', split=3)"),
        (None, "/mnt", "regdb(root='/mnt', split=3)"),
        ("regdb", "/mnt", "regdb(root='/mnt', split=3)"),
        ("regdb(split=1)", None, "regdb(root='/data', split=1)"),
        ("llcm", "/mnt", "llcm(root='/mnt')"),
    ):
        assert str(asked_for(trained, dataset, root)) == wanted
