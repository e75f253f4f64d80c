"""The synthetic dataset: SYSU-MM01's protocols in memory, the same as from its exported tree."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from reidassoc import registry
from reidassoc.data.export import export
from reidassoc.errors import SpecError
from reidassoc.types import Modality
from reidassoc_plugins.datasets.pedestrians.world import SIZES
from reidassoc_plugins.datasets.synthetic import Drawn, Synthetic
from reidassoc_plugins.datasets.sysu_mm01 import SysuMm01


def test_a_run_from_memory_equals_one_from_the_exported_tree(tmp_path: Path) -> None:
    memory = Synthetic(size="tiny", identities=4)
    count = export(memory, tmp_path / "tree", layout="sysu_mm01")
    disk = SysuMm01(root=tmp_path / "tree")
    assert count == sum(len(records) for records in (*memory.train(), *memory.test()))
    for ours, theirs in ((memory.train(), disk.train()), (memory.test(), disk.test())):
        for modality in Modality:
            one, other = ours[modality], theirs[modality]
            assert one.names == other.names
            assert one.camera.equal(other.camera)
            ids, known = memory.identity(one), disk.identity(other)
            assert ids is not None
            assert known is not None
            assert ids.equal(known)
            for row in range(0, len(one), 7):
                assert np.array_equal(one.source.load(row), other.source.load(row))
    for one_trial, other_trial in zip(memory.trials(), disk.trials(), strict=True):
        assert one_trial.protocol == other_trial.protocol
        assert one_trial.gallery.equal(other_trial.gallery)
        assert one_trial.query.equal(other_trial.query)


def test_sizes_and_overrides() -> None:
    tiny = Synthetic(size="tiny")
    assert tiny.world == SIZES["tiny"]
    assert len(tiny.train().visible) == 16 * 8
    changed = Synthetic(size="tiny", seed=3, identities=5, test_identities=4, images=6, jitter=0.5, height=32, width=16)
    assert (changed.world.train_identities, changed.world.seed, changed.world.jitter) == (5, 3, 0.5)
    assert len(changed.train().infrared) == 5 * 6
    assert changed.train().visible.source.load(0).shape == (32, 16, 3)
    few = Synthetic(size="tiny", visible_cameras=(1, 2), infrared_cameras=(6,)).train()
    assert (set(few.visible.camera.tolist()), set(few.infrared.camera.tolist())) == ({1, 2}, {6})


def test_the_size_of_sysu_has_its_counts_and_shrinks_in_proportion() -> None:
    full = Synthetic(size="sysu")
    train, test = full.train(), full.test()
    assert (len(train.visible), len(train.infrared)) == (22258, 11909)
    assert (len(test.visible), len(test.infrared)) == (6775, 3803)
    part = Synthetic(size="sysu", identities=79)
    assert len(part.train().visible) == 22258 * 79 // 395
    assert len(part.test().visible) == 6775
    assert len(Synthetic(size="sysu", identities=10, images=3).train().visible) == 30


def test_people_seen_in_one_modality_only() -> None:
    dataset = Synthetic(size="tiny", unpaired=0.5)
    visible, infrared = (dataset.identity(records) for records in dataset.train())
    assert visible is not None
    assert infrared is not None
    alone = set(visible.tolist()) ^ set(infrared.tolist())
    assert len(alone) == 8


def test_the_fingerprint_follows_the_options() -> None:
    plain = Synthetic(size="tiny")
    assert plain.fingerprint() == Synthetic(size="tiny").fingerprint()
    others = [Synthetic(size="tiny", seed=1), Synthetic(size="tiny", noise=0.5), Synthetic(size="tiny", identities=15)]
    assert len({plain.fingerprint(), *(other.fingerprint() for other in others)}) == 4
    assert Drawn(plain.world, [(1, 1, 1)]).fingerprint() != Drawn(plain.world, [(1, 2, 1)]).fingerprint()
    assert len(Drawn(plain.world, []).mark()) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=small", "size must be 'tiny' | 'default' | 'sysu', got 'small'"),
        ("gap=1.5", "gap must be float | none ≥ 0 and ≤ 1, got 1.5"),
        ("jiter=0.1", "no option 'jiter'; did you mean 'jitter'?"),
        ("visible_cameras=(3,)", "visible_cameras must be some of (1, 2, 4, 5), got (3,)"),
        ("infrared_cameras=(1,)", "cameras"),
        ("identities=6000", "synthetic: identities must be int | none ≥ 1 and < 5001, got 6000"),
    ],
)
def test_wrong_options_stop_before_any_work(options: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        registry.build("datasets", f"synthetic({options})")
    assert message in str(error.value)


def test_the_pictures_are_the_same_on_every_machine() -> None:
    """A change of any pixel changes what every stored run was trained on."""
    tiny = Synthetic(size="tiny")
    digest = hashlib.sha256()
    for records in (*tiny.train(), *tiny.test()):
        for row in range(len(records)):
            digest.update(records.source.load(row).tobytes())
    assert digest.hexdigest() == "b627bbdc4b10044059adedfa2c5cb17a7c2bef1cd67923fddf356baaf38500b3"
    sampled = {size: Synthetic(size=size).fingerprint() for size in ("default", "sysu")}
    assert sampled == {"default": "25f0060109b9577d", "sysu": "ee715d554e73f846"}


def test_no_two_pictures_are_the_same() -> None:
    records = Synthetic(size="tiny").train().visible
    assert len({records.source.load(row).tobytes() for row in range(0, len(records), 3)}) == len(
        range(0, len(records), 3)
    )
