"""The vision transformer: parity with timm's own, its streams, its weights, and what it says without them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from support.small import SMALL
from torch import Tensor, nn

from reidassoc.cli import main
from reidassoc.engine.run import run
from reidassoc.errors import CheckpointError, DataError, PluginError, RecipeError, SpecError
from reidassoc.runs.folder import RunFolder
from reidassoc_plugins.networks.vit import Vit

SIZE = (64, 32)
STREAMS = ("visible", "augmented", "infrared")
small = partial(Vit, backbone="test_vit", weights="none")


@pytest.fixture(scope="module")
def images() -> Mapping[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {stream: torch.randn(3, 3, *SIZE, generator=generator) for stream in STREAMS}


def plain(size: tuple[int, int] = SIZE, **options: Any) -> nn.Module:
    torch.manual_seed(5)
    return timm.create_model("test_vit", img_size=size, **options).eval()


@pytest.mark.parametrize("feature", ["token", "gem", "mean"])
def test_each_stream_is_what_timm_computes(tmp_path: Path, images: Mapping[str, Tensor], feature: str) -> None:
    model = plain()
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    network = small(feature=feature, weights=str(tmp_path / "vit.pth")).build(size=SIZE).eval()
    with torch.inference_mode():
        found = network(images)
        for stream, x in images.items():
            tokens = model.forward_features(x)
            patches = tokens[:, 1:]
            expected = {
                "token": tokens[:, 0],
                "gem": (patches.clamp(min=0).pow(3).mean(1) + 1e-12).pow(1 / 3),
                "mean": patches.mean(1),
            }[feature]
            torch.testing.assert_close(found[stream].pooled, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[stream].z, expected / (1 + 1e-5) ** 0.5, rtol=1e-4, atol=1e-5)
            assert found[stream].map.shape == (3, 64, 4, 2)
            torch.testing.assert_close(found[stream].map[:, :, 1, 0], patches[:, 2], rtol=1e-4, atol=1e-5)


def test_visible_and_augmented_share_a_stem_and_infrared_has_its_own(images: Mapping[str, Tensor]) -> None:
    network = small().build(size=SIZE).eval()
    assert len({p.shape for p in network.stems["visible"].parameters()}) == 2
    with torch.no_grad():
        before = network(images)
        network.stems["visible"].proj.bias += 1
        after = network(images)
    changed = {stream for stream in STREAMS if not torch.allclose(before[stream].z, after[stream].z)}
    assert changed == {"visible", "augmented"}


def test_batch_norm_statistics_are_joint_and_all_blocks_learn(images: Mapping[str, Tensor]) -> None:
    network = small(parts=2).build(size=SIZE).train()
    outputs = network(images)
    z = torch.cat([output.z for output in outputs.values()])
    torch.testing.assert_close(z.mean(0), torch.zeros(64), rtol=0, atol=1e-5)
    assert {pair for output in outputs.values() for pair in output.parts} >= {("visible", "augmented")}
    (z.pow(3).sum() + sum(x.square().sum() for o in outputs.values() for x in o.parts.values())).backward()
    still = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not still
    assert network.neck.bias.grad is None


def test_unknown_streams_are_refused(images: Mapping[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="visible, augmented, infrared, got thermal"):
        small().build(size=SIZE)({"thermal": images["visible"]})


def test_position_embeddings_are_resized_for_288_by_144() -> None:
    network = small().build(size=(288, 144))
    assert network.grid == (18, 9)
    assert network.body.pos_embed.shape == (1, 1 + 18 * 9, 64)


def test_a_file_of_a_square_transformer_is_resized(tmp_path: Path) -> None:
    model = plain((160, 160), num_classes=7)
    with torch.no_grad():  # a ramp from left to right: resizing keeps it one
        model.pos_embed[:, 1:] = torch.arange(10).repeat(10).view(1, 100, 1)
    torch.save({"model": model.state_dict()}, tmp_path / "square.pth")
    network = small(weights=str(tmp_path / "square.pth")).build(size=(160, 80))
    rows = network.body.pos_embed[0, 1:, 0].view(10, 5)
    torch.testing.assert_close(rows, rows[:1].expand(10, 5))
    assert bool((rows[0].diff() > 1.5).all())
    for stem in network.stems.values():
        assert torch.equal(stem.proj.weight, model.patch_embed.proj.weight)
    assert torch.equal(network.body.blocks[5].mlp.fc2.weight, model.blocks[5].mlp.fc2.weight)


def test_a_prefix_of_a_plain_transformer_is_taken_off(tmp_path: Path) -> None:
    model = plain()
    torch.save({f"base.{key}": tensor for key, tensor in model.state_dict().items()}, tmp_path / "base.pth")
    network = small(weights=str(tmp_path / "base.pth")).build(size=SIZE)
    assert torch.equal(network.body.blocks[5].mlp.fc2.weight, model.blocks[5].mlp.fc2.weight)


def test_own_weights_come_back(tmp_path: Path) -> None:
    network = small(parts=2).build(size=SIZE)
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.copy_(torch.rand(tensor.shape))
    safetensors.torch.save_file(network.state_dict(), tmp_path / "own.safetensors")
    again = small(parts=2, weights=str(tmp_path / "own.safetensors")).build(size=SIZE).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in network.state_dict().items())


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    model = plain()
    state = {key: tensor for key, tensor in model.state_dict().items() if "blocks.3.attn.proj" not in key}
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"less\.pth does not fit .* 2 missing \(blocks\.3\.attn\.proj\.weight"):
        small(weights=str(tmp_path / "less.pth")).build(size=SIZE)
    torch.save({"stems.visible.conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"resnet\.pth does not fit"):
        small(weights=str(tmp_path / "resnet.pth")).build(size=SIZE)


def test_imagenet_weights_are_what_timm_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own loading, from a file instead of its hub."""
    model = plain((160, 160))
    torch.save(model.state_dict(), tmp_path / "cached.pth")
    here = partial(timm.create_model, pretrained_cfg_overlay={"file": str(tmp_path / "cached.pth")})
    monkeypatch.setattr(timm, "create_model", here)
    network = small(weights="imagenet").build(size=SIZE)
    assert network.body.pos_embed.shape == (1, 9, 64)
    for stem in network.stems.values():
        assert torch.equal(stem.proj.weight, model.patch_embed.proj.weight)
    assert torch.equal(network.body.norm.weight, model.norm.weight)


