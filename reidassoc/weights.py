"""Network weights from files and from torchvision: read without running any code in them, and fitted key by key."""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from reidassoc.errors import CheckpointError, DataError
from reidassoc.files.kinds import PICKLE, SAFETENSORS, TORCH, kind_of
from reidassoc.files.npz import bomb

State = dict[str, Tensor]
READABLE = (TORCH, SAFETENSORS, PICKLE, "")  # the kinds that are tried; torch itself says what is wrong with them
EXPECTED = "expected named tensors in a .safetensors file or a torch checkpoint"
WRAPPERS = ("state_dict", "model", "net", "network")  # which of several sets of weights in a checkpoint is taken
NEARLY_ALL = 0.9  # share of tensors among the values of what counts as a set of weights
RIVAL = 0.5  # share of the largest set's tensors from which another one is as likely to be meant
DATA_PARALLEL = "module."
MODULES = b"torch.nn.modules."  # what the pickle of a whole model names, and that of weights does not
CLASSES_BYTES = 2**20  # a checkpoint begins with its pickle; tensors follow
PASSED_OVER = (  # what may be in a checkpoint and is not looked at: scores, random states, settings
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
    *(
        f"builtins.{name}"
        for name in ("slice", "range", "frozenset", "int", "float", "bool", "str", "bytes", "list", "dict")
    ),
)
LISTED = 6  # keys that an error names before it counts the rest


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the keys of some file format become a module's keys.

    Args:
        mark: pattern; a file with a key that matches it is of this layout.
        rules: (pattern, replacements): a key that matches gives its tensor to each replacement, first match only.
        ignored: pattern of keys that are known and unused.
        optional: pattern of the module's keys that a file may lack; they keep their initial values.
    """

    mark: str
    rules: tuple[tuple[str, tuple[str, ...]], ...]
    ignored: str = r"(?!)"
    optional: str = r"(?!)"

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


class Inert:
    """Stand-in for a value that is not looked at, so that nothing of a file reaches NumPy's own unpickling."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def plain_dict(*factory: object) -> dict[Any, Any]:
    """Return an empty dict, for ``defaultdict``."""
    return {}


def read_state(path: str | Path) -> State:
    """Return the tensors of a ``.safetensors`` file or a torch checkpoint by key; nothing in the file is executed.

    The weights of a checkpoint are the one mapping in it whose values are (nearly) all tensors; of several, the one under a
    usual name (``WRAPPERS``). DataParallel's ``module.`` prefix is taken off.

    Args:
        path: may begin with ``~``.

    Raises:
        CheckpointError: the file is missing or corrupt, or contains something other than named tensors.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}; {EXPECTED}")
    if reason := bomb(path):
        raise CheckpointError(f"{path} {reason}")
    content = load_checkpoint(path)
    candidates = weight_sets(content)
    if not candidates:
        raise CheckpointError(f"{path} contains {contents(content)}; {EXPECTED}")
    most = max(map(len, candidates.values()))
    candidates = {name: state for name, state in candidates.items() if len(state) >= RIVAL * most}
    chosen = next((name for name in WRAPPERS if name in candidates), next(iter(candidates)))
    if len(candidates) > 1 and chosen not in WRAPPERS:
        named = ", ".join(f"{name} ({len(state)} tensors)" for name, state in candidates.items())
        raise CheckpointError(
            f"{path} contains several sets of weights: {named}; save the one to use as a file of its own"
        )
    state = candidates[chosen]
    if all(key.startswith(DATA_PARALLEL) for key in state):
        state = {key.removeprefix(DATA_PARALLEL): tensor for key, tensor in state.items()}
    return state


def load_checkpoint(path: Path) -> Any:
    """Return the content of a ``.safetensors`` file or a torch checkpoint: tensors and plain values, others as ``Inert``.

    Raises:
        CheckpointError: it is not such a file, or contains a type that is not read; the message names it.
    """
    try:
        kind, step = kind_of(path)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from None
    if kind not in READABLE:
        raise CheckpointError(f"{path} can't be read as weights: it is {kind}; {step or EXPECTED}")
    allowed: list[Any] = [(plain_dict, "collections.defaultdict"), *((Inert, name) for name in PASSED_OVER)]
    try:
        if kind == SAFETENSORS:
            return load_file(path)
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a corrupt file
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = refusal(path, refused[1]) if refused else f"it is corrupt or of another kind ({reason(error)})"
        raise CheckpointError(f"{path} can't be read as weights: {why}") from None


def refusal(path: Path, name: str) -> str:
    """Say what a checkpoint contains in which torch's reader found the class or function ``name``."""
    with open(path, "rb") as file:
        model = MODULES in file.read(CLASSES_BYTES)
    if model:
        return f"it contains a whole pickled model ({name}), which is code; save model.state_dict() instead"
    return (
        f"it contains {name}, and only tensors and plain values are read; save the tensors alone, "
        "as in torch.save(model.state_dict(), FILE)"
    )


