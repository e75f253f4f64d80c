"""Network weights from files and from torchvision: read without running any code in them, and fitted key by key."""

from __future__ import annotations

import _codecs
import pickle
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reidassoc.archives import bomb
from reidassoc.errors import CheckpointError, DataError

State = dict[str, Tensor]
WRAPPERS = ("state_dict", "model", "network")  # keys under which checkpoints keep their weights
DATA_PARALLEL = "module."
LISTED = 6  # keys that an error names before it counts the rest


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the keys of some file format become a module's keys.

    Args:
        mark: pattern; a file with a key that matches it is of this layout.
        rules: (pattern, replacements): a key that matches gives its tensor to each replacement, first match only.
        ignored: pattern of keys that are known and unused.
        complete: whether every key of the module must be given; if not, the rest keeps its initial value.
    """

    mark: str
    rules: tuple[tuple[str, tuple[str, ...]], ...]
    ignored: str = r"(?!)"
    complete: bool = True

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        return any(re.match(self.mark, key) for key in state)

    def translate(self, state: Mapping[str, Tensor]) -> tuple[State, list[str]]:
        """Return the tensors under the module's keys, and the keys that no rule knows."""
        translated: State = {}
        unknown = []
        for key, tensor in state.items():
            rule = next((rule for rule in self.rules if re.match(rule[0], key)), None)
            if rule is not None:
                translated.update({re.sub(rule[0], new, key, count=1): tensor for new in rule[1]})
            elif not re.match(self.ignored, key):
                unknown.append(key)
        return translated, unknown


def read_state(path: str | Path) -> State:
    """Return the tensors of a ``.safetensors`` file or a torch checkpoint by key; nothing in the file is executed.

    A checkpoint's wrapping (``{"state_dict": …}``) and DataParallel's ``module.`` prefix are taken off.

    Raises:
        CheckpointError: the file is missing or corrupt, or holds something other than named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}; expected a .safetensors file or a torch checkpoint")
    if reason := bomb(path):
        raise CheckpointError(f"{path} {reason}")
    try:
        held = load_file(path) if path.suffix == ".safetensors" else load_checkpoint(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, LookupError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{path} can't be read as weights: the file is corrupt or of another kind ({reason})"
        ) from error
    for _ in WRAPPERS:  # not without end: a dictionary may hold itself
        if isinstance(held, Mapping):
            held = next((held[name] for name in WRAPPERS if isinstance(held.get(name), Mapping)), held)
    if not isinstance(held, Mapping) or not held or not all(isinstance(t, Tensor) for t in held.values()):
        what = f"a {type(held).__name__}" if not isinstance(held, Mapping) else "a dictionary without weights"
        raise CheckpointError(f"{path} holds {what}; expected named tensors, bare or under {' or '.join(WRAPPERS)}")
    state = {str(key): tensor for key, tensor in held.items()}
    if all(key.startswith(DATA_PARALLEL) for key in state):
        state = {key.removeprefix(DATA_PARALLEL): tensor for key, tensor in state.items()}
    return state


def load_checkpoint(path: Path) -> Any:
    """``torch.load`` of tensors and plain values; NumPy scalars, which published checkpoints hold as scores, may pass."""
    scalar = np.float64(0).__reduce__()[0]
    harmless = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    with torch.serialization.safe_globals([*harmless, np.dtype, *kinds, _codecs.encode]):
        return torch.load(path, map_location="cpu", weights_only=True)


def imagenet_state(depth: int) -> State:
    """Return torchvision's ImageNet-1k (V1) weights of ResNet-18, 34 or 50, downloaded once into torch's cache.

    Raises:
        DataError: they are not in the cache and can't be downloaded. What came of a broken download is removed.
    """
    weights = getattr(torchvision.models, f"ResNet{depth}_Weights").IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except (OSError, HTTPException, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the ImageNet weights of ResNet-{depth} could not be downloaded ({reason}); fetch {weights.url} elsewhere "
            "and pass it as --weights FILE, or start from random weights with --weights none"
        ) from error
    return dict(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], layouts: Iterable[Layout], *, source: str) -> None:
    """Load ``state`` into ``module`` by the first layout that fits, or by its own keys if none does.

    Args:
        source: what errors call the weights: a path, as a rule.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; the message lists them.
    """
    own = module.state_dict()
    layout = next((layout for layout in layouts if layout.fits(state)), None)
    given, unknown = layout.translate(state) if layout else (dict(state), [])
    unknown += [key for key in given if key not in own]
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]  # old files lack it
    if layout is not None and not layout.complete:
        missing = []
    shaped = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems = {"missing": missing, "left over": unknown, "of another shape": shaped}
    told = [f"{len(keys)} {what} ({shortened(keys)})" for what, keys in problems.items() if keys]
    if told:
        raise CheckpointError(
            f"{source} does not fit this network: tensors {'; '.join(told)}. "
            "Build the network with the options it was trained with"
        )
    module.load_state_dict(given, strict=False)


def shortened(keys: list[str]) -> str:
    more = f", … {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more
