"""How images are varied in training and cut in evaluation: the presets of torchvision's reference for classification.

    training      a random part (8 to 100 % of the area), resized to `size` x `size`; a reflection with probability 1/2;
                  TrivialAugment (Müller and Hutter, 2021) for "trivial"; channels normalised; a random rectangle
                  erased (Zhong et al., 2020) with probability `erasing`
    evaluation    the shorter side resized to `resize`, the central `size` x `size` pixels, channels normalised

Transforms take an image of PIL and return a float32 tensor (3, size, size). They draw from torch's global generator,
which `folders` seeds for every image. For CIFAR-10 see `sparseopt.experiments.cifar.augmented`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseopt.experiments.cifar import MEAN, STD
from sparseopt.experiments.images.vision import import_torchvision

__all__ = ["PRESETS", "evaluation_transform", "training_transform"]

PRESETS = ("none", "basic", "trivial")  # "none" trains on what evaluation sees

Transform = Callable[[Any], Tensor]


def training_transform(preset: str = "basic", size: int = 224, resize: int = 256, erasing: float = 0.0) -> Transform:
    """How a training image becomes a tensor.

    Parameters
    ----------
    preset : {"basic", "trivial", "none"}
    size : int
        Pixels of the tensor's sides.
    resize : int
        Of the shorter side, for "none".
    erasing : float
        Probability that a rectangle is erased; torchvision's recipe for its second set of weights has 0.1.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}: choose one of {', '.join(PRESETS)}.")
    if not 0.0 <= erasing <= 1.0:
        raise ValueError(f"erasing is {erasing}: it is a probability, give 0 to 1.")
    v2 = _v2()
    if preset == "none":
        varied = _central(size, resize)
    else:
        varied = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    if preset == "trivial":
        varied.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
    return v2.Compose([*varied, *_tensor(), *([v2.RandomErasing(erasing)] if erasing else [])])


def evaluation_transform(size: int = 224, resize: int = 256) -> Transform:
    """How an image that is judged becomes a tensor."""
    return _v2().Compose([*_central(size, resize), *_tensor()])


def _v2() -> Any:
    import_torchvision()
    from torchvision.transforms import v2

    return v2


def _central(size: int, resize: int) -> list[Any]:
    if not 1 <= size <= resize:
        raise ValueError(f"size is {size} and resize {resize}: the middle is cut out, give a size of at most resize.")
    return [_v2().Resize(resize, antialias=True), _v2().CenterCrop(size)]


def _tensor() -> list[Any]:
    v2 = _v2()
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor()]
