"""The pretended GPU computes what the processor does, refuses what a GPU refuses, and knows what a host waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reidassoc.testing import PretendError, pretended_device


def test_it_computes_and_differentiates_as_the_processor_does() -> None:
    x, weight = torch.randn(5, 4), torch.randn(4, 3)

    def slope(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        weight = weight.clone().requires_grad_()
        target = torch.tensor([0, 2, 1, 1, 0], device=x.device)
        loss = torch.nn.functional.cross_entropy((x @ weight).relu(), target)
        return loss.detach(), torch.autograd.grad(loss, weight)[0]

    expected = slope(x, weight)
    with pretended_device() as device:
        found = slope(x.to(device), weight.to(device))
        assert all(one.device == device for one in found)
        assert all(torch.equal(one.cpu(), other) for one, other in zip(found, expected, strict=True))


def test_views_and_what_is_written_into_are_the_same_tensors() -> None:
    with pretended_device() as device:
        x = torch.zeros(3, 4, device=device)
        x[1] += 2
        x[:, 2].fill_(5)
        end = torch.zeros(4, device=device)
        assert torch.cumsum(torch.ones(3, device=device), 0, out=end[1:]) is not None
        row = x[1].unsqueeze(0)
        assert row.squeeze_(0).shape == (4,)
        here = torch.zeros(4)
        assert here.copy_(end) is here
        assert x.tolist() == [[0, 0, 5, 0], [2, 2, 5, 2], [0, 0, 5, 0]]
    assert here.tolist() == [0, 1, 2, 3]
    assert here.device.type == "cpu"


def test_sparse_matrices() -> None:
    with pretended_device() as device:
        parts = [torch.tensor(values, device=device) for values in ([0, 1, 2], [2, 0], [3.0, 4.0])]
        matrix = torch.sparse_csr_tensor(*parts, (2, 3), check_invariants=False)
        assert (matrix.layout, matrix.device) == (torch.sparse_csr, device)
        assert matrix.values().device == device
        assert matrix.to_dense().tolist() == [[0, 0, 3], [4, 0, 0]]
        assert (matrix @ torch.ones(3, 1, device=device)).tolist() == [[3], [4]]
        assert matrix.to(torch.float64).device == matrix.to(device).device == device
        assert matrix.cpu().device.type == matrix.to("cpu").device.type == "cpu"
        with pytest.raises(PretendError, match="same device"):
            matrix @ torch.ones(3, 1)


REFUSED: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "two places": ("of shape \\(3,\\) is on the CPU", lambda x: x + torch.ones(3)),
    "two places, in a list": ("same device", lambda x: torch.cat([x, torch.ones(3)])),
    "values from the host": ("same device", lambda x: x.index_put((torch.tensor([0, 1], device=x.device),), torch.ones(2))),
    "indices elsewhere": ("same device", lambda x: torch.ones(3)[x.long()]),
    "numpy": ("x.cpu\\(\\)", lambda x: x.numpy()),
    "as an array": ("x.cpu\\(\\)", lambda x: np.asarray(x)),
    "the host's generator": ("on the host, then", lambda x: torch.rand(3, generator=torch.Generator(), device=x.device)),
    "the same, in place": ("on the host, then", lambda x: x.uniform_(generator=torch.Generator())),
}  # fmt: skip
WAITING: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "a number": ("_local_scalar_dense", lambda x: float(x.sum())),
    "a decision": ("wanted on the host", lambda x: bool((x > 0).any())),
    "a mask": ("a mask", lambda x: x[x > 0]),
    "a mask that is written to": ("a mask", lambda x: x.index_put_((x > 0,), x.sum())),
    "an index on the host": ("on the host", lambda x: x[torch.tensor([0, 1])]),
    "how many": ("nonzero", lambda x: x.nonzero()),
    "which": ("unique", lambda x: torch.unique(x)),
    "repeats": ("repeat_interleave", lambda x: torch.repeat_interleave(x, x.long())),
    "to the host": ("a copy to the host", lambda x: x.cpu()),
    "a list": ("a copy to the host", lambda x: x.tolist()),
    "from the host": ("a copy from the host", lambda x: torch.ones(3).to(x.device)),
    "into it from the host": ("a copy from the host", lambda x: x.copy_(torch.ones(3))),
    "a constant": ("a copy from the host", lambda x: torch.tensor([1.0, 2.0], device=x.device)),
    "another constant": ("a copy from the host", lambda x: x.new_tensor([1.0, 2.0])),
    "an inverse": ("_linalg_check_errors", lambda x: torch.linalg.inv(x.diag())),
}
FREE: dict[str, Callable[[Tensor], Any]] = {
    "number": lambda x: (2 * x + 1).clamp_min(0.5).sum(),
    "scalar from the host": lambda x: x * torch.tensor(2.0),
    "copy without waiting": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "choice": lambda x: torch.where(x > 0, x, 0.0).topk(2).values.sort().values,
    "index": lambda x: x[torch.arange(2, device=x.device)],
    "repeats": lambda x: torch.repeat_interleave(x, x.long(), output_size=3),
    "number type": lambda x: x.double().to(torch.float32),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_gpu_refuses_is_refused(what: str) -> None:
    words, call = REFUSED[what]
    with pretended_device() as device, pytest.raises(PretendError, match=words):
        call(torch.ones(3, device=device))


@pytest.mark.parametrize("what", WAITING)
def test_what_a_host_waits_for_is_refused_where_it_must_not(what: str) -> None:
    words, call = WAITING[what]
    with pretended_device() as device:
        call(torch.ones(3, device=device))
    with pretended_device(waits=False) as device, pytest.raises(PretendError, match=words):
        call(torch.ones(3, device=device))


@pytest.mark.parametrize("what", FREE)
def test_what_nobody_waits_for_is_not(what: str) -> None:
    with pretended_device(waits=False) as device:
        assert FREE[what](torch.ones(3, device=device)).device == device


def test_large_copies_to_the_host_are_found() -> None:
    with pretended_device(to_host=10) as device:
        x = torch.ones(4, 4, device=device)
        assert x.sum(1).cpu().tolist() == [4, 4, 4, 4]
        for call in (x.cpu, x.tolist, lambda: torch.zeros(4, 4).copy_(x)):
            with pytest.raises(PretendError, match="16 numbers copied to the host at once, more than 10"):
                call()
