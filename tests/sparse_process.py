"""Run by the tests of block-sparse layers in a process of its own: calls after a fork, and tampered tensors.

    python sparse_process.py fork | tamper | unchecked

`tamper` changes the tensors of a layer behind its back. Their memory lies between NaN, so that what is read beyond an
end shows in the result, if the process lives to tell. It prints one line of JSON: for each change, "raised" or what the
result holds. `unchecked` does the same to a layer that reads wherever it is told to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sparseopt.nn.sparse.layers import BlockSparseConv2d, BlockSparseLinear

HUGE = 2**30


def linear(out: int = 64, inputs: int = 48) -> BlockSparseLinear:
    torch.manual_seed(0)
    dense = nn.Linear(inputs, out)
    dense.weight.data[8:16] = 0
    return BlockSparseLinear.from_dense(dense, 8)


def guarded(tensor: Tensor) -> Tensor:
    held = torch.full((tensor.numel() + 8192,), torch.nan if tensor.is_floating_point() else HUGE).to(tensor.dtype)
    inside = held[4096:-4096].view(tensor.shape)
    inside.copy_(tensor)
    return inside


def guard(layer: Any) -> Any:
    for name in ("values", "bias"):
        setattr(layer, name, nn.Parameter(guarded(getattr(layer, name).detach())))
    for name in ("crow", "col"):
        setattr(layer, name, guarded(getattr(layer, name)))
    return layer


def write(name: str, place: int, number: int, through_data: bool) -> Callable[[Any], None]:
    def change(layer: Any) -> None:
        tensor = getattr(layer, name)
        (tensor.data if through_data else tensor)[place] = number

    return change


def put(name: str, make: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
    def change(layer: Any) -> None:
        getattr(layer, name).data = guarded(make(getattr(layer, name).detach()))

    return change


CHANGES: dict[str, Callable[[Any], None]] = {
    f"{name}[{place}] = {number}{', through data' * through}": write(name, place, number, bool(through))
    for name, place, numbers in (
        ("crow", -1, (HUGE, 10**4, 0, -1)),
        ("crow", 0, (-HUGE, -1, 1)),
        ("crow", 2, (HUGE, -HUGE, 10**3)),
        ("col", 0, (HUGE, -HUGE, -1, 10**3)),
        ("col", -1, (HUGE, 9, -1)),
    )
    for number in numbers
    for through in (0, 1)
} | {
    "values cut": put("values", lambda values: values[:3].clone()),
    "values with taller blocks": put("values", lambda values: values.repeat(1, 1, 4)),
    "values with wider blocks": put("values", lambda values: values.repeat(1, 4, 1)),
    "values flat": put("values", torch.flatten),
    "crow cut": put("crow", lambda crow: crow[:3].clone()),
    "crow long": put("crow", lambda crow: torch.cat([crow, crow[-1:]])),
    "crow empty": put("crow", lambda crow: crow[:0].clone()),
    "crow of 64 bits": put("crow", lambda crow: crow.long()),
    "col cut": put("col", lambda col: col[:3].clone()),
    "col empty": put("col", lambda col: col[:0].clone()),
    "col of floats": put("col", lambda col: col.float()),
    "bias cut": put("bias", lambda bias: bias[:3].clone()),
    "bias of one": put("bias", lambda bias: bias[:1].clone()),
    "fewer outputs told": lambda layer: setattr(layer, "shape", (16, *layer.shape[1:])),
    "more outputs told": lambda layer: setattr(layer, "shape", (1000, *layer.shape[1:])),
}


def outcome(layer: Any, x: Tensor, change: Callable[[Any], None], with_gradient: bool) -> str:
    before = layer(x)  # whatever a layer remembers of its tensors, it remembers now
    assert before.isfinite().all()
    change(layer)
    try:
        if not with_gradient:
            with torch.no_grad():
                layer(x)
                return "finite" if layer(x).isfinite().all() else "memory of others"
        x.requires_grad_()
        layer(x).sum().backward()
    except (RuntimeError, ValueError, IndexError, TypeError):
        return "raised"
    gradients = (x.grad, layer.values.grad)
    return "finite" if all(g is None or bool(g.isfinite().all()) for g in gradients) else "memory of others"


def tamper() -> None:
    conv = nn.Conv2d(16, 24, 3, padding=1)
    made: dict[str, Callable[[], tuple[Any, Tensor]]] = {
        "linear": lambda: (linear(), guarded(torch.randn(5, 48))),
        "conv": lambda: (BlockSparseConv2d.from_dense(conv, 8), guarded(torch.randn(2, 16, 5, 5))),
    }
    outcomes = {}
    for kind, make in made.items():
        for name, change in CHANGES.items():
            for with_gradient in (False, True):
                layer, x = make()
                key = f"{kind}: {name}{' (backward)' * with_gradient}"
                print(key, file=sys.stderr, flush=True)  # the last line tells where the process ended
                outcomes[key] = outcome(guard(layer), x, change, with_gradient)
    print(json.dumps(outcomes))


class Unchecked(BlockSparseLinear):
    """Wrong: as many numbers of the bias are read as there should be."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return BlockSparseLinear(self.weight)(x) + self.bias.as_strided((self.out_features,), (1,))


def unchecked() -> None:
    right = linear()
    layer = guard(Unchecked(right.weight, right.bias))
    print(json.dumps(outcome(layer, torch.randn(5, 48), CHANGES["bias cut"], False)))


class Batches(Dataset):
    """What a layer makes of its inputs, computed by the workers that load them."""

    def __init__(self, layer: Any, x: Tensor) -> None:
        self.layer, self.x = layer, x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return self.layer(self.x[index])


def fork() -> None:
    torch.set_num_threads(2)
    layer, x = linear(512, 768), torch.randn(6, 64, 768)
    wanted = layer(x).detach()  # the parent's threads are at work before it forks
    loader = DataLoader(Batches(layer, x), batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert torch.allclose(torch.cat(list(loader)), wanted, atol=1e-4)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        loss = layer(x).square().sum()
        loss.backward()
        os._exit(0 if torch.allclose(layer(x), wanted, atol=1e-4) and layer.values.grad.isfinite().all() else 3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert torch.equal(layer(x), wanted)
    print(json.dumps("equal"))


if __name__ == "__main__":
    {"fork": fork, "tamper": tamper, "unchecked": unchecked}[sys.argv[1]]()