def test_without_a_connection_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        DataError, match=r"could not be loaded .*timm/test_vit\.r160_in1k .*--weights FILE.*none"
    ) as caught:
        small(weights="imagenet").build(size=SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("plugin", "size", "error", "words"),
    [
        (small(backbone="test_vitt"), SIZE, SpecError, "did you mean 'test_vit'"),
        (small(backbone="resnet18"), SIZE, SpecError, "no plain transformer 'resnet18'"),
        (small(backbone="test_vit.nope"), SIZE, SpecError, "tags of test_vit: r160_in1k"),
        (small(backbone="vit_tiny_patch16_224", feature="gem"), (15, 32), RecipeError, "too small for patches of 16 x 16"),
        (small(parts=9), SIZE, RecipeError, r"vit\(parts=9\): images of 64 x 32 pixels are too small"),
        (small(weights="absent.pt"), SIZE, CheckpointError, "no weights file absent.pt"),
    ],
    ids=lambda value: getattr(value, "backbone", ""),
)  # fmt: skip
def test_what_can_not_be_built_is_named(plugin: Vit, size: tuple[int, int], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plugin.build(size=size)


def test_a_transformer_without_class_token_is_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, class_token=False))
    with pytest.raises(SpecError, match="no class token; take feature='gem'"):
        small().build(size=SIZE)
    assert small(feature="gem").build(size=SIZE).body.num_prefix_tokens == 0


def test_without_timm_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PluginError, match=r"network vit needs a package .*timm"):
        small().build(size=SIZE)
    what = ["--network", "vit", "--dataset", "synthetic(size='tiny')", "--device", "cpu", "--out", str(tmp_path / "r")]
    monkeypatch.setattr(sys, "argv", ["reidassoc", "run", *what])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert line.endswith("next: pip install 'reidassoc[vit]'")


def test_it_trains_through_both_stages(tmp_path: Path) -> None:
    network, changes = "vit(backbone='test_vit', weights='none')", {**dict(SMALL), "intra.epochs": 1, "cross.epochs": 1}
    dataset = "synthetic(size='tiny')"
    result = run("mult", network=network, dataset=dataset, changes=changes, out=tmp_path / "r", device="cpu")
    assert [row["stage"] for row in RunFolder(tmp_path / "r").metrics] == ["intra", "cross"]
    assert 0 < result.protocols["all-search single-shot"]["mAP"]["mean"] <= 100
    files = sorted((tmp_path / "r" / "checkpoints").glob("*.pt"))
    first, last = (torch.load(file, weights_only=True)["network"] for file in files)  # after either stage
    blocks = [name for name in first if name.endswith("attn.qkv.weight")]
    assert blocks
    assert all(not torch.equal(first[name], last[name]) for name in blocks)


def test_it_gives_parts_only_if_it_has_them() -> None:
    assert Vit(parts=3).gives == {"parts"}
    assert Vit().gives == frozenset()
