"""The two-stream network: parity with the published ones, its streams, its options."""

from __future__ import annotations

import re
import zlib
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidassoc.engine.devices.device import open_device
from reidassoc.engine.setup import build_network, translate
from reidassoc.errors import DeviceError
from reidassoc.recipe.compose import compose
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.override import override
from reidassoc.weights import load_into
from reidassoc_plugins.networks.non_local import NonLocal
from reidassoc_plugins.networks.parts import FIRST, OWN, SECOND, PartHeads
from reidassoc_plugins.networks.pooling import generalised_mean
from reidassoc_plugins.networks.two_stream import TwoStream

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
OPTIONS = {"mult": {}, "salcr": {"parts": 3}, "agw": {"non_local": True}}


def published_state(name: str) -> dict[str, Tensor]:
    """The weights by rule, under the published keys: see golden/network/README.md."""
    state = {}
    for line in (GOLDEN / "network" / f"state_dict_{name}.txt").read_text().splitlines():
        key, _, shape_text = line.partition(" ")
        shape = tuple(int(n) for n in re.findall(r"\d+", shape_text))
        unused = re.match(r"(visible|thermal)_module\.\w+\.layer", key)  # a third of the numbers, and ignored anyway
        state[key] = torch.empty(shape) if unused else by_rule(key, shape)
    return state


