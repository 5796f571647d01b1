"""How long calls take: medians, taken in turns.

    race({"dense": f, "sparse": g})  ->  {"dense": seconds, "sparse": seconds}

Candidates take turns, f f f f g g g g f f f f ..., so what slows the machine down meets all of them. The first call of
a turn is not counted: it finds the caches full of what the others left. Neither is the first turn, in which calls
compile, allocate and start threads. Turns go on until the time is used up. The median of some calls says what a call
usually takes, and one that was interrupted does not move it.

A sparse layer has to beat the best of what torch offers for the dense one: its own forward, oneDNN's product (several
times faster than MKL on some processors), and both memory formats of a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Call", "Timer", "dense_forms", "race", "with_relu"]

_TURN = 3  # calls in a row that count
Call = Callable[[], Any]
Timer = Callable[[Mapping[str, Call]], dict[str, float]]


def race(calls: Mapping[str, Call], seconds: float = 0.2, least: int = 5, most: int = 300) -> dict[str, float]:
    """Median seconds of every call; they take turns and need no gradients.

    Parameters
    ----------
    calls : mapping of name to callable
        Without arguments. What they compute on a GPU is waited for.
    seconds : float
        Time for all of them together. Slow calls may take longer: there are `least` of each in any case.
    least, most : int
        Calls that count, at least and at most.

    Examples
    --------
    >>> times = race({"short": lambda: sum(range(10)), "long": lambda: sum(range(100_000))}, seconds=0.01)
    >>> times["short"] < times["long"]
    True
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for call in calls.values():
            _timed(call)
            _timed(call)
        end = perf_counter() + seconds
        counted = 0
        while counted < most and (counted < least or perf_counter() < end):
            turn = min(_TURN, most - counted)
            for name, call in calls.items():
                _timed(call)
                taken[name] += [_timed(call) for _ in range(turn)]
            counted += turn
    return {name: median(each) for name, each in taken.items()}


def dense_forms(layer: nn.Module, x: Tensor, activation: str = "none") -> dict[str, Call]:
    """The ways in which torch computes a dense layer here, ready to be timed: name -> call.

    Parameters
    ----------
    layer : Linear, Conv1d or Conv2d
    x : Tensor
        Its input. Convolutions in two dimensions are offered it in both memory formats.
    activation : {"none", "relu"}
        "relu" adds the activation that follows, in place or inside of the product.

    Examples
    --------
    >>> forms = dense_forms(nn.Conv2d(4, 4, 3), torch.randn(1, 4, 8, 8))
    >>> list(forms)
    ['contiguous', 'channels_last']
    >>> torch.allclose(*(call() for call in forms.values()), atol=1e-5)
    True
    """
    forms: dict[str, Call] = {}
    if isinstance(layer, nn.Conv2d) and x.ndim == 4:
        formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        for name, way in formats.items():
            moved: Any = deepcopy(layer)
            moved.to(memory_format=way)
            forms[name] = with_relu(partial(moved, x.contiguous(memory_format=way)), activation)
        return forms
    forms["torch"] = with_relu(partial(layer, x), activation)
    if isinstance(layer, nn.Linear) and x.device.type == "cpu" and x.numel():
        product = partial(_onednn, x, layer.weight.detach(), _detached(layer.bias), activation)
        try:
            with torch.no_grad():
                product()
        except (AttributeError, NotImplementedError, RuntimeError):  # a build without oneDNN, a dtype it does not know
            return forms
        forms["oneDNN"] = product
    return forms


def with_relu(call: Call, activation: str) -> Call:
    """The call, and for "relu" the activation in place after it."""
    return call if activation == "none" else lambda: torch.relu_(call())


def _timed(call: Call) -> float:
    start = perf_counter()
    call()
    if torch.cuda.is_initialized():  # a GPU works on after the call has returned
        torch.cuda.synchronize()
    return perf_counter() - start


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
