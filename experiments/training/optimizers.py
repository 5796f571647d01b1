"""The optimizer of a recipe and the course of its learning rate.

With warm-up over the first v of N steps, the rate of step n (0-based) is lr * r(n):

    n < v          r = (n + 1) / v
    constant       r = 1
    cosine         r = f + (1 - f) (1 + cos(pi t)) / 2,      t = (n - v) / (N - v),  f = final_lr / lr
    exponential    r = f^t

The same factor multiplies the rates of all groups, that of the masks' logits included. Weight decay is the optimizer's
own: coupled to the gradient in SGD and Adam, apart from it in AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sparseopt.experiments.training.sections import Training

__all__ = ["learning_rate", "make_optimizer"]


def learning_rate(training: Training, total: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor r(n) of a step, for `torch.optim.lr_scheduler.LambdaLR`.

    >>> from sparseopt.experiments.training.sections import Training
    >>> r = learning_rate(Training(epochs=2, batch=8, lr=0.1, final_lr=0.001, decay="exponential"), 100, 50)
    >>> [round(r(n), 4) for n in (0, 50, 100)]
    [1.0, 0.1, 0.01]
    """
    rising = round(training.warmup * steps_per_epoch)
    last = training.final_lr / training.lr

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        t = min(1.0, (step - rising) / max(1, total - rising))
        if training.decay == "cosine":
            return last + (1.0 - last) * 0.5 * (1.0 + math.cos(math.pi * t))
        return last**t if training.decay == "exponential" else 1.0

    return factor


def make_optimizer(model: nn.Module, training: Training, without: Collection[nn.Parameter] = ()) -> Optimizer:
    """The optimizer over all parameters of `model` but those `without`, which join it later.

    Embeddings form a group of their own if their weight decay is another.
    """
    left_out = {id(parameter) for parameter in without}
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for parameter in module.parameters()
    }
    apart = training.embedding_weight_decay is not None
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for parameter in model.parameters():
        if parameter.requires_grad and id(parameter) not in left_out:
            groups[apart and id(parameter) in tables].append(parameter)
    listed: list[dict[str, Any]] = [{"params": groups[False], "weight_decay": training.weight_decay}]
    if groups[True]:
        listed.append({"params": groups[True], "weight_decay": training.embedding_weight_decay})
    # One kernel per parameter: several times faster than separate operations on large tables of embeddings. Sharded
    # parameters take the other path.
    plain = all(type(p) is nn.Parameter and p.is_floating_point() for group in listed for p in group["params"])
    fused = plain and {p.device.type for group in listed for p in group["params"]} <= {"cpu", "cuda"}
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            listed, training.lr, momentum=training.momentum, nesterov=training.nesterov, fused=fused or None
        )
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(listed, training.lr, fused=fused or None)