def weight_sets(content: object) -> dict[str, State]:
    """All mappings in a checkpoint whose values are (nearly) all named tensors, by the dotted keys that lead to them."""
    sets: dict[str, State] = {}
    seen = set()
    waiting = [("", content)]
    for name, value in waiting:  # which grows meanwhile
        if not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        named = {key: inner for key, inner in value.items() if isinstance(key, str)}
        tensors = {key: inner for key, inner in named.items() if isinstance(inner, Tensor)}
        if tensors and len(tensors) >= NEARLY_ALL * len(value):
            sets[name] = tensors
        else:
            waiting += [(f"{name}.{key}".lstrip("."), inner) for key, inner in named.items()]
    return sets


def contents(value: object) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    return f"a dictionary without named tensors (keys: {shorten([str(key) for key in value]) or 'none'})"


def reason(error: Exception) -> str:
    """An error's text in one short line, without torch's advice to switch its protection off."""
    if "weights_only" in str(error):
        return "not tensors and plain values, pickled by protocol 2"
    return " ".join(str(error).split())[:200] or type(error).__name__


def imagenet_state(depth: int) -> State:
    """Return torchvision's ImageNet-1k (V1) weights of ResNet-18, 34 or 50, downloaded once into torch's cache.

    Raises:
        DataError: they are not in the cache and can't be downloaded. What came of a broken download is removed.
    """
    weights = getattr(torchvision.models, f"ResNet{depth}_Weights").IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except (OSError, HTTPException, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise DataError(
            f"the ImageNet weights of ResNet-{depth} could not be downloaded ({reason(error)}); fetch {weights.url} elsewhere "
            "and pass it as --weights FILE, or start from random weights with --weights none"
        ) from error
    return dict(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], layouts: Iterable[Layout], *, source: str) -> None:
    """Load ``state`` into ``module`` by the first layout that fits, or by its own keys if none does.

    A prefix that all keys share, such as ``backbone.``, is taken off if the rest fits.

    Args:
        source: what errors call the weights: a path, as a rule.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; the message lists them.
    """
    own = module.state_dict()
    layouts = tuple(layouts)
    fits = [Fit.of(own, candidate, layouts) for candidate in strip_prefixes(state)]
    alike = [fit for fit in fits if own.keys() & fit.tensors.keys()]
    best = next((fit for fit in alike if not fit.problems), (alike or fits)[0])
    if best.problems:
        listed = [f"{len(keys)} {what} ({shorten(keys)})" for what, keys in best.problems.items()]
        step = "Build the network with the options it was trained with, or give a complete file"
        if not alike:
            step = f"None of its keys is the network's: they begin with {beginnings(state)}; save the fitting ones without prefix"
        raise CheckpointError(f"{source} does not fit this network: tensors {'; '.join(listed)}. {step}")
    module.load_state_dict(best.tensors, strict=False)


@dataclass(frozen=True)
class Fit:
    """Tensors under a module's keys, and the keys in the way of loading them."""

    tensors: State
    problems: Mapping[str, list[str]]

    @staticmethod
    def of(own: Mapping[str, Tensor], state: State, layouts: Iterable[Layout]) -> Fit:
        """Translate ``state`` by the first layout that fits, and compare it with a module's ``own`` tensors."""
        layout = next((layout for layout in layouts if layout.fits(state)), Layout(mark="", rules=()))
        tensors, unknown = layout.translate(state) if layout.rules else (state, [])
        absent = rf"{layout.optional}|.*num_batches_tracked$"  # the latter old files lack
        problems = {
            "missing": [key for key in own if key not in tensors and not re.match(absent, key)],
            "left over": unknown + [key for key in tensors if key not in own],
            "of another shape": [
                f"{key} is {tuple(tensors[key].shape)}, not {tuple(tensor.shape)}"
                for key, tensor in own.items()
                if key in tensors and tensors[key].shape != tensor.shape
            ],
        }
        return Fit(tensors, {what: keys for what, keys in problems.items() if keys})


def strip_prefixes(state: Mapping[str, Tensor]) -> Iterator[State]:
    """Yield the tensors under their keys, then without the prefixes that all keys share, one more each time."""
    state = dict(state)
    yield state
    while len({key.partition(".")[:2] for key in state}) == 1 and all("." in key for key in state):
        state = {key.partition(".")[2]: tensor for key, tensor in state.items()}
        yield state


def beginnings(state: Iterable[str]) -> str:
    """The first components of keys with how many keys have them, commonest first."""
    counts = Counter(key.partition(".")[0] for key in state)
    return shorten([f"'{name}.' ({count})" for name, count in counts.most_common()])


def shorten(keys: list[str]) -> str:
    more = f", … {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more
