"""Reading weights: what loads, what is refused, and with which words."""

from __future__ import annotations

import argparse
import io
import re
import urllib.error
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from reidassoc.errors import CheckpointError, DataError
from reidassoc.weights import LISTED, WRAPPERS, Inert, imagenet_state, load_checkpoint, load_into, read_state
from reidassoc_plugins.networks.two_stream import TwoStream

SIZE = (48, 32)


def trained(**options: Any) -> nn.Module:
    """A small network whose every tensor differs from its initial value."""
    torch.manual_seed(3)
    network = TwoStream(depth=18, weights="none", **options).build(size=SIZE)
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.copy_(torch.rand(tensor.shape))
    return network


def published(network: nn.Module, name: str) -> dict[str, Tensor]:
    """The network's tensors under the keys that its authors would have given them, with some unused ones."""
    state = {}
    for key, tensor in network.state_dict().items():
        for new, old in {
            "visible_module.visible.": "stems.visible.",
            "thermal_module.thermal.": "stems.infrared.",
            "base_resnet.base.": "shared.",
            "bottleneck.": "neck.",
            "attn_pool.part_tokens": "heads.tokens",
            "bottleneck_part.": "heads.neck.",
        }.items():
            if key.startswith(old):
                state[new + key.removeprefix(old)] = tensor
        if key.startswith("non_local."):
            _, layer, number, part, leaf = key.split(".")
            part = {"g": "g.0", "expand": "W.0", "norm": "W.1"}.get(part, part)
            state[f"NL_{layer[-1]}.{number}.{part}.{leaf}"] = tensor
    state["visible_module.visible.layer1.0.conv1.weight"] = torch.zeros(1)
    state["thermal_module.thermal.fc.weight"] = torch.zeros(1)
    state["base_resnet.base.conv1.weight"] = torch.zeros(1)
    if name == "agw":
        state["classifier.weight"] = torch.zeros(1)
    else:
        state.update({"gem.p": torch.zeros(1), "disnet.bn.weight": torch.zeros(1)})
    if name == "salcr":
        state["attn_pool.pos_embeding"] = torch.zeros(1)
    return state


def assert_same(one: nn.Module, other: nn.Module) -> None:
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_own_weights_come_back(tmp_path: Path, suffix: str) -> None:
    network = trained(parts=2)
    path = tmp_path / f"weights{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(network.state_dict(), path)
    assert_same(network, TwoStream(depth=18, parts=2, weights=str(path)).build(size=SIZE))


