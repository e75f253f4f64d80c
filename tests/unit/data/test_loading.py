"""How batches are drawn, planned and augmented: on the host, each the same whenever it is made."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from reidassoc.data import transforms
from reidassoc.data.loader import ahead, plan_feeds
from reidassoc.data.samplers import Sampler, rows_by_label
from reidassoc.data.transforms import (
    ERASED,
    augment,
    beta_half,
    cropped,
    draw,
    exchanged,
    hue_rotated,
    inside,
    jittered,
    normalise,
    rectangles,
)
from reidassoc.interfaces.banks import Bank
from reidassoc.interfaces.plugins import Sampling
from reidassoc.recipe.model import Augmentation
from reidassoc.types import Modality, Pair, SoftLabels, Targets

V, R = Modality.VISIBLE, Modality.INFRARED


def targets(own: Pair[list[int]], cross: Pair[list[int]]) -> Targets:
    count = Pair.build(lambda m: max([*own[m], *cross[m.other], -1]) + 1)
    table = {}
    for m in Modality:
        table[m, str(m)] = SoftLabels.one_hot(torch.tensor(own[m], dtype=torch.int64), count[m])
        table[m, str(m.other)] = SoftLabels.one_hot(torch.tensor(cross[m], dtype=torch.int64), count[m.other])
    return Targets(table)


@pytest.fixture
def some() -> Targets:
    own = Pair([0, 0, 1, 1, 2, 2, -1], [0, 0, 0, 1, 1, -1])
    cross = Pair([0, 0, 1, 1, -1, -1, 1], [1, 1, 1, 0, 0, 2])
    return targets(own, cross)


def test_own_sampling_draws_each_modality_by_itself(some: Targets) -> None:
    sampler = Sampler.build(some, "own", identities=2, images=4)
    rows = sampler.batch(np.random.default_rng(0))
    for m in Modality:
        labels = some.of(m, m).hard.numpy()[rows[m]]
        assert len(rows[m]) == 8
        assert sorted(np.bincount(labels)[np.bincount(labels) > 0]) == [4, 4]


def test_paired_sampling_takes_half_from_either_space_with_both_sides(some: Targets) -> None:
    sampler = Sampler.build(some, "paired", identities=4, images=2)
    for seed in range(20):
        rows = sampler.batch(np.random.default_rng(seed))
        visible = {m: some.of(m, V).hard.numpy()[rows[m][:4]] for m in Modality}  # the first half: visible space
        infrared = {m: some.of(m, R).hard.numpy()[rows[m][4:]] for m in Modality}
        assert (visible[V] == visible[R]).all()
        assert (infrared[V] == infrared[R]).all()
        assert (visible[V] >= 0).all()
        assert 2 not in infrared[R]  # an infrared label without visible sample is never drawn


def test_too_few_labels_are_drawn_twice_and_said(some: Targets) -> None:
    sampler = Sampler.build(some, "own", identities=5, images=1)
    assert sampler.short
    assert len(sampler.batch(np.random.default_rng(0)).visible) == 5
    assert not Sampler.build(some, "own", identities=2, images=1).short


def test_one_empty_space_leaves_the_whole_batch_to_the_other() -> None:
    lonely = targets(Pair([0, 0, 1], [0, 1, 1]), Pair([-1, -1, -1], [0, 0, 1]))
    sampler = Sampler.build(lonely, "paired", identities=2, images=3)
    assert sampler.usable
    assert sampler.quota() == [2, 0]
    assert len(sampler.batch(np.random.default_rng(0)).infrared) == 6
    none = targets(Pair([0, 0], [0, 0]), Pair([-1, -1], [-1, -1]))
    assert not Sampler.build(none, "paired", identities=2, images=3).usable


def test_rows_by_label_leaves_outliers_out() -> None:
    groups = rows_by_label(np.array([1, -1, 0, 1]))
    assert {label: rows.tolist() for label, rows in groups.items()} == {0: [2], 1: [0, 3]}
    assert rows_by_label(np.array([-1, -1])) == rows_by_label(np.zeros(0, dtype=np.int64)) == {}


@pytest.mark.parametrize("sampling", ["own", "paired"])
def test_a_modality_without_samples_gives_no_batch(sampling: Sampling) -> None:
    empty = targets(Pair([0, 0], []), Pair([-1, -1], []))
    assert not Sampler.build(empty, sampling, identities=2, images=3).usable


def bank(name: str, *, fed_by: tuple[str, ...], shuffled: bool = False) -> Bank:
    return Bank(name=name, space="visible", role="agnostic", start=torch.eye(3), fed_by=fed_by, shuffled=shuffled)


def test_banks_are_fed_stream_by_stream_or_shuffled(some: Targets) -> None:
    hard = {key: labels.hard.numpy() for key, labels in some.table.items()}
    rows = Pair(np.array([0, 2, 4, 0]), np.array([0, 3, 1, 4]))
    streams = ("infrared", "augmented", "visible")
    declared = [bank("plain", fed_by=streams), bank("mixed", fed_by=streams, shuffled=True), bank("frozen", fed_by=())]
    plans = plan_feeds(declared, rows, hard, np.random.default_rng(0))
    assert set(plans) == {"plain", "mixed"}
    labels = np.concatenate([hard[R, "visible"][rows.infrared], *[hard[V, "visible"][rows.visible]] * 2])
    for name, plan in plans.items():
        fed = plan[plan >= 0]
        assert sorted(fed.tolist()) == list(range(12)), name  # every row once
        for column in plan.T:
            assert len({labels[row] for row in column[column >= 0]}) == 1
    assert all((np.diff(column[column >= 0]) > 0).all() for column in plans["plain"].T.numpy())
    assert not all((np.diff(column[column >= 0]) > 0).all() for column in plans["mixed"].T.numpy())


def test_batches_made_ahead_come_in_order_and_errors_come_through() -> None:
    assert list(ahead(lambda n: n * n, 7)) == [n * n for n in range(7)]

    def fail(number: int) -> int:
        if number == 3:
            raise OSError("gone")
        return number

    failing = ahead(fail, 9)
    assert [next(failing) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(failing)
    endless: Iterator[int] = ahead(lambda n: n, 10**9)
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]  # the thread ends with it


SIZE = (16, 8)


def images(count: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_nothing_wanted_is_plain_normalisation() -> None:
    still = Augmentation(pad=0, flip=0, erase=0)
    chosen = draw(still, "visible", 64, SIZE, torch.Generator().manual_seed(0))
    torch.testing.assert_close(augment(images(), chosen, 0), normalise(images()))


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    x = images(3).float()
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    shift = torch.tensor([[0, 0], [2, 2], [4, 1]])
    out = cropped(x, shift, 2)
    for n, (top, left) in enumerate(shift.tolist()):
        assert torch.equal(out[n], padded[n, :, top : top + 16, left : left + 8])


def test_channels_are_exchanged_as_the_stream_says() -> None:
    settings = Augmentation()
    plain, augmented, infrared = (
        draw(settings, stream, 800, SIZE, torch.Generator().manual_seed(1))
        for stream in ("visible", "augmented", "infrared")
    )
    assert plain.channel is plain.grey is augmented.grey is None
    assert augmented.channel is not None
    assert infrared.channel is not None
    assert infrared.grey is not None
    assert set(augmented.channel.tolist()) == {0, 1, 2}
    assert all(abs(float((infrared.channel == c).float().mean()) - 0.25) < 0.06 for c in (-1, 0, 1, 2))
    assert abs(float(infrared.grey.float().mean()) - 0.125) < 0.05
    assert bool((infrared.channel[infrared.grey] == -1).all())
    x = torch.rand(5, 3, 4, 4)
    grey = torch.tensor([False, False, False, False, True])
    out = exchanged(x, torch.tensor([-1, 0, 1, 2, -1]), grey)
    assert torch.equal(out[0], x[0])
    for n in (1, 2, 3):
        assert torch.equal(out[n], x[n, n - 1].expand(3, 4, 4))
    assert torch.allclose(out[4], 0.299 * x[4, 0] + 0.587 * x[4, 1] + 0.114 * x[4, 2])


def test_many_images_are_augmented_piece_by_piece_to_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Augmentation(jitter=0.5, intensity=0.9)
    chosen = draw(settings, "infrared", 64, SIZE, torch.Generator().manual_seed(5))
    whole = augment(images(64), chosen, 10)
    monkeypatch.setattr(transforms, "CACHED", 7 * 3 * SIZE[0] * SIZE[1])
    assert torch.equal(augment(images(64), chosen, 10), whole)


def test_erasing_fills_one_rectangle_of_a_stated_area() -> None:
    size = (288, 144)
    boxes = rectangles(4000, size, 0.5, torch.Generator().manual_seed(0))
    erased = boxes[boxes[:, 2] > 0]
    assert abs(len(erased) / 4000 - 0.5) < 0.03
    area = (erased[:, 2] * erased[:, 3]).float() / (288 * 144)
    assert area.min() > 0.018
    assert area.max() < 0.41
    assert (erased[:, 0] + erased[:, 2] <= 288).all()
    assert (erased[:, 1] + erased[:, 3] <= 144).all()
    always = draw(Augmentation(pad=0, flip=0, erase=1), "visible", 64, SIZE, torch.Generator().manual_seed(0))
    assert always.erased is not None
    out, mask = augment(images(), always, 0), inside(always.erased, images())
    assert mask.any()
    for channel, value in enumerate(ERASED):
        assert (out[:, channel][mask[:, 0]] == value).all()
    assert torch.equal(out.where(~mask, torch.zeros(())), normalise(images()).where(~mask, torch.zeros(())))


def test_the_same_seed_draws_the_same() -> None:
    settings = Augmentation(jitter=0.5, intensity=0.9)
    one, two = (draw(settings, "infrared", 32, SIZE, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(augment(images(32), one, 10), augment(images(32), two, 10))
    other = draw(settings, "infrared", 32, SIZE, torch.Generator().manual_seed(6))
    assert not torch.equal(augment(images(32), one, 10), augment(images(32), other, 10))


def test_colour_changes_keep_their_promises() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    unchanged = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(4, 1)
    torch.testing.assert_close(jittered(x, unchanged), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(hue_rotated(x, torch.ones(4)), x, atol=1e-5, rtol=0)  # a whole turn
    grey = jittered(x, torch.tensor([[1.0, 1.0, 0.0, 0.0]]).repeat(4, 1))
    assert (grey.amax(1) - grey.amin(1)).max() < 1e-5
    torch.testing.assert_close(jittered(x, torch.tensor([[0.5, 1.0, 1.0, 0.0]]).repeat(4, 1)), x / 2, atol=1e-5, rtol=0)
    plain = draw(Augmentation(jitter=0.5, jitter_visible=False), "visible", 4, SIZE, torch.Generator())
    assert plain.colour is None


def test_the_intensity_factors_are_beta_distributed() -> None:
    x = beta_half(torch.rand(20000, generator=torch.Generator().manual_seed(0)))
    assert abs(float(x.mean()) - 0.5) < 0.02
    assert abs(float(x.var()) - 0.125) < 0.01
