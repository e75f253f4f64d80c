"""A device that computes on the processor and has the manners of a GPU: for tests where there is none.

Tensors on it say that they are elsewhere (their device is torch's ``meta``, which no method asks for) and hold real numbers.
What a GPU refuses is refused: operands in two places, a NumPy view of what is not on the host, draws by a generator of the
host; and, if asked, what the host would wait for. Code that passes keeps the rules of devices; what CUDA's own kernels compute,
and how fast, only a machine with a GPU can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PLACE = torch.device("meta")
FUSED = "_get_fused_kernels_supported_devices"  # what torch asks before it believes that an optimiser can be fused
optimizer = import_module("torch.optim.optimizer")
COPIES = {"copy_", "_to_copy"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # a GPU takes indices from the host
COUNTED = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "equal", "repeat_interleave", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd",
}  # fmt: skip
"""Functions whose result, or its size, the host waits for."""


class PretendError(RuntimeError):
    """What a GPU would have refused."""


class Elsewhere(Tensor):
    """A tensor on the pretended device; ``host`` holds its numbers."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> Elsewhere:
        laid: dict[str, Any] = {}
        if host.layout == torch.strided:
            laid = {"strides": host.stride(), "storage_offset": host.storage_offset()}
        made: Elsewhere = Tensor._make_wrapper_subclass(cls, host.shape, dtype=host.dtype, device=PLACE, **laid)
        made.host = host
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.host!r} on the pretended device"

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (Tensor.numpy, Tensor.__array__):
            raise PretendError("can't convert a tensor on the device to NumPy; x.cpu() copies it to the host")
        if function == Tensor.tolist:
            return args[0].cpu().tolist()
        sparse = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Elsewhere) and x.host.layout != torch.strided]
        if not sparse:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))
        if function == Tensor.device.__get__:
            return PLACE
        named = [x for x in tree_leaves((args[1:], kwargs)) if isinstance(x, (str, torch.device))]
        if function == Tensor.cpu or (function == Tensor.to and named):
            return function(sparse[0].host, *args[1:], **(kwargs or {}))
        return carried_out(function, "", args, kwargs or {})  # torch wraps no sparse layout: the call goes by as one

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return carried_out(function, function.overloadpacket.__name__, args, kwargs or {})


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Catches what makes tensors on the pretended device from none that is there yet."""

    def __init__(self, waits: bool, to_host: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits, self.to_host = waits, to_host

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if not self.waits and (why := waits_for(name, args, kwargs or {})):
            raise PretendError(f"{name} waits for the device: {why}")
        if self.to_host is not None and (count := copied_to_host(name, args, kwargs or {})) > self.to_host:
            raise PretendError(f"{count} numbers copied to the host at once, more than {self.to_host}")
        return carried_out(function, name, args, kwargs or {})


class _Constants(TorchFunctionMode):
    """Numbers written in the code: torch would make an empty shell of them without asking anybody."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function == Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            function, args = torch.tensor, args[1:]
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == PLACE:
            del kwargs["device"]
            return function(*args, **kwargs).to(PLACE)
        return function(*args, **kwargs)


@contextmanager
def pretended_device(*, waits: bool = True, to_host: int | None = None) -> Iterator[torch.device]:
    """Inside this block ``x.to(device)`` and ``torch.zeros(3, device=device)`` are on the device that this yields.

    Args:
        waits: whether the host may wait for the device; if not, what waits is refused, as torch refuses it on CUDA under
            ``torch.cuda.set_sync_debug_mode("error")``.
        to_host: the most numbers that may be copied to the host at once; any if not given.

    Raises:
        PretendError: from the function that a GPU would have refused.
    """
    fused = patch.object(optimizer, FUSED, lambda: ["cpu", "cuda", PLACE.type], create=True)
    with _Mode(waits, to_host), _Constants(), fused:
        yield PLACE


def name_of(device: torch.device) -> str:
    """What to call a device in a sentence."""
    return "the pretended GPU" if device == PLACE else f"the {device.type}"


def carried_out(function: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function on the numbers that its arguments hold, and put the result where a GPU would put it."""
    check_manners(name, args, kwargs)
    place = kwargs.get("device")
    there = torch.device(place) == PLACE if place is not None else any_elsewhere((args, kwargs))
    if place is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    own_args, own_kwargs = tree_map(lambda x: x.host if isinstance(x, Elsewhere) else x, (tuple(args), dict(kwargs)))
    found = function(*own_args, **own_kwargs)
    if there and torch.Tag.inplace_view in getattr(function, "tags", ()):
        # squeeze_ and the like change a shape: the one that is seen outside follows.
        with torch._C._DisableTorchDispatch():
            function(*args, **kwargs)
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    known = {id(x.host if isinstance(x, Elsewhere) else x): x for x in given}  # what is written into comes back itself

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x)

    return tree_map(placed, found) if there else found


def any_elsewhere(values: object) -> bool:
    return any(isinstance(x, Elsewhere) for x in tree_leaves(values))


def check_manners(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse operands in two places, and a host's generator.

    Raises:
        PretendError: with the function's name, and what was where.
    """
    if kwargs.get("generator") is not None:
        draws_there = any_elsewhere(args) or torch.device(kwargs.get("device") or "cpu") == PLACE
        if draws_there:
            raise PretendError(f"{name}: draw with the generator on the host, then move the numbers: .to(x.device)")
    if name in COPIES or not any_elsewhere((args, kwargs)):
        return
    looked_at = (args[0], args[2:]) if name in INDEXED and isinstance(args[0], Elsewhere) else (args, kwargs)
    here = [x for x in tree_leaves(looked_at) if isinstance(x, Tensor) and not isinstance(x, Elsewhere) and x.dim()]
    if here:
        shape = tuple(here[0].shape)
        raise PretendError(
            f"{name}: expected all tensors on the same device, but one of shape {shape} is on the CPU; "
            "make it with device=x.device, or move it: .to(x.device)"
        )


def waits_for(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Why a host would wait for a GPU in this call; empty if it would not."""
    there = any_elsewhere((args, kwargs))
    if name in COUNTED and there and "output_size" not in kwargs:
        return "its result, or its size, is wanted on the host"
    if name in INDEXED and isinstance(args[0], Elsewhere):
        for index in args[1]:
            if index is not None and (index.dtype == torch.bool or not isinstance(index, Elsewhere)):
                return "an index that is a mask, or on the host"
    if copied_to_host(name, args, kwargs):
        return "a copy to the host"
    if (
        copied_from_host(name, args, kwargs)
        and not kwargs.get("non_blocking")
        and not (name == "copy_" and args[2:3] == (True,))
    ):
        return "a copy from the host; non_blocking=True lets the host go on"
    return ""


def copied_from_host(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call copies more than a scalar to the device."""
    if name == "copy_":
        return isinstance(args[0], Elsewhere) and not isinstance(args[1], Elsewhere) and args[1].dim() > 0
    there = torch.device(kwargs.get("device") or "cpu") == PLACE
    return name == "_to_copy" and there and not isinstance(args[0], Elsewhere)


def copied_to_host(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many numbers a call copies to the host."""
    source = args[1] if name == "copy_" else args[0] if name == "_to_copy" else None
    if not isinstance(source, Elsewhere):
        return 0
    stays = isinstance(args[0], Elsewhere) if name == "copy_" else torch.device(kwargs.get("device") or PLACE) == PLACE
    return 0 if stays else max(1, source.numel())