@pytest.mark.parametrize(("name", "options"), [("mult", {}), ("salcr", {"parts": 3}), ("agw", {"non_local": True})])
def test_published_checkpoints_come_in_with_their_wrapping(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    network = trained(**options)
    state = {f"module.{key}": tensor for key, tensor in published(network, name).items()}
    held = {"state_dict": state, "epoch": 49, "best_mAP": np.float64(0.5), "cmc": np.float32(0.25)}
    torch.save(held, tmp_path / "model_best.pth.tar")
    plugin = TwoStream(depth=18, weights=str(tmp_path / "model_best.pth.tar"), **options)
    assert_same(network, plugin.build(size=SIZE))


@pytest.mark.parametrize("wrapper", [*WRAPPERS, None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapping_is_taken_off(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    """``network`` is what a checkpoint of our own runs says, so that one may be given as ``--weights``."""
    state = {"stem.weight": torch.rand(2), "neck.bias": torch.rand(3)}
    held = {prefix + key: tensor for key, tensor in state.items()}
    torch.save(held if wrapper is None else {wrapper: held, "epoch": 4}, tmp_path / "held.pt")
    found = read_state(tmp_path / "held.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_a_prefix_of_some_keys_is_part_of_the_key(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.zeros(1), "bias": torch.zeros(1)}, tmp_path / "mixed.pt")
    assert read_state(tmp_path / "mixed.pt").keys() == {"module.weight", "bias"}


def test_a_checkpoint_of_a_run_gives_weights(finished: Path) -> None:
    path = finished / "checkpoints" / "epoch_005.pt"
    network = torch.load(path, weights_only=True)["network"]
    found = read_state(path)
    assert found.keys() == network.keys()
    assert all(torch.equal(found[key], network[key]) for key in network)


def test_missing_surplus_and_misshapen_tensors_are_listed(tmp_path: Path) -> None:
    network = trained()
    state = published(network, "mult")
    del state["base_resnet.base.layer1.0.conv1.weight"]
    state["bottleneck.weight"] = torch.zeros(7)
    state["surprise.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth does not fit this network") as caught:
        TwoStream(depth=18, weights=str(tmp_path / "odd.pth")).build(size=SIZE)
    message = str(caught.value)
    assert "1 missing (shared.layer1.0.conv1.weight)" in message
    assert "1 left over (surprise.weight)" in message
    assert "1 of another shape (neck.weight is (7,), not (512,))" in message
    assert "\n" not in message


def test_part_tokens_do_not_fit_a_network_without_parts(tmp_path: Path) -> None:
    torch.save(published(trained(parts=3), "salcr"), tmp_path / "salcr.pth")
    with pytest.raises(CheckpointError, match=r"left over \(heads\.tokens, heads\.neck\.weight"):
        TwoStream(depth=18, weights=str(tmp_path / "salcr.pth")).build(size=SIZE)


def test_a_long_list_of_keys_is_cut(tmp_path: Path) -> None:
    keys = [key for key in trained().state_dict() if not key.endswith("num_batches_tracked")]
    torch.save({keys[0]: trained().state_dict()[keys[0]]}, tmp_path / "little.pth")
    with pytest.raises(CheckpointError) as caught:
        TwoStream(depth=18, weights=str(tmp_path / "little.pth")).build(size=SIZE)
    missing = keys[1:]
    listed = ", ".join(missing[:LISTED])
    assert f"tensors {len(missing)} missing ({listed}, … {len(missing) - LISTED} more). Build" in str(caught.value)


@pytest.mark.parametrize("counted", [True, False])
def test_a_plain_resnet_fills_both_stems_and_the_body(tmp_path: Path, counted: bool) -> None:
    resnet = torchvision.models.resnet18(weights=None)
    for tensor in resnet.buffers():  # statistics start alike in every network
        if tensor.dtype.is_floating_point:
            tensor.copy_(torch.rand(tensor.shape))
    state = resnet.state_dict()
    if not counted:  # files from before torch 0.4.1
        state = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(dict(state), tmp_path / "resnet18.pth")
    network = TwoStream(depth=18, parts=2, non_local=True, weights=str(tmp_path / "resnet18.pth")).build(size=SIZE)
    parts = [*network.stems.values(), network.shared]
    for part in parts:
        for key, tensor in part.state_dict().items():
            assert torch.equal(tensor, resnet.state_dict()[key]), key
    read = {key for part in parts for key in part.state_dict()}
    assert resnet.state_dict().keys() - read == {"fc.weight", "fc.bias"}
    assert len(network.stems) == 2


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("the pickle ran",)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04" + b"\0" * 40, b"\x80\x02}q\x00."])
def test_a_corrupt_file_is_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    said = rf"{name} (can't be read as weights: it is |contains a dictionary without named tensors)"
    with pytest.raises(CheckpointError, match=said) as caught:
        read_state(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    for name, save in {"a.safetensors": safetensors.torch.save_file, "a.pth": torch.save}.items():
        save({"weight": torch.rand(100, 100)}, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=r"is corrupt or of another kind|is cut off or corrupt"):
            read_state(tmp_path / name)


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


NAMED = {"module.conv1.weight": torch.ones(2, 2), "module.bn.bias": torch.zeros(2)}
OTHER_FILES = {
    "web page": (b"\n<!DOCTYPE html><html>", "it is a web page; download the file itself"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git-LFS pointer; run git lfs pull"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xa4", "it is an ONNX model; save the weights of the model"),
    "empty": (b"", "it is empty; download or copy it again"),
    "cut": (saved(NAMED)[:900], "it is a ZIP archive without its end, so it is cut off or corrupt; download"),
    "text": (b'{"error": "quota"}\n', 'it is a text that begins with \'{"error": "quota"}\'; expected named tensors'),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(40), "it is an image; expected named tensors"),
    "compressed": (b"\x1f\x8b\x08" + bytes(40), "it is a compressed or tar archive; unpack it"),
    "pickle": (b"\x80\x04}\x94.", "it is a Python pickle that torch.save did not write"),
    "model": (saved(nn.Linear(2, 2)), r"it contains a whole pickled model .* save model\.state_dict\(\)"),
    "old model": (saved(nn.Linear(2, 2), _use_new_zipfile_serialization=False), "it contains a whole pickled model"),
    "settings": (saved({"net": NAMED, "args": argparse.Namespace(lr=1)}), "it contains argparse.Namespace, and only"),
    "function": (saved({"net": NAMED, "f": nn.functional.relu}), "it contains torch.nn.functional.relu, and only"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_another_file_is_named_for_what_it_is(tmp_path: Path, name: str) -> None:
    content, said = OTHER_FILES[name]
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"x\.pth can't be read as weights: {said}") as caught:
        read_state(tmp_path / "x.pth")
    assert not re.search(r"weights_only|\x1b|\n", str(caught.value))


def test_arrays_given_as_weights_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", a=np.ones(3))
    with pytest.raises(CheckpointError, match=r"it is an \.npz archive of arrays; expected named tensors"):
        read_state(tmp_path / "f.npz")


@pytest.mark.parametrize(
    "value",
    [
        *(np.dtype(kind).type(1) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?", "U1")),
        *(np.array(given) for given in (0.5, [1.0], [1], [True], ["a"], [None])),
        [np.float64(0.1)] * 3,
        np.random.RandomState(0).get_state(),
        OrderedDict(a=1), defaultdict(int, a=1), Counter("ab"), {1}, frozenset({1}), slice(3), range(3), 1j, b"x",
        torch.Size([3]), torch.float32, torch.device("cpu"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_beside_the_weights_are_passed_over(tmp_path: Path, value: Any) -> None:
    for old in (False, True):
        content = {"net": NAMED, "mAP": value, "all": {"cmc": value}}
        torch.save(content, tmp_path / "x.t", _use_new_zipfile_serialization=not old)
        assert read_state(tmp_path / "x.t").keys() == {"conv1.weight", "bn.bias"}


def test_nothing_of_a_file_reaches_numpys_unpickling(tmp_path: Path) -> None:
    torch.save({"net": NAMED, "cmc": np.ones(3)}, tmp_path / "x.t")
    assert type(load_checkpoint(tmp_path / "x.t")["cmc"]) is Inert


@pytest.mark.parametrize("path", ["model_state_dict", "state_dict_ema", "generator", "a.b.c"])
def test_the_only_set_of_weights_is_found(tmp_path: Path, path: str) -> None:
    adam = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    adam.param_groups[0]["params"][0].sum().backward()
    adam.step()
    content: Any = defaultdict(int, {**NAMED, "module.bn.weight": torch.ones(2)})
    for key in reversed(path.split(".")):
        content = {key: content, "epoch": 3}
    torch.save({**content, "optimizer": adam.state_dict(), "loss": {"weight": torch.ones(1)}}, tmp_path / "x.pth")
    assert read_state(tmp_path / "x.pth").keys() == {"conv1.weight", "bn.bias", "bn.weight"}


def test_the_usual_name_is_taken_among_several_sets(tmp_path: Path) -> None:
    other = {key: tensor + 1 for key, tensor in NAMED.items()}
    torch.save({"ema": other, "state_dict": NAMED}, tmp_path / "x.pth")
    assert torch.equal(read_state(tmp_path / "x.pth")["conv1.weight"], torch.ones(2, 2))
    torch.save({"student": NAMED, "teacher": other}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"several sets of weights: student \(2 tensors\), teacher \(2 tensors\)"):
        read_state(tmp_path / "x.pth")


def test_a_dictionary_without_weights_is_refused_with_its_keys(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "args": {"lr": 0.1}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"without named tensors \(keys: epoch, args\); expected named tensors"):
        read_state(tmp_path / "x.pth")


def test_a_weights_path_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(NAMED, tmp_path / "x.pth")
    assert read_state("~/x.pth").keys() == {"conv1.weight", "bn.bias"}
    assert read_state(Path("~/x.pth")).keys() == {"conv1.weight", "bn.bias"}


def resnet_state() -> dict[str, Tensor]:
    return dict(torchvision.models.resnet18(weights=None).state_dict())


def start_from(state: dict[str, Tensor], path: Path) -> nn.Module:
    torch.save(state, path)
    return TwoStream(depth=18, parts=2, non_local=True, weights=str(path)).build(size=SIZE)


@pytest.mark.parametrize(
    ("kept", "missing"), [("conv1|bn1", "shared.layer1"), ("conv1|bn1|layer[123]", "shared.layer4")]
)
def test_a_resnet_that_lacks_layers_is_refused(tmp_path: Path, kept: str, missing: str) -> None:
    part = {key: tensor for key, tensor in resnet_state().items() if re.match(rf"({kept})\.", key)}
    with pytest.raises(CheckpointError, match=rf"\d+ missing \({missing}\.0\.conv1\.weight, .*complete file"):
        start_from(part, tmp_path / "part.pth")


def test_a_leftover_classifier_is_passed_over(tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in resnet_state().items() if not key.startswith("fc.")}
    network = start_from({**state, "classifier.weight": torch.ones(9, 512)}, tmp_path / "x.pth")
    assert torch.equal(network.shared["layer1"][0].conv1.weight, state["layer1.0.conv1.weight"])


@pytest.mark.parametrize("prefix", ["backbone.", "model.backbone.", "module.encoder_q."])
def test_a_prefix_of_all_keys_is_removed(tmp_path: Path, prefix: str) -> None:
    state = resnet_state()
    network = start_from({prefix + key: tensor for key, tensor in state.items()}, tmp_path / "x.pth")
    assert torch.equal(network.shared["layer1"][0].conv1.weight, state["layer1.0.conv1.weight"])
    own = nn.Linear(2, 2)
    load_into(
        own, {f"{prefix}{key}": torch.ones_like(tensor) for key, tensor in own.state_dict().items()}, [], source="x"
    )
    assert own.bias.tolist() == [1.0, 1.0]


def test_prefixes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = resnet_state()
    fast = {f"backbone.{key}": tensor for key, tensor in state.items()} | {"heads.weight": torch.ones(9)}
    with pytest.raises(CheckpointError, match=r"begin with 'backbone\.' \(122\), 'heads\.' \(1\); save"):
        start_from(fast, tmp_path / "x.pth")
    twice = {f"module.encoder_{one}.{key}": tensor for one in "qk" for key, tensor in state.items()}
    with pytest.raises(CheckpointError, match=r"begin with 'encoder_q\.' \(122\), 'encoder_k\.' \(122\); save"):
        start_from(twice, tmp_path / "x.pth")


def test_code_in_a_pickle_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.zeros(1), "evil": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth can't be read as weights"):
        read_state(tmp_path / "evil.pth")
    assert "the pickle ran" not in capsys.readouterr().out


@pytest.mark.parametrize("held", [[torch.zeros(1)], {"epoch": 3}, {}, {"state_dict": {}}, torch.zeros(2)])
def test_something_else_than_named_tensors_is_refused(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="expected named tensors"):
        read_state(tmp_path / "other.pth")


def test_a_dictionary_that_holds_itself_comes_to_an_end(tmp_path: Path) -> None:
    held: dict[str, Any] = {"weight": torch.zeros(1)}
    held["model"] = held
    torch.save(held, tmp_path / "round.pth")
    with pytest.raises(CheckpointError, match="expected named tensors"):
        read_state(tmp_path / "round.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights file .*absent\.pth"):
        read_state(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="no weights file"):
        read_state(tmp_path)


def test_weights_without_a_known_layout_must_have_the_modules_keys() -> None:
    module = nn.Linear(2, 2)
    load_into(module, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, [], source="here")
    assert torch.equal(module.weight, torch.ones(2, 2))
    with pytest.raises(CheckpointError, match=r"here does not fit this network: tensors 1 missing \(bias\)"):
        load_into(module, {"weight": torch.ones(2, 2)}, [], source="here")


class BrokenDownload(io.BytesIO):
    """A response that ends in the middle, or breaks off with an error."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(b"x" * 1000)
        self.error = error

    def info(self) -> Any:
        return type("Headers", (), {"get_all": lambda self, name: ["5000"]})()

    headers = property(info)

    def read(self, *size: int) -> bytes:
        chunk = super().read(*size)
        if not chunk and self.error is not None:
            raise self.error
        return chunk


@pytest.mark.parametrize("error", [None, ConnectionResetError("connection reset")])
def test_a_broken_download_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *args, **options: BrokenDownload(error))
    with pytest.raises(DataError, match=r"ResNet-50 could not be downloaded .* --weights FILE") as caught:
        imagenet_state(50)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_a_connection_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_connection(*args: Any, **options: Any) -> Any:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_connection)
    with pytest.raises(DataError, match=r"Name or service not known.*--weights FILE.*--weights none"):
        TwoStream(depth=18).build(size=SIZE)


def test_a_download_in_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    path = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), path)
    network = TwoStream(depth=18).build(size=SIZE)
    assert torch.equal(network.shared["layer1"][0].conv1.weight, resnet.layer1[0].conv1.weight)
    path.write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(DataError, match="--weights FILE"):
        imagenet_state(18)