def by_rule(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    x = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        x *= np.float32(0.5 * np.sqrt(2 / np.prod(shape[1:])))
    else:
        x *= np.float32(0.1)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        x = np.abs(x) + np.float32(1)
    return torch.from_numpy(x)


@pytest.mark.parametrize("name", OPTIONS)
def test_computes_what_the_published_network_computes(name: str) -> None:
    plugin = TwoStream(weights="none", **OPTIONS[name])
    network = plugin.build(size=(288, 144)).eval()
    load_into(network, published_state(name), [plugin.layouts[name]], source=name)
    random = np.random.RandomState(0)
    images = {
        stream: torch.from_numpy(random.standard_normal((2, 3, 288, 144)).astype(np.float32) * np.float32(0.5))
        for stream in ("visible", "infrared")
    }
    with torch.inference_mode():
        outputs = network(images)
    with np.load(GOLDEN / "network" / f"network_{name}.npz") as golden:
        for stream, output in outputs.items():
            found = {"pooled": output.pooled, "feature": F.normalize(output.z)}
            if plugin.parts:
                joined = torch.cat([output.parts[stream, stream].flatten(1), output.z], dim=1)
                found["parts_and_global"] = F.normalize(joined)
            expected = {key.removeprefix(f"{stream}_") for key in golden if key.startswith(stream)}
            assert "feature" in expected
            for what in expected:
                np.testing.assert_allclose(found[what].numpy(), golden[f"{stream}_{what}"], rtol=0, atol=1e-4)


def test_part_heads_compute_what_salcr_computes() -> None:
    with np.load(GOLDEN / "s0" / "salcr_parts.npz") as golden:
        heads = PartHeads(3, 2048)
        heads.tokens.data = torch.from_numpy(golden["part_tokens"])
        stripes = heads.stripes(torch.from_numpy(golden["feature_maps"]).float())
        located = heads.locate(stripes)
        expected = {
            "part_features": located,
            "attention": heads.attention(located, stripes),
            "query_part_features": heads.ask(located, stripes),
        }
        for name, tensor in expected.items():
            np.testing.assert_allclose(tensor.detach().numpy(), golden[name], atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return TwoStream(depth=18, parts=2, non_local=True, weights="none").build(size=(64, 32))


def some_images(*streams: str, count: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {stream: torch.randn(count, 3, 64, 32, generator=generator) for stream in streams}


@pytest.mark.parametrize(
    "streams", [("visible",), ("infrared",), ("augmented", "infrared"), ("infrared", "visible", "augmented")]
)
def test_a_stream_is_computed_alike_whichever_others_are_there(small: nn.Module, streams: tuple[str, ...]) -> None:
    small.eval()
    images = some_images("visible", "augmented", "infrared")
    with torch.inference_mode():
        all_of_them = small(images)
        some = small({stream: images[stream] for stream in streams})
    assert set(some) == set(streams)
    for stream in streams:
        torch.testing.assert_close(some[stream].z, all_of_them[stream].z, rtol=1e-4, atol=1e-4)
        assert some[stream].z.shape == some[stream].pooled.shape == (3, small.width)
        assert some[stream].map is not None
        assert some[stream].map.shape == (3, 512, 4, 2)  # stride 16: the last stage keeps its resolution
        assert set(some[stream].parts) == {(stream, stream)}


def test_training_on_three_streams_gives_the_nine_pairs_of_parts(small: nn.Module) -> None:
    small.train()
    outputs = small(some_images("visible", "augmented", "infrared"))
    pairs = {pair: f for output in outputs.values() for pair, f in output.parts.items()}
    assert set(pairs) == {*OWN, *FIRST, *SECOND}
    assert all(f.shape == (3, 2, 512) for f in pairs.values())
    assert all(pair[0] == stream for stream, output in outputs.items() for pair in output.parts)
    sum(f.square().sum() for f in pairs.values()).backward()
    assert small.heads.tokens.grad is not None
    assert small.heads.tokens.grad.abs().sum() > 0
    assert small.neck.bias.grad is None
    small.zero_grad()


def test_a_query_reads_the_map_of_the_stream_that_it_names() -> None:
    heads = PartHeads(2, 8).train()
    heads.neck.eval()  # its joint statistics would carry a change to every row
    maps = {stream: torch.rand(4, 8, 4, 2) for stream in ("visible", "augmented", "infrared")}
    before = heads(maps)
    after = heads({**maps, "augmented": torch.rand(4, 8, 4, 2)})
    changed = {pair for pair in before if not torch.allclose(before[pair], after[pair])}
    assert changed == {pair for pair in (*OWN, *FIRST, *SECOND) if "augmented" in pair}


def test_streams_of_different_sizes_query_only_their_own_maps() -> None:
    heads = PartHeads(2, 8).train()
    sizes = {"visible": 4, "augmented": 4, "infrared": 3}
    assert set(heads({stream: torch.rand(n, 8, 4, 2) for stream, n in sizes.items()})) == set(OWN)


def test_batch_norm_statistics_are_joint_over_the_streams(small: nn.Module) -> None:
    small.train()
    outputs = small(some_images("visible", "augmented", "infrared"))
    pooled = torch.cat([output.pooled for output in outputs.values()])
    z = torch.cat([output.z for output in outputs.values()])
    expected = F.batch_norm(pooled, None, None, small.neck.weight, small.neck.bias, training=True)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)


def test_channels_last_changes_nothing_but_the_layout(small: nn.Module) -> None:
    small.eval()
    images = some_images("visible", "infrared")
    with torch.inference_mode():
        plain = small(images)
        small.to(memory_format=torch.channels_last)
        last = small({s: x.contiguous(memory_format=torch.channels_last) for s, x in images.items()})
        small.to(memory_format=torch.contiguous_format)
    for stream in images:
        assert last[stream].map.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last[stream].z, plain[stream].z, rtol=1e-4, atol=1e-4)


def test_unknown_and_missing_streams_are_refused(small: nn.Module) -> None:
    with pytest.raises(ValueError, match="visible, augmented, infrared, got thermal"):
        small(some_images("thermal"))
    with pytest.raises(ValueError, match="got none"):
        small({})


def test_images_too_small_for_the_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        TwoStream(parts=3, weights="none").build(size=(16, 16))


def test_it_gives_parts_only_if_it_has_them() -> None:
    assert TwoStream(parts=3).gives == {"parts"}
    assert TwoStream().gives == frozenset()


def test_a_non_local_block_is_the_published_formula_and_starts_as_the_identity() -> None:
    block = NonLocal(5).eval()
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(block(x), x)
    nn.init.normal_(block.norm.weight)
    theta, phi, g = (conv(x).flatten(2) for conv in (block.theta, block.phi, block.g))
    attended = (theta.transpose(1, 2) @ phi / 12) @ g.transpose(1, 2)
    expected = x + block.norm(block.expand(attended.transpose(1, 2).view(2, 1, 3, 4)))
    torch.testing.assert_close(block(x), expected)


def test_generalised_mean_has_a_gradient_where_a_channel_is_dead() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    generalised_mean(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_channels_last_is_the_same_network_in_another_layout() -> None:
    fabric, images = open_device("cpu"), {"visible": torch.randn(3, 3, 64, 32)}
    said = []
    for last in (False, True):
        recipe = override(
            load_recipe("mult/synthetic"),
            [("channels_last", last), ("network", "two_stream(depth=18, weights='none')")],
        )
        network = build_network(compose(recipe).network, recipe, fabric).eval()
        wide = [p for p in network.parameters() if p.ndim == 4 and min(p.shape[:2]) > 1 and p.shape[2] > 1]
        assert all(p.is_contiguous(memory_format=torch.channels_last) is last for p in wide)
        said.append(network(images)["visible"].z)
    torch.testing.assert_close(*said, rtol=1e-3, atol=1e-4)


def test_a_compiled_network_says_the_same_under_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, not translated: that takes a minute. Weights keep their names, and a second call takes the same graph."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    fabric, images = open_device("cpu"), {"visible": torch.randn(4, 3, 64, 32), "infrared": torch.randn(4, 3, 64, 32)}
    said, names = [], []
    for compiled in (False, True):
        recipe = override(load_recipe("mult/synthetic"), [("compile", compiled), ("network", "tiny(width=16)")])
        network = build_network(compose(recipe).network, recipe, fabric)
        translate(network, recipe)
        said.append(network(images)["infrared"].z)
        names.append(list(network.state_dict()))
    assert torch.equal(*said)
    assert names[0] == names[1]


def test_compiling_without_a_compiler_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    recipe = override(load_recipe("mult/synthetic"), [("compile", True)])
    with pytest.raises(DeviceError, match=r"compile: true takes a C\+\+ compiler; install g\+\+"):
        translate(nn.Linear(2, 2), recipe)
