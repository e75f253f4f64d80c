"""Batch norm as on N GPUs: against DataParallel done by hand, and against the real one where it can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import reidassoc as ra
from reidassoc.engine import step
from reidassoc.engine.devices.as_gpus import chunks, refuse_uneven, replicated
from reidassoc.errors import RecipeError
from reidassoc.interfaces.plugins import NetworkOutput
from reidassoc.recipe.choose import choose
from reidassoc.recipe.compose import compose
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.result import flags
from reidassoc.types import STREAMS
from reidassoc_plugins.networks.tiny import Tiny
from reidassoc_plugins.networks.two_stream import TwoStream

CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
NETWORKS = {"tiny": Tiny(width=16, channels=4, parts=3), "two_stream": TwoStream(depth=18, weights="none", parts=3)}


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name].build(size=(48, 16)).double()
    return network.train()


def some_images(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {stream: torch.randn(rows, 3, 48, 16, dtype=torch.float64, generator=generator) for stream in STREAMS}


def a_loss(outputs: Mapping[str, NetworkOutput]) -> Tensor:
    """Depends on every output of every row, and on rows of different chunks together."""
    terms = []
    for number, output in enumerate(outputs.values(), start=1):
        assert output.map is not None
        weight = torch.arange(1.0, len(output.z) + 1, dtype=output.z.dtype, device=output.z.device)
        for x in (output.z, output.pooled, output.map, *output.parts.values()):
            terms.append((x.flatten(1).sin().sum(1) * weight).sum() * number + (x[0] * x[-1]).sum())
    return torch.stack(terms).sum()


def by_hand(
    network: nn.Module, images: Mapping[str, Tensor], count: int
) -> tuple[dict[str, NetworkOutput], list[nn.Module]]:
    """DataParallel without devices: scatter every input by itself, a replica for each share, gather; replica 0 is the network."""
    shares = [
        dict(zip(images, cut, strict=True)) for cut in zip(*(x.chunk(count) for x in images.values()), strict=True)
    ]
    replicas = [network, *(deepcopy(network) for _ in shares[1:])]
    outputs = [replica(share) for replica, share in zip(replicas, shares, strict=True)]
    gathered = {
        stream: NetworkOutput(
            *(torch.cat([getattr(o[stream], key) for o in outputs]) for key in ("z", "pooled", "map")),
            {pair: torch.cat([o[stream].parts[pair] for o in outputs]) for pair in outputs[0][stream].parts},
        )
        for stream in images
    }
    return gathered, replicas


@pytest.mark.parametrize(
    ("name", "groups", "rows"), [("tiny", 2, 6), ("tiny", 3, 8), ("tiny", 4, 9), ("two_stream", 2, 5)]
)
def test_it_is_data_parallel_on_so_many_devices(name: str, groups: int, rows: int) -> None:
    network = network_of(name)
    expected, images = deepcopy(network), some_images(rows)
    found = replicated(network, images, groups)
    wanted, replicas = by_hand(expected, images, groups)
    for stream in STREAMS:
        for key in ("z", "pooled", "map"):
            torch.testing.assert_close(getattr(found[stream], key), getattr(wanted[stream], key), rtol=0, atol=1e-12)
        assert found[stream].parts.keys() == wanted[stream].parts.keys()
        for pair, part in wanted[stream].parts.items():
            torch.testing.assert_close(found[stream].parts[pair], part, rtol=0, atol=1e-12)
    a_loss(found).backward()  # type: ignore[no-untyped-call]
    a_loss(wanted).backward()  # type: ignore[no-untyped-call]
    for key, own in network.named_parameters():
        slopes = [replica.get_parameter(key).grad for replica in replicas]
        if own.grad is None:
            assert slopes == [None] * len(replicas), key
        else:  # what DataParallel's backward adds up
            torch.testing.assert_close(own.grad, sum(slopes), rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]
    before = dict(network_of(name).named_buffers())
    for (key, own), other in zip(network.named_buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12, msg=key)
        if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert not torch.equal(own, before[key]), key  # replica 0 has seen its chunk, once


def test_the_joined_batch_cut_in_chunks_would_be_another_thing() -> None:
    images = some_images(6)
    grouped = replicated(network_of("two_stream"), images, 2)
    assert not torch.allclose(grouped["visible"].z, replicated(network_of("two_stream"), images, 1)["visible"].z)
    changed = {**images, "infrared": torch.cat([images["infrared"][:3], images["infrared"][3:].flip(1)])}
    again = replicated(network_of("two_stream"), changed, 2)
    torch.testing.assert_close(again["visible"].z[:3], grouped["visible"].z[:3])  # group 0 has its infrared images only
    assert not torch.allclose(again["visible"].z[3:], grouped["visible"].z[3:])


def test_chunks_are_torch_s() -> None:
    for count in range(1, 20):
        for groups in range(1, 8):
            cut = [chunk.tolist() for chunk in torch.arange(count).chunk(groups)]
            assert [list(range(count))[rows] for rows in chunks(count, groups)] == cut


@pytest.mark.parametrize("name", [pytest.param(name, marks=CUDA) for name in NETWORKS])
def test_it_is_the_real_data_parallel(name: str) -> None:
    """On one device twice: DataParallel needs no second one to scatter, replicate and gather."""

    class Listed(nn.Module):  # gather knows tensors and dicts
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
            return {stream: output.z for stream, output in self.network(images).items()}

    network = network_of(name).cuda()
    images = {stream: x.cuda() for stream, x in some_images(6).items()}
    expected = deepcopy(network)
    found = replicated(network, images, 2)
    wanted = nn.DataParallel(Listed(expected), device_ids=[0, 0])(images)
    for stream in STREAMS:
        torch.testing.assert_close(found[stream].z, wanted[stream], rtol=0, atol=1e-10)
    for own, other in zip(network.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-10)


def test_a_batch_that_can_not_be_cut_is_refused(small: Recipe, tmp_path: Path) -> None:
    refuse_uneven(override(small, [("as_gpus", 4)]))
    odd = override(small, [("as_gpus", 5), ("cross.identities", 3), ("cross.images", 2)])
    with pytest.raises(
        RecipeError, match=r"as_gpus: 5, but stage 'cross' has 6 images .* into 3 chunks, the last of 2;"
    ):
        refuse_uneven(odd)
    with pytest.raises(RecipeError, match="the last of 1;"):
        refuse_uneven(override(odd, [("as_gpus", 6)]))
    with pytest.raises(RecipeError, match=r"batch_norm: rank on 6 devices, but .* into 6 chunks, the last of 1;"):
        refuse_uneven(override(odd, [("as_gpus", 1), ("batch_norm", "rank")]), 6)
    with pytest.raises(
        RecipeError, match=r"as_gpus: 5 says how .* and so does batch_norm: rank; leave one of them out"
    ):
        refuse_uneven(override(odd, [("batch_norm", "rank")]))
    with pytest.raises(RecipeError, match="as_gpus: 5"):
        ra.run(odd, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match=r"^as_gpus=0: expected at least 1, got 0$"):
        choose(as_gpus=0)


def test_a_result_says_as_how_many_gpus(small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(network: nn.Module, images: Mapping[str, Tensor], groups: int) -> dict[str, NetworkOutput]:
        asked.append(groups)
        return replicated(network, images, groups)

    monkeypatch.setattr(step, "replicated", spy)
    quick = [
        ("intra.epochs", 1),
        ("cross.epochs", 1),
        ("intra.iterations", 1),
        ("cross.iterations", 1),
        ("batch_norm_gpus", 2),
    ]
    result = ra.run(override(small, [*quick, ("as_gpus", 2)]), out=tmp_path / "run", device="cpu")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["setting"]["batch_norm_groups"] == 2
    assert result.data["flags"] == []
    assert asked == [2, 2]
    for count, here in ((1, "one device"), (3, "3 GPUs")):
        other = compose(override(small, [*quick, ("as_gpus", count)]))
        assert flags(other, count) == [f"published with 2 GPUs; batch-norm statistics here are of {here}"]


def test_older_runs_keep_their_hash() -> None:
    """Before there was such a key, a recipe meant joint statistics."""
    import hashlib

    recipe = load_recipe("mult/regdb")
    older = recipe.to_yaml()
    for line in (
        "as_gpus: 1\n",
        "batch_norm: sync\n",
        "channels_last: false\n",
        "compile: false\n",
        "ema: 0.0\n",
        "memory_limit: null\n",
    ):
        assert line in older
        older = older.replace(line, "")
    assert recipe.digest == hashlib.sha256(older.encode()).hexdigest()[:16]
    other = recipe.model_copy(update={"as_gpus": 2})
    assert other.digest != recipe.digest
    assert other.prefix_digest(1) != recipe.prefix_digest(1)
    assert recipe.model_copy(update={"batch_norm": "rank"}).digest != recipe.digest


@pytest.mark.parametrize(
    ("name", "count"),
    [(f"{method}/{data}", count) for method, count in {"mult": 2, "salcr": 1, "mmm": 1, "adca": 4, "pgm": 4}.items()
     for data in ("sysu_mm01", "regdb", "llcm")],
)  # fmt: skip
def test_published_recipes_carry_the_count_of_their_figures(name: str, count: int) -> None:
    recipe = load_recipe(name)
    assert recipe.batch_norm_gpus == count
    refuse_uneven(recipe.model_copy(update={"as_gpus": count}))
